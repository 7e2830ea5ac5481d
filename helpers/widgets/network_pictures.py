"""The pictures of a network: ordinary functions draw(reading, ax), for three panels and for any cell.

reading: a network_reading of helpers.widgets.network. Those of the lecture's four are drawn by helpers.plots, as in a
cell; what is added here keeps limits still while a slider moves, and puts the telling number into the title.
"""

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from matplotlib.ticker import AutoLocator, FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from helpers import plots
from helpers.diagnostics import Histogram
from helpers.widgets.board import decades, legend, up

SHOWN = 6  # outlines in one picture: more lie on top of each other


def _some(rows):
    """At most SHOWN of them, evenly spaced, the first and the last included."""
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SHOWN)).round().astype(int))]


def _layer_name(label):
    """ "linear1" of "linear1.weight (30, 100): grad:data 2.1e-2"."""
    return label.split(":")[0].split(" (")[0].removesuffix(".weight")


def _finish_outlines(ax, reading, said, left=-4, right=4, top=2, ticks=(-4, -2, 0, 2, 4)):
    """Limits that stand still while a slider moves; a legend of the layers' names; a title with the setting."""
    ax.set(xlim=(left, right), ylim=(0, top), title=f"{reading.label}: {said}" if reading.label else said)
    ax.xaxis.set_major_locator(FixedLocator(ticks) if ticks else MaxNLocator(6))
    ax.yaxis.set_major_locator(AutoLocator() if 0.1 < top < 100 else NullLocator())  # a density of 1e-16 says nothing
    legend(ax, names=_layer_name, loc="upper right")


def draw_activations(reading, ax):
    """Viz #1 of at most six layers, with the worst saturated (or dead) share in the title."""
    rows = reading.activations
    plots.plot_activations(SimpleNamespace(activations=_some(rows)), ax=ax, legend=False)
    ends = f"std {plots.short(rows[0].std)} first, {plots.short(rows[-1].std)} last"
    said = "no finite numbers" if rows[-1].std is None else ends
    for share in "dead", "saturated":
        known = [row for row in rows if getattr(row, share) is not None]  # None where there is NaN
        if known:
            worst = max(known, key=lambda row: getattr(row, share))
            said = f"{getattr(worst, share):.1%} {share} in {worst.name}"
    kinds = {row.type.__name__ for row in rows}
    if "Tanh" in kinds:
        limits = -1.05, 1.7, 4, [-1, -0.5, 0, 0.5, 1]  # the legend stands beside what piles up at 1
    elif "Sigmoid" in kinds:
        limits = -0.03, 1.4, 8, [0, 0.25, 0.5, 0.75, 1]
    else:
        right = up(4 * max((row.std or 0) for row in rows) or 4)
        one_sided = {"ReLU", "GELU", "ELU", "LeakyReLU"} & kinds
        limits = -right / 4 if one_sided else -right, right, 4.8 / right, None
    _finish_outlines(ax, reading, said, *limits)


def _scaled(rows, grad=""):
    """At most six of them, their histograms in units of the widest outline's std: only their ratios matter."""
    rows, name = _some(rows), f"{grad}histogram"
    unit = max((getattr(row, f"{grad}std") or 0) for row in rows) or 1.0
    scaled = ((h := getattr(row, name)) and Histogram(h.density * unit, h.edges / unit) for row in rows)
    return [replace(row, **{name: histogram}) for row, histogram in zip(rows, scaled, strict=True)]


def draw_gradients(reading, ax):
    """Viz #2 of at most six layers, in units of the widest outline's std."""
    rows = reading.gradients
    few = SimpleNamespace(activations=_some(reading.activations), gradients=_scaled(rows))
    plots.plot_gradients(few, ax=ax, legend=False)
    ax.set_xlabel("gradient at the output, in stds of the widest")
    first, last = rows[0].std, rows[-1].std
    said = f"first layer's std {plots.short(first / last)} × the last's" if first and last else "no finite gradient"
    _finish_outlines(ax, reading, f"std {plots.short(first)}" if first and len(rows) == 1 else said)


