"""The four visualisations draw what diagnose and train recorded."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from helpers import plots
from helpers.diagnostics import diagnose, watch
from helpers.layers import Linear
from helpers.models import SEED, deep_mlp
from helpers.train import train


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def generator(seed=SEED):
    return torch.Generator().manual_seed(seed)


X = torch.randint(0, 27, (64, 3), generator=generator(0))
Y = torch.randint(0, 27, (64,), generator=generator(1))


def outlines(ax):
    """(density, edges) of every outline, whatever it is made of."""
    return [(y[1:-1:2], x[::2]) for x, y in (line.get_data() for line in ax.get_lines()) if len(x)]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_activations_and_gradients_are_one_outline_a_nonlinearity():
    result = diagnose(deep_mlp(generator=generator()), X, Y)
    tanh = [row for row in result.activations if row.type is nn.Tanh]
    gradients = [row for row in result.gradients if row.type is nn.Tanh]
    for plot, rows in (plots.plot_activations, tanh), (plots.plot_gradients, gradients):
        ax = plot(result)
        assert len(outlines(ax)) == 5
        for drawn, row in zip(outlines(ax), rows, strict=True):
            np.testing.assert_allclose(drawn[0], row.histogram.density)
            np.testing.assert_allclose(drawn[1], row.histogram.edges)
        assert [line.get_color() for line in ax.get_lines()] == plots.layer_colors(5)
        assert [label.split(":")[0] for label in legend(ax)] == [row.name for row in rows]
        assert plot(result, ax=ax) is ax
    saturation = legend(plots.plot_activations(result))
    assert saturation[0] == f"tanh1: std {tanh[0].std:.2g}, {tanh[0].saturated:.1%} saturated"
    assert legend(plots.plot_gradients(result))[0].startswith("tanh1: std ")
    assert plots.plot_gradients(result, legend=False).get_legend() is None


def test_layers_may_be_chosen_by_class_and_default_to_all_without_a_nonlinearity():
    result = diagnose(deep_mlp(nonlinearity="linear", generator=generator()), X, Y)
    assert len(outlines(plots.plot_activations(result))) == len(result.activations) == 8
    for plot in plots.plot_activations, plots.plot_gradients:
        labels = legend(plot(result, layers=Linear))
        assert [label.split(":")[0] for label in labels] == [f"linear{i}" for i in range(1, 7)]


def test_what_was_not_recorded_is_asked_for():
    with pytest.raises(ValueError, match="no gradients: call diagnose with targets"):
        plots.plot_gradients(diagnose(nn.Tanh(), torch.randn(3, 3), loss_fn=None))
    with pytest.raises(ValueError, match="record_ratios_every=k"):
        plots.plot_update_ratios(train(deep_mlp(), X, Y, steps=1, lr=0.1))


def test_a_peak_at_zero_does_not_hide_the_rest():
    result = diagnose(deep_mlp(nonlinearity="relu", gain=2**0.5, generator=generator()), X, Y)
    ax = plots.plot_activations(result)
    above_zero = max(density[1:].max() for density, _ in outlines(ax))
    assert ax.get_ylim() == (0, pytest.approx(1.2 * above_zero))
    assert max(density[0] for density, _ in outlines(ax)) > 2 * ax.get_ylim()[1] and "dead" in legend(ax)[0]


def test_what_is_not_finite_is_named_and_not_drawn():
    model = deep_mlp(generator=generator())
    with torch.no_grad():
        model.linear3.weight[0, 0] = torch.nan
    result = diagnose(model, X, Y)
    ax = plots.plot_activations(result)
    assert len(outlines(ax)) == 2 and legend(ax)[2].startswith("tanh3: std undefined")
    assert outlines(plots.plot_gradients(result)) == outlines(plots.plot_parameter_gradients(result)) == []


def test_parameter_gradients_are_those_of_the_weights():
    result = diagnose(deep_mlp(generator=generator()), X, Y)
    ax = plots.plot_parameter_gradients(result)
    rows = [row for row in result.parameters if len(row.shape) == 2]
    assert len(rows) == 7
    for drawn, row in zip(outlines(ax), rows, strict=True):
        np.testing.assert_allclose(drawn[0], row.grad_histogram.density)
    assert legend(ax)[1].startswith("linear1.weight (30, 100): grad:data ")
    assert ax.get_xlim()[1] == pytest.approx(4 * max(row.grad_std for row in rows))


def test_update_ratios_are_drawn_by_step_on_a_log_axis_with_the_rule_of_thumb():
    history = train(
        deep_mlp(generator=generator()), X, Y, steps=7, lr=0.1, generator=generator(), record_ratios_every=3
    )
    ax = plots.plot_update_ratios(history)
    *lines, guide = ax.get_lines()
    assert ax.get_yscale() == "log" and list(guide.get_ydata()) == [1e-3, 1e-3]
    assert legend(ax) == [*history.update_ratio, "1e-3, a rule of thumb"] and len(lines) == 7
    assert not ax.texts  # a label beside the guide would lie on the ratios
    for line, ratio in zip(lines, history.update_ratio.values(), strict=True):
        assert list(line.get_xdata()) == [0, 3, 6] and line.get_ydata().tolist() == ratio.tolist()
    ax = plots.plot_update_ratios({"w": [1e-2, 1e-3]}, every=5)
    assert list(ax.get_lines()[0].get_xdata()) == [0, 5]


def test_under_adam_its_later_ratios_are_marked_in_place_of_the_rule_of_thumb():
    net = deep_mlp(generator=generator())
    result = diagnose(net, X, Y, optimizer=torch.optim.Adam(net.parameters()))
    (ax,) = (ax for ax in result.plot().axes if ax.get_legend() and "Adam" in "".join(legend(ax)))
    weights = [row for row in result.parameters if len(row.shape) > 1 and row.adam_to_data]
    marked = ax.get_lines()[-1].get_ydata()
    assert set(marked[np.isfinite(marked)]) <= {row.adam_to_data for row in weights} and len(legend(ax)) == 1


def labelled(ax):
    """The y axis's labels in sight, as they are written."""
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    return [text.get_text() for y, text in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True) if low <= y <= high]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.3, 0.31, ["0.2", "0.5"]),
        (6e-3, 0.05, ["0.01", "0.02", "0.05"]),
        (2.1e-4, 4.9e-4, ["2e-4", "5e-4"]),
        (3e-4, 0.3, ["1e-3", "0.01", "0.1"]),
    ],
)
def test_a_log_axis_has_two_numbers_at_least_and_decades_alone_where_two_stand(low, high, expected):
    ax = plt.subplots()[1]
    ax.plot([low, high])
    plots.log_scale(ax)
    assert labelled(ax) == expected
    ax = plt.subplots()[1]
    ax.set_ylim(1e-3, 10)  # limits that are set stay
    plots.log_scale(ax)
    assert ax.get_ylim() == (1e-3, 10) and labelled(ax) == ["1e-3", "0.01", "0.1", "1", "10"]


