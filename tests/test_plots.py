"""What the plots draw is what they were given."""

import base64
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from helpers import plots
from helpers.train import History


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plots.use_style()
        yield


def test_show_gives_a_png_with_its_alt_text_and_closes_the_figure(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", lambda data, raw, metadata: shown.append((data, metadata)))
    pngs = []
    for _ in range(2):
        fig, ax = plt.subplots(figsize=(10, 3))
        ax.plot([1, 2])
        plots.show(fig, "a rising line")
        data, metadata = shown[-1]
        pngs.append(base64.b64decode(data["image/png"]))
    assert plt.get_fignums() == []
    assert data["text/plain"] == "<Figure size 1000x300 with 1 Axes>"  # the alt text would give a folded figure away
    assert metadata["image/png"] == {"alt": "a rising line", "width": 1000}
    assert Image.open(io.BytesIO(pngs[0])).size == (1500, 450)  # sharp on a dense screen
    assert pngs[0].startswith(b"\x89PNG") and pngs[0] == pngs[1] and b"Software" not in pngs[0]


def test_plot_loss_draws_every_step_and_the_mean_of_each_window():
    loss = torch.arange(10.0)
    ax = plots.plot_loss(History(loss), window=4, label="run")
    means, raw = ax.get_lines()
    assert means.get_ydata().tolist() == [1.5, 5.5] and means.get_xdata().tolist() == [1.5, 5.5]
    assert raw.get_ydata().tolist() == loss.tolist()
    assert plots.plot_loss(loss, ax=ax) is ax


def test_plot_histogram_is_a_density():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ax = plots.plot_histogram(values.view(10, 100), bins=20, range=(-4, 4))
    x, height = ax.patches[0].get_xy().T
    assert np.trapezoid(height, x) == pytest.approx(-1) or np.trapezoid(height, x) == pytest.approx(1)
    assert (x.min(), x.max()) == (-4, 4)


def test_plot_saturation_map_is_white_beyond_the_threshold_on_either_side():
    h = torch.tensor([[0.995, -0.995, 0.985, 0.0]])
    assert plots.plot_saturation_map(h).images[0].get_array().tolist() == [[1, 1, 0, 0]]
    assert plots.plot_saturation_map(h, threshold=0.97).images[0].get_array().tolist() == [[1, 1, 1, 0]]


def test_layer_colors_run_from_dark_to_light():
    luminance = [np.dot(color[:3], (0.2126, 0.7152, 0.0722)) for color in plots.layer_colors(6)]
    assert luminance == sorted(luminance) and len(set(luminance)) == 6


def test_gain_colors_are_a_ramp_over_log_gain():
    luminance = [np.dot(plots.gain_color(gain)[:3], (0.2126, 0.7152, 0.0722)) for gain in (0.2, 0.5, 1, 5 / 3, 3, 5)]
    assert luminance == sorted(luminance, reverse=True) and len(set(luminance)) == 6
    assert plots.gain_color(1.0) == pytest.approx(plots.GAINS(0.5), abs=0.01)  # the middle of 0.2 to 5
    assert not set(map(plots.gain_color, (0.2, 1, 5))) & set(plots.layer_colors(6))


def test_pairs_of_colors_differ_in_grey_too():
    for pair in (plots.BEFORE, plots.AFTER), (plots.TRAIN, plots.VALIDATION), (plots.WITHOUT, plots.WITH):
        one, other = (np.dot(np.array(to_rgb(color)) ** 2.2, (0.2126, 0.7152, 0.0722)) ** (1 / 2.2) for color in pair)
        assert abs(one - other) > 0.15


@pytest.mark.parametrize(("value", "text"), [(None, "undefined"), (0.634, "0.63"), (140.4, "140"), (3.1e-5, "3.1e-5")])
def test_short_numbers(value, text):
    assert plots.short(value) == text


@pytest.mark.parametrize(("side", "inside"), [("right", True), ("left", True), ("outside", False)])
def test_reference_line_is_labelled_on_either_axis(side, inside):
    fig, ax = plt.subplots()
    plots.reference_line(ax, 3.3, "ln 27", side=side)
    plots.reference_line(ax, 0.97, "saturated", axis="x")
    fig.canvas.draw()
    assert [t.get_text() for t in ax.texts] == ["ln 27", "saturated"]
    box = ax.texts[0].get_window_extent()
    assert (box.x1 < ax.bbox.x1) == inside and box.x0 > ax.bbox.x0
    assert list(ax.get_lines()[0].get_ydata()) == [3.3, 3.3] and list(ax.get_lines()[1].get_xdata()) == [0.97, 0.97]


def test_loss_log_figures_show_what_reproduce_wrote():
    path = Path(__file__).parent.parent / "data" / "results" / "loss_log.json"
    log = json.loads(path.read_text(encoding="utf-8"))
    dots = plots.plot_loss_log(log)
    numbers = {t.get_text() for t in dots.texts}
    for result in log["stages"].values():
        assert {f"{np.mean(result['train']):.4f}", f"{np.mean(result['val']):.4f}"} <= numbers
    curves = plots.plot_loss_log_curves(log)
    assert [len(line.get_xdata()) for line in curves.get_lines()] == [log["steps"] // log["curve_every"]] * 5
    assert [t.get_text() for t in curves.get_legend().get_texts()] == list(plots.STAGE_LABELS.values())
