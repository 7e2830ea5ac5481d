"""Open the course in JupyterLab: `python scripts/lab.py [arguments for JupyterLab]`, as `make lab` does.

Fetches the lecture's names, or goes on with the bundled ones; makes the learner's copies of the notebooks; and opens
the first of them. Without room for copies the course's own notebooks open, which can be run and not saved; without
room in the home directory, JupyterLab keeps its own files in a temporary folder.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import zmq
from jupyter_core.paths import jupyter_runtime_dir

from common import LAB_SETTINGS, NOTEBOOKS, ROOT
from study import prepare

try:
    from helpers import data
except (ImportError, OSError) as error:  # a torch of which a file is gone is an OSError
    sys.exit(
        f"The installed packages are damaged: {error}. Delete the folder .venv, then `make lab` makes it again "
        "(elsewhere: install as README.md says)."
    )
except RuntimeError as error:  # a user of whom the system knows no home, as in some containers
    sys.exit(f"{error}: for example, HOME=/tmp make lab")


def find_room():
    """Give JupyterLab, its kernels and Matplotlib a temporary folder if the home directory takes no files; say so."""
    try:
        runtime = Path(jupyter_runtime_dir())
        runtime.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runtime) as file:
            file.write(bytes(10_000))
    except OSError as error:
        try:
            folder = tempfile.mkdtemp(prefix="makemore-")
        except OSError as full:
            sys.exit(
                f"There is no room for JupyterLab's own files: {error}; {full}. Make room, or let HOME name a folder."
            )
        kinds = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
        os.environ.update({kind: os.path.join(folder, kind) for kind in kinds})
        print(f"The home directory takes no files ({error}): JupyterLab's own are in {folder} this time.", flush=True)


def main():
    data.main(or_bundled=True)
    find_room()
    study, lines = prepare()
    for line in lines:
        print(line, flush=True)
    if not any(study.glob("*.ipynb")):
        study = NOTEBOOKS
    root = ROOT if study.is_relative_to(ROOT) else study  # the folder that JupyterLab shows
    first = (study / "00_start_here.ipynb").relative_to(root).as_posix()
    settings = [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{first}"]
    # A saved notebook keeps its panels, to be seen again before they run again; and nobody is asked about news.
    settings.append(f"--LabServerApp.app_settings_dir={LAB_SETTINGS}")
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
