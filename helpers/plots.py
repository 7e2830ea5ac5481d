"""One look for all figures of the course. Every plot takes data and, if you like, the Axes to draw on."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

from helpers.compare import mean_interval
from helpers.diagnostics import pictures

# The four pictures are drawn in helpers.diagnostics. They are public here, too, with what panels need of them.
plot_activations, plot_gradients = pictures.plot_activations, pictures.plot_gradients
plot_parameter_gradients, plot_update_ratios = pictures.plot_parameter_gradients, pictures.plot_update_ratios
layer_colors, log_scale, short = pictures.layer_colors, pictures.log_scale, pictures.short

# Okabe and Ito's palette, safe for colour-blind readers, without the yellow that vanishes on white.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
GRAY = "#666666"
# Pairs that mean the same in every figure. The two of a pair differ in lightness, so they differ in a grey print too.
BEFORE, AFTER = ORANGE, BLUE
TRAIN, VALIDATION = PURPLE, "#6B2C5C"  # light and dark purple
WITHOUT, WITH = "#A0A0A0", "#00734F"  # grey, dark green
# From low gains (light orange) to high ones (dark red); depth has viridis, in layer_colors.
GAINS = LinearSegmentedColormap.from_list("gains", ["#F2B25C", "#E0662F", "#A81E2D", "#4A0A1E"])
STAGE_COLORS = dict(original=VERMILION, softmax=BLUE, tanh=GREEN, kaiming=ORANGE, batchnorm=PURPLE)
STAGE_LABELS = dict(original="original", softmax="initial loss fixed", tanh="tanh unsaturated")
STAGE_LABELS |= dict(kaiming="Kaiming init", batchnorm="batch norm")
LABEL = dict(textcoords="offset points", fontsize=9.5)  # a text beside a point

STYLE = {"figure.figsize": (10, 3.8), "figure.constrained_layout.use": True, "lines.linewidth": 1.8}
STYLE |= {"font.size": 11, "axes.titlesize": 12, "axes.titlelocation": "left", "legend.frameon": False}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True}
STYLE |= {"grid.color": "#e4e4e4", "grid.linewidth": 0.8}
STYLE["axes.formatter.min_exponent"] = 3  # of a log axis: 0.01 and 100 as they are, 10³ as a power
STYLE["axes.prop_cycle"] = plt.cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY])


def use_style():
    """Give all figures of this session the course's look."""
    plt.rcParams.update(STYLE)


def show(fig, alt):
    """Display a figure with a text that says what it shows, for readers who can't see it, and close it."""
    buffer = io.BytesIO()
    few_colors(pixels(fig, dpi=150)).save(buffer, "png")
    png = base64.b64encode(buffer.getvalue()).decode()
    plt.close(fig)
    width = round(fig.get_figwidth() * 100)  # at 100 dpi: sharp on a dense screen, a page wide
    # A folded output shows its plain text. The alt text would give the result away there; repr does not.
    data, metadata = {"image/png": png, "text/plain": repr(fig)}, {"image/png": {"alt": alt, "width": width}}
    display(data, raw=True, metadata=metadata)


def pixels(fig, dpi):
    """The figure as an RGB image: what savefig would draw, without a PNG file in between."""
    own = fig.dpi
    fig.set_dpi(dpi)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    fig.set_dpi(own)
    return image


def few_colors(image, colors=128):
    """An RGB image with a palette: 128 colours are plenty for lines and text, and a PNG has a third of the size."""
    return image.quantize(colors, dither=Image.Dither.NONE)


def gain_color(gain):
    """The colour of an init gain in every figure: one ramp over log gain, from 0.2 to 5."""
    return GAINS(np.log(float(gain) / 0.2) / np.log(25))


def reference_line(ax, value, label, *, axis="y", color=GRAY, side="right"):
    """A labelled dashed line across the Axes at a value of its y axis (or of its x axis).

    side: where the label of a horizontal line stands: at its "right" end, its "left" end, or "outside", beside
    the Axes, where nothing is drawn over it.
    """
    look = dict(color=color, linestyle="--", linewidth=1.1, zorder=1.5)
    if axis == "x":
        ax.axvline(value, **look)
        end, transform, (offset, ha, va) = (value, 1), ax.get_xaxis_transform(), ((3, -3), "left", "top")
    else:
        ax.axhline(value, **look)
        end, transform = (0 if side == "left" else 1, value), ax.get_yaxis_transform()
        places = dict(right=((-3, 3), "right", "bottom"), left=((3, 3), "left", "bottom"))
        places["outside"] = (4, 0), "left", "center"
        offset, ha, va = places[side]
    box = dict(facecolor="white", edgecolor="none", alpha=0.7, pad=0.5)  # legible where a line passes below
    ax.annotate(label, end, offset, transform, ha=ha, va=va, color=color, bbox=box, **LABEL)


