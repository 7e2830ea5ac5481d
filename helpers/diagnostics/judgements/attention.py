"""Attention that is written by hand, softmax(scores) @ values. (torch's own scales its scores, and sums over the keys.)"""

from contextlib import suppress

import torch

from ..hooks import tensors_in

ONE_HOT = (
    0.8  # the largest weight of a query, in the mean. Healthy: 0.10 to 0.28; 16 keys, scores of std 5: 0.75, 8: 0.85
)
FEWEST = 8  # keys: of fewer, a mask may leave one


def sees_the_next(look):
    """A language model whose output at one place changes with the next, which it is to tell."""
    is_pair = isinstance(look.inputs, tuple) and len(look.inputs) == 2 and look.targets is None  # forward(idx, targets)
    words, following = look.inputs if is_pair else (look.inputs, look.targets)
    if not (_are_words(words) and _are_words(following)) or words.shape != following.shape:
        return
    if look.has_said(mask_of_floats):
        return
    normed = any("BatchNorm" in type(layer).__name__ for _, layer in look.network.layers.values())
    if normed or not torch.equal(words[:, 1:], following[:, :-1]):
        return
    two = words[:2]
    other = torch.cat([two[:, :-1], (two[:, -1:] + 1) % (words.max() + 1)], 1)
    with torch.no_grad(), suppress(Exception):  # it may want as many examples as before
        outputs = [look.run((t, following[:2]) if is_pair else t) for t in (two, two, other)]
        first, again, changed = (_before_the_last(output, two) for output in outputs)
        if torch.equal(first, again) and (changed - first).abs().max() > 1e-4 * first.abs().max():
            text = "what it puts out at one place changes with the next word, which it is to tell"
            yield f"{text}: is a causal mask missing (is_causal=True), or does a norm or a choice reach over all words?"


def _are_words(t):
    return isinstance(t, torch.Tensor) and t.dtype == torch.int64 and t.dim() == 2 and t.shape[1] > 1


def _before_the_last(output, words):
    return next(t for t in tensors_in(output) if t.shape[:2] == words.shape)[:, :-1]


def sums_over_queries(look):
    for name, shape, dim, _ in look.functions.attention:
        if dim == len(shape) - 2 and shape[-1] == shape[-2] > 1:
            text = f"{name} gets weights {tuple(shape)} that sum to 1 over dimension {dim}, the queries"
            yield f"{text}: give softmax dim=-1, so that the weights of each query do"
            return


def one_hot(look):
    """Each query takes one value, and no gradient reaches the others."""
    for name, shape, dim, largest in [] if look.has_learned else look.functions.attention:
        if dim == len(shape) - 1 and shape[-1] >= FEWEST and largest > ONE_HOT:
            text = f"{name}: of {shape[-1]} attention weights the largest is {largest:.2f} in the mean, at scores that large"
            yield f"{text} hardly any gradient passes the softmax: divide the scores by sqrt(size of a key)"
            return


def mask_of_floats(look):
    for name in look.functions.float_masks[:1]:
        text = f"{name} gets a mask of 0.0 and 1.0, which is added to the scores and hides nothing"
        yield f"{text}: give -inf where it must not look, and 0 elsewhere"
