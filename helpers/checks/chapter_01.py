"""Chapter 01: the entropy of the letters, four data sets to tell apart, a step in the loss to explain."""

import math

import numpy as np
import torch

from helpers.checks.engine import Check, Look, Verdict
from helpers.checks.kinds import check, choice, choices, lecture_at

INDICES = [0, 0, 1, 2], [3, 1, 3, 0, 3, 1], [5, 0, 13, 5, 0, 5, 13, 26, 5], [4, 4, 4], [2, 1, 2, 1, 1, 2, 2, 1, 2]


@check("chapter 01, the reference lines", 82, [(torch.tensor(Y),) for Y in INDICES])
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
    "That is the entropy of a uniform distribution: use how often each index occurs.": _terms(lambda n, N: math.log(len(n))),
    "Every example counts as a letter of its own: Counter tells tensors apart, so count Y.tolist().": lambda Y: math.log(len(Y)),
    "The average is taken, not the sum: p already weighs.": _terms(lambda n, N: _of(n / N) / len(n)),
    "Every index counts alike: sum p * log(p).": (
        _terms(lambda n, N: -(n / N).log().mean()), _terms(lambda n, N: -(n / N).log().sum())),
    "These are the terms: sum them up.": _terms(lambda n, N: -(n / N).log() * n / N),
    "The counts are put through a softmax: divide them by their sum.": _terms(lambda n, N: _of(n.softmax(0))),
    "Only neighbours are counted together: an index may come back later, so count all of Y.":
        lambda Y: _of(torch.unique_consecutive(Y, return_counts=True)[1].double() / len(Y)),
}  # fmt: skip


def _each(windows, windowed=lambda words, n: words):
    """A dataset function from one that gives the pairs (context, target), as text, of a single name."""

    def f(words, stoi, block_size=3):
        pairs = [pair for word in windowed(words, block_size) for pair in windows(word, block_size)]
        return torch.tensor([[stoi[c] for c in x] for x, _ in pairs]), torch.tensor([stoi[y] for _, y in pairs])

    return f


def _windows(text, n):
    return [(text[i : i + n], text[i + n]) for i in range(len(text) - n)]


def _examples(answer, words, stoi, block_size):
    """The examples as text, "..e -> m", in which a shifted window is easier to see than in numbers."""
    value = answer(words, stoi, block_size)
    if value is None or value is ... or isinstance(value, (tuple, list)) and any(part is ... for part in value):
        return value
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise Verdict(f"it returned an object of type {type(value).__name__}", "Return two tensors: `return X, Y`.")
    for label, part, dims in zip("XY", value, (2, 1), strict=True):
        if not isinstance(part, torch.Tensor):
            hint = "Make one tensor of the finished list, with `torch.tensor(...)`."
            raise Verdict(f"{label} is of type {type(part).__name__}, not a torch tensor", hint)
        if part.dtype != torch.int64 or part.dim() != dims:
            hint = "Characters are indices, in int64: X holds block_size of them for each example, Y holds one."
            raise Verdict(f"{label} is {part.dtype} of shape {tuple(part.shape)}", hint)
    X, Y = (part.tolist() for part in value)
    if len(X) != len(Y):
        hint = "Every context has just one next character: append to X and Y in the same place."
        raise Verdict(f"X has {len(X)} rows, Y has {len(Y)}", hint)
    letter = {i: c for c, i in stoi.items()}
    return ["".join(letter.get(i, "?") for i in x) + " -> " + letter.get(y, "?") for x, y in zip(X, Y, strict=True)]


USUAL = {c: i for i, c in enumerate(".abcdefghijklmnopqrstuvwxyz")}
ODD = {c: (27 - i) % 27 for c, i in USUAL.items()}  # the letters backwards
NAMES = [(["emma", "ava"], USUAL, 3), (["z", "mia", "ab", "z"], USUAL, 2), (["leo", "al"], USUAL, 5),
         (["mia", "zoe", "mia"], ODD, 3), (["ab", "ba"], ODD, 1)]  # fmt: skip
