"""Checks for chapter 14: where to look first, which patient, a rate from its ratios, four networks with a fault."""

import random
from collections.abc import Mapping
from statistics import fmean, geometric_mean, median

from helpers.checks.kinds import alike, check, choices, conditions, option
from helpers.checks.sandbox import has_gap

KINDS = ("weights too small", "weights too large", "a shifted bias", "no nonlinearity")
_FINE = "They are as they should be."
check_first_look = choices("what to look at first", "chapter 14, exercise 14.1", 6694, {
    "loss 12 at step 0, 27 classes": ("the loss", {
        "activations": "They look healthy.",
        "gradients": "They follow from a simpler cause.",
        "update:data": "That comes after a simpler number."}),
    "std by layer: 0.4, 0.2, 0.1, 0.05": ("activations", {
        "the loss": "It is near ln(classes).",
        "gradients": "The forward pass shows it already.",
        "update:data": "It mixes several causes."}),
    "all as it should be, and the loss hardly moves": ("update:data", {
        "the loss": "You have: it hardly moves.", "activations": _FINE, "gradients": _FINE}),
})  # fmt: skip

_SIGNS = {
    "healthy": "The healthy one would lie on the grey points in both pictures, and its activations would be even.",
    "gain 0.5": "With gain 0.5 the activations would become a needle, the deeper the narrower.",
    "gain 3": "With gain 3 nearly half of the activations would pile up at ±1.",
    "confident output": "With a confident output the gradients would lie a hundred times above the grey points.",
    "ReLU, biases -0.6": "A ReLU would have no activation below zero.",
    "rate 0.001": "At rate 0.001 all of update:data would lie below the grey points.",
    "rate 3": "At rate 3 update:data would lie above the grey points, and the gradients on them.",
}
check_which_patient = choices("the four patients", "chapter 14, exercise 14.2", 6694, {
    "A": ("rate 3", _SIGNS), "B": ("confident output", _SIGNS), "C": ("gain 3", _SIGNS), "D": ("healthy", _SIGNS),
}, noun="patient")  # fmt: skip

RATIOS = [1e-2, 2e-4, 4e-3], [3e-5, 2e-4, 1e-3, 1e-5, 5e-6], [2e-5], [0.2, 1e-3, 0.5, 0.3, 0.1, 2e-3, 7e-3]


@check("chapter 14, exercise 14.3", 6694, list(zip((0.1, 0.01, 3.0, 1.0), RATIOS, strict=True)))
def check_rate_from_ratios(lr, ratios):
    """f(lr, ratios) -> the learning rate that brings the median ratio to 1e-3."""
    return lr * 1e-3 / median(ratios)


check_rate_from_ratios.mistakes = {
    "That is upside down: too high a ratio asks for a lower rate.": lambda lr, r: lr * median(r) / 1e-3,
    "Take the median: one layer apart should not set the rate for all.": tuple(
        lambda lr, r, middle=middle: lr * 1e-3 / middle(r)
        for middle in (fmean, max, min, geometric_mean, lambda r: r[0], lambda r: r[-1])),
    "The median of the list stands in its middle once it is sorted.": (
        lambda lr, r: lr * 1e-3 / r[len(r) // 2], lambda lr, r: lr * 1e-3 / sorted(r)[len(r) // 2 - 1],
        lambda lr, r: lr * 1e-3 / sorted(r)[len(r) // 2 + 1 - len(r)]),
    "Nothing holds the rate: it may have to rise, to fall, and to go beyond 1.": (
        lambda lr, r: min(lr, lr * 1e-3 / median(r)), lambda lr, r: min(1.0, lr * 1e-3 / median(r))),
}  # fmt: skip

_LOOK = "Compare each layer with its neighbours, in all four pictures."
_WHICH = "Look at this layer's histogram, std and update:data, and count the nonlinearities."
_GIVE = f"Give a pair (kind, layer), the layer as a number. The kinds: {', '.join(map(repr, KINDS))}."


def fault_of(number):
    """Which fault the network of this number has, and in which layer."""
    generator = random.Random(number * 32)
    return generator.choice(KINDS), generator.randint(2, 5)


@conditions("the four diagnoses", "chapter 14, exercise 14.4", 6694)
def check_mystery(answers):
    """{number of the network: (kind, layer)} for the four networks of exercise 14.4."""
    keys = {*answers} if isinstance(answers, Mapping) else {"no dict"}
    yield keys <= {1, 2, 3, 4}, "it is not a dict of the four networks", "Pass a dict with the keys 1, 2, 3 and 4."
    for number in range(1, 5):
        answer = answers.get(number)
        yield answer is not None and not has_gap(answer), f"network {number} has no diagnosis yet"
        is_pair = isinstance(answer, tuple | list) and len(answer) == 2 and isinstance(answer[0], str)
        is_pair = is_pair and any(alike(answer[0], kind) for kind in KINDS) and option(answer[1])[0] == "number"
        yield is_pair, f"network {number}: that is not a diagnosis", _GIVE
        kind, layer = fault_of(number)
        yield alike(answer[1], layer), f"network {number}: not that layer", _LOOK
        yield alike(answer[0], kind), f"network {number}: the layer is right, the kind is not", _WHICH
