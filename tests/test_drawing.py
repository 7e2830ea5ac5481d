"""The network drawn, guesses set beside results, and pictures that move."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import drawing
from helpers.drawing import draw_network, show_guess, show_moving


@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"deep": True}, {"deep": True, "batch_norm": True}])
def test_every_part_can_be_marked_and_noted_and_others_are_named(options):
    with pytest.raises(ValueError, match="no_such_part.*tanh") as refused:
        draw_network(mark="no_such_part", **options)
    names = str(refused.value).split("choose from ")[1].split(", ")
    assert ("batch_norm" in names) == ("batch_norm" in options)
    ax = draw_network(mark=names, notes={name: f"note {name}" for name in names}, title="a title", **options)
    texts = [text.get_text() for text in ax.texts]
    assert {f"note {name}" for name in names} <= {*texts}
    assert "a title" in [ax.get_title(loc) for loc in ("left", "center", "right")]  # the style says where
    assert ("five times" in texts) == ("deep" in options)
    plain = draw_network(**options)

    def highlighted(ax):
        boxes = [*ax.patches, *(text.get_bbox_patch() for text in ax.texts if text.get_bbox_patch())]
        marked = plt.matplotlib.colors.to_rgba(drawing.MARKED)
        return sum(patch.get_facecolor() == marked for patch in boxes)

    assert highlighted(ax) == len(names) and highlighted(plain) == 0


def test_the_way_back_can_be_left_out():
    texts = [[text.get_text() for text in draw_network(backward=back).texts] for back in (True, False)]
    assert "gradients" in texts[0] and "gradients" not in texts[1]


NUMBER, CHOICE = dict(low=0, high=1), dict(choices=("more", "less"))


@pytest.mark.parametrize("truth, options", [(0.25, NUMBER), ("more", CHOICE), ([0.1, 0.2], NUMBER)])
def test_no_guess_is_silent(truth, options, capsys):
    ax = plt.subplots()[1]
    show_guess(None, truth, ax=ax, **options)
    assert not ax.lines and not ax.texts and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("guess", "truth", "options", "said"),
    [
        (0.5, 0.25, NUMBER, "0.5. It is 0.25"),
        (1, 0.25, NUMBER, "1. It is 0.25"),
        (torch.tensor(0.5), 0.25, NUMBER, "0.5. It is 0.25"),
        ("less", "more", CHOICE, "less. It is more"),
        (["less", "more"], ["more", "more"], CHOICE, "less, more. It is more, more"),
        ((0.5, 1.0), [0.1, 0.2], NUMBER, "0.5, 1. It is 0.1, 0.2"),
    ],
)
def test_a_guess_stands_beside_the_result(guess, truth, options, said, capsys):
    show_guess(guess, truth, **options)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_number_is_drawn_into_the_picture(axis, capsys):
    ax = plt.subplots()[1]
    show_guess(0.5, 0.25, ax=ax, axis=axis, **NUMBER)
    (line,) = ax.lines
    assert set(line.get_data()["xy".index(axis)]) == {0.5} and ax.texts[0].get_text() == "your guess"
    assert capsys.readouterr().out == ""


ODD = [
    *("many", 2, -0.1, float("nan"), 1j, True, b"1", {}, set(), object(), ...),
    *(np.array([1, 2]), torch.ones(3), [], [0.5], [None]),
]


# Named by their kind: an object's str holds its address, and the workers have to agree on the names.
@pytest.mark.parametrize("guess", ODD, ids=lambda guess: type(guess).__name__)
@pytest.mark.parametrize(
    "truth, options", [(0.25, NUMBER), ("more", CHOICE), ([0.1, 0.2], NUMBER), (["more"] * 2, CHOICE)]
)
def test_a_guess_that_cannot_be_used_gives_one_friendly_line(guess, truth, options, capsys):
    ax = plt.subplots()[1]
    show_guess(guess, truth, ax=ax, **options)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and ("0 to 1" in said or "'more', 'less'" in said) and not ax.lines


def test_a_moving_picture_plays_three_times_and_begins_with_its_first_frame(monkeypatch):
    shown = []
    monkeypatch.setattr(drawing, "display", lambda data, raw, metadata: shown.append((data, metadata)))
    fig, ax = plt.subplots(figsize=(4, 2))

    def draw(k):
        ax.clear()
        ax.plot([0, k], [0, 1])
        ax.set(xlim=(0, 5))

    show_moving(fig, draw, [1, 3, 5], "a line turns", milliseconds=100, hold=5)
    ((data, metadata),) = shown
    film = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert (
        film.n_frames == 3 and film.info["loop"] == 3 and metadata["image/png"] == {"alt": "a line turns", "width": 400}
    )
    durations, frames = [], []
    for k in range(3):
        film.seek(k)
        durations.append(film.info["duration"])
        frames.append(np.asarray(film.convert("RGB")))
    assert durations == [100, 100, 500]
    assert (frames[0] != frames[1]).any() and (frames[1] != frames[2]).any()
    assert not plt.fignum_exists(fig.number) and "line" not in data["text/plain"]


def test_a_moving_picture_is_laid_out_once(monkeypatch):
    monkeypatch.setattr(drawing, "display", lambda *args, **kwargs: None)
    fig, ax = plt.subplots(figsize=(4, 2), layout="constrained")
    places = []

    def draw(k):
        places.append(ax.get_position().bounds)  # where the frame before was drawn
        ax.set_ylabel("a label that needs room\n" * k)

    show_moving(fig, draw, [1, 2, 3, 4], "the label grows")
    assert places[0] != places[1] == places[2] == places[3]  # places[0]: before any layout
