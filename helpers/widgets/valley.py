"""Lesson X03's panel: one valley, and four optimizers that walk down it from the same place."""

import math
from types import SimpleNamespace

import ipywidgets as widgets
import numpy as np

from helpers.plots import BLUE, GRAY, ORANGE, PURPLE, VERMILION
from helpers.widgets.panel import Panel, log_slider, slider

CURVATURE = np.array([0.1, 5.0])  # along the valley, across it
START = np.array([-2.6, 1.4])
STEPS = 100
HEIGHTS = (1e-8, 1e3)  # limits of the picture; what lies beyond is drawn at the edge
WALKERS = {  # name: colour, marker, line
    "SGD": (VERMILION, "s", "-"),
    "momentum": (ORANGE, "D", "--"),
    "RMSprop": (PURPLE, "^", "-."),
    "Adam": (BLUE, "o", "-"),
}


def axes_of(turn):
    """The directions along the valley and across it, as rows, for a valley turned by so many degrees."""
    angle = math.radians(turn)
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def read_valley(*, learning_rate=0.1, momentum=0.9, turn=0, loss_times=1.0, step=STEPS):
    """Four walks down height = loss_times * ½ (0.1 along² + 5 across²), by name: paths (steps, 2) and heights (steps,).

    momentum: of momentum and of Adam, whose beta1 it is. RMSprop and Adam correct their running squares.
    A walk that leaves the valley ends there. step: how far they are shown.
    """
    axes, paths = axes_of(turn), {}
    for name in WALKERS:
        path, total, square = [START @ axes], 0.0, 0.0
        for t in range(1, STEPS + 1):
            gradient = loss_times * (CURVATURE * (axes @ path[-1])) @ axes
            total = momentum * total + gradient
            square = 0.999 * square + 0.001 * gradient**2
            size = np.sqrt(square / (1 - 0.999**t)) + 1e-8
            mean = total * (1 - momentum) / (1 - momentum**t)  # torch's momentum takes the sum of gradients
            steps = {"SGD": gradient, "momentum": total, "RMSprop": gradient / size, "Adam": mean / size}
            at = path[-1] - learning_rate * steps[name]
            path.append(at if np.abs(at).max() < 1e3 else path[-1])
        paths[name] = np.array(path)
    heights = {name: 0.5 * ((path @ axes.T) ** 2 @ CURVATURE) for name, path in paths.items()}
    return SimpleNamespace(paths=paths, heights=heights, turn=turn, step=step)


def draw_valley(reading, ax, only=tuple(WALKERS)):
    """The valley from above, and the walks up to the step that is shown."""
    around = np.linspace(0, 2 * np.pi, 200)
    for height in (0.05, 0.3, 1, 2.5, 5.5, 10):  # all points of one height form an ellipse
        ellipse = np.stack([np.cos(around), np.sin(around)], -1) * np.sqrt(2 * height / CURVATURE)
        ax.plot(*(ellipse @ axes_of(reading.turn)).T, color="#c4c4c4", linewidth=0.8)
    ax.plot(0, 0, "+", color=GRAY, markersize=14, markeredgewidth=2)
    for name in only:
        (color, marker, line), path = WALKERS[name], reading.paths[name][: reading.step + 1]
        ax.plot(*path.T, line, color=color, linewidth=1.4, marker=marker, markersize=2.5)
        ax.plot(*path[-1], marker, color=color, markersize=9, markeredgecolor="white")
    ax.set(xlim=(-3.7, 3.7), ylim=(-2.4, 2.4), xlabel="first parameter", ylabel="second parameter", aspect="equal")
    ax.set_title(f"the valley from above, after {reading.step} steps")
    ax.grid(False)


def draw_heights(reading, ax):
    """How high each of them stands, by step."""
    for place, (name, (color, marker, line)) in enumerate(WALKERS.items()):
        heights = reading.heights[name][: reading.step + 1].clip(*HEIGHTS)
        ax.plot(heights, line, color=color, linewidth=1.4)
        ax.plot(reading.step, heights[-1], marker, color=color, markersize=8, clip_on=False)
        ax.text((0.02, 0.15, 0.5, 0.8)[place], 0.97, name, color=color, transform=ax.transAxes, va="top", weight="bold")
    ax.set(xlabel="step", ylabel="height above the lowest point", title="height by step")
    ax.set(yscale="log", xlim=(0, STEPS), ylim=HEIGHTS)


def valley_explorer(*, learning_rate=0.1, momentum=0.9, turn=0, loss_times=1.0, step=STEPS):
    """One valley, four optimizers: turn the rate, the momentum and the valley, and let them walk."""
    controls = [
        log_slider("learning rate", "The same number for all four.", learning_rate, -3, 0.5, 2),
        slider("momentum", "Of momentum and of Adam (its beta1).", momentum, 0.0, 0.98, 0.02),
        slider("turn", "The valley is turned by so many degrees.", turn, 0, 90, 5),
        log_slider("loss times", "The loss is multiplied by it, and so is its slope.", loss_times, -3, 3, 4),
        slider("step", "How many steps are shown.", step, 0, STEPS, 1),
    ]
    play = widgets.Play(value=step, max=STEPS, interval=120, show_repeat=False)
    widgets.link((play, "value"), (controls[-1], "value"))
    walks = "A long valley from above with the walks of SGD, momentum, RMSprop and Adam"
    alt = f"{walks}, and their heights by step, at learning rate {learning_rate:g}."
    layout = dict(mosaic=[[0, 0, 0, 1, 1]], figsize=(10, 4.2), margins=dict(wspace=0.6))
    return Panel(read_valley, [draw_valley, draw_heights], controls, alt=alt, buttons=[play], **layout)
