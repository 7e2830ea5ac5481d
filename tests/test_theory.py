"""The curve of infinitely wide layers, against closed forms and against wide layers."""

import math
from itertools import pairwise

import pytest
import torch

from helpers.models import NONLINEARITIES, SEED
from helpers.widgets.network import expected_std


def test_a_tanh_network_at_five_thirds_comes_to_rest_at_point_65():
    assert expected_std(5 / 3, 60)[-1] == pytest.approx(0.6513, abs=5e-5)
    assert expected_std(5 / 3, 60, input_square=0.01)[-1] == pytest.approx(0.6513, abs=5e-5)  # wherever it starts


def test_a_tanh_network_at_gain_1_dies_out_slowly():
    stds = expected_std(1.0, 400)
    assert all(a > b for a, b in pairwise(stds))
    assert stds[-1] == pytest.approx(1 / math.sqrt(2 * 400), rel=0.05)  # q' = q - 2 q², so q = 1 / (2 layers)


def test_relu_keeps_the_mean_square_at_root_2_and_halves_it_at_1():
    # A rectified Gaussian N(0, s²) has mean square s²/2 and mean s/sqrt(2 pi).
    factor = math.sqrt(1 / 2 - 1 / (2 * math.pi))
    assert expected_std(math.sqrt(2), 5, "relu", input_square=3.0) == pytest.approx(
        [math.sqrt(6) * factor] * 5, rel=1e-5
    )
    at_1 = expected_std(1.0, 5, "relu", input_square=3.0)
    assert at_1 == pytest.approx([math.sqrt(3) * factor * math.sqrt(0.5) ** k for k in range(5)], rel=1e-5)


def test_linear_layers_multiply_by_the_gain():
    assert expected_std(1.5, 4, "linear", input_square=4.0) == pytest.approx([2 * 1.5**k for k in (1, 2, 3, 4)])


def test_batch_norm_makes_the_gain_irrelevant():
    for gain in 0.2, 1.0, 5.0:
        stds = expected_std(gain, 3, "tanh", batch_norm=True, input_square=9.0)
        assert stds == pytest.approx([0.6279] * 3, abs=1e-4)  # sqrt(E[tanh(z)²]) for a standard normal z


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("gain", [0.5, 5 / 3, 4.0])
def test_wide_layers_come_close(nonlinearity, gain):
    width, square = 2000, 2.0
    g = torch.Generator().manual_seed(SEED)
    x = torch.randn(100, width, generator=g) * math.sqrt(square)
    x *= math.sqrt(square) / x.square().mean(1, keepdim=True).sqrt()
    f = NONLINEARITIES[nonlinearity]() if NONLINEARITIES[nonlinearity] else lambda z: z
    expected = expected_std(gain, 4, nonlinearity, input_square=square)
    for std in expected:
        x = f(x @ (torch.randn(width, width, generator=g) * gain / math.sqrt(width)))
        # Over a layer's units, example by example: all examples of a layer share its weights.
        assert x.std(1).square().mean().sqrt().item() == pytest.approx(std, rel=0.04)
