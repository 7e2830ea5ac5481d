"""Is a difference real, or luck? Means over seeds, with intervals."""

from dataclasses import dataclass
from itertools import pairwise
from math import inf, sqrt
from statistics import fmean, stdev


@dataclass(frozen=True)
class Interval:
    """The mean of n values, and an interval (low, high) that contains the true mean with this confidence."""

    mean: float
    low: float
    high: float
    n: int
    confidence: float = 0.95

    @property
    def is_real(self):
        """Whether 0 is outside the interval: a difference is then more than the noise of the seeds."""
        return self.low > 0 or self.high < 0

    def __str__(self):
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def mean_interval(values, confidence=0.95):
    """Mean of a list of numbers, one per seed, with Student's t-interval; returns an Interval.

    It assumes that the values are about normally distributed, as losses over seeds are. A single value gives an
    infinite interval. Raises ValueError for no values and for a confidence that is not between 0 and 1.
    """
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats would take half a second to import

    values = [float(value) for value in values]
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: give a share between 0 and 1, such as 0.95")
    mean, n = fmean(values), len(values)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * stdev(values) / sqrt(n) if n > 1 else inf
    return Interval(mean, mean - half, mean + half, n, confidence)


def paired_difference(a, b, confidence=0.95):
    """How much larger a is than b, seed by seed, as an Interval; ``.is_real`` if it leaves out 0.

    a, b: one number per seed, in the same order. The two runs of a seed share their minibatches or initial weights. A
    lucky seed helps both, which cancels in the difference: the interval is narrower than that of two separate means.
    Raises ValueError for lists of different lengths.
    """
    return mean_interval([x - y for x, y in zip(a, b, strict=True)], confidence)


def loss_log_steps(log, part="val", confidence=0.95):
    """What each stage of the loss log changed against the stage before it: {stage: Interval}, paired by seed.

    log: what `make reproduce` wrote, as a dict; part: "train" or "val". The more intervals of 95 %, the more often one
    of them is wrong by luck. So each is made wider (Bonferroni): all of them together hold with this confidence.
    """
    values = {stage: result[part] for stage, result in log["stages"].items()}
    each = 1 - (1 - confidence) / max(1, len(values) - 1)
    return {after: paired_difference(values[after], values[before], each) for before, after in pairwise(values)}
