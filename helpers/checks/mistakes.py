"""Mistakes that any exercise can see: what a wrong answer is to the right one, and which argument it never uses.

They are observed on every input tried, so that a sentence made here is a fact about the answer and not a guess.
"""

import math
from itertools import combinations

import numpy as np
import torch

from helpers.checks.readings import same
from helpers.checks.sandbox import Verdict

LN10 = math.log(10)
FACTORS = {
    -1.0: "Yours is minus the expected result: is a sign wrong?",
    2.0: "Yours is twice the expected result: something is counted double.",
    0.5: "Yours is half of the expected result: a 2 is missing or too many.",
    100.0: "Yours is a percentage: 100 times the expected result.",
    1 / math.log(2): "Yours is to base 2: take the natural log.",
    1 / LN10: "Yours is to base 10: take the natural log.",
    LN10: "Yours is a natural log: take the log to base 10.",
    LN10 / math.log(2): "Yours is a log to base 2: take the log to base 10.",
}
OPERATORS = {
    "one over the expected result: it is upside down.": np.reciprocal,
    "the square of the expected result: is a root missing?": np.square,
    "the root of the expected result: is there a root too many?": np.sqrt,
    "1 minus the expected result: it is the wrong way round.": lambda v: 1 - v,
    "the log of the expected result.": np.log,
    "log10 of the expected result.": np.log10,
    "exp of the expected result: is a log missing?": np.exp,
    "10 to the power of the expected result: is a log missing?": lambda v: 10**v,
    "the expected result without its sign.": np.abs,
    "the expected result rounded to a whole number.": np.round,
}


def relation(wanted, given, tolerance):
    """What the given readings are to the wanted ones, as a sentence; "" where it is nothing simple.

    Both are lists of readings, one per input.
    """
    wanted, given = ([array for reading in readings for array in reading.values()] for readings in (wanted, given))
    if any(a.shape != b.shape or "f" != a.dtype.kind or a.dtype != b.dtype for a, b in zip(wanted, given, strict=True)):
        return ""
    want, have = (np.concatenate([array.ravel() for array in arrays]) for arrays in (wanted, given))
    relative, absolute = tolerance if isinstance(tolerance, tuple) else (tolerance, tolerance / 10)
    with np.errstate(all="ignore"):
        for factor, sentence in FACTORS.items():
            if np.allclose(have, factor * want, relative, absolute):
                return sentence
        if len(np.unique(want)) > 1:
            factor = have[np.abs(want).argmax()] / want[np.abs(want).argmax()]
            if np.allclose(have, factor * want, relative, absolute) and abs(factor) > 1e-9:
                return f"Yours is always {factor:.4g} times the expected result: a factor is missing or too many."
            if np.allclose(have - want, (have - want)[0], relative, max(absolute, relative)):
                more = have[0] - want[0]
                return f"Yours is always {abs(more):.4g} {'more' if more > 0 else 'less'} than expected."
        for words, operator in OPERATORS.items():
            if np.allclose(have, operator(want), relative, absolute, equal_nan=True):
                return f"Yours is {words}"
    return ""


def _other(arg):
    """Another argument of the same kind; None where there is none."""
    if isinstance(arg, (int, float)):
        return arg + 1 if isinstance(arg, int) else 1.5 * arg + 0.1
    if isinstance(arg, list) and all(isinstance(part, torch.Tensor) for part in arg):
        return [_other(part) for part in arg]
    return 0.5 * arg + 0.05 if isinstance(arg, torch.Tensor) and arg.is_floating_point() else None


def never_used(parameters, cases, run, right, tolerance):
    """The parameters that change the right answer on these cases and never the learner's, in a sentence or ""."""
    idle = []
    for i, name in enumerate(parameters):
        changed = [(*args[:i], _other(args[i]), *args[i + 1 :]) for args in cases if _other(args[i]) is not None]
        before = [args for args in cases if _other(args[i]) is not None]
        pairs = [(run(a), run(b)) for a, b in zip(before, changed, strict=True)]
        alike = pairs and not any(isinstance(a, Verdict) or not same(a, b, tolerance) for a, b in pairs)
        if alike and not all(same(right(a), right(b), tolerance) for a, b in zip(before, changed, strict=True)):
            idle.append(name)
    return f"Your answer stays the same when {' or '.join(idle)} changes: where is it used?" if idle else ""


def exchanged(parameters, cases, given, right, tolerance):
    """Two parameters, or two results, that have changed places, in a sentence or ""."""
    for i, j in combinations(range(len(parameters)), 2):
        swapped = []
        for args in cases:
            args = list(args)
            args[i], args[j] = args[j], args[i]
            swapped.append(right(tuple(args)))
        if not any(isinstance(a, Verdict) for a in given) and all(map(same, swapped, given, [tolerance] * len(given))):
            return f"{parameters[i]} and {parameters[j]} have changed places."
    return ""


def each(make, table):
    """A table {sentence: part or parts} with a whole answer made of every part."""
    return {why: tuple(map(make, parts if isinstance(parts, tuple) else (parts,))) for why, parts in table.items()}


def variant(base, **methods):
    """A class like base but for these methods: the way to write down a mistake in a class."""
    return type("Variant", (base,), methods)
