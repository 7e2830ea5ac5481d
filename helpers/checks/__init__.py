"""Checks for the exercises: a learner's function or class in, a CheckResult out.

Each check lists the inputs that it tries, the right function, and the usual mistakes as pairs of a sentence and
the wrong function that it describes; `helpers.checks.engine` does the rest. Those of chapters 02 to 04 stand here; the
others, in modules of their own, are handed on, so that every notebook imports from this one.
"""

import math

import torch

from helpers.checks.batch_norm import check_batch_norm, check_batch_norm_forward
from helpers.checks.data import check_build_dataset, check_unigram_entropy
from helpers.checks.engine import CheckResult, as_array, as_bools, judge, lecture_at
from helpers.checks.exercises import check_fold, check_what_trains
from helpers.checks.linear import check_linear
from helpers.checks.network import check_collapse, check_conv_as_linear, check_conv_output_size
from helpers.checks.statistics import (
    check_fixed_point,
    check_gain_powers,
    check_grad_to_data,
    check_gradient_growth,
    check_saturated_share,
    check_update_ratio,
)

__all__ = [
    "CheckResult",
    "check_batch_norm",
    "check_batch_norm_forward",
    "check_build_dataset",
    "check_collapse",
    "check_conv_as_linear",
    "check_conv_output_size",
    "check_dead_units",
    "check_fixed_point",
    "check_fold",
    "check_gain_powers",
    "check_grad_to_data",
    "check_gradient_growth",
    "check_initial_loss",
    "check_kaiming_std",
    "check_linear",
    "check_saturated_share",
    "check_tanh_gain",
    "check_tanh_gradient",
    "check_unigram_entropy",
    "check_update_ratio",
    "check_what_trains",
]

# Chapter 02: the initial loss


def check_initial_loss(f):
    """f(vocab_size) -> the cross-entropy loss, in nats, of a network that finds all characters equally likely."""
    mistakes = [
        ("That is log2: torch's cross-entropy uses the natural log.", math.log2),
        ("That is log10: torch's cross-entropy uses the natural log.", math.log10),
        ("That is the probability of each character: the loss is minus its log.", lambda v: 1 / v),
        ("The sign is missing: the loss is minus the log of a probability, so it is positive.", lambda v: -math.log(v)),
        ("27 is hard-coded: vocab_size is never used.", lambda v: math.log(27)),
        ("The end character \".\" is one of the vocab_size characters already: take none away.",
         lambda v: math.log(v - 1)),
        ("The end character \".\" is one of the vocab_size characters already: add none.", math.log1p),
        ("That is an average over all characters: only the right character's log-probability counts.",
         lambda v: math.log(v) / v),
        ("That is a sum over all characters: only the right character's log-probability counts.",
         lambda v: math.log(v) * v),
        ("That is exp of the loss, the perplexity: take its log.", lambda v: v),
        ("That is half of it: the loss is minus the log of the probability, 1 / vocab_size.", lambda v: math.log(v) / 2),
        ("That is the probability of being wrong: the loss is minus the log of the probability of being right.",
         lambda v: 1 - 1 / v),
    ]  # fmt: skip
    look = lecture_at("chapter 02, ln 27", 259)
    return judge(f, "vocab_size", [(27,), (2,), (100,), (50257,)], math.log, mistakes, look)


# Chapter 03: the saturated tanh


