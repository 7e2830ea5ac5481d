"""Every panel without a browser: what it shows, what it says when something fails, what it leaves behind."""

import asyncio
import base64
import html
import io
import random
import threading

import ipywidgets
import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from helpers import widgets as panels
from helpers.widgets import panel as panel_module
from helpers.widgets.explore import read_batch_norm, read_logits, read_network, read_update_ratios
from helpers.widgets.knobs import GAIN_STEP
from helpers.widgets.training_lab import NETWORKS

MOVES = {
    "gain_explorer": {
        "init gain": [0.2, 1.0, 3.0, 5.0],
        "depth": [2, 6, 11, 30],
        "width": [10, 100, 200],
        "nonlinearity": ["tanh", "relu", "sigmoid", "linear", "gelu"],
        "batch norm": [False, True],
        "seed": [0, 1, 2**32 - 1],
        "left picture": list(panels.PICTURES),
        "right picture": list(panels.PICTURES),
    },
    "logit_explorer": {
        "how many": [4, 27],
        "scale": [0.0, 1.0, 15.0],
        "label": [0, 2, 3],
        "seed": [0, 5],
        "logit 1": [-10.0, 0.0, 7.5],
    },
    "batch_norm_explorer": {
        "moved number": [-30.0, 10.0, 30.0],
        "batch size": [2, 5, 32],
        "gamma": [-2.0, 0.0, 1.0],
        "beta": [-3.0, 0.0],
        "momentum": [0.001, 0.1, 1.0],
        "batches seen": [1, 50, 200],
    },
    "update_ratio_explorer": {
        "learning rate": [1e-4, 0.1, 10.0],
        "init gain": [0.2, 1.0, 5.0],
        "batch norm": [False, True],
        "1/sqrt(fan_in)": [True, False],
        "steps": [10, 20],
        "seed": [0, 5],
    },
    "training_lab": {"network": list(NETWORKS), "learning rate": [1e-4, 10.0], "init gain": [0.2, 1.0, 5.0]},
}
SMALL = {"update_ratio_explorer": {"steps": 10}}


