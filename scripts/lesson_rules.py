"""The form of a lesson, where a machine can hold it: rules for the notebooks whose metadata says `"form": "lesson"`.

A lesson is: title, video, minutes, a question; a set-up; five to seven steps, each a heading that asks, often a guess,
then an experiment, a picture and its reading in <details>; exercises; findings with their sources; and, collapsed,
"Going deeper" and "What the lecture says, checked". What stands open never tells a result: see giveaways.py.
"""

import ast
import re
from collections.abc import Iterator

from giveaways import RANGE, is_question, is_result, split, told_early
from notebook_parts import (
    CHECKED,
    DEEPER,
    NEXT,
    Lesson,
    Problem,
    exercises,
    first_line,
    is_hidden,
    is_visible_code,
    open_prose,
    paragraphs,
    parsed,
    plain,
    sentences,
    tags,
    without_code,
    words,
)

STEPS = GUESSES = 5, 7
CORE_WORDS, OTHER_WORDS, SENTENCE_WORDS, NUMBERS = 1_500, 700, 35, 2
EXPERIMENT_LINES, OTHER_LINES = 8, 12  # the others: set-up, definitions, exercises
LABORATORY = {"paired_difference", "mean_interval", "t_quantile", "loss_log_steps", "num_models", "confidence"}
VIDEO_SECONDS = re.compile(r"youtu\.be/\w+\?t=\d+")
SOURCE = re.compile(r"https?://(?!(?:www\.)?youtu\.?be)")
GUESS = re.compile(r"(guess(?:_\w+)?) = None(?:  # .+)?")
WIDTH = re.compile(r"^[^.,%\w]*[<>^]?\d+")  # a format that pads, as in tables made by hand
QUANTITY = re.compile(r"(?<![\w.:])\d[\d,.]*\d|(?<![\w.:])\d(?![\w:])")
YEAR_OR_CHAPTER = re.compile(r"(19|20)\d\d|0\d|[0-3]")


def parts_in_order(lesson: Lesson) -> Iterator[Problem]:
    found = [section.title.lower() for section in lesson.sections]
    wanted = ["exercises", "what you found", DEEPER, CHECKED]
    if missing := [title for title in wanted if title not in found]:
        yield None, f"no heading '## …' for {'; '.join(missing)}: add it; the order is {'; '.join(wanted)}"
    present = [title for title in found if title in wanted]
    if present != sorted(present, key=wanted.index):
        yield None, f"its parts stand in the order {'; '.join(present)}: make it {'; '.join(wanted)}"
    for section in (lesson.deeper, lesson.checked):
        if section and not lesson.cells[section.start].metadata.get("jp-MarkdownHeadingCollapsed"):
            yield section.start, 'its heading is not collapsed: set "jp-MarkdownHeadingCollapsed": true in its metadata'
    for section in [section for section in lesson.sections if lesson.deeper and section.start > lesson.deeper.start]:
        if not section.title.lower().startswith((CHECKED, NEXT)):
            yield section.start, f"'## {section.title}' ends what is collapsed above it: make it a '### …'"
    for section in lesson.sections[1:]:
        if not lesson.cells[section.start].source.startswith("## "):
            yield section.start, f"'## {section.title}' stands within its cell: let it begin one, so that it can fold"


def opening(lesson: Lesson) -> Iterator[Problem]:
    first = lesson.cells[0].source if lesson.cells else ""
    if not VIDEO_SECONDS.search(first):
        yield 0, "no link into the video with its second: add https://youtu.be/P6sfmUTpUmc?t=SECONDS under the title"
    if not re.search(r"\d+ minutes", first):
        yield 0, "it doesn't say how long it takes: add the minutes of the video and of the page"
    if (asked := plain(first).count("?")) != 1:
        yield 0, f"{asked} questions under the title: ask the one question of the lesson"
    if not any("setup" in tags(cell) for _, cell in lesson.within(lesson.intro)):
        yield None, "no cell tagged setup before the first step: move it there"


def steps(lesson: Lesson) -> Iterator[Problem]:
    if not STEPS[0] <= (count := len(lesson.steps)) <= STEPS[1]:
        yield None, f"{count} steps ('## …?'), {STEPS[0]} to {STEPS[1]} wanted: move what can wait to Going deeper"
    for section in lesson.steps:
        if not plain(section.title).rstrip().endswith("?"):
            yield section.start, f"'## {section.title}' doesn't ask: make it a question, and say the finding after it"


def length(lesson: Lesson) -> Iterator[Problem]:
    core = sum(words(cell.source) for _, cell in lesson.core() if cell.cell_type == "markdown")
    others = [cell for section in lesson.after for _, cell in lesson.within(section)]
    other = sum(words(cell.source) for cell in others if cell.cell_type == "markdown")
    for count, limit, what in ((core, CORE_WORDS, "the core path"), (other, OTHER_WORDS, "exercises and findings")):
        if count > limit:
            yield None, f"{count:,} words in {what}, {limit:,} at most: cut, or move to Going deeper"


# Code


