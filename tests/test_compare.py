"""Intervals over seeds: against printed tables, by simulation, and on data whose answer is known."""

import numpy as np
import pytest

from helpers.compare import loss_log_steps, mean_interval, paired_difference


@pytest.mark.parametrize(
    ("df", "confidence", "t"),
    [(1, 0.95, 12.706), (2, 0.95, 4.303), (4, 0.95, 2.776), (7, 0.95, 2.365), (30, 0.95, 2.042), (120, 0.95, 1.980)]
    + [(1, 0.9, 6.314), (7, 0.99, 3.499)],
)
def test_intervals_are_those_of_the_printed_tables(df, confidence, t):
    n = df + 1
    values = [k**1.5 for k in range(n)]
    half = t * np.std(values, ddof=1) / n**0.5
    interval = mean_interval(values, confidence)
    assert interval.high - interval.mean == pytest.approx(half, rel=3e-4) and interval.n == n
    assert interval.mean - interval.low == pytest.approx(half, rel=3e-4)


def test_an_interval_holds_the_true_mean_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(3.0, 0.1, size=(4000, 5))
    intervals = [mean_interval(row, 0.9) for row in draws]
    assert np.mean([i.low < 3 < i.high for i in intervals]) == pytest.approx(0.9, abs=0.015)


def test_pairing_takes_out_what_the_pairs_share():
    rng = np.random.default_rng(2)
    shared, a, b = rng.normal(0, 1, 8), rng.normal(0.1, 0.01, 8), rng.normal(0, 0.01, 8)
    difference = paired_difference(shared + a, shared + b)
    assert difference.is_real and difference.mean == pytest.approx(0.1, abs=0.02) and difference.n == 8
    assert difference.high - difference.low < 0.05 < mean_interval(shared + a).high - 0.1
    backwards = paired_difference(shared + b, shared + a)
    assert backwards.is_real and backwards.mean == -difference.mean and backwards.low == -difference.high
    assert not paired_difference(b, b[::-1]).is_real


def test_one_seed_proves_nothing_and_none_is_refused():
    alone = paired_difference([2.0], [1.0])
    assert alone.mean == 1 and not alone.is_real
    equal = paired_difference([2.0, 3.0], [1.0, 2.0])  # no spread at all
    assert equal.low == equal.high == 1 and equal.is_real
    assert str(mean_interval([1.0, 1.2])) == "+1.1000 [-0.1706, +2.3706]"
    with pytest.raises(ValueError, match="at least one data point"):
        mean_interval([])
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        paired_difference([1, 2], [1])
    for confidence in 0, 1, 95:
        with pytest.raises(ValueError, match=f"confidence is {confidence}"):
            mean_interval([1, 2], confidence)


def test_the_loss_logs_steps_hold_together():
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(400):  # five stages that do not differ: how often does any step look real?
        stages = {stage: {"val": rng.normal(2, 0.01, 6)} for stage in "abcde"}
        steps = loss_log_steps({"stages": stages})
        wrong += any(step.is_real for step in steps.values())
    assert list(steps) == list("bcde") and wrong / 400 < 0.08
    stages = {"a": {"train": [2.0, 2.1, 2.2]}, "b": {"train": [1.5, 1.6, 1.7001]}}
    (step,) = loss_log_steps({"stages": stages}, "train").values()
    assert step.is_real and step.mean == pytest.approx(-0.5, abs=1e-3) and step.confidence == 0.95
