"""Check that the notebooks keep the course's rules: `python scripts/check_notebooks.py [NB …]`.

NB is a number ("03", "E01"), a name or a path; without any, every notebook is checked. Nothing is executed. Every
rule below yields what is wrong: a cell's index, or None for the notebook, and a message with the remedy.
"""

import argparse
import base64
import json
import re
import struct
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nbformat

from common import ROOT, find_notebooks
from lesson_rules import LESSON_RULES
from notebook_parts import Lesson, Notebook, Problem, exercises, first_line, is_hidden, tags
from refresh import source_hash

MAX_BYTES = 1_000_000
MAX_ANIMATION_BYTES = 600_000
PLAYS = 3
MAX_CODE_LINES = 25
MAX_FOLDED_LINES = 40  # of a cell that nobody has to read: a figure, or what guards the page's sentences
KNOWN_TAGS = {
    *("setup", "definition", "guess", "exercise", "check"),
    *("lecture-data", "nbval-ignore-output", "raises-exception"),
}
MACHINE_PATH = re.compile(r"(?<![\w.~/])(/(work|home|root|tmp|Users|private|var|opt|mnt)/\S*|[A-Za-z]:\\+Users\\\S*)")
LINK = re.compile(r"""(?:\]\(|(?:href|src)=["'])([\w./-]+\.\w+)""")  # to a file; a URL has a colon
REFRESH = "run scripts/refresh.py"


# The file


def size(notebook: Notebook) -> Iterator[Problem]:
    if len(notebook.raw) > MAX_BYTES:
        yield None, f"{len(notebook.raw):,} bytes, {MAX_BYTES:,} at most: fewer or smaller figures"


def line_ends(notebook: Notebook) -> Iterator[Problem]:
    if b"\r" in notebook.raw:
        yield None, f"line ends are not LF: {REFRESH}"


def unique_ids(notebook: Notebook) -> Iterator[Problem]:
    ids = Counter(cell.get("id") for cell in json.loads(notebook.raw)["cells"])
    for cell_id, count in ids.items():
        if cell_id is None or count > 1:
            yield None, f"{count} cells have the id {cell_id}: give each one its own"


def kernel(notebook: Notebook) -> Iterator[Problem]:
    name = notebook.nb.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        yield None, f"its kernel is {name}, not python3: {REFRESH}"


def known_tags(notebook: Notebook) -> Iterator[Problem]:
    for index, cell in enumerate(notebook.nb.cells):
        for tag in set(tags(cell)) - KNOWN_TAGS:
            yield index, f"unknown tag {tag!r}: correct it, or add it to KNOWN_TAGS"


def tolerances(notebook: Notebook) -> Iterator[Problem]:
    for index, cell in enumerate(notebook.nb.cells):
        tolerance = cell.metadata.get("tolerance")
        if tolerance is not None and not (isinstance(tolerance, dict) and str(tolerance.get("reason") or "").strip()):
            yield index, 'a tolerance without a reason: add "reason" to it, so that nobody has to guess it'


# Its outputs


def execution_counts(notebook: Notebook) -> Iterator[Problem]:
    for expected, (index, cell) in enumerate(notebook.code(), start=1):
        if cell.execution_count != expected:
            remedy = REFRESH if cell.source.strip() else "remove this empty cell"
            yield index, f"execution count {cell.execution_count}, not {expected}: {remedy}"
            return  # the counts after it are off too


def current_outputs(notebook: Notebook) -> Iterator[Problem]:
    if notebook.nb.metadata.get("source_hash") != source_hash(notebook.nb):
        yield None, f"the code has changed since its outputs were made: {REFRESH}"


def errors(notebook: Notebook) -> Iterator[Problem]:
    for index, cell in notebook.code():
        raised = any(output.output_type == "error" for output in cell.outputs)
        if raised and "raises-exception" not in tags(cell):
            yield index, "an error in its output: mend the cell, or tag it raises-exception if it is meant"
        if not raised and "raises-exception" in tags(cell):
            yield index, "tagged raises-exception, but no error in its output: remove the tag"


def stderr(notebook: Notebook) -> Iterator[Problem]:
    for index, _, output in notebook.outputs():
        if output.get("name") == "stderr":
            yield index, "a warning or a progress bar (stderr) in its output: avoid its cause"


def machine_paths(notebook: Notebook) -> Iterator[Problem]:
    for index, cell in enumerate(notebook.nb.cells):
        shown = [cell.source]
        for output in cell.get("outputs", []):
            text = {mime: value for mime, value in output.get("data", {}).items() if not mime.startswith("image/")}
            shown.append(json.dumps({**output, "data": text}, ensure_ascii=False))
        for match in MACHINE_PATH.finditer("\n".join(shown)):
            yield index, f"{match[0]!r} is a path of one machine: use a relative one, or show only the name"