def short_code(lesson: Lesson) -> Iterator[Problem]:
    for index, cell in lesson.code_in_view():
        limit = OTHER_LINES if {"setup", "definition"} & {*tags(cell)} else EXPERIMENT_LINES
        lines = len([line for line in cell.source.splitlines() if line.strip()])
        if lines > limit:
            yield index, f"{lines} lines in view, {limit} at most: fold a drawing, or name a part of it"


def no_assertions(lesson: Lesson) -> Iterator[Problem]:
    for index, cell in enumerate(lesson.cells):
        deep_and_folded = lesson.deeper and index in lesson.deeper and is_hidden(cell, "source")
        if cell.cell_type != "code" or deep_and_folded or (lesson.checked and index in lesson.checked):
            continue
        for node in ast.walk(parsed(cell.source)):
            called = getattr(node, "func", None)
            if isinstance(node, ast.Assert) or name_of(called).startswith("assert"):
                yield index, "an assertion: move it to 'What the lecture says, checked', or print what it compares"
                break


def name_of(node: ast.AST | None) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "") or getattr(node, "arg", "") or ""


def no_laboratory(lesson: Lesson) -> Iterator[Problem]:
    for index, cell in lesson.code_in_view():
        tree = parsed(cell.source)
        for name in sorted({name_of(node) for node in ast.walk(tree)} & LABORATORY):
            yield index, f"{name} stands in view on the core path: show one network, or go to Going deeper"


def no_tables_by_hand(lesson: Lesson) -> Iterator[Problem]:
    for index, cell in lesson.code_in_view():
        for text in (node for node in ast.walk(parsed(cell.source)) if isinstance(node, ast.JoinedStr)):
            values = [part for part in text.values if isinstance(part, ast.FormattedValue)]
            nested = any(isinstance(node, ast.JoinedStr) for part in values for node in ast.walk(part.value))
            padded = [part for part in values if part.format_spec and WIDTH.match(format_of(part))]
            if nested or len(padded) > 2:
                yield index, "a table made of f-strings stands in view: fold it, or put it behind a function"
                break


def format_of(part: ast.FormattedValue) -> str:
    return "".join(str(getattr(piece, "value", "")) for piece in part.format_spec.values if hasattr(piece, "value"))


def drawings(lesson: Lesson) -> Iterator[Problem]:
    for index, cell in lesson.learnt():
        if not is_visible_code(cell):
            continue
        for node in ast.walk(parsed(cell.source)):
            arguments = [*node.args, *(k.value for k in node.keywords)] if isinstance(node, ast.Call) else []
            named = {k.arg for k in node.keywords} & {"title", "suptitle", "alt"} if arguments else set()
            drawn = name_of(getattr(node, "func", None)) in ("show", "show_moving", "set_title", "suptitle", "title")
            worded = [a for a in arguments if isinstance(a, ast.Constant | ast.JoinedStr) and not is_number(a)]
            if (drawn or named) and worded:
                yield index, "a title or an alt text stands in view: fold the cell's source (jupyter.source_hidden)"
                break


def is_number(node: ast.AST) -> bool:
    return isinstance(getattr(node, "value", None), int | float)


def neutral_first_lines(lesson: Lesson) -> Iterator[Problem]:
    for index, cell in lesson.learnt():
        if cell.cell_type != "code":
            continue
        line = next(iter(cell.source.splitlines()), "")
        if is_hidden(cell, "source") and (not line.startswith("#") or re.search(r"\b\d", line)):
            yield index, f"folded, it still shows {line!r}: begin it with a comment that has no digits"
        line = first_line(cell)
        if is_result(cell) and not is_hidden(cell, "source") and re.match("<(?!Figure)", line):
            yield index, f"folded, its output still shows {line!r}: print a line in plain words first"


# Guesses


def guess_cells(lesson: Lesson) -> Iterator[Problem]:
    for index, cell in enumerate(lesson.cells):
        form = all(map(GUESS.fullmatch, cell.source.splitlines())) and bool(cell.source)
        if "guess" in tags(cell) and not form:
            yield index, "a guess cell holds nothing but 'guess = None', or 'guess_… = None'"
        if cell.cell_type == "code" and form and "guess" not in tags(cell):
            yield index, "a guess without its tag: tag it guess"
    count = sum("guess" in tags(cell) for _, cell in lesson.core())
    if not GUESSES[0] <= count <= GUESSES[1]:
        yield None, f"{count} guesses on the core path, {GUESSES[0]} to {GUESSES[1]} wanted: add or drop some"


def guesses(lesson: Lesson) -> Iterator[tuple[int, list[int]]]:
    """(a guess's cell, the cells that follow it, up to the next guess's question or the step's end)."""
    for step in lesson.all_steps:
        at = [index for index, cell in lesson.within(step) if "guess" in tags(cell)]
        ends = [index - 1 for index in at[1:]] + [step.stop]  # before a guess stands its question
        for index, end in zip(at, ends[-len(at) :] if at else [], strict=True):
            yield index, list(range(index + 1, end))