@pytest.fixture(autouse=True, scope="module")
def few_pixels():
    """A third of the size, a ninth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panel_module, "PIXELS_PER_INCH", 50)
        yield


def make(name, **options):
    return getattr(panels, name)(**SMALL.get(name, {}), **options)


@pytest.fixture
def opened(request):
    """A panel, closed afterwards."""
    panel = make(request.param)
    yield panel
    panel.close()


@pytest.fixture
def gain():
    panel = make("gain_explorer")
    yield panel
    panel.close()


every_panel = pytest.mark.parametrize("name", MOVES)
every_open_panel = pytest.mark.parametrize("opened", MOVES, indirect=True)


def png(panel):
    return bytes(panel.picture.value)


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def move(panel, name, value):
    panel.controls[name].value = value
    assert "alert" not in panel.message.value


@every_open_panel
def test_its_still_picture_and_alt_text_stand_beside_the_live_view(opened):
    data, metadata = opened._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    still = base64.b64decode(data["image/png"])
    assert Image.open(io.BytesIO(still)).format == "PNG"
    assert np.abs(pixels(still).astype(int) - pixels(png(opened))).mean() < 1  # 256 colours in place of all
    assert metadata["image/png"] == {"alt": opened.alt, "width": 1000}
    assert len(opened.alt.split()) > 8


@every_open_panel
def test_every_control_has_its_name_and_a_sentence(opened):
    for name, widget in opened.controls.items():
        assert widget.description == name
        assert widget.tooltip.endswith(".")
        assert html.escape(widget.tooltip) in widget.says.value


def type_name(panel):
    return next(name for name in MOVES if set(MOVES[name]) <= set(panel.controls))


@every_open_panel
def test_every_moved_control_changes_the_picture(opened):
    moves = MOVES[type_name(opened)]
    if "how many" in moves:
        moves = {k: v for k, v in moves.items() if k != "seed"}  # the four logits are not drawn
    for name, values in moves.items():
        if name == "learning rate" and hasattr(opened, "run"):
            continue  # takes effect at the next step only
        before = png(opened), opened.controls[name].value
        for value in values:
            if value != before[1]:
                move(opened, name, value)
                assert png(opened) != before[0], (name, value)
        move(opened, name, before[1])


@pytest.mark.slow
@every_panel
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_no_setting_leaves_anything_behind(name, data):
    """A walk through settings ends at the very picture that a fresh panel has there."""
    moves = MOVES[name]
    walked, fresh = make(name), make(name)
    try:
        for _ in range(data.draw(st.integers(1, 6))):
            knob = data.draw(st.sampled_from(list(moves)))
            move(walked, knob, data.draw(st.sampled_from(moves[knob])))
        if hasattr(fresh, "run"):  # a run that lives: its weights come back up to a rounding
            walked.controls["network"].value = walked.controls["network"].options[-1]
            for panel in (walked, fresh):
                move(panel, "network", "deep, batch norm")
                panel.reset()
                move(panel, "init gain", 1.0)
                panel.reset()
                move(panel, "learning rate", 0.1)
        for knob, widget in walked.controls.items():
            move(fresh, knob, widget.value)
        assert png(walked) == png(fresh)
    finally:
        walked.close()
        fresh.close()


@every_open_panel
def test_pin_and_unpin(opened):
    knob, values = next(
        (k, v)
        for k, v in MOVES[type_name(opened)].items()
        if k in ("init gain", "scale", "moved number", "learning rate")
    )
    plain = png(opened)
    opened.pin()
    assert opened.pinned is not opened.reading
    assert opened.pin_button.description == "unpin"
    move(opened, knob, values[-1])
    with_ghost = png(opened)
    opened.pin()
    assert (opened.pinned, opened.pin_button.description) == (None, "pin")
    without = png(opened)
    assert with_ghost != without
    difference = np.abs(pixels(with_ghost).astype(int) - pixels(without)).sum(-1)
    assert 0 < (difference > 0).mean() < 0.2  # lines, not a new picture
    if not hasattr(opened, "run"):
        move(opened, knob, values[0])
        move(opened, knob, opened.controls[knob].value)
        opened.controls[knob].value = make_default(opened, knob)
        assert png(opened) == plain


def make_default(panel, knob):
    fresh = make(type_name(panel))
    value = fresh.controls[knob].value
    fresh.close()
    return value


@every_open_panel
def test_an_exception_is_seen_and_the_next_good_move_clears_it(opened):
    knob, values = next(
        (k, v) for k, v in MOVES[type_name(opened)].items() if k in ("init gain", "scale", "moved number")
    )
    good, read = png(opened), opened.read

    def broken(**setting):
        raise RuntimeError("the <well> is dry")

    opened.read = broken
    opened.controls[knob].value = values[-1]
    assert 'role="alert"' in opened.message.value
    assert "RuntimeError: the &lt;well&gt; is dry (in broken, line" in opened.message.value
    assert png(opened) == good
    opened.read = read
    move(opened, knob, values[0])
    assert png(opened) != good


def test_an_exception_in_the_middle_of_drawing_leaves_no_half_drawn_picture(gain):
    good = png(gain)
    picture = gain.board.pictures[1]
    build = picture.build

    def broken(ax, reading):
        build(ax, reading)
        raise ValueError("no ink")

    picture.build = broken
    gain.controls["depth"].value = 9  # a new frame
    assert "no ink" in gain.message.value
    del picture.build
    move(gain, "depth", 6)
    assert png(gain) == good


@every_panel
def test_close_closes_all(name):
    alive = set(ipywidgets.widgets.widget._instances)
    panel = make(name)
    assert len(set(ipywidgets.widgets.widget._instances) - alive) > 10
    panel.pin()
    panel.close()
    assert set(ipywidgets.widgets.widget._instances) <= alive


class Shell:
    """As much of IPython's shell as a panel looks at."""

    def __init__(self):
        self.cell, self.execution_count = "a", 1

    def get_parent(self):
        return {"metadata": {"cellId": self.cell}}


def test_running_a_cell_again_closes_what_it_opened_before(monkeypatch):
    shell = Shell()
    monkeypatch.setattr(panel_module, "get_ipython", lambda: shell)
    monkeypatch.setattr(panel_module, "_open", {})
    first, twin = make("logit_explorer"), make("logit_explorer")  # two in one cell live together
    shell.cell, shell.execution_count = "b", 2
    other = make("logit_explorer")
    assert None not in (first.comm, twin.comm, other.comm)
    shell.cell, shell.execution_count = "a", 3
    again = make("logit_explorer")
    assert first.comm is None and twin.comm is None
    assert other.comm is not None and again.comm is not None
    other.close()
    again.close()


