"""A real JupyterLab, a real Chromium, and what every test here does with them."""

import os
from pathlib import Path

import pytest
from serving import INSTALL, Notebook, find_chromium, launched, quiet_lab


def pytest_collection_modifyitems(config, items):
    if find_chromium():
        return
    if os.environ.get("CI"):
        raise pytest.UsageError(INSTALL)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=INSTALL))


def pytest_terminal_summary(terminalreporter):
    if not find_chromium():
        terminalreporter.write_line(INSTALL)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A JupyterLab that serves a folder of small notebooks: (its address, the folder)."""
    with quiet_lab(tmp_path_factory.mktemp("lab")) as served:
        yield served


@pytest.fixture(scope="session")
def chromium():
    with launched() as browser:
        yield browser


def new_page(chromium):
    page = chromium.new_page(viewport={"width": 1400, "height": 1100})
    page.set_default_timeout(20_000)
    return page


@pytest.fixture
def page(chromium):
    page = new_page(chromium)
    yield page
    page.close()


@pytest.fixture(scope="module")
def opened(chromium, lab):
    """A notebook with one kernel for all tests of a file: to start one and to import torch in it takes seconds."""
    notebook = Notebook(new_page(chromium), lab, ["import torch, helpers.widgets"])
    yield notebook
    notebook.shut_down()
    notebook.page.close()


@pytest.fixture
def notebook(opened):
    """notebook(*cells) puts these cells into the open notebook and runs them all."""

    def fill(*cells, height=1100):
        opened.page.set_viewport_size({"width": 1400, "height": height})
        opened.fill(cells)
        return opened

    return fill