def check_dead_units(f):
    """f(h) -> one bool per unit: whether |h| > 0.99 for every example; h (N, units) are tanh outputs."""
    on, off = 0.999, 0.2
    columns = [
        [on] * 6,
        [-on] * 6,
        [on, -on] * 3,
        [on] * 5 + [off],
        [0.98] * 6,
        [0.9999] * 5 + [0.96],  # alive, though the mean of |h| is above 0.99
        [off] * 6,
        [off] + [-on] * 5,
        [0.992, -0.994] * 3,  # dead, though 1 - h^2 is above 0.01
    ]
    large = torch.tensor([[on] * 64, [on] * 40 + [off] * 24, [off, on] * 32, [0.9999] * 63 + [0.8]]).T
    cases = [(torch.tensor(columns).T.contiguous(),), (large.contiguous(),)]

    def saturated(h, threshold=0.99):
        return h.abs() > threshold

    mistakes = [
        ("That asks for any example: a unit is dead when all of its examples are saturated.",
         lambda h: saturated(h).any(0)),
        ("That is along the wrong axis: the examples are dimension 0, and every unit wants an answer of its own.",
         lambda h: saturated(h).all(1)),
        ("That is along the wrong axis: the examples are dimension 0, and every unit wants an answer of its own.",
         lambda h: saturated(h).any(1)),
        ("The negative side is missing: tanh is as flat at -1 as at +1, so take h.abs().", lambda h: (h > 0.99).all(0)),
        ("A unit may jump between -1 and +1 and be dead all the same: compare h.abs().",
         lambda h: (h > 0.99).all(0) | (h < -0.99).all(0)),
        ("These are counts: a unit is dead when its count is N; return that comparison.", lambda h: saturated(h).sum(0)),
        ("These are fractions: a unit is dead when its fraction is 1; return that comparison.",
         lambda h: saturated(h).double().mean(0)),
        ("That is 0.97, the threshold of the saturation plots: here a unit is dead beyond 0.99.",
         lambda h: saturated(h, 0.97).all(0)),
        ("A white column of 32 examples is not yet a dead unit: look at every example in h.",
         lambda h: saturated(h[:32]).all(0)),
        ("The mean hides an example that is alive: ask of every example, then of all together.",
         lambda h: h.abs().mean(0) > 0.99),
        ("The mean hides an example that is alive: ask of every example, then of all together.",
         lambda h: h.mean(0).abs() > 0.99),
        ("The mean hides an example that is alive: ask of every example, then of all together.",
         lambda h: h.square().mean(0) > 0.99),
        ("More than half of the examples is not all of them: a dead unit is saturated for every example.",
         lambda h: saturated(h).double().mean(0) > 0.5),
        ("That asks where 1 - h^2 is below 0.01, or |h| above 0.995: the threshold is |h| > 0.99.",
         lambda h: (1 - h**2 < 0.01).all(0)),
        ("That asks where 1 - h^2 is below 0.01, or |h| above 0.995: the threshold is |h| > 0.99.",
         lambda h: saturated(h, 0.995).all(0)),
        ("That is ReLU's dead unit, never above 0: tanh's is stuck at -1 or 1.", lambda h: (h <= 0).all(0)),
        ("That is ReLU's dead unit, always 0: tanh's is stuck at -1 or 1.", lambda h: (h == 0).all(0)),
        ("A dead unit may jump between -1 and 1: look at the size of h, not at its spread.", lambda h: h.std(0) < 0.01),
        ("These are the indices of the dead units: return one bool for every unit.",
         lambda h: torch.where(saturated(h).all(0))[0]),
        ("That is their number: return one bool for every unit.", lambda h: saturated(h).all(0).sum()),
        ("The shape has one dimension too many: leave keepdim out.", lambda h: saturated(h).all(0, keepdim=True)),
        ("That marks every single activation: a unit gets one answer for all its examples.", saturated),
        ("That is one answer for the whole layer: reduce over dimension 0 only.", lambda h: saturated(h).all()),
        ("That is upside down: these are the units that are not dead.", lambda h: ~saturated(h).all(0)),
        ("That finds units that are never saturated: dead is where |h| is large.", lambda h: (~saturated(h)).all(0)),
        ("The units are right; return them as bools, the result of a comparison.", lambda h: saturated(h).all(0).int()),
    ]  # fmt: skip
    look = lecture_at("chapter 03, saturated is not dead", 779)
    return judge(f, "h", cases, lambda h: saturated(h).all(0), mistakes, look, read=as_bools)


def check_tanh_gradient(f):
    """f(t) -> the local gradient of tanh, from its output t."""
    cases = [(torch.tensor([0.0, 0.5, -0.5, 0.97, -0.99]),), (torch.tensor([[0.1, -0.3], [0.9, 1.0], [-1.0, 0.0]]),)]
    mistakes = [
        ("t is tanh's output already: you take tanh a second time.", lambda t: 1 - t.tanh() ** 2),
        ("The square is missing: 1 - t is not even symmetric in t.", lambda t: 1 - t),
        ("The square is missing: 1 - |t| has a kink at 0, tanh has none.", lambda t: 1 - t.abs()),
        ("That is the gradient of the sigmoid, t(1 - t).", lambda t: t * (1 - t)),
        ("That is t squared: the gradient is what is left of 1.", lambda t: t**2),
        ("The sign is wrong: tanh rises everywhere, so its gradient is never negative.", lambda t: t**2 - 1),
        ("That is (1 - t) squared: square t before it is taken from 1.", lambda t: (1 - t) ** 2),
        ("That is 1 plus t squared: the gradient shrinks as |t| grows.", lambda t: 1 + t**2),
        ("That is tanh itself, not its gradient.", torch.tanh),
        ("That is the root of it: the gradient is 1 - t squared.", lambda t: (1 - t**2).sqrt()),
        ("That is differentiated once more: 1 - t squared is the gradient already.", lambda t: -2 * t),
        ("That is the derivative of t squared: the gradient is 1 - t squared.", lambda t: 2 * t),
        ("t comes in once more: the gradient is 1 - t squared.", lambda t: t * (1 - t**2)),
        ("The 2 is too many: the gradient is 1 - t squared.", lambda t: 1 - 2 * t**2),
        ("t is tanh's output already: no tanh, sigmoid or cosh is needed.", lambda t: t.sigmoid() * (1 - t.sigmoid())),
    ]
    look = lecture_at("chapter 03, the gradient through a tanh", 779)
    return judge(f, "t", cases, lambda t: 1 - t**2, mistakes, look, read=as_array)


# Chapter 04: Kaiming init


