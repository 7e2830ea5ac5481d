"""The learner's copies: made once, never overwritten, never lost, and invisible to git."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_core.paths import jupyter_runtime_dir

import lab
import study
from common import ROOT, find_notebook


def write_notebook(path, *, source_hash="a", text="from the course", code=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"cell_type": "markdown", "id": "one", "metadata": {}, "source": [text]}]
    cells += [{"cell_type": "code", "id": "two", "metadata": {}, "source": lines, "outputs": []} for lines in code]
    notebook = {"cells": cells, "metadata": {"source_hash": source_hash}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture
def course(tmp_path):
    """A small course with three notebooks; returns its folder and the learner's, not there yet."""
    for stem in ("00_start_here", "03_saturated_tanh", "E01_all_zero"):
        write_notebook(tmp_path / "notebooks" / f"{stem}.ipynb")
    return tmp_path / "notebooks", tmp_path / "study"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_every_notebook_is_copied_once_also_one_that_joins_the_course_later(course):
    notebooks, own = course
    for count in 3, 1:
        (line,) = study.update(notebooks, own)
        assert line.startswith(f"{count} notebooks copied") and str(own) in line
        assert contents(own) == contents(notebooks)
        write_notebook(notebooks / "04_kaiming_init.ipynb")


def test_a_copy_is_never_overwritten_and_nothing_is_said_when_nothing_changed(course):
    notebooks, own = course
    study.update(notebooks, own)
    write_notebook(own / "03_saturated_tanh.ipynb", text="my own notes")
    before = contents(own)
    assert study.update(notebooks, own) == []
    assert contents(own) == before


def test_a_change_in_the_course_is_said_in_one_line_with_the_remedy(course):
    notebooks, own = course
    study.update(notebooks, own)
    write_notebook(notebooks / "03_saturated_tanh.ipynb", source_hash="b")
    (line,) = study.update(notebooks, own)
    assert line.startswith("03_saturated_tanh has changed")
    assert f"{study.command('reset')}03" in line
    assert json.loads((own / "03_saturated_tanh.ipynb").read_text(encoding="utf-8"))["metadata"]["source_hash"] == "a"


HELPERS = {
    "helpers/__init__.py": '"""A map."""',
    "helpers/plots.py": "import torch\n\nLEFT = RIGHT = 1\ntry:\n    from math import tau\nexcept ImportError:\n    tau = 6\n"
    "def plot(): pass\nclass Figure: pass\n",
    "helpers/room/__init__.py": "from .inside import thing as renamed\n",
    "helpers/room/inside.py": "thing = 1\n",
}


@pytest.mark.parametrize(
    ("code", "gone"),
    [
        ("from helpers.judge import CheckResult", ["helpers.judge"]),
        ("import helpers.judge as judge", ["helpers.judge"]),
        ("from helpers import judge, plots", ["helpers.judge"]),
        ("from helpers.plots import (\n    plot,\n    old as plot_old,\n)", ["helpers.plots.old"]),
        ("%matplotlib inline\nfor i in []:\n    !ls\nfrom helpers.room import thing", ["helpers.room.thing"]),
        ("from helpers.room.outside import a, b", ["helpers.room.outside"]),
        ("from helpers.plots import LEFT, RIGHT, tau, plot, Figure, torch\nfrom helpers.plots import *", []),
        ("from helpers.room import renamed, inside\nfrom helpers.room.inside import thing\nimport helpers.plots", []),
        ("import torch, judge\nfrom judge import x\nfrom . import y", []),
        ("this is no Python", []),
    ],
)
def test_a_copy_that_imports_what_is_gone_is_named_with_the_remedy(course, tmp_path, code, gone):
    notebooks, own = course
    for name, text in HELPERS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    study.update(notebooks, own)
    write_notebook(own / "03_saturated_tanh.ipynb", code=[["x = 1\n"], [code]])
    before = contents(own)
    lines = study.update(notebooks, own, tmp_path / "helpers")
    assert len(lines) == bool(gone) and contents(own) == before
    for line in lines:
        assert line.startswith("03_saturated_tanh") and f"imports {', '.join(gone)}," in line
        assert f"{study.command('reset')}03" in line


def test_the_courses_own_notebooks_fit(tmp_path):
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks and [study.imports_gone(path, ROOT / "helpers") for path in notebooks] == [[]] * len(notebooks)


