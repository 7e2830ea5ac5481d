"""The two exercises given with the lecture: E01, all parameters zero, and E02, folding BatchNorm."""

import inspect
import re
from collections.abc import Iterable, Mapping

import torch

from helpers.checks.kinds import check, choice, choices, conditions, seeded_randn
from helpers.checks.readings import as_parts
from helpers.checks.sandbox import require, was_given

NAMES = ("C", "W1", "b1", "W2", "b2")  # from the input to the loss
BLOCKED = {  # the wrong member nearest to the loss is told first: the way back begins there
    "W2": "W2's gradient is the hidden layer h times the gradient at the logits, and h = tanh(0) = 0: exactly 0.",
    "b1": "b1's gradient comes back through W2, and W2 is all zeros: it is exactly 0.",
    "W1": "W1's gradient is the embedding times what comes back through W2: zeros times zeros, so exactly 0.",
    "C": "C's gradient comes back through W1, and W1 is all zeros: it is exactly 0.",
    "": "One parameter reaches the loss with no zero in between: go back from the logits, and stop at the first.",
}


@conditions("the parameters that train", "exercise E01, the chain rule with the zeros in it", 259)
def check_what_trains(answer):
    """The set, in any form, of those among the names C, W1, b1, W2, b2 that train when all start at zero."""
    is_set = isinstance(answer, Iterable) and not isinstance(answer, Mapping | torch.Tensor)
    yield is_set, was_given(answer), 'Pass a set of names, such as {"C", "W1"}, or set().'
    used_up = inspect.isgenerator(answer) and inspect.getgeneratorstate(answer) == inspect.GEN_CLOSED
    yield not used_up, "the generator is used up", "It gives its names once: make a set of them, `{...}`."
    found = getattr(answer, "tolist", lambda: answer)()
    found = re.findall(r"\w+", found) if isinstance(found, str) else list(found)
    yield not any(name is ... for name in found), "there is no answer yet"
    for name in found:
        is_name = isinstance(name, str)
        shown = repr(name) if is_name else f"an object of type {type(name).__name__}"
        hint = f"Their names are {', '.join(NAMES)}, as text."
        yield is_name and name in NAMES, f"{shown} is not one of the parameters", hint
    names = [name for name in NAMES if name in found]
    hint = next(why for name, why in BLOCKED.items() if name in names or not name)
    yield names == ["b2"], f"yours, {', '.join(names) or 'none'}, is not right", hint


_THROUGH = "At step 0 a gradient that has to come back through W2 finds only zeros there."
_DEADLOCK = "C is heard only through W1, and W1 reads only C. Both are zero: which of them could go first?"
_READS = "W2 reads h. What is a sigmoid at 0?"
_LOGITS = "b2 gets the sum of the gradients at the logits, at every step: no zero stands in between."
check_sigmoid_zeros = choices("the first gradients", "exercise E01, the chain rule with the zeros in it", 259, {
    "C": ("never", {"step 0": _THROUGH, "step 1": _DEADLOCK}),
    "W1": ("never", {"step 0": _THROUGH, "step 1": _DEADLOCK}),
    "b1": ("step 1", {"step 0": _THROUGH, "never": "W2 moves at step 0: what comes back through it then?"}),
    "W2": ("step 0", {"step 1": _READS, "never": _READS}),
    "b2": ("step 0", {"step 1": _LOGITS, "never": _LOGITS}),
})  # fmt: skip

_WAIT = "exercise E01, two tensors that wait for each other"
check_failing_pair = choice("the pair that fails", _WAIT, 259, "b1 and W2", {
    "C and W1": "Then x @ W1 is not zero and h is alive: W2 moves at step 0, and lets the gradient back.",
    "C and b1": "b1 wakes h, so W2 moves at step 0. Then W1 hears the loss, and it has C to read.",
    "C and W2": "W2 lets the gradient back at step 0, and W1 has C to read.",
    "W1 and b1": "b1 wakes h, so W2 moves at step 0, and W1 hands the gradient on to C.",
    "W1 and W2": "Both hand the gradient on: C moves at step 0, and then W1 has something to read.",
})  # fmt: skip

_A, _B = "A hears the loss only through B.", "B reads x @ A, and nothing else."
check_lora_starts = choices("the three starts", "exercise E01, what a weight reads and who listens", 259, {
    "B zero": ("B", dict.fromkeys(("A", "both"), _A) | {"neither": "B reads x @ A, which is not zero."}),
    "A zero": ("A", dict.fromkeys(("B", "both"), _B) | {"neither": "A reads x, and B lets the gradient back."}),
    "both zero": ("neither", {"A": _A, "B": _B, "both": f"{_A} {_B}"}),
})  # fmt: skip


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
    def fold(W, b, gamma, beta, mean, var, eps):
        s = scale(gamma, var, eps)
        return weight(W, s), bias(b, s, mean, beta)

    return fold


check_fold.mistakes = {
    "eps is outside the root: add it to the variance, before the root.": _fold(lambda g, v, e: g / (v.sqrt() + e)),
    "BatchNorm divides by the root of running_var + eps: not by the variance, and it does not multiply.": (
        _fold(lambda g, v, e: g / (v + e)), _fold(lambda g, v, e: g * (v + e).sqrt())),
    "The variance is scaled by 31/32 or 32/31: running_var is used as it is, in eval mode no batch counts.": (
        _fold(lambda g, v, e: g / (v * 31 / 32 + e).sqrt()), _fold(lambda g, v, e: g / (v * 32 / 31 + e).sqrt())),
    "The scale is on the rows of W: a unit of the Linear is a column here, (fan_in, fan_out).": _fold(
        weight=lambda W, s: W * s[:, None]),
    "The scale multiplies the columns of W.": (_fold(weight=lambda W, s: W), _fold(weight=lambda W, s: W / s)),
    "b and running_mean are both scaled, beta is not: b2 is (b - running_mean) * s + beta.": (
        _fold(bias=lambda b, s, m, h: b - m * s + h), _fold(bias=lambda b, s, m, h: b * s - m + h),
        _fold(bias=lambda b, s, m, h: b - m + h), _fold(bias=lambda b, s, m, h: (b - m + h) * s)),
    "A sign is wrong in b2: it is (b - running_mean) * s + beta.": (
        _fold(bias=lambda b, s, m, h: (b + m) * s + h), _fold(bias=lambda b, s, m, h: (b - m) * s - h)),
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


CONVERTED = [(torch.tensor(v, dtype=torch.float64), was, new)  # a root takes them, math's and torch's
             for v, was, new in ((1e-3, 1e-3, 1e-5), (4, 0.5, 0.1), (0, 1e-3, 1e-5))]  # fmt: skip


@check("exercise E02, the converted network", 3787, CONVERTED)
def check_wrong_by(running_var, eps_was, eps_is):
    """f(running_var, eps_was, eps_is) -> the scale with the eps it is read with, divided by that of its training."""
    return ((running_var + eps_was) / (running_var + eps_is)) ** 0.5


check_wrong_by.mistakes = {
    "eps is added to the variance, under the root.": lambda v, was, new: (v**0.5 + was) / (v**0.5 + new)
}
