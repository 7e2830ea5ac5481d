"""The checks of the two exercises given with the lecture: E01, all parameters zero, and E02, folding BatchNorm.

`helpers.checks` hands them on.
"""

import itertools
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np
import torch

from helpers.checks.engine import (
    CheckResult,
    Verdict,
    as_parts,
    combined,
    judge,
    lecture_at,
    not_attempted,
    seeded_randn,
)

# E01: all parameters zero

NAMES = ("C", "W1", "b1", "W2", "b2")  # from the input to the loss
BLOCKED = {
    "C": "C's gradient comes back through W1, and W1 is all zeros: it is exactly 0.",
    "W1": "W1's gradient is the embedding times what comes back through W2: zeros times zeros, so exactly 0.",
    "b1": "b1's gradient comes back through W2, and W2 is all zeros: it is exactly 0.",
    "W2": "W2's gradient is the hidden layer h times the gradient at the logits, and h = tanh(0) = 0: exactly 0.",
}
KNOWN_SETS = [
    ((), ("Nothing trains only where there is no bias at all. One parameter reaches the loss with no zero in between: "
          "follow the gradient back from the logits, and stop at the first.")),
    (("C",), ('"C is the main contributor" is a published answer, and wrong: its gradient comes back through W2 and W1, '
              "both zero, so it is exactly 0.")),
    (NAMES, ("Zeros are not fine: a gradient that passes a zero weight, or is multiplied by a zero activation, is "
             "exactly 0. Print every gradient.")),
    (("b1", "b2"), ("A bias needs no input, but b1 needs a way back: through W2, which is all zeros, so its gradient is "
                    "exactly 0.")),
    (("W1", "W2"), ("Both weights meet zeros: W2's gradient is multiplied by h = tanh(0) = 0, W1's comes back through "
                    "W2 = 0.")),
]  # fmt: skip


def _names(value):
    """The set as one text; of a str, the names in it."""
    found = re.findall(r"\w+", value) if isinstance(value, str) else list(value)
    for name in found:
        if not isinstance(name, str) or name not in NAMES:
            shown = repr(name) if isinstance(name, str) else f"an object of type {type(name).__name__}"
            raise Verdict(f"{shown} is not one of the parameters", f"Their names are {', '.join(NAMES)}, as text.")
    return [("the parameters that train", np.array(", ".join(n for n in NAMES if n in found) or "none"))]


def check_what_trains(answer):
    """The set of those among the names C, W1, b1, W2, b2 that train when all start at zero (part 1, no BatchNorm).

    A list, a tuple or a text of names will do as well; an empty set says that nothing trains.
    """
    tried = "the parameters that train"
    look = lecture_at("exercise E01, the chain rule with the zeros in it", 259)
    collection = isinstance(answer, (AbstractSet, Sequence))
    if answer is None or answer is ... or (collection and any(name is ... for name in answer)):
        return not_attempted(tried, "there is no answer yet")
    if not collection:
        given = f"the check was given an object of type {type(answer).__name__}"
        return CheckResult("wrong", tried, given, 'Pass a set of names, such as {"C", "W1"}, or set().', look)
    mistakes = [(sentence, lambda names=names: names) for names, sentence in KNOWN_SETS]
    # Of any other set, the wrong member nearest to the loss: the way back begins there.
    subsets = [names for size in range(6) for names in itertools.combinations(NAMES, size)]
    for blocked, sentence in reversed(BLOCKED.items()):
        mistakes += [(sentence, lambda names=names: names) for names in subsets if blocked in names]
    options = {"read": _names, "call": tried, "reveal": False}
    result = judge(lambda: answer, "", [()], lambda: ("b2",), mistakes, look, **options)
    return replace(result, tried="b2 alone trains") if result else result


# E02: folding BatchNorm into the Linear before it

