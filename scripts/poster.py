"""The course on one page, to print: `python scripts/poster.py` writes data/results/poster.pdf and poster.png.

Everything on it is drawn from formulas, without data, a seed or a date, so that the same bytes come out every time.
"""

import io

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from common import RESULTS, write_atomically
from helpers.drawing import draw_network
from helpers.plots import BLUE, GRAY, VERMILION, few_colors, pixels, use_style

X = np.linspace(-1, 1, 401)
GAUGES = [  # title, what is healthy, what to turn: each a few short lines
    (
        "1 · activations",
        "Every layer has the same width.\nFew values lie at the ends of a tanh.\nNo unit is zero on every example.",
        "Narrower or wider with depth:\nthe gain, 1/√fan_in, a normalisation.\nDead units: bias, rate; start again.",
    ),
    (
        "2 · their gradients",
        "Every layer has the same width,\nfrom the loss back to the input.",
        "Shrinking or growing on the way back:\nthe gain, 1/√fan_in, a normalisation,\na shortcut.",
    ),
    (
        "3 · gradients of weights",
        "grad:data is alike in all hidden layers.\nA small output layer may start higher.",
        "One layer apart: that layer's own scale.\nNone at all: unused, frozen or detached.",
    ),
    (
        "4 · update:data",
        "1e-3 is a first aim for plain SGD; 1e-4 to\n1e-2 is usual; the best here: near 3e-3.\nThe lines keep together.",
        "All together too high or too low: learning\nrate. Fanned out by depth: the weights'\nscale. One apart: that layer.",
    ),
]
SYMPTOMS = [
    ("First loss far above ln(classes)", "the last layer is too large", "make it smaller at the start"),
    ("Loss stays at ln(classes)", "update:data far below 1e-4, or no gradient", "learning rate; look at the code"),
    ("Activations and gradients shrink with depth", "the gain is too low", "std of W = gain/√fan_in"),
    ("A tanh sits at ±1", "the gain is too high, or 1/√fan_in is forgotten", "the same; biases zero"),
    ("Units are zero for every example", "a step that was too large; biases too negative", "lower rate, start again"),
    ("NaN", "a step that was too large; 0/0; log(0)", "find the first layer that has one"),
]


def bell(width):
    return np.exp(-((X / width) ** 2) / 2) / width


def draw_gauges(axes):
    """The four pictures of a healthy network (blue) and of one that is ill (dashed)."""
    widths = (0.42, 0.45, 0.48)
    for ax, ill in ((axes[0], (0.3, 0.15, 0.08)), (axes[1], (0.08, 0.15, 0.3))):
        for width, bad in zip(widths, ill, strict=True):
            ax.plot(X, bell(width), color=BLUE)
            ax.plot(X, bell(bad), color=VERMILION, linestyle="--", linewidth=1)
        narrowest, widest = (5, 1) if ax is axes[0] else (1, 5)  # activations shrink forwards, gradients backwards
        ax.text(0.14, 7.4, f"layer {narrowest}", color=VERMILION, fontsize=8)
        ax.text(1, 1.65, "all layers", color=BLUE, fontsize=8, ha="right")
        ax.text(0.3, 3, f"layer {widest}", color=VERMILION, fontsize=8)
        ax.set(ylim=(0, 9), xlabel="value", ylabel="density")
        ax.set_xticks([-1, 0, 1])
    axes[2].plot(range(1, 6), [5e-3] * 5, "o-", color=BLUE)
    axes[2].plot(range(1, 6), [5e-3, 5e-3, 2e-1, 5e-3, 5e-3], "s--", color=VERMILION, linewidth=1, markersize=4)
    axes[2].set(yscale="log", ylim=(1e-4, 1), xlabel="layer", ylabel="grad:data", xticks=range(1, 6))
    steps = np.arange(0, 101)
    axes[3].axhspan(1e-4, 1e-2, color=BLUE, alpha=0.12, linewidth=0)
    axes[3].axhline(1e-3, color=GRAY, linestyle=":", linewidth=1.2)
    for start in (0.7, 1, 1.4):
        axes[3].plot(steps, 1e-3 * start * (1 + 2 * (1 - np.exp(-steps / 20))), color=BLUE)
        axes[3].plot(steps, 1e-5 * start**3 * np.ones_like(steps), color=VERMILION, linestyle="--", linewidth=1)
    axes[3].text(98, 2e-4, "1e-3", color=GRAY, fontsize=8, ha="right")
    axes[3].text(98, 1.3e-2, "usual: 1e-4 to 1e-2", color=BLUE, fontsize=8, ha="right")
    axes[3].set(yscale="log", ylim=(1e-6, 1), xlabel="step", ylabel="update:data", xlim=(0, 100))


def draw_poster():
    """The whole page, A4 across, as a Figure."""
    use_style()
    mpl.rcParams["figure.constrained_layout.use"] = False  # every place on the page is chosen by hand
    fig = Figure(figsize=(11.69, 8.27))
    fig.text(0.03, 0.955, "A network that does not train: where to look, what to turn", fontsize=19, weight="bold")
    first = "First of all, the loss at step 0: about ln(number of classes), 3.30 for 27. Then the four gauges."
    fig.text(0.03, 0.922, first, fontsize=11.5)
    draw_network(batch_norm=True, deep=True, ax=fig.add_axes((0.02, 0.69, 0.96, 0.23)))
    axes = [fig.add_axes((0.06 + 0.241 * i, 0.495, 0.18, 0.15)) for i in range(4)]
    draw_gauges(axes)
    for i, (title, healthy, turn) in enumerate(GAUGES):
        axes[i].set_title(title, fontsize=12, weight="bold")
        axes[i].tick_params(labelsize=8)
        left = 0.02 + 0.241 * i
        fig.text(left, 0.425, "healthy (blue)", fontsize=10, weight="bold", color=BLUE)
        fig.text(left, 0.417, healthy, fontsize=9.5, va="top", linespacing=1.3)
        fig.text(left, 0.336, "ill (dashed): what to turn", fontsize=10, weight="bold", color=VERMILION)
        fig.text(left, 0.328, turn, fontsize=9.5, va="top", linespacing=1.3)
    columns = (0.02, 0.35, 0.72)
    for left, title in zip(columns, ("What you see", "What it usually is", "What to do"), strict=True):
        fig.text(left, 0.235, title, fontsize=11.5, weight="bold")
    for i, row in enumerate(SYMPTOMS):
        for left, text in zip(columns, row, strict=True):
            fig.text(left, 0.208 - 0.029 * i, text, fontsize=10.5)
    note = "Ranges are where to look closer, not verdicts. Adam, momentum and a falling learning rate shift picture 4."
    fig.text(0.02, 0.022, note, fontsize=9, color=GRAY)
    source = "After Andrej Karpathy's lecture, youtu.be/P6sfmUTpUmc"
    fig.text(0.98, 0.022, source, fontsize=9, color=GRAY, ha="right")
    return fig


def poster_bytes():
    """{"pdf": bytes, "png": bytes}, the same in every call."""
    with mpl.rc_context():
        fig = draw_poster()
        pdf, png = io.BytesIO(), io.BytesIO()
        fig.savefig(pdf, format="pdf", metadata=dict.fromkeys(("CreationDate", "Producer", "Creator")))
        few_colors(pixels(fig, dpi=150), colors=32).save(png, "png")
        return {"pdf": pdf.getvalue(), "png": png.getvalue()}


def main():
    for kind, content in poster_bytes().items():
        write_atomically(RESULTS / f"poster.{kind}", content)


if __name__ == "__main__":
    main()
