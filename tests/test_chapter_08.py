"""What chapter 08 writes inline against the helpers that it then uses."""

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgba

from helpers.diagnostics import diagnose
from helpers.models import deep_mlp
from helpers.plots import plot_activations
from helpers.widgets.network import read_network
from notebook_cells import definitions


@pytest.fixture(scope="module")
def chapter():
    return definitions("08_activation_statistics")


@pytest.fixture
def case():
    """A network whose layers differ, and a batch: the third layer wider, the fourth off-centre."""
    model = deep_mlp(gain=5 / 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.linear3.weight.mul_(3)
        model.linear4.bias.add_(1)
    return model, torch.randint(0, 27, (64, 3), generator=torch.Generator().manual_seed(1))


def test_the_chapters_statistics_equal_diagnose(chapter, case):
    outputs = chapter["tanh_outputs"](*case)
    rows = [row for row in diagnose(*case, loss_fn=None).activations if row.is_activation]
    assert [row.name for row in rows] == list(outputs)
    for row, t in zip(rows, outputs.values(), strict=True):
        assert row.shape == t.shape
        assert t.std().item() == pytest.approx(row.std, abs=1e-6)
        assert chapter["share_saturated"](t) == pytest.approx(row.saturated, abs=1e-6)


def test_the_chapters_plot_draws_what_plot_activations_draws(chapter, case):
    fig, (inline, helper) = plt.subplots(1, 2)
    chapter["draw_outputs"](chapter["tanh_outputs"](*case), inline)
    plot_activations(diagnose(*case, loss_fn=None), ax=helper)
    labels = [text.get_text() for text in helper.get_legend().get_texts()]
    for line, outline, label in zip(inline.lines, helper.lines, labels, strict=True):
        # An outline goes up and down at each edge: two points per edge.
        edges, density = (outline.get_xdata()[::2], outline.get_ydata()[1:-1:2])
        # An entry on an edge may fall to either side, as the helper counts in float64.
        assert abs(line.get_ydata() - density).mean() < 0.01
        assert line.get_xdata() == pytest.approx((edges[1:] + edges[:-1]) / 2, abs=1e-6)
        assert to_rgba(line.get_color()) == to_rgba(outline.get_color())
        assert line.get_label().split(",")[0] == label.split(",")[0]  # the share has another digit here
    plt.close(fig)


def test_what_the_chapter_says_of_its_panel():
    stds = [row.std for row in read_network(depth=21, init_gain=1.2).activations]
    assert all(std == pytest.approx(0.42, abs=0.03) for std in stds[9:])
    stds = [row.std for row in read_network(depth=21, init_gain=3).activations]
    assert all(std == pytest.approx(0.84, abs=0.02) for std in stds[2:])
    for seed in range(4):
        narrow = read_network(depth=21, init_gain=1.2, width=10, seed=seed)
        assert narrow.activations[-1].std < 0.9 * narrow.expected_std[-1]
    for gain, low, high in (1.4, 0.7, 1), (43 / 30, 1, 1.4):
        curve = read_network(depth=21, init_gain=gain, nonlinearity="relu").expected_std
        assert low < curve[-1] / curve[0] < high
