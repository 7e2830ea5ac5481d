"""A JupyterLab server for a test, with settings of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def served(command, folder, home, **options):
    """Run a JupyterLab command in a folder, with settings and runtime files of its own; gives its address."""
    home.mkdir()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    kinds = ("CONFIG", "DATA", "RUNTIME")
    own = {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in kinds}
    own |= {f"JUPYTERLAB_{kind}_DIR": str(home / kind) for kind in ("SETTINGS", "WORKSPACES")}
    environment = {**os.environ, **own, "IPYTHONDIR": str(home / "ipython"), "OMP_NUM_THREADS": "1"}
    log = home / "lab.log"
    options = {"ServerApp.ip": "127.0.0.1", "ServerApp.port": port, "ServerApp.port_retries": 0, **options}
    arguments = ["--no-browser", *(["--allow-root"] if is_root() else [])]
    arguments += [f"--{name}={value}" for name, value in options.items()]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *arguments], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        for _ in range(480):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2)
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def is_root():
    return hasattr(os, "getuid") and os.getuid() == 0
