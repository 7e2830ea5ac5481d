"""Lesson X02: how a stream grows, four residual networks to tell apart, and a last layer of zeros."""

from collections import OrderedDict

import torch
from torch import nn

from helpers.checks.kinds import check, choice, choices, seeded_randn

CASES = [(1.0, 2), (1.0, 10), (0.5, 3), (0.1, 50), (0.0, 7), (2.0, 0)]


@check("lesson X02, exercise X02.1", 3890, CASES)
def check_stream_growth(scale, blocks):
    """f(scale, blocks) -> the stream's std after the blocks, divided by that before them."""
    return (1 + scale**2) ** (blocks / 2)


check_stream_growth.mistakes = {
    "Python takes the power before it divides: `n / 2` needs brackets.": lambda a, n: (1 + a**2) ** n / 2,
    "`//` drops the half of an odd number of blocks: divide with `/`.": lambda a, n: (1 + a**2) ** (n // 2),
    "Stds of independent numbers do not add up, their variances do.": (lambda a, n: (1 + a) ** n, lambda a, n: 1 + a * n),
    "That adds the same amount in every block. Here a branch is as large as the stream that it reads.": (
        lambda a, n: (1 + n * a**2) ** 0.5, lambda a, n: 1 + n * a**2),
    "The plus is missing: the stream itself goes on too.": lambda a, n: a**n,
}  # fmt: skip


class _Block(nn.Module):
    plus, activation = True, staticmethod(torch.tanh)

    def __init__(self, weight, scale):
        super().__init__()
        self.weight, self.scale = nn.Parameter(weight), scale

    def forward(self, x):
        branch = self.scale * self.activation(x @ self.weight)
        return x + branch if self.plus else branch


def four_streams():
    """Four residual networks of 12 blocks each, one fault in three of them: a, b, c, d. Characters in, logits out."""

    def network(seed, scale=12**-0.5):
        draw = seeded_randn(14, 100, 100, seed=seed)
        layers = OrderedDict(embedding=nn.Embedding(27, 10), flatten=nn.Flatten(), linear1=nn.Linear(30, 100))
        layers["embedding"].weight.data = draw[0, :27, :10].clone()
        layers["linear1"].weight.data = draw[1, :, :30] * (5 / 3) / 30**0.5
        layers["tanh1"] = nn.Tanh()
        for i in range(1, 13):
            layers[f"block{i}"] = _Block(draw[i] * (5 / 3) / 100**0.5, scale)
        layers["output"] = nn.Linear(100, 27)
        layers["output"].weight.data = draw[13, :27] * 0.01
        layers["linear1"].bias.data.zero_(), layers["output"].bias.data.zero_()
        return nn.Sequential(layers)

    a, b, c, d = network(1), network(2, scale=1.0), network(3), network(4)
    a.block8.plus = False
    for block in (d.block3, d.block4, d.block9):
        block.activation = torch.relu
        block.weight.data.zero_()
    return a, b, c, d


_LEVEL = "Its stream keeps its size all along. Print the root mean square of every state first."
_GROWS = "Its stream grows from the first block to the last. Print the root mean square of every state."
_FALLS = "At one block its stream becomes much smaller at once. Print the root mean square of every state."
_ASK = "Its stream hardly grows. Now ask the weights: which of them get a gradient?"
_ALL = "Every weight of it gets a gradient, and its stream makes no jump."

check_four_streams = choices("the four networks", "lesson X02, exercise X02.2", 3890, {
    "a": ("a plus is missing", _FALLS),
    "b": ("no scale", _GROWS),
    "c": ("healthy", {"no scale": _LEVEL, "a plus is missing": _ALL, "dead blocks": _ALL}),
    "d": ("dead blocks", {"no scale": _LEVEL, "a plus is missing": _ASK, "healthy": _ASK}),
}, noun="condition")  # fmt: skip

check_zero_last = choice("the last layer of zeros", "lesson X02, exercise X02.3", 3890, "A", {
    "B": "With a saturated tanh W would get a small gradient. This one is exactly 0, and only in the first step.",
    "C": "The plus hands the same gradient to both ways. And V, at the end of the branch, does get one.",
})  # fmt: skip
