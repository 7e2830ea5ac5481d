"""Is a difference real, or luck? Means over seeds, with intervals."""

from dataclasses import dataclass
from itertools import pairwise
from math import cos, inf, pi, sin, sqrt
from statistics import fmean, stdev

__all__ = ["Interval", "loss_log_steps", "mean_interval", "paired_difference", "t_quantile"]


@dataclass(frozen=True)
class Interval:
    """A mean over n values and the interval that holds the true one with this confidence."""

    mean: float
    low: float
    high: float
    n: int
    confidence: float = 0.95

    @property
    def is_real(self):
        """Whether the interval leaves out 0: for a difference, more than the noise of the seeds."""
        return self.low > 0 or self.high < 0

    def __str__(self):
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def mean_interval(values, confidence=0.95):
    """Mean of a list of numbers, one a seed, with Student's t-interval.

    It supposes that the values vary about normally, as losses over seeds do. One value alone has no spread:
    its interval is infinite. Raises ValueError for none.
    """
    values = [float(value) for value in values]
    if not values:
        raise ValueError("no values: give one number a seed")
    mean, n = fmean(values), len(values)
    half = t_quantile(n - 1, confidence) * stdev(values) / sqrt(n) if n > 1 else inf
    return Interval(mean, mean - half, mean + half, n, confidence)


def paired_difference(a, b, confidence=0.95):
    """How much larger a is than b, seed by seed, as an Interval; ``.is_real`` if it leaves out 0.

    a, b: one number a seed, in the same order. What the two runs of a seed share (minibatches, the draws of
    the initial weights) moves both and drops out of the difference, so the interval is narrower than that of
    two separate means. Raises ValueError for lists of different lengths.
    """
    a, b = list(a), list(b)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values and {len(b)}: a pair needs one of each, in the order of the seeds")
    return mean_interval([x - y for x, y in zip(a, b, strict=True)], confidence)


def loss_log_steps(log, part="val", confidence=0.95):
    """What each stage of the loss log changed against the stage before it: {stage: Interval}, paired by seed.

    log: what `make reproduce` wrote, as a dict; part: "train" or "val". Of several intervals of 95 % one is soon
    wrong by luck, so each is made wider (Bonferroni): with this confidence all of them hold together.
    """
    stages = log["stages"]
    each = 1 - (1 - confidence) / max(1, len(stages) - 1)
    return {
        after: paired_difference(stages[after][part], stages[before][part], each) for before, after in pairwise(stages)
    }


def t_quantile(df, confidence=0.95):
    """The t for which Student's t with df degrees of freedom lies in [-t, t] with this confidence.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    if df < 1 or not 0 < confidence < 1:
        raise ValueError(f"df is {df} and confidence {confidence}: give 1 or more, and a share between 0 and 1")
    low, high = 0.0, pi / 2  # of the angle atan(t / sqrt(df))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, df) < confidence else (low, middle)
    return sqrt(df) * sin(low) / cos(low)


def _share_within(angle, df):
    """P(|T| < sqrt(df) * tan(angle)), a finite sum for a whole number of degrees of freedom."""
    odd = df % 2
    term = total = (cos(angle) if odd else 1.0) if df > 1 else 0.0
    for k in range(2 + odd, df - 1, 2):
        term *= cos(angle) ** 2 * (k - 1) / k
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
