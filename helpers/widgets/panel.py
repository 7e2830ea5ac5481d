"""What every slider panel is made of: named controls, a picture redrawn by blitting, and a place for errors.

A panel shows one `reading` (what an ordinary function returned for the controls' values) in a few pictures.
When a control moves, only the artists that move are drawn again, over a saved background: about four times
faster than a whole new figure, so the picture follows the hand.
"""

import copy
import html
import io
import struct
import threading
import traceback
import zlib
from contextlib import contextmanager

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
from IPython import get_ipython
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from helpers.plots import STYLE, small_png
from helpers.widgets.knobs import button

__all__ = ["Board", "Panel"]

LOOK = STYLE | {"axes.titlesize": 11}
PIXELS_PER_INCH = 150  # 1.5 times the size on the page: sharp on dense screens, quick to encode
MARGINS = dict(left=0.072, right=0.985, bottom=0.145, top=0.915, wspace=0.19)
WARNINGS = 3  # shown at a time
# JupyterLab may run widgets' callbacks in a thread of their own, beside the cells', and matplotlib is not made for two.
_drawing = threading.RLock()
_open = {}  # cell id -> (execution count, the panels that it opened)


class Board:
    """A figure with a picture on each of its Axes, outside pyplot, which would keep it for ever.

    margins: as in Figure.subplots_adjust. They are fixed, so that nothing jumps when numbers grow longer, and the
    same reading gives the same bytes whatever was drawn before.
    """

    def __init__(self, pictures, *, figsize=(10, 3.8), mosaic=None, margins=MARGINS):
        with mpl.rc_context(LOOK):
            self.figure = Figure(figsize=figsize, dpi=PIXELS_PER_INCH, layout="none")
            self.canvas = FigureCanvasAgg(self.figure)
            if mosaic:
                self.axes = list(self.figure.subplot_mosaic(mosaic).values())
            else:
                self.axes = list(self.figure.subplots(1, len(pictures), squeeze=False)[0])
            self.figure.subplots_adjust(**margins)
            self.canvas.draw()  # makes the pixels
        self.pictures, self.background = list(pictures), None
        # Of each of the Axes: (picture, frame, the pixels of all that stands still), or None.
        self.built = [None] * len(self.pictures)

    def render(self, reading, pinned=None):
        """The PNG of a reading, as bytes; pinned: another one to draw faintly behind it."""
        for i, picture in enumerate(self.pictures):
            picture.pinned = pinned
            frame = picture.frame(reading)
            if self.built[i] is None or self.built[i][:2] != (picture, frame):
                self.built[i] = None  # whatever stops the drawing half-way, the next one begins anew
                self.background = None
                self.built[i] = picture, frame, self._still(i, reading)
        if self.background is None:
            # Side by side, on white: of two pixels at one place the darker one is drawn on.
            self.background = np.minimum.reduce([pixels for *_, pixels in self.built])
        pixels = np.asarray(self.canvas.buffer_rgba())
        pixels[:] = self.background
        for picture, ax in zip(self.pictures, self.axes, strict=True):
            picture.move(reading)
            for artist in picture.moving:
                ax.draw_artist(artist)
        return _png(pixels)

    def _still(self, i, reading):
        """Draw all that stands still on one of the Axes: the pixels."""
        picture, ax = self.pictures[i], self.axes[i]
        with mpl.rc_context(LOOK):
            ax.clear()
            picture.build(ax, reading)
            picture.move(reading)
            for artist in picture.moving:
                artist.set_animated(True)
            for other in self.axes:
                other.set_visible(other is ax)
            self.canvas.draw()
        for other in self.axes:
            other.set_visible(True)
        return np.array(self.canvas.buffer_rgba())


def _png(pixels):
    """A PNG of (height, width, 4) bytes: three times as fast as Pillow's, which tries five filters on every row."""
    height, width, _ = pixels.shape
    rows = np.empty((height, 1 + 4 * width), np.uint8)
    rows[:, 0] = 2  # each row as its difference to the one above
    flat = pixels.reshape(height, -1)
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)  # 8 bits each of red, green, blue, alpha
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")
    chunks = (struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class Panel(widgets.VBox):
    """Controls, a picture of `reading()`, and what went wrong, if anything did.

    controls: {name: widget}, made by helpers.widgets.knobs. read(**values by name, blanks as underscores) -> a reading,
    an ordinary function that works without any widget. board: the Board that draws it. alt: what the picture
    shows, for those who can't see it. note: a sentence beside the buttons. Running the same cell
    again closes the panel that it opened before.
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