def watched(steps, every=10, nan_from=None, widths=(8, 8)):
    """The records of a short training of plain layers, whose loss turns NaN."""
    torch.manual_seed(0)
    sizes = [6, *widths, 4]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
    net, inputs, targets = nn.Sequential(*layers[:-1]), torch.randn(32, 6), torch.randint(0, 4, (32,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer, every=every) as seen:
        for step in range(steps):
            loss = nn.functional.cross_entropy(net(inputs), targets)
            optimizer.zero_grad()
            (loss * (torch.nan if step == nan_from else 1)).backward()
            optimizer.step()
    return seen


def test_one_record_is_drawn_as_points_at_its_whole_step():
    fig = watched(steps=8).plot()
    for ax in fig.axes:
        drawn = [line for line in ax.get_lines() if "rule" not in line.get_label()]
        assert drawn and all(line.get_marker() == "o" and all(line.get_markevery()) for line in drawn)
    fig.canvas.draw()
    assert [text.get_text() for text in fig.axes[3].get_xticklabels() if text.get_text()].count("0") == 1


def test_only_what_stands_alone_between_nan_is_a_point():
    ratios = {"w": [0.1, np.nan, 0.2, np.nan, 0.3, 0.4], "v": [0.1] * 6}
    alone, whole, _ = plots.plot_update_ratios(ratios).get_lines()
    assert list(alone.get_markevery()) == [True, False, True, False, False, False]
    assert whole.get_marker() == "None"


def test_steps_are_whole_numbers():
    fig = watched(steps=21, every=5).plot()
    fig.canvas.draw()
    for x, text in zip(fig.axes[3].get_xticks(), fig.axes[3].get_xticklabels(), strict=True):
        assert x == float(text.get_text().replace("−", "-"))


def test_nan_is_said_and_the_steps_go_on():
    fig = watched(steps=60, every=5, nan_from=25).plot()
    for ax, first in zip(fig.axes, (30, 25, 25, 25), strict=True):
        bad = (60 - first) // 5
        assert ax.get_title(loc="left") == f"NaN or infinity in {bad} of 12 records, first at step {first}"
        assert ax.get_xlim()[1] > 55
    assert watched(steps=20).plot().axes[0].get_title(loc="left").endswith("healthy")


def test_a_panel_without_any_number_says_so():
    weights = torch.ones(6, 4, requires_grad=True)  # they do not differ, so that no ratio to their std is defined
    with watch(lambda x: torch.tanh(x @ weights), every=1) as seen:
        for _ in range(3):
            seen.model(torch.ones(5, 6)).square().mean().backward()
            seen.step()
    ax = seen.plot().axes[2]
    assert "no number" in ax.texts[0].get_text() and ax.get_legend() is None and not len(ax.get_yticks())
    panels = diagnose(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), X[:, :3] * torch.nan, Y % 3).plot().axes
    assert [ax.texts[0].get_text() for ax in panels[:2]] == ["NaN or infinity"] * 2


def test_colour_bars_and_long_names_leave_the_width_to_the_pictures():
    seen = watched(steps=11, widths=[8] * 14)
    for _, diagnosis in seen.records:
        for row in (*diagnosis.activations, *diagnosis.gradients, *diagnosis.parameters):
            object.__setattr__(row, "name", f"encoder.layer.{row.name.split('.')[0]}.attention.self.query.weight")
    for fig in seen.plot(), seen.records[-1][1].plot():
        fig.canvas.draw()
        assert all(ax.get_position().width > 0.6 for ax in fig.axes)
    ticks = seen.plot().axes[3].child_axes[0].get_yticklabels()
    assert [text.get_text() for text in ticks][:2] == ["…0.attention.self.query", "…6.attention.self.query"]


def test_outlines_that_would_be_needles_are_points():
    results = [diagnose(deep_mlp(gain=gain, depth=30, generator=generator()), X, Y) for gain in (0.2, 5 / 3)]
    assert [len(result.plot().axes[0].collections) for result in results] == [1, 0]
