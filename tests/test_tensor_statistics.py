"""The sums behind diagnose and the recorded ratios, against exact arithmetic and torch's own histogram."""

from fractions import Fraction
from math import isnan, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.diagnostics.statistics import entries, moments, statistics

NUMBERS = st.lists(st.floats(-1e3, 1e3, width=32, allow_subnormal=False), min_size=1, max_size=60)


@settings(deadline=None)
@given(NUMBERS, st.floats(-1e6, 1e6, width=32), st.sampled_from([np.float32, np.float64]))
def test_moments_are_those_of_exact_arithmetic(numbers, offset, dtype):
    x = (np.array(numbers) + offset).astype(dtype)
    exact = [Fraction(float(v)) for v in x]
    mean = sum(exact) / len(exact)
    expected = float(sum((v - mean) ** 2 for v in exact))
    got_mean, got = moments(x)
    eps, largest = float(np.finfo(dtype).eps), float(np.abs(x).max())
    assert got_mean == pytest.approx(float(mean), rel=0, abs=40 * eps * largest)
    # Whatever the mean: the error is that of the mean, squared, for every entry. The smallest squares are 0.
    error = len(x) * ((40 * eps * largest) ** 2 + float(np.finfo(dtype).tiny))
    assert got == pytest.approx(expected, rel=100 * eps, abs=error)
    assert (got == 0) == (len(set(x.tolist())) == 1) or expected < error


def test_a_small_spread_around_a_large_mean_keeps_its_digits():
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(1)) * 0.01 + 100
    std = x.double().std().item()
    assert sqrt(moments(x.numpy())[1] / 9_999) == pytest.approx(std, rel=1e-4)
    assert (
        x.square().mean() - x.mean() ** 2 <= 0
        or abs(  # what one pass would say
            (x.square().mean() - x.mean() ** 2).sqrt().item() / std - 1
        )
        > 0.1
    )


@pytest.mark.parametrize("value", [0.1, -3.0, 0.0, 1e-30])
def test_a_constant_has_no_spread_in_spite_of_rounding(value):
    for dtype in np.float32, np.float64:
        x = np.full(1_001, value, dtype)
        assert moments(x)[1] == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_counted_without_a_warning(bad, recwarn):
    x = np.array([1.0, bad, 2.0, -bad])
    assert statistics(x) == {"nonfinite": 2} and all(map(isnan, moments(x)))
    assert not recwarn.list


@settings(deadline=None)
@given(NUMBERS)
def test_the_histogram_is_torchs(numbers):
    x = np.array(numbers)
    density, edges = statistics(x)["histogram"]
    expected = torch.histogram(torch.from_numpy(x), 100, density=True)
    torch.testing.assert_close(edges, expected.bin_edges, rtol=1e-9, atol=1e-9)
    width = edges.diff()
    assert density.shape == (100,) and (density * width).sum().item() == pytest.approx(1)
    # A number on the edge of two bins may fall into either.
    cumulated, torchs = (density * width).cumsum(0), (expected.hist * expected.bin_edges.diff()).cumsum(0)
    span = edges[-1] - edges[0]
    on_edges = ((torch.from_numpy(x)[:, None] - edges[1:]).abs() < 1e-9 * span).sum(0)
    assert ((cumulated - torchs).abs() * len(x) < on_edges + 1e-6).all()


def test_entries_of_any_tensor():
    t = torch.arange(6.0).view(2, 3)
    for kind in t, t.bfloat16(), t.to_sparse(), t.double(), torch.nn.Parameter(t):
        assert entries(kind).tolist() == [0, 1, 2, 3, 4, 5] and entries(kind).dtype == np.float64
    assert entries(t.t().half()).tolist() == [0, 3, 1, 4, 2, 5]
    assert entries(torch.complex(t[0], t[1]).conj()).tolist() == [0, -3, 1, -4, 2, -5]
