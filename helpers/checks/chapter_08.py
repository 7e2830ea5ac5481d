"""Chapter 08: the std at which deep tanh networks settle, a fault to find, a picture to explain."""

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import torch

from helpers.checks.kinds import DENSITY, GRID, check, choice, seeded_randn

Z, WEIGHTS = GRID.numpy(), DENSITY.numpy()


def tanh_std(std):
    """The root mean square of tanh(z), z ~ N(0, std^2): its std, as its mean is 0."""
    return math.sqrt(np.tanh(std * Z) ** 2 @ WEIGHTS)


@cache
def _stds(step, gain, layers=3000):
    """The std after 0, 1, 2, … layers, until it no longer changes; step(gain, std): one layer."""
    stds = [0.0, 1.0]
    while len(stds) <= layers and abs(stds[-1] - stds[-2]) > 1e-9:
        stds.append(step(gain, stds[-1]))
    return stds[1:]


def _layer(gain, std):
    return tanh_std(gain * std)


def _settled(*steps):
    return tuple(lambda gain, step=step: _stds(step, gain, 1000)[-1] for step in steps)


@check("chapter 08, the fixed point of tanh layers", 5211, tolerance=(0, 1e-3))
def check_fixed_point(gain):
    """f(gain) -> the std of tanh outputs deep in a tanh network without biases; 0 for gain <= 1. Within 0.001."""
    return _stds(_layer, gain)[-1] if gain > 1 else 0.0


_FEW = "Those are too few layers: go on until the std no longer changes."
_SLOW = "Just above a gain of 1 the std comes to rest at a small number, not at 0. Dozens are too few layers: it takes hundreds."
_DIES = "The answer for a gain of 1 or less is 0: the signal dies out layer by layer, at 1 too, though slowly."
# Who is right up to here, and wrong at one of these gains, hears what is special about it.
_GAINS = {"": (5 / 3, 1.3, 3.0, 2.0), _SLOW: (1.05, 1.1, 1.2), _DIES: (0.5, 0.9, 1.0, 0.99)}
(_look,) = check_fixed_point.looks
check_fixed_point.looks = [replace(_look, cases=[(g,) for g in gains], hint=hint) for hint, gains in _GAINS.items()]

check_fixed_point.mistakes = {
    "That is the std of the pre-activations: the question is what comes out of the tanh.": lambda g: g * check_fixed_point.right(g),
    "The std is put through tanh as if it were a value: average tanh(z)^2 over z ~ N(0, (gain * std)^2).": (
        math.tanh, *_settled(lambda g, s: math.tanh(g * s))),
    "The root is missing at every layer: the next layer needs the std.": _settled(lambda g, s: tanh_std(g * s) ** 2),
    "That averages |tanh(z)|: a std is the root of the mean square.": _settled(
        lambda g, s: np.abs(np.tanh(g * s * Z)) @ WEIGHTS),
    "The weights are exp(-z^2/2), divided by their sum, on a grid that reaches far out on both sides.": _settled(
        lambda g, s: math.sqrt(np.average(np.tanh(g * s * Z) ** 2, weights=np.exp(-(Z**2)))),
        lambda g, s: math.sqrt(np.mean(np.tanh(g * s * Z) ** 2)),
        lambda g, s: tanh_std(g * s) / 2**0.5, lambda g, s: tanh_std(g * s) * (2 * math.pi) ** 0.25),
    _FEW: tuple(lambda g, n=n: _stds(_layer, g)[: n + 1][-1] for n in range(1, 12)),
}  # fmt: skip


def alternating_network():
    """A tanh network with a fault, and 500 inputs for it: five layers, 400 and 50 wide in turn."""
    widths, layers = (100, 400, 50, 400, 50, 400), []
    for seed, (fan_in, fan_out) in enumerate(pairwise(widths)):
        layers.append(torch.nn.Linear(fan_in, fan_out, bias=False))
        layers[-1].weight.data = seeded_randn(fan_out, fan_in, seed=seed) * 5 / 3 / fan_out**0.5
        layers.append(torch.nn.Tanh())
    return torch.nn.Sequential(*layers), seeded_randn(500, widths[0], seed=9)


check_alternating = choice("the alternating network", "chapter 08, exercise 8.2", 5211, "C", {
    "A": "A gain that is too high makes every layer too wide. Here only every second one is.",
    "B": "It has no biases at all: look at the layers' .bias.",
    "D": "What the inputs are, the second layer has nearly forgotten. And these have std 1: print it.",
})  # fmt: skip

check_no_settling = choice("why it does not settle", "chapter 08, exercise 8.3", 5211, "A", {
    "B": "At gain 1.5 the std grows, though there are as many zeros as at any other gain.",
    "C": "On a log axis these are straight lines: every layer changes the std by the same factor, the last ones too.",
})  # fmt: skip
