"""Draw the network, draw the reader's guess into a picture, and show pictures that move.

Every chapter draws the same network in the same colours, and marks its own place in it.
"""

import base64
import io
import math

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from helpers.plots import GRAY, ORANGE, VERMILION, few_colors, pixels

__all__ = ["draw_network", "show_guess", "show_moving"]

FORWARD, BACKWARD = "#333333", VERMILION  # colours of the forward pass and of the backward pass
MARKED, GUESS = "#ffe2a3", "#8b3fa8"
BOX, GAP, HEIGHT = 1.5, 1.25, 1.0  # widths of a box and of the space between two, the height of a box


def draw_network(*, mark=(), notes=None, title="", batch_norm=False, deep=False, backward=True, batch=32, ax=None):
    """Draw the lecture's network from the characters to the loss; returns the Axes.

    mark: the names of boxes or of what flows between them, to be highlighted: "C", "hidden", "batch_norm", "tanh",
        "output", "loss"; "emb", "hpreact", "h", "logits".
    notes: {name: text}, written under a box or under what flows. title: a line above the drawing.
    batch_norm: put the BatchNorm in. deep: part 2's network, whose hidden block stands there five times.
    backward: draw the way back of the gradients too. batch: how many examples the shapes are written for.
    Raises ValueError for a name that is not in the drawing.
    """
    boxes, flows = _parts(batch_norm, deep, batch)
    marks, notes = (mark,) if isinstance(mark, str) else tuple(mark), notes or {}
    known = [name for name, *_ in boxes + flows]
    if unknown := [name for name in (*marks, *notes) if name not in known]:
        raise ValueError(f"{unknown[0]!r} is not in the drawing: choose from {', '.join(known)}")
    width = len(boxes) * (BOX + GAP) + GAP
    if ax is None:
        height = 10 * (2.5 if deep else 2.0) / width
        _, ax = plt.subplots(figsize=(10, height + 0.4 * bool(title)), layout="none")
        ax.figure.subplots_adjust(0, 0, 1, height / (height + 0.4 * bool(title)))
    ax.set_title(title)
    ax.set(xlim=(0, width), ylim=(-1.15, 1.35) if deep else (-0.95, 1.05), aspect="equal")
    ax.axis("off")
    for i, (name, text, shape) in enumerate(boxes):
        _box(ax, GAP + i * (BOX + GAP), text, shape, marked=name in marks)
    for i, (name, label, shape) in enumerate(flows):
        _flow(ax, i * (BOX + GAP), label, shape, marked=name in marks, back=backward and i > 0)
    centers = {name: GAP + i * (BOX + GAP) + BOX / 2 for i, (name, *_) in enumerate(boxes)}
    centers |= {name: i * (BOX + GAP) + GAP / 2 for i, (name, *_) in enumerate(flows)}
    for name, text in notes.items():
        below = -0.84 if deep else -0.62  # below the frame, if there is one
        ax.text(centers[name], below, text, ha="center", va="top", fontsize=11, color=BACKWARD, weight="bold")
    if backward:
        ax.text(width - 0.05, -0.3, "gradients", color=BACKWARD, ha="right", va="top", fontsize=9.5)
    if deep:
        repeated = 2 + batch_norm
        left, right = GAP + (BOX + GAP) - 0.12, GAP + (1 + repeated) * (BOX + GAP) - GAP + 0.12
        frame = dict(boxstyle="round,pad=0,rounding_size=0.2", facecolor="none", edgecolor=GRAY, linestyle="--")
        ax.add_patch(FancyBboxPatch((left, -0.8), right - left, 1.85, linewidth=1, **frame))
        ax.text((left + right) / 2, 1.12, "five times", ha="center", va="bottom", fontsize=9.5, color=GRAY)
    return ax


def _parts(batch_norm, deep, batch):
    """(boxes, flows): name, text and shape of each, input to loss. A flow stands before every box, and at the end."""
    units = 100 if deep else 200
    bias = "" if batch_norm else ", b1"
    hidden = ("hidden", "Linear" if deep else f"W1{bias}", f"{'fan_in' if deep else 30} × {units}")
    last = "Linear,\nBatchNorm" if batch_norm else "Linear"
    output = ("output", last if deep else "W2, b2", f"{units} × 27")
    boxes = [("C", "C", "27 × 10"), hidden]
    flows = [("X", "X", f"{batch} × 3"), ("emb", "emb", f"{batch} × 30")]
    if batch_norm:
        boxes.append(("batch_norm", "BatchNorm", f"{units} features"))
        flows.append(("hprebn", "hprebn", f"{batch} × {units}"))
    boxes += [("tanh", "tanh", ""), output, ("loss", "cross-\nentropy", "")]
    flows += [("hpreact", "hpreact", f"{batch} × {units}"), ("h", "h", f"{batch} × {units}")]
    flows += [("logits", "logits", f"{batch} × 27"), ("out", "loss", "")]
    return boxes, flows


