"""Who reads a notebook without running it sees a panel's still picture, never a widget that is not there."""

import shutil

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
