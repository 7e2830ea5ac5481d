"""The lecture's four pictures, of one look at a network or of a training that was watched."""

from itertools import compress

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap

from .axes import log_scale, short

GRAY = "#666666"
MANY = 12  # labels that a legend beside the picture has room for; more layers have a colour bar
BESIDE = dict(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=9.5)  # a legend
TOO_WIDE = 1e4  # between the stds of two outlines: all but one would be a needle, so points are drawn
MIDDLE = dict(ha="center", va="center", color=GRAY)  # a text in place of a picture
NO_GRADIENTS = "no gradients: call diagnose with targets, or with a loss_fn whose loss has one"
NO_STEPS = "no updates: give lr= or optimizer="
# One number a row for each picture: the rows, their field, the axis's label, what is said where there is none; and
# what is healthy.
PICTURES = (
    (
        "activations",
        "std",
        "std of the activations",
        "no layer was seen",
        "What the layers put out: about the same in all",
    ),
    ("gradients", "std", "std of the gradients", NO_GRADIENTS, "The gradients there: about the same in all layers"),
    (
        "parameters",
        "grad_to_data",
        "grad:data ratio",
        NO_GRADIENTS,
        "The weights' gradients: about the same share of each",
    ),
    ("parameters", "update_to_data", "update:data ratio", NO_STEPS, "The steps: about the same share of each weight"),
)


def layer_colors(n):
    """n colours, one a layer, from the input (dark) to the output (light): the same depth, the same colour."""
    return [plt.cm.viridis(x) for x in np.linspace(0, 0.85, n)]


def plot_activations(diagnosis, *, ax=None, layers=None, legend=True):
    """Viz #1: the distribution of what each layer puts out, one outline a layer; a peak at 0 may be cut.

    layers: a layer class or a tuple of them; by default the nonlinearities (all layers, if there is none).
    legend: False leaves the labels, with std and saturated share, to the caller. Source: the lecture, 1:26:51.
    """
    rows = _shown(diagnosis, "activations", layers)
    shares = [[(row.saturated, "saturated"), (row.dead, "dead")] for row in rows]
    shares = ["".join(f", {share:.1%} {word}" for share, word in pair if share is not None) for pair in shares]
    labels = [f"{_named(row)}: std {short(row.std)}{share}" for row, share in zip(rows, shares, strict=True)]
    return _outlines(rows, labels, "activation", ax, legend)


def plot_gradients(diagnosis, *, ax=None, layers=None, legend=True):
    """Viz #2: the distribution of the loss's gradient at each layer's output. layers, legend: as in plot_activations.

    Source: the lecture, 1:30:54.
    """
    if not diagnosis.gradients:
        raise ValueError(f"the diagnosis has {NO_GRADIENTS}")
    rows = _shown(diagnosis, "gradients", layers)
    labels = [f"{_named(row)}: std {short(row.std)}" for row in rows]
    return _symmetric(_outlines(rows, labels, "gradient at the layer's output", ax, legend), [row.std for row in rows])


def plot_parameter_gradients(diagnosis, *, ax=None, legend=True):
    """Viz #3: the distribution of each weight's gradient (two dimensions or more), with its grad:data ratio.

    Source: the lecture, 1:36:15.
    """
    rows = _shown(diagnosis, "parameters")
    labels = [f"{row.name} {row.shape}: grad:data {short(row.grad_to_data)}" for row in rows]
    ax = _outlines(rows, labels, "gradient of the weight", ax, legend, [row.grad_histogram for row in rows])
    return _symmetric(ax, [row.grad_std for row in rows])


def plot_update_ratios(ratios, *, ax=None, every=1, legend=True):
    """Viz #4: each weight's update:data ratio by step, on a log axis, with the 1e-3 that is a rule of thumb.

    ratios: a History of train(..., record_ratios_every=k), or a dict of name -> array (records,), one record
    every `every` steps. Source: the lecture, 1:39:55.
    """
    every = getattr(ratios, "ratios_every", every)
    ratios = getattr(ratios, "update_ratio", ratios)
    if not ratios:
        raise ValueError("no update:data ratios: call train with record_ratios_every=k to record them")
    steps = {name: np.arange(len(_array(ratio))) * every for name, ratio in ratios.items()}
    return _lines(ratios, steps, "update:data ratio", ax, rule=True, legend=legend)


