"""What every slider panel is made of: named controls, a picture redrawn by blitting, and a place for errors.

A panel shows one `reading` (what an ordinary function returned for the controls' values) in a few pictures.
When a control moves, only the artists that move are drawn again, over a saved background: about four times
faster than a whole new figure, so the picture follows the hand.
"""

import copy
import html
import io
import threading
import traceback
from contextlib import contextmanager

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
from IPython import get_ipython
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from helpers.plots import STYLE, small_png

__all__ = ["Board", "Panel", "button", "control"]

LOOK = STYLE | {"axes.titlesize": 11}
PIXELS_PER_INCH = 150  # 1.5 times the size on the page: sharp on dense screens, quick to encode
WARNINGS = 3  # shown at a time
# JupyterLab may run widgets' callbacks in a thread of their own, beside the cells', and matplotlib is not made for two.
_drawing = threading.RLock()
_open = {}  # cell id -> (execution count, the panels that it opened)


class Board:
    """A figure with a picture on each of its Axes, outside pyplot, which would keep it for ever."""

    def __init__(self, pictures, *, figsize=(10, 3.8), mosaic=None):
        with mpl.rc_context(LOOK):
            self.figure = Figure(figsize=figsize, dpi=PIXELS_PER_INCH)
            self.canvas = FigureCanvasAgg(self.figure)
            if mosaic:
                self.axes = list(self.figure.subplot_mosaic(mosaic).values())
            else:
                self.axes = list(self.figure.subplots(1, len(pictures), squeeze=False)[0])
        self.pictures, self.frames = list(pictures), None

    def render(self, reading, pinned=None):
        """The PNG of a reading, as bytes; pinned: another one to draw faintly behind it."""
        for picture in self.pictures:
            picture.pinned = pinned
        frames = [(picture, picture.frame(reading)) for picture in self.pictures]
        if frames != self.frames:
            self.frames = None  # whatever stops the drawing half-way, the next one begins anew
            self._build(reading)
            self.frames = frames
        self.canvas.restore_region(self.background)
        for picture, ax in zip(self.pictures, self.axes, strict=True):
            picture.move(reading)
            for artist in picture.moving:
                ax.draw_artist(artist)
        buffer = io.BytesIO()
        pixels = np.asarray(self.canvas.buffer_rgba())[..., :3]
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "png", compress_level=1)
        return buffer.getvalue()

    def _build(self, reading):
        """Draw all that stands still, and keep it as the background."""
        with mpl.rc_context(LOOK):
            for picture, ax in zip(self.pictures, self.axes, strict=True):
                ax.clear()
                picture.build(ax, reading)
                picture.move(reading)
                for (
                    artist
                ) in picture.moving:  # where they happen to be must not shape the layout; titles don't
                    artist.set_in_layout(artist is getattr(picture, "heading", None))
            self.figure.set_layout_engine("constrained")
            self.figure.draw_without_rendering()  # places the Axes
            self.figure.set_layout_engine("none")
            for picture in self.pictures:
                for artist in picture.moving:
                    artist.set_animated(True)
            self.canvas.draw()
        self.background = self.canvas.copy_from_bbox(self.figure.bbox)


def control(kind, name, says, **options):
    """A widget that carries its name in words and a sentence of what it does."""
    style = {"description_width": "115px"}
    widget = kind(description=name, style=style, tooltip=says, layout={"width": "490px"}, **options)
    note = f'<div style="font-size: 85%; line-height: 1.3; opacity: 0.75">{html.escape(says)}</div>'
    above = -4 if "Slider" in kind.__name__ or kind is widgets.Checkbox else 0  # they leave room below them
    widget.says = widgets.HTML(note, layout={"margin": f"{above}px 0 6px 123px", "width": "365px"})
    return widget


def button(name, says, on_click, **options):
    """A button; on_click takes no arguments."""
    made = widgets.Button(description=name, tooltip=says, layout={"width": "auto"}, **options)
    made.on_click(lambda _: on_click())
    return made