def draw_weight_gradients(reading, ax):
    """Viz #3 of at most six weights, in units of the widest outline's std, with the largest grad:data."""
    few = SimpleNamespace(parameters=_scaled(reading.parameters, "grad_"))
    plots.plot_parameter_gradients(few, ax=ax, legend=False)
    ax.set_xlabel("weight gradient, in stds of the widest")
    known = [row for row in reading.parameters if row.grad_to_data]
    most = max(known, key=lambda row: row.grad_to_data, default=None)
    said = most and f"largest grad:data {plots.short(most.grad_to_data)} ({_layer_name(most.name)})"
    _finish_outlines(ax, reading, said or "no finite gradient arrives")


def _draw_points(ax, values, labels, ylim, ylabel):
    """One number per layer, on a log axis, with room for the legend at its foot."""
    low, high = ylim
    low -= math.ceil(0.25 * (high - low))
    ax.plot(range(len(values)), values, "o", color=plots.BLUE, markersize=6, label="this network", zorder=3)
    every = max(1, -(-len(labels) // 10))  # ten labels at most: wider ones would touch
    ax.xaxis.set_major_locator(FixedLocator(range(0, len(labels), every)))
    ax.xaxis.set_major_formatter(FixedFormatter(labels[::every]))
    ax.set(xlabel="layer", ylabel=ylabel, xlim=(-0.5, len(labels) - 0.5), ylim=(10.0**low, 10.0**high))
    plots.log_scale(ax)
    legend(ax, loc="lower left", fontsize=9)


def draw_std_by_depth(reading, ax):
    """The std of what each layer puts out, with the curve that theory gives for infinitely wide layers."""
    stds, theory = [row.std or math.nan for row in reading.activations], reading.expected_std
    ax.plot(range(len(theory)), theory, color=plots.GRAY, linewidth=1.6, label="theory, infinitely wide")
    labels = [str(i) for i in range(1, len(stds) + 1)]
    _draw_points(ax, stds, labels, decades([*stds, *theory], 0.2, 1), "std of the layer's output")
    ax.set_title(f"std {plots.short(reading.activations[-1].std)} in layer {len(stds)}")


def draw_update_ratios_by_layer(reading, ax):
    """Viz #4 at one moment: update:data of every weight, with the rule of thumb."""
    rows = reading.parameters
    ratios = [row.update_to_data or math.nan for row in rows]
    names = [_layer_name(row.name).replace("embedding", "C") for row in rows]
    prefix = Counter(name.rstrip("0123456789") for name in names).most_common(1)[0][0]
    ax.axhline(1e-3, color=plots.GRAY, linestyle="--", linewidth=1.1, zorder=1.5, label="1e-3, a rule of thumb")
    labels = [name.removeprefix(prefix) or name for name in names]
    _draw_points(ax, ratios, labels, decades(ratios, 1e-4, 1), "update:data of the weight")
    middle = np.nanmedian(ratios) if not np.isnan(ratios).all() else None
    ax.set_title(f"median update:data {plots.short(middle)}")


def draw_update_ratios_by_step(reading, ax):
    """Viz #4: each weight's update:data by step, with the median of the last ones in the title."""
    ratios, every = reading.update_ratio, reading.ratios_every
    if ratios:
        plots.plot_update_ratios(reading, ax=ax, legend=False)
        legend(ax, names=_layer_name, loc="upper right", ncols=2, fontsize=8, handlelength=1.0)
    records = len(next(iter(ratios.values()), []))
    medians = [np.nanmedian(values) for values in ratios.values() if np.isfinite(values).any()]
    low, high = decades(medians, 1e-5, 10)  # room for the legend above 1
    ax.set(xlim=(0, up(max((records - 1) * every, 49) + 1)), ylim=(10.0**low, 10.0**high))
    ax.set(xlabel="step", ylabel="update:data ratio")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    plots.log_scale(ax)
    last = [values[-1] for values in ratios.values() if math.isfinite(values[-1])]
    said = f"step {(records - 1) * every:,}: median update:data {plots.short(float(np.median(last)))}" if last else ""
    ax.set_title(said or "update:data")


PICTURES = {  # those of gain_explorer, and which of them stand there at first
    "activations by layer": draw_activations,
    "gradients by layer": draw_gradients,
    "std by depth": draw_std_by_depth,
    "update:data by layer": draw_update_ratios_by_layer,
}
FIRST = "activations by layer", "std by depth"
