"""Pictures that move: what a slider panel redraws, and what an ordinary cell can draw once.

A picture has a frame (limits, labels, reference lines), built once, and artists that move from one reading to
the next. `draw(picture, reading)` makes a still of it; helpers.widgets.panel redraws only what moves.
"""

import math
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from helpers.plots import BLUE, GRAY, layer_colors, reference_line

__all__ = [
    "ActivationsByLayer",
    "GradientsByLayer",
    "LossByStep",
    "Picture",
    "StdByDepth",
    "UpdateRatiosByLayer",
    "UpdateRatiosByStep",
    "WeightGradientsByLayer",
    "draw",
]

PINNED = dict(color="#999999", alpha=0.75, linewidth=1.1, zorder=1.6)
SHOWN = 6  # outlines in one picture: more lie on top of each other


class Picture:
    """One Axes of a panel. A subclass says what its frame is, builds it, and moves its artists.

    frame(reading) -> anything comparable: while it stays equal, only `move` is called. build(ax, reading) draws
    the frame and makes the artists in `moving`; move(reading) gives them their data. `pinned`: an earlier
    reading to draw faintly behind the present one, or None.
    """

    pinned = None
    moving = ()

    def frame(self, reading):
        return None

    def build(self, ax, reading):
        raise NotImplementedError

    def move(self, reading):
        raise NotImplementedError


def draw(picture, reading, *, ax=None):
    """One picture of one reading, as an ordinary figure's Axes."""
    ax = ax or plt.subplots()[1]
    picture.build(ax, reading)
    picture.move(reading)
    return ax


def up(value):
    """The next round number: limits in steps, so that they rarely change while a slider moves."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 5, 7.5, 10) if step * power >= value * (1 - 1e-9))


def decades(values, most, least):
    """Limits of a log axis, as powers of ten: from `least` to `most`, or by three decades more, as often as needed."""
    values = np.array(values, dtype=float)
    logs = np.log10(values[np.isfinite(values) & (values > 0)])
    low, high = math.floor(math.log10(least) - 0.05), math.ceil(math.log10(most) + 0.05)
    if len(logs):
        low -= 3 * max(0, math.ceil((low - logs.min() + 0.05) / 3))
        high += 3 * max(0, math.ceil((logs.max() - high + 0.05) / 3))
    return low, high


def _some(items):
    """At most SHOWN of them, evenly spaced, the first and the last included."""
    at = np.unique(np.linspace(0, len(items) - 1, min(len(items), SHOWN)).round().astype(int))
    return [items[i] for i in at]


class _Outlines(Picture):
    """The outlines of several histograms, one a layer."""

    xlabel = ""

    def outlines(self, reading):
        """[(label, density, edges)], from the first layer to the last; the same labels for the same network."""
        raise NotImplementedError

    def limits(self, reading):
        """(left, right, top) of the Axes."""
        raise NotImplementedError

    def ticks(self, reading):
        """Where the axis has numbers, if the usual places won't do."""
        return []

    def title(self, reading):
        return ""

    def frame(self, reading):
        return self.limits(reading), tuple(label for label, *_ in self.outlines(reading)), id(self.pinned)

    def build(self, ax, reading):
        outlines = self.outlines(reading)
        colors = layer_colors(len(outlines))
        empty = np.zeros(100), np.linspace(0, 1, 101)
        for _, density, edges in self.outlines(self.pinned) if self.pinned else []:
            ax.stairs(density, edges, **PINNED)
        self.stairs = [
            ax.stairs(*empty, color=color, label=label, linewidth=1.5)
            for color, (label, *_) in zip(colors, outlines, strict=True)
        ]
        left, right, top = self.limits(reading)
        ax.set(xlim=(left, right), ylim=(0, top), xlabel=self.xlabel, ylabel="density")
        ax.tick_params(labelleft=0.1 < top < 100)  # a density of 1e-16 says nothing
        ax.xaxis.set_major_locator(MaxNLocator(6))
        if self.ticks(reading):
            ax.set_xticks(self.ticks(reading))
        ax.legend(fontsize=8.5, loc="upper right", labelspacing=0.25, handlelength=1.2)
        self.heading = ax.set_title(self.title(reading))
        self.moving = [*self.stairs, self.heading]

    def move(self, reading):
        for stairs, (_, density, edges) in zip(self.stairs, self.outlines(reading), strict=True):
            stairs.set_data(density, edges)
        self.heading.set_text(self.title(reading))


