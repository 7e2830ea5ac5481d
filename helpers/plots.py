"""One look for all figures of the course. Every plot takes data and, if you like, the Axes to draw on."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import NullLocator
from PIL import Image

from helpers.compare import mean_interval

__all__ = [
    "AFTER",
    "BEFORE",
    "STAGE_COLORS",
    "TRAIN",
    "VALIDATION",
    "WITH",
    "WITHOUT",
    "gain_color",
    "layer_colors",
    "plot_activations",
    "plot_gradients",
    "plot_histogram",
    "plot_loss",
    "plot_loss_log",
    "plot_loss_log_curves",
    "plot_parameter_gradients",
    "plot_saturation_map",
    "plot_update_ratios",
    "reference_line",
    "show",
    "small_png",
    "use_style",
]

# Okabe and Ito's palette, safe for colour-blind readers, without the yellow that vanishes on white.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
GRAY = "#666666"
# Pairs that mean the same in every figure; in each the two differ in lightness too, so a grey print keeps them apart.
BEFORE, AFTER = ORANGE, BLUE
TRAIN, VALIDATION = PURPLE, "#6B2C5C"  # light and dark purple
WITHOUT, WITH = "#A0A0A0", "#00734F"  # grey, dark green
# From low gains (light orange) to high ones (dark red); depth has viridis, in layer_colors.
GAINS = LinearSegmentedColormap.from_list("gains", ["#F2B25C", "#E0662F", "#A81E2D", "#4A0A1E"])
STAGE_COLORS = dict(original=VERMILION, softmax=BLUE, tanh=GREEN, kaiming=ORANGE, batchnorm=PURPLE)
STAGE_LABELS = {
    "original": "original",
    "softmax": "initial loss fixed",
    "tanh": "tanh unsaturated",
    "kaiming": "Kaiming init",
    "batchnorm": "batch norm",
}

STYLE = {
    "figure.figsize": (10, 3.8),
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.prop_cycle": plt.cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": True,  # 10⁻³ on linear axes, as on log ones
}


def use_style():
    """Give all figures of this session the course's look."""
    plt.rcParams.update(STYLE)


def show(fig, alt):
    """Display a figure with a text that says what it shows, for readers who can't see it, and close it."""
    pixels = io.BytesIO()
    fig.savefig(pixels, format="png", dpi=150)
    plt.close(fig)
    png = small_png(pixels)
    width = round(fig.get_figwidth() * 100)  # at 100 dpi: sharp on a dense screen, a page wide
    # A folded output shows its plain text: repr gives nothing away, as the alt text would.
    data, metadata = {"image/png": png, "text/plain": repr(fig)}, {"image/png": {"alt": alt, "width": width}}
    display(data, raw=True, metadata=metadata)


def small_png(pixels):
    """A PNG file object, made small: base64 text. 256 colours are plenty for lines and text, a third of the size."""
    buffer = io.BytesIO()
    palette = Image.open(pixels).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    palette.save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def gain_color(gain):
    """The colour of an init gain in every figure: one ramp over log gain, from 0.2 to 5."""
    return GAINS(np.log(float(gain) / 0.2) / np.log(25))


def reference_line(ax, value, label, *, axis="y", color=GRAY, side="right"):
    """A labelled dashed line across the Axes at a value of its y axis (or of its x axis).

    side: where the label of a horizontal line stands: at its "right" end, its "left" end, or "outside", beside
    the Axes, where nothing is drawn over it.
    """
    horizontal, offset, ha, va = axis == "y", (3, -3), "left", "top"
    line, place = (ax.axhline, ax.get_yaxis_transform()) if horizontal else (ax.axvline, ax.get_xaxis_transform())
    line(value, color=color, linestyle="--", linewidth=1.1, zorder=1.5)
    if horizontal:
        offset, ha, va = dict(
            right=((-3, 3), "right", "bottom"), left=((3, 3), "left", "bottom"), outside=((4, 0), "left", "center")
        )[side]
    ax.annotate(
        label,
        (0 if side == "left" else 1, value) if horizontal else (value, 1),
        xycoords=place,
        xytext=offset,
        textcoords="offset points",
        ha=ha,
        va=va,
        fontsize=9.5,
        color=color,
        bbox=dict(facecolor="white", edgecolor="none", alpha=0.7, pad=0.5),  # legible where a line passes below
    )


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
    _, _, (outline,) = ax.hist(
        _array(values).ravel(), bins=bins, range=range, label=label, color=color, density=True, histtype="stepfilled"
    )
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


# The four pictures of diagnose and train: one function each, for cells and for panels.


def plot_activations(diagnosis, *, ax=None, layers=None, legend=True):
    """Viz #1: the distribution of what each layer puts out, one outline per layer; a peak at 0 may be cut.

    layers: a layer class or a tuple of them; by default the nonlinearities (all layers, if there is none).
    legend: False leaves the labels, with std and saturated share, to the caller. Source: the lecture, 1:26:51.
    """
    rows = _layer_rows(diagnosis, diagnosis.activations, layers)
    labels = []
    for row in rows:
        share = f", {row.saturated:.1%} saturated" if row.saturated is not None else ""
        share = f", {row.dead:.1%} dead" if row.dead is not None else share
        labels.append(f"{row.name}: std {short(row.std)}{share}")
    return _outlines(rows, labels, "activation", ax, legend)


