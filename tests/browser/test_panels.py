"""Every panel, turned by keyboard and by hand in a real JupyterLab."""

import re
from ast import literal_eval

import pytest
from serving import KERNEL

from helpers import widgets

GAIN = "from helpers.widgets import gain_explorer\npanel = gain_explorer()\npanel"
PANELS = widgets.__all__  # a new panel is tried without another line here


def number(text):
    return float(re.sub(r"[^0-9.eE+-]", "", text.replace("−", "-")))


def knob(opened, name):
    return opened.control(name).locator(".noUi-handle")


def shown(opened, name):
    return number(opened.control(name).locator(".widget-readout").inner_text())


def kept(opened, name):
    return float(opened.value(f"panel.controls[{name!r}].value"))


def message(opened):
    return opened.value("panel.message.value")


def at_its_end(opened, name):
    """A slider that can't go further to the right. (A logarithmic one's max is an exponent.)"""
    return opened.value(f"panel.controls[{name!r}].value == panel.controls[{name!r}].max") == "True"


def moved_by_keyboard(opened, name):
    before = kept(opened, name)
    with opened.redraws():
        knob(opened, name).press("ArrowLeft" if at_its_end(opened, name) or name == "label" else "ArrowRight")
    assert kept(opened, name) != before
    assert shown(opened, name) == pytest.approx(kept(opened, name), rel=0.02, abs=0.006), name


def chosen_by_keyboard(opened, name):
    select = opened.control(name).locator("select")
    options = select.locator("option").all_inner_texts()
    wanted = next(option for option in reversed(options) if option[0] != select.input_value()[0])
    with opened.redraws():
        select.focus()
        opened.page.keyboard.type(wanted[0])
    assert opened.value(f"str(panel.controls[{name!r}].value)") == repr(select.input_value().replace("\xa0", " "))


def switched_by_keyboard(opened, name):
    before = opened.value(f"panel.controls[{name!r}].value")
    with opened.redraws():
        opened.control(name).locator("input").press("Space")
    assert opened.value(f"panel.controls[{name!r}].value") != before


def dragged(opened, name):
    before = kept(opened, name)
    box = knob(opened, name).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    at_end = at_its_end(opened, name)
    with opened.redraws():
        opened.page.mouse.move(x, y)
        opened.page.mouse.down()
        opened.page.mouse.move(x - 40 if at_end else x + 40, y, steps=15)
        opened.page.mouse.up()
    opened.page.wait_for_timeout(500)  # the last of the drag's values is on its way
    assert kept(opened, name) != before
    assert shown(opened, name) == pytest.approx(kept(opened, name), rel=0.02, abs=0.006)


@pytest.mark.parametrize("name", PANELS)
def test_every_control_works_and_says_what_it_does(notebook, name):
    opened = notebook(f"from helpers.widgets import {name}\npanel = {name}()\npanel")
    enabled = "{name: type(c).__name__ for name, c in panel.controls.items() if not c.disabled}"
    kinds = literal_eval(opened.value(enabled))
    for control in kinds:
        sentence = opened.value(f"panel.controls[{control!r}].tooltip").strip("'\"")
        assert len(sentence.split()) >= 2
        assert opened.page.get_by_text(sentence, exact=True).first.is_visible(), control
    if name == "training_lab":
        del kinds["learning rate"]  # takes effect at the next step only
    sliders = [control for control, kind in kinds.items() if "Slider" in kind]
    for slider in sliders:
        moved_by_keyboard(opened, slider)
    dragged(opened, sliders[0])
    for control, kind in kinds.items():
        if kind == "Dropdown":
            chosen_by_keyboard(opened, control)
        elif kind == "Checkbox":
            switched_by_keyboard(opened, control)
    assert "alert" not in message(opened)
    assert opened.errors() == []


def test_a_setting_is_pinned_and_an_exception_is_seen(notebook):
    opened = notebook(GAIN)
    press_knob(opened, "End")
    plain = opened.picture.screenshot()
    opened.page.get_by_role("button", name="pin", exact=True).press("Space")
    press_knob(opened, "Home")
    assert opened.value("panel.pinned.label") == "'gain 5.00'"
    with opened.redraws():
        opened.page.get_by_role("button", name="unpin", exact=True).press("Space")
    press_knob(opened, "End")
    assert opened.picture.screenshot() == plain  # the same draws, the same picture

    opened.do("def broken(**setting): raise RuntimeError('the well is dry')\npanel.read = broken")
    knob(opened, "init gain").press("ArrowLeft")
    alert = opened.page.get_by_role("alert").filter(has_text="the well is dry")
    alert.wait_for()
    assert "RuntimeError" in alert.inner_text()


def press_knob(opened, key):
    with opened.redraws():
        knob(opened, "init gain").press(key)
    opened.page.wait_for_timeout(500)


