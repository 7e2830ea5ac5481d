"""What every slider panel is made of: controls, pictures redrawn by blitting, a place for errors.

A new panel is one file, as short as logits.py, and its import in __init__.py. The file has four parts:
1. `read_…(*, gain, seed)`, an ordinary function: it gets the controls' values and returns a *reading*, mostly a
   SimpleNamespace. If the reading has `warnings`, a list of texts, they stand below the picture. What needs the names
   of the course takes default_splits().
2. `draw_…(reading, ax)`, its pictures: ordinary functions, which draw on an Axes of a cell as well. Each draws
   everything, with limits, labels and title. While limits, ticks and legend stay equal, only lines, bars and texts are
   drawn again, over a saved background. So let limits change in steps (`up`, `decades` of board.py).
3. controls: `slider(name, sentence, value, low, high, step)`, `choice`, `switch`, `seed_control`. Each hands its value
   to `read` as the argument of its name ("init gain" is `init_gain`). A seed control brings its own "new seed" button.
4. `def …_explorer(): return Panel(read, [draw, draw], controls, alt="…")`, the one line that opens it.
tests/test_widgets.py tries every panel without a further line: every control, pin, errors, re-runs, memory.
"""

import base64
import gc
import html
import random
import threading
import traceback
from contextlib import contextmanager
from functools import cache, partial

import ipywidgets as widgets
from IPython import get_ipython

from helpers.data import load_splits
from helpers.plots import VERMILION
from helpers.widgets.board import Board

WARNINGS = 3  # that are shown; the others are counted
# JupyterLab may run callbacks in another thread than cells, and matplotlib is not made for two threads.
_drawing = threading.RLock()
# Two columns beside a sidebar, so that controls and picture stand on one screen; one column where there is no room.
GRID = {"grid_template_columns": "repeat(auto-fill, minmax(min(100%, 400px), 1fr))", "max_width": "1000px"}
# When the kernel is gone, ipywidgets puts an icon before every part, which breaks the grid: one sentence instead.
GONE = """<style>.slider-panel .jupyter-widgets-disconnected::before { display: none }
.slider-panel.jupyter-widgets-disconnected::before { font: inherit; content: "Not connected: run the cell." }</style>"""
_open = {}  # cell -> (execution count, the panels that it opened)
default_splits = cache(load_splits)


class Panel(widgets.VBox):
    """Controls, the pictures of a reading, and what went wrong, if anything did.

    read: what the controls' values are handed to. pictures: functions draw(reading, ax); or a dict of them by name, of
    which two are shown at a time, at first those named by `shown`. controls: widgets made below; buttons: others. alt:
    the pictures in words. layout: as in Board. Running a cell again closes what it opened before.
    """

    def __init__(self, read, pictures, controls, *, alt, shown=(), buttons=(), **layout):
        if shown and (len(shown) != 2 or set(shown) - set(pictures)):
            raise ValueError(f"pictures is {shown!r}: choose two of {', '.join(pictures)}")
        _close_those_of_an_earlier_run(self)
        self.read, self.alt, self.pictures, self.settings = read, alt, pictures, controls
        self.halves = []  # the controls that choose what is shown on the left and on the right
        for side, name in zip(("left", "right"), shown, strict=False):
            says = f"What the {side} half shows."
            self.halves.append(choice(f"{side} picture", says, name, options=list(pictures)))
        self.board = Board([pictures[name] for name in shown] or pictures, **layout)
        self.controls = {control.description: control for control in [*controls, *self.halves]}
        self.reading = self.pinned = None
        self.picture = widgets.Image(format="png", layout={"width": "1000px", "max_width": "100%"})
        self.message = widgets.HTML()
        self.pin_button = button("pin", "Keep the present setting as faint lines to compare with.", self.pin)
        seeds = [control for name, control in self.controls.items() if name == "seed"]
        new_seeds = [dice("new seed", "Draw all random numbers anew.", seed) for seed in seeds]
        row = [*buttons, *new_seeds, self.pin_button]
        row = widgets.HBox(row, layout={"flex_flow": "row wrap"})  # without it, buttons with long names are cut
        boxes = [widgets.VBox([control, control.says]) for control in self.controls.values()]
        gone = widgets.HTML(GONE, layout={"display": "none"})
        super().__init__([widgets.GridBox(boxes, layout=GRID), row, self.picture, self.message, gone])
        self.add_class("slider-panel")
        for control in self.controls.values():
            control.observe(self.update, "value")
        self.update()

    def update(self, change=None):
        """Read again what the controls say, unless only a picture was chosen, and redraw."""
        with self.errors_shown():
            if change is None or change.owner not in self.halves:
                self.reading = self.read(**{control.argument: control.value for control in self.settings})
            self.redraw()

    def redraw(self):
        self.board.pictures = [self.pictures[half.value] for half in self.halves] or self.pictures
        self.picture.value = self.board.render(self.reading, self.pinned)
        self.message.value = as_lines(self.says())

    def says(self):
        """The lines below the picture: what diagnose says of it."""
        warnings = getattr(self.reading, "warnings", [])
        lines = [f"diagnose says: {text}" for text in warnings[:WARNINGS]]
        return lines + [f"and {len(warnings) - WARNINGS} warnings more"] * (len(warnings) > WARNINGS)

    def pin(self):
        """Keep the present reading faintly behind all later ones, or let the one that is kept go."""
        with self.errors_shown():
            self.pinned = self.reading if self.pinned is None else None
            self.pin_button.description = "pin" if self.pinned is None else "unpin"
            self.redraw()

    @contextmanager
    def errors_shown(self):
        """One callback at a time; an exception would only reach Jupyter's log: show it in the panel instead."""
        try:
            with _drawing:
                yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the learner should see it
            if self.comm is None:
                return  # a callback that was on its way when the panel closed
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.message.value = alert(f"{type(error).__name__}: {error} (in {where.name}, line {where.lineno})")

    def close(self):
        """Close all widgets and let go of all that is large: IPython's Out keeps the panel itself for ever."""
        if self.comm is not None:
            _close(self)
        vars(self).pop("_repr_mimebundle_", None)  # ipywidgets puts None there; ours has a message
        self.children = ()
        for name in [name for name in vars(self) if not name.startswith("_")]:
            setattr(self, name, None)

    def _repr_mimebundle_(self, **options):
        """The live view, and beside it a still picture for those who read without a kernel."""
        if self.comm is None:
            text = "This panel was closed when its cell ran again, or by close(). Run the cell to open a new one."
            return {"text/plain": text}, {}
        data = super()._repr_mimebundle_(**options)
        still = base64.b64encode(self.picture.value).decode()
        return {**data, "image/png": still}, {"image/png": {"alt": self.alt, "width": 1000}}


