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
from multiprocessing import get_context, parent_process
from threading import RLock, Thread

from tqdm import tqdm

from common import write_atomically

DAMAGED = "{} is damaged{}: restore it (git restore) or delete it, then run this again"


def resume(path, log, *, results="runs", names=None, whole=bool):
    """The log at `path` if it was made with the same settings, else the new one; a log with others is put aside.

    log: a dict of settings, of which log[results] is a dict, still empty, of what each run comes to. names: the runs
    that may stand there, if not any. whole(result): whether a run's result is all there. A file that
    can't be such a log is left as it is: SystemExit with the remedy.
    """
    if not path.exists():
        return log
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        unknown = set(found[results].keys()) - set(found[results] if names is None else names)
    except (ValueError, KeyError, TypeError, AttributeError):
        sys.exit(DAMAGED.format(path, ""))
    if unknown:
        sys.exit(DAMAGED.format(path, f" (it holds {', '.join(sorted(unknown))})"))
    settings = json.loads(json.dumps({key: value for key, value in log.items() if key != results}))  # tuples are lists
    different = [key for key in settings if found.get(key) != settings[key]]
    if not different:
        if part := [name for name, result in found[results].items() if not whole(result)]:
            sys.exit(DAMAGED.format(path, f" ({', '.join(part)}: not all there)"))
        return found
    older = (path.with_suffix(f".old{number or ''}.json") for number in count())
    aside = next(free for free in older if not free.exists())
    os.replace(path, aside)
    print(f"made with another {', '.join(different)}: kept as {os.path.relpath(aside)}, starting afresh")
    return log


def sweep(path, log, work, names, *, results="runs", jobs=2, first=None, whole=bool):
    """Do what is missing from the log at `path`, `jobs` runs at a time, and save after each; returns the whole log.

    names: of all the runs, in the order in which the log holds them. first: the order in which they are begun. whole:
    as for resume.
    Ctrl-C ends all processes, keeps what is saved and exits with the remedy.
    """
    log = resume(path, log, results=results, names=names, whole=whole)
    missing = [name for name in first or names if name not in log[results]]
    for name in names:
        if name not in missing:
            print(f"{name}: already there")
    try:
        # Ctrl-C reaches all processes, and is for the first one: in the others train would stop early and count
        # as done. They inherit that they ignore it, so that it can't hit them while they start either.
        answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Spawned, as forking a process that has threads may hang it.
        pool = get_context("spawn").Pool(jobs, initializer=_begin)
        try:
            signal.signal(signal.SIGINT, answer)
            for name, result in pool.imap_unordered(partial(_named, work), missing):
                done = log[results] | {name: result}
                log[results] = {name: done[name] for name in names if name in done}
                write_atomically(path, as_json(log).encode())
            pool.close()
        except BaseException:
            pool.terminate()
            raise
        finally:
            pool.join()  # until they have ended and given back what they share
    except KeyboardInterrupt:
        sys.exit(f"interrupted: {len(log[results])} of {len(names)} {results} are saved, run it again to go on")
    return log


def as_json(log):
    """Indented, with each list of numbers on a line of its own."""
    text = json.dumps(log, indent=1)
    return re.sub(r"\[[^][{}]*\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n"


def _begin():
    """In each process: Ctrl-C is for the first one (Windows' processes inherit nothing of it), and it ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What the system does at SIGTERM ends it for certain: an exception from a handler is lost if it falls into a
    # __del__. But it gives nothing back, and tqdm's own lock is one that all processes would share.
    tqdm.set_lock(RLock())
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    """Otherwise a process whose parent was killed would train on to the end of its run, for nobody."""
    parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _named(work, name):
    return name, work(name)