def alt_text(notebook: Notebook) -> Iterator[Problem]:
    for index, _, output in notebook.outputs():
        if "image/png" in output.get("data", {}) and not output.metadata.get("image/png", {}).get("alt"):
            yield index, 'a figure without alt text: show it by helpers.plots.show(fig, "…")'


def animations(notebook: Notebook) -> Iterator[Problem]:
    for index, _, output in notebook.outputs():
        png = base64.b64decode(output.get("data", {}).get("image/png", ""))
        control = png.find(b"acTL")  # an animation's chunk: how many frames, how often they play
        if control < 0 or control > png.find(b"IDAT"):
            continue
        plays = struct.unpack(">I", png[control + 8 : control + 12])[0]
        if plays != PLAYS:
            yield index, f"an animation that plays {plays or 'for ever'}, not {PLAYS} times: save it with loop={PLAYS}"
        if len(png) > MAX_ANIMATION_BYTES:
            yield index, f"an animation of {len(png):,} bytes, {MAX_ANIMATION_BYTES:,} at most: fewer frames or colours"


# What a learner reads


def title(notebook: Notebook) -> Iterator[Problem]:
    first = notebook.nb.cells[0] if notebook.nb.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield None, "the first cell must be prose that starts with the title, '# …'"


def one_thread(notebook: Notebook) -> Iterator[Problem]:
    if not any("setup" in tags(c) and "torch.set_num_threads(1)" in c.source for _, c in notebook.code()):
        yield None, "no cell tagged setup calls torch.set_num_threads(1): add it"


def short_cells(notebook: Notebook) -> Iterator[Problem]:
    for index, cell in notebook.code():
        lines = len(cell.source.splitlines())
        most = MAX_FOLDED_LINES if cell.metadata.get("jupyter", {}).get("source_hidden") else MAX_CODE_LINES
        if lines > most:
            yield index, f"{lines} lines of code, {most} at most: split it"


def folded_results(notebook: Notebook) -> Iterator[Problem]:
    for index, cell in notebook.code():
        line = first_line(cell, html=False) if is_hidden(cell, "outputs") else ""
        if re.search(r"\d", line) and not line.startswith("<Figure"):
            heading = "print a heading first, without the numbers"
            yield (index, f"JupyterLab shows a folded output's first line, and {line!r} tells the result: {heading}")


def links(notebook: Notebook) -> Iterator[Problem]:
    for index, cell in notebook.prose():
        for target in LINK.findall(cell.source):
            if not (notebook.path.parent / target).exists():
                yield index, f"it links to {target}, which does not exist: correct the link"


def complete_exercises(notebook: Notebook) -> Iterator[Problem]:
    for exercise in exercises(notebook.nb):
        if not exercise.title:
            yield exercise.index, "a stub without a heading: add '### Exercise …' in the cell before it"
        if exercise.check is None:
            yield exercise.index, "no check: the cell after the stub must be tagged check"
        elif (count := len(exercise.solutions)) != 1:
            form = "<details><summary>Solution</summary> with exactly one ```python block"
            yield exercise.index, f"{count} solutions: the prose after its check must hold {form}"


RULES = [
    *(size, line_ends, unique_ids, kernel, known_tags, tolerances),
    *(execution_counts, current_outputs, errors, stderr, machine_paths, alt_text, animations),
    *(title, one_thread, short_cells, folded_results, links, complete_exercises),
]


def check(path: Path) -> list[str]:
    """Everything that is wrong with one notebook, a line each."""
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    raw = path.read_bytes()
    try:
        with warnings.catch_warnings(action="ignore"):  # a missing id is a rule of its own
            nb = nbformat.reads(raw.decode(), as_version=nbformat.NO_CONVERT)
            nbformat.validate(nb)
    except (ValueError, nbformat.ValidationError) as error:
        return [f"{name}: not a valid notebook: {str(error).splitlines()[0]}"]
    if (nb.nbformat, nb.nbformat_minor) < (4, 5):
        return [f"{name}: nbformat {nb.nbformat}.{nb.nbformat_minor} has no cell ids: make it 4.5 in JupyterLab"]
    notebook, problems = Notebook(path, raw, nb), []
    found = [problem for rule in RULES for problem in rule(notebook)]
    if nb.metadata.get("form") == "lesson":  # 00 is a guide, not a lesson
        lesson = Lesson(notebook)
        found += [problem for rule in LESSON_RULES for problem in rule(lesson)]
    for index, message in found:
        where = str(name)
        if index is not None:
            beginning = nb.cells[index].source[:40].split("\n")[0]
            where = f"{name}, cell {index} ({beginning} …)"
        problems.append(f"{where}: {message}")
    return problems


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", metavar="NB", help='"03", "E01", a path; none means all')
    paths = find_notebooks(parser.parse_args(arguments).notebooks)
    problems = [problem for path in paths for problem in check(path)]
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{len(paths)} notebooks keep the rules.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
