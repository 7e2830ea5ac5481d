"""Is a difference real, or luck? Means over seeds, with intervals."""

from dataclasses import dataclass
from itertools import pairwise
from math import inf, sqrt
from statistics import fmean, stdev


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
    """Mean of a list of numbers, one per seed, with Student's t-interval; returns an Interval.

    It supposes that the values vary about normally, as losses over seeds do. One value alone has no spread, and an
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

    a, b: one number per seed, in the same order. What the two runs of a seed share (minibatches, the initial weights)
    moves both and drops out of the difference, so the interval is narrower than that of two separate means.
    Raises ValueError for lists of different lengths.
    """
    return mean_interval([x - y for x, y in zip(a, b, strict=True)], confidence)


def loss_log_steps(log, part="val", confidence=0.95):
    """What each stage of the loss log changed against the stage before it: {stage: Interval}, paired by seed.

    log: what `make reproduce` wrote, as a dict; part: "train" or "val". Of several intervals of 95 % one is soon
    wrong by luck, so each is made wider (Bonferroni): with this confidence all of them hold together.
    """
    values = {stage: result[part] for stage, result in log["stages"].items()}
    each = 1 - (1 - confidence) / max(1, len(values) - 1)
    return {after: paired_difference(values[after], values[before], each) for before, after in pairwise(values)}