class Panel(widgets.VBox):
    """Controls, a picture of `reading()`, and what went wrong, if anything did.

    controls: {name: widget}, made with `control`. read(**values by name, blanks as underscores) -> a reading,
    an ordinary function that works without any widget. board: the Board that draws it. alt: what the picture
    shows, for those who can't see it. note: a sentence beside the buttons. Running the same cell again closes the panel that it opened before.
    """

    def __init__(self, controls, read, board, *, alt, buttons=(), note=""):
        _close_those_of_an_earlier_run(self)
        self.controls, self.read, self.board, self.alt = controls, read, board, alt
        self.reading = self.pinned = None
        self.picture = widgets.Image(format="png", layout={"width": "1000px", "max_width": "100%"})
        self.message = widgets.HTML()
        boxes = [widgets.VBox([widget, widget.says]) for widget in controls.values()]
        grid = widgets.Box(boxes, layout={"flex_flow": "row wrap", "max_width": "1000px"})
        self.pin_button = button("pin", "Keep the present setting as faint lines to compare with.", self.pin)
        row = widgets.HBox([*buttons, self.pin_button, *([widgets.HTML(note)] if note else [])])
        super().__init__([grid, row, self.picture, self.message])
        for widget in controls.values():
            widget.observe(lambda _: self.update(), "value")
        self.update()

    def values(self):
        """What the controls say, as keyword arguments for `read`."""
        return {name.replace(" ", "_"): widget.value for name, widget in self.controls.items()}

    def update(self):
        """Read again and redraw."""
        with self.errors_shown():
            self.reading = self.read(**self.values())
            self.redraw()

    def redraw(self):
        self.picture.value = self.board.render(self.reading, self.pinned)
        warnings = getattr(getattr(self.reading, "diagnosis", None), "warnings", [])
        lines = [f"diagnose says: {text}" for text in warnings[:WARNINGS]]
        lines += [f"and {len(warnings) - WARNINGS} warnings more"] if len(warnings) > WARNINGS else []
        self.message.value = "".join(f"<div>{html.escape(line)}</div>" for line in lines)

    def pin(self):
        """Keep the present reading faintly behind all later ones, or let the one that is kept go."""
        with self.errors_shown():
            self.pinned = copy.deepcopy(self.reading) if self.pinned is None else None
            self.pin_button.description = "pin" if self.pinned is None else "unpin"
            self.redraw()

    @contextmanager
    def errors_shown(self):
        """One callback at a time; an exception would only reach Jupyter's log: show it in the panel instead."""
        try:
            with _drawing:
                yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the learner should see it
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error} (in {where.name}, line {where.lineno})"
            self.message.value = f'<div role="alert" style="color: #a33b00"><b>{html.escape(text)}</b></div>'

    def close(self):
        for child in self.children:
            _close(child)
        self.layout.close()
        super().close()

    def _repr_mimebundle_(self, **options):
        """The live view, and beside it a still picture for those who read without a kernel."""
        data = super()._repr_mimebundle_(**options)
        still = small_png(io.BytesIO(self.picture.value))
        return {**data, "image/png": still}, {"image/png": {"alt": self.alt, "width": 1000}}


def _close(widget):
    """Close a widget with all that it holds: each is an object in the browser too."""
    for child in getattr(widget, "children", ()):
        _close(child)
    widget.unobserve_all()
    for part in (getattr(widget, "style", None), widget.layout, widget):
        if part is not None:
            part.close()


def _close_those_of_an_earlier_run(panel):
    """Close what this very cell opened the last time it ran, or every re-run would keep another panel."""
    shell = get_ipython()
    if shell is None:
        return
    cell = (shell.get_parent() or {}).get("metadata", {}).get("cellId")
    count, panels = _open.get(cell, (None, []))
    if count != shell.execution_count:
        for old in panels:
            old.close()
        panels = []
    _open[cell] = (shell.execution_count, [*panels, panel])
