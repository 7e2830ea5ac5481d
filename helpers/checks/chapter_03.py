"""Chapter 03: the slope of a sigmoid, dead units, four layers to tell apart, and an early lead to explain."""

import torch
from torch.nn import functional as F

from helpers.checks.kinds import check, choice, choices, seeded_randn

SLOPES = [([0.5, 0.25, 0.9, 0.01],), ([[0.1, 0.75], [0.97, 0.5], [0.03, 1.0]],)]


@check("chapter 03, exercise 3.1", 779, [(torch.tensor(s),) for (s,) in SLOPES])
def check_sigmoid_slope(s):
    """f(s) -> the slope of the sigmoid, from its output s."""
    return s * (1 - s)


check_sigmoid_slope.mistakes = {
    "s is the sigmoid's output already: take no sigmoid a second time.": lambda s: s.sigmoid() * (1 - s.sigmoid()),
    "That is the tanh's formula: the sigmoid's is not symmetric around an output of 0.": lambda s: 1 - s**2,
    "One of the two factors is missing: the slope is 0 at an output of 0, and at an output of 1.": (
        lambda s: s, lambda s: 1 - s),
    "s is squared once too often: both ends of the sigmoid are equally flat.": (
        lambda s: s**2 * (1 - s), lambda s: s * (1 - s) ** 2, lambda s: s * (1 - s**2), lambda s: (s * (1 - s)) ** 2),
}  # fmt: skip
WIDE, NARROW = 4.0, 0.3
UNITS = [
    [[WIDE, -WIDE, 2.0, NARROW], [WIDE, WIDE, 2.0, -WIDE], [WIDE, -WIDE, -2.0, -WIDE]],
    # dead though it jumps from end to end; alive on one example, by far and by little; never dead
    [[-3.0, WIDE, 3, NARROW], [3.0, WIDE, -3, NARROW], [-3.0, NARROW, 3, -NARROW], [3.0, WIDE, 2.4, 0], [3.0, WIDE, 3, 1]],
]  # fmt: skip
NEGATIVE = torch.tensor([[-1.0, -2, 0.5, 1], [-0.1, -3, -2, 2], [-WIDE, 0.1, -1, -1]])
MANY = torch.full((3000, 3), WIDE)
MANY[-1, 1], MANY[:, 2] = 0.5, -MANY[:, 2]
FORTY = torch.full((40, 2), WIDE)
FORTY[-1, 1] = 0.0  # alive on one example of forty
LOW = torch.tensor([[-5.0, 5, 0, -6], [-7, 4, -8, 6], [-6, -5, -6, -0.1]])
CASES = [(torch.tanh, torch.tensor(rows)) for rows in UNITS]
CASES += [(torch.relu, NEGATIVE), (torch.sigmoid, LOW), (torch.tanh, LOW), (torch.tanh, FORTY), (torch.tanh, MANY)]
CASES += [(F.softplus, LOW), (F.elu, LOW)]  # nobody has their formulas ready
CASES += [(F.silu, torch.tensor([[-2.4, -12], [-2, -30], [-3, -11]]))]  # whose slope can be negative


@check("chapter 03, exercise 3.2", 779, CASES)
def check_dead_units(activation, hpreact):
    """f(activation, hpreact) -> one bool per unit: whether its slope is below 0.02 in size on every example (N, units)."""
    return (_slopes(activation, hpreact).abs() < 0.02).all(0)


def _slopes(activation, hpreact):
    x = hpreact.detach().requires_grad_()
    return torch.autograd.grad(activation(x).sum(), x)[0]


def _flat(activation, hpreact, threshold=0.02):
    return _slopes(activation, hpreact).abs() < threshold


check_dead_units.mistakes = {
    "That asks for any example: a unit is dead when its slope is small on all of them.": lambda f, x: _flat(f, x).any(0),
    "That is along the wrong axis: the examples are dimension 0, and every unit wants an answer of its own.": (
        lambda f, x: _flat(f, x).all(1), lambda f, x: _flat(f, x).any(1)),
    "That is a test for a tanh, whatever the activation is: ask the slope itself.": (
        lambda f, x: (f(x).abs() > 0.99).all(0), lambda f, x: (f(x) > 0.99).all(0),
        lambda f, x: (1 - x.tanh() ** 2 < 0.02).all(0), lambda f, x: (1 - f(x) ** 2 < 0.02).all(0)),
    "The mean hides an example that is alive: ask of every example, then of all together.": (
        lambda f, x: _slopes(f, x).mean(0) < 0.02, lambda f, x: _slopes(f, x).abs().mean(0) < 0.02),
    "Nearly all of the examples is not all of them: a single one that is alive lets a gradient through.": (
        lambda f, x: _flat(f, x).double().mean(0) > 0.99, lambda f, x: _flat(f, x).double().mean(0) > 0.5),
    "A slope below 0.02 counts as flat: that is another threshold.": (
        lambda f, x: _flat(f, x, 0.2).all(0), lambda f, x: _flat(f, x, 0.002).all(0), lambda f, x: (_slopes(f, x) == 0).all(0)),
    "Reduce over the examples, dimension 0, and over nothing else: every unit gets one answer.": (
        _flat, lambda f, x: _flat(f, x).all()),
    "A slope can be negative: its size decides.": lambda f, x: (_slopes(f, x) < 0.02).all(0),
    "That is upside down: dead is where the slope is small.": (
        lambda f, x: ~_flat(f, x).all(0), lambda f, x: (~_flat(f, x)).all(0)),
}  # fmt: skip


def four_layers():
    """What goes into four tanh layers, (1,000 examples, 100 units) each, in one of four conditions: a, b, c, d."""
    noise = seeded_randn(4, 1000, 100, seed=3)
    aside = torch.zeros(100)
    aside[seeded_randn(100, seed=4).topk(59).indices] = 1  # so many units that the shares of a and c are the same
    sides = seeded_randn(100, seed=5).sign()
    return noise[0] + 6 * sides * aside, noise[1] / 10, 5 * noise[2], noise[3]


_LINEAR = "Its outputs stay so close to 0 that the tanh is a straight line for them. Look at its std."
_HALF = "Hardly any of its entries is saturated. Print the share beyond 0.99 first."
_COLUMNS = "The share of saturated entries fits. Now ask each unit: on how many of the 1,000 examples is it saturated?"
_SPREAD = "It uses the whole range of the tanh, without spikes at its ends. Look at its histogram."
_MANY = "More than half of its entries are beyond 0.99. Print that share first."

check_four_layers = choices("the four layers", "chapter 03, saturated is not dead", 779, {
    "a": ("dead", {"saturated": _COLUMNS, "healthy": _MANY, "linear": _MANY}),
    "b": ("linear", {"healthy": _LINEAR, "saturated": _HALF, "dead": _HALF}),
    "c": ("saturated", {"dead": _COLUMNS, "healthy": _MANY, "linear": _MANY}),
    "d": ("healthy", {"linear": _SPREAD, "saturated": _HALF, "dead": _HALF}),
}, noun="condition")  # fmt: skip

check_first_steps = choice("the first steps", "chapter 03, exercise 3.4", 779, "B", {
    "A": "On the right C is frozen, and learns nothing. The saturated network is ahead all the same.",
    "C": "A saturated tanh passes less gradient from the first step on. And on the right nothing below it learns.",
})  # fmt: skip
