"""A real JupyterLab, a real Chromium, and what every test here does with them."""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from serving import is_root, served

from refresh import KERNELSPEC

INSTALL = (
    "Browser tests need Chromium: `sudo apt install chromium` on Debian and Ubuntu, or any Chrome elsewhere."
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
FLAGS = (
    "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
)
NO_NEWS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"


def find_chromium():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or (str(MAC) if MAC.exists() else None)


def pytest_collection_modifyitems(config, items):
    if find_chromium():
        return
    if os.environ.get("CI"):
        raise pytest.UsageError(INSTALL)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=INSTALL))


def pytest_terminal_summary(terminalreporter):
    if not find_chromium():
        terminalreporter.write_line(INSTALL)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A JupyterLab that serves a folder of small notebooks: (its address, the folder)."""
    folder = tmp_path_factory.mktemp("notebooks")
    settings = tmp_path_factory.mktemp("settings")
    (settings / "overrides.json").write_text(json.dumps(NO_NEWS))
    options = {
        "ServerApp.root_dir": folder,
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
        "LabApp.extension_manager": "readonly",
        "LabServerApp.app_settings_dir": settings,
    }
    command = [sys.executable, "-m", "jupyter", "lab"]
    with served(command, folder, tmp_path_factory.getbasetemp() / "jupyter", **options) as (address, _):
        yield address, folder


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = [*FLAGS.split(), *(["--no-sandbox"] if is_root() else [])]
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    page = chromium.new_page(viewport={"width": 1400, "height": 1100})
    page.set_default_timeout(20_000)
    yield page
    page.close()


class Notebook:
    """A notebook open in JupyterLab, its cells run; and its kernel."""

    def __init__(self, page, lab, cells):
        address, folder = lab
        self.page = page
        name = f"n{len(list(folder.glob('*.ipynb')))}.ipynb"
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nb.metadata.kernelspec = KERNELSPEC
        nbformat.write(nb, folder / name)
        page.goto(f"{address}/lab/tree/{name}?reset", wait_until="domcontentloaded")
        page.wait_for_function(f"() => {KERNEL}?.status === 'idle'", timeout=120_000)
        # An exception in a widget's callback never reaches the notebook, only the kernel's channel.
        page.evaluate(
            f"""() => {{ window.errors = [];
            {KERNEL}.iopubMessage.connect((_, message) => {{
                if (message.header.msg_type === 'error') window.errors.push(message.content.evalue);
            }}); }}"""
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
        assert self.picture.screenshot() != pixels

    def shut_down(self):
        self.page.evaluate(f"async () => {{ await {KERNEL}?.shutdown() }}")


@pytest.fixture
def notebook(page, lab):
    """notebook(*cells) opens a notebook of these cells and runs them all."""
    opened = []

    def open_notebook(*cells):
        opened.append(Notebook(page, lab, cells))
        return opened[-1]

    yield open_notebook
    for one in opened:
        one.shut_down()
