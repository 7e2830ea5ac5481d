"""Chapter 10: a stack of linear layers as one, four stacks to tell apart by asking them, and XOR from two units."""

import math
from functools import partial, reduce
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from helpers.checks.kinds import check, choices, conditions, seeded_randn
from helpers.checks.readings import as_parts, numbers
from helpers.checks.sandbox import has_gap


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
    return reduce(torch.matmul, weights), sum(reduce(torch.matmul, weights[i + 1 :], b) for i, b in enumerate(biases))


_product = partial(reduce, torch.matmul)


def _through(step):
    """An answer whose W is right; b goes through the layers by step(b, the product so far, this weight, this bias)."""

    def answer(weights, biases):
        b = biases[0]
        for i, (weight, bias) in enumerate(zip(weights[1:], biases[1:], strict=True), start=1):
            b = step(b, _product(weights[:i]), weight, bias)
        return _product(weights), b

    return answer


check_collapse.mistakes = {
    "The matrices are multiplied in the wrong order: (x @ W1) @ W2 is x @ (W1 @ W2).": (
        lambda w, b: (_product(w[::-1]), check_collapse.right(w, b)[1])),
    "The matrices are added: layers in a row multiply them.": lambda w, b: (sum(w), sum(b)),
    "`*` multiplies entry by entry: `@` is the matrix product.": lambda w, b: (math.prod(w), sum(b)),
    "Not all layers are multiplied: go on to the end of the lists.": tuple(
        lambda w, b, n=n: check_collapse.right(w[:n] or w, b[:n] or b) for n in (1, 2, 3, -1)),
    "A bias passes through all the layers after its own: b @ W plus the next bias, layer by layer.": (
        _through(lambda b, before, W, bias: b + bias), _through(lambda b, before, W, bias: bias),
        _through(lambda b, before, W, bias: b @ W), _through(lambda b, before, W, bias: b),
        _through(lambda b, before, W, bias: (b + bias) @ W), _through(lambda b, before, W, bias: b @ before + bias),
        _through(lambda b, before, W, bias: W @ b + bias),
        lambda w, b: (_product(w), b[-1] + (b[-2] @ w[-1] if len(b) > 1 else 0))),
    "b and W have changed places: return W, b.": lambda w, b: check_collapse.right(w, b)[::-1],
}  # fmt: skip


def four_stacks():
    """Four stacks of layers with fixed weights, (N, 3) -> (N, 3), two of them one matrix: {"a": …, "d": …}."""
    one, two = seeded_randn(3, 3, seed=1, dtype=torch.float64), seeded_randn(3, 3, seed=2, dtype=torch.float64)
    norm = nn.BatchNorm1d(3, dtype=torch.float64).eval()
    norm.running_mean.copy_(one[0]), norm.running_var.copy_(two[0].square() + 1)
    return {
        "a": lambda x: (0.03 * x @ one).tanh() @ two,
        "b": torch.no_grad()(lambda x: norm(x @ one + 1) @ two),
        "c": lambda x: nn.functional.layer_norm(x @ one, (3,)) @ two,
        "d": lambda x: x + (x @ one - 2) @ two,
    }


_ASK = "Ask it for two points and for the point half-way between them. One matrix answers there half-way too."
_DIGITS = "Half-way it is off by something small, and far more than float64 rounds: print the difference."
check_four_stacks = choices("the four stacks", "chapter 10, exercise 10.2", 5527, {
    "a": ("bent", {"linear": _DIGITS}), "b": ("linear", {"bent": _ASK}),
    "c": ("bent", {"linear": _ASK}), "d": ("linear", {"bent": _ASK}),
}, noun="kind")  # fmt: skip

XOR_SHAPES = [(2, 2), (2,), (2, 1), (1,)]
_SHAPES = "They are W1 (2, 2), b1 (2,), W2 (2, 1) and b2 (1,), for tanh(x @ W1 + b1) @ W2 + b2."
_TURNED = "The corners are told apart, the wrong way round: turn the signs of W2 and b2."
_UNITS = "Print tanh(x @ W1 + b1) for the four corners, and draw them: one straight line must separate the two pairs."


@conditions("the two units", "chapter 10, exercise 10.3", 5527)
def check_xor(answer):
    """[W1, b1, W2, b2] of two tanh units and an output that is positive where the signs of the two inputs differ."""
    yield not has_gap(answer), "a part of it is still `...`"
    answer = answer if isinstance(answer, (list, tuple)) else [answer]
    parts = [numbers(part, "a part is not a table of numbers", _SHAPES) for part in answer]
    parts[1::2] = [part.ravel() if len(np.atleast_2d(part)) == 1 else part for part in parts[1::2]]  # a bias as a row
    shapes = [part.shape for part in parts]
    yield shapes == XOR_SHAPES, f"the shapes are {shapes}", _SHAPES
    W1, b1, W2, b2 = parts
    x, signs = np.array([[-1, -1], [1, 1], [-1, 1], [1, -1]]), np.array([-1, -1, 1, 1])
    out = (np.tanh(x @ W1 + b1) @ W2 + b2)[:, 0] * signs
    yield not (out < 0).all(), "all four corners come out wrong", _TURNED
    yield (out > 0).all(), f"of the four corners {(out > 0).sum()} come out right", _UNITS