def check_kaiming_std(f):
    """f(fan_in, gain) -> the std of the weights that keeps the scale of a layer's input, times the gain."""
    cases = [(30, 5 / 3), (200, 1.0), (100, 2.0), (64, 0.5)]
    root = math.sqrt
    mistakes = [
        ("That is the variance: the std is its root.", lambda n, g: g**2 / n),
        ("fan_in is not rooted: it is variances that add up, fan_in of them.", lambda n, g: g / n),
        ("The gain is squared, as in the variance: the std is proportional to it.", lambda n, g: g**2 / root(n)),
        ("That multiplies by the root of fan_in: the more inputs, the smaller each weight, so divide.",
         lambda n, g: g * root(n)),
        ("The gain is ignored.", lambda n, g: 1 / root(n)),
        ("The gain is inside the root: only fan_in belongs there.", lambda n, g: root(g / n)),
        ("5/3 is hard-coded: use the gain that is given.", lambda n, g: 5 / 3 / root(n)),
        ("The root of 2 is ReLU's gain: use the gain that is given.", lambda n, g: root(2 / n)),
        ("The root of 2 is ReLU's gain: the gain that is given already stands for the nonlinearity.",
         lambda n, g: g * root(2 / n)),
        ("That is nn.Linear's default, 1/sqrt(3 fan_in), which has another gain.", lambda n, g: 1 / root(3 * n)),
        ("The 3 belongs to the bound of a uniform distribution: this is a std.", lambda n, g: g / root(3 * n)),
        ("The 3 belongs to the bound of a uniform distribution: this is a std.", lambda n, g: g * root(3 / n)),
        ("That divides by the gain: multiply, to make up for what the nonlinearity squeezes.",
         lambda n, g: 1 / (g * root(n))),
        ("That is upside down: the more inputs, the smaller each weight.", lambda n, g: root(n) / g),
        ("That is upside down: the more inputs, the smaller each weight.", lambda n, g: n / g),
        ("fan_in is ignored: the more inputs, the smaller each weight.", lambda n, g: g),
        ("fan_in and gain have changed places.", lambda n, g: n / root(g)),
        ("The gain is missing, and the root: the std is gain / sqrt(fan_in).", lambda n, g: 1 / n),
        ("That is the variance for ReLU, 2 / fan_in: take the gain that is given, and the root.", lambda n, g: 2 / n),
        ("The 6 belongs to the bound of a uniform distribution, with ReLU's gain: this is a std.", lambda n, g: root(6 / n)),
        ("The 6 belongs to the bound of a uniform distribution, with ReLU's gain: this is a std.",
         lambda n, g: g * root(6 / n)),
        ("fan_in is squared: take its root.", lambda n, g: g / n**2),
        ("That multiplies by fan_in: the more inputs, the smaller each weight, so divide by its root.", lambda n, g: g * n),
    ]  # fmt: skip
    look = lecture_at("chapter 04, the derivation in three lines", 1673)
    return judge(f, "fan_in, gain", cases, lambda n, g: g / root(n), mistakes, look)


def check_tanh_gain(f):
    """f() -> the gain that keeps tanh layers' pre-activations at std 1: 1 / sqrt(E[tanh(z)^2]), z ~ N(0, 1)."""
    second_moment = 0.39429449  # E[tanh(z)^2], by the trapezoidal rule
    gain = second_moment**-0.5
    mistakes = [
        ("5/3 is PyTorch's table value: with it pre-activations settle at a std of 1.086, not 1.", lambda: 5 / 3),
        ("Gain 1 is for a layer without a nonlinearity: a tanh squeezes, and the std decays.", lambda: 1),
        ("The root of 2 is ReLU's gain.", lambda: math.sqrt(2)),
        ("That is the std of the tanh outputs: the gain has to undo it, so take 1 over it.", lambda: 1 / gain),
        ("That is E[tanh(z)^2] itself: the gain is 1 over its root.", lambda: second_moment),
        ("The root is missing: the gain is a ratio of stds, not of variances.", lambda: 1 / second_moment),
        ("That is 1 / E[|tanh(z)|]: a std is the root of the mean square.", lambda: 1 / 0.55597),
        ("That is 1 / E[1 - tanh(z)^2], from tanh's gradient: forward, tanh(z) itself counts.", lambda: 1 / 0.60571),
        (
            "That is 1 over the root of E[(1 - tanh(z)^2)^2], from tanh's gradient: forward, tanh(z) itself counts.",
            lambda: 0.46440**-0.5,
        ),
        ("That is 1 / tanh(1): average tanh(z)^2 over a normal z.", lambda: 1 / math.tanh(1)),
        ("That is where gain 5/3 settles: the gain that is asked for leaves pre-activations at std 1.", lambda: 1.0855),
        ("That is where gain 5/3 settles: the gain that is asked for leaves pre-activations at std 1.", lambda: 0.6513),
        (
            "That undoes gain 5/3, whose outputs settle at 0.651: here pre-activations of std 1 go in.",
            lambda: 1 / 0.6513,
        ),
    ]
    look = lecture_at("chapter 04, where 5/3 stands", 1673)
    tolerance = 3e-3  # wide enough for a million samples
    return judge(f, "", [()], lambda: gain, mistakes, look, tolerance=tolerance)
