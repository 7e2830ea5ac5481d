"""A network at a setting: what diagnose says of it, its pictures, and two panels that turn the setting.

Its pictures are those of helpers.plots, with limits that stand still, and a number in the title that says how it is.
"""

import math
from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from matplotlib.ticker import AutoLocator, FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from helpers import plots
from helpers.diagnostics import Histogram, diagnose
from helpers.layers import Linear
from helpers.models import NONLINEARITIES, SEED, deep_mlp, seeded
from helpers.train import train
from helpers.widgets.board import decades, legend, up
from helpers.widgets.panel import Panel, choice, default_splits, log_slider, seed_control, slider, switch

EXAMPLES = 200  # for a look: enough for a smooth histogram, few enough for a quick one
SHOWN = 6  # outlines in one picture: more lie on top of each other


def network_reading(model, X, Y, *, label, **more):
    """Diagnose a network: its rows that the pictures show, and its warnings. `helpers.plots` draws the reading as well.

    activations, gradients: rows of the hidden layers' outputs, from the first to the last; parameters: rows of what has
    two dimensions. label: the setting, for titles. more: as for diagnose.
    """
    found = diagnose(model, X, Y, **more)
    at = [i for i, row in enumerate(found.activations) if row.is_activation]
    if not at:  # fully linear: what stands before each Linear but the first
        at = [i - 1 for i, row in enumerate(found.activations) if row.type.__name__ == "Linear"][1:]
    activations, gradients = ([rows[i] for i in at] for rows in (found.activations, found.gradients))
    reading = SimpleNamespace(label=label, activations=activations, gradients=gradients, warnings=found.warnings)
    reading.parameters = [row for row in found.parameters if len(row.shape) > 1]
    return reading


def read_network(
    *, init_gain=5 / 3, depth=6, width=100, nonlinearity="tanh", batch_norm=False, seed=SEED, lr=0.1, splits=None
):
    """The network_reading of a fresh deep_mlp on the first 200 training examples, with expected_std.

    Settings of the same shape and seed share all their draws. depth counts the Linears, the output one included.
    """
    X, Y = (part[:EXAMPLES] for part in (splits or default_splits()).train)
    setting = dict(gain=init_gain, batch_norm=batch_norm, nonlinearity=nonlinearity)
    model = deep_mlp(depth=depth, n_hidden=width, generator=seeded(seed), **setting)
    reading = network_reading(model, X, Y, label=f"gain {init_gain:.2f}", lr=lr)
    given = dict(layers=len(reading.activations), input_square=model.embedding(X).square().mean().item())
    reading.expected_std = expected_std(**setting, **given)
    return reading


def read_update_ratios(
    *, learning_rate=0.1, init_gain=5 / 3, batch_norm=False, fan_in=True, steps=50, seed=SEED, splits=None
):
    """Train part 2's network for some steps; keep its losses, and the update:data of every weight in update_ratio.

    The rows of the network_reading are those of step 0, on the first minibatch. fan_in=False draws the weights without
    1/sqrt(fan_in), as the lecture tries at 1:43. The same seed gives the same weights and minibatches at every setting.
    """
    (X, Y), generator = (splits or default_splits()).train, seeded(seed)
    model = deep_mlp(gain=init_gain, batch_norm=batch_norm, generator=generator)
    for layer in model if not fan_in else ():
        if isinstance(layer, Linear):
            layer.weight.data *= math.sqrt(layer.weight.shape[-2])
    label = f"gain {init_gain:.2f}" + ("" if fan_in else ", no fan_in")
    ix = torch.randint(0, len(X), (32,), generator=generator.clone_state())  # the first step's minibatch
    reading = network_reading(model, X[ix], Y[ix], label=label, lr=learning_rate)
    options = dict(batch_size=32, generator=generator, record_ratios_every=1, progress=False)
    history = train(model, X, Y, steps=steps, lr=learning_rate, **options)
    reading.losses, reading.ratios_every = history.loss.tolist(), 1
    reading.update_ratio = {name: ratio.tolist() for name, ratio in history.update_ratio.items()}
    return reading


