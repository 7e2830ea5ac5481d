"""What is wrong inside a layer."""

from math import prod

from . import depth
from .look import label

HARD = 0.5  # of a Hardtanh, beyond whose bends N(0, 1) has 0.32
SATURATED = 0.3  # healthy: up to 0.22, in a first layer; gain 3: 0.40 to 0.50
DEAD = 0.5  # healthy: up to 0.12 of the units, on 32 examples; after a step that kills: nearly all
DEAD_EXAMPLES = 32  # with fewer, many a healthy unit happens to be zero for all of them


def not_finite(look):
    """Only the first in the order in which a step computes them: all others follow from it."""
    if any("hold NaN" in text for text in look.findings):
        return
    before = "no layer before it has any: look for far too high a gain or learning rate, 0/0 or log(0)"
    after = "no layer after it has any: look for 0/0, the square root of 0 or a loss that overflows"
    found = [(f"{p.name}:", p, "a step was too large, probably: lower the learning rate") for p in look.parameters]
    found += [(f"{label(row)}:", row, before) for row in look.activations]
    found += [
        (f"{label(row)}: gradient", row, after) for row in reversed(look.gradients)
    ]  # the last layer's comes first
    for name, row, cause in found:
        if row.nonfinite:
            yield f"{name} NaN or infinite in {row.nonfinite:,} of {prod(row.shape):,} places; {cause}"
            return


def saturated(look):
    yield from _once_per_layer(look, _saturated)


def _saturated(look, i, row):
    # What ends the network may be meant to come near 0 or 1, and so may a gate, which is no activation here.
    inside = row.is_activation and any(r.std != row.std for r in look.activations[i + 1 :])
    most = HARD if "Hard" in row.type.__name__ else SATURATED
    if row.saturated is not None and row.saturated > most and (inside or len(look.activations) == 1):
        return f"{label(row)}: {row.saturated:.0%} saturated; the gain is probably too high"


def dead(look):
    yield from _once_per_layer(look, _dead)


def _dead(look, i, row):
    units = row.shape[1 if len(row.shape) > 3 else -1] if row.shape else 1
    # Units that are on or off by their biases alone: of 16 up to 11 are a coin's luck.
    if row.dead is None or row.dead <= min(DEAD + 0.75 / units**0.5, 0.99) or _examples(row) < DEAD_EXAMPLES:
        return None
    cause = "a learning rate that was too high once, or biases too negative"
    if i and look.activations[i - 1].std == 0:
        cause = "are the weights before it all zero?"
    elif depth.fades(look):
        cause = "what reaches it is too small against its biases"
    return f"{label(row)}: {row.dead:.0%} of its units are dead (zero for every example); {cause}"


def constant(look):
    yield from _once_per_layer(look, _constant)


def _constant(look, i, row):
    before, after = look.activations[:i], look.activations[i + 1 :]
    # What leads past this row, or ends with it, as with an output layer that begins at 0
    leads_past = bool(look.activations[-1].std) or all(r.is_activation or r.std is None for r in after)
    begins = any(f"{r.name}.weight" in look.zero for r in before) and leads_past
    if row.is_activation and row.std == 0 and not _dead(look, i, row) and not begins:
        return f"{label(row)}: puts out the same number everywhere; are the weights before it all zero?"


def _once_per_layer(look, judgement):
    """Of the calls of one layer only the first one speaks."""
    calls = {}
    # What gets no gradient, though others do, is computed beside the loss: weights that are clamped to be rounded.
    has_gradient = [row.std is not None for row in look.gradients]
    trained = {row.name for row, has in zip(look.gradients, has_gradient, strict=True) if has or not any(has_gradient)}
    for i, row in enumerate(look.activations):
        text = judgement(look, i, row)
        if text and (not trained or row.name in trained):
            calls.setdefault(row.name.partition(" (call ")[0], []).append(text)
    for text, *more in calls.values():
        yield f"{text}; {len(more)} more of its calls are like it" if more else text


def _examples(row):
    """How many values each unit of a layer has, at least: features are the last dimension, or dimension 1.

    The places of one image are alike: they count as four.
    """
    values = prod(row.shape) // max(row.shape[1], row.shape[-1])
    return min(values, 4 * row.shape[0]) if len(row.shape) > 3 else values
