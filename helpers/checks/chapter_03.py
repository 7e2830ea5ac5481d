"""Chapter 03: the slope of tanh, and dead units."""

import torch

from helpers.checks.kinds import check
from helpers.checks.readings import as_array, as_bools

SLOPES = [0.0, 0.5, -0.5, 0.97, -0.99], [[0.1, -0.3], [0.9, 1.0], [-1.0, 0.0]]


@check("chapter 03, the gradient through a tanh", 779, [(torch.tensor(t),) for t in SLOPES], read=as_array)
def check_tanh_gradient(t):
    """f(t) -> the local gradient of tanh, from its output t."""
    return 1 - t**2


check_tanh_gradient.mistakes = {
    "t is tanh's output already: you take tanh a second time.": lambda t: 1 - t.tanh() ** 2,
    "The square is missing: tanh's slope is the same at t and at -t, and smooth.": (
        lambda t: 1 - t,
        lambda t: 1 - t.abs(),
    ),
    "That is the gradient of the sigmoid.": (lambda t: t * (1 - t), lambda t: t.sigmoid() * (1 - t.sigmoid())),
    "That is t squared: the gradient is what is left of 1.": lambda t: t**2,
    "Square t before it is taken from 1.": lambda t: (1 - t) ** 2,
    "That is 1 plus t squared: the gradient shrinks as |t| grows.": lambda t: 1 + t**2,
    "That is tanh itself, not its gradient.": torch.tanh,
    "That is differentiated once more: 1 - t squared is the gradient.": (
        lambda t: -2 * t,
        lambda t: -2 * t * (1 - t**2),
    ),
}

ON, OFF = 0.999, 0.2
UNITS = (
    [[ON, OFF, -ON], [-ON, ON, ON], [ON, ON, -ON]],  # square: the wrong axis then has a shape that fits
    [[ON, -ON, 0.98, OFF], [ON, ON, 0.98, -ON], [ON, -ON, -0.98, -ON]],
    # dead, though 1 - h^2 > 0.01; alive, though the mean of |h| is above 0.99; dead; alive but for one
    [
        [0.992, ON, -ON, OFF],
        [-0.994, ON, -ON, ON],
        [0.992, ON, -ON, -OFF],
        [0.993, 0.96, -ON, OFF],
        [0.992, ON, -ON, OFF],
    ],
    [[ON, ON, -ON]] * 63 + [[ON, 0.5, ON]],
    [[ON, ON, -ON]] * 2999 + [[ON, 0.5, ON]],
)


@check("chapter 03, saturated is not dead", 779, [(torch.tensor(h),) for h in UNITS], read=as_bools)
def check_dead_units(h):
    """f(h) -> one bool per unit: whether |h| > 0.99 for every example; h (N, units) are tanh outputs."""
    return (h.abs() > 0.99).all(0)


def _on(change):
    return lambda h: change(h.abs() > 0.99)


check_dead_units.mistakes = {
    "That asks for any example: a unit is dead when all of its examples are saturated.": _on(lambda on: on.any(0)),
    "That is along the wrong axis: the examples are dimension 0.": (_on(lambda on: on.all(1)), _on(lambda on: on.any(1))),
    "The negative side is missing: tanh is as flat at -1 as at +1, so take h.abs().": lambda h: (h > 0.99).all(0),
    "A unit may jump between -1 and +1 and be dead all the same: compare h.abs(), not its mean or its spread.": (
        lambda h: (h > 0.99).all(0) | (h < -0.99).all(0), lambda h: h.std(0) < 0.01, lambda h: h.mean(0).abs() > 0.99),
    "Counts or fractions: return the comparison that says whether they are all.": (
        _on(lambda on: on.sum(0)), _on(lambda on: on.double().mean(0))),
    "The threshold is |h| > 0.99, for h itself.": (
        lambda h: (h.abs() > 0.97).all(0), lambda h: (h.abs() > 0.995).all(0), lambda h: (h**2 > 0.99).all(0)),
    "A white column of 32 examples is not yet a dead unit: look at every example.": _on(lambda on: on[:32].all(0)),
    "The mean hides an example that is alive: ask of every example, then of all.": lambda h: h.abs().mean(0) > 0.99,
    "Nearly all is not all: a single example that is alive lets a gradient through.": (
        _on(lambda on: on.double().mean(0) > 0.99), _on(lambda on: on.double().mean(0) > 0.5)),
    "That is ReLU's dead unit: tanh's is stuck at -1 or 1.": lambda h: (h <= 0).all(0),
    "Indices, or their number: return one bool per unit.": (
        lambda h: torch.where((h.abs() > 0.99).all(0))[0], _on(lambda on: on.all(0).sum())),
    "One dimension too many: leave keepdim out.": _on(lambda on: on.all(0, keepdim=True)),
    "Reduce over the examples, dimension 0, and over nothing else.": (_on(lambda on: on), _on(torch.all)),
    "That is upside down: dead is where |h| is large.": (_on(lambda on: ~on.all(0)), _on(lambda on: ~on.any(0))),
    "The units are right; return them as bools, the result of a comparison.": _on(lambda on: on.all(0).int()),
}  # fmt: skip
