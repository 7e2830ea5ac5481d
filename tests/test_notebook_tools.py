"""scripts/refresh.py and scripts/check_notebooks.py, each on small notebooks made here."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbformat import v4

import check_notebooks
import common
import refresh
from small_lesson import FOLDED, PIXEL, code, drop, figure, prose, replace, show, tag, text, write

SOLUTION = """<details><summary>Hint 1</summary>

```python
"not this block"
```
</details>

<details><summary>Solution</summary>

```python
def answer():
    return 42
```
</details>
"""


# scripts/check_notebooks.py


def good_cells():
    """A chapter that keeps every rule."""
    return [
        prose("# 01 · A title\n[Itself](01_good.ipynb#a-title)"),
        code("import torch\n\ntorch.set_num_threads(1)", "setup"),
        prose("A word."),
        code("show(fig)", outputs=[figure("a grey pixel")]),
        prose("## Exercises\n\n### Exercise 1.1 · The answer"),
        code("def answer():\n    return None", "exercise"),
        code("answer() == 42", "check", outputs=[v4.new_output("execute_result", {"text/plain": "False"})]),
        prose(SOLUTION),
    ]


def problems(tmp_path, cells):
    return check_notebooks.check(write(tmp_path / "01_good.ipynb", cells))


@pytest.mark.parametrize("folded", [None, text("loss of the first step:\n27.9\n"), figure("a grey pixel")])
def test_a_good_notebook_has_no_problems(tmp_path, folded):
    cells = good_cells()
    if folded:  # it may begin with a heading or a figure
        show(3, folded, **FOLDED)(cells)
    assert problems(tmp_path, cells) == []


def set_source(index, source):
    return lambda cells: cells[index].update(source=source)


ERROR = v4.new_output("error", ename="ValueError", evalue="no", traceback=[])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (show(3, text("x" * 1_000_000)), "1,000,000 at most"),
        (tag(3, "lecture_data"), "cell 3 (show(fig) …): unknown tag 'lecture_data'"),
        (set_source(3, ""), "remove this empty cell"),
        (show(3, ERROR), "an error in its output"),
        (tag(3, "raises-exception"), "no error in its output"),
        (show(3, text("careful", "stderr")), "stderr"),
        (set_source(3, "open('/home/me/names.txt')"), "/home/me/names.txt"),
        (set_source(2, r"C:\Users\me\names.txt"), "is a path of one machine"),
        (show(3, text("read /tmp/x/names.txt")), "/tmp/x/names.txt"),
        (lambda cells: cells[3].outputs[0].metadata.clear(), "a figure without alt text"),
        (set_source(0, "A title"), "starts with the title"),
        (replace(1, "torch.set_num_threads(1)", ""), "torch.set_num_threads(1): add it"),
        (tag(1), "torch.set_num_threads(1): add it"),
        (set_source(3, "x\n" * 26), "26 lines of code, 25 at most"),
        (show(3, text("loss: 27.9\n"), **FOLDED), "'loss: 27.9' tells the result"),
        (replace(0, "01_good.ipynb", "01_god.ipynb"), "it links to 01_god.ipynb, which does not exist"),
        (set_source(2, '<img src="a.png">'), "it links to a.png, which does not exist"),
        (replace(4, "### Exercise", "### Task"), "a stub without a heading"),
        (drop(6, 7), "no check"),
        (replace(7, "<summary>Solution", "<summary>Answer"), "0 solutions"),
        (replace(7, "```python\ndef", "```\ndef"), "0 solutions"),
        (replace(7, "    return 42\n```", "    return 42\n```\n```python\n1\n```"), "2 solutions"),
    ],
)
def test_each_rule_rejects_its_case_and_no_other_does(tmp_path, damage, message):
    cells = good_cells()
    damage(cells)
    found = problems(tmp_path, cells)
    assert len(found) == 1 and found[0].startswith(str(tmp_path / "01_good.ipynb")) and message in found[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n", "\r\n", "not LF"),
        ('"name": "python3"', '"name": "julia"', "its kernel is julia"),
        ('"execution_count": 2', '"execution_count": 7', "execution count 7, not 2"),
        ("show(fig)", "show(figure)", "the code has changed"),
        ('"cell_type": "code"', '"cell_type": "cod"', "not a valid notebook"),
        ("{", "", "not a valid notebook"),
    ],
)
def test_each_rule_on_the_file_rejects_its_case(tmp_path, old, new, message):
    path = write(tmp_path / "01_good.ipynb", good_cells())
    changed = path.read_text("utf-8").replace(old, new, -1 if old == "\n" else 1)
    path.write_text(changed, encoding="utf-8", newline="")
    assert message in "\n".join(check_notebooks.check(path))


def test_ids_must_be_there_and_differ(tmp_path):
    path = write(tmp_path / "01_good.ipynb", good_cells())
    content = path.read_text("utf-8")
    first, second, *_ = [cell.id for cell in nbformat.read(path, 4).cells]
    path.write_text(content.replace(second, first), encoding="utf-8", newline="")
    assert f"2 cells have the id {first}" in "\n".join(check_notebooks.check(path))
    path.write_text(content.replace(f'"id": "{first}",', ""), encoding="utf-8", newline="")
    assert "1 cells have the id None" in "\n".join(check_notebooks.check(path))


def test_a_notebook_without_ids_is_refused(tmp_path):
    path = tmp_path / "01_old.ipynb"
    path.write_text('{"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": []}', encoding="utf-8")
    assert "nbformat 4.4 has no cell ids" in check_notebooks.check(path)[0]


def test_check_notebooks_exits_by_what_it_found(tmp_path, capsys):
    good, bad = write(tmp_path / "01_good.ipynb", good_cells()), write(tmp_path / "02_bad.ipynb", [code("x")])
    assert check_notebooks.main([str(good)]) == 0 and "1 notebooks keep the rules" in capsys.readouterr().out
    assert check_notebooks.main([str(good), str(bad)]) == 1 and "02_bad.ipynb" in capsys.readouterr().out


# scripts/refresh.py


@pytest.fixture
def lecture_names(monkeypatch):
    monkeypatch.setattr("helpers.data.load_names", lambda: SimpleNamespace(source="lecture"))


@pytest.mark.slow
@pytest.mark.usefixtures("lecture_names")
def test_refresh_twice_writes_the_same_bytes_and_nothing_of_this_machine(tmp_path):
    hidden = code("print('one')\nprint('two', flush=True)\nprint('three')")
    hidden.metadata["jupyter"] = {"outputs_hidden": True}
    hidden.metadata["execution"] = {"iopub.execute_input": "2025-01-01T00:00:00Z"}
    cells = [
        code("import os\n\nos.environ['OMP_NUM_THREADS'], os.environ['TQDM_DISABLE'], os.path.basename(os.getcwd())"),
        hidden,
        code("import matplotlib.pyplot as plt\n\nplt.plot([1, 2]);"),
        code("import json\n\njson.loads('')", "raises-exception"),
        code("from tqdm.auto import trange\n\nfor _ in trange(3):\n    pass"),
        code("import ipywidgets\n\nipywidgets.FloatSlider()"),
        code("with ipywidgets.Output():\n    print('kept by the widget')"),
    ]
    path = write(tmp_path / "01_runs.ipynb", cells)
    ids = [cell.id for cell in nbformat.read(path, 4).cells]
    other = write(tmp_path / "02_runs.ipynb", cells)
    environment = dict(os.environ)

    assert refresh.main([str(path), str(other)]) == 0
    first = path.read_bytes()
    assert refresh.main([str(path)]) == 0
    assert path.read_bytes() == first == other.read_bytes() and os.environ == environment

    nb = nbformat.read(path, as_version=4)
    where, said, figure, raised, bar, slider, kept = nb.cells
    assert where.outputs[0].data["text/plain"] == repr(("1", "1", tmp_path.name))
    assert [output.text for output in said.outputs] == ["one\ntwo\nthree\n"]
    assert said.metadata == {"jupyter": {"outputs_hidden": True}}
    assert len(figure.outputs) == 1 and "image/png" in figure.outputs[0].data
    assert raised.outputs[0].traceback == ["JSONDecodeError: Expecting value: line 1 column 1 (char 0)"]
    assert bar.outputs == slider.outputs == kept.outputs == []
    assert [cell.id for cell in nb.cells] == ids
    assert nb.metadata == {
        "kernelspec": refresh.KERNELSPEC,
        "language_info": {"name": "python"},
        "source_hash": refresh.source_hash(nb),
    }
    assert not [folder for folder in (sys.prefix, sys.base_prefix, str(tmp_path)) if folder in first.decode()]
    assert list(check_notebooks.machine_paths(check_notebooks.Notebook(path, first, nb))) == []
    assert sorted(tmp_path.iterdir()) == [path, other]


@pytest.mark.parametrize("source", ["1 / 0", "import os; os._exit(3)"])
def test_refresh_leaves_a_notebook_with_a_failing_cell_alone(tmp_path, capsys, source):
    path = write(tmp_path / "01_fails.ipynb", [prose("# Fails"), code("x = 1"), code(source)])
    before = path.read_bytes()
    assert not refresh.refresh(path)
    message = capsys.readouterr().err
    assert "01_fails.ipynb: not written. Cell 2 (id" in message
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_refresh_does_not_overwrite_what_was_edited_meanwhile(tmp_path, capsys, monkeypatch):
    path = write(tmp_path / "01_edited.ipynb", [code("x")])
    monkeypatch.setattr(refresh.NotebookClient, "execute", lambda client: path.write_text("edited", encoding="utf-8"))
    assert not refresh.refresh(path)
    assert path.read_text(encoding="utf-8") == "edited" and "edited while it ran" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "notebook.ipynb"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(*{"write_bytes": (refresh.Path, "write_bytes"), "replace": (refresh.os, "replace")}[step], fail)
    with pytest.raises(OSError, match="No space"):
        refresh.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("names", ["data/bundled_names.txt", "data/no_such_file.txt"])
def test_refresh_refuses_other_names(tmp_path, monkeypatch, capsys, names):
    path = write(tmp_path / "01_runs.ipynb", [code("x")])
    before = path.read_bytes()
    monkeypatch.setenv("MAKEMORE_NAMES", str(common.ROOT / names))
    with pytest.raises(SystemExit) as exit_:
        refresh.main([str(path)])
    assert exit_.value.code == 2 and path.read_bytes() == before
    assert ("lecture's own names" if "bundled" in names else "no_such_file.txt") in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupted_refresh_leaves_no_kernel_and_the_old_file(tmp_path):
    path = write(tmp_path / "01_hangs.ipynb", [code("import time\n\ntime.sleep(600)")])
    before = path.read_bytes()
    program = (
        "import sys, types, refresh\n"
        "names = types.SimpleNamespace(source='lecture')\n"
        "sys.modules['helpers.data'] = types.SimpleNamespace(load_names=lambda: names)\n"
        "sys.exit(refresh.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=common.ROOT / "scripts", stderr=subprocess.PIPE, text=True
    )
    while not (kernels := psutil.Process(process.pid).children()):
        time.sleep(0.1)
    time.sleep(3)  # until the cell runs
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=240)
    assert process.returncode == 1 and "not written" in message
    assert not psutil.wait_procs(kernels, timeout=60)[1]
    assert path.read_bytes() == before


def test_a_live_widget_leaves_only_its_still_picture():
    plain = v4.new_output("execute_result", {"text/plain": "1"})
    view = v4.new_output("display_data", {refresh.WIDGET_VIEW: {}, "text/plain": "Panel()"})
    panel = v4.new_output("display_data", {refresh.WIDGET_VIEW: {}, "text/plain": "Panel()", "image/png": PIXEL})
    still = v4.new_output("display_data", {"image/png": PIXEL})
    assert refresh.without_widgets([plain, view, panel]) == [plain, still]
    assert refresh.without_widgets([plain, still]) == [plain, still]
