"""What the course's own sweeps share: they need the lecture's names, and measure stacks of networks in the same way."""

import sys

import torch

from helpers.data import load_names
from helpers.layers import BatchNorm1d
from helpers.models import seeded


def need_lecture_names():
    """Kept results are made with the lecture's names: returns "lecture", or SystemExit where others are in use."""
    source = load_names().source
    if source != "lecture":
        sys.exit("the kept results are those of the lecture's names: run `make data`, then this again")
    return source


def by_seed(numbers, seeds, most):
    """A list of the seeds' numbers per network, rounded; None, JSON's null, from `most` on and for what is NaN."""
    each = [round(x, 4) if x < most else None for x in numbers.tolist()]
    return [each[k : k + len(seeds)] for k in range(0, len(each), len(seeds))]


def some_of(split, examples):
    """So many examples of a split, (X, Y), the same ones in every run."""
    ix = torch.randperm(len(split[0]), generator=seeded(9))[:examples]
    return split[0][ix], split[1][ix]


@torch.no_grad()
def recalibrate(stack, X):
    """Give every BatchNorm the statistics of all of X at once: running ones lag behind after few steps."""
    for layer in stack.modules():
        if isinstance(layer, BatchNorm1d):
            layer.momentum = 1.0
    stack.train()(X)
