"""How every check judges: run the learner's code, read what it returns, compare, name the mistake.

The exercises stand in helpers.checks. Each is data: the inputs to try, the right function, and the usual
mistakes, pairs of a sentence and the wrong function that it describes. An answer that equals a wrong function on
every input names its own misconception. No learner's mistake ends in a traceback of ours.
"""

import contextlib
import copy
import dis
import html
import io
import itertools
import os
import random
import re
import sysconfig
import traceback
import warnings
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import torch


@dataclass(frozen=True, repr=False)
class CheckResult:
    """The verdict on an answer: truthy when right, and its own display in Jupyter or a terminal.

    status is "right", "wrong" or "not attempted"; the other fields are text, empty where nothing is to be said.
    """

    status: str
    tried: str
    difference: str = ""
    misconception: str = ""
    look: str = ""
    note: str = ""

    def __bool__(self):
        return self.status == "right"

    def _rows(self):
        rows = [(self.status.capitalize(), self.tried), ("Difference", self.difference)]
        rows += [("Likely", self.misconception), ("Look at", self.look), ("Note", self.note)]
        return [(label, text) for label, text in rows if text]

    def __repr__(self):
        return "\n  ".join(f"{label}: {text}" for label, text in self._rows())

    def _repr_html_(self):
        def marked(text):
            text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
            return re.sub(r"https://[\w./?=-]+\w", r'<a href="\g<0>">\g<0></a>', text)

        # Safe for colour-blind eyes.
        colour = {"right": "#0072b2", "wrong": "#d55e00"}.get(self.status, "#888888")
        rows = "<br>".join(f"<b>{label}:</b> {marked(text)}" for label, text in self._rows())
        return f'<div style="border-left: 4px solid {colour}; padding-left: 0.8em">{rows}</div>'


class Verdict(Exception):
    """Ends a check early, where there is nothing to compare."""

    def __init__(self, difference, misconception="", status="wrong"):
        super().__init__(difference)
        self.difference, self.misconception, self.status = difference, misconception, status


def is_empty(function):
    """Whether a function's body does nothing but pass, or return None or `...`."""
    code = getattr(function, "__code__", None)
    steps = list(dis.get_instructions(code)) if code else []
    idle = {"RESUME", "NOP", "COPY_FREE_VARS", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}
    returned = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    does_nothing = {step.opname for step in steps} <= idle and all(c is None or c is ... for c in returned)
    return bool(steps) and does_nothing


@contextlib.contextmanager
def _sandbox(printed):
    """Let code print, warn, draw random numbers, switch gradients off: nothing of it stays."""
    python, numpy, dtype = random.getstate(), np.random.get_state(), torch.get_default_dtype()
    try:
        with contextlib.ExitStack() as stack:
            gradients = (torch.inference_mode(False), torch.enable_grad())
            quiet = (contextlib.redirect_stdout(printed), warnings.catch_warnings(action="ignore"))
            for context in (torch.random.fork_rng(devices=[]), *gradients, *quiet):
                stack.enter_context(context)
            random.seed(0)  # the same verdict every time
            np.random.seed(0)
            torch.default_generator.manual_seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_default_dtype(dtype)


def _from_error(error, signature):
    """The verdict on an exception: its type and message, and the learner's own line that it came through."""
    if isinstance(error, NotImplementedError):
        return Verdict("it still raises NotImplementedError", status="not attempted")
    if isinstance(error, TypeError) and "ellipsis" in str(error):
        return Verdict("a `...` is left to fill in", status="not attempted")
    library = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    foreign = ("<frozen", os.path.dirname(__file__), *library)
    lines = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(foreign)]
    message = re.sub(r"0x[0-9a-f]+", "0x...", (str(error).splitlines() or [""])[0])[:200]
    text = f"your code raised {type(error).__name__}: {message}"
    if lines:
        text += f", in line {lines[-1].lineno}" + (f": `{lines[-1].line}`" if lines[-1].line else "")
    elif isinstance(error, TypeError):
        return Verdict(text, f"The check calls `{signature}`: does your definition take these arguments?")
    return Verdict(text, "The code stops before there is a result to compare: mend this error first.")


def _same(a, b):
    """Whether two arguments, or lists of them, are still equal."""
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def _run(answer, args, signature, read, printed):
    """What the answer gives for copies of args, read; a Verdict where there is nothing to compare."""
    args, before = copy.deepcopy(args), copy.deepcopy(args)
    with _sandbox(printed):
        try:
            value = answer(*args)
        except Verdict:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a learner's code may raise
            raise _from_error(error, signature) from None
        if not _same(args, before):
            hint = "The caller still needs that input: make a new object (`x = x - 1`, not `x -= 1`)."
            raise Verdict("your code changed its input in place", hint)
        if any(v is ... for v in (value if isinstance(value, (tuple, list)) else [value])):
            raise Verdict("it still returns `...`", status="not attempted")
        if value is None:
            hint = " Printing a value does not return it." if printed.getvalue() else ""
            raise Verdict("your function returned None", "Did you forget `return`?" + hint)
        try:
            return read(value)
        except Verdict:
            raise
        except Exception:  # noqa: BLE001 - whatever it may return: a dict, a ragged list, a generator
            kind = type(value).__name__
            raise Verdict(f"it returned an object of type {kind}", "It cannot be read as a result.") from None


