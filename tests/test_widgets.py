"""Every panel without a browser: what it shows, what it says when something fails, what it leaves behind."""

import base64
import html
import io
import random
import threading
from ast import literal_eval
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_client.manager import run_kernel
from PIL import Image

from helpers import widgets as panels
from helpers.widgets import board as board_module
from helpers.widgets import clinic as clinic_module
from helpers.widgets import panel as panel_module
from helpers.widgets.batch_norm import read_batch_norm
from helpers.widgets.clinic import read_case
from helpers.widgets.first_look import read_first_look
from helpers.widgets.logits import read_logits
from helpers.widgets.network import PICTURES, gain_slider, read_network, read_update_ratios
from helpers.widgets.patients import read_patient
from helpers.widgets.valley import CURVATURE, axes_of, read_valley

lab_module = import_module("helpers.widgets.training_lab")  # its function hides it in the package
PANELS = panels.__all__  # a new panel is tried without another line here
SMALL = {"update_ratio_explorer": {"steps": 10}}


@pytest.fixture(autouse=True, scope="module")
def small():
    """Pictures of a third of the size, a ninth of the time; little training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board_module, "PIXELS_PER_INCH", 50)
        patch.setattr(clinic_module, "STEPS", 40)
        patch.setattr(lab_module, "SECONDS", 0.001)
        yield


def make(name, **options):
    return getattr(panels, name)(**SMALL.get(name, {}), **options)


def session():
    """What a panel may not touch: (the random states, matplotlib's settings and figures, torch's mode)."""
    randoms = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
    return *randoms, dict(matplotlib.rcParams), plt.get_fignums(), torch.is_grad_enabled()


@pytest.fixture(scope="module")
def panel(request):
    """A panel for several tests, each of which leaves it as it was; the last of them closes it."""
    alive, before = set(ipywidgets.widgets.widget._instances), session()
    made = make(request.param)
    made.name, made.alive, made.before = request.param, alive, before
    made.moves = {name: values_of(control) for name, control in made.controls.items() if not control.disabled}
    yield made
    made.close()


def values_of(control):
    """What a control can be moved to: both ends and the middle, or all that it offers."""
    if hasattr(control, "options"):
        return list(control.options)
    if not hasattr(control, "min"):
        return [False, True]
    middle = type(control.min)((control.min + control.max) / 2)
    values = [control.min, middle, control.max]
    return [control.base**value for value in values] if hasattr(control, "base") else values


def first_move(panel):
    """(a control, its value, the furthest other one)"""
    knob, values = next(iter(panel.moves.items()))
    begun = panel.controls[knob].value
    return knob, begun, next(value for value in reversed(values) if value != begun)


@contextmanager
def undrawn(panel):
    """Controls may be moved here without a picture each."""
    panel.redraw = lambda: None
    yield
    del panel.redraw


@pytest.fixture
def gain():
    made = make("gain_explorer")
    yield made
    made.close()


every_panel = pytest.mark.parametrize("panel", PANELS, indirect=True)


def png(panel):
    return bytes(panel.picture.value)


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def press(panel, name):
    next(made for made in panel.children[1].children if getattr(made, "description", "") == name).click()


def can_be_pressed(panel):
    return [b.description for b in panel.children[1].children if isinstance(b, ipywidgets.Button) and not b.disabled]


def move(panel, name, value):
    panel.controls[name].value = value
    assert "alert" not in panel.message.value


@every_panel
def test_its_still_picture_and_alt_text_stand_beside_the_live_view(panel):
    data, metadata = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]) == png(panel)
    assert metadata["image/png"] == {"alt": panel.alt, "width": 1000}
    assert len(panel.alt.split()) > 8


@every_panel
def test_the_panels_own_colours_are_those_that_were_drawn(panel):
    """One palette serves all: what it makes of a fill is seen as the same colour."""
    drawn = np.asarray(panel.board.canvas.buffer_rgba())[..., :3].astype(int)
    off = np.abs(pixels(png(panel)) - drawn).max(-1)
    assert (off > 24).mean() < 0.002 and off.mean() < 2


@every_panel
def test_every_control_has_its_name_and_a_sentence(panel):
    for name, widget in panel.controls.items():
        assert widget.description == name
        assert widget.tooltip.endswith(".")
        assert html.escape(widget.tooltip) in widget.says.value


@every_panel
def test_every_control_changes_the_picture_at_either_end(panel):
    at_first = png(panel)
    for name, values in panel.moves.items():
        if name == "learning rate" and hasattr(panel, "run"):
            continue  # takes effect at the next step only
        before = panel.controls[name].value
        for value in (values[0], values[-1]):
            if value != before:
                move(panel, name, value)
                assert png(panel) != at_first, (name, value)
        with undrawn(panel):
            move(panel, name, before)
    panel.update()
    assert png(panel) == at_first or hasattr(panel, "run")  # whose weights come back up to a rounding


@pytest.mark.slow
@pytest.mark.parametrize("name", PANELS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_no_setting_leaves_anything_behind(name, data):
    """A walk through settings ends at the very picture that a fresh panel has there."""
    walked, fresh = make(name), make(name)
    moves = {knob: values_of(control) for knob, control in walked.controls.items() if not control.disabled}
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


@every_panel
def test_pin_and_unpin(panel):
    (knob, begun, other), plain = first_move(panel), png(panel)
    panel.pin()
    assert panel.pin_button.description == "unpin"
    move(panel, knob, other)
    with_ghost = png(panel)
    panel.pin()
    assert (panel.pinned, panel.pin_button.description) == (None, "pin")
    without = png(panel)
    difference = np.abs(pixels(with_ghost).astype(int) - pixels(without)).sum(-1)
    assert 0 < (difference > 0).mean() < 0.2  # lines, not a new picture
    move(panel, knob, begun)
    assert png(panel) == plain or hasattr(panel, "run")  # whose weights come back up to a rounding


@pytest.mark.parametrize("panel", ["gain_explorer", "patients", "training_lab"], indirect=True)  # one of each class
def test_an_exception_is_seen_and_the_next_good_move_clears_it(panel):
    (knob, begun, other), good, read = first_move(panel), png(panel), panel.read

    def broken(**setting):
        raise RuntimeError("the <well> is dry")

    panel.read = broken
    panel.controls[knob].value = other
    assert 'role="alert"' in panel.message.value
    assert "RuntimeError: the &lt;well&gt; is dry (in broken, line" in panel.message.value
    assert png(panel) == good
    panel.read = read
    move(panel, knob, begun)
    assert png(panel) == good or hasattr(panel, "run")
    move(panel, knob, other)
    assert png(panel) != good
    move(panel, knob, begun)


def test_an_exception_in_the_middle_of_drawing_leaves_no_half_drawn_picture(gain):
    good, draw = png(gain), gain.board.pictures[1]

    def broken(reading, ax):
        draw(reading, ax)
        ax.plot([0, 1], [1, 1])
        raise ValueError("no ink")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PICTURES, "std by depth", broken)
        gain.controls["depth"].value = 9
        assert "no ink" in gain.message.value
        assert png(gain) == good
    move(gain, "depth", 6)
    assert png(gain) == good


@pytest.mark.parametrize("change", ["ylabel", "xticks", "ylim", "legend", "yscale"])
def test_whatever_changes_of_the_frame_is_redrawn(change):
    """A picture written without care: the board sees by itself what no longer stands still."""

    def draw(reading, ax):
        ax.plot([1, 2], [1, 2], label=f"line {reading}" if change == "legend" else "line")
        ax.set(xlim=(0, 3), ylim=(1, 3))
        if change == "legend":
            ax.legend()
        else:
            value = {"ylabel": f"y{reading}", "xticks": [reading], "ylim": (1, 3 + reading)}
            ax.set(**{change: value.get(change, "log" if reading else "linear")})

    board = board_module.Board([draw], figsize=(4, 3), margins=dict(left=0.2))
    first, second = board.render(0), board.render(1)
    assert first != second == board_module.Board([draw], figsize=(4, 3), margins=dict(left=0.2)).render(1)
    assert board.render(0) == first


@pytest.mark.parametrize("key", ["id", "code"])  # JupyterLab names the cell, others don't
def test_running_a_cell_again_closes_what_it_opened_before(monkeypatch, key):
    shell = SimpleNamespace(execution_count=1, cell="a")  # as much of IPython's shell as a panel looks at
    shell.get_parent = lambda: (
        {"metadata": {"cellId": shell.cell}} if key == "id" else {"content": {"code": shell.cell}}
    )
    monkeypatch.setattr(panel_module, "get_ipython", lambda: shell)
    monkeypatch.setattr(panel_module, "_open", {})
    monkeypatch.setattr(panel_module, "gc", SimpleNamespace(collect=lambda: None))  # slow, and measured below

    def small():
        return panel_module.Panel(lambda: None, [lambda reading, ax: None], [], alt="")

    first, twin = small(), small()  # two in one cell live together
    shell.cell, shell.execution_count = "b", 2
    other = small()
    assert not any(panel.comm is None for panel in (first, twin, other))
    shell.cell, shell.execution_count = "a", 3
    again = small()
    assert [panel.comm is None for panel in (first, twin, other, again)] == [True, True, False, False]
    other.close()
    again.close()


@pytest.fixture(scope="module")
def run():
    """run(code, expression) in a kernel of its own: code as a cell, and the value of an expression afterwards.

    The same code is the same cell.
    """
    with run_kernel(kernel_name="python3") as client:

        def run(code, expression="None"):
            options = dict(user_expressions={"value": expression}, allow_stdin=False, timeout=120)
            reply = client.execute_interactive(code, output_hook=lambda message: None, **options)["content"]
            assert reply["status"] == "ok", reply
            return literal_eval(reply["user_expressions"]["value"]["data"]["text/plain"])

        run("import gc, psutil, torch; from ipywidgets.widgets.widget import _instances; torch.set_num_threads(1)")
        run(f"from helpers.widgets import {', '.join(PANELS)}; import sys")
        run(
            "sys.modules['helpers.widgets.clinic'].STEPS = 40; sys.modules['helpers.widgets.training_lab'].SECONDS = 0.001"
        )
        yield run


def memory_and_widgets(run):
    """(MB of memory, living widgets)"""
    run("gc.collect();")
    return run("", "(psutil.Process().memory_info().rss / 1e6, len(_instances))")


CELLS = [f"{name}()" for name in PANELS] + ["display(gain_explorer())"]  # Out keeps the first kind, not the other


@pytest.mark.slow
@pytest.mark.parametrize("code", [*CELLS, "lab = training_lab(); lab.clock.playing = True; lab.clock.value += 1; lab"])
def test_a_cell_that_runs_again_keeps_no_memory(run, code, runs=10):
    for _ in range(3):
        run(code)
    growth = []
    for _ in range(2):  # a leak is there both times; the allocator's next step is not
        begun, widgets = memory_and_widgets(run)
        for _ in range(runs):
            run(code)
        ended, widgets_then = memory_and_widgets(run)
        assert widgets_then == widgets
        growth.append((ended - begun) / runs)
        if growth[-1] < 0.5:  # MB
            break
    assert min(growth) < 0.5, growth


def test_callbacks_in_several_threads_at_once_do_not_blank_the_picture():
    """JupyterLab may run callbacks beside the cells, in a thread of their own."""
    one, two = make("gain_explorer"), make("batch_norm_explorer")
    good_one, good_two = png(one), png(two)

    def walk(panel, knob, values):
        for value in values:
            panel.controls[knob].value = value

    threads = [
        threading.Thread(target=walk, args=(one, "depth", [2, 9, 6])),
        threading.Thread(target=walk, args=(one, "right picture", ["gradients by layer", "std by depth"] * 2)),
        threading.Thread(target=walk, args=(two, "batch size", [2, 32, 5] * 2)),
        threading.Thread(target=walk, args=(two, "gamma", [0.0, 2.0, 1.0] * 2)),
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


READS = {  # what reads, and what its controls say
    "gain_explorer": (
        read_network,
        {"init gain": 0.5, "depth": 4, "width": 50, "nonlinearity": "relu", "batch norm": True, "seed": 9},
    ),
    "first_look": (read_first_look, {"W1 scale": 0.2, "W2 scale": 0.01, "seed": 3}),
    "logit_explorer": (
        lambda logit_0, label, scale: read_logits([logit_0, 0, 5, 0], label, scale=scale),
        {"logit 0": 4.0, "label": 0, "scale": 2.0},
    ),
    "batch_norm_explorer": (read_batch_norm, {"gamma": -1.0, "batches seen": 20}),
    "patients": (read_patient, {"patient": 9}),
    "clinic_explorer": (read_case, {"patient": 9}),
    "update_ratio_explorer": (partial(read_update_ratios, steps=10), {"1/sqrt(fan_in)": False, "learning rate": 1.0}),
}


@pytest.mark.parametrize("panel", READS, indirect=True)
def test_the_picture_is_that_of_the_ordinary_function_at_what_the_controls_say(panel):
    read, said = READS[panel.name]
    begun = {knob: panel.controls[knob].value for knob in said}
    for setting in said, begun:  # moved back in the end
        with undrawn(panel):
            for knob, value in setting.items():
                move(panel, knob, value)
        panel.redraw()
        named = {knob: knob.removeprefix("1/sqrt(").rstrip(")").lower().replace(" ", "_") for knob in setting}
        assert png(panel) == panel.board.render(read(**{named[knob]: value for knob, value in setting.items()}))


@every_panel
def test_used_and_closed_it_leaves_nothing_behind(panel):
    """The last of those that share a panel."""
    alive, before = panel.alive, panel.before
    if "seed" in panel.moves:
        seed = panel.controls["seed"].value
        press(panel, "new seed")
        assert panel.controls["seed"].value != seed
    panel.pin()
    panel.close()
    assert set(ipywidgets.widgets.widget._instances) <= alive
    assert "Run the cell" in panel._repr_mimebundle_()[0]["text/plain"]  # shown again, it says what to do
    panel.update()  # a callback that was on its way
    panel.pin()
    panel.close()
    assert session() == before


def test_the_pictures_of_gain_explorer_are_named_and_two(gain):
    move(gain, "left picture", "update:data by layer")
    assert gain.board.pictures == [PICTURES["update:data by layer"], PICTURES["std by depth"]]
    for wrong in ("activations by layer", "loss"), ("std by depth",):
        with pytest.raises(ValueError, match="choose two of activations by layer"):
            panels.gain_explorer(pictures=wrong)
    knob = gain_slider(1.0)  # the telling gains are among its values
    steps = (np.array([0.5, 1.0, 5 / 3, 3.0, 5.0]) - knob.min) / knob.step
    assert steps == pytest.approx(steps.round(), abs=1e-9)


def test_diagnoses_warnings_are_shown_but_not_all(gain):
    move(gain, "init gain", 5.0)
    assert len(gain.reading.warnings) > panel_module.WARNINGS
    assert gain.message.value.count("diagnose says") == panel_module.WARNINGS
    assert f"{len(gain.reading.warnings) - panel_module.WARNINGS} warnings more" in gain.message.value


def test_27_logits_are_drawn_from_the_seed_and_4_stand_on_sliders():
    panel = make("logit_explorer")
    seed, logit, label = (panel.controls[name] for name in ("seed", "logit 0", "label"))
    assert seed.disabled and not logit.disabled
    for knob, value in {"how many": 27, "label": 26, "seed": 4}.items():
        move(panel, knob, value)
    assert panel.reading.loss == pytest.approx(read_logits(None, 26, seed=4).loss)
    assert logit.disabled and not seed.disabled
    move(panel, "how many", 4)
    assert label.value == panel.reading.label == 3
    panel.close()


def test_play_moves_the_step_and_the_step_moves_play():
    panel = make("valley_explorer")
    play = next(child for child in panel.children[1].children if isinstance(child, ipywidgets.Play))
    end = png(panel)
    play.value = 7
    assert (panel.controls["step"].value, panel.reading.step) == (7, 7) and png(panel) != end
    move(panel, "step", 30)
    assert play.value == 30  # it goes on from there
    panel.close()
    play.value = 8  # a tick that was on its way


def test_the_walkers_are_torchs_optimizers():
    """In a turned valley, step by step; RMSprop but for its running square, which torch does not correct."""
    how = dict(learning_rate=0.05, momentum=0.8, turn=30, loss_times=3.0)
    reading, axes = read_valley(**how), torch.tensor(axes_of(30))
    optimizers = {
        "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8),
        "Adam": lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.999)),
        "RMSprop": lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.0, 0.999)),
    }
    for name, make_optimizer in optimizers.items():
        at = torch.nn.Parameter(torch.tensor(reading.paths[name][0]))
        optimizer = make_optimizer([at])
        for expected, height in zip(reading.paths[name], reading.heights[name], strict=True):
            assert at.detach().numpy() == pytest.approx(expected, abs=1e-9)
            loss = 3 * 0.5 * ((axes @ at) ** 2 @ torch.tensor(CURVATURE))
            assert loss.item() == pytest.approx(3 * height)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test_the_alt_text_says_what_is_set():
    assert panels.batch_norm_explorer(batch_size=32, momentum=0.01).alt.startswith("32 numbers")


@pytest.fixture(scope="module")
def opened():
    panel = panels.training_lab()
    yield panel
    panel.close()


class TestTrainingLab:
    @pytest.fixture
    def lab(self, opened):
        """A panel at step 0, as it is opened."""
        yield opened
        vars(opened.run).pop("advance", None)
        with undrawn(opened):
            for name, value in {"network": "deep", "learning rate": 0.1, "init gain": 5 / 3}.items():
                opened.controls[name].value = value
            opened.run.reset()
        press(opened, "reset")

    def test_start_pause_and_reset(self, lab):
        fresh = png(lab)
        lab.clock.value += 1  # a tick that was on its way
        assert lab.run.losses == [] and can_be_pressed(lab) == ["start", "reset", "pin"]
        press(lab, "start")
        lab.clock.value += 1
        steps = len(lab.run.losses)
        assert steps > 0 and png(lab) != fresh and can_be_pressed(lab) == ["pause", "reset", "pin"]
        press(lab, "pause")
        lab.clock.value += 1
        assert len(lab.run.losses) == steps and not lab.clock.playing
        press(lab, "start")
        lab.clock.value += 1
        assert len(lab.run.losses) > steps
        press(lab, "reset")
        assert (lab.run.losses, lab.clock.playing) == ([], False) and png(lab) == fresh

    def test_learning_rate_and_gain_act_on_the_run(self, lab):
        lab.run.advance(10)
        move(lab, "learning rate", 0.01)
        move(lab, "init gain", 1.0)
        assert (lab.run.learning_rate, lab.run.gain) == pytest.approx((0.01, 1.0))
        assert len(lab.run.losses) == 10  # the run goes on

    def test_another_network_starts_afresh_at_its_own_gain(self, lab):
        lab.run.advance(10)
        press(lab, "start")
        move(lab, "network", "deep, batch norm")
        assert (lab.run.network, lab.run.losses, lab.run.gain) == ("deep, batch norm", [], 1.0)
        assert lab.controls["init gain"].value == pytest.approx(1.0) and not lab.clock.playing

    def test_a_blow_up_is_explained_and_training_stops(self, lab):
        move(lab, "network", "deep, linear")
        move(lab, "learning rate", 1.0)
        press(lab, "start")
        lab.clock.value += 1
        assert lab.run.failed and not lab.clock.playing
        assert "no longer a finite number" in lab.message.value and "learning rate 1 " in lab.message.value
        press(lab, "reset")
        assert lab.message.value.count("finite") == 0
        move(lab, "learning rate", 0.01)
        press(lab, "start")
        lab.clock.value += 1
        assert not lab.run.failed

    def test_an_exception_while_training_stops_it_and_is_shown(self, lab):
        def broken():
            raise RuntimeError("out of chalk")

        lab.run.advance = broken
        press(lab, "start")
        lab.clock.value += 1
        assert "out of chalk" in lab.message.value and not lab.clock.playing

    def test_close_stops_the_training(self):
        lab = panels.training_lab()
        press(lab, "start")
        run, clock = lab.run, lab.clock
        lab.close()
        clock.value += 1
        assert run.losses == []
