"""Chapter 06: how many places a kernel has, a convolution as matrix products, four networks to tell apart."""

import math
from itertools import product

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from helpers.checks.kinds import check, choices, seeded_randn
from helpers.checks.sandbox import require

# The named ones first, then every small combination: a rule that holds for some paddings or strides only shows.
PLACES = [(224, 7, 2, 3), (56, 1, 1, 0), (112, 3, 2, 1), (8, 2, 2, 0), (10, 4, 3, 1), (7, 3, 1, 2)]
PLACES += product((6, 9), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2, 4))


@check("chapter 06, exercise 6.1", 3890, PLACES)
def check_conv_output_size(size, kernel_size, stride, padding):
    """f(size, kernel_size, stride, padding) -> the height or width that a convolution puts out, in pixels."""
    return (size + 2 * padding - kernel_size) // stride + 1


check_conv_output_size.mistakes = {
    "The division is not rounded down: the last steps that do not fit are dropped (`//`).": (
        lambda n, k, s, p: (n + 2 * p - k) / s + 1, lambda n, k, s, p: math.ceil((n + 2 * p - k) / s) + 1),
    "The padding stands at both ends, so it counts twice.": (
        lambda n, k, s, p: (n + p - k) // s + 1, lambda n, k, s, p: (n + p - k) // s),
    "Python divides before it adds or subtracts: the three lengths need brackets.": (
        lambda n, k, s, p: n + 2 * p - k // s + 1, lambda n, k, s, p: n - k + 2 * p // s + 1),
    "The + 1 is inside the division: add it to the number of steps.": lambda n, k, s, p: (n + 2 * p - k + 1) // s,
}  # fmt: skip

SHAPES = [  # of x, of weight, stride, padding
    ((2, 3, 5, 7), (4, 3, 3, 3), 1, 0), ((2, 3, 6, 5), (4, 3, 3, 3), 2, 1), ((3, 2, 4, 3), (5, 2, 1, 1), 1, 0),
    ((1, 2, 9, 6), (3, 2, 2, 2), 3, 1), ((2, 2, 4, 5), (3, 2, 3, 3), 1, 2), ((1, 1, 3, 4), (2, 1, 2, 2), 2, 3),
]  # fmt: skip
IMAGES = [(seeded_randn(*x, seed=i), seeded_randn(*w, seed=9 + i), s, p) for i, (x, w, s, p) in enumerate(SHAPES)]

_OWN = "Here it is made from slices of the padded image and one matrix product."


class _NoConvolution(TorchFunctionMode):
    """Whatever runs inside may not call torch's convolution, or F.unfold."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        is_own = "conv" not in getattr(func, "__name__", "") and func not in (F.unfold, torch._C._nn.im2col)
        require(is_own, "your code leaves the work to torch's convolution or F.unfold", _OWN)
        return func(*args, **(kwargs or {}))


def _by_hand(answer, *args):
    with _NoConvolution():
        return answer(*args)


@check("chapter 06, what a convolution computes at one place", 3890, IMAGES, trial=_by_hand, tolerance=(1e-4, 1e-4))
def check_conv_as_linear(x, weight, stride, padding):
    """f(x, weight, stride, padding) -> the convolution as a matrix product of patches, equal to F.conv2d.

    x (N, C, H, W), weight (O, C, k, k), result (N, O, H', W'). Without groups and bias.
    """
    k = weight.shape[-1]
    patches = F.pad(x, (padding,) * 4).unfold(2, k, stride).unfold(3, k, stride)
    return torch.einsum("nchwij,ocij->nohw", patches, weight)


def _output(change):
    return lambda *args: change(check_conv_as_linear.right(*args))


def _kernel(change):
    return lambda x, w, *args: check_conv_as_linear.right(x, change(w), *args)


check_conv_as_linear.mistakes = {
    "The patches are flattened in another order than the weight: channels first, then rows, then columns.": (
        _kernel(lambda w: w.permute(0, 2, 3, 1).reshape(w.shape)), _kernel(lambda w: w.permute(0, 3, 2, 1).reshape(w.shape)),
        _kernel(lambda w: w.permute(0, 2, 1, 3).reshape(w.shape)),
        _kernel(lambda w: w.reshape(len(w), *w.shape[2:], -1).permute(0, 3, 1, 2))),
    "The patch of place (i, j) starts at row i * stride and column j * stride.": lambda x, w, s, p: (
        check_conv_as_linear.right(x, w, 1, p)[:, :, *map(slice, check_conv_as_linear.right(x, w, s, p).shape[2:])]),
    "The kernel is transposed: rows and columns have changed places.": _kernel(lambda w: w.mT),
    "The kernel is flipped, as in mathematics: what networks call a convolution does not.": _kernel(lambda w: w.flip(2, 3)),
    "The places are not right: move the channels with a transpose; view and reshape only relabel.": (
        _output(lambda out: out.flatten(2).mT.reshape(out.shape)), _output(lambda out: out.mT.reshape(out.shape))),
    "The positions are still one row: give them their height and width, with view(N, O, H', W').": (
        _output(lambda out: out.flatten(2)), _output(lambda out: out.flatten(2).mT)),
    "Batch or height stands where the channels belong: that is dimension 1.": (
        _output(lambda out: out.permute(0, 2, 3, 1)), _output(lambda out: out.transpose(0, 1))),
}  # fmt: skip

_STD = "Look at the upper row: what keeps the std near 1 through fifty layers, and where is it at work?"
_END = "Look for a call behind which no signal is drawn; of its gradient hardly anything is left either."
_GROWTH = "Compare how far the gradient grows from the right to the left: shortcuts slow that down."

check_four_resnets = choices("the four networks", "chapter 06, exercise 6.3", 3890, {
    "a": ("no shortcuts", {"healthy": _GROWTH, "no BatchNorm": _STD, "silent block": _END}),
    "b": ("silent block", _END),
    "c": ("healthy", {"no shortcuts": _GROWTH, "no BatchNorm": _STD, "silent block": _END}),
    "d": ("no BatchNorm", {"healthy": _STD, "no shortcuts": _STD, "silent block": _END}),
}, noun="condition")  # fmt: skip