def guesses_ask(lesson: Lesson) -> Iterator[Problem]:
    for index, _ in guesses(lesson):
        before = lesson.cells[index - 1]
        said = [s for part in paragraphs(open_prose(before.source)) for s in sentences(part)]
        if before.cell_type != "markdown" or not any(map(is_question, said)):
            yield index, "no question before this guess: let the prose above it end with one"
        elif not any(map(RANGE.search, said)):
            yield index, "its question doesn't say what may be answered: add a range ('between … and …') or the choices"


def guesses_are_kept(lesson: Lesson) -> Iterator[Problem]:
    for index, following in guesses(lesson):
        code = [(k, lesson.cells[k]) for k in following if lesson.cells[k].cell_type == "code"]
        results = [(k, cell) for k, cell in code if cell.outputs or is_hidden(cell, "outputs")]
        if not results:
            yield index, "nothing follows this guess: let a cell show its result, and fold that output"
        for k, cell in results:
            if not is_hidden(cell, "outputs"):
                yield k, "a result after a guess lies open: fold its output (jupyter.outputs_hidden)"
        for name in GUESS.findall(lesson.cells[index].source):
            if not any(re.search(rf"\b{name}\b", cell.source) for _, cell in code):
                yield index, f"{name} is never used: give it to show_guess beside the result"
        after = [k for k in following if results and k > results[0][0] and lesson.cells[k].cell_type == "markdown"]
        if results and not any("<details>" in lesson.cells[k].source for k in after):
            yield index, "its result is not read: add <details><summary>Read the picture</summary> after it"
        elif after and not lesson.cells[after[0]].source.lstrip().startswith("<details>"):
            yield after[0], "open prose right under a result tells it: put its reading into <details>, and first"


# Prose


def whole_details(lesson: Lesson) -> Iterator[Problem]:
    for index, cell in enumerate(lesson.cells):
        text = without_code(cell.source) if cell.cell_type == "markdown" else ""
        if text.count("<details") != text.count("</details>"):
            yield index, "a <details> is not closed in its own cell: close it"
        if re.search(r"<details\s+open", text):
            yield index, "a <details open> folds nothing: leave out 'open'"
        if re.search(r"</summary>[^\S\n]*\n?[^\S\n]*\S", text):
            yield index, "Markdown after </summary> needs an empty line before it: add one"


def plain_sentences(lesson: Lesson) -> Iterator[Problem]:
    for index, cell in lesson.core():
        if cell.cell_type == "markdown":
            for sentence in (s for part in paragraphs(cell.source) for s in sentences(part)):
                if (count := len(sentence.split())) > SENTENCE_WORDS:
                    yield index, f"a sentence of {count} words ('{sentence[:30]} …'): split it at {SENTENCE_WORDS}"


def few_numbers(lesson: Lesson) -> Iterator[Problem]:
    for index, cell in list(lesson.core())[1:]:  # not in the title's cell
        if cell.cell_type == "markdown":
            without_links = re.sub(r"\[[^\]]*\]\([^)]*\)", "link", open_prose(cell.source))
            for part in paragraphs(without_links):
                found = {n: 1 for n in QUANTITY.findall(split(part)[0]) if not YEAR_OR_CHAPTER.fullmatch(n)}
                if len(found) > NUMBERS:
                    yield index, f"{len(found)} numbers in a paragraph ({', '.join(found)}): keep {NUMBERS}"


def sources(lesson: Lesson) -> Iterator[Problem]:
    found = [section for section in lesson.after if section.title.lower() != "exercises"]
    if found and not any(SOURCE.search(cell.source) for section in found for _, cell in lesson.within(section)):
        yield found[0].start, "no paper is named where it comes from: link at least one"


def solutions_are_hidden(lesson: Lesson) -> Iterator[Problem]:
    for exercise in exercises(lesson.notebook.nb):
        given = squeezed(exercise.stub)
        lines = [squeezed(line) for text in exercise.solutions for line in without_docstrings(text)]
        telling = [line.removeprefix("return") for line in lines if line not in given]
        for index, cell in lesson.core():
            source = cell.source if cell.cell_type == "code" else open_prose(cell.source)
            for line in telling:
                if len(line) > 5 and "exercise" not in tags(cell) and line in squeezed(source):
                    yield index, f"the solution of {exercise.title} stands here in the open: move it into <details>"
                    break


def without_docstrings(text: str) -> list[str]:
    return [line for line in re.sub(r'""".*?"""', "", text, flags=re.DOTALL).splitlines() if line.strip()]


def squeezed(text: str) -> str:
    """Code or a formula without what may differ in writing: spaces, dollars, the form of minus and powers."""
    for old, new in {"−": "-", "²": "**2", "^": "**", "·": "*", "$": "", "`": ""}.items():
        text = text.replace(old, new)
    return re.sub(r"\s+", "", text)


LESSON_RULES = [
    *(parts_in_order, opening, steps, length),
    *(short_code, no_assertions, no_laboratory, no_tables_by_hand, drawings, neutral_first_lines),
    *(guess_cells, guesses_ask, guesses_are_kept, told_early),
    *(whole_details, plain_sentences, few_numbers, sources, solutions_are_hidden),
]
