"""Reads a notebook for the rules: its text, what of it stands open before anything is run, a lesson's parts."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat

Problem = tuple[int | None, str]  # a cell's index, or None for the notebook; what is wrong, and the remedy

SOLUTION = re.compile(r"<details>\s*<summary>(?:<b>)?Solution.*?</summary>(.*?)</details>", re.DOTALL)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
ANY_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
DETAILS = re.compile(r"<details>\s*(<summary>.*?</summary>)?(?:(?!<details).)*?</details>", re.DOTALL)
HEADING = re.compile(r"^(#{1,6}) +(.+?)\s*$", re.MULTILINE)
WORD = re.compile(r"\S*\w\S*")
NO_STEP = {"exercises", "what you found", "where it comes from"}
DEEPER, CHECKED = "going deeper", "what the lecture says, checked"
NEXT = "next"  # may stand last: Run All selects the last cell, and JupyterLab opens the fold that holds it


@dataclass(frozen=True)
class Notebook:
    """A notebook as a file, `raw`, and as nbformat reads it, `nb`."""

    path: Path
    raw: bytes
    nb: nbformat.NotebookNode

    def code(self) -> Iterator[tuple[int, nbformat.NotebookNode]]:
        return ((i, cell) for i, cell in enumerate(self.nb.cells) if cell.cell_type == "code")

    def prose(self) -> Iterator[tuple[int, nbformat.NotebookNode]]:
        return ((i, cell) for i, cell in enumerate(self.nb.cells) if cell.cell_type == "markdown")

    def outputs(self) -> Iterator[tuple[int, nbformat.NotebookNode, nbformat.NotebookNode]]:
        return ((i, cell, output) for i, cell in self.code() for output in cell.outputs)


# A cell


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def is_hidden(cell: nbformat.NotebookNode, what: str) -> bool:
    """Whether JupyterLab folds the cell's "source" or its "outputs"."""
    return bool(cell.metadata.get("jupyter", {}).get(f"{what}_hidden"))


def is_visible_code(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and not is_hidden(cell, "source")


def first_line(cell: nbformat.NotebookNode, *, html: bool = True) -> str:
    """What JupyterLab shows of a folded output: the first line of its first output; of HTML, of its source."""
    output = next(iter(cell.outputs), {})
    kinds = ("text/html", "image/svg+xml", "text/markdown")[: None if html else 0]
    shown = (output.get("data", {}).get(kind) for kind in (*kinds, "text/plain"))
    text = output.get("text") or next(filter(None, shown), "")
    return next(filter(None, text.split("\n")), "")[:80]


def printed(cell: nbformat.NotebookNode) -> str:
    """All that a cell's outputs say in words: text, tables, alt texts."""
    said = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        text = output.get("text") or data.get("text/html") or data.get("text/markdown") or data.get("text/plain", "")
        if not text.startswith("<Figure"):
            said.append(re.sub(r"<[^>]*>", " ", text))
        said.append(output.get("metadata", {}).get("image/png", {}).get("alt", ""))
    return "\n".join(filter(None, said))


@cache
def parsed(source: str) -> ast.Module:
    """The code as a tree; IPython's magics and questions are left out."""
    plain = "\n".join("" if re.match(r"\s*[%!?]|.*\?$", line) else line for line in source.split("\n"))
    try:
        return ast.parse(plain)
    except SyntaxError:
        return ast.Module([], [])


@cache
def told_by(source: str) -> str:
    """What code says in words: its comments, strings and assertions."""
    told = [ast.unparse(node) for node in ast.walk(parsed(source)) if isinstance(node, ast.Assert)]
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING) or token.type == getattr(
                tokenize, "FSTRING_MIDDLE", 0
            ):
                told.append(token.string)
    except (tokenize.TokenError, SyntaxError):
        pass
    return "\n".join(told)


@cache
def given_to(source: str) -> str:
    """The numbers that code works with, apart from its assertions: they are no results."""
    tree = parsed(source)
    asserted = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Assert) for part in ast.walk(node)}
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in asserted]
    return " ; ".join(str(value) for value in constants if isinstance(value, int | float) and value is not True)


# Prose


def without_code(source: str) -> str:
    return ANY_BLOCK.sub("", source)


def open_prose(source: str) -> str:
    """Markdown as it stands open: of each folded <details> only the summary is left."""
    while (shorter := DETAILS.sub(lambda found: found[1] or "", source)) != source:
        source = shorter
    return source


