"""The form of a lesson: a small one keeps it, and each rule finds what breaks it."""

import base64
import copy
import io

import pytest
from nbformat import v4
from PIL import Image

import check_notebooks
from giveaways import agree, numbers, split, verdicts
from small_lesson import code, drop, figure, prose, put, replace, show, small_lesson, tag, text, write

LESSON = small_lesson()
GUESS, EXPERIMENT, DRAWING, READING = 4, 5, 6, 7  # cells of the first step
EXERCISE, SOLUTION, FOUND, DEEPER, CHECKED = 33, 35, 36, 37, 40


def problems(tmp_path, cells, **metadata):
    return check_notebooks.check(write(tmp_path / "E99_small.ipynb", cells, **{"form": "lesson"} | metadata))


def add(index, source):
    return lambda cells: cells[index].update(source=f"{cells[index].source}\n\n{source}")


def test_the_small_lesson_keeps_the_rules(tmp_path):
    assert problems(tmp_path, copy.deepcopy(LESSON)) == []


def test_the_rules_bind_lessons_alone(tmp_path):
    cells = copy.deepcopy(LESSON)
    add(EXPERIMENT, "assert spread > 0")(cells)
    assert len(problems(tmp_path, cells)) == 1
    assert problems(tmp_path, cells, form="chapter") == []


LONG = "The sum " + "of many coins " * 12 + "ends somewhere."
OPEN = {"jupyter": {"outputs_hidden": True}}