def _close(widget):
    """Close a widget with all that it holds: each is an object in the browser too."""
    for part in (*getattr(widget, "children", ()), getattr(widget, "style", None), getattr(widget, "layout", None)):
        if part is not None:
            _close(part)
    widget.unobserve_all()
    widgets.Widget.close(widget)


def _close_those_of_an_earlier_run(panel):
    """Close what this very cell opened the last time it ran, or every re-run would keep another panel."""
    if (shell := get_ipython()) is None:
        return
    request = shell.get_parent() or {}
    # JupyterLab and VS Code name the cell; for others, the same code is the same cell.
    cell = request.get("metadata", {}).get("cellId") or request.get("content", {}).get("code")
    count, panels = _open.get(cell, (None, []))
    if panels and count != shell.execution_count:
        for old in panels:
            old.close()
        gc.collect()  # figures hold each other in circles: without it their pixels stay, 7 MB per run, for long
        panels = []
    _open[cell] = (shell.execution_count, [*panels, panel])


def as_lines(texts):
    return "".join(f"<div>{html.escape(text)}</div>" for text in texts)


def alert(text):
    """What went wrong, seen on light and dark pages, and read aloud by a screen reader."""
    edge = f"border-left: 4px solid {VERMILION}; padding-left: 8px"
    return f'<div role="alert" style="{edge}"><b>{html.escape(text)}</b></div>'


def control(kind, name, says, value, *, argument=None, **options):
    """A widget that carries its name in words, a sentence of what it does, and the argument of `read` that it gives."""
    look = dict(style={"description_width": "115px"}, layout={"width": "auto"})
    widget = kind(description=name, tooltip=says, value=value, **look, **options)
    note = f'<div style="font-size: 85%; line-height: 1.3; opacity: 0.75">{html.escape(says)}</div>'
    above = -4 if "Slider" in kind.__name__ or kind is widgets.Checkbox else 0  # these leave room below themselves
    widget.says = widgets.HTML(note, layout={"margin": f"{above}px 0 6px 123px"})
    widget.argument = argument or name.replace(" ", "_").lower()
    return widget


def slider(name, says, value, low, high, step, **options):
    """Whole numbers if `step` is one."""
    kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    return control(kind, name, says, value, min=low, max=high, step=step, **options)


def log_slider(name, says, value, low, high, digits):
    """From 10**low to 10**high, ten steps per decade; so many digits are shown."""
    return control(widgets.FloatLogSlider, name, says, value, min=low, max=high, readout_format=f".{digits}g")


choice = partial(control, widgets.Dropdown)  # name, sentence, value, options=a list
switch = partial(control, widgets.Checkbox)  # name, sentence, value
_seed = partial(control, widgets.BoundedIntText, min=0, max=2**32 - 1)
seed_control = partial(_seed, "seed", "Where the random numbers come from.")  # value


def button(name, says, on_click):
    """A button; on_click takes no arguments."""
    made = widgets.Button(description=name, tooltip=says, layout={"width": "auto"})
    made.on_click(lambda _: on_click())
    return made


def dice(name, says, control):
    """A button that gives a control any of its values; Python's own random state is left alone."""
    draw = random.SystemRandom().randint
    made = button(name, says, lambda: control.set_trait("value", draw(control.min, control.max)))
    widgets.dlink((control, "disabled"), (made, "disabled"))
    return made