def _box(ax, left, title, shape, *, marked):
    look = dict(facecolor=MARKED if marked else "white", edgecolor=ORANGE if marked else FORWARD)
    style = "round,pad=0,rounding_size=0.12"
    patch = FancyBboxPatch((left, -HEIGHT / 2), BOX, HEIGHT, boxstyle=style, linewidth=2 if marked else 1.2, **look)
    ax.add_patch(patch)
    long = max(map(len, title.split("\n"))) > 8
    lines = dict(ha="center", va="center", linespacing=1.05)
    ax.text(left + BOX / 2, 0.13 if shape else 0, title, fontsize=9 if long else 11, weight="bold", **lines)
    ax.text(left + BOX / 2, -0.3, shape, fontsize=8.5, color=GRAY, **lines)


def _flow(ax, left, label, shape, *, marked, back):
    middle, right = left + GAP / 2, left + GAP - 0.06
    arrow = dict(arrowstyle="-|>", linewidth=1.4, shrinkA=0, shrinkB=0)
    ax.annotate("", (right, 0.13), (left + 0.06, 0.13), arrowprops=arrow | {"color": FORWARD})
    box = dict(facecolor=MARKED, edgecolor=ORANGE, boxstyle="round,pad=0.2") if marked else None
    ax.text(middle, 0.55, label, ha="center", va="bottom", fontsize=10, bbox=box)
    ax.text(middle, 0.22, shape, ha="center", va="bottom", fontsize=8, color=GRAY)
    if back:
        way = arrow | {"color": BACKWARD, "linestyle": (0, (3, 2))}
        ax.annotate("", (left + 0.06, -0.2), (right, -0.2), arrowprops=way)


def show_guess(guess, truth, *, low=None, high=None, choices=None, ax=None, axis="x"):
    """Set the reader's guess beside the result: a line in the picture, or one printed sentence.

    guess: a number from low to high, one of choices, a list of either, or None, which shows nothing.
    truth: the result, in the same form. With ax, a number is drawn as a line across that axis of the picture.
    A guess that can't be used gets one friendly line that says what is expected; nothing is ever raised.
    """
    if guess is None:
        return
    wanted = f"one of {', '.join(map(repr, choices))}" if choices else f"a number from {low:g} to {high:g}"
    several = isinstance(truth, (list, tuple))
    given = list(guess) if isinstance(guess, (list, tuple)) else [guess]
    usable = [_is_among(g, choices) if choices else _is_number(g) and low <= g <= high for g in given]
    if several and len(given) != len(truth):
        print(f"Your guess needs {len(truth)} entries, each {wanted}.")
    elif not all(usable) or isinstance(guess, (list, tuple)) != several:
        print(f"Your guess is {guess!r}. Here it should be {wanted}: change it, and run both cells again.")
    elif ax is not None and not several and not choices:
        line, place = (ax.axvline, ax.get_xaxis_transform()) if axis == "x" else (ax.axhline, ax.get_yaxis_transform())
        line(guess, color=GUESS, linewidth=2, linestyle=":")
        at, turn = ((guess, 0.97), 90) if axis == "x" else ((0.99, guess), 0)
        ax.text(*at, "your guess", color=GUESS, transform=place, rotation=turn, ha="right", va="top", fontsize=9.5)
    else:
        print(f"You said {_listed(given)}. It is {_listed(truth if several else [truth])}.")


def _is_among(value, choices):
    return any(isinstance(value, type(choice)) and value == choice for choice in choices)  # an array has no one ==


def _is_number(value):
    try:
        return not isinstance(value, (str, bytes, bool)) and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _listed(values):
    return ", ".join(str(v) if isinstance(v, (str, int)) else f"{float(v):.3g}" for v in values)


def show_moving(fig, draw, frames, alt, *, milliseconds=150, hold=10, colors=64):
    """Display an animated PNG, which plays three times, and close the figure.

    draw(frame) is called for each frame of the iterable, and draws on the figure from a clean state.
    milliseconds: how long a frame stands; the last one stands `hold` times as long. Where animations are not played,
    the first frame is shown: it should make sense alone.
    """
    pictures = []
    for frame in frames:
        draw(frame)
        pictures.append(pixels(fig, dpi=100))
        fig.set_layout_engine("none")  # the layout of the first frame stays: nothing jumps, and a frame costs half
    plt.close(fig)
    # One palette for all: a colour never flickers.
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, height * len(pictures)))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (0, i * height))
    sheet = few_colors(sheet, colors)
    pictures = [sheet.crop((0, i * height, width, (i + 1) * height)) for i in range(len(pictures))]
    times = [milliseconds] * (len(pictures) - 1) + [milliseconds * hold]
    buffer = io.BytesIO()
    options = dict(save_all=True, append_images=pictures[1:], duration=times, loop=3, optimize=True)
    pictures[0].save(buffer, format="PNG", **options)
    png = base64.b64encode(buffer.getvalue()).decode()
    # As in plots.show: a folded output shows the plain text, which gives nothing away.
    data = {"image/png": png, "text/plain": repr(fig)}
    display(data, raw=True, metadata={"image/png": {"alt": alt, "width": round(fig.get_figwidth() * 100)}})