def as_array(value, label="result"):
    """A reader: [(label, array)] from anything made of numbers: a tensor, a numpy array, a list, a number."""
    # torch rounds a Python float to its default dtype, and refuses an array with negative strides.
    value = float(value) if isinstance(value, Real) and not isinstance(value, bool) else value
    value = np.array(value) if isinstance(value, (float, np.ndarray)) else value
    tensor = torch.as_tensor(value).detach().cpu()
    if isinstance(value, (list, tuple)) and tensor.is_floating_point():
        tensor = torch.as_tensor(value, dtype=torch.float64)  # of Python floats it makes torch.float32
    if tensor.is_complex():
        raise Verdict(f"{label} is complex", "Only real numbers belong here: is a negative number rooted?")
    return [(label, (tensor if tensor.dtype == torch.bool else tensor.double()).numpy())]


def as_number(value):
    """A reader for one number: of Python, numpy, or a tensor of one element."""
    [(label, array)] = as_array(value)
    if array.dtype == bool:
        raise Verdict("it returned a truth value", "Return the number itself, not a comparison.")
    return [(label, array.reshape(()) if array.size == 1 else array)]


def as_bools(value):
    """A reader for truth values; numbers are kept apart from them, whatever their values."""
    [(label, array)] = as_array(value)
    return [(label, array), ("dtype", np.array("bool" if array.dtype == bool else "numbers"))]


def as_tensors(*labels):
    """The reader for one torch tensor, or for a tuple of them, one a label."""

    def read(value):
        parts = list(zip(labels, value if len(labels) > 1 else [value], strict=True))
        for label, part in parts:
            if not isinstance(part, torch.Tensor):
                kind = type(part).__name__
                raise Verdict(f"{label} is of type {kind}", "Only torch tensors carry gradients: return one.")
        return [as_array(part, label)[0] for label, part in parts]

    return read


def as_parts(*labels):
    """A reader for a tuple of things made of numbers, one a label."""

    def read(value):
        names = ", ".join(labels)
        if not isinstance(value, (tuple, list)) or len(value) != len(labels):
            kind = f"{len(value)} things" if isinstance(value, (tuple, list)) else type(value).__name__
            raise Verdict(f"it returned {kind}", f"Return {len(labels)} results in this order: `return {names}`.")
        return [as_array(part, label)[0] for label, part in zip(labels, value, strict=True)]

    return read


def _difference(wanted, given, tolerance, *, reveal=True):
    """None where two readings agree, else (text, column) of the first difference.

    column: (j, n), the index in the last dimension and that dimension's size; () where there is none.
    """
    relative, absolute = tolerance if isinstance(tolerance, tuple) else (tolerance, tolerance / 10)
    for (label, want), (_, have) in zip(wanted, given, strict=True):
        if want.shape != have.shape:
            return f"{label} has shape {have.shape}, expected {want.shape}", ()
        text = want.dtype.kind == "U"
        same = want == have if text else np.isclose(have, want, relative, absolute, equal_nan=True)
        if not np.all(same):
            index = tuple(int(i) for i in np.argwhere(~np.asarray(same))[0])
            a, b = want[index], have[index]
            if "f" == a.dtype.kind == b.dtype.kind:  # more digits where four do not tell them apart
                digits = 4 if f"{a:.4g}" != f"{b:.4g}" else 9
                a, b = f"{a:.{digits}g}", f"{b:.{digits}g}"
            expected = f"expected {a}, yours is {b}" if reveal else f"yours, {b}, is not right"
            return f"{label}{list(index) if index else ''}: {expected}", index and (index[-1], want.shape[-1])
    return None


def _values(tensor):
    values = [float(f"{v:.4g}") for v in tensor.tolist()] if tensor.is_floating_point() else tensor.tolist()
    return str(values) if len(values) <= 8 else f"{len(values)} values from {min(values)} to {max(values)}"


def _tried(name, parameters, args, call, column=()):
    """The call in words: short inputs in full, of a matrix the column in which the answer first differs."""
    shown, details = [], ""
    for parameter, arg in zip(parameters.split(", "), args, strict=False):
        text = f"{arg:.4g}" if isinstance(arg, float) else str(arg)
        if isinstance(arg, dict):
            text = parameter
        elif isinstance(arg, list) and isinstance(arg[0], torch.Tensor):
            text = parameter
            details += f", {parameter} of shapes {', '.join(str(tuple(part.shape)) for part in arg)}"
        elif isinstance(arg, torch.Tensor):
            fits = column and arg.shape[-1] == column[1]
            text = _values(arg) if arg.dim() == 1 else parameter
            details += f", {parameter} of shape {tuple(arg.shape)}" if arg.dim() > 1 else ""
            if fits and arg.dim() == 2:
                details += f" with {parameter}[:, {column[0]}] = {_values(arg[:, column[0]])}"
            elif fits and arg.dim() == 1 and call:
                details += f", {parameter}[{column[0]}] = {arg[column[0]]:.4g}"
        shown.append(text)
    return (call or f"{name}({', '.join(shown)})") + details