BROKEN = [b"", b"half a note", b"[]", b"\xff\xfe", b'{"cells": [{}]}', b'{"cells": [{"cell_type": "code", "sou']


@pytest.mark.parametrize("broken", BROKEN)
def test_a_damaged_copy_is_called_damaged_and_kept(course, broken):
    notebooks, own = course
    study.update(notebooks, own)
    mine = own / "03_saturated_tanh.ipynb"
    mine.write_bytes(broken)
    (line,) = study.update(notebooks, own)
    assert line.startswith("03_saturated_tanh is damaged") and f"{study.command('reset')}03" in line
    assert mine.read_bytes() == broken
    with pytest.raises(SystemExit, match="kept nothing"):
        study.restore(notebooks / mine.name, own)
    assert mine.read_bytes() == broken


KEPT = [".~03_saturated_tanh.ipynb", ".ipynb_checkpoints/03_saturated_tanh-checkpoint.ipynb"]


@pytest.mark.parametrize("kept", KEPT)
def test_what_jupyterlab_kept_of_a_damaged_copy_is_offered_and_brought_back(course, kept):
    """JupyterLab keeps the file as it was beside it until a save is through, and a checkpoint of an earlier save."""
    notebooks, own = course
    study.update(notebooks, own)
    mine = own / "03_saturated_tanh.ipynb"
    for other in KEPT:  # what is kept may be damaged, too
        write_notebook(own / other, text="my own notes")
        (own / other).write_bytes((own / other).read_bytes() if other == kept else b"half")
    assert study.update(notebooks, own) == []
    mine.write_bytes(b"half a note")
    (line,) = study.update(notebooks, own)
    assert line.startswith("03_saturated_tanh is damaged") and f"{study.command('restore')}03" in line
    said = study.restore(notebooks / mine.name, own)
    assert mine.read_bytes() == (own / kept).read_bytes() and b"my own notes" in mine.read_bytes()
    (aside,) = (own / "old").iterdir()
    assert aside.read_bytes() == b"half a note" and aside.name in said
    assert study.update(notebooks, own) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_full_or_read_only_disk_gives_one_line_with_the_remedy(course, monkeypatch, error):
    notebooks, own = course
    study.update(notebooks, own)
    write_notebook(own / "03_saturated_tanh.ipynb", text="my own notes")
    (own / "E01_all_zero.ipynb").unlink()
    before = contents(own)

    def refuse(path, content):
        raise error

    monkeypatch.setattr(Path, "write_bytes", refuse)
    (line,) = study.update(notebooks, own)
    assert error.strerror in line and str(own) in line and "MAKEMORE_STUDY" in line and contents(own) == before
    with pytest.raises(SystemExit, match=f"{error.strerror}.*MAKEMORE_STUDY"):
        study.main(["--to", str(own), "--reset", "03"])
    assert contents(own) == before


def test_the_copies_lie_where_they_are_wanted(tmp_path, monkeypatch):
    monkeypatch.delenv("MAKEMORE_STUDY", raising=False)
    assert study.choose_folder(course=tmp_path) == (tmp_path / "study", None)
    monkeypatch.setenv("MAKEMORE_STUDY", "~/notes")
    assert study.choose_folder(course=tmp_path) == (Path.home() / "notes", None)
    assert study.choose_folder("elsewhere", course=tmp_path) == (Path("elsewhere").absolute(), None)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no owners of this kind")
@pytest.mark.parametrize("whose", ["another's", "the user's own, and read-only"])
def test_in_a_course_that_is_not_the_users_own_they_lie_at_home(tmp_path, monkeypatch, whose):
    monkeypatch.delenv("MAKEMORE_STUDY", raising=False)
    if whose == "another's":
        monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    folder, why = study.choose_folder(course=tmp_path)
    assert folder == study.AT_HOME and str(folder) in why and "MAKEMORE_STUDY" in why


@pytest.mark.parametrize(
    ("wanted", "stem"),
    [(wanted, "03_saturated_tanh") for wanted in ("03", "3", "03_saturated_tanh", "study/03_saturated_tanh.ipynb")]
    + [(wanted, "E01_all_zero") for wanted in ("E01", "e1", "E01_all_zero.ipynb")],
)
def test_a_notebook_is_found_by_number_or_name(course, wanted, stem):
    assert find_notebook(wanted, course[0]).stem == stem