def plain(source: str) -> str:
    """Prose without code blocks, tags and addresses; a code span or a formula is one word."""
    text = re.sub(r"`[^`]+`|\$\$?[^$]+\$\$?", "code", without_code(source))
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"<[^>]*>|[*#>|]", " ", text)


def paragraphs(source: str) -> list[str]:
    """The paragraphs, list items and headings of Markdown, each plain; tables are left out."""
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+\.) |#|<)|(?<=</summary>)", without_code(source))
    return [" ".join(plain(part).split()) for part in parts if part.strip() and not part.lstrip().startswith("|")]


def sentences(paragraph: str) -> list[str]:
    return re.split(r"(?<=[.!?])[\"”’)]*\s+(?=[^a-z\s])", paragraph)


def words(source: str) -> int:
    return len(WORD.findall(plain(source)))


def headings(source: str) -> list[tuple[int, str]]:
    """(level, text) of every heading in Markdown."""
    return [(len(marks), text) for marks, text in HEADING.findall(without_code(source))]


# An exercise


@dataclass(frozen=True)
class Exercise:
    """An exercise as it stands: the stub's cell, the check's (None if another cell follows), the solutions."""

    index: int
    title: str
    stub: str
    check: str | None
    solutions: list[str]


def exercises(nb: nbformat.NotebookNode) -> Iterator[Exercise]:
    """Exercises of a notebook: heading, stub, check, then prose with hints and a folded solution."""
    for index, cell in enumerate(nb.cells):
        if "exercise" not in tags(cell):
            continue
        titles = re.findall(r"^### (Exercise .*)", nb.cells[index - 1].source if index else "", re.MULTILINE)
        following = nb.cells[index + 1 :]
        check = following[0].source if following and "check" in tags(following[0]) else None
        prose = []
        for later in following[check is not None :]:
            if later.cell_type != "markdown":
                break
            prose.append(later.source)
        solutions = [block for folded in SOLUTION.findall("\n".join(prose)) for block in PYTHON_BLOCK.findall(folded)]
        yield Exercise(index, titles[-1] if titles else "", cell.source, check, solutions)


# A lesson


@dataclass(frozen=True)
class Section:
    """Cells `start` to `stop` under a heading; "" before the first one."""

    title: str
    start: int
    stop: int

    def __contains__(self, index: int) -> bool:
        return self.start <= index < self.stop


class Lesson:
    """A lesson's parts: `core` (intro, steps), exercises and findings, then `deeper` and `checked`, or None."""

    def __init__(self, notebook: Notebook):
        self.notebook, self.cells = notebook, notebook.nb.cells
        every = self._split(2, 0, len(self.cells))
        at = next((k for k, section in enumerate(every) if section.title.lower() in (DEEPER, CHECKED)), len(every))
        self.sections = every
        self.intro = every[0]
        self.steps = [section for section in every[1:at] if section.title.lower() not in NO_STEP]
        self.after = [section for section in every[1:at] if section.title.lower() in NO_STEP]
        self.deeper = next((section for section in every if section.title.lower() == DEEPER), None)
        self.checked = next((section for section in every if section.title.lower() == CHECKED), None)
        deeper = self._split(3, self.deeper.start, self.deeper.stop) if self.deeper else []
        self.all_steps = [*self.steps, *deeper]

    def _split(self, level: int, start: int, stop: int) -> list[Section]:
        found = [("", start)]
        for index in range(start, stop):
            cell = self.cells[index]
            titles = [t for depth, t in headings(open_prose(cell.source)) if depth == level]
            if cell.cell_type == "markdown" and titles:
                found.append((titles[0], index))
        ends = [index for _, index in found[1:]] + [stop]
        return [Section(title, index, end) for (title, index), end in zip(found, ends, strict=True)]

    def core(self) -> Iterator[tuple[int, nbformat.NotebookNode]]:
        """The cells of the core path, without exercises and findings."""
        for section in (self.intro, *self.steps):
            yield from self.within(section)

    def code_in_view(self) -> Iterator[tuple[int, nbformat.NotebookNode]]:
        return ((index, cell) for index, cell in self.core() if is_visible_code(cell))

    def within(self, section: Section) -> Iterator[tuple[int, nbformat.NotebookNode]]:
        return ((index, self.cells[index]) for index in range(section.start, section.stop))

    def learnt(self) -> Iterator[tuple[int, nbformat.NotebookNode]]:
        """All cells in which the form of a step holds: those of the core path and of "Going deeper"."""
        yield from self.core()
        if self.deeper:
            yield from self.within(self.deeper)
