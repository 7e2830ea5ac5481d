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


SIZES = (4, 4, 4, 4), (3, 3, 3), (3, 5, 2, 4), (2, 3), (2, 3, 1, 3, 2, 4)
STACKS = [_stack(*sizes, seed=20 * i) for i, sizes in enumerate(SIZES)]


@check("chapter 10, the stack that collapses", 5527, STACKS, read=as_parts("W", "b"), tolerance=(1e-4, 1e-4))
def check_collapse(weights, biases):
    """f(weights, biases) -> (W, b): the one linear layer that equals the stack x @ W1 + b1, then @ W2 + b2, …

    weights and biases are lists of tensors, of shapes (n, m) and (m,), in the order in which x meets them.
    """
    return _product(weights), sum(reduce(torch.matmul, weights[i + 1 :], b) for i, b in enumerate(biases))


def _product(weights):
    return reduce(torch.matmul, weights)


def _right(w, b):
    return check_collapse.right(w, b)


check_collapse.mistakes = {
    "The matrices are multiplied in the wrong order: (x @ W1) @ W2 is x @ (W1 @ W2).": (
        lambda w, b: (_product(w[::-1]), _right(w, b)[1]), lambda w, b: _right(w[::-1], b[::-1])),
    "A bias passes through all the layers after its own: multiply it by their weights, then add.": (
        lambda w, b: (_product(w), sum(b)), lambda w, b: (_product(w), sum(c @ _product(w[i:]) for i, c in enumerate(b)))),
    "Only one of the biases is used: every bias comes through, multiplied by the weights after it.": (
        lambda w, b: (_product(w), b[-1]), lambda w, b: (_product(w), b[0])),
    "The last bias is left out: it comes as it is.": lambda w, b: (_product(w), _right(w, b)[1] - b[-1]),
    "The biases are left out.": lambda w, b: (_product(w), torch.zeros_like(b[-1])),
    "W is transposed: x stands on its left, x @ W.": lambda w, b: (_product(w).mT, _right(w, b)[1]),
    "The matrices are added: layers in a row multiply them.": lambda w, b: (sum(w), sum(b)),
    "`*` multiplies entry by entry: `@` is the matrix product.": lambda w, b: (math.prod(w), _right(w, b)[1]),
    "Only the first two layers are multiplied: go on through the lists.": lambda w, b: _right(w[:2], b[:2]),
    "b and W have changed places: return W, b.": lambda w, b: _right(w, b)[::-1],
}  # fmt: skip
