"""Makes `pytest --nbval` strict: closes the gaps through which nbval 0.11.0 lets a broken notebook pass.

Outputs are compared by scripts/comparison.py, which knows numbers, in place of nbval's own text comparison.
tests/faults holds one small notebook for each gap, and tests/test_nbval_faults.py shows that it is caught.
"""

import time
from importlib.metadata import version
from queue import Empty

import nbval.kernel
import nbval.plugin
import pytest

from comparison import Tolerance, compare_outputs, why_ignored
from refresh import CELL_TIMEOUT, kernel_environment, source_hash, without_widgets

collect_ignore = ["tests/faults"]  # they fail on purpose, so they run only when named on the command line
POLL_SECONDS = 0.5  # how often a silent kernel is asked whether it lives


def pytest_configure(config):
    if not getattr(config.option, "nbval", False):
        return
    if version("nbval") != "0.11.0":
        raise pytest.UsageError(
            f"conftest.py replaces methods of nbval 0.11.0, but nbval {version('nbval')} is installed. "
            "Install the pinned one: pip install -c constraints.txt -e '.[test]'"
        )
    distribution = getattr(config.option, "dist", "no")
    if distribution not in ("no", "loadfile"):
        raise pytest.UsageError("The cells of a notebook share a kernel: with -n, add --dist loadfile.")
    if config.option.nbval_cell_timeout == 2000:  # nbval's default
        config.option.nbval_cell_timeout = CELL_TIMEOUT
    environment = kernel_environment()
    environment.__enter__()
    config.add_cleanup(lambda: environment.__exit__(None, None, None))

    from helpers.data import load_names  # imports torch, which runs without --nbval need not wait for

    try:
        source = load_names().source
    except (OSError, ValueError) as error:  # MAKEMORE_NAMES points to something unusable
        raise pytest.UsageError(str(error)) from None
    if source != "lecture":
        nbval.plugin.metadata_tags["lecture-data"] = ("check", False)  # run, but not compared


class KernelDied(Exception):
    """The kernel's process ended while a message from it was awaited."""


def start_kernel(*arguments, **keywords):
    """Start a kernel, and once more if that fails: two that start at the same time may want the same port."""
    try:
        return nbval_start_kernel(*arguments, **keywords)
    except RuntimeError:
        return nbval_start_kernel(*arguments, **keywords)


def get_message(kernel, stream, timeout=None):
    """Await a message as nbval does, but notice a dead kernel at once, not when the cell's time is up."""
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    while True:
        left = deadline - time.monotonic()
        try:
            message = nbval_get_message(kernel, stream, timeout=min(POLL_SECONDS, max(left, 0)))
        except Empty:
            if not kernel.is_alive():
                raise KernelDied("The kernel died.") from None
            if left <= 0:
                raise
        else:
            if stream == "shell":
                kernel.reply = message["content"]
            if not is_captured(kernel, message):
                return message


def is_captured(kernel, message):
    """Whether the text or picture in a message goes to an Output widget, not below the cell.

    An Output widget says so by its state's msg_id: the request whose outputs it takes, or "" when it takes none.
    """
    content, takes = message["content"], kernel.__dict__.setdefault("output_widgets", {})
    if message["msg_type"] in ("comm_open", "comm_msg"):
        state = content["data"].get("state", {})
        if "msg_id" in state:
            takes[content["comm_id"]] = state["msg_id"]
    shows = message["msg_type"] in ("stream", "display_data")  # an error still fails the cell
    return shows and message["parent_header"].get("msg_id") in takes.values()


def execute_cell_input(kernel, source, allow_stdin=None):
    """Execute as Jupyter does, with history: without it IPython ignores a `;` that ends a cell."""
    return kernel.kc.execute(source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


def setup_cell(cell):
    if reason := getattr(cell.parent, "broken", None):
        pytest.skip(f"not run: {reason}")
    cell.output_timeout = 30  # nbval's 5 s are too few for a figure on a busy machine


def run_cell(cell):
    """Run a cell and compare its outputs, as nbval does, and see what nbval overlooks."""
    notebook, kernel = cell.parent, cell.parent.kernel
    compared, cell.options["check"] = cell.options["check"], False  # last, and by us
    if cell.options["skip"]:
        pytest.skip("tagged nbval-skip")
    notebook.broken = f"{cell.name} failed"  # until it has run
    try:
        nbval_run_cell(cell)
    except KernelDied as error:
        cell.raise_cell_error(str(error))
    if notebook.timed_out:  # the interrupt may have been caught, as helpers.train does
        cell.raise_cell_error(f"Timeout of {cell.config.option.nbval_cell_timeout:g} s exceeded")
    failed = kernel.reply["status"] == "error"
    if failed and not cell.options["check_exception"]:  # an unknown magic sends no error output
        cell.raise_cell_error(f"The kernel replied {kernel.reply['ename']}: {kernel.reply['evalue']}")
    if cell.options["check_exception"] and not failed:
        cell.raise_cell_error("Tagged raises-exception, but nothing was raised")
    notebook.broken = None

    committed, fresh = without_widgets(cell.cell.outputs), without_widgets(cell.test_outputs)
    if cell.cell.execution_count is None or (fresh and not committed):
        cell.raise_cell_error("Its outputs are missing from the notebook: run scripts/refresh.py")
    try:
        tolerance = Tolerance.of(cell.cell.metadata)
        if not compared and "lecture-data" not in cell.cell.metadata.get("tags", []):
            why_ignored(cell.cell.metadata)
    except ValueError as error:
        cell.raise_cell_error(f"In its metadata: {error}")
    if compared and (differences := compare_outputs(committed, fresh, tolerance)):
        cell.raise_cell_error("Cell outputs differ", "\n".join(differences))


class OutputsAreCurrent(pytest.Item):
    """The first test of a notebook: its code is what its outputs were made from."""

    def runtest(self):
        if self.parent.nb.metadata.get("source_hash") != source_hash(self.parent.nb):
            self.parent.broken = "its outputs are stale"
            raise AssertionError("The code has changed since its outputs were made: run scripts/refresh.py")

    def repr_failure(self, excinfo):
        return str(excinfo.value)

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}: outputs are current"


def collect_notebook(notebook):
    cells = list(nbval_collect(notebook))
    return [OutputsAreCurrent.from_parent(notebook, name="outputs are current"), *cells]


def stop_kernel(notebook):
    nbval_teardown(notebook)
    if hasattr(notebook.kernel, "km"):  # nbval leaves the channels of a kernel that died by itself
        notebook.kernel.stop()


nbval_start_kernel = nbval.kernel.start_new_kernel
nbval_get_message = nbval.kernel.RunningKernel.get_message
nbval_run_cell = nbval.plugin.IPyNbCell.runtest
nbval_collect = nbval.plugin.IPyNbFile.collect
nbval_teardown = nbval.plugin.IPyNbFile.teardown

nbval.kernel.start_new_kernel = start_kernel
nbval.kernel.RunningKernel.get_message = get_message
nbval.kernel.RunningKernel.execute_cell_input = execute_cell_input
nbval.plugin.IPyNbCell.setup = setup_cell
nbval.plugin.IPyNbCell.runtest = run_cell
nbval.plugin.IPyNbFile.collect = collect_notebook
nbval.plugin.IPyNbFile.teardown = stop_kernel
