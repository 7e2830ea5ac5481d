"""What an answer returned, read as labelled arrays, compared with what it should be, and put into words."""

from collections.abc import Iterator

import numpy as np
import torch

from helpers.checks.sandbox import Verdict, require


def to_array(value, label="result"):
    """float64, or bool, from anything made of numbers: tensors, arrays, numbers, and lists of them."""
    if isinstance(value, (list, tuple)):
        return np.array([to_array(part, label) for part in value])
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().resolve_conj().resolve_neg()
        value = (value.double() if value.is_floating_point() else value).numpy()
    elif hasattr(value, "__float__") and not isinstance(value, (bool, np.ndarray, np.generic)):
        value = float(value)
    array = np.asarray(value)
    hint = "Only real numbers belong here: is a negative number rooted?"
    require(array.dtype.kind != "c", f"{label} is complex", hint)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"no numbers: {array.dtype}")
    return array if array.dtype == bool else array.astype(float)


def numbers(value, matter, hint):
    """What to_array makes of a value; a Verdict, what is the matter and what helps, where it is made of no numbers."""
    try:
        return to_array(list(value) if isinstance(value, Iterator) else value)
    except (TypeError, ValueError):
        raise Verdict(matter, hint) from None


def as_array(value):
    """The reader of numbers or truth values; a single one may come in a list, an array or a tensor."""
    array = to_array(value)
    return {"result": array.reshape(()) if array.size == 1 else array}


def as_parts(*labels):
    """The reader of a tuple, one part per label; a bias may have shape (1, n) or (n,)."""

    def read(values):
        is_row = isinstance(values, (tuple, list))
        kind = f"{len(values)} things" if is_row else type(values).__name__
        hint = f"Return {len(labels)} results in this order: `return {', '.join(labels)}`."
        require(is_row and len(values) == len(labels), f"it returned {kind}", hint)
        parts = {label: to_array(part, label) for label, part in zip(labels, values, strict=True)}
        rows = [label for label, part in parts.items() if label.startswith("b") and part.ndim == 2 and len(part) == 1]
        return parts | {label: parts[label][0] for label in rows}

    return read


def relative(tolerance):
    """A tolerance as a pair (relative, absolute): of a number alone, a tenth is the absolute part."""
    return tolerance if isinstance(tolerance, tuple) else (tolerance, tolerance / 10)


def first_difference(wanted, given, tolerance):
    """None where two readings agree, else (label, index): the first entry that differs, None for another shape."""
    for label, want in wanted.items():
        have = given[label]
        if want.shape != have.shape or want.dtype != have.dtype:
            return label, None
        with np.errstate(all="ignore"):
            alike = np.isclose(have, want, *relative(tolerance), equal_nan=True)
        if not alike.all():
            return label, tuple(int(i) for i in np.argwhere(~alike)[0])
    return None


def same(a, b, tolerance, label=None):
    """Whether two outcomes are alike, or one part of them: two readings that agree, or two Verdicts of one kind."""
    if isinstance(a, Verdict) or isinstance(b, Verdict):
        return getattr(a, "kind", a) == getattr(b, "kind", b)
    a, b = ({label: reading[label]} if label else reading for reading in (a, b))
    return first_difference(a, b, tolerance) is None


def difference_in_words(wanted, given, label, index):
    """A difference as a learner reads it."""
    want, have = wanted[label], given[label]
    if index is None:
        kinds = [("truth value" if array.dtype == bool else "number", array.shape) for array in (want, have)]
        words = [f"one {kind}" if shape == () else f"{kind}s of shape {shape}" for kind, shape in kinds]
        return "{}: expected {}, yours: {}".format(label, *words)
    a, b = want[index], have[index]
    if a.dtype != bool:  # more digits where four do not tell them apart
        a, b = a + 0.0, b + 0.0  # -0.0 is 0
        digits = next((n for n in (4, 9) if f"{a:.{n}g}" != f"{b:.{n}g}"), 17)
        a, b = f"{a:.{digits}g}", f"{b:.{digits}g}"
    return f"{label}{list(index) if index else ''}: expected {a}, yours is {b}"


def size(arg):
    """How many numbers or letters an argument has: of two inputs, the smaller is easier to work out by hand."""
    if isinstance(arg, (list, tuple)):
        return sum(map(size, arg))
    return arg.numel() if isinstance(arg, torch.Tensor) else len(arg) if isinstance(arg, str) else 1


def input_in_words(name, parameters, args, call=""):
    """The input tried: small tensors in full, of large ones the shape. call: what is no plain call of the answer."""
    shown, details = [], []
    for parameter, arg in zip(parameters, args, strict=False):
        text = f"{arg:.4g}" if isinstance(arg, float) else getattr(arg, "__name__", str(arg))
        if isinstance(arg, torch.Tensor):
            rounded = arg.double().round(decimals=4) if arg.is_floating_point() else arg
            text = str(rounded.tolist()) if arg.numel() <= 24 else parameter
        if isinstance(arg, list) and isinstance(arg[0], torch.Tensor):
            text = parameter
            details.append(f"{parameter} of shapes {', '.join(str(tuple(part.shape)) for part in arg)}")
        elif text == parameter:
            details.append(f"{parameter} of shape {tuple(arg.shape)}")
        elif call:
            details.append(f"{parameter} = {text}")
        shown.append(text)
    return ", ".join([call or f"{name}({', '.join(shown)})", *details])
