"""Chapter 10: a stack of linear layers as one."""

import math
from functools import reduce
from itertools import pairwise

import torch

from helpers.checks.kinds import check, seeded_randn
from helpers.checks.readings import as_parts


def _stack(*sizes, seed):
    pairs = list(enumerate(pairwise(sizes), seed))
    return [seeded_randn(n, m, seed=i) for i, (n, m) in pairs], [seeded_randn(m, seed=10 + i) for i, (_, m) in pairs]


STACKS = [_stack(4, 4, 4, 4, seed=1), _stack(3, 3, 3, seed=5), _stack(3, 5, 2, 4, seed=20), _stack(2, 3, seed=30),
          _stack(2, 3, 1, 3, 2, 4, seed=40)]  # fmt: skip


@check("chapter 10, the stack that collapses", 5527, STACKS, read=as_parts("W", "b"), tolerance=(1e-4, 1e-4))
def check_collapse(weights, biases):
    """f(weights, biases) -> (W, b): the one linear layer that equals the stack x @ W1 + b1, then @ W2 + b2, …

    weights and biases are lists of tensors, of shapes (n, m) and (m,), in the order in which x meets them.
    """
    W, b = weights[0], biases[0]
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        W, b = W @ weight, b @ weight + bias
    return W, b


def _product(weights):
    return reduce(torch.matmul, weights)


def _right(w, b):
    return check_collapse.right(w, b)


def _bias(change):
    return lambda w, b: (_product(w), change(w, b))


def _weight(change):
    return lambda w, b: (change(w), _right(w, b)[1])


check_collapse.mistakes = {
    "The matrices are multiplied in the wrong order: (x @ W1) @ W2 is x @ (W1 @ W2).": (
        _weight(lambda w: _product(w[::-1])), lambda w, b: _right(w[::-1], b), lambda w, b: _right(w[::-1], b[::-1])),
    "A bias passes through all the layers after its own: multiply it by their weights, then add.": (
        _bias(lambda w, b: sum(b)), _bias(lambda w, b: sum(c @ _product(w[i:]) for i, c in enumerate(b))),
        _bias(lambda w, b: b[-1] + sum(c @ W for c, W in zip(b[:-1], w[1:], strict=True)))),
    "Only one of the biases is used: every bias comes through, multiplied by the weights after it.": (
        _bias(lambda w, b: b[-1]), _bias(lambda w, b: b[0])),
    "The last bias is left out: it comes after the last weight, as it is.": _bias(lambda w, b: _right(w, b)[1] - b[-1]),
    "The biases are left out.": _bias(lambda w, b: torch.zeros_like(b[-1])),
    "A bias stands on the left of a weight: b @ W, as x does.":
        _bias(lambda w, b: reduce(lambda c, wb: wb[0] @ c + wb[1], zip(w[1:], b[1:], strict=True), b[0])),
    "W is transposed: x stands on its left, x @ W.": _weight(lambda w: _product(w).mT),
    "The matrices are added: layers in a row multiply them.": (_weight(sum), lambda w, b: (sum(w), sum(b))),
    "`*` multiplies entry by entry: `@` is the matrix product.": _weight(math.prod),
    "Only the first two layers are multiplied: go on through the lists.": lambda w, b: _right(w[:2], b[:2]),
    "b and W have changed places: return W, b.": lambda w, b: _right(w, b)[::-1],
}  # fmt: skip