def test_a_panel_shown_after_its_cell_ran_again_says_so(notebook):
    later = "first = globals().get('first', panel)\nfirst"
    # JupyterLab leaves out what is far below.
    opened = notebook("from helpers.widgets import logit_explorer\npanel = logit_explorer()\npanel", later, height=1800)
    assert opened.page.locator(".widget-image").count() == 2  # two views of one panel
    opened.run_all()
    opened.page.get_by_text("Run the cell to open a new one").wait_for()
    assert opened.page.locator(".widget-image").count() == 1


def test_without_its_kernel_one_sentence_and_the_picture_stand_there(notebook):
    opened = notebook(GAIN)
    opened.page.evaluate(f"async () => {{ await {KERNEL}.restart() }}")
    lost = opened.page.locator(".slider-panel.jupyter-widgets-disconnected")
    lost.wait_for()
    icons = "[...e.querySelectorAll('.jupyter-widgets-disconnected')].map(part => getComputedStyle(part, '::before'))"
    displays = lost.evaluate(f"e => {icons}.map(icon => icon.display)")
    assert len(displays) > 10 and set(displays) == {"none"}
    assert "run the cell" in lost.evaluate("e => getComputedStyle(e, '::before').content")
    assert opened.picture.evaluate("image => image.naturalWidth") > 1000


def test_two_panels_in_one_notebook_live_side_by_side(notebook):
    cell = "panel = gain_explorer()\npanel"
    opened = notebook("from helpers.widgets import gain_explorer", cell, cell.replace("panel", "other"))
    assert opened.page.locator(".widget-image").count() == 2
    with opened.redraws():  # the first one's picture
        knob(opened, "init gain").press("ArrowRight")
    assert float(opened.value("other.controls['init gain'].value")) == pytest.approx(5 / 3)


def test_a_panel_stands_on_one_screen_and_is_not_cut_in_a_narrow_window(notebook):
    opened = notebook(GAIN)
    picture, first = opened.picture.bounding_box(), opened.control("init gain").bounding_box()
    assert picture["y"] + picture["height"] - first["y"] < 650  # of a laptop's 800, at 1400 pixels' width
    opened.page.set_viewport_size({"width": 760, "height": 1400})
    opened.page.wait_for_timeout(500)
    output = opened.page.locator(".jp-OutputArea-output").first.bounding_box()
    for part in [opened.control(name).bounding_box() for name in ("init gain", "seed", "right picture")]:
        assert output["x"] <= part["x"] and part["x"] + part["width"] <= output["x"] + output["width"]


def test_what_is_turned_while_the_kernel_is_busy_is_shown_afterwards(notebook):
    opened = notebook(GAIN)
    with opened.redraws():
        opened.page.evaluate(f"() => {{ {KERNEL}.requestExecute({{code: 'import time; time.sleep(2)'}}) }}")
        knob(opened, "init gain").focus()
        for _ in range(20):
            opened.page.keyboard.press("ArrowRight")
        turned = shown(opened, "init gain")
    opened.page.wait_for_timeout(500)
    assert turned > 2 and opened.value("panel.reading.label") == f"'gain {turned:.2f}'"


def test_training_starts_pauses_and_is_reset_and_another_cell_runs_meanwhile(notebook):
    opened = notebook("from helpers.widgets import training_lab\npanel = training_lab()\npanel", "answer = 6 * 7")
    steps = lambda: int(opened.value("len(panel.run.losses)"))
    button = lambda name: opened.page.get_by_role("button", name=name, exact=True)
    weights = "float(sum(p.double().abs().sum() for p in panel.run.model.parameters()))"
    fresh = opened.value(weights)
    with opened.redraws():
        button("start").press("Space")
    opened.do("answer = 2 * answer")
    assert opened.value("answer") == "84"  # the kernel answers while it trains
    first = steps()
    opened.page.wait_for_timeout(1500)
    assert steps() > first
    with opened.redraws():  # it shows the loss growing without anybody touching it
        opened.page.wait_for_timeout(100)
    with opened.redraws():  # the knobs work meanwhile
        knob(opened, "learning rate").press("ArrowLeft")
    assert float(opened.value("panel.run.learning_rate")) == pytest.approx(10**-1.1)
    button("pause").press("Space")
    opened.page.wait_for_timeout(300)
    paused = steps()
    opened.page.wait_for_timeout(700)
    assert steps() == paused > 0 and opened.value(weights) != fresh
    with opened.redraws():
        button("reset").press("Space")
    assert steps() == 0 and opened.value(weights) == fresh
    assert opened.errors() == []


def test_a_saved_page_that_is_opened_again_shows_its_panels(notebook):
    opened = notebook("from helpers.widgets import saturation_explorer\nsaturation_explorer()")
    opened.picture.wait_for()
    opened.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    opened.shut_down()
    opened.page.goto("about:blank")
    opened.open()
    opened.picture.wait_for()
    assert opened.control("W1 scale").is_visible()
