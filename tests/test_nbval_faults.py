"""What must fail under `pytest --nbval` fails, for the right reason: the broken notebooks in tests/faults."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from xml.etree import ElementTree

import psutil
import pytest

from common import ROOT

BUNDLED = ROOT / "data/bundled_names.txt"
CURRENT = "outputs are current"  # the test that stands before a notebook's cells
RERUN = "run scripts/refresh.py"


def command(*arguments):
    return [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", "--color=no", *arguments]


def nbval(report, *arguments, **environment):
    """Run pytest --nbval and return {notebook: {test: "passed", or "failed"/"skipped" and the reason}}."""
    run = subprocess.run(
        command(f"--junitxml={report}", *arguments),
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,  # most of these runs are meant to fail
    )
    assert report.exists(), run.stdout + run.stderr
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        notebook = case.get("classname").split(".")[-2]
        outcome = "passed"
        for kind in ("failure", "error", "skipped"):
            if (reason := case.find(kind)) is not None:
                outcome = f"{kind}: {reason.get('message')}\n{reason.text}"
        outcomes.setdefault(notebook, {})[case.get("name")] = outcome
    return outcomes


# What each cell's report must contain: "" where it passes. Before the cells stands "outputs are current", which
# passes unless it is named here.
EXPECTED = {
    "healthy": dict.fromkeys([f"Cell {i}" for i in range(8)], ""),
    "live_panel": dict.fromkeys([f"Cell {i}" for i in range(4)], ""),
    "lecture_data": {"Cell 0": ""},  # with other names than the lecture's
    "dead_kernel": {"Cell 0": "", "Cell 1": "The kernel died", "Cell 2": "not run: Cell 1 failed"},
    "unknown_magic": {"Cell 0": "`%no_such_magic` not found", "Cell 1": "not run: Cell 0 failed"},
    "failed_cell": {"Cell 0": "", "Cell 1": "AssertionError", "Cell 2": "not run: Cell 1 failed"},
    "nothing_raised": {"Cell 0": "nothing was raised", "Cell 1": "not run: Cell 0 failed"},
    "hanging_cell": {"Cell 0": "Timeout of 5 s exceeded", "Cell 1": "not run: Cell 0 failed"},
    "stale_output": {CURRENT: RERUN, "Cell 0": "not run: its outputs are stale", "Cell 1": "not run"},
    "no_outputs": {"Cell 0": RERUN, "Cell 1": RERUN},
    "missing_output": {"Cell 0": RERUN, "Cell 1": RERUN, "Cell 2": "picture: committed 0, now 1"},
    "differing_output": {"Cell 0": "", "Cell 1": "Cell outputs differ", "Cell 2": ""},
    "warning": {"Cell 0": "", "Cell 1": "stderr"},
    "rounded_otherwise": dict.fromkeys([f"Cell {i}" for i in range(12)], ""),
    "wrong_numbers": {
        "Cell 0": "0.1231 is now 0.1234",
        "Cell 1": "32,032 is now 32,033",
        "Cell 2": "-0.25 is now +0.25",
        "Cell 3": "1e-06 is now 1e-05",
        "Cell 4": "12% is now 14%",
        "Cell 5": "1 2.50",  # the row that is missing now
        "Cell 6": "it slips",
        "Cell 7": "0.500 is now 0.520 (0.01",
        "Cell 8": "0.500 is now 0.520 (0.01",
        "Cell 9": "4 is now 2 (1 apart",
        "Cell 10": "text/html: 0.57 is now 0.75",
        "Cell 11": "measured: 2.1057 is now 2.1027",
        "Cell 12": "'slip' is now 'holds'",
        "Cell 13": "alt text: 2.5 is now 3.5",
        "Cell 14": "picture: committed 1, now 0",
        "Cell 15": "reason",
        "Cell 16": "unknown relativ",
        "Cell 17": "ignored_because",
        "Cell 18": "ignored_because",
    },
}


@pytest.mark.slow
def test_each_fault_is_caught_and_nothing_else(tmp_path):
    outcomes = nbval(tmp_path / "report.xml", "tests/faults", "--nbval-cell-timeout=5", MAKEMORE_NAMES=str(BUNDLED))
    assert set(outcomes) == set(EXPECTED) == {path.stem for path in (ROOT / "tests/faults").glob("*.ipynb")}
    for notebook, expected in EXPECTED.items():
        expected = {CURRENT: ""} | expected
        assert list(outcomes[notebook]) == list(expected), notebook
        for name, reason in expected.items():
            outcome = outcomes[notebook][name]
            kind = "skipped" if reason.startswith("not run") else "failure" if reason else "passed"
            assert outcome.startswith(kind) and reason in outcome, f"{notebook}, {name}: {outcome}"


@pytest.fixture
def configure(request, monkeypatch):
    """A function that configures a run of pytest --nbval with these options; returns what its tags stand for."""
    rules = request.config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    monkeypatch.setattr(rules.nbval.plugin, "metadata_tags", {})
    with contextlib.ExitStack() as ending:

        def configure(**options):
            option = SimpleNamespace(**{"nbval": True, "dist": "loadfile", "nbval_cell_timeout": 2000} | options)
            rules.pytest_configure(SimpleNamespace(option=option, add_cleanup=ending.callback))
            return rules.nbval.plugin.metadata_tags

        yield configure


def test_cells_of_a_notebook_are_not_spread_over_processes(configure):
    with pytest.raises(pytest.UsageError, match="--dist loadfile"):
        configure(dist="load")


@pytest.mark.parametrize(("source", "tags"), [("lecture", {}), ("bundled", {"lecture-data": ("check", False)})])
def test_lecture_data_are_compared_with_the_lectures_names_alone(configure, monkeypatch, source, tags):
    monkeypatch.setattr("helpers.data.load_names", lambda: SimpleNamespace(source=source))
    assert configure() == tags


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupt_leaves_no_kernel_behind():
    process = subprocess.Popen(
        command("tests/faults/hanging_cell.ipynb", "-v"),
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if CURRENT in line:  # printed when this test has passed, just before the cell that hangs begins
            break
    time.sleep(1)
    kernels = psutil.Process(process.pid).children(recursive=True)
    # Again, as a person would: Python drops a KeyboardInterrupt that falls into a weak reference's callback.
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, _ = process.communicate(timeout=20)  # seconds
            break
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert kernels and not psutil.wait_procs(kernels, timeout=60)[1]
