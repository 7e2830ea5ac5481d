"""Chapter 09: its checks, what it writes inline against the helpers, its panel's sentences, the script of its map."""

from itertools import pairwise

import pytest
import torch

from helpers.checks.chapter_09 import eight_layers
from helpers.diagnostics import diagnose
from helpers.models import deep_mlp
from helpers.widgets.network import expected_std, read_network


def test_the_faulty_layer_can_be_found_as_the_hint_says():
    net, x, y = eight_layers()
    looked = diagnose(net, x, y)
    stds = [g.std for g, a in zip(looked.gradients, looked.activations, strict=True) if a.is_activation]
    ratios = [lower / upper for lower, upper in pairwise(stds)]
    assert ratios.index(min(ratios)) == 3 and min(ratios) < 0.7 * sorted(ratios)[1]  # from h5 back to h4
    saturated = [a.saturated for a in looked.activations if a.is_activation]
    assert saturated[4] > 0.5 and max(saturated[:4] + saturated[5:]) < 0.2


def test_the_chapters_gradients_equal_diagnose(chapter):
    model, g = deep_mlp(gain=3, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    case = model, torch.randint(0, 27, (64, 3), generator=g), torch.randint(0, 27, (64,), generator=g)
    rows = [row for row in diagnose(*case).gradients if row.is_activation]
    for row, t in zip(rows, chapter["tanh_gradients"](*case), strict=True):
        assert row.shape == t.shape and t.std().item() == pytest.approx(row.std, rel=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_the_chapters_averages(chapter):
    s = torch.tensor(1.0)
    for std in expected_std(5 / 3, 5):
        s = chapter["next_rms"](s, 5 / 3)
        assert s.item() == pytest.approx(std, abs=1e-4)
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    by_sampling = 4 * ((1 - torch.tanh(2 * 0.7 * z) ** 2) ** 2).mean()
    assert chapter["chi"](0.7, 2).item() == pytest.approx(by_sampling.item(), rel=5e-3)
    assert chapter["first_over_last"](torch.tensor([1.0, 3.0]), 20).tolist() == pytest.approx([0.278, 357], rel=0.01)


def test_what_the_chapter_says_of_its_panel():
    def first_over_last(**setting):
        rows = read_network(**setting).gradients
        return rows[0].std / rows[-1].std

    assert first_over_last(depth=21) > 4.5
    near = read_network(depth=21, init_gain=7 / 6)
    assert first_over_last(depth=21, init_gain=7 / 6) == pytest.approx(1, abs=0.1)
    assert near.activations[-1].std == pytest.approx(0.4, abs=0.03)
    for depth, low, high in (6, 1.4, 2), (21, 8, 13):
        ratios = [first_over_last(depth=depth, batch_norm=True, init_gain=gain) for gain in (0.5, 3)]
        assert low < ratios[0] < high and ratios[1] == pytest.approx(ratios[0], rel=0.01)
