"""Mean, std and histogram of a tensor's entries, in plain NumPy: a look at a network takes some hundred of them."""

from math import isfinite, isnan, nan, sqrt
from typing import NamedTuple

import numpy as np
import torch

SATURATED = 0.97  # the lecture's threshold for |tanh|, where a gradient keeps 6 % of its size
BINS = 100
NUMBERS = np.arange(BINS + 1)


class Histogram(NamedTuple):
    """A density and its bins, as torch.histogram(t, 100, density=True) gives them: (100,) and (101,), float64."""

    density: torch.Tensor
    edges: torch.Tensor


def entries(tensor):
    """A tensor's entries as a vector, in float64; the two parts of complex ones are entries of their own."""
    if tensor.layout is not torch.strided:
        tensor = tensor.detach().to_dense()
    if tensor.dtype not in (torch.float32, torch.float64):
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor.detach().resolve_conj())
        tensor = tensor.detach().cpu().double()  # NumPy has no bfloat16; some accelerators have no float64
    return tensor.numpy(force=True).reshape(-1).astype(np.float64, copy=False)


def moments(x):
    """(mean, sum of (x - mean)²) of a vector, to its type's own precision; NaN where there is NaN or infinity.

    The sum, (n - 1) * std², is exactly 0 for constant data.
    """
    n, squares = len(x), float(x.dot(x))
    if not isfinite(squares):
        return nan, nan
    total = float(np.add.reduce(x))
    mean = total / n
    around_mean = squares - total * mean
    if around_mean < squares / 2:
        # The difference of two large numbers has lost its digits: once more, with the mean taken off first. The
        # computed spread of constant data may be 1e-17, and a ratio to it anything.
        deviations = x - mean
        around_mean = 0.0 if (x == x[0]).all() else float(deviations.dot(deviations))
    return mean, around_mean


def statistics(x, histogram=True):
    """What a LayerRow says of a vector: a dict of mean, std and histogram, or of nonfinite alone; {} for an empty one."""
    n = len(x)
    if not n:
        return {}
    mean, around_mean = moments(x)
    if isnan(mean):
        return {"nonfinite": int(n - np.isfinite(x).sum())}
    found = {"mean": mean, "std": sqrt(around_mean / (n - 1)) if n > 1 else None}
    if histogram:
        found["histogram"] = _histogram(x)
    return found


def tensor_statistics(tensor, histogram=True):
    """The same of a tensor; {} for None."""
    return {} if tensor is None else statistics(entries(tensor), histogram)


def layer_statistics(tensor, bounds=None, unit=None, histogram=True):
    """What a LayerRow says of what a layer put out. unit: the dimension that counts the units, if that is certain."""
    x = entries(tensor)
    found = statistics(x, histogram)
    # Nothing compares with NaN: it would count as neither.
    if found.get("nonfinite"):
        found["is_masked"] = not (np.isnan(x).any() or (x == np.inf).any())
    if not len(x) or tensor.is_complex() or (found.get("nonfinite") and np.isnan(x).any()):
        return found
    if bounds == "dies" and unit is not None and tensor.dim() > 1:
        others = tuple(d for d in range(tensor.dim()) if d != unit % tensor.dim())
        found["dead"] = float((x.reshape(tensor.shape) == 0).all(others).mean())
    elif isinstance(bounds, tuple):
        low, high = bounds
        near = np.abs(2 * x - (low + high)) > SATURATED * (high - low)
        found["saturated"] = np.count_nonzero(near) / len(x)
    return found


def ratio(part, whole):
    """part / whole; None where that is undefined."""
    quotient = part / whole if part is not None and whole else None
    return quotient if quotient is not None and isfinite(quotient) else None


def _histogram(x):
    low, high = x.min(), x.max()  # torch.histogram takes five times as long as the lines below
    width = (high - low) / BINS
    if width == 0:
        low, width = low - 0.5, 1 / BINS
    counts = np.bincount(((x - low) / width).astype(np.intp), minlength=BINS + 1)
    counts[BINS - 1] += counts[BINS:].sum()  # the highest entry belongs to the last bin
    density, edges = counts[:BINS] / (len(x) * width), low + NUMBERS * width
    return Histogram(torch.from_numpy(density), torch.from_numpy(edges))