def plot_diagnosis(diagnosis):
    """The four pictures of a Diagnosis in one figure: what was not measured is said in its place."""
    fig, axes = plt.subplots(4, 1, figsize=(10, 13), layout="constrained")
    outlines = plot_activations, plot_gradients, plot_parameter_gradients, None
    has_histograms = any(row.histogram for row in diagnosis.activations)
    for ax, (kind, field, label, missing, healthy), plot in zip(axes, PICTURES, outlines, strict=True):
        rows = [row for row in _shown(diagnosis, kind) if kind == "activations" or getattr(row, field)]
        values = [getattr(row, field) for row in rows if getattr(row, field)]
        if not values:
            missing = "no std above 0: the same number everywhere" if rows else missing
            missing = "NaN or infinity" if _has_nan(_shown(diagnosis, kind)) else missing
            ax.set_axis_off()
            ax.text(0.5, 0.5, missing, transform=ax.transAxes, **MIDDLE)
        elif plot and has_histograms and max(values) < TOO_WIDE * min(values):
            plot(diagnosis, ax=ax)
        else:
            _by_layer(ax, rows, field, label)
        ax.set_title(f"{healthy}, if healthy", loc="left", fontsize=10.5)
    return fig


def plot_training(records, fig=None):
    """The four pictures of a training: (step, Diagnosis) by step, one line a layer or weight."""
    fig = fig or plt.figure(figsize=(10, 13), layout="constrained")
    axes = fig.subplots(4, 1, sharex=True)
    under_adam = any(row.adam_to_data for _, diagnosis in records[-1:] for row in diagnosis.parameters)
    for ax, (kind, field, label, _, healthy) in zip(axes, PICTURES, strict=True):
        values, steps = {}, {}
        shown = [(step, _shown(diagnosis, kind)) for step, diagnosis in records]
        for step, rows in shown:
            for row in rows:
                values.setdefault(_named(row), []).append(getattr(row, field) or np.nan)
                steps.setdefault(_named(row), []).append(step)
        _lines(values, steps, label, ax, rule=field == "update_to_data" and not under_adam)
        title = f"{healthy}, if healthy"
        if broken := [step for step, rows in shown if _has_nan(rows)]:
            title = f"NaN or infinity in {len(broken)} of {len(records)} records, first at step {broken[0]:,}"
        ax.set_title(title, loc="left", fontsize=10.5)
    for ax in axes[:-1]:
        ax.set_xlabel("")
    return fig


def _shown(diagnosis, kind, layers=None):
    """The rows of one kind that are drawn: weights, and of the layers those that are asked for, or nonlinearities."""
    if kind == "parameters":
        return [row for row in diagnosis.parameters if len(row.shape) > 1]
    chosen = [row.is_activation if layers is None else issubclass(row.type, layers) for row in diagnosis.activations]
    if layers is None and not any(chosen):
        return getattr(diagnosis, kind)
    return list(compress(getattr(diagnosis, kind), chosen))  # gradients are in step with activations, or there are none


def _has_nan(rows):
    return any(row.nonfinite or getattr(row, "grad_nonfinite", 0) for row in rows)


def _outlines(rows, labels, xlabel, ax, legend=True, histograms=None):
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
        width = 1.5 if len(rows) <= MANY else 0.8
        ax.plot(np.repeat(edges, 2), heights, color=color, label=label, linewidth=width)
        highest = max(highest, density[(edges[:-1] > 0) | (edges[1:] <= 0)].max(initial=0))
    if highest:  # the bin at 0 does not count: a ReLU's zeros would squeeze all else to the ground
        ax.set_ylim(0, 1.2 * highest)
    ax.set(xlabel=xlabel, ylabel="density")
    if legend:
        _legend_beside(ax, [_named(row) for row in rows])
    return ax


