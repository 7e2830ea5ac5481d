"""The moving pictures that belong to one chapter each: probabilities and loss (02), BatchNorm's forward pass (05)."""

import math

import numpy as np
from matplotlib.ticker import MaxNLocator

from helpers.plots import BLUE, GREEN, VERMILION, reference_line
from helpers.widgets.pictures import PINNED, Picture, up

__all__ = ["LossByScale", "Normalised", "Probabilities", "RunningStatistics"]


class Probabilities(Picture):
    """The softmax of some logits as bars, the label's in orange, with the loss in the title."""

    name = "probabilities"

    def frame(self, reading):
        return len(reading.logits), reading.label, id(self.pinned)

    def build(self, ax, reading):
        n = len(reading.logits)
        x = np.arange(n)
        if self.pinned and len(self.pinned.logits) == n:
            ax.bar(x, self.pinned.probabilities, 0.9, color="none", edgecolor="#999999", zorder=1.6)
        colors = [VERMILION if i == reading.label else BLUE for i in range(n)]
        self.bars = ax.bar(x, np.zeros(n), 0.7, color=colors)
        self.values = [ax.text(i, 0, "", ha="center", va="bottom", fontsize=9) for i in x] if n <= 8 else []
        self.ticks = [
            ax.text(i, -0.02, "", ha="center", va="top", fontsize=9, transform=ax.get_xaxis_transform())
            for i in (x if n <= 8 else [])
        ]
        ax.set(ylim=(0, 1.1), ylabel="probability", xlim=(-0.6, n - 0.4))
        ax.set_xticks([] if n <= 8 else x, [] if n <= 8 else list(reading.names), fontsize=9)
        ax.set_xlabel(
            "logit (the label's is orange)" if n <= 8 else "character (the label's is orange)",
            labelpad=18 if n <= 8 else 4,
        )
        ax.grid(axis="x", visible=False)
        label = (self.ticks or ax.get_xticklabels())[reading.label]
        label.set(color=VERMILION, weight="bold")  # also seen where the bar is too low
        reference_line(ax, 1 / n, f"1/{n}")
        self.heading = ax.set_title("")
        self.moving = [*self.bars, *self.values, *self.ticks, self.heading]

    def move(self, reading):
        n = len(reading.logits)
        for bar, p in zip(self.bars, reading.probabilities, strict=True):
            bar.set_height(p)
        for text, p in zip(self.values, reading.probabilities, strict=False):
            text.set(y=p + 0.012, text=f"{p:.3f}")
        for text, logit in zip(self.ticks, reading.logits, strict=False):
            text.set_text(f"{logit:.3g}")
        self.heading.set_text(f"loss {reading.loss:.2f} (all logits equal: ln {n} = {math.log(n):.2f})")


class LossByScale(Picture):
    """The loss of the same logits multiplied by every scale, with a dot where the slider stands."""

    name = "loss by scale"

    def frame(self, reading):
        return reading.scales[-1], self._top(reading), len(reading.logits), id(self.pinned)

    def _top(self, reading):
        return up(max(*reading.losses, 3.5))

    def build(self, ax, reading):
        if self.pinned:
            ax.plot(self.pinned.scales, self.pinned.losses, **PINNED)
        (self.curve,) = ax.plot([], [], color=BLUE)
        (self.dot,) = ax.plot([], [], "o", color=VERMILION, markersize=9, clip_on=False)
        ax.set(xlim=(0, reading.scales[-1]), ylim=(0, self._top(reading)), xlabel="scale", ylabel="loss")
        n = len(reading.logits)
        reference_line(ax, math.log(n), f"ln {n}")
        self.heading = ax.set_title("")
        self.moving = [self.curve, self.dot, self.heading]

    def move(self, reading):
        self.curve.set_data(reading.scales, reading.losses)
        self.dot.set_data([reading.scale], [reading.loss])
        self.heading.set_text(f"scale {reading.scale:.2g}: loss {reading.loss:.2f}")


