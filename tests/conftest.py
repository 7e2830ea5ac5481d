import signal
from collections import Counter

import pytest
import torch

from helpers.data import load_splits

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in the background, and the processes that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # networks this small are never faster on two

left_out = set()  # tests that -m or -k have left out, in this process or in a worker of xdist's


def pytest_deselected(items):
    left_out.update(item.nodeid for item in items)


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


@pytest.fixture(scope="session")
def lecture_splits():
    """The lecture's own splits, for numbers that only its file gives."""
    splits = load_splits()
    if splits.names.source != "lecture":
        pytest.skip("needs the lecture's names: run `make data`, or set MAKEMORE_NAMES")
    return splits
