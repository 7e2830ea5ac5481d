"""Chapter 01's checks: the data set, and the entropy of its letters. `helpers.checks` hands both on."""

import math
from functools import partial

import numpy as np
import torch

from helpers.checks.engine import Verdict, judge, lecture_at

ALPHABET = ".abcdefghijklmnopqrstuvwxyz"


def check_build_dataset(f):
    """f(words, stoi, block_size) -> (X, Y): int64 tensors of shapes (N, block_size) and (N,)."""
    stoi = {letter: i for i, letter in enumerate(ALPHABET)}
    cases = [(["emma", "ava"], stoi, 3), (["z", "mia", "ab"], stoi, 2), (["leo", "al"], stoi, 5)]
    mistakes = [
        ("The final \".\" is missing: it is the character that tells the network where a name ends.",
         _each(lambda word, n: _windows("." * n + word, n))),
        ("The first windows are missing: pad with n dots, so that the first letters are predicted too.",
         _each(lambda word, n: _windows(word + ".", n))),
        ("A window runs over from one name into the next: start every name with a fresh context of dots.",
         lambda words, stoi, n: _lines(_windows("." * n + "".join(word + "." for word in words), n))),
        ("Y is shifted: the context already holds its own answer. Append to X and Y before the context moves on.",
         _each(lambda word, n: [(x[1:] + y, y) for x, y in _windows("." * n + word + ".", n)])),
        ("Y is shifted by one against X: it should hold the character right after the context.",
         lambda words, stoi, n: _rolled(words, n, -1)),
        ("Y is shifted by one against X: it should hold the character right after the context.",
         lambda words, stoi, n: _rolled(words, n, 1)),
        ("Only the last window of every name is kept: append inside the loop over its characters.",
         _each(lambda word, n: _windows("." * n + word + ".", n)[-1:])),
        ("Every row is the same list, changed later: make a new one, `context = context[1:] + [index]`.",
         _each(lambda word, n: [(("." * n + word + ".")[-n:], y) for _, y in _windows("." * n + word + ".", n)])),
        ("The context is backwards: drop its first index and put the new one at the end.",
         _each(lambda word, n: [(x[::-1], y) for x, y in _windows("." * n + word + ".", n)])),
        ("The first \".\" is predicted as well: it is in the context from the start, the first target is a letter.",
         _each(lambda word, n: _windows("." * n + "." + word + ".", n))),
        ("Only the first name is used: return after the loop, not inside it.",
         lambda words, stoi, n: _each(lambda word, n: _windows("." * n + word + ".", n))(words[:1], stoi, n)),
        ("Only the last name is used: make the empty lists once, before the loop.",
         lambda words, stoi, n: _each(lambda word, n: _windows("." * n + word + ".", n))(words[-1:], stoi, n)),
        ("The names are in another order: take them as they come.",
         lambda words, stoi, n: _each(lambda word, n: _windows("." * n + word + ".", n))(sorted(words), stoi, n)),
        ("A context is one too long: it holds block_size characters.",
         _each(lambda word, n: _windows("." * (n + 1) + word + ".", n + 1))),
        ("block_size is ignored: a 3 is written somewhere in the function.",
         _each(lambda word, n: _windows("..." + word + ".", 3))),
    ]  # fmt: skip
    right = _each(lambda word, n: _windows("." * n + word + ".", n))
    look = lecture_at("chapter 01, where the window slides over one name", 82)
    return judge(f, "words, stoi, block_size", cases, right, mistakes, look, read=_dataset)


def _windows(text, n):
    return [(text[i : i + n], text[i + n]) for i in range(len(text) - n)]


def _lines(pairs):
    return np.array([f"{context} -> {target}" for context, target in pairs], str)


def _each(pairs):
    """A dataset function from one that gives the pairs of a single name."""
    return lambda words, stoi, n: _lines(pair for word in words for pair in pairs(word, n))


def _rolled(words, n, by):
    contexts, targets = zip(*(pair for word in words for pair in _windows("." * n + word + ".", n)), strict=True)
    return _lines(zip(contexts, np.roll(targets, by), strict=True))


