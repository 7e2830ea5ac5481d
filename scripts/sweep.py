"""Many trainings that are saved one by one, so that an interrupted sweep goes on where it stopped.

    log = {"steps": 1000, "seeds": [1, 2, 3], "runs": {}}      # the settings, and where the results go
    log = sweep(RESULTS / "gains.json", log, work, names=["0.5", "1.0"])

`work(name)` is a function of a module (its process imports it from there) and returns what JSON can hold.
"""

import json
import os
import re
import signal
import sys
from functools import partial
from itertools import count
from multiprocessing import get_context

from common import write_atomically

DAMAGED = "{} is damaged: restore it (git restore) or delete it, then run this again"


def resume(path, log, *, results="runs", names=None):
    """The log at `path` if it was made with the same settings, else the new one; a log with others is put aside.

    log: a dict of settings, of which log[results] is a dict, still empty, of what each run comes to. names: the runs
    that may stand there, if not any. A file that can't be such a log is left as it is: SystemExit with the remedy.
    """
    if not path.exists():
        return log
    try:
        found = json.loads(path.read_text())
        whole = isinstance(found[results], dict) and (names is None or set(found[results]) <= set(names))
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        sys.exit(DAMAGED.format(path))
    settings = json.loads(json.dumps({key: value for key, value in log.items() if key != results}))  # tuples are lists
    different = [key for key in settings if found.get(key) != settings[key]]
    if not different:
        return found
    older = (path.with_suffix(f".old{number or ''}.json") for number in count())
    aside = next(free for free in older if not free.exists())
    os.replace(path, aside)
    print(f"made with another {', '.join(different)}: kept as {os.path.relpath(aside)}, starting afresh")
    return log


def sweep(path, log, work, names, *, results="runs", jobs=2, first=None):
    """Do what is missing from the log at `path`, `jobs` runs at a time, and save after each; returns the whole log.

    names: of all the runs, in the order in which the log holds them. first: the order in which they are begun.
    Ctrl-C ends all processes, keeps what is saved and exits with the remedy.
    """
    log = resume(path, log, results=results, names=names)
    missing = [name for name in first or names if name not in log[results]]
    for name in names:
        if name not in missing:
            print(f"{name}: already there")
    try:
        # Ctrl-C reaches all processes, and is for the first one: in the others train would stop early and count
        # as done. They inherit that they ignore it, so that it can't hit them while they start either.
        answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Spawned, as forking a process that has threads may hang it. Leaving the pool ends its processes.
        with get_context("spawn").Pool(jobs, initializer=_ignore_interrupts) as pool:
            signal.signal(signal.SIGINT, answer)
            for name, result in pool.imap_unordered(partial(_named, work), missing):
                done = log[results] | {name: result}
                log[results] = {name: done[name] for name in names if name in done}
                write_atomically(path, as_json(log).encode())
    except KeyboardInterrupt:
        sys.exit(f"interrupted: {len(log[results])} of {len(names)} {results} are saved, run it again to go on")
    return log


def as_json(log):
    """Indented, with each list of numbers on a line of its own."""
    text = json.dumps(log, indent=1)
    return re.sub(r"\[[^][{}]*\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n"


def _ignore_interrupts():
    """Windows' processes inherit nothing of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _named(work, name):
    return name, work(name)
