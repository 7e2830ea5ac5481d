"""Chapter 01: the entropy of the letters, four data sets to tell apart, a step in the loss to explain."""

import math

import torch

from helpers.checks.kinds import check, choice, choices

INDICES = [0, 0, 1, 2], [3, 1, 3, 0, 3, 1], [5, 0, 13, 5, 0, 5, 13, 26, 5], [4, 4, 4], [2, 1, 2, 1, 1, 2, 2, 1, 2]


@check("chapter 01, the reference lines", 82, [(torch.tensor(Y),) for Y in INDICES], tolerance=(1e-5, 1e-5))
def check_unigram_entropy(Y):
    """f(Y) -> the entropy, in nats, of how often each index occurs in Y (N,)."""
    return _of(torch.unique(Y, return_counts=True)[1].double() / len(Y))


def _of(p):
    return -(p * p.log()).sum()


def _terms(change):
    """An entropy that does something else with the counts n of the indices that occur, of N examples."""
    return lambda Y: change(torch.unique(Y, return_counts=True)[1].double(), len(Y))


check_unigram_entropy.mistakes = {
    "An index that never occurs gives 0 * log(0) = NaN, but adds nothing: leave zero counts out of the sum.":
        lambda Y: _of(torch.bincount(Y, minlength=27) / len(Y)),
    "The counts are not normalised: divide them by their sum.": (
        _terms(lambda n, N: _of(n)), _terms(lambda n, N: -(n / N * n.log()).sum())),
    "That is the entropy of a uniform distribution: use how often each index occurs.": (
        _terms(lambda n, N: math.log(len(n))), lambda Y: math.log(27)),
    "Every example counts as a letter of its own: Counter tells tensors apart, so count Y.tolist().": lambda Y: math.log(len(Y)),
    "The average is taken, not the sum: p already weighs.": _terms(lambda n, N: _of(n / N) / len(n)),
    "Every index counts alike: sum p * log(p).": (
        _terms(lambda n, N: -(n / N).log().mean()), _terms(lambda n, N: -(n / N).log().sum())),
    "The counts are put through a softmax: divide them by their sum.": (
        _terms(lambda n, N: _of(n.softmax(0))), lambda Y: _of(torch.bincount(Y, minlength=27).float().softmax(0))),
}  # fmt: skip

LETTERS = {c: i for i, c in enumerate(".abcdefghijklmnopqrstuvwxyz")}


def _dataset(words, end="."):
    windows = [text[i : i + 4] for text in (f"...{word}{end}" for word in words) for i in range(len(text) - 3)]
    table = torch.tensor([[LETTERS[c] for c in window] for window in windows])
    return table[:, :3], table[:, 3]


def four_datasets(words):
    """Four data sets (X, Y) with three characters of context, cut from the same names: a, b, c, d."""
    X, Y = _dataset(words)
    return (X, Y.roll(-1)), (X, Y), (torch.cat([X[:, 1:], Y[:, None]], 1), Y), _dataset(words, end="")


_ANSWER = "Print a few windows with their answers: does the answer come right after its context?"
_HELD = "Print a few windows with their answers: is the answer the last character of its context?"
_END = "Look at the last window of a name, or at the answers that occur: is the dot among them?"

check_four_datasets = choices("the four data sets", "chapter 01, where the window slides over one name", 82, {
    "a": ("shifted", {"healthy": _ANSWER, "leaks": _HELD, "endless": _END}),
    "b": ("healthy", {"shifted": _ANSWER, "leaks": _HELD, "endless": _END}),
    "c": ("leaks", {"healthy": _HELD, "shifted": _HELD, "endless": _END}),
    "d": ("endless", {"healthy": _END, "shifted": _ANSWER, "leaks": _HELD}),
}, noun="condition")  # fmt: skip

check_rate_drop = choice("the step in the loss", "chapter 01, exercise 1.3", 82, "B", {
    "A": "Then the network with the small steps would be ahead in the last third. Look who is.",
    "C": "Both networks see the same minibatches, and only one of them steps down.",
})  # fmt: skip
