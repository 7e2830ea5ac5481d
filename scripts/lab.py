"""Open the course in JupyterLab: `python scripts/lab.py [arguments for JupyterLab]`, as `make lab` does.

Fetches the lecture's names, or goes on with the bundled ones; makes the learner's copies of the notebooks; and opens
the first of them. Without room for copies the course's own notebooks open, which can be run and not saved.
"""

import os
import signal
import subprocess
import sys

import zmq

from common import NOTEBOOKS, ROOT
from study import prepare

try:
    from helpers import data
except (ImportError, OSError) as error:  # a torch of which a file is gone is an OSError
    sys.exit(
        f"The installed packages are damaged: {error}. Delete the folder .venv, then `make lab` makes it again "
        "(elsewhere: install as README.md says)."
    )


def main():
    data.main(or_bundled=True)
    study, lines = prepare()
    for line in lines:
        print(line, flush=True)
    if not any(study.glob("*.ipynb")):
        study = NOTEBOOKS
    root = ROOT if study.is_relative_to(ROOT) else study  # the folder that JupyterLab shows
    first = (study / "00_start_here.ipynb").relative_to(root).as_posix()
    settings = [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{first}"]
    if zmq.has("curve"):  # else each kernel warns, in the learner's terminal, that others might listen
        settings.append("--KernelManager.transport_encryption=auto")
    if hasattr(os, "getuid") and os.getuid() == 0:
        settings.append("--allow-root")
    command = [sys.executable, "-m", "jupyter", "lab", *settings, *sys.argv[1:]]
    os.chdir(root)
    if os.name == "posix":  # JupyterLab takes the place of this process, so that signals and Ctrl-C reach it alone
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, lambda *_: None)  # JupyterLab asks and answers for itself
    sys.exit(subprocess.call(command))


if __name__ == "__main__":
    main()
