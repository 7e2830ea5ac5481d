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

RELATIONS = {  # what yours is: of the expected numbers
    "minus the expected result: is a sign wrong?": np.negative,
    "to base 2: take the natural log.": lambda v: v / math.log(2),
    "to base 10: take the natural log.": lambda v: v / math.log(10),
    "one over the expected result: it is upside down.": np.reciprocal,
    "the square of the expected result: is a root missing?": np.square,
    "the root of the expected result: is there a root too many?": np.sqrt,
    "1 minus the expected result: it is the wrong way round.": lambda v: 1 - v,
    "the log of the expected result.": np.log,
    "exp of the expected result: is a log missing?": np.exp,
}
NEAR = "within 2 % everywhere: is it rounded, cut off early, an average of too few, or is a small number left out?"


def observed(look, label, rows, run, right):
    """What can be seen of a part of an answer from outside, as a sentence; "" where it is nothing simple.

    rows: (args, the right array, the answer's) for every input; run, right: give the outcome of either for args.
    """
    pairs = [(want, have) for _, want, have in rows]
    if any(want.dtype != have.dtype for want, have in pairs):
        return "A comparison gives truth values, all else gives numbers: return what is asked for."

    if label.endswith(".grad") and not any(have.any() for _, have in pairs):
        return "Nothing arrives there: is it never used, or cut off by .data, .detach(), .item() or no_grad?"

    def like(outcome, array):
        return not isinstance(outcome, Verdict) and same({label: array}, outcome, look.tolerance, label)

    told = "" if look.call else _never_used(look, label, rows, run, right, like) or _exchanged(look, rows, right, like)
    return told or _relation(pairs, *relative(look.tolerance))


def _relation(pairs, share, absolute):
    """What the given arrays are to the wanted ones, in pairs (wanted, given)."""
    alike, close = partial(same, tolerance=(share, absolute)), partial(np.allclose, rtol=share, atol=absolute)
    if all(alike({"": want.ravel()}, {"": have.ravel()}) for want, have in pairs):
        return "The numbers are right, in another shape: reshape them."
    if all(alike({"": want.T}, {"": have}) for want, have in pairs):
        return "The numbers are right, but rows and columns have changed places."
    if any(a.shape != b.shape or a.dtype == bool for a, b in pairs):
        return ""
    want, have = (np.concatenate([array.ravel() for array in arrays]) for arrays in zip(*pairs, strict=True))
    with np.errstate(all="ignore"):
        if words := next((words for words, change in RELATIONS.items() if close(have, change(want))), ""):
            return f"Yours is {words}"
        factor, more = (have / want)[np.abs(want).argmax()], (have - want)[0]
        several, clear = len(np.unique(want)) > 1, max(10 * share, 1e-3)  # a factor closer to 1 is no factor
        if several and math.inf > abs(factor) > 1e-9 and abs(factor - 1) > clear and close(have, factor * want):
            return f"Yours is always {factor:.4g} times the expected result: a factor is missing or too many."
        if several and math.inf > abs(more) > clear * np.abs(want).max() and close(have, want + more):
            return f"Yours is always {abs(more):.4g} {'more' if more > 0 else 'less'} than expected."
        if any(np.array_equal(have, np.round(want, digits)) for digits in range(7)):
            return "Yours is the expected result, rounded: return it as it is."
        return f"Yours is {NEAR}" if np.allclose(have, want, rtol=0.02, atol=0) else ""


def _other(arg):
    """Another argument of the same kind, bent so that nothing linear undoes it; None where there is none."""
    if isinstance(arg, (int, float)):
        return arg + 1 if isinstance(arg, int) else 1.5 * arg + 0.1
    if isinstance(arg, list):
        return [_other(part) for part in arg]
    if callable(arg) and not isinstance(arg, torch.Tensor):
        return lambda x: 0.5 * arg(x) + 0.05 * x
    return 0.5 * arg + 0.05 * arg**2 if isinstance(arg, torch.Tensor) and arg.is_floating_point() else None


def _never_used(look, label, rows, run, right, like):
    """The parameters whose change changes the right answer and never the learner's."""
    idle = []
    for i, name in enumerate(look.names[: len(rows[0][0])]):
        changed = [((*args[:i], _other(args[i]), *args[i + 1 :]), want, have) for args, want, have in rows]
        if all(args[i] is not None for args, _, _ in changed):
            is_idle = all(like(run(args), have) for args, _, have in changed)
            if is_idle and not all(like(right(args), want) for args, want, _ in changed):
                idle.append(name)
    return f"Your {label} stays the same when {' or '.join(idle)} changes: where is it used?" if idle else ""


def _exchanged(look, rows, right, like):
    """Two parameters that have changed places."""
    for i, j in combinations(range(len(rows[0][0])), 2):
        order = list(range(len(rows[0][0])))
        order[i], order[j] = j, i
        if all(like(right(tuple(args[k] for k in order)), have) for args, _, have in rows):
            return f"{look.names[i]} and {look.names[j]} have changed places."
    return ""


def not_a_number(numbers):
    """Where a NaN or an infinity may come from."""
    if np.isnan(numbers).any():
        return "A NaN comes from 0/0, 0 * inf, inf - inf, or the log or root of a negative number: print each step."
    infinity = "An infinity comes from a division by zero, log(0) or an overflow: print each step to find it."
    return infinity if np.isinf(numbers).any() else ""


def each(make, table):
    """A table {sentence: part or parts} with a whole answer made of every part."""
    return {why: tuple(map(make, parts if isinstance(parts, tuple) else (parts,))) for why, parts in table.items()}


def variant(base, **methods):
    """A class like base but for these methods: the way to write down a mistake in a class."""
    return type("Variant", (base,), methods)
