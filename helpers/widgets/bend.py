"""Chapter 10's panel: what layers of two units make of a grid, and what a bend behind them changes."""

import math
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from helpers.models import SEED, seeded
from helpers.plots import GRAY, ORANGE, PURPLE, SKY
from helpers.widgets.board import up
from helpers.widgets.panel import Panel, seed_control, slider

CORNERS = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])  # two of equal signs, two of different


def read_bend(*, layers=1, bend=0.0, init_gain=2.0, seed=SEED):
    """The square from -1 to 1 after some layers of two units with random weights and biases.

    bend: 0 puts nothing behind a layer, 1 a tanh, and between them their mixture (1 - bend) * z + bend * tanh(z).
    Where its points come to: grid (lines, points, 2), circle (points, 2), corners (4, 2). cut: find_cut(corners).
    """
    generator, angle = seeded(seed), torch.linspace(0, 2 * math.pi, 121)
    at, along = torch.meshgrid(torch.linspace(-1, 1, 11), torch.linspace(-1, 1, 61), indexing="ij")
    grid = torch.cat([torch.stack([at, along], -1), torch.stack([along, at], -1)])
    layer = [(torch.randn(2, 2, generator=generator), torch.randn(2, generator=generator)) for _ in range(layers)]

    def through(x):
        for weight, bias in layer:
            z = x @ weight * (init_gain / math.sqrt(2)) + bias
            x = (1 - bend) * z + bend * z.tanh()
        return x

    corners, circle = through(CORNERS), through(torch.stack([angle.cos(), angle.sin()], -1))
    return SimpleNamespace(grid=through(grid), circle=circle, corners=corners, cut=find_cut(corners))


def find_cut(corners):
    """((cos, sin), offset) of a straight line between the first two points and the others, or None."""
    angle = torch.arange(0, 360, 0.5) * math.pi / 180
    along = torch.stack([angle.cos(), angle.sin()], -1)
    one, other = (along @ corners.T).split(2, -1)
    gap = other.amin(-1) - one.amax(-1)
    best = gap.argmax()
    if gap[best] < 0.01 * (corners - corners.mean(0)).abs().max():
        return None  # a gap too small to be seen; without a bend it is below 0 in every direction
    return along[best].tolist(), (one.amax(-1) + other.amin(-1))[best].item() / 2


def draw_image(reading, ax):
    """Where the grid, the circle and the four corners have come to, magnified until they fill the picture."""
    for lines, color in zip(reading.grid.chunk(2), ("#8a8a8a", "#b9b9b9"), strict=True):
        gaps = F.pad(lines, (0, 0, 0, 1), value=math.nan)  # NaN between the lines: one fast call draws them all
        ax.plot(*gaps.flatten(0, 1).T, color=color, linewidth=0.8)
    ax.plot(*reading.circle.T, color=SKY, linewidth=2.4)
    low, high = reading.grid.amin((0, 1)), reading.grid.amax((0, 1))
    radius = up(1.15 * (high - low).max().item() / 2)
    x, y = (round(m / radius * 4) * radius / 4 for m in ((low + high) / 2).tolist())  # so limits rarely change
    if reading.cut:
        (cos, sin), offset = reading.cut
        away = np.array([-3 * radius, 3 * radius]) + y * cos - x * sin
        ax.plot(offset * cos - away * sin, offset * sin + away * cos, color=GRAY, linewidth=2, linestyle="--")
    for pair, marker, color in zip(reading.corners.split(2), "os", (PURPLE, ORANGE), strict=True):
        ax.plot(*pair.T, marker, color=color, markersize=9, markeredgecolor="white")
    ax.set(xlim=(x - 2 * radius, x + 2 * radius), ylim=(y - 1.1 * radius, y + 1.1 * radius), aspect="equal")
    fits = "a straight line fits" if reading.cut else "no straight line fits"
    ax.set(xlabel="first unit", ylabel="second unit", title=f"what comes out: {fits} between dots and squares")
    ax.grid(False)


def draw_plane(reading, ax):
    """What goes in: the square with its grid, its circle and its four corners."""
    draw_image(read_bend(layers=0), ax)
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xlabel="first input", ylabel="second input", title="what goes in")


def bend_explorer(*, layers=1, bend=0.0, init_gain=2.0, seed=SEED):
    """Turn the bend from a straight line to a tanh: what the layers make of a grid, and whether a line fits in."""
    controls = [
        slider("bend", "0: nothing stands behind a layer; 1: a tanh; between them: a mixture.", bend, 0.0, 1.0, 0.02),
        slider("layers", "How many layers of two units.", layers, 1, 6, 1),
        slider("init gain", "All weights are multiplied by it.", init_gain, 0.2, 5.0, 0.1),
        seed_control(seed),
    ]
    alt = f"A square grid with a circle and four coloured corners, and its image after layers with a bend of {bend:g}."
    return Panel(read_bend, [draw_plane, draw_image], controls, alt=alt, mosaic=[[0, 1, 1]], figsize=(10, 4))