@every_panel
def test_nothing_outside_the_panel_changes(name):
    plt.close("all")
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), dict(matplotlib.rcParams))
    panel = make(name)
    for knob, values in MOVES[name].items():
        move(panel, knob, values[-1])
    panel.pin()
    panel.close()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    assert dict(matplotlib.rcParams) == before[3]
    assert plt.get_fignums() == []
    assert torch.is_grad_enabled()


def test_new_seed_leaves_pythons_random_state_alone(gain):
    state, seed, before = random.getstate(), gain.controls["seed"].value, png(gain)
    next(b for b in gain.children[1].children if b.description == "new seed").click()
    assert gain.controls["seed"].value != seed
    assert png(gain) != before
    assert random.getstate() == state


def test_callbacks_in_several_threads_at_once_do_not_blank_the_picture():
    """JupyterLab may run callbacks beside the cells, in a thread of their own."""
    one, two = make("gain_explorer"), make("batch_norm_explorer")
    good_one, good_two = png(one), png(two)

    def walk(panel, knob, values):
        for value in values:
            panel.controls[knob].value = value

    threads = [
        threading.Thread(target=walk, args=(one, "depth", [2, 12, 3, 9, 6])),
        threading.Thread(target=walk, args=(one, "right picture", ["gradients by layer", "std by depth"] * 3)),
        threading.Thread(target=walk, args=(two, "batch size", [2, 32, 7, 5] * 2)),
        threading.Thread(target=walk, args=(two, "gamma", [0.0, 2.0, 1.0] * 3)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for panel, good in (one, good_one), (two, good_two):
        assert "alert" not in panel.message.value
        panel.update()
        assert png(panel) == good
        panel.close()


class TestReadsItsControls:
    """The picture is that of the ordinary function at what the controls say."""

    def test_gain_explorer(self, gain):
        move(gain, "init gain", 3.0)
        move(gain, "depth", 4)
        move(gain, "width", 50)
        move(gain, "nonlinearity", "relu")
        move(gain, "batch norm", True)
        move(gain, "seed", 9)
        expected = read_network(
            init_gain=gain.controls["init gain"].value, depth=4, width=50, nonlinearity="relu", batch_norm=True, seed=9
        )
        assert gain.reading.label == "gain 3.00"
        assert [row.std for row in gain.reading.layers] == [row.std for row in expected.layers]
        move(gain, "left picture", "update:data by layer")
        assert [p.name for p in gain.board.pictures] == ["update:data by layer", "std by depth"]

    @pytest.mark.parametrize("value", [0.5, 1.0, 5 / 3, 3.0, 5.0])
    def test_the_telling_gains_are_among_the_sliders_values(self, value):
        steps = (value - 0.2) / GAIN_STEP
        assert steps == pytest.approx(round(steps), abs=1e-9)

    def test_diagnoses_warnings_are_shown_but_not_all(self, gain):
        move(gain, "init gain", 5.0)
        warnings = gain.reading.diagnosis.warnings
        assert len(warnings) > panel_module.WARNINGS
        assert gain.message.value.count("diagnose says") == panel_module.WARNINGS
        assert f"{len(warnings) - panel_module.WARNINGS} warnings more" in gain.message.value

    def test_logit_explorer(self):
        panel = make("logit_explorer")
        move(panel, "logit 0", 4.0)
        move(panel, "label", 0)
        move(panel, "scale", 2.0)
        assert panel.reading.loss == pytest.approx(read_logits([4.0, 0, 5, 0], 0, scale=2.0).loss)
        assert panel.controls["seed"].disabled and not panel.controls["logit 0"].disabled
        move(panel, "how many", 27)
        move(panel, "label", 26)
        move(panel, "seed", 4)
        assert panel.reading.loss == pytest.approx(read_logits(None, 26, scale=2.0, seed=4).loss)
        assert panel.controls["logit 0"].disabled and not panel.controls["seed"].disabled
        move(panel, "how many", 4)
        assert panel.controls["label"].value == panel.reading.label == 3
        panel.close()

    def test_batch_norm_explorer(self):
        panel = make("batch_norm_explorer")
        move(panel, "gamma", -1.0)
        move(panel, "batches seen", 20)
        expected = read_batch_norm(gamma=-1.0, batches_seen=20)
        assert panel.reading.out.tolist() == expected.out.tolist()
        assert panel.reading.running_std.tolist() == expected.running_std.tolist()
        panel.close()

    def test_update_ratio_explorer(self):
        panel = make("update_ratio_explorer")
        move(panel, "1/sqrt(fan_in)", False)
        move(panel, "learning rate", 1.0)
        expected = read_update_ratios(learning_rate=1.0, fan_in=False, steps=10)
        assert panel.reading.ratios == expected.ratios
        panel.close()

    def test_pictures_are_named_and_two(self):
        with pytest.raises(ValueError, match="choose two of activations by layer"):
            panels.gain_explorer(pictures=("activations by layer", "loss"))
        with pytest.raises(ValueError, match="choose two"):
            panels.gain_explorer(pictures=("std by depth",))


def test_the_alt_text_of_a_batch_says_how_large_it_is():
    assert panels.batch_norm_explorer(batch_size=32, momentum=0.01).alt.startswith("32 numbers")


class TestTrainingLab:
    def test_it_may_have_trained_before_it_is_first_shown(self):
        fresh, begun = panels.training_lab(), panels.training_lab(steps=10)
        assert (len(fresh.run.losses), len(begun.run.losses)) == (0, 10)
        assert begun.picture.value != fresh.picture.value
        begun.reset()
        assert begun.run.losses == [] and begun.picture.value == fresh.picture.value

    @pytest.fixture
    def lab(self):
        panel = panels.training_lab()
        yield panel
        panel.close()

    def drive(self, coroutine):
        return asyncio.run(coroutine)

    def test_start_pause_and_reset(self, lab):
        async def session():
            fresh = png(lab)
            lab.start()
            await asyncio.sleep(0)
            assert (lab.start_button.disabled, lab.pause_button.disabled) == (True, False)
            while len(lab.run.losses) < 100:
                await asyncio.sleep(0.01)
            lab.start()  # a second press changes nothing
            lab.pause()
            assert (lab.start_button.disabled, lab.pause_button.disabled) == (False, True)
            steps = len(lab.run.losses)
            await asyncio.sleep(0.1)
            assert len(lab.run.losses) == steps
            lab.update()
            assert png(lab) != fresh
            lab.start()
            await asyncio.sleep(0.1)
            lab.reset()
            await asyncio.sleep(0.1)
            assert lab.run.losses == []
            assert png(lab) == fresh

        self.drive(session())

    def test_learning_rate_and_gain_act_on_the_run(self, lab):
        lab.run.advance(10)
        move(lab, "learning rate", 0.01)
        assert lab.run.learning_rate == pytest.approx(0.01)
        move(lab, "init gain", 1.0)
        assert lab.run.gain == pytest.approx(1.0)
        assert len(lab.run.losses) == 10  # the run goes on

    def test_another_network_starts_afresh_at_its_own_gain(self, lab):
        lab.run.advance(10)
        move(lab, "network", "deep, batch norm")
        assert (lab.run.network, lab.run.losses, lab.run.gain) == ("deep, batch norm", [], 1.0)
        assert lab.controls["init gain"].value == pytest.approx(1.0)

    def test_a_blow_up_is_explained_and_training_stops(self, lab):
        async def session():
            move(lab, "network", "deep, linear")
            move(lab, "learning rate", 1.0)
            lab.start()
            await asyncio.wait_for(lab.task, 20)

        self.drive(session())
        assert lab.run.failed
        assert "no longer a finite number" in lab.message.value
        assert "learning rate 1 " in lab.message.value
        assert (lab.start_button.disabled, lab.pause_button.disabled) == (False, True)
        lab.reset()
        assert lab.message.value.count("finite") == 0

    def test_an_exception_while_training_stops_it_and_is_shown(self, lab):
        def broken(steps=5):
            raise RuntimeError("out of chalk")

        async def session():
            lab.run.advance = broken
            lab.start()
            await asyncio.wait_for(lab.task, 20)

        self.drive(session())
        assert "out of chalk" in lab.message.value
        assert not lab.start_button.disabled

    def test_close_stops_the_training(self, lab):
        async def session():
            lab.start()
            await asyncio.sleep(0.05)
            lab.close()
            steps = len(lab.run.losses)
            await asyncio.sleep(0.1)
            assert len(lab.run.losses) == steps

        self.drive(session())