@pytest.mark.parametrize(
    ("damage", "cell", "message"),
    [
        # its parts
        (drop(DEEPER, CHECKED), None, "no heading '## …' for going deeper"),
        (lambda cells: cells.insert(SOLUTION, cells.pop(FOUND)) or cells.insert(32, cells.pop(SOLUTION)), None, "order"),
        (lambda cells: cells[DEEPER].metadata.clear(), DEEPER, "not collapsed"),
        (replace(38, "### What", "## What"), 38, "ends what is collapsed"),
        (replace(8, "## How", "First, some prose.\n\n## How"), 8, "let it begin"),
        (replace(0, "?t=82", ""), 0, "no link into the video"),
        (replace(0, "3 minutes · this page: 20 minutes", "short"), 0, "how long"),
        (replace(0, "How far from zero does a sum of many coins end?", ""), 0, "0 questions"),
        (add(0, "And what of two?"), 0, "2 questions"),
        (lambda cells: cells.insert(3, cells.pop(1)), None, "before the first step"),
        (put(32, prose("## What next?\n\nRest."), prose("## And then?\n\nRest."), prose("## And last?\n\nRest.")), None, "8 steps"),
        (replace(8, "## How far do 36 coins end from zero?", "## Where 36 coins end"), 8, "doesn't ask"),
        (add(3, "coin " * 1_500), None, "words in the core path"),
        (add(READING, "<details><summary>More</summary>\n\n" + "coins add up. " * 500 + "\n</details>"), None, "in the core path"),
        (add(FOUND, "- coin\n" * 700), None, "words in exercises and findings"),
        # code
        (add(EXPERIMENT, "x = 1\n" * 7), EXPERIMENT, "9 lines in view, 8 at most"),
        (add(1, "x = 1\n" * 8), 1, "13 lines in view, 12 at most"),
        (add(EXPERIMENT, "assert spread > 0"), EXPERIMENT, "an assertion"),
        (add(DRAWING, "assert spread > 0"), DRAWING, "an assertion"),
        (add(EXPERIMENT, "torch.testing.assert_close(sums, sums)"), EXPERIMENT, "an assertion"),
        (add(39, "assert True"), 39, "an assertion"),
        (add(EXPERIMENT, "paired_difference(sums, sums)"), EXPERIMENT, "paired_difference"),
        (add(EXPERIMENT, "lecture_mlp('softmax', num_models=8)"), EXPERIMENT, "num_models"),
        (add(EXPERIMENT, "print(f'{f\"{spread:.2f}\":>9}')"), EXPERIMENT, "a table made of f-strings"),
        (add(EXPERIMENT, "print(f'{spread:<9}{spread:9.2f}{spread:>9}')"), EXPERIMENT, "a table made of f-strings"),
        (lambda cells: cells[DRAWING].metadata.jupyter.pop("source_hidden"), DRAWING, "a title or an alt text"),
        (add(EXPERIMENT, 'ax.set(xlabel="sum", title="Coins")'), EXPERIMENT, "a title or an alt text"),
        (add(39, 'show(fig, "A line.")'), 39, "a title or an alt text"),
        # first lines
        (replace(DRAWING, "# draw the sums\n", ""), DRAWING, "begin it with a comment"),
        (replace(DRAWING, "# draw the sums", "# 4 at last"), DRAWING, "begin it with a comment"),
        (replace(DRAWING, "# draw the sums", "# the bell"), DRAWING, "'bell' tells the result of cell 6"),
        (show(EXPERIMENT, text("it never ends:\n"), **OPEN), EXPERIMENT, "'never' tells the result of cell 5"),
        (show(EXPERIMENT, text("std 4.1\n"), **OPEN), EXPERIMENT, "without the numbers"),
        (
            show(EXPERIMENT, v4.new_output("display_data", {"text/html": "<table>", "text/plain": "a table"}), **OPEN),
            EXPERIMENT,
            "print a line in plain words first",
        ),
        # guesses
        (replace(GUESS, "None", "4"), GUESS, "nothing but 'guess = None'"),
        (tag(GUESS), None, "4 guesses"),
        (put(DRAWING, code("guess_two = None")), DRAWING, "tag it guess"),
        (replace(3, "What is the std of the sums? Write", "Write"), GUESS, "no question before this guess"),
        (replace(3, " Write a number between 0 and 16, then run all three cells.", ""), GUESS, "what may be answered"),
        (put(GUESS, code("x = 1")), GUESS + 1, "no question before this guess"),
        (show(DRAWING, figure("A bell.")), DRAWING, "lies open"),
        (drop(DRAWING, READING), GUESS, "nothing follows this guess"),
        (replace(GUESS, "guess", "guess_std"), GUESS, "guess_std is never used"),
        (drop(READING, READING + 1), GUESS, "is not read"),
        (put(READING, prose("Look at it well.")), READING, "open prose right under a result"),
        # what tells a result
        (add(2, "It will be 4.0, as you'll see."), 2, "'4.0' tells the result of cell 6"),
        (add(3, "It looks like a bell."), 3, "'bell' tells"),
        (add(EXPERIMENT, "# a bell, about 4.0"), EXPERIMENT, "'4.0', 'bell' tells"),
        (show(EXPERIMENT, text("the spread\n4.00\n")), EXPERIMENT, "'4.00' tells"),
        (add(READING, "So the std was 4.0 here."), READING, "'4.0' tells"),
        (replace(8, "Throw", "From 4.0 on. Throw"), 8, "'4.0' tells the result of cell 6"),
        (replace(26, "How far do 400", "Why no further than 4.0 do 400"), 26, "'4.0' tells the result of cell 6"),
        # prose
        (replace(READING, "</details>", ""), READING, "not closed"),
        (replace(READING, "<details>", "<details open>"), READING, "leave out 'open'"),
        (replace(READING, "</summary>\n\n", "</summary>\n"), READING, "an empty line"),
        (add(2, LONG), 2, "a sentence of 40 words"),
        (add(2, "There are 10 or 20, or 30 of them, all alike."), 2, "3 numbers in a paragraph (10, 20, 30)"),
        (replace(FOUND, "http://yann.lecun.com/exdb/publis/pdf/lecun-98b.pdf", "https://youtu.be/P6sfmUTpUmc"), FOUND, "no paper"),
        (add(2, "It is $n^{0.5}$, or `n ** 0.5`."), 2, "the solution of Exercise 99.1"),
        # of every notebook
        (lambda cells: cells[DRAWING].metadata.update(tolerance={"relative": 0.1}), DRAWING, "tolerance without a reason"),
    ],
)  # fmt: skip
def test_each_rule_finds_what_breaks_it(tmp_path, damage, cell, message):
    cells = copy.deepcopy(LESSON)
    damage(cells)
    found = problems(tmp_path, cells)
    where = "ipynb: " if cell is None else f"cell {cell} "
    assert [problem for problem in found if message in problem and where in problem], found


