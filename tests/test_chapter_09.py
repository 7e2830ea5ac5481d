"""What chapter 09 writes inline against the helpers that it then uses."""

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgba

from helpers.diagnostics import diagnose
from helpers.models import deep_mlp
from helpers.plots import plot_gradients
from helpers.widgets.network import read_network
from notebook_cells import definitions


@pytest.fixture(scope="module")
def chapter():
    return definitions("09_gradient_statistics")


@pytest.fixture
def case():
    """A network whose gradients differ from layer to layer, and a batch."""
    model = deep_mlp(gain=3, generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    return model, torch.randint(0, 27, (64, 3), generator=g), torch.randint(0, 27, (64,), generator=g)


def test_the_chapters_gradients_equal_diagnose(chapter, case):
    gradients = chapter["tanh_gradients"](*case)
    rows = [row for row in diagnose(*case).gradients if row.is_activation]
    assert [row.name for row in rows] == list(gradients)
    for row, t in zip(rows, gradients.values(), strict=True):
        assert row.shape == t.shape
        assert t.std().item() == pytest.approx(row.std, rel=1e-5)
        assert t.mean().item() == pytest.approx(row.mean, rel=1e-3, abs=1e-8)
    assert all(p.grad is None for p in case[0].parameters())


def test_the_chapters_plot_draws_what_plot_gradients_draws(chapter, case):
    fig, (inline, helper) = plt.subplots(1, 2)
    chapter["draw_gradients"](chapter["tanh_gradients"](*case), inline)
    plot_gradients(diagnose(*case), ax=helper)
    labels = [text.get_text() for text in helper.get_legend().get_texts()]
    for line, outline, label in zip(inline.lines, helper.lines, labels, strict=True):
        # An outline goes up and down at each edge: two points per edge.
        edges, density = (outline.get_xdata()[::2], outline.get_ydata()[1:-1:2])
        # An entry on an edge may fall to either side, as the helper counts in float64.
        assert abs(line.get_ydata() - density).mean() < 0.01 * density.max()
        assert line.get_xdata() == pytest.approx((edges[1:] + edges[:-1]) / 2, abs=1e-7)
        assert to_rgba(line.get_color()) == to_rgba(outline.get_color())
        assert line.get_label().replace("e-0", "e-") == label
    assert inline.get_xlim() == pytest.approx(helper.get_xlim(), rel=1e-5)
    plt.close(fig)


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