def _outline(label, histogram, scale=1.0):
    if histogram is None:  # NaN or infinity among its values
        return label, np.full(100, np.nan), np.linspace(0, 1, 101)
    return label, histogram.density.numpy() * scale, histogram.edges.numpy() / scale


class ActivationsByLayer(_Outlines):
    """Viz #1: what each layer puts out, with the worst saturated (or dead) share in the title."""

    name, xlabel = "activations by layer", "activation"

    def outlines(self, reading):
        return [_outline(row.name, row.histogram) for row in _some(reading.layers)]

    def limits(self, reading):
        kinds = {row.type.__name__ for row in reading.layers}
        if "Tanh" in kinds:
            return -1.05, 1.7, 4  # the legend stands beside what piles up at 1
        if "Sigmoid" in kinds:
            return -0.03, 1.4, 8
        right = up(4 * max((row.std or 0) for row in reading.layers) or 4)
        left = -right if not {"ReLU", "GELU", "ELU", "LeakyReLU"} & kinds else -right / 4
        return left, right, 4.8 / right

    def ticks(self, reading):
        left, right, _ = self.limits(reading)
        bounded = {(-1.05, 1.7): [-1, -0.5, 0, 0.5, 1], (-0.03, 1.4): [0, 0.25, 0.5, 0.75, 1]}
        return bounded.get((left, right), [])  # nothing can lie beneath the legend

    def title(self, reading):
        rows = reading.layers
        for share in "saturated", "dead":
            known = [row for row in rows if getattr(row, share) is not None]  # None where there is NaN
            if known:
                worst = max(known, key=lambda row: getattr(row, share))
                return _titled(reading, f"{getattr(worst, share):.1%} {share} in {worst.name}")
        if rows[-1].std is None:
            return _titled(reading, "no finite numbers")
        return _titled(reading, f"std {_short(rows[0].std)} first, {_short(rows[-1].std)} last")


class _Gradients(_Outlines):
    """Outlines of gradients, in units of the widest one's std: only their ratios matter."""

    def spreads(self, reading):
        """[(label, std, histogram)], from the first layer to the last."""
        raise NotImplementedError

    def outlines(self, reading):
        rows = _some(self.spreads(reading))
        widest = max((std or 0) for _, std, _ in rows) or 1.0
        return [_outline(label, histogram, widest) for label, _, histogram in rows]

    def limits(self, reading):
        return -4, 4, 2

    def ticks(self, reading):
        return [-4, -2, 0, 2, 4]


class GradientsByLayer(_Gradients):
    """Viz #2: the loss's gradient at each layer's output, in units of the widest outline's std."""

    name, xlabel = "gradients by layer", "gradient, in stds of the widest"

    def spreads(self, reading):
        return [(row.name, row.std, row.histogram) for row in reading.layer_gradients]

    def title(self, reading):
        first, last = reading.layer_gradients[0], reading.layer_gradients[-1]
        if not first.std or not last.std:
            return _titled(reading, "no finite gradient")
        if first is last:
            return _titled(reading, f"std {_short(first.std)}")
        return _titled(reading, f"first layer's std {_short(first.std / last.std)} × the last's")


class WeightGradientsByLayer(_Gradients):
    """Viz #3: each weight's gradient, in units of the widest outline's std, with the largest grad:data."""

    name, xlabel = "weight gradients", "weight gradient, in stds of the widest"

    def spreads(self, reading):
        return [(row.name.removesuffix(".weight"), row.grad_std, row.grad_histogram) for row in reading.weights]

    def title(self, reading):
        rows = [row for row in reading.weights if row.grad_to_data]
        if not rows:
            return "no finite gradient arrives"
        most = max(rows, key=lambda row: row.grad_to_data)
        return f"largest grad:data {_short(most.grad_to_data)} ({most.name.removesuffix('.weight')})"


