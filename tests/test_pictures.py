"""The moving pictures: what they draw, within which limits, and what they say when there is nothing to draw."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from helpers.widgets import pictures
from helpers.widgets.chapter_pictures import LossByScale, Normalised, Probabilities, RunningStatistics
from helpers.widgets.explore import read_batch_norm, read_logits, read_network, read_update_ratios
from helpers.widgets.training_lab import TrainingRun


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def network():
    return read_network()


def drawn(picture, reading):
    ax = pictures.draw(picture, reading)
    ax.figure.canvas.draw()
    return ax


def inside(ax, values):
    low, high = ax.get_ylim()
    return all(low < value < high for value in values)


def test_outlines_are_the_readings_histograms(network):
    picture = pictures.ActivationsByLayer()
    ax = drawn(picture, network)
    for stairs, row in zip(picture.stairs, network.layers, strict=True):
        assert np.array_equal(stairs.get_data().values, row.histogram.density)
        assert np.array_equal(stairs.get_data().edges, row.histogram.edges)
    assert ax.get_title(loc="left") or ax.get_title() == "gain 1.67: 20.4% saturated in tanh1"


def test_gradients_are_in_units_of_the_widest_outline(network):
    picture = pictures.GradientsByLayer()
    drawn(picture, network)
    widest = max(row.std for row in network.layer_gradients)
    for stairs, row in zip(picture.stairs, network.layer_gradients, strict=True):
        density, edges = stairs.get_data()[:2]
        assert edges == pytest.approx(row.histogram.edges.numpy() / widest)
        assert (density * np.diff(edges)).sum() == pytest.approx(1)


def test_thirty_layers_are_six_outlines_and_all_points():
    reading = read_network(depth=30, width=20)
    picture = pictures.ActivationsByLayer()
    drawn(picture, reading)
    labels = [stairs.get_label() for stairs in picture.stairs]
    assert (labels[0], labels[-1], len(labels)) == ("tanh1", "tanh29", 6)
    points = pictures.StdByDepth()
    drawn(points, reading)
    assert len(points.dots.get_xdata()) == len(points.line.get_xdata()) == 29


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid", "linear", "gelu"])
@pytest.mark.parametrize("gain", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("depth", [2, 6, 30])
def test_no_point_leaves_the_axes_or_lies_beneath_the_legend(nonlinearity, gain, depth):
    reading = read_network(nonlinearity=nonlinearity, init_gain=gain, depth=depth, width=30)
    std = pictures.StdByDepth()
    ax = drawn(std, reading)
    assert list(std.dots.get_ydata()) == [row.std for row in reading.layers]
    assert list(std.line.get_ydata()) == reading.expected_std
    assert inside(ax, [*std.dots.get_ydata(), *std.line.get_ydata()])
    legend = ax.get_legend().get_window_extent()
    at = ax.transData.transform(np.column_stack([std.dots.get_xdata(), std.dots.get_ydata()]))
    assert not any(legend.contains(*point) for point in at)
    ratios = pictures.UpdateRatiosByLayer()
    ax = drawn(ratios, reading)
    assert list(ratios.dots.get_ydata()) == [row.update_to_data for row in reading.weights]
    assert inside(ax, [*ratios.dots.get_ydata(), 1e-3])


@pytest.mark.parametrize("lr", [1e-4, 0.1, 10.0])
def test_ratios_by_step_stay_in_sight(lr):
    reading = read_update_ratios(learning_rate=lr, init_gain=0.5, steps=20)
    picture = pictures.UpdateRatiosByStep()
    ax = drawn(picture, reading)
    assert [line.get_label() for line in picture.lines] == [name.removesuffix(".weight") for name in reading.ratios[1]]
    for line, values in zip(picture.lines, reading.ratios[1].values(), strict=True):
        assert line.get_ydata() == values
    assert inside(ax, [np.median(values) for values in reading.ratios[1].values()])


def test_a_network_blown_up_is_drawn_without_numbers():
    run = TrainingRun("deep, linear", learning_rate=10.0)
    run.advance(20)
    reading = run.read()
    titles = {}
    for kind in (
        pictures.LossByStep,
        pictures.UpdateRatiosByStep,
        pictures.ActivationsByLayer,
        pictures.GradientsByLayer,
        pictures.WeightGradientsByLayer,
    ):
        picture = kind()
        drawn(picture, reading)
        titles[picture.name] = picture.heading.get_text()
    assert titles["loss"] == "step 20: the loss is nan"
    assert titles["activations by layer"] == "no finite numbers"
    assert "no finite gradient" in titles["gradients by layer"]
    assert "no finite gradient" in titles["weight gradients"]


def test_the_running_mean_is_the_mean_of_its_part():
    run = TrainingRun("one hidden layer, kaiming")
    run.advance(100)
    picture = pictures.LossByStep()
    ax = drawn(picture, run.read())
    steps, means = picture.mean.get_data()
    assert means == pytest.approx(np.reshape(run.losses, (10, 10)).mean(1))
    assert steps.tolist() == [4.5 + 10 * i for i in range(10)]
    assert ax.get_xlim() == (0, 100)


def test_probabilities_are_bars_and_the_labels_is_orange():
    for reading in read_logits([1.0, 0.0, -3.0, 2.0], 3), read_logits(None, 26):
        picture = Probabilities()
        drawn(picture, reading)
        assert [bar.get_height() for bar in picture.bars] == pytest.approx(reading.probabilities)
        colors = [bar.get_facecolor() for bar in picture.bars]
        assert colors.count(colors[reading.label]) == 1
        assert picture.heading.get_text().startswith(f"loss {reading.loss:.2f} ")


@pytest.mark.parametrize("scale", [0.0, 3.0, 15.0])
def test_the_dot_lies_on_the_curve(scale):
    reading = read_logits([3.0, -10.0, 0.0, 10.0], 1, scale=scale)
    picture = LossByScale()
    ax = drawn(picture, reading)
    (x,), (y,) = picture.dot.get_data()
    assert np.interp(x, *picture.curve.get_data()) == pytest.approx(y, abs=0.02)
    assert max(picture.curve.get_ydata()) <= ax.get_ylim()[1]


@pytest.mark.parametrize("setting", [{}, dict(gamma=3.0, beta=-3.0, moved_number=30.0), dict(gamma=0.0)])
def test_every_number_and_its_output_are_in_sight(setting):
    reading = read_batch_norm(batch_size=20, **setting)
    picture = Normalised()
    ax = drawn(picture, reading)
    ends = np.array([line.get_xdata() for line in picture.lines])
    assert sorted(ends[:, 0]) == pytest.approx(sorted(reading.x / 10))
    assert sorted(ends[:, 1] * picture.zoom) == pytest.approx(sorted(reading.out), abs=1e-5)
    assert abs(ends).max() <= ax.get_xlim()[1]
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    assert ticks == [str(picture.zoom * tick) for tick in range(-3, 4)]
    moved = picture.lines[-1]
    assert moved.get_xdata()[0] == pytest.approx(reading.x[0] / 10)
    assert moved.get_color() != picture.lines[0].get_color()
    assert "-0.00" not in picture.inputs.get_text() + picture.outputs.get_text()


def test_running_statistics_by_batch():
    reading = read_batch_norm(batches_seen=1)
    picture = RunningStatistics()
    drawn(picture, reading)
    assert picture.mean.get_ydata().tolist() == reading.running_mean.tolist()
    assert picture.heading.get_text().startswith("after 1 batch of 5: ")


@pytest.mark.parametrize(("value", "limit"), [(0.9, 1), (1, 1), (1.01, 1.5), (17, 20), (300, 300), (301, 500), (8, 10)])
def test_limits_come_in_steps(value, limit):
    assert pictures.up(value) == pytest.approx(limit)
