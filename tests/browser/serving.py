"""A real JupyterLab with settings of its own, a real Chromium, and a notebook open in both."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat

from common import LAB_SETTINGS
from refresh import KERNELSPEC

ROOT = Path(__file__).resolve().parents[2]
INSTALL = "Browser tests need Chromium: `sudo apt install chromium` on Debian and Ubuntu, or any Chrome elsewhere."
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
FLAGS = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"


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
                assert process.poll() is None, log.read_text(encoding="utf-8")[-2000:]
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def is_root():
    return hasattr(os, "getuid") and os.getuid() == 0


def find_chromium():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or (str(MAC) if MAC.exists() else None)


@contextlib.contextmanager
def launched():
    """A headless Chromium: Playwright's browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = [*FLAGS.split(), *(["--no-sandbox"] if is_root() else [])]
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=flags)
        yield browser
        browser.close()


@contextlib.contextmanager
def quiet_lab(home):
    """A JupyterLab with the course's settings and no password, in an empty folder of `home`: (its address, that folder)."""
    folder = home / "notebooks"
    folder.mkdir()
    options = {
        "ServerApp.root_dir": folder,
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
        "LabApp.extension_manager": "readonly",
        "LabServerApp.app_settings_dir": LAB_SETTINGS,
    }
    command = [sys.executable, "-m", "jupyter", "lab"]
    with served(command, folder, home / "jupyter", **options) as (address, _):
        yield address, folder


class Notebook:
    """A notebook open in JupyterLab, its cells run; and its kernel."""

    def __init__(self, page, lab, cells):
        address, folder = lab
        self.page = page
        name = f"n{len(list(folder.glob('*.ipynb')))}.ipynb"
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nb.metadata.kernelspec = KERNELSPEC
        nbformat.write(nb, folder / name)
        self.address = f"{address}/lab/tree/{name}?reset"
        self.open()
        self.run_all()

    def open(self):
        self.page.goto(self.address, wait_until="domcontentloaded")
        self.page.wait_for_function(f"() => {KERNEL}?.status === 'idle'", timeout=120_000)
        # An exception in a widget's callback never reaches the notebook, only the kernel's channel.
        self.page.evaluate(
            f"""() => {{ window.errors = [];
            {KERNEL}.iopubMessage.connect((_, message) => {{
                if (message.header.msg_type === 'error') window.errors.push(message.content.evalue);
            }}); }}"""
        )

    def fill(self, cells):
        """Put other cells in their place and run them, in the same kernel."""
        self.page.evaluate(
            """sources => {
            const notebook = window.jupyterapp.shell.currentWidget.content.model.sharedModel;
            notebook.insertCells(0, sources.map(source => ({cell_type: 'code', source, metadata: {}, outputs: []})));
            notebook.deleteCellRange(sources.length, notebook.cells.length);
            window.errors = []; }""",
            cells,
        )
        self.run_all()

    def run_all(self):
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        assert self.errors() == []

    def errors(self):
        return self.page.evaluate("window.errors")

    def value(self, expression):
        """The repr of an expression in the notebook's kernel."""
        return self.page.evaluate(
            f"""async e => {{
            const request = {KERNEL}.requestExecute({{code: '', user_expressions: {{x: e}}, store_history: false}});
            const x = (await request.done).content.user_expressions.x;
            return x.data ? x.data['text/plain'] : x.ename + ': ' + x.evalue; }}""",
            expression,
        )

    def do(self, code):
        """Run code in the kernel, as another cell would."""
        self.page.evaluate(
            f"async code => {{ await {KERNEL}.requestExecute({{code, store_history: false}}).done }}", code
        )

    @property
    def picture(self):
        return self.page.locator(".jp-OutputArea-output .widget-image").first

    def control(self, name):
        """The control that carries this name in words."""
        label = self.page.get_by_text(name, exact=True)
        return self.page.locator(".jupyter-widgets.widget-inline-hbox").filter(has=label).first

    @contextlib.contextmanager
    def redraws(self):
        """What happens inside changes the picture."""
        source = self.picture.get_attribute("src")
        pixels = self.picture.screenshot()
        yield
        self.page.wait_for_function(
            "([image, source]) => image.src !== source && image.complete && image.naturalWidth > 0",
            arg=[self.picture.element_handle(), source],
        )
        for _ in range(100):  # the first new picture may be of something earlier, such as a pin, and look the same
            if self.picture.screenshot() != pixels:
                return
            self.page.wait_for_timeout(100)
        raise AssertionError("the picture looks as it did before")

    def shut_down(self):
        self.page.evaluate(f"async () => {{ await {KERNEL}?.shutdown() }}")
