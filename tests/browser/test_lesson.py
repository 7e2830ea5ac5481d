"""A lesson, opened as a learner opens it: nothing is told before it is run, and the guess stands in the result."""

import shutil
from pathlib import Path

import nbformat
import pytest
from serving import KERNEL, ROOT

from common import find_notebook
from giveaways import numbers, result, split
from notebook_parts import CHECKED, DEEPER, Lesson, Notebook, given_to, is_hidden, tags


class Opened:
    """The lesson in the page: its cells as they are shown, whatever the window's height."""

    def __init__(self, page, address, path):
        self.page, self.path = page, path
        self.nb = nbformat.read(path, 4)
        self.lesson = Lesson(Notebook(path, path.read_bytes(), self.nb))
        page.set_viewport_size({"width": 1400, "height": 12_000})  # all cells stand in view, so that all are drawn
        page.goto(f"{address}/lab/tree/{path.name}?reset", wait_until="domcontentloaded")
        page.wait_for_function(f"() => {KERNEL}?.status === 'idle'", timeout=120_000)
        self.cell(0).locator("h1").wait_for()

    def cell(self, index):
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"]')

    def output(self, index):
        """What is open of a cell's output; folded, nothing of it is in the page, not even an alt text."""
        return self.cell(index).locator(".jp-OutputArea-output")

    def folded(self, what):
        return [index for index, cell in enumerate(self.nb.cells) if is_hidden(cell, what)]

    def shown_until(self, index):
        """The text that stands on the page down to a cell and the prose below it."""
        shown = [self.cell(k) for k in range(index + 2) if self.nb.cells[k].cell_type in ("markdown", "code")]
        return "\n".join(cell.inner_text() for cell in shown)

    def hidden_cells(self, title):
        """The words at a collapsed heading: "3 cells hidden"."""
        section = {DEEPER: self.lesson.deeper, CHECKED: self.lesson.checked}[title]
        button = self.cell(section.start).locator("button.jp-mod-cells-hidden, .jp-showHiddenCellsButton").first
        return button.inner_text(), section

    def saved(self):
        self.page.keyboard.press("Control+s")
        self.page.wait_for_timeout(1000)
        return nbformat.read(self.path, 4)


@pytest.fixture
def opened(page, lab):
    address, folder = lab
    shutil.copytree(ROOT / "data", folder.parent / "data", dirs_exist_ok=True)  # where a chapter looks for it
    lesson = Opened(page, address, Path(shutil.copy(find_notebook("01"), folder)))
    yield lesson
    page.evaluate(f"async () => {{ await {KERNEL}?.shutdown() }}")


def assert_sources_stay_folded(opened):
    for index in opened.folded("source"):
        if opened.cell(index).is_visible():
            assert not opened.cell(index).locator(".jp-Editor, .jp-InputArea-editor").first.is_visible(), index


def assert_collapsed(opened, *titles):
    for title in titles:
        for _ in range(100):  # a busy machine folds a little later
            words, section = opened.hidden_cells(title)
            if words:
                break
            opened.page.wait_for_timeout(200)
        hidden = section.stop - section.start - 1
        assert f"{hidden} cell{'s' * (hidden > 1)} hidden" in words
        assert not any(opened.cell(k).is_visible() for k in range(section.start + 1, section.stop))


def test_a_lesson_as_a_learner_meets_it(opened):
    page, nb, lesson = opened.page, opened.nb, opened.lesson
    core = {index for index, _ in lesson.core()}
    results = [index for index in opened.folded("outputs") if index in core and nb.cells[index].outputs]
    guess = next(index for index in sorted(core) if "guess" in tags(nb.cells[index]))
    assert results and results[-1] > guess
    first = next(index for index in results if index > guess)

    # Before: folded, collapsed, and nothing that a result will say.
    assert_sources_stay_folded(opened)
    assert_collapsed(opened, DEEPER, CHECKED)
    for index in results:
        assert opened.output(index).count() == 0, index
        alone = "\n".join(split(cell.source)[1] + given_to(cell.source) for cell in nb.cells[: index + 1])
        told = set(numbers(result(nb.cells[index]))) - set(numbers(alone))
        assert not told & set(numbers(opened.shown_until(index))), index

    # A guess is typed; cells are run one by one, down to the first result.
    opened.cell(guess).locator(".cm-content").click()
    page.keyboard.press("Control+a")
    name = nb.cells[guess].source.split(" ")[0]
    page.keyboard.type(f"{name} = 0.5")
    page.keyboard.press("Escape")
    opened.cell(0).click()
    for _ in range(first + 1):
        page.keyboard.press("Shift+Enter")
    opened.output(first).first.wait_for(timeout=120_000)
    assert opened.output(results[-1]).count() == 0
    assert_sources_stay_folded(opened)
    changed = opened.saved()
    assert changed.cells[guess].source == f"{name} = 0.5"
    answers = [index for index in results if first <= index < first + 3 and changed.cells[index].outputs]
    assert [index for index in answers if changed.cells[index].outputs != nb.cells[index].outputs], (
        "the guess is not seen"
    )

    # After Run All: all results open, what is collapsed has run and is still collapsed.
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    for _ in range(180):
        code = [cell for cell in opened.saved().cells if cell.cell_type == "code" and cell.source]
        counts = [cell.execution_count for cell in code]
        if None not in counts and counts[-1] - counts[0] == len(code) - 1:
            break
    assert counts == list(range(counts[0], counts[0] + len(code)))
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]
    for index in results:
        assert opened.output(index).first.is_visible(), index
    assert_sources_stay_folded(opened)
    assert_collapsed(opened, DEEPER)  # Run All selects the last cell, and JupyterLab opens the fold that holds it
