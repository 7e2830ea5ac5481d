"""What a check may be handed besides a right or a wrong answer: stubs, broken code, odd values; and what it must not touch."""

import math
import os
import random
import sys

import numpy as np
import torch


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


def asks_a_gap(*args):
    counts = ...
    return counts.sum()


def fills_a_tensor_with_a_gap(*args):
    return torch.tensor(...)


STUBS = [returns_ellipsis, returns_nothing, raises_not_implemented, returns_two_ellipses, has_a_gap, asks_a_gap,
         fills_a_tensor_with_a_gap, lambda *a: ..., None, ...]  # fmt: skip


class Silent(Exception):
    def __str__(self):
        raise ValueError("not even this")


class Unnamed:
    """It can be asked for nothing: not for its name, its length, its items, nor whether it is equal."""

    def __getattribute__(self, name):
        raise RuntimeError("no")

    __iter__ = __len__ = __eq__ = __bool__ = __float__ = __array__ = __repr__ = __getattribute__
    __hash__ = object.__hash__


class EvilList(list):
    def __iter__(self):
        raise SystemExit(3)


def raising(error):
    def f(*args):
        raise error

    return f


def forgets_return(*args):
    _ = [args]


def endless(*args):
    return endless(*args)


def asks_torch_for_what_it_has_not(*args):
    return torch.zeros(2, device="meta").tolist()  # NotImplementedError, of torch's own


def takes_too_many(a, b, c, d, e, f, g, h):
    return a


BROKEN = [  # code that stops, and what the verdict names
    (forgets_return, "return"), (lambda *a: print("nearly"), "Printing"), (lambda *a: 1 / 0, "ZeroDivisionError"),
    (endless, "RecursionError"), (takes_too_many, "arguments"), (asks_torch_for_what_it_has_not, "NotImplementedError"),
    (raising(SystemExit(1)), "SystemExit"), (raising(GeneratorExit()), "GeneratorExit"), (raising(Silent()), "Silent"),
    (raising(BaseException("odd")), "BaseException"), (raising(ExceptionGroup("two", [ValueError()])), "ExceptionGroup"),
]  # fmt: skip

ODD_VALUES = [
    "text", {}, [], (), [[1], [1, 2]], {1, 2}, object(), torch.zeros(0), torch.full((2, 3), math.inf), math.nan, -math.inf,
    np.array(["a"]), np.arange(4)[::-1], 10**400, torch.zeros(2, device="meta"), torch.eye(2).to_sparse(), math, int, True,
    (torch.zeros(2), torch.zeros(2)), (torch.zeros(2, 3).long(), torch.zeros(2).long()), [torch.tensor(1.0)], b"bytes",
    np.datetime64("2020-01-01"), torch.tensor(1j), (i for i in range(3)), ("text", {}), [None, None], 1 + 2j,
    (torch.zeros(2, 2), [[1], [1, 2]]), Unnamed(), EvilList([1.0]), (EvilList(), EvilList()), np.array([object()]),
]  # fmt: skip
NOT_CALLABLE = [3, "text", [math.log], torch.zeros(3), math.nan, Unnamed()]


def meddles(*args):
    """Switches all that can be switched."""
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.autograd.set_detect_anomaly(True)
    torch.set_printoptions(precision=2), np.set_printoptions(precision=2)
    np.seterr(all="raise")
    os.chdir("/")
    os.environ["LEFT_BEHIND"] = "1"
    os.environ.pop("HOME", None)
    sys.setrecursionlimit(5000)
    print("noise", file=sys.stderr)
    return random.random()


def states():
    """All that meddles switches."""
    return (
        torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2],
        torch.is_grad_enabled(), torch.get_default_dtype(), torch.empty(0).device, torch.get_num_threads(),
        torch.get_deterministic_debug_mode(), torch.is_anomaly_enabled(), repr(torch.tensor(1 / 3)), np.get_printoptions(),
        np.geterr(), os.getcwd(), dict(os.environ), sys.getrecursionlimit(),
    )  # fmt: skip
