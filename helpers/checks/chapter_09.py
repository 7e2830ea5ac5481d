"""Chapter 09: what one tanh layer does to the variance of a gradient."""

import math

import numpy as np

from helpers.checks.chapter_08 import Z, normal_mean, tanh_std
from helpers.checks.kinds import check


def _slope(std, power=2):
    return normal_mean((1 - np.tanh(std * Z) ** 2) ** power)


CASES = [(5 / 3, 1.086), (1.0, 0.5), (1.5, 2.0), (0.7, 0.2), (2.0, 1.0), (1.2, 0.05)]


@check("chapter 09, the growth per layer", 5454, CASES, tolerance=(1e-3, 1e-3))
def check_gradient_growth(gain, std):
    """f(gain, std) -> the factor on the gradient's variance, going back through one square layer h = tanh(x @ W).

    W ~ gain / sqrt(n) * randn, pre-activations ~ N(0, std^2): gain^2 E[(1 - tanh(z)^2)^2]. Within 0.001.
    """
    return gain**2 * _slope(std)


check_gradient_growth.mistakes = {
    "That is the factor on the std: the question is the variance, its square.": lambda g, s: g * _slope(s) ** 0.5,
    "The square of the local gradient is missing: a variance takes E[(1 - tanh^2)^2].": (
        lambda g, s: g**2 * _slope(s, 1), lambda g, s: g * _slope(s, 1)),
    "The mean is squared: square each local gradient first, then average.": lambda g, s: g**2 * _slope(s, 1) ** 2,
    "The gain is not squared: it multiplies the std, its square the variance.": lambda g, s: g * _slope(s),
    "The gain is missing: the gradient also passes back through W.": lambda g, s: _slope(s),
    "The tanh is missing: its local gradient, 1 - tanh(z)^2, shrinks what passes.": lambda g, s: g**2,
    "z is std times a standard normal: std is neither ignored, rooted nor squared, and has the gain in it already.": (
        lambda g, s: g**2 * _slope(1.0), lambda g, s: g**2 * _slope(math.sqrt(s)), lambda g, s: g**2 * _slope(s * s),
        lambda g, s: g**2 * _slope(g * s)),
    "That is the local gradient at z = std: average it over z ~ N(0, std^2).": (
        lambda g, s: g**2 * (1 - math.tanh(s) ** 2) ** 2, lambda g, s: g**2 * (1 - math.tanh(s) ** 2)),
    "That is the growth going forward, E[tanh^2]: going back, the local gradient 1 - tanh^2 counts.":
        lambda g, s: g**2 * tanh_std(s) ** 2,
    "The local gradient of tanh is 1 - tanh(z)^2: the inner square is missing.":
        lambda g, s: g**2 * normal_mean((1 - np.tanh(s * Z)) ** 2),
}  # fmt: skip