def expected_std(gain, layers, nonlinearity="tanh", *, batch_norm=False, input_square=1.0):
    """The std that the outputs of each of `layers` hidden layers would have if these were infinitely wide: a list.

    gain: the weights' std times sqrt(fan_in); input_square: the mean square of what the first layer receives.
    An input of mean square q gives pre-activations N(0, gain² q), or N(0, 1) with batch_norm. The mean square of their
    outputs is the next layer's q. Biases are zero. Source: Poole et al. 2016, "Exponential
    expressivity in deep neural networks", eq. 3.
    """
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.softmax(-(z**2) / 2, 0)  # averages over N(0, 1), to about seven digits
    f = (NONLINEARITIES[nonlinearity] or torch.nn.Identity)()
    square, stds = float(input_square), []
    for _ in range(layers):
        out = f(z if batch_norm else gain * math.sqrt(square) * z)
        mean, square = (density * out).sum().item(), (density * out**2).sum().item()
        stds.append(math.sqrt(max(square - mean**2, 0)))
    return stds


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
    ax.yaxis.set_major_locator(AutoLocator() if 0.1 < top < 100 else NullLocator())  # 1e-16 would say nothing
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
        limits = -1.05, 1.7, 4, [-1, -0.5, 0, 0.5, 1]  # room for the legend to the right of 1
    elif "Sigmoid" in kinds:
        limits = -0.03, 1.4, 8, [0, 0.25, 0.5, 0.75, 1]
    else:
        right = up(4 * max((row.std or 0) for row in rows) or 4)
        lowest = min((row.histogram.edges[0].item() for row in rows if row.histogram), default=-right)
        left = -right if lowest < -right / 4 else -right / 4  # a ReLU has hardly anything below 0
        limits = left, right, 4.8 / right, None
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
    ratios = [row.update_to_data or math.nan for row in reading.parameters]
    names = [_layer_name(row.name).replace("embedding", "C") for row in reading.parameters]
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
    low, high = decades(medians, 1e-5, 10)  # up to 10: room for the legend
    ax.set(xlim=(0, up(max((records - 1) * every, 49) + 1)), ylim=(10.0**low, 10.0**high))
    last = [values[-1] for values in ratios.values() if math.isfinite(values[-1])]
    said = f"step {(records - 1) * every:,}: median update:data {plots.short(float(np.median(last)))}" if last else ""
    ax.set(xlabel="step", ylabel="update:data ratio", title=said or "update:data")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    plots.log_scale(ax)


PICTURES = {  # those of gain_explorer, and which of them stand there at first
    "activations by layer": draw_activations,
    "gradients by layer": draw_gradients,
    "std by depth": draw_std_by_depth,
    "update:data by layer": draw_update_ratios_by_layer,
}
FIRST = "activations by layer", "std by depth"


def gain_slider(value, says="Multiplies every hidden weight, on top of 1/sqrt(fan_in)."):
    return slider("init gain", says, value, 0.2, 5, 1 / 30)  # 0.5, 1, 5/3 and 3 are among its values


def gain_explorer(
    *, gain=5 / 3, depth=6, width=100, nonlinearity="tanh", batch_norm=False, seed=SEED, pictures=FIRST, splits=None
):
    """Turn the init gain, and see what a fresh network makes of it: two pictures at a time, of four.

    While a slider moves, all random draws stay the same. "pin" keeps the present setting as faint lines.
    """
    kinds = list(NONLINEARITIES)
    controls = [
        gain_slider(gain),
        slider("depth", "How many Linears, the output one included.", depth, 2, 30, 1),
        slider("width", "Units in a hidden layer.", width, 10, 300, 10),
        choice("nonlinearity", "What follows each hidden Linear (linear: nothing).", nonlinearity, options=kinds),
        switch("batch norm", "A BatchNorm after every Linear, and no biases.", batch_norm),
        seed_control(seed),
    ]
    setting = f"{depth} Linears, {nonlinearity}, gain {gain:.2f}, batch norm {'on' if batch_norm else 'off'}"
    alt = f"{' and '.join(pictures).capitalize()} of a fresh network: {setting}. Live, sliders change the setting."
    return Panel(partial(read_network, splits=splits), PICTURES, controls, alt=alt, shown=pictures)


def update_ratio_explorer(*, lr=0.1, gain=5 / 3, batch_norm=False, fan_in=True, steps=50, seed=SEED, splits=None):
    """Turn the learning rate and the gain: update:data of each weight at step 0, and by step. Each move trains anew."""
    controls = [
        log_slider("learning rate", "What each gradient is multiplied by.", lr, -4, 1, 2),
        gain_slider(gain),
        switch("batch norm", "A BatchNorm after every Linear, and no biases.", batch_norm),
        switch("1/sqrt(fan_in)", "Off: the weights are plain randn times the gain.", fan_in, argument="fan_in"),
        slider("steps", "How long it trains at each move.", steps, 10, 200, 10),
        seed_control(seed),
    ]
    what = "The update:data ratio of every weight at step 0, and by step, on log axes with the line at 1e-3"
    alt = f"{what}; here at learning rate {lr:g}, gain {gain:.2f}."
    pictures = [draw_update_ratios_by_layer, draw_update_ratios_by_step]
    return Panel(partial(read_update_ratios, splits=splits), pictures, controls, alt=alt)
