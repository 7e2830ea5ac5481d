"""The checks of chapters 08, 09 and 11 to 13: statistics of activations, gradients, parameters and updates.

`helpers.checks` hands them on.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch

from helpers.checks.engine import CheckResult, Verdict, as_number, judge, lecture_at, not_attempted, seeded_randn

# Chapters 08 and 09: how tanh layers scale what passes through them, in theory

Z = np.linspace(-10, 10, 2001)
DENSITY = np.exp(-(Z**2) / 2) / np.exp(-(Z**2) / 2).sum()  # standard normal, as weights of the points Z


def _mean(values):
    """E[values(z)] over standard normal z."""
    return float(values @ DENSITY)


def _tanh_std(std):
    """The root mean square of tanh(z), z ~ N(0, std^2): its std, as its mean is 0."""
    return math.sqrt(_mean(np.tanh(std * Z) ** 2))


def _iterated(step, depth):
    std = 1.0
    for _ in range(depth):
        std = step(std)
    return std


def check_saturated_share(f):
    """f(t, threshold) -> the share of entries of t, tanh outputs of shape (N, units), with |t| > threshold."""
    t = (seeded_randn(8, 6, seed=1) * torch.tensor([0.3, 0.8, 1.5, 3.0, 9.0, 5.0])).tanh()
    t[:, 4] = torch.where(t[:, 4].abs() > 0.9, t[:, 4], 0.9999)
    t[2] = t[2].sign() * torch.tensor([0.995, 0.98, 0.96, 0.9, 0.995, 0.98])
    cases = [(t, 0.97), (t, 0.999), (-t[:5].abs(), 0.5), (t[3:, :4].contiguous(), 0.9)]

    def over(t, threshold):
        return (t.abs() > threshold).double()

    fixed = "The threshold is ignored: {} is written somewhere in the function."
    units = "That asks which units have such an entry: count single entries, N times units of them."
    examples = "That asks which examples have such an entry: count single entries, N times units of them."
    mistakes = [
        ("The negative side is missing: tanh is as flat at -1 as at +1, so take t.abs().",
         lambda t, h: (t > h).double().mean()),
        ("The positive side is missing: tanh is as flat at +1 as at -1, so take t.abs().",
         lambda t, h: (t < -h).double().mean()),
        ("That is a count: divide by the number of entries, or take the mean.", lambda t, h: over(t, h).sum()),
        ("That is a percentage: a share is between 0 and 1.", lambda t, h: 100 * over(t, h).mean()),
        ("That is the share that is not saturated: |t| > threshold is wanted.", lambda t, h: 1 - over(t, h).mean()),
        *((fixed.format(c), lambda t, h, c=c: over(t, c).mean()) for c in (0.97, 0.99)),
        ("That is one share per unit: take the mean over all entries.", lambda t, h: over(t, h).mean(0)),
        ("That is one share per example: take the mean over all entries.", lambda t, h: over(t, h).mean(1)),
        (units, lambda t, h: over(t, h).amax(0).mean()),
        (examples, lambda t, h: over(t, h).amax(1).mean()),
        ("That is the share of dead units, saturated for every example: count single entries.",
         lambda t, h: over(t, h).amin(0).mean()),
        ("That is the share of examples that saturate every unit: count single entries.",
         lambda t, h: over(t, h).amin(1).mean()),
        ("t holds tanh's outputs already: you take tanh a second time.", lambda t, h: over(t.tanh(), h).mean()),
        ("The count is divided by the number of examples: divide by t.numel(), N times units.",
         lambda t, h: over(t, h).sum() / len(t)),
        ("The count is divided by the number of units: divide by t.numel(), N times units.",
         lambda t, h: over(t, h).sum() / t.shape[1]),
        ("The square of t is compared with the threshold: take t.abs().", lambda t, h: (t**2 > h).double().mean()),
        ("The threshold is compared with the pre-activation: t holds tanh's outputs, compare them as they are.",
         lambda t, h: over(t.atanh(), h).mean()),
    ]  # fmt: skip
    look = lecture_at("chapter 08, the saturated share", 5211)
    return judge(f, "t, threshold", cases, lambda t, h: over(t, h).mean(), mistakes, look)


def check_fixed_point(f):
    """f(gain) -> the std of tanh outputs deep in a tanh network without biases; 0 for gain <= 1. Within 0.001."""

    def settled(step):
        return _iterated(step, 400)

    def layer(gain):
        return lambda std: _tanh_std(gain * std)

    cases = [(5 / 3,), (1.3,), (3.0,), (0.5,), (0.9,)]
    mistakes = [
        ("That is the std of the pre-activations: the question is what comes out of the tanh.",
         lambda g: g * settled(layer(g))),
        ("That is the variance: the std is its root.", lambda g: settled(layer(g)) ** 2),
        ("That is the variance, of the pre-activations: the std is its root.",
         lambda g: (g * settled(layer(g))) ** 2),
        ("The std is put through tanh as if it were a value: average tanh(z)^2 over z ~ N(0, (gain * std)^2).",
         lambda g: settled(lambda s: math.tanh(g * s))),
        ("That is tanh of the gain: average tanh(z)^2 over a normal z, and do it layer after layer.", math.tanh),
        ("The root is missing at every layer: E[tanh(z)^2] is a variance, the next layer needs the std.",
         lambda g: settled(lambda s: _tanh_std(g * s) ** 2)),
        ("gain * std is taken for a variance: z has the std gain * std.",
         lambda g: settled(lambda s: _tanh_std(math.sqrt(g * s)))),
        ("The gain is rooted: it multiplies the std, its square the variance.",
         lambda g: settled(lambda s: _tanh_std(math.sqrt(g) * s))),
        ("The gain is squared: it multiplies the std, its square the variance.",
         lambda g: settled(lambda s: _tanh_std(g * g * s))),
        ("That averages |tanh(z)|: a std is the root of the mean square.",
         lambda g: settled(lambda s: _mean(np.abs(np.tanh(g * s * Z))))),
        ("The gain comes after the tanh: it scales what goes in.", lambda g: g * _tanh_std(1.0)),
        ("The gain is ignored: 5/3 is written somewhere in the function.", lambda g: settled(layer(5 / 3))),
        ("Tanh is left out: it squeezes what the gain has spread.", lambda g: g),
        ("Below gain 1 the signal dies out layer by layer: the std there is 0.",
         lambda g: settled(layer(g)) if g > 1 else g),
        ("Below gain 1 the signal dies out layer by layer: the std there is 0.",
         lambda g: settled(layer(g)) if g > 1 else _tanh_std(g)),
        ("Below gain 1 the signal dies out layer by layer: the std there is 0.",
         lambda g: settled(layer(g)) if g > 1 else 1.0),
    ]  # fmt: skip
    few = "That is about the std after {} layer{}: go on until it no longer changes (a few hundred times)."
    mistakes += [
        (few.format(n, "s" * (n > 1)), lambda g, n=n: _iterated(layer(g), n)) for n in (*range(1, 31), 35, 40, 45, 50)
    ]
    look = lecture_at("chapter 08, the fixed point of tanh layers", 5211)
    return judge(f, "gain", cases, lambda g: settled(layer(g)), mistakes, look, tolerance=(0, 1e-3))


def check_gradient_growth(f):
    """f(gain, std) -> the factor on the gradient's variance, going back through one square layer h = tanh(x @ W).

    W ~ gain / sqrt(n) * randn, pre-activations ~ N(0, std^2): gain^2 E[(1 - tanh(z)^2)^2]. Within 0.001.
    """

    def local(std, power=2):
        return _mean((1 - np.tanh(std * Z) ** 2) ** power)

    def right(gain, std):
        return gain**2 * local(std)

    cases = [(5 / 3, 1.086), (1.0, 0.5), (1.5, 2.0), (0.7, 0.2)]
    mistakes = [
        ("That is the factor on the std: the question is the variance, its square.", lambda g, s: math.sqrt(right(g, s))),
        ("The square of the local gradient is missing: a variance takes E[(1 - tanh^2)^2].",
         lambda g, s: g**2 * local(s, 1)),
        ("The mean is squared: square each local gradient first, then average.", lambda g, s: g**2 * local(s, 1) ** 2),
        ("The gain is not squared: it multiplies the std, its square the variance.", lambda g, s: g * local(s)),
        ("The gain is not squared, nor is the local gradient: both factors act on a variance.",
         lambda g, s: g * local(s, 1)),
        ("The gain is missing: the gradient also passes back through W.", lambda g, s: local(s)),
        ("The tanh is missing: its local gradient, 1 - tanh(z)^2, shrinks what passes.", lambda g, s: g**2),
        ("std is ignored: z has the std that is given, not 1.", lambda g, s: g**2 * local(1.0)),
        ("std is taken for a variance: z is std times a standard normal.", lambda g, s: g**2 * local(math.sqrt(s))),
        ("std is squared: z is std times a standard normal, std^2 is its variance.", lambda g, s: g**2 * local(s * s)),
        ("The gain is used twice: std is the pre-activations' already, W included.",
         lambda g, s: g**2 * local(g * s)),
        ("That is the local gradient at z = std: average it over z ~ N(0, std^2).",
         lambda g, s: g**2 * (1 - math.tanh(s) ** 2) ** 2),
        ("That is the local gradient at z = std: average it over z ~ N(0, std^2), squared.",
         lambda g, s: g**2 * (1 - math.tanh(s) ** 2)),
        ("That is the growth going forward, E[tanh^2]: going back, the local gradient 1 - tanh^2 counts.",
         lambda g, s: g**2 * _tanh_std(s) ** 2),
        ("That is upside down: the factor from a layer's output back to its input.", lambda g, s: 1 / right(g, s)),
        ("The local gradient of tanh is 1 - tanh(z)^2: the inner square is missing.",
         lambda g, s: g**2 * _mean((1 - np.tanh(s * Z)) ** 2)),
        ("5/3 is hard-coded: use the gain that is given.", lambda g, s: 25 / 9 * local(s)),
    ]  # fmt: skip
    look = lecture_at("chapter 09, the growth per layer", 5454)
    return judge(f, "gain, std", cases, right, mistakes, look, tolerance=(1e-3, 1e-3))


# Chapters 11 and 12: ratios of standard deviations


def _ratio_mistakes():
    """Wrong ratios of the std of a to that of b, which the sentences call {top} and {bottom}."""
    spread = "use the std, which leaves the mean out"
    return [
        ("That is upside down: divide {top} by {bottom}.", lambda a, b: b.std() / a.std()),
        ("That is a ratio of variances: the std is the root.", lambda a, b: a.var() / b.var()),
        (f"That is a ratio of mean absolute values: {spread}.", lambda a, b: a.abs().mean() / b.abs().mean()),
        (f"That is a ratio of norms: {spread}.", lambda a, b: a.norm() / b.norm()),
        (f"That is a ratio of largest absolute values: {spread}.", lambda a, b: a.abs().max() / b.abs().max()),
        (f"That is a ratio of means: {spread}.", lambda a, b: a.mean() / b.mean()),
        ("That is the std of the quotients: divide one std by the other.", lambda a, b: (a / b).std()),
        ("That is the mean of the quotients: divide one std by the other.", lambda a, b: (a / b).mean()),
        ("That is the mean of the quotients: divide one std by the other.", lambda a, b: (a / b).abs().mean()),
        ("That is one ratio per column: take the std over all entries.", lambda a, b: a.std(0) / b.std(0)),
        ("That is one ratio per row: take the std over all entries.", lambda a, b: a.std(1) / b.std(1)),
        ("That is {top} alone: divide by {bottom}.", lambda a, b: a.std()),
        ("That is {bottom} alone: divide {top} by it.", lambda a, b: b.std()),
        ("That is a product: divide by {bottom}.", lambda a, b: a.std() * b.std()),
        ("That is a difference: divide {top} by {bottom}.", lambda a, b: a.std() - b.std()),
        ("One std is by N, the other by N - 1: take the same for both.",
         lambda a, b: a.std(correction=0) / b.std()),
        ("One std is by N, the other by N - 1: take the same for both.",
         lambda a, b: a.std() / b.std(correction=0)),
        *(("A learning rate comes in: take {top} as it is.", lambda a, b, lr=lr: lr * a.std() / b.std())
          for lr in (0.1, 0.01, 0.001)),
    ]  # fmt: skip


def _tensors(seed):
    """Pairs of a tensor and a smaller one of the same shape; no mean is zero, so that a norm is not a std."""
    pairs = []
    for i, (n, m, scale) in enumerate(((6, 4, 1e-3), (3, 5, 0.02), (2, 8, 3.0))):
        large, small = seeded_randn(n, m, seed=seed + i), seeded_randn(n, m, seed=seed + 10 + i)
        pairs.append((large * (0.4 + i) + 0.5 * i - 0.3, (small + 0.4) * scale))
    return pairs


def _named(mistakes, top, bottom, change=lambda r: r):
    """The mistakes with the tensors' names, as functions of (data, small one)."""
    return [
        (sentence.format(top=top, bottom=bottom), lambda b, a, wrong=wrong: change(wrong(a, b)))
        for sentence, wrong in mistakes
    ]


