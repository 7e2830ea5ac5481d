"""Mistakes that any exercise can see: what a wrong answer is to the right one, and which argument it never uses.

They are observed on every input tried, so that a sentence made here is a fact about the answer and not a guess.
"""

import math
from functools import partial
from itertools import combinations

import numpy as np
import torch

from helpers.checks.readings import relative, same
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
NEAR = 0.02
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


def observed(look, rows, run, right):
    """What can be seen of an answer from outside, as a sentence; "" where it is nothing simple.

    rows: (args, the right outcome, the answer's) for every input; run, right: give the outcome of either for args.
    """
    told = "" if look.call else _never_used(look, rows, run, right) or _exchanged(look, rows, right)
    return told or _shapes(look, rows) or _relation(look, rows)


def _shapes(look, rows):
    """The right numbers in another shape."""
    if any(isinstance(outcome, Verdict) for row in rows for outcome in row[1:]):
        return ""
    pairs = [(want, have[label]) for _, wanted, have in rows for label, want in wanted.items()]
    if all(same({"": a.ravel()}, {"": b.ravel()}, look.tolerance) for a, b in pairs):
        return "The numbers are right, in another shape: reshape them."
    turned = all(same({"": a.T}, {"": b}, look.tolerance) for a, b in pairs)
    return "The numbers are right, but rows and columns have changed places." if turned else ""


def _relation(look, rows):
    """What the given numbers are to the wanted ones."""
    if any(isinstance(outcome, Verdict) for row in rows for outcome in row[1:]):
        return ""
    pairs = [(want, have[label]) for _, wanted, have in rows for label, want in wanted.items()]
    if any(a.shape != b.shape or "f" != a.dtype.kind or a.dtype != b.dtype for a, b in pairs):
        return ""
    want, have = (np.concatenate([array.ravel() for array in arrays]) for arrays in zip(*pairs, strict=True))
    share, absolute = relative(look.tolerance)
    close, clear = partial(np.allclose, rtol=share, atol=absolute), 10 * share  # less than that is no factor
    with np.errstate(all="ignore"):
        for factor, sentence in FACTORS.items():
            if close(have, factor * want):
                return sentence
        factor, more = (have / want)[np.abs(want).argmax()], (have - want)[0]
        if len(np.unique(want)) > 1 and abs(factor) > 1e-9 and abs(factor - 1) > clear and close(have, factor * want):
            return f"Yours is always {factor:.4g} times the expected result: a factor is missing or too many."
        if len(np.unique(want)) > 1 and abs(more) > clear * np.abs(want).max() and close(have, want + more):
            return f"Yours is always {abs(more):.4g} {'more' if more > 0 else 'less'} than expected."
        if words := next((words for words, operator in OPERATORS.items() if close(have, operator(want))), ""):
            return f"Yours is {words}"
        near = np.allclose(have, want, rtol=NEAR, atol=0)
    return (
        f"Yours is within {NEAR:.0%} everywhere: is it rounded, cut off early, or an average of too few?"
        if near
        else ""
    )


def _other(arg):
    """Another argument of the same kind, bent so that nothing linear undoes it; None where there is none."""
    if isinstance(arg, (int, float)):
        return arg + 1 if isinstance(arg, int) else 1.5 * arg + 0.1
    if isinstance(arg, list) and all(isinstance(part, torch.Tensor) for part in arg):
        return [_other(part) for part in arg]
    if callable(arg) and not isinstance(arg, torch.Tensor):
        return lambda x: 0.5 * arg(x) + 0.05 * x
    return 0.5 * arg + 0.05 * arg**2 if isinstance(arg, torch.Tensor) and arg.is_floating_point() else None


def _never_used(look, rows, run, right):
    """The parameters whose change changes the right answer and never the learner's."""
    idle = []
    for i, name in enumerate(look.names[: len(rows[0][0])]):
        changed = [(*args[:i], _other(args[i]), *args[i + 1 :]) for args, _, _ in rows]
        if all(args[i] is not None for args in changed) and not any(isinstance(have, Verdict) for _, _, have in rows):
            alike = all(same(have, run(args), look.tolerance) for args, (_, _, have) in zip(changed, rows, strict=True))
            if alike and not all(same(w, right(a), look.tolerance) for a, (_, w, _) in zip(changed, rows, strict=True)):
                idle.append(name)
    return f"Your answer stays the same when {' or '.join(idle)} changes: where is it used?" if idle else ""


def _exchanged(look, rows, right):
    """Two parameters that have changed places."""
    for i, j in combinations(range(len(rows[0][0])), 2):
        order = list(range(len(rows[0][0])))
        order[i], order[j] = j, i
        if all(same(right(tuple(args[k] for k in order)), have, look.tolerance) for args, _, have in rows):
            return f"{look.names[i]} and {look.names[j]} have changed places."
    return ""


def not_a_number(numbers):
    """Where a NaN or an infinity may come from."""
    if numbers.dtype.kind == "f" and np.isnan(numbers).any():
        return "A NaN comes from 0/0, inf - inf, or the log or root of a negative number: print each step to find it."
    if numbers.dtype.kind == "f" and np.isinf(numbers).any():
        return "An infinity comes from a division by zero, log(0) or an overflow: print each step to find it."
    return ""


def each(make, table):
    """A table {sentence: part or parts} with a whole answer made of every part."""
    return {why: tuple(map(make, parts if isinstance(parts, tuple) else (parts,))) for why, parts in table.items()}


def variant(base, **methods):
    """A class like base but for these methods: the way to write down a mistake in a class."""
    return type("Variant", (base,), methods)
