"""What counts as too fast and too slow, in the steps that weights take; chosen by measurement, as in warnings.py."""

import re
from itertools import pairwise
from math import inf, prod
from statistics import median

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
NORMS = re.compile("(Sync)?BatchNorm|InstanceNorm|GroupNorm")
DECAY = 3  # healthy: up to 1, where the two balance each other; weight_decay 1 in Adam: 5


def is_weight(p):
    """Whether a parameter is a layer's weight; a gain or a bias may have the shape (1, n), as in the lecture."""
    is_layers = p.type.__module__.startswith("torch.nn") or "Linear" in p.type.__name__
    return len(p.shape) > 1 and "Norm" not in p.type.__name__ and (is_layers or prod(p.shape) > max(p.shape))


def update_ratios(weights, diagnosis, stuck, by_depth, begins_at_zero):
    weights = [p for p in weights if p.update_to_data is not None and (p.grad_std or not begins_at_zero)]
    if not weights or (middle := median(p.update_to_data for p in weights)) == 0:
        # A scheduler begins, or ends, with the rate 0. Why no gradient arrives is said elsewhere.
        if weights and max(p.growth for p in weights) <= 1e6 and median(p.grad_std or 0 for p in weights) > 0:
            cause = "the learning rate is 0, or its step is lost in rounding (keep the weights in float32)"
            yield f"the median weight would not move at all: {cause}"
        return
    weights = [p for p in weights if p.update_rule]  # the others' optimizers have measures of their own
    if len(weights) < 2:  # a linear model, whose weights go where the data want them
        return
    adams = [p for p in weights if p.adam_to_data]
    low, high = _bounds(weights)
    if not adams:
        high *= {True: 1, None: UNTRIED, False: inf}[diagnosis.rises]
    normalised = _normalised(diagnosis.activations)
    # A lower rate of a group's own is on purpose, and so are small steps of what has learned, or is frozen in part.
    quickest = max(p.lr or 0 for p in weights)
    is_tuned = diagnosis.has_learned or any(is_weight(p) and not p.trainable for p in diagnosis.parameters)
    least = median((p.adam_to_data or p.update_to_data) * p.growth for p in adams or weights if (p.lr or 0) == quickest)
    most = median(_judged(p, normalised) for p in adams or weights)
    kind = "1e-04 to 1e-02 is usual"
    if adams:
        later = median(p.adam_to_data for p in adams)
        kind = f"under Adam 0.25 * lr / std is about {later:.1e} after the first steps, and 5e-05 to 3e-02 is usual"
    text = f"update:data is {middle:.1e} for the median weight, and {kind}"
    if (decay := median(p.decay or 0 for p in weights)) > DECAY and not (by_depth or stuck or is_tuned):
        yield f"weight decay pulls {decay:.0f} times as hard as the gradient at the median weight; lower weight_decay"
    elif float(f"{most:.1e}") > high:  # judged as it is printed
        cause = "" if stuck or by_depth else ", or the weights are too small"
        is_far = any("standardise" in found for found in diagnosis.findings)  # steps are long since the targets are
        yield from [] if is_far else [f"{text}; the learning rate is probably too high{cause}"]
    elif float(f"{least:.1e}") < low:
        cause = "too little gradient arrives, as said" if by_depth else "the weights too large (no 1/sqrt(fan_in)?)"
        yield from [] if is_tuned else [f"{text}; the learning rate is probably too low, or {cause}"]
    # Healthy, at the first steps: 1 to 4 times that.
    elif adams and middle < later / 10 and median(p.grad_std or 0 for p in weights) < 100 * (adams[0].adam_eps or 0):
        yield f"{text}; the gradients are probably as small as Adam's eps: scale the loss up, or lower eps"


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