def check_grad_to_data(f):
    """f(data, grad) -> std(grad) / std(data), over all entries of a parameter and of its gradient."""
    mistakes = _named(_ratio_mistakes(), "grad's std", "data's std")
    mistakes += [
        ("That is log10 of the ratio: here the ratio itself is wanted.", lambda d, g: (g.std() / d.std()).log10()),
        ("That is the log of the ratio: here the ratio itself is wanted.", lambda d, g: (g.std() / d.std()).log()),
    ]
    look = lecture_at("chapter 11, grad:data", 5775)
    return judge(f, "data, grad", _tensors(40), lambda d, g: g.std() / d.std(), mistakes, look)


def check_update_ratio(f):
    """f(parameter, update) -> log10(std(update) / std(parameter)), for parameters of 2 dimensions.

    No tensor that is tried is constant: its std is 0, and the ratio undefined.
    """

    def ratio(parameter, update):
        return update.std() / parameter.std()

    logs = "The logs are divided: the log of a ratio is a difference of logs."
    mistakes = [
        ("That is the natural log: the guide line at -3 stands for 1/1000, so take log10.", lambda p, u: ratio(p, u).log()),
        ("That is log2: the guide line at -3 stands for 1/1000, so take log10.", lambda p, u: ratio(p, u).log2()),
        ("The log is missing: the ratio runs over powers of ten, so take its log10.", ratio),
        ("The sign is wrong: that is log10 of parameter over update.", lambda p, u: -ratio(p, u).log10()),
        (logs, lambda p, u: u.std().log10() / p.std().log10()),
        (logs, lambda p, u: u.std().log() / p.std().log()),
        ("That is log10 of 1 plus the ratio: leave the 1 out.", lambda p, u: (1 + ratio(p, u)).log10()),
        ("The log of each entry comes first: take the std, divide, then take one log.",
         lambda p, u: u.abs().log10().mean() - p.abs().log10().mean()),
        ("The log of each entry comes first: take the std, divide, then take one log.",
         lambda p, u: (u / p).abs().log10().std()),
        ("The update is added first: compare the update with the parameter as it is.",
         lambda p, u: (u.std() / (p + u).std()).log10()),
        ("The update is added first: compare the update with the parameter as it is.",
         lambda p, u: (u.std() / (p - u).std()).log10()),
    ]  # fmt: skip
    mistakes += _named(_ratio_mistakes()[1:], "the update's std", "the parameter's std", torch.log10)
    look = lecture_at("chapter 12, the update:data ratio", 5995)
    return judge(f, "parameter, update", _tensors(60), lambda p, u: ratio(p, u).log10(), mistakes, look)


