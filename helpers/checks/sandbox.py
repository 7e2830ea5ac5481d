"""Where a learner's code runs: what it prints is kept, what it raises is told, what it switches is put back."""

import contextlib
import copy
import dis
import os
import random
import re
import sys
import sysconfig
import traceback
import warnings
from unittest import mock

import numpy as np
import torch


class Verdict(Exception):
    """Ends a look at an answer where there is nothing to compare: what is the matter, and what helps.

    Where nothing is said to help, the answer is not attempted yet.
    """

    def __init__(self, difference, misconception=None, kind=""):
        super().__init__(difference)
        self.difference, self.misconception = difference, misconception or ""
        self.status = "not attempted" if misconception is None else "wrong"
        self.kind = kind or difference  # two answers that raise the same type of error behave alike


def require(is_so, matter, hint=None):
    """A Verdict where something is not so."""
    if not is_so:
        raise Verdict(matter, hint)


def was_given(answer):
    """What a check was given, in words."""
    return f"the check was given an object of type {type(answer).__name__}"


def _directory():
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


PRINTING = vars(torch._tensor_str.PRINT_OPTS)
SETTINGS = [  # whatever code may switch and no context puts back: how to read it, how to put it back
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (lambda: str(torch.empty(0).device), lambda before: torch.set_default_device(None if before == "cpu" else before)),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (PRINTING.copy, PRINTING.update),
    (_directory, lambda before: before and os.chdir(before)),
    (sys.getrecursionlimit, sys.setrecursionlimit),
]


@contextlib.contextmanager
def sandbox(printed, dtype=torch.float32):
    """Run a block with gradients on, known seeds and this default dtype; put all SETTINGS back afterwards."""
    before = [(put_back, read()) for read, put_back in SETTINGS]
    try:
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            enter(contextlib.redirect_stdout(printed)), enter(contextlib.redirect_stderr(printed))
            enter(torch.inference_mode(False)), enter(torch.enable_grad()), enter(torch.random.fork_rng(devices=[]))
            enter(torch.autograd.set_detect_anomaly(torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()))
            enter(warnings.catch_warnings(action="ignore")), enter(np.errstate(all="ignore")), enter(np.printoptions())
            enter(mock.patch.dict(os.environ))
            torch.set_default_dtype(dtype)
            if str(torch.empty(0).device) != "cpu":
                torch.set_default_device(None)  # the inputs are there
            random.seed(0)  # the same verdict every time
            np.random.seed(0)
            torch.default_generator.manual_seed(0)
            yield
    finally:
        for put_back, value in before:
            put_back(value)


def attempt(answer, look, args=(), *, printed, signature="", dtype=torch.float32):
    """What look.trial(answer, *args) gives, as look.read reads it; or a Verdict where there is nothing to read.

    Whatever the learner's code raises is a Verdict, but for KeyboardInterrupt. args are copied: no code can spoil them.
    """
    with sandbox(printed, dtype):
        args, before, value = _copied(args, dtype), _copied(args, dtype), None
        try:
            value = look.trial(answer, *args)
            hint = "The caller still needs that input: make a new object (`x = x - 1`, not `x -= 1`)."
            require(_same(args, before), "your code changed its input in place", hint)
            require(not has_gap(value), "it still returns `...`")
            hint = " Printing a value does not return it." if printed.getvalue() else ""
            require(value is not None, "your function returned None", "Did you forget `return`?" + hint)
            return look.read(value)
        except KeyboardInterrupt:
            raise
        except Verdict as verdict:
            return verdict
        except BaseException as error:  # noqa: BLE001 - whatever a learner's code may raise, or may return
            if value is None:
                return _verdict_on(error, signature, answer)
            return Verdict(f"it returned an object of type {type(value).__name__}", "It cannot be read as a result.")


def has_gap(value):
    """Whether a `...` is still in a value, or in a list, tuple, set or dict of values."""
    parts = value.values() if type(value) is dict else value if type(value) in (list, tuple, set) else ()
    return value is ... or any(map(has_gap, parts))


def _copied(arg, dtype):
    """A copy of an argument, or of a tuple of them, with float32 tensors in the learner's default dtype."""
    if isinstance(arg, (tuple, list)):
        return type(arg)(_copied(part, dtype) for part in arg)
    if isinstance(arg, torch.Tensor):
        return arg.to(dtype, copy=True) if arg.dtype == torch.float32 else arg.clone()
    return copy.copy(arg)


def _same(a, b):
    """Whether two arguments, or lists of them, are still equal."""
    if isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    return torch.equal(a, b) if isinstance(b, torch.Tensor) else a == b


def _verdict_on(error, signature, answer):
    """The verdict on an exception: its type and message, and the learner's own line that it came through."""
    try:
        message = re.sub(r"0x[0-9a-f]+", "0x...", (str(error).splitlines() or [""])[0])[:200]
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - an error whose own text is broken
        message = ""
    if has_gap(answer) or re.search(r"'ellipsis'|(not|of|type) ellipsis", message):
        return Verdict("a `...` is left to fill in")
    kind = type(error).__name__
    library = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    foreign = ("<frozen", os.path.dirname(__file__), *library)
    if isinstance(error, NotImplementedError) and _ends_in_a_raise(error.__traceback__, foreign):
        return Verdict("it still raises NotImplementedError")
    lines = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(foreign)]
    own = lines or callable(answer)
    raised = "your code raised" if own else f"an object of type {type(answer).__name__} will not do:"
    text = f"{raised} {kind}" + (f": {message}" if message else "")
    if lines:
        text += f", in line {lines[-1].lineno}" + (f": `{lines[-1].line}`" if lines[-1].line else "")
    elif isinstance(error, TypeError) and re.search("(takes|missing|multiple|unexpected) .*argument", message):
        called = f"The check calls `{signature}`: does" if "(" in signature else "Does"
        return Verdict(text, f"{called} your definition take these arguments?", kind=kind)
    return Verdict(text, "The code stops before there is a result to compare: mend this error first.", kind=kind)


def _ends_in_a_raise(trace, foreign):
    """Whether an exception was raised by a `raise` of the learner's own, and not by torch."""
    while trace.tb_next:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return not code.co_filename.startswith(foreign) and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
