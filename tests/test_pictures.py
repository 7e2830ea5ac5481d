"""The panels' pictures as a cell draws them: everything in sight, and words where there is nothing to draw."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from helpers.models import SEED, deep_mlp
from helpers.widgets.batch_norm import draw_normalised, draw_running_statistics, read_batch_norm
from helpers.widgets.board import up
from helpers.widgets.logits import draw_loss_by_scale, draw_probabilities, read_logits
from helpers.widgets.network import (
    default_splits,
    draw_activations,
    draw_gradients,
    draw_std_by_depth,
    draw_update_ratios_by_layer,
    draw_update_ratios_by_step,
    draw_weight_gradients,
    network_reading,
    read_network,
    read_update_ratios,
)
from helpers.widgets.training_lab import PICTURES, TrainingRun


def drawn(draw, reading):
    ax = plt.subplots()[1]
    draw(reading, ax)
    ax.figure.canvas.draw()
    return ax


def line(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def title(ax):
    return ax.get_title() or ax.get_title("left")


def inside(ax, values):
    low, high = ax.get_ylim()
    return all(low < value < high for value in values)


def test_thirty_layers_are_six_outlines_and_all_points():
    reading = read_network(depth=30, width=20)
    names = [text.get_text() for text in drawn(draw_activations, reading).get_legend().get_texts()]
    assert (names[0], names[-1], len(names)) == ("tanh1", "tanh29", 6)
    assert len(line(drawn(draw_std_by_depth, reading), "this network").get_xdata()) == 29


@pytest.mark.parametrize(("draw", "rows"), [(draw_gradients, "gradients"), (draw_weight_gradients, "parameters")])
def test_gradients_are_in_units_of_the_widest_outline(draw, rows):
    reading = read_network(depth=4)
    lines = drawn(draw, reading).get_lines()
    assert len(lines) == len(getattr(reading, rows))
    spreads = []
    for x, density in (one.get_data() for one in lines):
        assert np.trapezoid(density, x) == pytest.approx(1)
        spreads.append(math.sqrt(np.trapezoid(density * x**2, x)))
    assert max(spreads) == pytest.approx(1, abs=0.05)


KINDS, GAINS, DEPTHS = ["tanh", "relu", "sigmoid", "linear", "gelu"], [0.2, 1.0, 5.0], [2, 6, 30]
# every pair of two of the three
LATIN = [(kind, gain, DEPTHS[(i + j) % 3]) for i, kind in enumerate(KINDS) for j, gain in enumerate(GAINS)]


@pytest.mark.parametrize(("nonlinearity", "gain", "depth"), LATIN)
def test_no_point_leaves_the_axes_or_lies_beneath_the_legend(nonlinearity, gain, depth):
    reading = read_network(nonlinearity=nonlinearity, init_gain=gain, depth=depth, width=10)
    stds, ratios = [row.std for row in reading.activations], [row.update_to_data for row in reading.parameters]
    for ax, values in (drawn(draw_update_ratios_by_layer, reading), ratios), (drawn(draw_std_by_depth, reading), stds):
        points = line(ax, "this network")
        assert list(points.get_ydata()) == values and inside(ax, values)
        legend = ax.get_legend().get_window_extent()
        at = ax.transData.transform(np.column_stack(points.get_data()))
        assert not any(legend.contains(*point) for point in at)
    assert list(line(ax, "theory, infinitely wide").get_ydata()) == reading.expected_std


@pytest.mark.parametrize("lr", [1e-4, 0.1, 10.0])
def test_ratios_by_step_stay_in_sight(lr):
    reading = read_update_ratios(learning_rate=lr, init_gain=0.5, steps=20)
    ax = drawn(draw_update_ratios_by_step, reading)
    for name, values in reading.update_ratio.items():
        assert list(line(ax, name).get_ydata()) == values
    assert inside(ax, [np.median(values) for values in reading.update_ratio.values()])


def test_a_network_blown_up_is_drawn_without_numbers():
    run = TrainingRun("deep, linear", learning_rate=10.0)
    run.advance(20)
    titles = [title(drawn(draw, run.read())) for draw in PICTURES]
    assert "nan" in titles[0] and "no finite numbers" in titles[2]
    assert all("no finite gradient" in text for text in titles[3:])


@pytest.mark.parametrize(("nonlinearity", "share"), [("tanh", "saturated"), ("relu", "dead")])
def test_the_title_passes_over_the_layers_with_nan(nonlinearity, share):
    model = deep_mlp(nonlinearity=nonlinearity, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        model.linear2.weight[0, 0] = math.nan
    X, Y = (part[:64] for part in default_splits().train)
    text = title(drawn(draw_activations, network_reading(model, X, Y, label="here", lr=0.1)))
    assert text.startswith("here: ") and text.endswith(f"% {share} in {nonlinearity}1")


def test_probabilities_are_bars_and_the_labels_is_orange():
    for reading in read_logits([1.0, 0.0, -3.0, 2.0], 3), read_logits(None, 26):
        ax = drawn(draw_probabilities, reading)
        assert [bar.get_height() for bar in ax.patches] == pytest.approx(reading.probabilities)
        colors = [bar.get_facecolor() for bar in ax.patches]
        assert colors.count(colors[reading.label]) == 1
        assert f"loss {reading.loss:.2f}" in title(ax)


@pytest.mark.parametrize("scale", [0.0, 3.0, 15.0])
def test_the_dot_lies_on_the_curve(scale):
    ax = drawn(draw_loss_by_scale, read_logits([3.0, -10.0, 0.0, 10.0], 1, scale=scale))
    curve, dot = ax.get_lines()[:2]
    (x,), (y,) = dot.get_data()
    assert np.interp(x, *curve.get_data()) == pytest.approx(y, abs=0.02)
    assert max(curve.get_ydata()) <= ax.get_ylim()[1]


@pytest.mark.parametrize("setting", [{}, dict(gamma=3.0, beta=-3.0, moved_number=30.0), dict(gamma=0.0)])
def test_every_number_and_its_output_are_in_sight(setting):
    reading = read_batch_norm(batch_size=20, **setting)
    ax = drawn(draw_normalised, reading)
    frame = ax.get_window_extent()
    lines = np.concatenate([np.array(one.get_segments()) for one in ax.collections if hasattr(one, "ends")])
    left, right = frame.x0, frame.x1  # in pixels: inputs from -36 to 36, outputs as on the axis below
    to_input, to_output = (
        np.interp(lines[:, end, 0], [left, right], at) for end, at in ((0, (-36, 36)), (1, ax.get_xlim()))
    )
    assert sorted(to_input) == pytest.approx(sorted(reading.x), abs=1e-3)
    assert sorted(to_output) == pytest.approx(sorted(reading.out), abs=1e-3)
    assert left < lines[..., 0].min() and lines[..., 0].max() < right
    assert not any("−0.00" in text.get_text() for text in ax.texts)


def test_running_statistics_by_batch():
    reading = read_batch_norm(batches_seen=1)
    ax = drawn(draw_running_statistics, reading)
    assert list(line(ax, "running mean").get_ydata()) == reading.running_mean.tolist()
    assert title(ax).startswith("after 1 batch of 5: ")


@pytest.mark.parametrize(("value", "limit"), [(0.9, 1), (1, 1), (1.01, 1.5), (17, 20), (300, 300), (301, 500), (8, 10)])
def test_limits_come_in_steps(value, limit):
    assert up(value) == pytest.approx(limit)
