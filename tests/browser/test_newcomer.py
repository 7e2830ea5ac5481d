"""The first notebook, opened as `make lab` opens it, on a copy of the course; Run All clicked in the menu."""

import re
import shlex
import shutil
import subprocess
import sys

import nbformat
import pytest
from serving import ROOT, served

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make; Windows has commands of its own")


@pytest.fixture
def course(tmp_path):
    """A folder with the course's files alone, so that the learner's own study/ is left in peace."""
    others = shutil.ignore_patterns(
        ".*_cache", ".git", ".venv", "__pycache__", "study", "names.txt", ".ipynb_checkpoints"
    )
    shutil.copytree(ROOT, tmp_path / "my course", ignore=others)
    return tmp_path / "my course"


def command_of_make_lab(course):
    """What `make lab` would run after installing, with this very Python."""
    recipe = subprocess.run(["make", "-n", "lab"], cwd=course, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in recipe.splitlines() if line.startswith(".venv/bin/python")]
    return [sys.executable, *shlex.split(line)[1:]]


def test_run_all_from_the_menu(course, chromium, tmp_path):
    subprocess.run([sys.executable, "scripts/study.py"], cwd=course, check=True, timeout=120)
    notebook = course / "study/00_start_here.ipynb"
    nb = nbformat.read(notebook, 4)
    for cell in nb.cells:  # it comes with its outputs, which must not be taken for new ones
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(nb, notebook)

    with served(command_of_make_lab(course), course, tmp_path / "jupyter") as (_, log):
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(re.search(r"http://127\.0\.0\.1:\S+token=\w+", log.read_text(encoding="utf-8"))[0])
        page.get_by_role("tab", name="00_start_here").wait_for()  # nothing was clicked: it is open
        page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for()  # in the status bar
        # What is run in the moment in which the kernel connects is lost; no person is that quick.
        page.wait_for_timeout(3000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        for _ in range(60):  # on the page stand only the cells in view, in the saved file all
            page.wait_for_timeout(1000)
            page.keyboard.press("Control+s")
            saved = nbformat.read(notebook, 4)
            cells = [cell for cell in saved.cells if cell.cell_type == "code"]
            counts = [cell.execution_count for cell in cells]
            if counts == list(range(1, len(cells) + 1)):
                break
        assert counts == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell.outputs]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
        assert [o for o in outputs if "image/png" in o.get("data", {})]
        assert "widgets" in saved.metadata  # its panel is there when it is opened again
        page.close()
        assert "without encryption" not in log.read_text(encoding="utf-8")  # as a kernel would warn in the terminal
