import gc
import signal
import sys
from collections import Counter
from functools import cache

import matplotlib
import pytest
import torch

from common import find_notebook
from helpers import data

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in the background, and the processes that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

matplotlib.use("Agg")  # no window
torch.set_num_threads(1)  # networks this small are never faster on two


# The collector would look again and again through the million objects of imported packages, a tenth of the time.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def what_a_module_leaves_is_looked_through_once():
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


left_out = set()  # slow tests that are not run, in this process or in a worker of xdist's


def pytest_deselected(items):
    left_out.update(item.nodeid for item in items if item.get_closest_marker("slow"))


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = sorted(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    left_out.update(getattr(node, "workeroutput", {}).get("left_out", []))


def pytest_terminal_summary(terminalreporter, config):
    if left_out and config.option.markexpr == "not slow":
        files = Counter(nodeid.split("::")[0] for nodeid in left_out)
        terminalreporter.write_line(f"Left out: {len(left_out)} slow tests, which `make test-all` runs.")
        terminalreporter.write_line("  " + ", ".join(f"{file} {count}" for file, count in sorted(files.items())))


cut_once = cache(data.load_splits)


@pytest.fixture(scope="session")
def splits():
    """The names in use, cut once for all tests."""
    return cut_once()


@pytest.fixture(scope="session", autouse=True)
def splits_of_notebooks():
    """The set-up cells of twenty notebooks cut the same names: they are given what is cut already."""
    with pytest.MonkeyPatch.context() as patch:
        cut = data.load_splits
        patch.setattr(data, "load_splits", lambda *names, **how: cut(*names, **how) if names or how else cut_once())
        yield


@pytest.fixture(scope="session")
def lecture_splits():
    """The lecture's own splits, for numbers that only its file gives."""
    splits = cut_once()
    if splits.names.source != "lecture":
        pytest.skip("needs the lecture's names: run `make data`, or set MAKEMORE_NAMES")
    return splits


@pytest.fixture(scope="module")
def chapter(request):
    """What the notebook defines that has the number of the test's file: a namespace."""
    from notebook_cells import definitions  # imports IPython, which other tests need not wait for

    return definitions(find_notebook(request.module.__name__.removeprefix("test_chapter_")))
