"""What a check may be handed besides a right or a wrong answer: stubs, broken code, odd values; and what it must not touch."""

import math
import random

import numpy as np
import torch

from helpers.checks.engine import judge


def returns_ellipsis(*args):
    """A docstring does not count as work."""
    return ...


def returns_nothing(*args):
    pass


def raises_not_implemented(*args):
    raise NotImplementedError("to do")


def returns_two_ellipses(*args):
    X, Y = ..., ...
    return X, Y


def has_a_gap(*args):
    total = ...
    return total / 2


STUBS = [returns_ellipsis, returns_nothing, raises_not_implemented, returns_two_ellipses, has_a_gap, lambda *a: ...]


def forgets_return(*args):
    _ = [args]


def only_prints(*args):
    print("nearly", len(args))


def divides_by_zero(*args):
    return 1 / 0


def exits(*args):
    raise SystemExit(1)


def endless(*args):
    return endless(*args)


def takes_too_many(a, b, c, d, e, f, g, h):
    return a


BROKEN = [
    (forgets_return, "Did you forget `return`?"),
    (only_prints, "Printing a value does not return it"),
    (divides_by_zero, "ZeroDivisionError: division by zero, in line"),
    (exits, "SystemExit"),
    (endless, "RecursionError"),
    (takes_too_many, "does your definition take these arguments"),
]

ODD_VALUES = [
    "text", {}, [], (), [[1], [1, 2]], {1, 2}, object(), torch.zeros(0), torch.full((2, 3), math.inf), math.nan, -math.inf,
    np.array(["a"]), np.arange(4)[::-1], 10**400, torch.zeros(2, device="meta"), torch.eye(2).to_sparse(), math, int, True,
    (torch.zeros(2), torch.zeros(2)), (torch.zeros(2, 3).long(), torch.zeros(2).long()), [torch.tensor(1.0)], b"bytes",
    np.datetime64("2020-01-01"), torch.tensor(1j), (i for i in range(3)), ("text", {}), [None, None],
    (torch.zeros(2, 2), [[1], [1, 2]]),
]  # fmt: skip
ODD_IDS = [type(value).__name__ + str(i) for i, value in enumerate(ODD_VALUES)]

NOT_CALLABLE = [3, "text", [math.log], torch.zeros(3), math.nan]


def meddles(*args):
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    return torch.randn(1), random.random(), np.random.rand()


def states():
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2],
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
    )


def listed_mistakes(check, monkeypatch):
    """The mistakes that a check hands to judge, pairs of a sentence and a wrong function."""
    lists = []

    def spy(answer, parameters, cases, right, mistakes, look, **options):
        lists.append(mistakes)
        return judge(answer, parameters, cases, right, mistakes, look, **options)

    with monkeypatch.context() as patch:
        patch.setitem(check.__globals__, "judge", spy)
        check(lambda *args: 0)
    [mistakes] = lists
    return mistakes