class _Points(Picture):
    """One number a layer, on a log axis, perhaps with a curve that theory gives."""

    name = ylabel = ""
    xlabel = "layer"
    most, least = 1.0, 1.0  # what the axis shows at least

    def points(self, reading):
        """The numbers, from the first layer to the last; NaN where there is none."""
        raise NotImplementedError

    def curve(self, reading):
        return None

    def labels(self, reading):
        return [str(i) for i in range(1, len(self.points(reading)) + 1)]

    def title(self, reading):
        return ""

    def limits(self, reading):
        values = [*self.points(reading), *(self.curve(reading) or [])]
        low, high = decades(values, self.most, self.least)
        if self.curve(reading) is not None:
            low -= math.ceil(0.15 * (high - low))  # room for the legend, so that it covers nothing
        return 10.0**low, 10.0**high

    def frame(self, reading):
        return self.limits(reading), tuple(self.labels(reading)), id(self.pinned)

    def build(self, ax, reading):
        labels = self.labels(reading)
        x = np.arange(len(labels))
        if self.pinned:
            pinned = self.points(self.pinned)
            ax.plot(np.arange(len(pinned)), pinned, "o-", markersize=4, **PINNED)
        (self.line,) = ax.plot([], [], "-", color=GRAY, linewidth=1.6, label="theory, infinitely wide")
        (self.dots,) = ax.plot([], [], "o", color=BLUE, markersize=6, label="this network")
        if self.curve(reading) is not None:
            ax.legend(loc="lower left", fontsize=9)
        every = max(1, len(labels) // 12)
        ax.set_xticks(x[::every], labels[::every], fontsize=9)
        ax.set(
            xlabel=self.xlabel,
            xlim=(-0.5, len(labels) - 0.5),
            ylim=self.limits(reading),
            yscale="log",
            ylabel=self.ylabel,
        )
        ax.yaxis.set_minor_locator(NullLocator())  # half of the drawing time
        self.mark(ax)
        self.heading = ax.set_title(self.title(reading))
        self.moving = [self.line, self.dots, self.heading]

    def mark(self, ax):
        """Reference lines, if any."""

    def move(self, reading):
        points, curve = self.points(reading), self.curve(reading)
        self.dots.set_data(np.arange(len(points)), points)
        if curve is not None:
            self.line.set_data(np.arange(len(curve)), curve)
        self.heading.set_text(self.title(reading))


class StdByDepth(_Points):
    """The std of what each layer puts out, with the curve that theory gives for infinitely wide layers."""

    name, ylabel = "std by depth", "std of the layer's output"
    least = 0.2

    def points(self, reading):
        return [row.std or math.nan for row in reading.layers]

    def curve(self, reading):
        return reading.expected_std

    def title(self, reading):
        return _titled(reading, f"std {_short(reading.layers[-1].std)} in layer {len(reading.layers)}")


class UpdateRatiosByLayer(_Points):
    """Viz #4 at one moment: update:data of every weight, with the rule of thumb."""

    name, ylabel = "update:data by layer", "update:data of the weight"
    most, least = 1.0, 1e-5

    def points(self, reading):
        return [row.update_to_data or math.nan for row in reading.weights]

    def labels(self, reading):
        return _names(reading.weights)

    def mark(self, ax):
        reference_line(ax, 1e-3, "1e-3, a rule of thumb")

    def title(self, reading):
        ratios = [row.update_to_data for row in reading.weights if row.update_to_data]
        middle = _short(float(np.median(ratios))) if ratios else "undefined"
        return _titled(reading, f"median update:data {middle}")


def _titled(reading, text):
    return f"{reading.label}: {text}" if reading.label else text


def _names(rows):
    """C, 1, 2, …: the weights' layers, short enough for an axis."""
    names = [row.name.removesuffix(".weight").replace("embedding", "C") for row in rows]
    kinds = Counter(name.rstrip("0123456789") for name in names)
    prefix = kinds.most_common(1)[0][0]
    return [name.removeprefix(prefix) or name for name in names]


class LossByStep(Picture):
    """The minibatch losses so far, and their running mean. reading.losses: a list of numbers."""

    name = "loss"

    def __init__(self, lines=()):
        self.lines = lines  # (value, label): what the loss can be compared with

    def limits(self, reading):
        losses = np.array(reading.losses[-20_000:] or [0])
        losses = losses[np.isfinite(losses)]
        top = np.quantile(losses, 0.98) * 1.05 if len(losses) else 0
        # Above 75 it has blown up: where it left is what there is to see.
        return up(max(len(reading.losses), 100)), 3.6 if top <= 3.6 else min(up(top), 75)

    def frame(self, reading):
        return self.limits(reading), id(self.pinned)

    def build(self, ax, reading):
        right, top = self.limits(reading)
        if self.pinned:
            ax.plot(*_running_mean(self.pinned.losses), **PINNED)
        (self.raw,) = ax.plot([], [], color=BLUE, alpha=0.35, linewidth=0.6)
        (self.mean,) = ax.plot([], [], color=BLUE, linewidth=1.8)
        ax.set(xlim=(0, right), ylim=(1.8, top), xlabel="step", ylabel="minibatch loss")
        ax.xaxis.set_major_formatter("{x:,.0f}")
        for value, label in self.lines:
            reference_line(ax, value, label)
        self.heading = ax.set_title("")
        self.moving = [self.raw, self.mean, self.heading]

    def move(self, reading):
        losses = np.array(reading.losses)
        every = max(1, len(losses) // 1000)  # no screen shows more points
        self.raw.set_data(np.arange(len(losses))[::every], losses[::every])
        self.mean.set_data(*_running_mean(losses))
        self.heading.set_text(reading.headline)


def _running_mean(losses, parts=100):
    losses = np.array(losses, dtype=float)
    size = max(1, min(10, len(losses) // 10), len(losses) // parts)
    means = losses[: len(losses) // size * size].reshape(-1, size).mean(1)
    return np.arange(len(means)) * size + (size - 1) / 2, means


class UpdateRatiosByStep(Picture):
    """Viz #4: each weight's update:data by step. reading.ratios: (steps, {name: [ratio, …]})."""

    name = "update:data by step"

    def frame(self, reading):
        steps, ratios = reading.ratios
        middles = [np.nanmedian(values) for values in ratios.values() if np.isfinite(values).any()]
        return up(max([*steps[-1:], 49]) + 1), decades(middles, 1, 1e-5), tuple(ratios), id(self.pinned)

    def build(self, ax, reading):
        right, (low, high), names, _ = self.frame(reading)
        if self.pinned:
            for values in self.pinned.ratios[1].values():
                ax.plot(self.pinned.ratios[0], values, **PINNED)
        colors = layer_colors(len(names))
        self.lines = [
            ax.plot([], [], color=color, linewidth=1.2, label=name.removesuffix(".weight"))[0]
            for color, name in zip(colors, names, strict=True)
        ]
        ax.set(xlim=(0, right), ylim=(10.0**low, 10.0**high), yscale="log", xlabel="step", ylabel="update:data")
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.yaxis.set_minor_locator(NullLocator())
        reference_line(ax, 1e-3, "")  # its tick says 1e-3; a label would lie under the curves
        if names:
            ax.legend(fontsize=8, loc="upper right", ncols=2, labelspacing=0.2, handlelength=1.0)
        self.heading = ax.set_title("")
        self.moving = [*self.lines, self.heading]

    def move(self, reading):
        steps, ratios = reading.ratios
        for line, values in zip(self.lines, ratios.values(), strict=True):
            line.set_data(steps, values)
        last = [values[-1] for values in ratios.values() if values and math.isfinite(values[-1])]
        middle = f"step {steps[-1]:,}: median update:data {_short(float(np.median(last)))}" if last else ""
        self.heading.set_text(middle or "update:data")


def _short(value):
    if value is None or not math.isfinite(value):
        return "not finite"
    if 99.5 <= abs(value) < 1000:
        return f"{value:.0f}"
    return f"{value:.2g}" if 0.01 <= abs(value) < 1000 or not value else f"{value:.1e}"