# Chapter 13: the gain under batch normalisation

CANCELS = "A BatchNorm divides by the std of what it gets: whatever the gain multiplies, it takes away again."
BACK = "Going back, a BatchNorm divides the gradient by the std of what it got, which goes as the gain."
FROM_OUTPUT = "Its gradient is the input, which no gain reaches, times the gradient at the Linear's output."
AFTER = "On the way back here, the next BatchNorm divides by the gain, and the next Linear multiplies by it again."
GAIN_POWERS = {  # quantity: the power, and the mistakes as (sentence, power), in the order in which one derives them
    "linear output": (1, [
        ("A BatchNorm takes the gain away, but only after the Linear: its own output still has it.", 0),
        ("That is the variance: the question is the size, the std.", 2),
        ("The output is input @ weight, and the weight is multiplied by the gain, not divided.", -1),
    ]),
    "batch norm output": (0, [(CANCELS, power) for power in (1, 2, -1, -2)]),
    "gradient at batch norm output": (0, [(AFTER, power) for power in (1, 2, -1, -2)]),
    "gradient at linear output": (-1, [
        ("The gradient after the BatchNorm does not depend on the gain, but this one is before it. " + BACK, 0),
        ("That is the wrong way round. " + BACK, 1),
        ("It is divided once: one BatchNorm stands between this output and the one after it. " + BACK, -2),
    ]),
    "weight gradient": (-1, [
        (FROM_OUTPUT + " That one does depend on the gain.", 0),
        (FROM_OUTPUT + " The weight itself does not enter its own gradient.", 1),
        (FROM_OUTPUT + " It is not divided a second time: that comes with update:data.", -2),
    ]),
    "update:data of the weight": (-2, [
        ("That is the update alone: the weight that it is divided by goes as the gain too.", -1),
        ("The update and the weight do not cancel: one goes as 1/gain, the other as the gain. Divide.", 0),
        ("That is the weight alone: divide the update by it.", 1),
        ("That is upside down: the update stands on top, the weight below.", 2),
    ]),
}  # fmt: skip


