"""Chapter 08: the share of saturated entries, and the std that deep tanh networks settle at."""

import math
from functools import cache, partial

import numpy as np
import torch

from helpers.checks.kinds import check, seeded_randn

T = (seeded_randn(8, 6, seed=1) * torch.tensor([0.3, 0.8, 1.5, 3.0, 9.0, 5.0])).tanh()
T[:, 4] = torch.where(T[:, 4].abs() > 0.9, T[:, 4], 0.9999)  # a dead unit
T[2] = T[2].sign() * torch.tensor([0.995, 0.98, 0.96, 0.9, 0.995, 0.98])
SHARES = [(T, 0.97), (T, 0.999), (-T[:5].abs(), 0.5), (T[3:, :4].contiguous(), 0.9), (T[:4, :3].contiguous(), 0.3)]


@check("chapter 08, the saturated share", 5211, SHARES)
def check_saturated_share(t, threshold):
    """f(t, threshold) -> the share of entries of t, tanh outputs of shape (N, units), with |t| > threshold."""
    return (t.abs() > threshold).double().mean()


def _over(change):
    return lambda t, threshold: change((t.abs() > threshold).double())


check_saturated_share.mistakes = {
    "One side is missing: tanh is as flat at -1 as at +1, so take t.abs().": (
        lambda t, h: (t > h).double().mean(), lambda t, h: (t < -h).double().mean()),
    "That is a count: divide by the number of entries, or take the mean.": _over(torch.sum),
    "That is the share that is not saturated: |t| > threshold is wanted.": _over(lambda o: 1 - o.mean()),
    "That is one share per unit or example: take the mean over all entries.": (
        _over(lambda o: o.mean(0)), _over(lambda o: o.mean(1))),
    "That counts units or examples with such an entry: count single entries, N times units of them.": (
        _over(lambda o: o.amax(0).mean()), _over(lambda o: o.amax(1).mean())),
    "That counts units or examples that are saturated throughout: count single entries.": (
        _over(lambda o: o.amin(0).mean()), _over(lambda o: o.amin(1).mean())),
    "t holds tanh's outputs already: compare them as they are, without tanh or its inverse.": (
        lambda t, h: (t.tanh().abs() > h).double().mean(), lambda t, h: (t.atanh().abs() > h).double().mean()),
    "Divide the count by t.numel(): N times units.": (
        _over(lambda o: o.sum() / len(o)), _over(lambda o: o.sum() / o.shape[1])),
    "The square of t is compared with the threshold: take t.abs().": lambda t, h: (t**2 > h).double().mean(),
}  # fmt: skip

Z = np.linspace(-8, 8, 401)
DENSITY = np.exp(-(Z**2) / 2) / np.exp(-(Z**2) / 2).sum()  # standard normal, as weights of the points Z


def normal_mean(values):
    """E[values(z)] over standard normal z, from the values at Z."""
    return float(values @ DENSITY)


def tanh_std(std):
    """The root mean square of tanh(z), z ~ N(0, std^2): its std, as its mean is 0."""
    return math.sqrt(normal_mean(np.tanh(std * Z) ** 2))


@cache
def _stds(gain, layers=3000):
    """The std after 0, 1, 2, … layers, until it no longer changes."""
    stds = [1.0]
    while len(stds) <= layers and (len(stds) == 1 or abs(stds[-1] - stds[-2]) > 1e-9):
        stds.append(tanh_std(gain * stds[-1]))
    return stds


def _settled(step, gain):
    std, before = 1.0, 0.0
    for _ in range(1000):
        std, before = step(gain, std), std
        if abs(std - before) < 1e-9:
            break
    return std


def _after(layers, gain):
    return _stds(gain)[min(layers, len(_stds(gain)) - 1)]


GAINS = [(gain,) for gain in (5 / 3, 1.3, 3.0, 0.5, 0.9, 1.0, 1.05, 1.1, 1.2, 0.99, 2.0)]


@check("chapter 08, the fixed point of tanh layers", 5211, GAINS, tolerance=(0, 1e-3))
def check_fixed_point(gain):
    """f(gain) -> the std of tanh outputs deep in a tanh network without biases; 0 for gain <= 1. Within 0.001."""
    return _stds(gain)[-1] if gain > 1 else 0.0


check_fixed_point.mistakes = {
    "That is the std of the pre-activations: the question is what comes out of the tanh.":
        lambda g: g * check_fixed_point.right(g),
    "That is the variance: the std is its root.": (
        lambda g: check_fixed_point.right(g) ** 2, lambda g: (g * check_fixed_point.right(g)) ** 2),
    "The std is put through tanh as if it were a value: average tanh(z)^2 over z ~ N(0, (gain * std)^2).": (
        math.tanh, partial(_settled, lambda g, s: math.tanh(g * s))),
    "The root is missing at every layer: E[tanh(z)^2] is a variance, the next layer needs the std.":
        partial(_settled, lambda g, s: tanh_std(g * s) ** 2),
    "z has the std gain * std: neither is rooted or squared.": (
        partial(_settled, lambda g, s: tanh_std(math.sqrt(g * s))), partial(_settled, lambda g, s: tanh_std(g**0.5 * s)),
        partial(_settled, lambda g, s: tanh_std(g * g * s))),
    "That averages |tanh(z)|: a std is the root of the mean square.":
        partial(_settled, lambda g, s: normal_mean(np.abs(np.tanh(g * s * Z)))),
    "The gain comes after the tanh: it scales what goes in.": lambda g: g * tanh_std(1.0),
    "Tanh is left out: it squeezes what the gain has spread.": lambda g: g,
    "The answer for a gain of 1 or less is 0: the signal dies out layer by layer, at 1 too, though slowly.": (
        *(lambda g, low=low: check_fixed_point.right(g) or low(g) for low in (float, tanh_std, lambda g: 1.0)),
        *(partial(_after, n) for n in (1000, 2000))),
    "Just above a gain of 1 the std is not 0: it settles at a small number, after some hundred layers.": (
        *(lambda g, low=low: check_fixed_point.right(g) if g > low else 0.0 for low in (1.05, 1.1, 1.2, 1.25)),),
    "Those are too few layers: go on until the std no longer changes. Just above a gain of 1 that takes hundreds.": (
        *(partial(_after, n) for n in range(1, 60)),
        *(lambda g, n=n: 0.0 if g <= 1 else _after(n, g) for n in range(1, 51))),
}  # fmt: skip