def _lines(values, steps, ylabel, ax, rule=False, legend=True):
    """One line per name by step, on a log axis; a point where neither neighbour has a value to draw a line to."""
    ax = ax or plt.subplots()[1]
    width, has_values = 1.2 if len(values) <= MANY else 0.7, False
    for (name, value), color in zip(values.items(), layer_colors(len(values)), strict=True):
        known = np.pad(np.isfinite(_array(value)), 1)
        alone = known[1:-1] & ~known[:-2] & ~known[2:]
        points = dict(marker="o", markersize=4, markevery=alone) if alone.any() else {}
        ax.plot(steps[name], _array(value), color=color, label=_short(name), linewidth=width, **points)
        ax.update_datalim([(steps[name][0], 1), (steps[name][-1], 1)], updatey=False)  # the axis goes on beyond NaN
        has_values |= known.any()
    ax.set(xlabel="step", ylabel=ylabel)
    ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    if not has_values:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "no number above 0 in any record", transform=ax.transAxes, **MIDDLE)
        return ax
    log_scale(ax)
    if rule:
        _rule_of_thumb(ax)
    if legend:
        _legend_beside(ax, list(values))
    return ax


def _by_layer(ax, rows, field, label):
    """One number a row, as points by depth on a log axis."""
    y = [getattr(row, field) or np.nan for row in rows]
    ax.plot(range(len(rows)), y, color=GRAY, linewidth=0.8, zorder=1)
    ax.scatter(range(len(rows)), y, color=layer_colors(len(rows)), s=30, zorder=2)
    ax.set(ylabel=label)
    log_scale(ax)
    shown = range(0, len(rows), -(-len(rows) // MANY))
    ax.set_xticks(shown, [_short(_named(rows[i])) for i in shown], rotation=30, ha="right", fontsize=9.5)
    if field == "update_to_data":
        if rows[0].adam_to_data is None:
            _rule_of_thumb(ax)
        else:
            adam = [row.adam_to_data or np.nan for row in rows]
            ax.plot(range(len(rows)), adam, "_", color=GRAY, label="0.25 lr / std, Adam's after some 100 steps")
        ax.legend(**BESIDE)


def _rule_of_thumb(ax):
    # Named in the legend: beside the line the text would lie on the ratios of a good learning rate.
    ax.axhline(1e-3, color=GRAY, linestyle="--", linewidth=1.1, zorder=1.5, label="1e-3, a rule of thumb")


def _symmetric(ax, stds):
    """Cut the axis at four stds of the widest outline, of many at the third quarter's: far entries squeeze the rest."""
    stds = sorted(std for std in stds if std)
    if stds:
        limit = 4 * stds[-1 if len(stds) <= MANY else 3 * len(stds) // 4]
        ax.set_xlim(-limit, limit)
    return ax


def _legend_beside(ax, names):
    if len(names) <= MANY:
        ax.legend(**BESIDE)
        return
    ticks = np.linspace(0, len(names) - 1, 6).round().astype(int)
    bar = ScalarMappable(plt.Normalize(0, len(names) - 1), ListedColormap(layer_colors(256)))
    # Inside the panel's own axes, as a legend is: beside another panel's legend, no room is taken twice.
    bar = ax.figure.colorbar(bar, cax=ax.inset_axes([1.01, 0, 0.025, 1]), ticks=ticks)
    bar.ax.set_yticklabels([_short(names[i]) for i in ticks])
    bar.ax.tick_params(labelsize=9.5)
    bar.ax.invert_yaxis()  # the first layer on top, as in a legend


def _named(row):
    """A layer's name; of one that is only a number, as in nn.Sequential, with its type: "1 (Tanh)"."""
    return f"{row.name} ({row.type.__name__})" if row.name.rpartition(".")[2].isdigit() else row.name


def _short(name, most=26):
    """A long name without ".weight", or its end from a dot on: "…h.0.attn.c_attn"."""
    if len(name) > most:
        name = name.removesuffix(".weight")
    end = name[1 - most :]
    return name if len(name) <= most else "…" + (end.partition(".")[2] or end)


def _array(values):
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
