"""A board: the figure of a panel, its pictures redrawn by blitting; and what its pictures share.

Only the artists that move are drawn again, over a saved background: several times as fast as a whole new figure.
"""

import io
import math

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from helpers.plots import BLUE, GREEN, ORANGE, PURPLE, SKY, STYLE, VERMILION, layer_colors

# Fixed, because they are slow: hinting takes a quarter of a text's time, a title's height a third of a drawing's.
LOOK = STYLE | {"axes.titlesize": 11, "axes.titley": 1.0, "text.hinting": "none"}
PIXELS_PER_INCH = 150  # 1.5 times the size on the page: sharp on dense screens, quick to encode
MARGINS = dict(left=0.072, right=0.985, bottom=0.145, top=0.915, wspace=0.19)
DARK = "#1f3b57"  # the outputs of a tanh
FILLS = "#ffe2a3", "#cfe3f2", "#b5dfc9"  # boxes for the embedding, a Linear, a BatchNorm
# The 256 colours of all panels: greys, and tints of the course's colours, for faint fills and smooth edges.
_hues = np.array([to_rgb(hue) for hue in (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, DARK, *layer_colors(13))])
_share = np.linspace(0, 1, 11, endpoint=False)[:, None, None]
_colors = [np.linspace([0] * 3, [1] * 3, 33), list(map(to_rgb, FILLS)), (_hues * (1 - _share) + _share).reshape(-1, 3)]
PALETTE = Image.new("P", (1, 1))
PALETTE.putpalette((np.concatenate(_colors) * 255).round().astype(np.uint8).tobytes())


class Board:
    """A figure with one picture on each of its Axes, outside pyplot, which would keep it for ever.

    pictures: functions draw(reading, ax). margins: as in Figure.subplots_adjust, fixed, so that nothing jumps when
    numbers grow longer, and the same reading gives the same bytes whatever was drawn before.
    """

    def __init__(self, pictures, *, figsize=(10, 3.8), mosaic=None, margins=()):
        with mpl.rc_context(LOOK):
            self.figure = Figure(figsize=figsize, dpi=PIXELS_PER_INCH, layout="none")
            self.canvas = FigureCanvasAgg(self.figure)
            self.axes = list(self.figure.subplot_mosaic(mosaic or [list(range(len(pictures)))]).values())
            self.figure.subplots_adjust(**MARGINS | dict(margins))
        self.pictures = pictures
        self.drawn = [None] * len(pictures)  # on each of the Axes: (picture, pinned, its pinned artists)
        self.standing = [None] * len(pictures)  # what does not move on each; its pixels are self.background

    def render(self, reading, pinned=None):
        """The PNG of a reading, as bytes; pinned: another one to draw faintly behind it."""
        with mpl.rc_context(LOOK):
            changed = [self._draw(i, reading, pinned) for i in range(len(self.axes))]
            moving = [(ax, artist) for ax in self.axes for artist in _moving(ax)]
            if any(changed):
                for _, artist in moving:
                    artist.set_animated(True)  # left out by canvas.draw
                self.canvas.draw()
                self.background = np.array(self.canvas.buffer_rgba())
                self.standing = [_standing(ax) for ax in self.axes]
            pixels = np.asarray(self.canvas.buffer_rgba())
            pixels[:] = self.background
            for ax, artist in moving:
                ax.draw_artist(artist)
        # One byte per pixel in place of three: a third of the time, half of the bytes.
        image = Image.fromarray(pixels).convert("RGB").quantize(palette=PALETTE, dither=Image.Dither.NONE)
        image.save(buffer := io.BytesIO(), "png", compress_level=1)
        return buffer.getvalue()

    def _draw(self, i, reading, pinned):
        """Draw a picture on its Axes; returns whether what does not move (frame, ticks, legend) has changed."""
        picture, ax, drawn = self.pictures[i], self.axes[i], self.drawn[i]
        self.drawn[i] = None  # if the drawing below fails half-way, the next one begins anew
        anew = drawn is None or drawn[0] is not picture or drawn[1] is not pinned
        if anew:
            ax.clear()
            drawn = picture, pinned, [] if pinned is None else _drawn_faintly(picture, pinned, ax)
        for artist in [*ax.lines, *ax.patches, *ax.collections, *ax.images, *ax.texts]:
            if artist not in drawn[2]:
                artist.remove()
        ax.set_prop_cycle(None)  # matplotlib's own colours begin with the first one again
        picture(reading, ax)
        if ax.get_legend() and not ax.get_legend_handles_labels()[1]:
            ax.get_legend().remove()  # its artists are gone
        if (changed := _standing(ax) != self.standing[i]) and not anew:
            return self._draw(i, reading, pinned)  # on empty Axes: nothing of an earlier setting is left
        self.drawn[i] = drawn
        return changed


def _drawn_faintly(picture, reading, ax):
    picture(reading, ax)
    for artist in [*ax.texts, *ax.images]:  # they would only cover what is drawn over them
        artist.remove()
    for artist in (artists := [*ax.lines, *ax.patches, *ax.collections]):
        alpha, linewidth = 0.75 * (artist.get_alpha() or 1), min(1.1, np.max(artist.get_linewidth()))
        artist.set(color="#999999", zorder=1.6, label="_pinned", alpha=alpha, linewidth=linewidth)
    for patch in ax.patches:
        patch.set(fill=False, linewidth=1.1)
    return artists


def _moving(ax):
    """All but the frame, in the order in which matplotlib would draw it."""
    frame = {*ax.spines.values(), ax.xaxis, ax.yaxis, ax.patch, ax.get_legend(), *ax.child_axes}
    return sorted((a for a in ax.get_children() if a not in frame), key=lambda artist: artist.zorder)


def _standing(ax):
    """What does not move: scales, limits, ticks, labels, legend. While it is equal, the background is."""
    sides = []
    for axis in ax.xaxis, ax.yaxis:
        at = axis.get_majorticklocs()
        ticks = axis.get_major_formatter().format_ticks(at)
        sides.append((axis.get_scale(), *axis.get_view_interval(), list(at), ticks, axis.get_label_text()))
    box = ax.get_legend()
    return sides, box and getattr(box, "shows", [text.get_text() for text in box.get_texts()])


def legend(ax, *, names=str, **where):
    """A legend of the labelled artists, each label shortened by `names`. Making one is slow: an equal one is kept."""
    handles, labels = ax.get_legend_handles_labels()
    colors = [to_hex((getattr(handle, "get_color", None) or handle.get_facecolor)()) for handle in handles]
    labels = [names(label) for label in labels]
    if (labels, colors) != getattr(ax.get_legend(), "shows", None):
        ax.legend(handles, labels, **{"fontsize": 8.5, "labelspacing": 0.25, "handlelength": 1.2} | where)
        ax.get_legend().shows = labels, colors


def up(value):
    """The next round number: limits in steps, so that they rarely change while a slider moves."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 5, 7.5, 10) if step * power >= value * (1 - 1e-9))


def decades(values, least, most):
    """Limits of a log axis: powers of ten from `least` to `most`, or three decades further, as often as needed."""
    logs = [math.log10(value) for value in values if 0 < value < math.inf]
    low, high = math.floor(math.log10(least) - 0.05), math.ceil(math.log10(most) + 0.05)
    if logs:
        low -= 3 * max(0, math.ceil((low - min(logs) + 0.05) / 3))
        high += 3 * max(0, math.ceil((max(logs) - high + 0.05) / 3))
    return low, high
