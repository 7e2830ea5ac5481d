"""Chapter 03's panel: how wide the tanh's inputs are, what that does to its outputs, and to the gradient."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from helpers.models import SEED, lecture_mlp, seeded
from helpers.plots import GRAY, GREEN, SKY
from helpers.widgets.board import DARK
from helpers.widgets.panel import Panel, default_splits, seed_control, slider

SATURATED = 0.99  # |tanh| beyond which the lecture's part 1 calls it saturated; part 2 and diagnose take 0.97
WIDTH = 16.0  # inputs are shown from -16 to 16
EXAMPLES = 32


@dataclass
class SaturationReading:
    """What goes into the tanh and what comes out, (examples, units), for W1 and b1 at some scale."""

    hpreact: np.ndarray
    h: np.ndarray
    w1_scale: float = 1.0
    b1_scale: float = 1.0

    @property
    def saturated(self):  # the share of all entries beyond ±0.99
        return float((np.abs(self.h) > SATURATED).mean())

    @property
    def slope(self):  # the mean slope of the tanh: the share of the gradient that comes back
        return float((1 - self.h**2).mean())


@torch.no_grad()
def read_saturation(*, w1_scale=1.0, b1_scale=1.0, seed=SEED, splits=None):
    """The hidden layer of chapter 02's network on its first minibatch, W1 and b1 multiplied: a SaturationReading."""
    X, generator = (splits or default_splits()).train[0], seeded(seed)
    model = lecture_mlp("softmax", generator=generator)
    x = model[:2](X[torch.randint(0, len(X), (EXAMPLES,), generator=generator)])
    hpreact = x @ (model.hidden.weight * w1_scale) + model.hidden.bias * b1_scale
    return SaturationReading(hpreact.numpy(), hpreact.tanh().numpy(), w1_scale, b1_scale)


def draw_tanh(reading, ax):
    """The tanh, with the histogram of its inputs below it and that of its outputs beside it, each as high as fits."""
    x = np.linspace(-WIDTH, WIDTH, 801)
    ax.axvspan(-np.arctanh(SATURATED), np.arctanh(SATURATED), color=GREEN, alpha=0.12, linewidth=0)
    ax.plot(x, np.tanh(x), color=GRAY, linewidth=2.2)
    floor, wall = -2.6, WIDTH + 1
    # Inputs beyond the picture count in its outermost bins, so that nothing is lost from sight.
    heights, edges = np.histogram(reading.hpreact.clip(-WIDTH, WIDTH), 128, (-WIDTH, WIDTH))
    heights = floor + np.r_[0, np.repeat(1.1 * heights / heights.max(), 2), 0]
    ax.fill(np.repeat(edges, 2), heights, color=SKY, alpha=0.75, linewidth=0)
    widths, edges = np.histogram(reading.h, 50, (-1, 1))
    widths = wall + np.r_[0, np.repeat(7 * widths / widths.max(), 2), 0]
    ax.fill(widths, np.repeat(edges, 2), color=DARK, alpha=0.75, linewidth=0)
    ax.text(-WIDTH, floor + 0.35, "what goes in:\nhpreact", color="#1f7fb5", va="bottom", fontsize=9.5)
    ax.text(wall, 1.12, "what comes out: h", color=DARK, va="bottom", ha="left", fontsize=9.5)
    ax.text(0, 1.12, "steep", color="#00795a", va="bottom", ha="center", fontsize=9.5)
    ax.set(xlim=(-WIDTH - 0.5, WIDTH + 8.5), ylim=(floor, 1.5), xlabel="hpreact", ylabel="h = tanh(hpreact)")
    ax.set(xticks=[-15, -10, -5, 0, 5, 10, 15], yticks=[-1, -0.5, 0, 0.5, 1])
    ax.grid(False)
    scales = f"W1 × {reading.w1_scale:.2f}, b1 × {reading.b1_scale:.2f}"
    ax.set_title(f"{scales}: {reading.saturated:.0%} of h lies beyond ±{SATURATED}")


def draw_map(reading, ax):
    """The lecture's map: one row per example, one column per unit, white where h is saturated."""
    ax.imshow(np.abs(reading.h) > SATURATED, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    ax.grid(False)
    ax.set(xlabel="unit", ylabel="example", title=f"white: saturated; mean slope {reading.slope:.2f}")


def saturation_explorer(*, w1_scale=1.0, b1_scale=1.0, seed=SEED, splits=None):
    """Turn the scale of W1 and of b1: what goes into the tanh, what comes out, and how much gradient comes back."""
    controls = [
        slider("W1 scale", "All weights of the hidden layer are multiplied by it.", w1_scale, 0, 1.5, 0.02),
        slider("b1 scale", "All biases of the hidden layer are multiplied by it.", b1_scale, 0, 10, 0.01),
        seed_control(seed),
    ]
    what = "The tanh with the histograms of its inputs and outputs, and the map of saturated entries"
    alt = f"{what}, at W1 scale {w1_scale:g}."
    return Panel(partial(read_saturation, splits=splits), [draw_tanh, draw_map], controls, alt=alt)