def _dataset(value):
    """(X, Y) as lines, "..e -> m", in which a shifted window is easier to see than in numbers."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":  # our own are lines already
        return [("the number of examples", np.array(float(len(value)))), ("example", value)]
    if not (isinstance(value, (tuple, list)) and len(value) == 2):
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
    letters = dict(enumerate(ALPHABET))
    return _dataset(
        _lines(("".join(letters.get(i, "?") for i in x), letters.get(y, "?")) for x, y in zip(X, Y, strict=True))
    )


def check_unigram_entropy(f):
    """f(Y) -> the entropy, in nats, of how often each index occurs in Y."""
    cases = [(torch.tensor(Y),) for Y in ([0, 0, 1, 2], [0, 1, 1, 1, 1, 2], [0, 5, 5, 5, 13, 13], [4, 4, 4])]

    def counts(Y):
        return torch.unique(Y, return_counts=True)[1].double()

    def entropy(Y):
        p = counts(Y) / len(Y)
        return -(p * p.log()).sum()

    def softmaxed(counts):
        p = counts.double().softmax(0)
        return -(p * p.log()).sum()

    def smoothed(Y):
        p = (torch.bincount(Y, minlength=27) + 1).double() / (len(Y) + 27)
        return -(p * p.log()).sum()

    def gaps(Y, minlength=0):
        p = torch.bincount(Y, minlength=minlength) / len(Y)
        return -(p * p.log()).sum()

    nan = "An index that never occurs gives 0 * log(0) = NaN, but adds nothing: leave zero counts out of the sum."
    unnormalised = "The counts are not normalised: divide by their sum, so that they add up to 1."
    mistakes = [
        (nan, gaps),
        (nan, partial(gaps, minlength=27)),
        ("The minus is missing: logs of probabilities are negative, an entropy is not.", lambda Y: -entropy(Y)),
        ("These are bits: torch.log2 counts in bits, nats need the natural log.", lambda Y: entropy(Y) / math.log(2)),
        ("That is the log to base 10: nats need the natural log.", lambda Y: entropy(Y) / math.log(10)),
        (unnormalised, lambda Y: -(counts(Y) * counts(Y).log()).sum()),
        (unnormalised, lambda Y: -(counts(Y) / len(Y) * counts(Y).log()).sum()),
        ("That is the entropy of a uniform distribution: use how often each index occurs.", lambda Y: math.log(27)),
        ("That is the entropy of a uniform distribution: use how often each index occurs.",
         lambda Y: math.log(len(counts(Y)))),
        ("Every example counts as a letter of its own: Counter tells tensors apart, so count Y.tolist().",
         lambda Y: math.log(len(Y))),
        ("The average over the letters is taken, not the sum: p already weighs them.",
         lambda Y: entropy(Y) / len(counts(Y))),
        ("That is exp of the entropy, the perplexity.", lambda Y: entropy(Y).exp()),
        ("Every index that occurs counts alike: weigh the log of p by p.",
         lambda Y: -(counts(Y) / len(Y)).log().mean()),
        ("The log of p is not weighed: sum p * log(p).", lambda Y: -(counts(Y) / len(Y)).log().sum()),
        ("These are the terms: sum them up.", lambda Y: -(counts(Y) / len(Y)).log() * counts(Y) / len(Y)),
        ("The counts are put through a softmax: divide them by their sum.", lambda Y: softmaxed(counts(Y))),
        ("The counts are put through a softmax: divide them by their sum.", lambda Y: softmaxed(torch.bincount(Y))),
        ("1 is added to every count: that is smoothing, and changes the entropy.", lambda Y: smoothed(Y)),
        ("The counts are divided by 27: divide them by their sum.", lambda Y: -(counts(Y) / 27 * (counts(Y) / 27).log()).sum()),
        ("Only the likeliest index is used: average over all.", lambda Y: -(counts(Y).max() / len(Y)).log()),
    ]  # fmt: skip
    look = lecture_at("chapter 01, the reference lines", 82)
    return judge(f, "Y", cases, entropy, mistakes, look)
