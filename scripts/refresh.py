"""Execute notebooks and write their outputs back: `python scripts/refresh.py [NB …]`, as `make refresh` does.

NB is a number ("03", "E01"), a name or a path; without any, every notebook is refreshed. Outputs are made with
the lecture's own names, and running twice writes the same bytes, so a diff shows what really changed. The poster
is made with chapter 14.
"""

import argparse
import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from common import NOTEBOOKS, find_notebooks, number, write_atomically

CELL_TIMEOUT = 120  # seconds, for one cell; a whole notebook should need less than half of that
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
running: set[NotebookClient] = set()  # whose kernels an interrupt has to end
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@contextlib.contextmanager
def kernel_environment():
    """Set what every kernel inherits, in refreshes and tests alike, so that their outputs can be compared."""
    settings = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # sums in one order, and no fight for cores
    settings["TQDM_DISABLE"] = "1"  # bars of text; a notebook's are widgets, dropped by without_widgets
    settings["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    names = os.environ.get("MAKEMORE_NAMES")
    if names:  # relative to where we are, while a kernel starts in its notebook's folder
        settings["MAKEMORE_NAMES"] = str(Path(names).absolute())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        settings["IPYTHONDIR"] = folder  # away from the user's own start-up files and history
        with mock.patch.dict(os.environ, settings):
            yield


def source_hash(nb: nbformat.NotebookNode) -> str:
    """Fingerprint of the code cells' sources: outputs are stale when it is not the one in the metadata."""
    sources = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps([sources]).encode()).hexdigest()[:16]


def without_widgets(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The outputs as a reader without a kernel can see them.

    A live widget's view and its textual repr go; its still picture stays. An output of which nothing is left goes.
    """
    still = []
    for output in outputs:
        if WIDGET_VIEW in output.get("data", {}):
            data = {mime: v for mime, v in output.data.items() if mime not in (WIDGET_VIEW, "text/plain")}
            if not data:
                continue
            output = nbformat.from_dict({**output, "data": data})
        still.append(output)
    return still


def tidy(nb: nbformat.NotebookNode) -> None:
    """Drop from an executed notebook whatever differs between two runs or two machines."""
    nb.metadata.pop("widgets", None)
    nb.metadata.kernelspec = KERNELSPEC
    nb.metadata.language_info = {"name": "python"}
    nb.metadata.source_hash = source_hash(nb)
    for cell in nb.cells:
        cell.metadata.pop("execution", None)  # JupyterLab's timings
        if cell.cell_type != "code":
            continue
        outputs = []
        for output in without_widgets(cell.outputs):
            if output.output_type == "error":
                # A full traceback shows this machine's paths and the line numbers of this release of torch.
                output.traceback = [f"{output.ename}: {output.evalue}"]
            last = outputs[-1] if outputs else {}
            if output.output_type == "stream" and last.get("name") == output.name:
                last.text += output.text  # where a stream is cut depends on time
            else:
                outputs.append(output)
        cell.outputs = outputs


def client_for(nb: nbformat.NotebookNode, path: Path, **settings) -> NotebookClient:
    """An nbclient that executes a notebook in the notebook's folder, with a kernel of its own."""
    quiet = ["--log-level=ERROR"]  # no warning that a local connection is not encrypted
    folder = {"metadata": {"path": str(path.parent)}}
    return NotebookClient(nb, kernel_name=KERNELSPEC["name"], extra_arguments=quiet, resources=folder, **settings)


def refresh(path: Path) -> bool:
    """Execute one notebook and write it; True if that worked. A notebook with a failing cell stays as it was."""
    began = time.perf_counter()
    before = path.read_bytes()
    nb = nbformat.reads(before.decode(), as_version=4)
    at = {}
    where = lambda cell, cell_index: at.update(index=cell_index, id=cell.id)
    client = client_for(nb, path, timeout=CELL_TIMEOUT, record_timing=False, on_cell_start=where)
    running.add(client)

    def refuse(reason: str) -> bool:
        print(f"{path.name}: not written. {reason}", file=sys.stderr, flush=True)
        return False

    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return refuse(f"Cell {at['index']} (id {at['id']}) failed:\n{error}")
    finally:
        running.discard(client)
    tidy(nb)
    after = (nbformat.writes(nb) + "\n").encode()
    if path.read_bytes() != before:
        return refuse("It was edited while it ran; run this again.")
    if after != before:
        write_atomically(path, after)
    seconds = time.perf_counter() - began
    print(f"{path.name}: {seconds:.1f} s{'' if after != before else ', unchanged'}", flush=True)
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", metavar="NB", help='"03", "E01", a path; none means all')
    parser.add_argument("--jobs", type=int, default=2, help="how many notebooks run at a time (default 2)")
    args = parser.parse_args(arguments)
    paths = find_notebooks(args.notebooks)

    from helpers.data import load_names  # imports torch: after the arguments, so that --help is quick

    try:
        source = load_names().source
    except (OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    if source != "lecture":
        parser.exit(
            2,
            f"refresh writes outputs made with the lecture's own names, but those in use are: {source}. "
            "Fetch them with `make data`, or set MAKEMORE_NAMES to a copy of the lecture's names.txt.\n",
        )
    if any(path.parent == NOTEBOOKS and number(path.stem) == "14" for path in paths):
        import poster  # imports matplotlib: after the arguments, as above

        poster.main()  # first, as 14 shows it
    with kernel_environment(), ThreadPoolExecutor(args.jobs) as pool:
        try:
            written = list(pool.map(refresh, paths))
        except KeyboardInterrupt:
            for client in running:
                client.km.provisioner.process.kill()  # its thread then sees a dead kernel and ends
            written = [False]
    return 0 if all(written) else 1


if __name__ == "__main__":
    sys.exit(main())