class Normalised(Picture):
    """A batch of one feature (above) and what BatchNorm makes of it (below), with both Gaussians."""

    name = "batch norm"

    def frame(self, reading):
        widest = max(abs(reading.out).max(), 3.6)
        return len(reading.x), math.ceil(widest / 3.6), id(self.pinned)

    def build(self, ax, reading):
        _, zoom, _ = self.frame(reading)
        self.zoom = zoom
        if self.pinned:
            for a, b in zip(self.pinned.x, self.pinned.out, strict=True):
                ax.plot([a / 10, b / zoom], [1, 0], "o-", markersize=4, **PINNED)
        self.above = ax.fill_between([0, 1], 1, 1, color=BLUE, alpha=0.2)
        self.below = ax.fill_between([0, 1], 0, 0, color=GREEN, alpha=0.2)
        looks = [dict(color="0.35", markersize=4.5)] * (len(reading.x) - 1)
        looks.append(dict(color=VERMILION, markersize=7))  # the moved one, on top
        self.lines = [ax.plot([], [], "o-", linewidth=1.1, **look)[0] for look in looks]
        ax.set(xlim=(-3.6, 3.6), ylim=(-0.8, 1.8), yticks=[], xlabel="outputs (train mode)")
        ax.set_xticks(range(-3, 4), [f"{zoom * tick}" for tick in range(-3, 4)])
        top = ax.secondary_xaxis("top", functions=(lambda z: z * 10, lambda x: x / 10))
        top.set_xlabel("inputs")
        self.inputs = ax.text(0.015, 0.975, "", transform=ax.transAxes, fontsize=10, va="top")
        self.outputs = ax.text(0.015, 0.025, "", transform=ax.transAxes, fontsize=10, va="bottom")
        self.moving = [self.above, self.below, *self.lines, self.inputs, self.outputs]

    def move(self, reading):
        z = np.linspace(-4, 4, 120)
        bell = 0.5 * np.exp(-(z**2) / 2)
        out_mean, out_std = reading.out.mean(), reading.out.std()
        self.above.set_data((z * reading.std + reading.mean) / 10, 1, 1 + bell)
        self.below.set_data((z * out_std + out_mean) / self.zoom, 0, -bell)
        for line, a, b in zip(self.lines, np.roll(reading.x, -1), np.roll(reading.out, -1), strict=True):
            line.set_data([a / 10, b / self.zoom], [1, 0])
        self.inputs.set_text(f"inputs: mean {_fixed(reading.mean)}, std {_fixed(reading.std)}")
        self.outputs.set_text(f"outputs: mean {_fixed(out_mean)}, std {_fixed(out_std)}")


def _fixed(value):
    return f"{round(float(value), 2) + 0.0:.2f}"  # no -0.00


class RunningStatistics(Picture):
    """What the running mean and std have become after each batch, against the true ones."""

    name = "running statistics"

    def frame(self, reading):
        return len(reading.running_mean), id(self.pinned)

    def build(self, ax, reading):
        if self.pinned:
            ax.plot(self.pinned.running_mean, **PINNED)
            ax.plot(self.pinned.running_std, **PINNED)
        (self.mean,) = ax.plot([], [], color=BLUE, label="running mean")
        (self.std,) = ax.plot([], [], color=GREEN, label="running std")
        ax.set(xlim=(0, len(reading.running_mean) - 1), ylim=(-4, 8), xlabel="batches seen")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        reference_line(ax, reading.true_mean, "true mean")
        reference_line(ax, reading.true_std, "true std")
        ax.legend(loc="lower right", fontsize=9)
        self.heading = ax.set_title("")
        self.moving = [self.mean, self.std, self.heading]

    def move(self, reading):
        steps = np.arange(len(reading.running_mean))
        self.mean.set_data(steps, reading.running_mean)
        self.std.set_data(steps, reading.running_std)
        self.heading.set_text(
            f"after {steps[-1]} batch{'es' if len(steps) > 2 else ''} of {len(reading.x)}: "
            f"mean {reading.running_mean[-1]:.2f}, std {reading.running_std[-1]:.2f}"
        )