@pytest.mark.parametrize("wanted", ["", "7", "tanh", "1", "*"])
def test_an_unknown_notebook_is_refused_and_the_choices_are_named(course, wanted):
    with pytest.raises(SystemExit, match="00_start_here, 03_saturated_tanh, E01_all_zero"):
        find_notebook(wanted, course[0])


def test_an_ambiguous_number_is_refused_and_only_its_notebooks_are_named(course):
    write_notebook(course[0] / "03_another.ipynb")
    with pytest.raises(SystemExit, match="name: 03_another, 03_saturated_tanh$"):
        find_notebook("03", course[0])


def test_reset_gives_a_fresh_copy_and_loses_nothing_even_when_run_twice(course):
    notebooks, own = course
    study.update(notebooks, own)
    mine = own / "03_saturated_tanh.ipynb"
    texts = ["first try", "second try"]
    for text in texts:
        write_notebook(mine, text=text)
        line = study.reset(notebooks / mine.name, own)
        assert mine.read_bytes() == (notebooks / mine.name).read_bytes()
        assert str(own / "old" / "03_saturated_tanh-") in line
    kept = [path.read_text(encoding="utf-8") for path in sorted((own / "old").iterdir())]
    assert [next(text for text in texts if text in notebook) for notebook in kept] == texts


@pytest.mark.parametrize(
    ("error", "remedy"),
    [("OSError('libtorch_cpu.so: no such file')", "Delete the folder .venv"), ("RuntimeError('no home')", "HOME=")],
)
def test_an_import_that_fails_gives_one_line_with_the_remedy(tmp_path, error, remedy):
    (tmp_path / "torch.py").write_text(f"raise {error}", encoding="utf-8")
    lab = [sys.executable, str(ROOT / "scripts" / "lab.py"), "--version"]
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    refused = subprocess.run(
        lab, check=False, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    (line,) = refused.stderr.splitlines()
    assert refused.returncode == 1 and error.split("'")[1] in line and remedy in line


@pytest.mark.skipif(os.name == "nt", reason="Windows finds a home directory in another way")
@pytest.mark.parametrize("home", ["is a folder", "takes no files"])
def test_where_the_home_directory_takes_no_files_jupyterlab_keeps_its_own_elsewhere(
    tmp_path, monkeypatch, capsys, home
):
    if home == "takes no files":
        (tmp_path / home).touch()  # nobody, not even root, can write into a file as into a folder
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    monkeypatch.setattr(os, "environ", kept | {"HOME": str(tmp_path / home), "TMPDIR": str(tmp_path)})
    monkeypatch.setattr("tempfile.tempdir", None)
    lab.find_room()
    said = capsys.readouterr().out
    runtime = Path(jupyter_runtime_dir())
    assert runtime.parent.is_dir() and runtime.is_relative_to(tmp_path)
    assert (str(tmp_path / "makemore-") in said) == (home == "takes no files") == ("IPYTHONDIR" in os.environ)


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_git_sees_nothing_of_it_and_a_pull_still_goes_through(tmp_path):
    """The course's own .gitignore, in a clone whose learner works while the course changes."""

    def git(folder, *arguments):
        identity = ["-c", "user.name=T", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(folder), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    course, clone = tmp_path / "course", tmp_path / "clone"
    write_notebook(course / "notebooks" / "00_start_here.ipynb")
    shutil.copy(ROOT / ".gitignore", course)
    git(tmp_path, "init", "-q", str(course))
    git(course, "add", ".")
    git(course, "commit", "-qm", "The course")
    git(tmp_path, "clone", "-q", str(course), str(clone))

    study.update(clone / "notebooks", clone / "study")
    write_notebook(clone / "study" / "00_start_here.ipynb", text="my own notes")
    study.reset(clone / "notebooks" / "00_start_here.ipynb", clone / "study")
    write_notebook(clone / "study" / "00_start_here.ipynb", text="more notes")
    (clone / "data").mkdir()
    (clone / "data" / "names.txt").write_text("emma\n", encoding="utf-8")
    assert git(clone, "status", "--porcelain") == ""

    write_notebook(course / "notebooks" / "00_start_here.ipynb", source_hash="b", text="better")
    git(course, "commit", "-qam", "Better")
    git(clone, "pull", "-q", "--ff-only")
    assert "more notes" in (clone / "study" / "00_start_here.ipynb").read_text(encoding="utf-8")
    assert len(study.update(clone / "notebooks", clone / "study")) == 1
