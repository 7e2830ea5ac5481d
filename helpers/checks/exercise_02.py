"""Exercise E02, folding BatchNorm: a Linear in place of two layers, the other order, another eps."""

import re

import torch

from helpers.checks.kinds import check, choices, seeded_randn
from helpers.checks.readings import as_parts
from helpers.checks.sandbox import require


def _layer(fan_in, fan_out, eps, seed):
    """A Linear with a BatchNorm after it, trained by nobody: scrambled numbers, the variances small and large."""
    W, rest = torch.split(seeded_randn(fan_in + 5, fan_out, seed=seed, dtype=torch.float64), [fan_in, 5])
    b, gamma, beta, mean, scale = rest
    return W, b, gamma + 0.005, beta, 2 * mean + 0.5, (0.5 + scale.abs()) ** 2 / 4, eps


def _folded(value):
    read = as_parts("W2", "b2")(value)
    for label, part in zip(read, value, strict=True):
        kind, hint = str(getattr(part, "dtype", "")), "The inputs are float64: keep that, without .float()."
        require(not re.search("float(16|32)", kind), f"{label} is {kind}", hint)
    return read


# Square first: a scale on the wrong axis then has a shape that fits, and can be named.
LAYERS = [_layer(5, 5, 1e-5, seed=1), _layer(4, 6, 1e-3, seed=2), _layer(3, 2, 1e-5, seed=3)]


@check("exercise E02, the fold on paper", 3787, LAYERS, read=_folded, tolerance=(1e-10, 1e-12))
def check_fold(W, b, gamma, beta, running_mean, running_var, eps):
    """f(W, b, gamma, beta, running_mean, running_var, eps) -> (W2, b2), one Linear in place of Linear and BatchNorm.

    x @ W2 + b2 is what BatchNorm makes of x @ W + b in eval mode. W and W2 (fan_in, fan_out), all else (fan_out,);
    a Linear without a bias has zeros for b. All float64, and judged to ten digits: there a forgotten eps shows.
    """
    s = gamma / (running_var + eps).sqrt()
    return W * s, (b - running_mean) * s + beta


def _fold(scale=lambda g, v, e: g / (v + e).sqrt(), weight=lambda W, s: W * s, bias=lambda b, s, m, h: (b - m) * s + h):
    """An answer of which one part is another: they are compared part by part."""

    def fold(W, b, gamma, beta, mean, var, eps):
        s = scale(gamma, var, eps)
        return weight(W, s), bias(b, s, mean, beta)

    return fold


check_fold.mistakes = {
    "eps is outside the root: add it to the variance, before the root.": _fold(lambda g, v, e: g / (v.sqrt() + e)),
    "BatchNorm divides by the root of running_var + eps: not by the variance, and it does not multiply.": (
        _fold(lambda g, v, e: g / (v + e)), _fold(lambda g, v, e: g * (v + e).sqrt())),
    "The scale is on the rows of W: a unit of the Linear is a column here, (fan_in, fan_out).": (
        _fold(weight=lambda W, s: W * s[:, None]), _fold(lambda g, v, e: g / (v.sqrt() + e), lambda W, s: W * s[:, None]),
        _fold(lambda g, v, e: g / v.sqrt(), lambda W, s: W * s[:, None])),
    "The scale multiplies the columns of W, one by one: W * s.": (
        _fold(weight=lambda W, s: W), _fold(weight=lambda W, s: W / s)),
    "W2 is transposed: here W is (fan_in, fan_out), as in x @ W, and not as in nn.Linear.": (
        _fold(weight=lambda W, s: (W * s).T)),
    "b2 is what BatchNorm makes of b: (b - running_mean) * s + beta.": tuple(_fold(bias=bias) for bias in (
        lambda b, s, m, h: b - m * s + h, lambda b, s, m, h: b * s - m + h, lambda b, s, m, h: b - m + h,
        lambda b, s, m, h: (b - m + h) * s, lambda b, s, m, h: (b + m) * s + h, lambda b, s, m, h: (b - m) * s - h,
        lambda b, s, m, h: (b - m) / s + h)),
    "W2 and b2 have changed places: return W2, b2.": lambda *args: check_fold.right(*args)[::-1],
}  # fmt: skip

check_other_order = choices("the other order", "exercise E02, the BatchNorm behind the tanh", 3787, {
    "the Linear": ("the one behind", {
        "the one in front": "The tanh stands between: is the tanh of something scaled the scaled tanh?"}),
    "scaled": ("rows", {"columns": "The BatchNorm scales what the Linear reads. Which axis of W is fan_in?"}),
    "a convolution": ("but for the border", {
        "everywhere": "The zeros of the padding do not come through the BatchNorm. What would it make of a 0?",
        "nowhere": "Where no padding is read, a convolution is a Linear over patches."}),
})  # fmt: skip

_VARIANCES = (1e-3, 1e-3, 1e-5), (4, 0.5, 0.1), (0, 1e-3, 1e-5)
CONVERTED = [(torch.tensor(v, dtype=torch.float64), was, new) for v, was, new in _VARIANCES]  # math and torch take them


@check("exercise E02, the converted network", 3787, CONVERTED)
def check_wrong_by(running_var, eps_was, eps_is):
    """f(running_var, eps_was, eps_is) -> the scale with the eps it is read with, divided by that of its training."""
    return ((running_var + eps_was) / (running_var + eps_is)) ** 0.5


check_wrong_by.mistakes = {
    "eps is added to the variance, under the root.": lambda v, was, new: (v**0.5 + was) / (v**0.5 + new)
}