def not_attempted(call, reason):
    """The CheckResult for a stub."""
    text = f"`{call}`: {reason}. Fill it in, run its cell, then run this one again."
    return CheckResult("not attempted", text)


def judge(answer, parameters, cases, right, mistakes, look, *, read=as_number, tolerance=1e-5, call=None, reveal=True):
    """The CheckResult for a callable: right where it reads like `right` on every case (a tuple of arguments).

    parameters: their names, for display; call: how to display what is not simply a call of the answer.
    mistakes: pairs of a sentence and a wrong function, the likeliest first.
    read: turns a returned value into [(label, array)], or raises a Verdict.
    tolerance: relative, with a tenth of it absolute; or a pair (relative, absolute).
    reveal: whether a wrong answer is shown the right one, which a guess out of a few should not be.
    """
    name = str(getattr(answer, "__name__", "f")).replace("<lambda>", "f")
    signature = call or f"{name}({parameters})"
    if answer is None or answer is ... or is_empty(answer):
        return not_attempted(signature, "it is still empty")
    if not callable(answer):
        given = f"the check was given an object of type {type(answer).__name__}"
        return CheckResult("wrong", signature, given, "Pass its name alone, without calling it.", look)

    printed, given, found = io.StringIO(), [], None
    with _sandbox(io.StringIO()):
        for args in cases:
            try:
                given.append(_run(answer, args, signature, read, printed))
            except Verdict as v:
                if v.status == "not attempted":
                    return not_attempted(signature, v.difference)
                if found is None:
                    tried = _tried(name, parameters, args, call)
                    found = CheckResult("wrong", tried, v.difference, v.misconception, look)
                break
            differs = _difference(read(right(*args)), given[-1], tolerance, reveal=reveal)
            if differs and found is None:
                text, column = differs
                found = CheckResult("wrong", _tried(name, parameters, args, call, column), text, "", look)
        if found is None:
            found = CheckResult("right", f"{signature} gives what it should on every input tried")
        elif not found.misconception:
            found = replace(found, misconception=_likely(mistakes, cases, given, read, tolerance))
    note = " / ".join(printed.getvalue().split("\n")).strip(" /")[:200]
    return replace(found, note=f"your code printed {note}" if note else "")


def combined(compose, *tables):
    """Mistakes that may come together: every combination of one entry a table, those with a single mistake first.

    tables: pairs of a sentence and a part, the right part with an empty sentence; compose: makes the function of
    the parts. Returns (the right function, mistakes).
    """
    made = []
    for entries in itertools.product(*tables):
        sentences = [sentence for sentence, _ in entries if sentence]
        made.append((len(sentences), " ".join(sentences), compose(*(part for _, part in entries))))
    (_, _, right), *wrong = sorted(made, key=lambda entry: entry[0])
    return right, [(sentence, function) for _, sentence, function in wrong]


def _likely(mistakes, cases, given, read, tolerance):
    """The sentence of the first wrong function that agrees with all that was given, or what else can be said."""
    for sentence, wrong in mistakes:
        answered = zip(cases, given, strict=False)  # an exception leaves the last cases without an answer
        # A wrong function that cannot take an input which the learner's code took is not what the learner did.
        with contextlib.suppress(Exception):
            if not any(_difference(read(wrong(*args)), reading, tolerance) for args, reading in answered):
                return sentence
    arrays = [array.ravel() for reading in given for _, array in reading if array.dtype.kind == "f"]
    numbers = np.concatenate(arrays or [[]])
    if np.isnan(numbers).any():
        return "A NaN comes from 0/0, inf - inf, or the log or root of a negative number: print each step to find it."
    if np.isinf(numbers).any():
        return "An infinity comes from a division by zero, log(0) or an overflow: print each step to find it."
    if len(given) > 1 and not any(_difference(given[0], reading, tolerance) for reading in given[1:]):
        return "The answer is the same for every input: is each argument used?"
    return "None of the usual mistakes: work this input out by hand, step by step, beside your code."


def seeded_randn(*shape, seed, dtype=torch.float32):
    """Normal numbers to try a function on: always the same, and short enough to be worked with by hand."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).round(decimals=2)


def lecture_at(hint, seconds):
    """Where to look: a place in the notebooks, and the second in the lecture."""
    minutes, time = seconds // 60, f"{seconds // 60 % 60}:{seconds % 60:02}"
    time = f"{minutes // 60}:{time:0>5}" if minutes >= 60 else time
    return f"{hint}; the lecture at {time}, https://youtu.be/P6sfmUTpUmc?t={seconds}"
