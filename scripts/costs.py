"""What the notebooks and the unit tests cost, in steps of the lecture's own training loop: `make costs`.

NB is a number ("03", "E01"), a name or a path; without any, every notebook runs, and the unit tests after them. A
cost is CPU time, kernel and imports included, divided by what a step of the lecture's loop (part 1's network without
BatchNorm) takes on the same machine just before and after. So it is the same number on a slow machine as on a fast one.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import nbformat
import torch

from common import ROOT, find_notebooks
from helpers.data import load_splits
from lecture import PlainShallow
from refresh import CELL_TIMEOUT, client_for, kernel_environment

GOALS = {
    "00 to 14, E01, E02": 600_000,
    "median of these": 35_000,
    "dearest of all": 70_000,
    "unit tests": 500_000,
}  # steps
UNIT_TESTS = ["-m", "pytest", "tests", "--ignore", "tests/browser", "-q", "-m", "not slow"]


def step_seconds(splits, turns=7, steps=200):
    """CPU time of one step of the lecture's loop, now."""
    plain, times = PlainShallow("kaiming", seed=1), []
    for _ in range(turns):
        began = time.process_time()
        plain.train(*splits.train, steps)
        times.append((time.process_time() - began) / steps)
    return median(times)


def children_seconds():
    """CPU time of the processes that have run and ended for this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_notebook(path):
    """Execute a notebook in a kernel of its own; nothing is written."""
    client_for(nbformat.read(path, as_version=4), path, timeout=4 * CELL_TIMEOUT).execute()


def run_unit_tests():
    return subprocess.run([sys.executable, *UNIT_TESTS], cwd=ROOT, check=False).returncode


def cost(run, splits):
    """(CPU seconds, steps) of what `run` starts."""
    step, began = step_seconds(splits), children_seconds()
    run()
    seconds = children_seconds() - began
    return seconds, seconds / ((step + step_seconds(splits)) / 2)


def show(name, seconds, steps):
    goal = f"   (goal {GOALS[name]:,})" if name in GOALS else ""
    print(f"{name:28} {seconds:7.1f} s {steps:11,.0f} steps{goal}", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", metavar="NB", help='"03", "E01", a path; none means all')
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    splits = load_splits()
    print(f"a step of the lecture's loop: {step_seconds(splits) * 1e6:.0f} µs of CPU time")
    costs = {}
    with kernel_environment():
        for path in find_notebooks(args.notebooks):
            costs[path.stem] = cost(lambda path=path: run_notebook(path), splits)
            show(path.stem, *costs[path.stem])
        if not args.notebooks:
            show("all notebooks", *map(sum, zip(*costs.values(), strict=True)))
            show("dearest of all", *max(costs.values()))
            lecture = [pair for name, pair in costs.items() if not name.startswith("X")]
            seconds, steps = zip(*lecture, strict=True)
            show("00 to 14, E01, E02", sum(seconds), sum(steps))
            show("median of these", median(seconds), median(steps))
            show("unit tests", *cost(run_unit_tests, splits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
