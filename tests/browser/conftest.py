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


@pytest.fixture
def page(chromium):
    page = chromium.new_page(viewport={"width": 1400, "height": 1100})
    page.set_default_timeout(20_000)
    yield page
    page.close()


@pytest.fixture
def notebook(page, lab):
    """notebook(*cells) opens a notebook of these cells and runs them all."""
    opened = []

    def open_notebook(*cells):
        opened.append(Notebook(page, lab, cells))
        return opened[-1]

    yield open_notebook
    for one in opened:
        one.shut_down()
