"""Chapter 04: the std of a layer's weights, and tanh's gain."""

import math

from helpers.checks.kinds import check

LAYERS = [(30, 5 / 3), (200, 1.0), (100, 2.0), (64, 0.5), (1, 1.5), (784, 0.1)]


@check("chapter 04, the derivation in three lines", 1673, LAYERS)
def check_kaiming_std(fan_in, gain):
    """f(fan_in, gain) -> the std of the weights that keeps the scale of a layer's input, times the gain."""
    return gain / math.sqrt(fan_in)


check_kaiming_std.mistakes = {
    "fan_in is not rooted: it is variances that add up, fan_in of them.": lambda n, g: g / n,
    "The gain is squared, as in the variance: the std is proportional to it.": lambda n, g: g**2 / n**0.5,
    "The more inputs, the smaller each weight: divide by the root.": (lambda n, g: g * n**0.5, lambda n, g: g * n),
    "The gain is inside the root: only fan_in belongs there.": lambda n, g: (g / n) ** 0.5,
    "The root of 2 is ReLU's gain: use the gain that is given, and no other.": (
        lambda n, g: (2 / n) ** 0.5, lambda n, g: g * (2 / n) ** 0.5, lambda n, g: 2 / n),
    "The 3 or the 6 belongs to the bound of a uniform distribution: this is a std.": (
        lambda n, g: (3 * n) ** -0.5, lambda n, g: g / (3 * n) ** 0.5, lambda n, g: g * (3 / n) ** 0.5,
        lambda n, g: (6 / n) ** 0.5, lambda n, g: g * (6 / n) ** 0.5),
    "That divides by the gain: multiply, to make up for what the nonlinearity squeezes.": lambda n, g: 1 / (g * n**0.5),
    "The gain is missing: the std is gain / sqrt(fan_in).": (lambda n, g: n**-0.5, lambda n, g: 1 / n),
}  # fmt: skip

MEAN_SQUARE = 0.39429449  # E[tanh(z)^2], by the trapezoidal rule


@check("chapter 04, where 5/3 stands", 1673, tolerance=3e-3)  # wide enough for a million samples
def check_tanh_gain():
    """f() -> the gain that keeps tanh layers' pre-activations at std 1: 1 / sqrt(E[tanh(z)^2]), z ~ N(0, 1)."""
    return MEAN_SQUARE**-0.5


check_tanh_gain.mistakes = {
    "5/3 is PyTorch's table value: with it pre-activations settle at a std of 1.086, not 1.": lambda: 5 / 3,
    "Gain 1 is for a layer without a nonlinearity: a tanh squeezes, and the std decays.": lambda: 1,
    "The root of 2 is ReLU's gain.": lambda: 2**0.5,
    "That is the std of the tanh outputs: the gain has to undo it.": lambda: MEAN_SQUARE**0.5,
    "That is E[tanh(z)^2] itself: the gain is 1 over its root.": lambda: MEAN_SQUARE,
    "The root is missing: the gain is a ratio of stds, not of variances.": lambda: 1 / MEAN_SQUARE,
    "That is 1 / E[|tanh(z)|]: a std is the root of the mean square.": lambda: 1 / 0.55597,
    "That is made of tanh's gradient, 1 - tanh(z)^2: forward, tanh(z) counts.": (lambda: 1 / 0.60571, lambda: 0.46440**-0.5),
    "That is 1 / tanh(1): average tanh(z)^2 over a normal z.": lambda: 1 / math.tanh(1),
    "That is where gain 5/3 settles: here pre-activations have std 1.": (lambda: 1.0855, lambda: 0.6513, lambda: 1 / 0.6513),
}
