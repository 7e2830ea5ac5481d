"""What is wrong with the steps that weights take: too long, too short."""

from itertools import pairwise
from math import inf, prod
from statistics import median
from typing import NamedTuple

from . import depth, layers, learning
from .look import NORMS, is_weight

# A factor of 10 around 1e-3; the course's healthy networks: 10**-3.6 to 10**-2.2. Others are healthy at 0.04, so "too
# high" needs a loss that rises in a few steps on trial. Where nobody has tried them, UNTRIED times as long ones are too
# long: an LSTM learns at 0.1, the course's network breaks at 0.2 to 0.4.
UPDATE_RATIO, UNTRIED = (1e-4, 1e-2), 10
# Adam moves a weight by about lr a step at first, by 0.25 * lr later. Healthy: 10**-3.2 (p1's W1 at 1e-3) to
# 10**-1.8 (part 2 at 1e-2), 10**-4.2 (a trained transformer tuned at 1e-5); 3e-4 for a weight of std 1: 10**-4.1.
# Weights below 1 / sqrt(fan_in) are judged as if they had it, for they may grow that far at no harm: weights of std 0.02
# are best at 0.004 to 0.025, where lr / std alone says 0.38.
ADAM_RATIO = 5e-5, 3e-2
# The size of weights before a BatchNorm makes no difference to what comes out: too long a step makes them grow, and the
# next ones shorter. Three convolutions are best at 0.03, worse at 0.17; six layers of the course worse at 0.07.
NORMALISED = 5  # times as far they may move
DECAY = 3  # healthy: up to 1, where the two balance each other; weight_decay 1 in Adam: 5


class Steps(NamedTuple):
    """The steps of the weights that an optimizer moves by a rule that is known."""

    weights: list
    adams: list  # those under Adam and its kin, which alone are judged where there are any
    middle: float  # the median of update:data
    later: float  # the same, as it will be under Adam after the first steps
    text: str


def steps_of(look):
    """Steps, or None where there is nothing to judge."""
    weights = [p for p in _moved(look) if p.update_rule]  # the others' optimizers have measures of their own
    middle = median([p.update_to_data for p in _moved(look)] or [0])
    if not middle or len(weights) < 2:  # a linear model, whose weights go where the data want them
        return None
    adams, later, kind = [p for p in weights if p.adam_to_data], None, "1e-04 to 1e-02 is usual"
    if adams:
        later = median(p.adam_to_data for p in adams)
        kind = f"under Adam 0.25 * lr / std is about {later:.1e} after the first steps, and 5e-05 to 3e-02 is usual"
    text = f"update:data is {middle:.1e} for the median weight, and {kind}"
    return Steps(weights, adams, middle, later, text)


def _moved(look):
    """Weights with a ratio; around those that are 0 on purpose, and where nothing arrives, only what has a gradient."""
    begins = look.begins_at_zero and not look.has_said(layers.saturated, layers.dead, layers.constant)
    begins = begins or look.has_said(learning.all_the_same, learning.gradient_is_zero)
    return [p for p in look.weights if p.update_to_data is not None and (p.grad_std or not begins)]


def nothing_moves(look):
    weights = _moved(look)
    # A scheduler begins, or ends, with the rate 0. Why no gradient arrives is said elsewhere.
    if not weights or median(p.update_to_data for p in weights) or max(p.growth for p in weights) > 1e6:
        return
    if median(p.grad_std or 0 for p in weights) > 0:
        cause = "the learning rate is 0, or its step is lost in rounding (keep the weights in float32)"
        yield f"the median weight would not move at all: {cause}"


def decay_wins(look):
    if not (steps := steps_of(look)) or _is_explained(look) or _is_tuned(look):
        return
    if (decay := median(p.decay or 0 for p in steps.weights)) > DECAY:
        yield f"weight decay pulls {decay:.0f} times as hard as the gradient at the median weight; lower weight_decay"


def too_high(look):
    if not (steps := steps_of(look)) or look.has_said(decay_wins):
        return
    high = _bounds(steps.weights)[1] * (1 if steps.adams else {True: 1, None: UNTRIED, False: inf}[look.rises])
    normalised = _normalised(look.activations)
    most = median(_judged(p, normalised) for p in steps.adams or steps.weights)
    is_far = any("standardise" in found for found in look.findings)  # steps are long since the targets are
    if float(f"{most:.1e}") > high and not is_far:  # judged as it is printed
        cause = "" if _is_explained(look) else ", or the weights are too small"
        yield f"{steps.text}; the learning rate is probably too high{cause}"


def too_low(look):
    if not (steps := steps_of(look)) or look.has_said(decay_wins, too_high) or _is_tuned(look):
        return
    # A lower rate of a group's own is on purpose.
    quickest = max(p.lr or 0 for p in steps.weights)
    those = [p for p in steps.adams or steps.weights if (p.lr or 0) == quickest]
    least = median((p.adam_to_data or p.update_to_data) * p.growth for p in those)
    if float(f"{least:.1e}") < _bounds(steps.weights)[0]:
        by_depth = look.has_said(depth.activations_change, depth.gradients_change)
        cause = "too little gradient arrives, as said" if by_depth else "the weights too large (no 1/sqrt(fan_in)?)"
        yield f"{steps.text}; the learning rate is probably too low, or {cause}"


def below_eps(look):
    if (
        not (steps := steps_of(look))
        or not steps.adams
        or look.has_said(decay_wins, too_high, too_low)
        or _is_tuned(look)
    ):
        return
    gradient, eps = median(p.grad_std or 0 for p in steps.weights), steps.adams[0].adam_eps or 0
    if steps.middle < steps.later / 10 and gradient < 100 * eps:  # healthy, at the first steps: 1 to 4 times that
        yield f"{steps.text}; the gradients are probably as small as Adam's eps: scale the loss up, or lower eps"


def _is_explained(look):
    of_layers = layers.saturated, layers.dead, layers.constant
    return look.has_said(*of_layers, depth.activations_change, depth.gradients_change)


def _is_tuned(look):
    """What has learned takes small steps on purpose, and so does what is frozen in part."""
    return look.has_learned or any(is_weight(p) and not p.trainable for p in look.parameters)


def steps_are_long(activations, parameters):
    """Whether SGD's steps look too long, so that it is worth the time to try a few."""
    weights = [p for p in parameters if is_weight(p) and p.update_rule == "SGD" and p.update_to_data]
    normalised, high = _normalised(activations), _bounds(weights)[1]
    return len(weights) > 1 and median(_judged(p, normalised) for p in weights) > high


def _bounds(weights):
    low, high = ADAM_RATIO if any(p.adam_to_data for p in weights) else UPDATE_RATIO
    return (low, high) if len(weights) > 2 else (low / 10, high * 10)  # a median of few says little


def _normalised(activations):
    return {row.name for row, after in pairwise(activations) if NORMS.match(after.type.__name__)}


def _judged(p, normalised):
    """What is judged: under Adam lr / std. Small weights may grow, and normalised ones may move, at no harm.

    With momentum a rate may be as high as without, or higher: the step that counts is that of the gradient alone.
    """
    if p.adam_to_data is not None:
        return p.adam_to_data * min(1, p.std * prod(p.shape[1:]) ** 0.5)
    speed = p.update_to_data if p.growth == 1 else min(p.update_to_data, p.lr * (p.grad_to_data or 0))
    is_normalised = p.name.rpartition(".")[0] in normalised
    return speed / (NORMALISED if is_normalised else 1)