SCALES = [
    ("", lambda gamma, var, eps: gamma / (var + eps).sqrt()),
    ("eps is forgotten: it is added to the variance, under the root.", lambda gamma, var, eps: gamma / var.sqrt()),
    ("eps is outside the root: add it to the variance, before the root.",
     lambda gamma, var, eps: gamma / (var.sqrt() + eps)),
    ("eps is hard-coded as 1e-5: use the one that is given.", lambda gamma, var, eps: gamma / (var + 1e-5).sqrt()),
    ("eps is subtracted: it is added to the variance.", lambda gamma, var, eps: gamma / (var - eps).sqrt()),
    ("That divides by the variance: BatchNorm divides by its root, the std.", lambda gamma, var, eps: gamma / (var + eps)),
    ("That divides by the variance: BatchNorm divides by its root, the std.", lambda gamma, var, eps: gamma / var),
    ("That multiplies by the std: BatchNorm divides by it.",
     lambda gamma, var, eps: gamma * (var + eps).sqrt()),
    ("gamma is forgotten: the scale is gamma / sqrt(running_var + eps).", lambda gamma, var, eps: 1 / (var + eps).sqrt()),
    ("running_var is forgotten: the scale is gamma / sqrt(running_var + eps).", lambda gamma, var, eps: gamma),
    ("The variance is scaled by 31/32: running_var is used as it is, in eval mode no batch counts.",
     lambda gamma, var, eps: gamma / (var * 31 / 32 + eps).sqrt()),
    ("The variance is scaled by 32/31: running_var is used as it is, in eval mode no batch counts.",
     lambda gamma, var, eps: gamma / (var * 32 / 31 + eps).sqrt()),
    ("running_var is taken for a std and squared: it is a variance.",
     lambda gamma, var, eps: gamma / (var**2 + eps).sqrt()),
]  # fmt: skip
WEIGHTS = [
    ("", lambda W, s: W * s),
    ("The scale is on the rows of W: a unit of the Linear is a column here, (fan_in, fan_out).",
     lambda W, s: W * s[:, None]),
    ("The scale is missing from W2: it multiplies the columns of W.", lambda W, s: W),
    ("The columns of W are divided by the scale: multiply.", lambda W, s: W / s),
    ("W2 is transposed: its layout stays that of W, (fan_in, fan_out).", lambda W, s: (W * s).T),
]  # fmt: skip
BIASES = [
    ("", lambda b, s, mean, beta: (b - mean) * s + beta),
    ("running_mean is forgotten: it is subtracted from b before the scale.", lambda b, s, mean, beta: b * s + beta),
    ("b is not scaled: the scale multiplies all that comes out of the Linear, its bias too.",
     lambda b, s, mean, beta: b - mean * s + beta),
    ("running_mean is not scaled: it is subtracted before the scale, (b - running_mean) * s + beta.",
     lambda b, s, mean, beta: b * s - mean + beta),
    ("Neither b nor running_mean is scaled: b2 is (b - running_mean) * s + beta.",
     lambda b, s, mean, beta: b - mean + beta),
    ("beta is scaled too: it is added after the scale.", lambda b, s, mean, beta: (b - mean + beta) * s),
    ("running_mean has the wrong sign: it is subtracted.", lambda b, s, mean, beta: (b + mean) * s + beta),
    ("b and running_mean have changed places: b2 is (b - running_mean) * s + beta.",
     lambda b, s, mean, beta: (mean - b) * s + beta),
    ("beta has the wrong sign: it is added.", lambda b, s, mean, beta: (b - mean) * s - beta),
    ("beta is forgotten: it is added last.", lambda b, s, mean, beta: (b - mean) * s),
    ("b is forgotten: without it the Linear's output would be shifted.", lambda b, s, mean, beta: -mean * s + beta),
    ("b is kept as it was: b2 is (b - running_mean) * s + beta.", lambda b, s, mean, beta: b),
    ("b and running_mean are left out: b2 is (b - running_mean) * s + beta.", lambda b, s, mean, beta: beta),
    ("Only beta is added: b2 is (b - running_mean) * s + beta.", lambda b, s, mean, beta: b + beta),
]  # fmt: skip


def _fold(scale, weight, bias):
    def fold(W, b, gamma, beta, mean, var, eps):
        s = scale(gamma, var, eps)
        return weight(W, s), bias(b, s, mean, beta)

    return fold


UNUSED = "running_mean and running_var are not used: eval mode takes them, and never the statistics of a batch."
FOLD, FOLD_MISTAKES = combined(_fold, SCALES, WEIGHTS, BIASES)


FOLD_MISTAKES += [
    ("gamma and beta have changed places.",
     lambda W, b, gamma, beta, mean, var, eps: FOLD(W, b, beta, gamma, mean, var, eps)),
    ("running_mean and running_var have changed places.",
     lambda W, b, gamma, beta, mean, var, eps: FOLD(W, b, gamma, beta, var, mean, eps)),
    ("W2 and b2 have changed places: return W2, b2.", lambda *args: FOLD(*args)[::-1]),
]  # fmt: skip


def _layer(fan_in, fan_out, eps, seed):
    """A Linear with a BatchNorm after it, trained by nobody: scrambled numbers, the variances small and large."""
    W, rest = torch.split(seeded_randn(fan_in + 5, fan_out, seed=seed, dtype=torch.float64), [fan_in, 5])
    b, gamma, beta, mean, scale = rest
    return W, b, gamma + 0.005, beta, 2 * mean + 0.5, (0.5 + scale.abs()) ** 2 / 4, eps


def _folded(value):
    """(W2, b2); a bias of shape (1, fan_out) will do as well as one of shape (fan_out,)."""
    (_, W2), (_, b2) = as_parts("W2", "b2")(value)
    for label, part in zip(("W2", "b2"), value, strict=True):
        if re.search("float(16|32)", kind := str(getattr(part, "dtype", ""))):
            hint = "The inputs are float64, where a forgotten eps shows: keep their dtype, without .float()."
            raise Verdict(f"{label} is {kind}", hint)
    return [("W2", W2), ("b2", b2[0] if b2.ndim == 2 and len(b2) == 1 else b2)]


def check_fold(f):
    """f(W, b, gamma, beta, running_mean, running_var, eps) -> (W2, b2), one Linear in place of Linear and BatchNorm.

    x @ W2 + b2 is what BatchNorm makes of x @ W + b in eval mode. W and W2 (fan_in, fan_out), all else (fan_out,);
    a Linear without a bias has zeros for b. All float64, and judged to ten digits: there a forgotten eps shows.
    """

    def with_others(W, b, gamma, beta, running_mean, running_var, eps):
        """The learner's own fold, given other running statistics: if it gives the same, it does not use them."""
        return f(W.clone(), b.clone(), gamma.clone(), beta.clone(), running_mean + 1, running_var * 2, eps)

    # Square first: a scale on the wrong axis then has a shape that fits, and can be named.
    cases = [_layer(5, 5, 1e-5, seed=1), _layer(4, 6, 1e-3, seed=2), _layer(3, 2, 1e-5, seed=3)]
    mistakes = [*FOLD_MISTAKES, (UNUSED, with_others)]
    look = lecture_at("exercise E02, the fold on paper", 3787)
    parameters = "W, b, gamma, beta, running_mean, running_var, eps"
    return judge(f, parameters, cases, FOLD, mistakes, look, read=_folded, tolerance=(1e-10, 1e-12))
