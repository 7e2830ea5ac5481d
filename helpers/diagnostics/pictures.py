"""The lecture's four pictures, of one look at a network or of a training that was watched."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap

__all__ = ["layer_colors", "plot_activations", "plot_diagnosis", "plot_gradients", "plot_parameter_gradients"]
__all__ += ["plot_training", "plot_update_ratios"]

GRAY = "#666666"
MANY = 12  # labels that a legend beside the picture has room for; more layers have a colour bar


def layer_colors(n):
    """n colours, one a layer, from the input (dark) to the output (light): the same depth, the same colour."""
    return [plt.cm.viridis(x) for x in np.linspace(0, 0.85, n)]


def plot_activations(diagnosis, *, ax=None, layers=None):
    """Viz #1: the distribution of what each layer puts out, one outline a layer; a peak at 0 may be cut.

    layers: a layer class or a tuple of them; by default the nonlinearities (all layers, if there is none).
    Source: the lecture, 1:26:51.
    """
    rows = _layer_rows(diagnosis, diagnosis.activations, layers)
    labels = []
    for row in rows:
        share = f", {row.saturated:.1%} saturated" if row.saturated is not None else ""
        share = f", {row.dead:.1%} dead" if row.dead is not None else share
        labels.append(f"{row.name}: std {_number(row.std)}{share}")
    return _outlines(rows, labels, "activation", ax)


def plot_gradients(diagnosis, *, ax=None, layers=None):
    """Viz #2: the distribution of the loss's gradient at each layer's output. layers: as in plot_activations.

    Source: the lecture, 1:30:54.
    """
    if not diagnosis.gradients:
        raise ValueError("the diagnosis has no gradients: call diagnose with targets, or with a loss_fn")
    rows = _layer_rows(diagnosis, diagnosis.gradients, layers)
    labels = [f"{row.name}: std {_number(row.std)}" for row in rows]
    return _symmetric(_outlines(rows, labels, "gradient at the layer's output", ax), [row.std for row in rows])


def plot_parameter_gradients(diagnosis, *, ax=None):
    """Viz #3: the distribution of each weight's gradient (two dimensions or more), with its grad:data ratio.

    Source: the lecture, 1:36:15.
    """
    rows = [row for row in diagnosis.parameters if len(row.shape) > 1]
    labels = [f"{row.name} {row.shape}: grad:data {_number(row.grad_to_data)}" for row in rows]
    ax = _outlines(rows, labels, "gradient of the weight", ax, [row.grad_histogram for row in rows])
    return _symmetric(ax, [row.grad_std for row in rows])


def plot_update_ratios(ratios, *, ax=None, every=1):
    """Viz #4: each weight's update:data ratio by step, on a log axis, with the 1e-3 that is a rule of thumb.

    ratios: a History of train(..., record_ratios_every=k), or a dict of name -> array (records,), one record
    every `every` steps. Source: the lecture, 1:39:55.
    """
    every = getattr(ratios, "ratios_every", every)
    ratios = getattr(ratios, "update_ratio", ratios)
    if not ratios:
        raise ValueError("no update:data ratios: call train with record_ratios_every=k to record them")
    steps = {name: np.arange(len(_array(ratio))) * every for name, ratio in ratios.items()}
    return _lines(ratios, steps, "update:data ratio", ax, rule=True)


def plot_diagnosis(diagnosis):
    """The four pictures of a Diagnosis in one figure: what was not measured is said in its place."""
    fig, axes = plt.subplots(4, 1, figsize=(10, 13), layout="constrained")
    rows = _layer_rows(diagnosis, diagnosis.activations, None)
    if any(row.histogram for row in rows):
        plot_activations(diagnosis, ax=axes[0])
        if diagnosis.gradients:
            plot_gradients(diagnosis, ax=axes[1])
            plot_parameter_gradients(diagnosis, ax=axes[2])
    else:
        _stds(rows, "std of the activations", axes[0])
        if diagnosis.gradients:
            _stds(_layer_rows(diagnosis, diagnosis.gradients, None), "std of the gradients", axes[1])
            weights = [row for row in diagnosis.parameters if len(row.shape) > 1]
            _stds(weights, "grad:data of the weights", axes[2], [row.grad_to_data for row in weights])
    weights = [row for row in diagnosis.parameters if len(row.shape) > 1 and row.update_to_data]
    if weights:
        _stds(weights, "update:data ratio", axes[3], [row.update_to_data for row in weights])
        _rule(axes[3], weights[0].adam_to_data is None, [row.adam_to_data for row in weights])
    missing = "no gradients: call diagnose with targets, or with a loss_fn"
    for ax, text in zip(
        axes, ("no layer was seen", missing, missing, "no updates: give lr= or optimizer="), strict=True
    ):
        if not ax.has_data():
            ax.set_axis_off()
            ax.text(0.5, 0.5, text, ha="center", va="center", color=GRAY, transform=ax.transAxes)
    return fig


def plot_training(records, fig=None):
    """The four pictures of a training: (step, Diagnosis) by step, one line a layer or weight."""
    fig = fig or plt.figure(figsize=(10, 13), layout="constrained")
    axes = fig.subplots(4, 1, sharex=True)
    for ax, rows, field, label in zip(
        axes,
        ("activations", "gradients", "parameters", "parameters"),
        ("std", "std", "grad_to_data", "update_to_data"),
        ("std of the activations", "std of the gradients", "grad:data ratio", "update:data ratio"),
        strict=True,
    ):
        values, steps = {}, {}
        for step, diagnosis in records:
            chosen = getattr(diagnosis, rows)
            chosen = (
                [r for r in chosen if len(r.shape) > 1]
                if rows == "parameters"
                else _layer_rows(diagnosis, chosen, None)
            )
            for row in chosen:
                value = getattr(row, field)
                values.setdefault(row.name, []).append(np.nan if value is None else value)
                steps.setdefault(row.name, []).append(step)
        if values:
            _lines(values, steps, label, ax, rule=field == "update_to_data" and not _under_adam(records))
    for ax in axes[:-1]:
        ax.set_xlabel("")
    return fig


def _under_adam(records):
    return any(row.adam_to_data for _, diagnosis in records[-1:] for row in diagnosis.parameters)


def _layer_rows(diagnosis, rows, layers):
    """The rows (of activations or of gradients, which are in step) of the layers asked for."""
    called = diagnosis.activations
    if layers is None:
        chosen = [row.is_activation for row in called]
    else:
        chosen = [issubclass(row.type, layers) for row in called]
    chosen = chosen if any(chosen) or layers is not None else [True] * len(called)
    return [row for row, wanted in zip(rows, chosen, strict=bool(rows)) if wanted]


def _outlines(rows, labels, xlabel, ax, histograms=None):
    ax = ax or plt.subplots()[1]
    histograms = histograms or [row.histogram for row in rows]
    highest = 0
    for histogram, label, color in zip(histograms, labels, layer_colors(len(rows)), strict=True):
        if histogram is None:  # NaN, or no gradient: the legend still says so
            ax.plot([], [], color=color, label=label)
            continue
        density, edges = map(_array, histogram)
        ax.stairs(density, edges, color=color, label=label, linewidth=1.5 if len(rows) <= MANY else 0.8)
        highest = max(highest, density[(edges[:-1] > 0) | (edges[1:] <= 0)].max(initial=0))
    if highest:  # the bin at 0 does not count: a ReLU's zeros would squeeze all else to the ground
        ax.set_ylim(0, 1.2 * highest)
    ax.set(xlabel=xlabel, ylabel="density")
    _legend_beside(ax, labels)
    return ax


def _lines(values, steps, ylabel, ax, rule=False):
    ax = ax or plt.subplots()[1]
    for (name, value), color in zip(values.items(), layer_colors(len(values)), strict=True):
        ax.plot(steps[name], _array(value), color=color, label=name, linewidth=1.2 if len(values) <= MANY else 0.7)
    spread = np.concatenate([np.abs(_array(value)) for value in values.values()])
    is_wide = rule or np.nanmax(spread) > 10 * max(np.nanmin(spread), 1e-30) if np.isfinite(spread).any() else False
    ax.set(xlabel="step", ylabel=ylabel, yscale="log" if is_wide or "ratio" in ylabel else "linear")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    if rule:
        _rule(ax)
    _legend_beside(ax, list(values))
    return ax


def _stds(rows, ylabel, ax, values=None):
    """One number a row, as points by depth on a log axis."""
    values = [row.std for row in rows] if values is None else values
    y = [np.nan if value is None else value for value in values]
    ax.plot(range(len(rows)), y, color=GRAY, linewidth=0.8, zorder=1)
    ax.scatter(range(len(rows)), y, color=layer_colors(len(rows)), s=30, zorder=2)
    ax.set(ylabel=ylabel, yscale="log")
    shown = range(0, len(rows), -(-len(rows) // MANY)) if rows else []
    ax.set_xticks(shown, [_short(rows[i].name) for i in shown], rotation=30, ha="right", fontsize=9.5)
    return ax


def _rule(ax, by_thumb=True, adam=()):
    # Named in the legend: beside the line the text would lie on the ratios of a good learning rate.
    if by_thumb:
        ax.axhline(1e-3, color=GRAY, linestyle="--", linewidth=1.1, zorder=1.5, label="1e-3, a rule of thumb")
    else:
        y = [np.nan if value is None else value for value in adam]
        ax.plot(range(len(y)), y, "_", color=GRAY, label="0.25 lr / std, Adam's later")
    if ax.get_legend() is None and ax.collections:
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=9.5)


def _symmetric(ax, stds):
    """Cut the axis at four stds of the widest outline: single far entries would squeeze all else together.

    Of many outlines the widest quarter is cut as well.
    """
    stds = sorted(std for std in stds if std)
    if stds:
        limit = 4 * stds[-1 if len(stds) <= MANY else 3 * len(stds) // 4]
        ax.set_xlim(-limit, limit)
    return ax


def _legend_beside(ax, labels):
    if not labels:
        return
    if len(labels) <= MANY:
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=9.5)
        return
    ticks = np.linspace(0, len(labels) - 1, 6).round().astype(int)
    bar = ScalarMappable(plt.Normalize(0, len(labels) - 1), ListedColormap(layer_colors(256)))
    bar = ax.figure.colorbar(bar, ax=ax, ticks=ticks, aspect=12, pad=0.01)
    bar.ax.set_yticklabels([_short(labels[i].split(":")[0] if " " in labels[i] else labels[i]) for i in ticks])
    bar.ax.tick_params(labelsize=9.5)
    bar.ax.invert_yaxis()  # the first layer on top, as in a legend


def _short(name, most=28):
    return name if len(name) <= most else "…" + name[1 - most :]


def _number(value):
    return "undefined" if value is None else f"{value:.2g}" if abs(value) >= 0.01 else f"{value:.1e}"


def _array(values):
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