def plot_gradients(diagnosis, *, ax=None, layers=None, legend=True):
    """Viz #2: the distribution of the loss's gradient at each layer's output. layers, legend: as in plot_activations.

    Source: the lecture, 1:30:54.
    """
    if not diagnosis.gradients:
        raise ValueError("the diagnosis has no gradients: call diagnose with targets, or with a loss_fn")
    rows = _layer_rows(diagnosis, diagnosis.gradients, layers)
    labels = [f"{row.name}: std {short(row.std)}" for row in rows]
    return _symmetric(_outlines(rows, labels, "gradient at the layer's output", ax, legend), [row.std for row in rows])


def plot_parameter_gradients(diagnosis, *, ax=None, legend=True):
    """Viz #3: the distribution of each weight's gradient (two dimensions or more), with its grad:data ratio.

    Source: the lecture, 1:36:15.
    """
    rows = [row for row in diagnosis.parameters if len(row.shape) > 1]
    labels = [f"{row.name} {row.shape}: grad:data {short(row.grad_to_data)}" for row in rows]
    ax = _outlines(rows, labels, "gradient of the weight", ax, legend, [row.grad_histogram for row in rows])
    return _symmetric(ax, [row.grad_std for row in rows])


def plot_update_ratios(ratios, *, ax=None, every=1, legend=True):
    """Viz #4: each weight's update:data ratio by step, on a log axis, with the 1e-3 that is a rule of thumb.

    ratios: a History of train(..., record_ratios_every=k), or a dict of name -> array (records,), one record
    every `every` steps. Source: the lecture, 1:39:55.
    """
    ax = ax or plt.subplots()[1]
    every = getattr(ratios, "ratios_every", every)
    ratios = getattr(ratios, "update_ratio", ratios)
    if not ratios:
        raise ValueError("no update:data ratios: call train with record_ratios_every=k to record them")
    for (name, ratio), color in zip(ratios.items(), layer_colors(len(ratios)), strict=True):
        ratio = _array(ratio)
        ax.plot(np.arange(len(ratio)) * every, ratio, color=color, label=name, linewidth=1.2)
    ax.set(xlabel="step", ylabel="update:data ratio")
    log_scale(ax)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    # Named in the legend: beside the line the text would lie on the ratios of a good learning rate.
    ax.axhline(1e-3, color=GRAY, linestyle="--", linewidth=1.1, zorder=1.5, label="1e-3, a rule of thumb")
    if legend:
        _legend_beside(ax)
    return ax


def layer_colors(n):
    """n colours, one per layer, from the input (dark) to the output (light): the same depth, the same colour."""
    return [plt.cm.viridis(x) for x in np.linspace(0, 0.85, n)]


def log_scale(ax):
    """A log y axis with its decades only: the ticks between them take half of the drawing time."""
    if ax.get_yscale() != "log":
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())


def short(value):
    """Two digits of a number, for titles and labels: 0.63, 140, 3.1e-5; "undefined" for None."""
    if value is None:
        return "undefined"
    if 99.5 <= abs(value) < 1000:
        return f"{value:.0f}"
    text = f"{value:.2g}" if 0.01 <= abs(value) < 1000 or not value else f"{value:.1e}"
    return text.replace("e-0", "e-").replace("e+0", "e+")


def _layer_rows(diagnosis, rows, layers):
    """The rows (of activations or of gradients, which are in step) of the layers asked for."""
    called = diagnosis.activations
    if layers is None:
        chosen = [row.is_activation for row in called]
    else:
        chosen = [issubclass(row.type, layers) for row in called]
    chosen = chosen if any(chosen) or layers is not None else [True] * len(called)
    return [row for row, wanted in zip(rows, chosen, strict=True) if wanted]


def _outlines(rows, labels, xlabel, ax, legend, histograms=None):
    """One outline per row, as a line: a panel redraws it ten times as fast as matplotlib's stairs."""
    ax = ax or plt.subplots()[1]
    histograms = histograms or [row.histogram for row in rows]
    highest = 0
    for histogram, label, color in zip(histograms, labels, layer_colors(len(rows)), strict=True):
        if histogram is None:  # NaN, or no gradient: the legend still says so
            ax.plot([], [], color=color, label=label)
            continue
        density, edges = map(_array, histogram)
        heights = np.concatenate([[0], np.repeat(density, 2), [0]])
        ax.plot(np.repeat(edges, 2), heights, color=color, label=label, linewidth=1.5)
        highest = max(highest, density[(edges[:-1] > 0) | (edges[1:] <= 0)].max(initial=0))
    if highest:  # the bin at 0 does not count: a ReLU's zeros would squeeze all else to the ground
        ax.set_ylim(0, 1.2 * highest)
    ax.set(xlabel=xlabel, ylabel="density")
    if legend:
        _legend_beside(ax)
    return ax


def _symmetric(ax, stds):
    """Cut the axis at four stds of the widest outline: single far entries would squeeze all else together."""
    limit = 4 * max((std for std in stds if std), default=0)
    if limit:
        ax.set_xlim(-limit, limit)
    return ax


def _legend_beside(ax):
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=9.5)


def _array(values):
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


# To here.


def plot_loss_log(log, *, ax=None):
    """Final train and validation loss of the five stages: means over the seeds, with 95 % t-intervals.

    log: what `make reproduce` wrote, as a dict. The intervals are those of each mean alone; whether two stages
    differ is read from helpers.compare.paired_difference, which is narrower.
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
            edge = (part.low if side == "right" else part.high) if part.n > 1 else part.mean
            ax.annotate(
                f"{part.mean:.4f}",
                (edge, row),
                xytext=(-8 if side == "right" else 8, 0),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=9.5,
            )
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
