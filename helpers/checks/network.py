"""The checks of chapters 06 and 10: convolutions, and a stack of linear layers.

`helpers.checks` hands them on.
"""

import math
from functools import reduce
from itertools import pairwise

import torch
from torch.nn import functional as F

from helpers.checks.engine import as_array, as_parts, judge, lecture_at, seeded_randn

# Chapter 06: ResNet-50


def check_conv_output_size(f):
    """f(size, kernel_size, stride, padding) -> the height or width that a convolution puts out, in pixels."""
    cases = [(224, 7, 2, 3), (56, 1, 1, 0), (112, 3, 2, 1), (8, 2, 2, 0), (10, 4, 3, 1), (7, 3, 1, 2)]
    floor_hint = "The division is not rounded down: the last steps that do not fit are dropped (`//`)."
    once = "The padding is added once: it stands at both ends, so it counts twice."
    mistakes = [
        ("The + 1 is missing: the first position counts before any step is made.",
         lambda n, k, s, p: (n + 2 * p - k) // s),
        (floor_hint, lambda n, k, s, p: (n + 2 * p - k) / s + 1),
        (floor_hint, lambda n, k, s, p: math.ceil((n + 2 * p - k) / s) + 1),
        (floor_hint, lambda n, k, s, p: round((n + 2 * p - k) / s) + 1),
        (once, lambda n, k, s, p: (n + p - k) // s + 1),
        (once, lambda n, k, s, p: (n + p - k) // s),
        ("The stride is ignored: the kernel moves on by that many pixels.", lambda n, k, s, p: n + 2 * p - k + 1),
        ("The padding is ignored.", lambda n, k, s, p: (n - k) // s + 1),
        ("The padding is ignored.", lambda n, k, s, p: (n - k) // s),
        ("The padding is taken away: it is put around the image, which grows by it.",
         lambda n, k, s, p: (n - 2 * p - k) // s + 1),
        ("The padding is added after the division: it widens the image before the kernel moves.",
         lambda n, k, s, p: (n - k) // s + 1 + 2 * p),
        ("The kernel_size is ignored: the last position is where the kernel still fits.",
         lambda n, k, s, p: (n + 2 * p) // s),
        ("The kernel_size is ignored: the last position is where the kernel still fits.",
         lambda n, k, s, p: (n + 2 * p - 1) // s + 1),
        ("That is the size over the stride: it holds for padding that just makes up for the kernel.",
         lambda n, k, s, p: n // s),
        ("That is the size over the stride: it holds for padding that just makes up for the kernel.",
         lambda n, k, s, p: math.ceil(n / s)),
        ("The + 1 is inside the division: add it to the number of steps.",
         lambda n, k, s, p: (n + 2 * p - k + 1) // s),
        ("That is the number of positions in two dimensions: the question is one side.",
         lambda n, k, s, p: ((n + 2 * p - k) // s + 1) ** 2),
    ]  # fmt: skip
    look = lecture_at("chapter 06, the shapes stage by stage", 3890)

    def right(size, kernel_size, stride, padding):
        return (size + 2 * padding - kernel_size) // stride + 1

    return judge(f, "size, kernel_size, stride, padding", cases, right, mistakes, look)


def check_conv_as_linear(f):
    """f(x, weight, stride, padding) -> the convolution as a matrix product of patches, equal to F.conv2d.

    x (N, C, H, W), weight (O, C, k, k), result (N, O, H', W'). Without groups and bias.
    """
    cases = [
        (seeded_randn(2, 3, 5, 7, seed=1), seeded_randn(4, 3, 3, 3, seed=2), 1, 0),
        (seeded_randn(2, 3, 6, 5, seed=3), seeded_randn(4, 3, 3, 3, seed=4), 2, 1),
        (seeded_randn(3, 2, 4, 3, seed=5), seeded_randn(5, 2, 1, 1, seed=6), 1, 0),
        (seeded_randn(1, 2, 9, 6, seed=7), seeded_randn(3, 2, 2, 2, seed=8), 3, 1),
    ]

    def conv(x, weight, stride, padding):
        return F.conv2d(x, weight, stride=stride, padding=padding)

    def reordered(*order):
        """The weight's rows flattened in another order than the patches."""

        def wrong(x, weight, stride, padding):
            flat = weight.permute(0, *order).flatten(1)
            columns = F.unfold(x, weight.shape[-1], stride=stride, padding=padding)
            return (flat @ columns).view_as(conv(x, weight, stride, padding))

        return wrong

    def reshaped(x, weight, stride, padding):
        """(N, L, O) taken for (N, O, L): the numbers are right, each in a wrong place."""
        out = conv(x, weight, stride, padding)
        return out.flatten(2).mT.reshape(out.shape)

    order = (
        "The patches are flattened in another order than the weight: unfold puts channels first, then rows, columns."
    )
    places = (
        "The shape is right, the places are not: move the channels with a transpose; view and reshape only relabel."
    )
    loose = "The positions are still one row: give them their height and width, with view(N, O, H', W')."
    mistakes = [
        ("The padding is ignored.", lambda x, w, s, p: conv(x, w, s, 0)),
        ("The stride is ignored.", lambda x, w, s, p: conv(x, w, 1, p)),
        ("Stride and padding are ignored.", lambda x, w, s, p: conv(x, w, 1, 0)),
        (order, reordered(2, 3, 1)),
        (order, reordered(3, 2, 1)),
        (order, reordered(2, 1, 3)),
        (order, reordered(3, 1, 2)),
        ("The kernel is transposed: rows and columns have changed places.", reordered(1, 3, 2)),
        ("The kernel is flipped, as in mathematics: what networks call a convolution does not flip it.",
         lambda x, w, s, p: conv(x, w.flip(2, 3), s, p)),
        (places, reshaped),
        (places, lambda x, w, s, p: conv(x, w, s, p).mT.reshape(conv(x, w, s, p).shape)),
        ("Height and width have changed places.", lambda x, w, s, p: conv(x, w, s, p).mT),
        (loose, lambda x, w, s, p: conv(x, w, s, p).flatten(2)),
        ("The positions are still one row, before the channels: transpose to (N, O, L), then view as (N, O, H', W').",
         lambda x, w, s, p: conv(x, w, s, p).flatten(2).mT),
        ("The channels come last: they belong in dimension 1.", lambda x, w, s, p: conv(x, w, s, p).permute(0, 2, 3, 1)),
        ("Batch and channels have changed places.", lambda x, w, s, p: conv(x, w, s, p).transpose(0, 1)),
        ("Only one channel is used: a patch holds the pixels of all channels.",
         lambda x, w, s, p: conv(x[:, :1], w[:, :1], s, p)),
        ("That is an average over a patch: the products are summed.",
         lambda x, w, s, p: conv(x, w, s, p) / w[0].numel()),
        ("The images are summed up: each has its own output.",
         lambda x, w, s, p: conv(x, w, s, p).sum(0, keepdim=True)),
    ]  # fmt: skip
    look = lecture_at("chapter 06, a convolution as a linear layer on patches", 3890)
    options = {"read": as_array, "tolerance": (1e-4, 1e-4)}
    return judge(f, "x, weight, stride, padding", cases, conv, mistakes, look, **options)


# Chapter 10: the fully linear case


def check_collapse(f):
    """f(weights, biases) -> (W, b): the one linear layer that equals the stack x @ W1 + b1, then @ W2 + b2, …

    weights and biases are lists of tensors, of shapes (n, m) and (m,), in the order in which x meets them.
    """

    def stack(*sizes, seed):
        pairs = list(pairwise(sizes))
        weights = [seeded_randn(n, m, seed=seed + i) for i, (n, m) in enumerate(pairs)]
        return weights, [seeded_randn(m, seed=seed + 10 + i) for i, (_, m) in enumerate(pairs)]

    def product(weights):
        return reduce(torch.matmul, weights)

    def right(weights, biases):
        b = biases[0]
        for W, bias in zip(weights[1:], biases[1:], strict=True):
            b = b @ W + bias
        return product(weights), b

    def bias_of(weights, biases):
        return right(weights, biases)[1]

    cases = [stack(4, 4, 4, 4, seed=1), stack(3, 3, 3, seed=5), stack(3, 5, 2, 4, seed=20), stack(2, 3, seed=30)]
    backwards = "The matrices are multiplied in the wrong order: (x @ W1) @ W2 is x @ (W1 @ W2)."
    mistakes = [
        (backwards, lambda w, b: (product(w[::-1]), bias_of(w, b))),
        (backwards, lambda w, b: right(w[::-1], b)),
        (backwards, lambda w, b: right(w[::-1], b[::-1])),
        ("A bias passes through all the layers after its own: multiply it by their weights, then add.",
         lambda w, b: (product(w), sum(b))),
        ("Only the last bias is used: every bias comes through, multiplied by the weights after it.",
         lambda w, b: (product(w), b[-1])),
        ("Only the first bias is used: the others come through too, the last one as it is.",
         lambda w, b: (product(w), b[0])),
        ("The last bias is left out: it comes after the last weight, as it is.",
         lambda w, b: (product(w), bias_of(w, b) - b[-1])),
        ("The biases are left out.", lambda w, b: (product(w), torch.zeros_like(b[-1]))),
        ("A bias passes through the layers after its own only: its own weight comes before it.",
         lambda w, b: (product(w), sum(c @ product(w[i:]) for i, c in enumerate(b)))),
        ("A bias passes through one layer more than its own: it meets all that come after.",
         lambda w, b: (product(w), b[-1] + sum(c @ W for c, W in zip(b[:-1], w[1:], strict=True)))),
        ("A bias stands on the left of a weight: b @ W, as x does.",
         lambda w, b: (product(w), reduce(lambda c, layer: layer[0] @ c + layer[1], zip(w[1:], b[1:], strict=True), b[0]))),
        ("W is transposed: x stands on its left, x @ W.", lambda w, b: (product(w).mT, bias_of(w, b))),
        ("The matrices are added: layers in a row multiply them.", lambda w, b: (sum(w), bias_of(w, b))),
        ("The matrices are added: layers in a row multiply them.", lambda w, b: (sum(w), sum(b))),
        ("`*` multiplies entry by entry: `@` is the matrix product.", lambda w, b: (math.prod(w), bias_of(w, b))),
        ("Only the first two layers are multiplied: go on through the lists.", lambda w, b: right(w[:2], b[:2])),
        ("b and W have changed places: return W, b.", lambda w, b: right(w, b)[::-1]),
    ]  # fmt: skip
    look = lecture_at("chapter 10, the stack that collapses", 5527)
    options = {"read": _weight_and_bias, "tolerance": (1e-4, 1e-4)}
    return judge(f, "weights, biases", cases, right, mistakes, look, **options)


def _weight_and_bias(value):
    """(W, b), where a bias of shape (1, n) will do as well as one of shape (n,)."""
    (_, W), (_, b) = as_parts("W", "b")(value)
    return [("W", W), ("b", b[0] if b.ndim == 2 and len(b) == 1 else b)]