def check_gain_powers(answer):
    """A dict: quantity -> the power of the gain that its std goes as, in a BatchNorm network at step 0.

    Its keys: "linear output", "batch norm output", "gradient at batch norm output", "gradient at linear output",
    "weight gradient", "update:data of the weight". 1 stands for proportional to the gain, 0 for independent of it,
    -1 for proportional to 1/gain.
    """
    look = lecture_at("chapter 13, the gain under batch normalisation", 6364)
    tried = "the powers of the gain"
    if answer is None or answer is ...:
        return not_attempted(tried, "there is no answer yet")
    if not isinstance(answer, Mapping):
        given = f"the check was given an object of type {type(answer).__name__}"
        return CheckResult("wrong", tried, given, "Pass a dict of six quantities and their powers.", look)
    faults = [f"{key!r} is not asked for" for key in answer if key not in GAIN_POWERS]
    faults += [f"{key!r} is missing" for key in GAIN_POWERS if key not in answer]
    if answer and faults:
        keys = f"The keys are: {', '.join(map(repr, GAIN_POWERS))}."
        return CheckResult("wrong", tried, ", ".join(faults), keys, look)
    empty = [key for key in GAIN_POWERS if answer.get(key) is None or answer[key] is ...]
    if empty:
        return not_attempted(tried, f"{empty[0]!r} has no number yet")
    for key, (power, mistakes) in GAIN_POWERS.items():
        given = answer[key]
        wrong = [(sentence, lambda p=p: p) for sentence, p in mistakes]
        wrong += [("Measure it: build the network at gain 1 and at gain 2, and compare.", lambda given=given: given)]
        options = {"read": _as_power, "call": f"answer[{key!r}]", "reveal": False}
        result = judge(lambda given=given: given, "", [()], lambda power=power: power, wrong, look, **options)
        if not result:
            return result
    return CheckResult("right", f"{tried}: all six are right")


def _as_power(value):
    try:
        return as_number(value)
    except Verdict:
        raise
    except Exception:  # noqa: BLE001 - whatever it may hold
        raise Verdict(f"it is of type {type(value).__name__}", "Give a number, such as 1, 0 or -1.") from None
