"""Those who read a notebook without running it see a panel's still picture, never a widget that is not there."""

import shutil
import subprocess
import sys

import nbformat
from serving import ROOT

CHAPTER = ROOT / "notebooks/04_kaiming_init.ipynb"


def test_in_jupyterlab_before_anything_is_run(page, lab):
    address, folder = lab
    shutil.copy(CHAPTER, folder)
    page.goto(f"{address}/lab/tree/{CHAPTER.name}?reset", wait_until="domcontentloaded")
    cell = page.locator(".jp-CodeCell").filter(has_text="gain_explorer(gain").first
    cell.scroll_into_view_if_needed()
    if (folded := cell.locator(".jp-OutputPlaceholder")).count():  # as every result after a guess
        folded.click()
    still = cell.locator('[data-mime-type="image/png"] img')
    still.wait_for(state="attached")
    still.scroll_into_view_if_needed()
    assert still.evaluate("image => image.naturalWidth") > 1000
    assert page.get_by_text("displaying widget").count() == 0


def test_as_a_page_of_html(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", "--output-dir", tmp_path, CHAPTER],
        check=True,
        capture_output=True,
        timeout=120,
    )
    html = (tmp_path / f"{CHAPTER.stem}.html").read_text(encoding="utf-8")
    cells = nbformat.read(CHAPTER, 4).cells
    pictures = [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert html.count('src="data:image/png') == len(pictures) > 3
    assert "widget-view" not in html