def plot_loss(losses, *, ax=None, window=None, label=None, color=None):
    """Minibatch losses by step: every step faintly, and the mean of each `window` steps as a line.

    losses: a History, or a tensor (steps,). window: by default a fiftieth of the run.
    """
    ax = ax or plt.subplots()[1]
    losses = _array(getattr(losses, "loss", losses))
    window = window or max(1, len(losses) // 50)
    means = losses[: len(losses) // window * window].reshape(-1, window).mean(1)
    (line,) = ax.plot(np.arange(len(means)) * window + (window - 1) / 2, means, label=label, color=color)
    steps = np.arange(0, len(losses), max(1, len(losses) // 5_000))  # no page shows more
    ax.plot(steps, losses[steps], color=line.get_color(), alpha=0.18, linewidth=0.6, zorder=1)
    ax.set(xlabel="step", ylabel="minibatch loss")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    return ax


def plot_histogram(values, *, ax=None, bins=60, range=None, label=None, color=None):
    """The distribution of a tensor's entries, as a density: the filled outline of its histogram."""
    ax = ax or plt.subplots()[1]
    look = dict(bins=bins, range=range, label=label, color=color, density=True, histtype="stepfilled")
    _, _, (outline,) = ax.hist(_array(values).ravel(), **look)
    color = outline.get_facecolor()
    outline.set(facecolor=(*color[:3], 0.18), edgecolor=color, linewidth=1.6)
    ax.set(ylabel="density")
    return ax


def plot_saturation_map(h, *, ax=None, threshold=0.99):
    """Which tanh outputs are saturated: white where |h| > threshold. h: (examples, units)."""
    ax = ax or plt.subplots(figsize=(10, 2.6))[1]
    ax.imshow(_array(h.abs() > threshold), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    ax.grid(False)
    ax.set(xlabel="unit", ylabel="example")
    return ax


def plot_loss_log(log, *, ax=None):
    """Final train and validation loss of the five stages: means over the seeds, with 95 % t-intervals.

    log: what `make reproduce` wrote, as a dict. Each interval is that of one mean. To see whether two
    stages differ, take helpers.compare.paired_difference, whose interval is narrower.
    """
    ax = ax or plt.subplots()[1]
    stages = list(log["stages"])
    for row, stage in enumerate(stages):
        color = STAGE_COLORS[stage]
        train, val = (mean_interval(log["stages"][stage][part]) for part in ("train", "val"))
        ax.plot([train.mean, val.mean], [row, row], color=color, linewidth=2.5, alpha=0.35)
        for part, face, side in (train, "white", "right"), (val, color, "left"):
            if part.n > 1:
                ax.errorbar(part.mean, row, xerr=part.high - part.mean, color=color, capsize=5, linewidth=1.3)
            ax.plot(part.mean, row, "o", color=color, markerfacecolor=face, markeredgewidth=1.6, markersize=6)
            edge, offset = (part.low, -8) if side == "right" else (part.high, 8)
            end = (edge if part.n > 1 else part.mean, row)
            ax.annotate(f"{part.mean:.4f}", end, (offset, 0), ha=side, va="center", **LABEL)
    seeds = f"\nmean and 95 % interval of {len(log['seeds'])} seeds" if len(log["seeds"]) > 1 else ""
    ax.set_yticks(range(len(stages)), [STAGE_LABELS[s] for s in stages])
    ax.set(xlabel=f"final loss (ring: train, dot: validation){seeds}", ylim=(len(stages) - 0.5, -0.5))
    ax.locator_params(axis="x", nbins=5)
    ax.margins(x=0.32)
    ax.grid(axis="y", visible=False)
    return ax


def plot_loss_log_curves(log, *, ax=None):
    """Minibatch loss by step of the five stages, smoothed: the mean over the seeds, with the range of all of them.

    log: what `make reproduce` wrote, as a dict.
    """
    ax = ax or plt.subplots()[1]
    for stage, result in log["stages"].items():
        curves, color = np.asarray(result["curve"]), STAGE_COLORS[stage]
        steps = (np.arange(curves.shape[1]) + 0.5) * log["curve_every"]
        ax.fill_between(steps, curves.min(0), curves.max(0), color=color, alpha=0.2, linewidth=0)
        ax.plot(steps, curves.mean(0), color=color, label=STAGE_LABELS[stage], linewidth=1.2)
    ax.set(xlabel="step", ylabel=f"minibatch loss, mean of {log['curve_every']:,} steps")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.legend()
    return ax


def _array(values):
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