RIGHT = _each(lambda word, n: _windows("." * n + word + ".", n))
check_build_dataset = Check(
    "f(words, stoi, block_size) -> (X, Y): int64 tensors of shapes (N, block_size) and (N,), cut from the padded names.",
    RIGHT,
    [Look(_examples, NAMES, read=lambda value: {"the number of examples": np.array(len(value)), "example": np.array(value, str)})],
    lecture_at("chapter 01, where the window slides over one name", 82),
    call="{}(words, stoi, block_size)",
    mistakes={
        'The final "." is missing: it tells the network where a name ends.': _each(lambda word, n: _windows("." * n + word, n)),
        "The first windows are missing: pad with n dots.": _each(lambda word, n: _windows(word + ".", n)),
        "A window runs over from one name into the next: start every name with a fresh context of dots.": _each(
            _windows, lambda words, n: ["." * n + "".join(word + "." for word in words)]),
        "Y is shifted: the context already holds its own answer. Append to X and Y before the context moves on.": _each(
            lambda word, n: [(x[1:] + y, y) for x, y in _windows("." * n + word + ".", n)]),
        "Y is shifted by one against X: it should hold the character right after the context.": tuple(
            lambda *args, by=by: (RIGHT(*args)[0], RIGHT(*args)[1].roll(by)) for by in (1, -1)),
        "Only the last window of every name is kept: append inside the loop.": _each(
            lambda word, n: _windows("." * n + word + ".", n)[-1:]),
        "Every row is the same list, changed later: make a new one, `context = context[1:] + [index]`.": _each(
            lambda word, n: [(("." * n + word + ".")[-n:], y) for y in word + "."]),
        "The context is backwards: put the new index at its end.": lambda *args: (RIGHT(*args)[0].flip(1), RIGHT(*args)[1]),
        "Only the first name is used: return after the loop.": lambda words, *args: RIGHT(words[:1], *args),
        "Only the last name is used: make the lists once, before the loop.": lambda words, *args: RIGHT(words[-1:], *args),
        "The names are in another order: take them as they come.": lambda words, *args: RIGHT(sorted(words), *args),
        "A name that comes twice is used once.": lambda words, *args: RIGHT(list(dict.fromkeys(words)), *args),
        "The indices are not those of stoi, which may be in any order.": lambda words, stoi, n: RIGHT(words, USUAL, n),
        "A context is one too long: it holds block_size characters.": lambda words, stoi, n: RIGHT(words, stoi, n + 1),
    },
)  # fmt: skip


def four_datasets(words):
    """Four data sets (X, Y) with three characters of context, cut from the same names: a, b, c, d."""
    leaks = _each(lambda word, n: [(x[1:] + y, y) for x, y in _windows("." * n + word + ".", n)])
    endless = _each(lambda word, n: _windows("." * n + word, n))
    X, Y = RIGHT(words, USUAL)
    return (X, Y.roll(-1)), (X, Y), leaks(words, USUAL), endless(words, USUAL)


_ANSWER = "Print a few windows with their answers: does the answer come right after its context?"
_HELD = "Print a few windows with their answers: is the answer the last character of its context?"
_END = "Look at the last window of a name, or at the answers that occur: is the dot among them?"

check_four_datasets = choices(
    "{data set: its condition} of the four data sets of exercise 1.2.",
    "the four data sets",
    {
        "a": ("shifted", {"healthy": _ANSWER, "leaks": _HELD, "endless": _END}),
        "b": ("healthy", {"shifted": _ANSWER, "leaks": _HELD, "endless": _END}),
        "c": ("leaks", {"healthy": _HELD, "shifted": _HELD, "endless": _END}),
        "d": ("endless", {"healthy": _END, "shifted": _ANSWER, "leaks": _HELD}),
    },
    "chapter 01, where the window slides over one name", 82,
    agreed="the four data sets are told apart", noun="condition",
)  # fmt: skip

check_rate_drop = choice(
    "Why the loss steps down when the learning rate is lowered: A, B or C.",
    "the step in the loss",
    "B",
    {
        "A": "Then the network with the small steps would be ahead in the last third. Look who is.",
        "C": "Both networks see the same minibatches, and only one of them steps down.",
    },
    "chapter 01, exercise 1.3", 82,
)  # fmt: skip
