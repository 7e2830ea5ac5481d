"""What is wrong with the steps that weights take."""

from itertools import pairwise
from math import inf, prod
from statistics import median

from . import layers, learning
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
# next ones shorter. Three convolutions are best at 0.03, worse at 0.17; six layers of the course worse at 0.07. Under
# Adam, by 0.25 * lr / std: six layers of the course lose 0.04 at 0.15, 0.08 at 0.25, 0.18 at 0.5; four convolutions 0.03
# at 0.2, 0.08 at 0.4.
NORMALISED, UNDER_ADAM = 5, 10  # times as far they may move
DECAY = 3  # healthy: up to 1, where the two balance each other; weight_decay 1 in Adam: 5


def step_not_finite(look):
    """Of an optimizer that divides by what is 0 in float16, or gets such a rate."""
    for p in look.parameters:
        if p.update_nonfinite and not p.nonfinite and not p.grad_nonfinite:
            text = f"{p.name}: the step makes it NaN or infinite in {p.update_nonfinite:,} of {prod(p.shape):,} places"
            cause = "is the learning rate finite? Adam's eps of 1e-08 is 0 in float16: keep the weights in float32"
            yield f"{text}, though the gradient is finite; {cause}"
            return


def nothing_moves(look):
    weights = _moved(look)
    # A scheduler begins, or ends, with the rate 0. Why no gradient arrives is said elsewhere.
    if not weights or median(p.update_to_data for p in weights) or max(p.growth for p in weights) > 1e6:
        return
    if median(p.grad_std or 0 for p in weights) > 0 and not look.says(layers.changes):
        cause = "the learning rate is 0, or its step is lost in rounding (keep the weights in float32)"
        yield f"the median weight would not move at all: {cause}"


def too_high_or_too_low(look):
    """The learning rate, or weight decay, or Adam's eps: one sentence, for the median weight."""
    weights = [p for p in _moved(look) if p.update_rule]  # the others' optimizers have measures of their own
    middle = median([p.update_to_data for p in _moved(look)] or [0])
    if len(look.weights) == 1 and look.rises:
        yield "a few steps, on these examples, raise the loss; the learning rate is probably too high"
    if not middle or len(weights) < 2:  # a linear model, whose weights go where the data want them
        return
    (low, high), adams = _bounds(weights), [p for p in weights if p.adam_to_data]
    judged, later, kind = adams or weights, 0, "1e-04 to 1e-02 is usual"
    if adams:
        later = median(p.adam_to_data for p in adams)
        kind = f"under Adam 0.25 * lr / std is about {later:.1e} after the first steps, and 5e-05 to 3e-02 is usual"
    elif look.rises is not True:
        high = inf if look.rises is False else high * UNTRIED
    text = f"update:data is {middle:.1e} for the median weight, and {kind}"
    by_depth = look.has_said(layers.change_with_depth)
    is_explained = by_depth or layers.are_stuck(look)
    is_far = any("standardise" in text or "far too large" in text for text in look.findings)  # so steps are long
    # Small steps are on purpose where it has learned or is frozen in part, and so is a lower rate of a group's own.
    is_tuned = look.has_learned or any(is_weight(p) and not p.trainable for p in look.parameters)
    quickest = max(p.lr or 0 for p in judged)
    least = median((p.adam_to_data or p.update_to_data) * p.growth for p in judged if (p.lr or 0) == quickest)
    most = median(_speeds(judged, look.activations))
    gradient, eps = median(p.grad_std or 0 for p in weights), judged[0].adam_eps or 0
    if (decay := median(p.decay or 0 for p in weights)) > DECAY and not is_explained and not is_tuned:
        yield f"weight decay pulls {decay:.0f} times as hard as the gradient at the median weight; lower weight_decay"
    elif float(f"{most:.1e}") > high and not is_far:  # judged as it is printed
        cause = "" if is_explained else ", or the weights are too small"
        yield f"{text}; the learning rate is probably too high{cause}"
    elif float(f"{least:.1e}") < low and not is_tuned:
        cause = "too little gradient arrives, as said" if by_depth else "the weights too large (no 1/sqrt(fan_in)?)"
        low = "the learning rate is probably too low" + (" (if nothing was trained before)" if adams else "")
        yield f"{text}; {low}, or {cause}"
    elif middle < later / 10 and gradient < 100 * eps and not is_tuned:  # healthy, at first: 1 to 4 times later
        yield f"{text}; the gradients are probably as small as Adam's eps: scale the loss up, or lower eps"


def _moved(look):
    """The weights; where some are 0 on purpose, or said to learn nothing, only those that a gradient reaches."""
    some = learning.begins_at_zero(look) or look.has_said(learning.equal_weights, learning.zero_gradient)
    return [p for p in look.weights if p.update_to_data is not None and (p.grad_std or not some)]


def steps_are_long(look):
    """Whether SGD's steps look too long, so that it is worth the time to try a few; of one weight no ratio says it."""
    if len(look.weights) == 1:
        return look.is_step and all(type(optimizer).__name__ == "SGD" for optimizer in look.optimizers)
    weights = [p for p in look.weights if p.update_rule == "SGD" and p.update_to_data]
    return len(weights) > 1 and median(_speeds(weights, look.activations)) > _bounds(weights)[1]


def _bounds(weights):
    low, high = ADAM_RATIO if any(p.adam_to_data for p in weights) else UPDATE_RATIO
    return (low, high) if len(weights) > 2 else (low / 10, high * 10)  # a median of few says little


def _speeds(weights, activations):
    """What is judged of each: under Adam lr / std. Small weights may grow, and normalised ones may move, at no harm.

    With momentum a rate may be as high as without, or higher: the step that counts is that of the gradient alone.
    """
    normalised = {row.name for row, after in pairwise(activations) if NORMS.match(after.type.__name__)}
    for p in weights:
        if p.adam_to_data is not None:
            speed, free = p.adam_to_data * min(1, p.std * prod(p.shape[1:]) ** 0.5), UNDER_ADAM
        else:
            free = NORMALISED
            speed = p.update_to_data if p.growth == 1 else min(p.update_to_data, p.lr * (p.grad_to_data or 0))
        yield speed / (free if p.name.rpartition(".")[0] in normalised else 1)
