"""Chapter 02: the first loss: what it should be and says of the logits, which layer is guilty, a better bias."""

import contextlib
import math
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from helpers.checks.engine import Look
from helpers.checks.kinds import check, choice, seeded_randn
from helpers.checks.readings import to_array


@check("chapter 02, exercise 2.1", 259, [(14.6, 50257), (3.4, 27), (7.4, 1000), (1.5, 4)])
def check_logit_std(first_loss, classes):
    """f(first_loss, classes) -> the std of the random logits that cause this first loss."""
    return math.sqrt(2 * (first_loss - math.log(classes)))


check_logit_std.mistakes = {
    "Take away first what knowing nothing costs, ln(classes): only the rest comes from the spread.": (
        lambda loss, n: math.sqrt(2 * loss), lambda loss, n: math.sqrt(loss)),
    "Half of the variance is what it costs, so the variance is twice the excess.": (
        lambda loss, n: math.sqrt(loss - math.log(n)), lambda loss, n: math.sqrt((loss - math.log(n)) / 2)),
    "That is the excess over ln(classes), the half of a variance: solve it for the std.": lambda loss, n: loss - math.log(n),
    "The number of classes is an argument: 27 is the course's.": lambda loss, n: math.sqrt(2 * (loss - math.log(27))),
    "The loss is in nats: take the natural logarithm of the number of classes.": (
        lambda loss, n: math.sqrt(2 * abs(loss - math.log2(n))), lambda loss, n: math.sqrt(2 * (loss - math.log10(n)))),
}  # fmt: skip


def start_of_nine():
    """A network of three layers with ReLUs, (examples, 3) characters in, 27 logits out. Its first loss is about 9."""
    shapes = {"layer1": (30, 200, 0.26), "layer2": (200, 100, 1.41), "layer3": (100, 27, 0.029)}
    parts = OrderedDict(embedding=nn.Embedding(27, 10), flatten=nn.Flatten())
    parts["embedding"].weight.data = seeded_randn(27, 10, seed=6)
    for number, (name, (fan_in, fan_out, std)) in enumerate(shapes.items(), start=1):
        parts[name] = nn.Linear(fan_in, fan_out)
        parts[name].weight.data = std * seeded_randn(fan_out, fan_in, seed=6 + number)
        parts[name].bias.data.zero_()
        if name != "layer3":
            parts[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(parts)


check_guilty_layer = choice("the guilty layer", "chapter 02, exercise 2.2", 259, "layer2", {
    "layer1": "Its outputs are about as large as its inputs. Print the std after every layer, then compare in and out.",
    "layer3": "The loss is felt here, and it is not made here: its outputs are smaller than its inputs.",
})  # fmt: skip


def as_probabilities(value):
    """A reader of logits by what softmax makes of them: a constant added to all of them changes nothing."""
    logits = to_array(value)
    if logits.dtype == bool:
        return {"probability": logits}
    powers = np.exp(logits - logits.max(initial=0))
    return {"probability": powers / powers.sum()}


LABELS = [(torch.tensor(labels), classes) for labels, classes in (
    ([0, 1, 1, 2], 3), ([1, 0, 0, 0, 0, 1, 2, 3, 3, 3], 4), ([0] * 9 + [1] * 4 + [2] * 3 + [3, 4, 4], 5),
)]  # fmt: skip


@check("chapter 02, exercise 2.3", 259, LABELS, read=as_probabilities)
def check_frequency_bias(Y, classes):
    """f(Y, classes) -> the bias (classes,) with which softmax gives each class its share of the labels Y."""
    return torch.bincount(Y, minlength=classes).float().log()


def _length(answer, Y, classes):
    with contextlib.suppress(ValueError):  # math.log(0): how to treat a class that never occurs is left open
        return len(answer(Y, classes))
    return classes


_hint = "One number for every class, also where the last ones never occur in Y: tell bincount, minlength=classes."
_look = Look(_length, [(LABELS[0][0], 5)], "the length of {}(Y, 5) for labels from 0 to 2", hint=_hint)
check_frequency_bias.looks.append(_look)


def _shares(Y, classes):
    return torch.bincount(Y, minlength=classes) / len(Y)


check_frequency_bias.mistakes = {
    "These are the shares themselves: softmax takes their exponential, so give it their logarithm.": _shares,
    "These are counts: softmax takes their exponential, so give it their logarithm.":
        lambda Y, n: torch.bincount(Y, minlength=n).float(),
    "The sign is wrong: the most frequent class needs the largest logit.": lambda Y, n: -_shares(Y, n).log(),
    "These logits are all equal: every class gets the same probability.": (
        lambda Y, n: torch.zeros(n), lambda Y, n: torch.full((n,), -math.log(n))),
    "Softmax undoes the natural logarithm: take no other one.": (
        lambda Y, n: _shares(Y, n).log2(), lambda Y, n: _shares(Y, n).log10()),
    "Something is added to each count. Here every class occurs, so the plain counts are right.": (
        lambda Y, n: (torch.bincount(Y, minlength=n) + 1).float().log()),
}  # fmt: skip