@pytest.mark.parametrize(
    "change",
    [
        replace(2, "ten thousand times", "10,000 times, with 16 coins each"),  # what the code works with
        add(2, "Is it 2.0, 4.0 or 8.0, and is it a bell?"),  # a question's own choices
        add(8, "The first std was the root of the number of coins."),
        replace(GUESS, "None", "None  # a number between 0 and 16"),
        add(EXPERIMENT, "print(f'{spread:.2f} of {spread:>9}')"),
        put(EXPERIMENT, prose("Now throw them.")),
        add(READING, "<details><summary>And more</summary>\n\nIt was 4.0, a bell.\n</details>"),
        lambda cells: cells[39].update(source="# look\nassert True", metadata={"jupyter": {"source_hidden": True}}),
        lambda cells: cells[DRAWING].metadata.update(tolerance={"relative": 0.1, "reason": "trained for long"}),
        put(CHECKED + 1, prose("Its std is 4.0."), code("spread")),
        lambda cells: cells.append(prose("## Next\n\nChapter 01.")),
        replace(DRAWING, "# draw the sums", "# draw the sums of W1"),
        lambda cells: [add(3, "Is that a bell?")(cells), replace(12, "draw the sums", "draw the bell")(cells)],
        add(FOUND, "It was 4.0, a bell, and never more."),
    ],
)
def test_what_a_good_lesson_may_say(tmp_path, change):
    cells = copy.deepcopy(LESSON)
    change(cells)
    assert problems(tmp_path, cells) == []


def test_going_deeper_keeps_the_form_of_a_step(tmp_path):
    cells = copy.deepcopy(LESSON)
    cells[39].update(source="# a bell, of std 3.0", outputs=[figure("A bell of std 3.0.")], metadata=OPEN)
    cells[38].source += " It is 3.0."
    found = "\n".join(problems(tmp_path, cells))
    assert "cell 38" in found and "'3.0' tells the result of cell 39" in found


def animation(frames, plays, size=(8, 8)):
    pictures = [Image.effect_noise(size, 90 + k) for k in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "PNG", save_all=True, append_images=pictures[1:], duration=100, loop=plays)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("png", "message"),
    [
        (animation(3, 3), ""),
        (animation(3, 0), "plays for ever, not 3 times"),
        (animation(3, 1), "plays 1, not 3 times"),
        (animation(3, 3, (480, 480)), "600,000 at most"),
    ],
)
def test_an_animation_plays_three_times_and_is_small(tmp_path, png, message):
    cells = copy.deepcopy(LESSON)
    cells[DRAWING].outputs = [figure("Coins that fall.", png)]
    found = problems(tmp_path, cells)
    assert len(found) == bool(message) and message in "".join(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("61.0% or 62 % or .63", {"61.0%", "62 %", ".63"}),
        ("six in ten, −0.97, 1.2e-3, 1e−8, 27.9.", {"six in ten", "−0.97", "1.2e-3", "1e−8", "27.9"}),
        ("11,897 parameters, 26560", {"11,897", "26560"}),
        ("32 examples, 200 units, 1,600 of them, chapter 03, E01, 12:59, W1, 2x, version 2.13.0", set()),
    ],
)
def test_numbers_that_can_be_results(text, found):
    assert set(numbers(text).values()) == found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("0.61", "61.0%", True), ("0.60", "0.6", True), ("0.0198", ".02", False), ("0.0198", "2.0%", True), ("2.17", "2.2", True), ("0.3", "0.31", False)],
)  # fmt: skip
def test_numbers_agree_when_they_are_one_rounded(one, other, same):
    (a,), (b,) = numbers(one), numbers(other)
    assert agree(a, b) is agree(b, a) is same


def test_a_question_that_presupposes_states():
    source = "Is it a bell? Why is it never wider?\n\nA unit dies.\n\nWhich: 0.5, or 0.9? Write one of the two."
    stated, asked = split(source)
    assert set(verdicts(stated)) == {"never", "widen", "dead"} and set(verdicts(asked)) == {"shape"}
    assert not numbers(stated) and len(numbers(asked)) == 2
