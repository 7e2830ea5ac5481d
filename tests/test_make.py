"""The Makefile, without installing anything: what it refuses, what it lists, when it would install again."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from common import ROOT

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
FILES = ("Makefile", "pyproject.toml", "constraints.txt", "scripts/install.sh")
TARGETS = ["lab", "test", "test-all", "check", "browser", "refresh", "reset", "restore", "data", "reproduce", "sweeps",
           "bench", "costs", "help"]  # fmt: skip
STEPS = [  # of `make test`
    "-m ruff check .",
    "-m ruff format --check .",
    "scripts/check_notebooks.py",
    "scripts/check_environment.py",
    "-m pytest tests --ignore tests/browser -n 2 -m not slow",
    "-m pytest --nbval notebooks -n 2 --dist loadfile",
    "-m pytest tests/browser",
]

pytestmark = pytest.mark.skipif(
    os.name == "nt" or not shutil.which("make"), reason="needs make; Windows has commands of its own"
)


@pytest.fixture
def checkout(tmp_path):
    """A folder with a space in its name that holds what the Makefile needs to decide, and no .venv."""
    folder = tmp_path / "my course"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def environment(**more):
    """That of a shell of its own: nothing of the make that runs these tests is passed on."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PYTHON"))} | more


def make(folder, *arguments, timeout=300, **more):
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=timeout, check=False
    )


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def python(does, version=VERSION):
    """A script that knows its version and finds its packages, as a .venv's python, and does this with everything else."""
    return f'case "$*" in *version_info*) echo {version}; exit ;; *find_spec*) exit ;; esac\n{does}'


def give_python(folder, does):
    script(folder / ".venv/bin/python", python(does))


def give_venv(folder, place=None):
    """A .venv that looks installed, as make looks at it; `place` is where its pip believes it stands."""
    script(folder / ".venv/bin/pip", f"exec '{place or folder}/.venv/bin/python' -m pip")
    give_python(folder, "echo the course runs")
    for name in FILES:  # made before the stamp, whatever a copy does to times
        os.utime(folder / name, (1, 1))
    (folder / ".venv/.installed").touch()


def fake_python(checkout, version="3.12", *, has_venv=True, pip="exit 0", place="fakepython"):
    """A Python of this version. The python of a venv that it makes does `pip` with whatever else it is asked for."""
    inside = script(checkout.parent / f"inside{version}", python(pip, version))
    lines = [
        'case "$*" in',
        f"  *version_info*) echo {version} ;;",
        f"  *ensurepip*) exit {int(not has_venv)} ;;",
        '  "-m venv .venv")',
        f"    mkdir -p .venv/bin && cp '{inside}' .venv/bin/python",
        '    echo "# $PWD/.venv/bin/python" > .venv/bin/pip ;;',
        "esac",
    ]
    return script(checkout.parent / place, "\n".join(lines))


def ran(checkout):
    """What the .venv's python was asked for, in order."""
    return (checkout / "log").read_text(encoding="utf-8").replace("ran ", "").splitlines()


def test_help_is_the_default_and_gives_each_target_one_line(checkout):
    shown = make(checkout).stdout
    assert shown == make(checkout, "help").stdout
    assert sorted(re.findall(r"^  make ([\w-]+) +\S", shown, re.MULTILINE)) == sorted(TARGETS)


@pytest.mark.parametrize(
    ("version", "has_venv", "told"),
    [(version, True, f"^Python {version} .*make lab PYTHON=python3.12") for version in ("2.7", "3.6", "3.10", "3.14")]
    + [("3.12", False, "apt install python3.12-venv"), (None, True, "^Python not found: .*make lab PYTHON=")],
)
@pytest.mark.parametrize("old", [True, False], ids=["beside an old .venv", "without one"])
def test_a_python_that_does_not_fit_is_refused_in_one_line_with_the_remedy_and_changes_nothing(
    checkout, version, has_venv, told, old
):
    fake = fake_python(checkout, version, has_venv=has_venv) if version else "python3.999"
    if old:
        give_venv(checkout)
    before = sorted(checkout.rglob("*"))
    refused = make(checkout, "lab", f"PYTHON={fake}")
    line, of_make = refused.stderr.splitlines()
    assert refused.returncode != 0 and re.search(told, line) and of_make.startswith("make: ***")
    assert refused.stdout == "" and sorted(checkout.rglob("*")) == before


INSTALLING = {*TARGETS} - {"help"}


def test_every_target_installs_what_is_needed_first(checkout):
    assert "install.sh" in make(checkout, "-n", "lab").stdout
    rules = make(checkout, "-np", "help").stdout  # -p: make prints its rules
    assert {*re.findall(r"^([\w-]+):.* \.venv/\.installed\b", rules, re.MULTILINE)} >= INSTALLING


def test_installed_once_no_target_installs_again(checkout):
    give_venv(checkout)
    again = make(checkout, "-n", *sorted(INSTALLING))
    assert again.returncode == 0, again.stderr
    assert "install.sh" not in again.stdout


def newer(name):
    """A file as if it had been pulled after the packages were installed."""

    def touch(checkout):
        os.utime(checkout / name, (stamp := (checkout / ".venv/.installed").stat().st_mtime + 10, stamp))

    return touch


@pytest.mark.parametrize(
    "change",
    [newer("pyproject.toml"), newer("constraints.txt")]
    + [lambda checkout: give_venv(checkout, "/elsewhere"), lambda checkout: (checkout / ".venv/bin/python").unlink()],
    ids=["pyproject.toml", "constraints.txt", "a .venv that was moved", "one whose python is gone"],
)
def test_what_is_changed_is_installed_again(checkout, change):
    give_venv(checkout)
    change(checkout)
    assert "install.sh" in make(checkout, "-n", "check").stdout


def test_a_package_that_is_gone_from_the_venv_is_installed_again(checkout):
    give_venv(checkout)
    script(
        checkout / ".venv/bin/python",
        f'case "$*" in *version_info*) echo {VERSION}; exit ;;'
        "  *find_spec*) [ -e mended ] || { echo torch; exit 1; }; exit ;;"
        '  *"install --disable"*) touch mended ;; esac\n'
        'echo "ran $*" >> log',
    )
    mended = make(checkout, "reset", "NB=03")
    assert mended.returncode == 0, mended.stderr
    assert "Gone from .venv: torch" in mended.stdout
    log = (checkout / "log").read_text(encoding="utf-8")
    assert log.index("pip uninstall --quiet --yes torch") < log.index("pip install") < log.index("study.py")
    assert "Gone" not in make(checkout, "reset", "NB=03").stdout


def test_only_a_python_that_is_asked_for_replaces_another(checkout):
    give_venv(checkout)
    same = f"PYTHON={sys.executable}"
    other = f"PYTHON={fake_python(checkout, '3.99')}"
    assert "install.sh" not in make(checkout, "-n", "check", same).stdout
    assert "install.sh" in make(checkout, "-n", "check", other).stdout


def test_an_install_that_fails_says_what_to_do_and_is_done_again(checkout):
    """Without a network, with a proxy or an index that is not there, on a full disk."""
    refused = 'test "$PIP_USER" != 1'  # by pip: that setting does not go with a .venv
    fake = fake_python(checkout, pip=f'case "$*" in *"pip install"*) {refused} && test -e network ;; esac')
    failed = make(checkout, "check", f"PYTHON={fake}")
    assert failed.returncode != 0
    assert "Installing the pinned packages" in failed.stdout
    told, _ = failed.stderr.splitlines()
    assert all(word in told for word in ("network", "proxy", "disk", "again")) and "lab.py" not in told
    (checkout / "network").touch()
    assert make(checkout, "check", PIP_USER="1").returncode == 0
    assert "Installing" not in make(checkout, "check").stdout
    (checkout / "network").unlink()
    os.utime(checkout / ".venv/.installed", (1, 1))  # as if newer requirements had been pulled
    assert "scripts/lab.py" in make(checkout, "lab").stderr  # there is what was installed before


@pytest.mark.parametrize("pip_is_gone", [False, True])
def test_a_python_that_fits_is_found_beside_one_that_does_not(checkout, pip_is_gone):
    if pip_is_gone:  # from a .venv that is there
        give_venv(checkout)
        (checkout / ".venv/.installed").unlink()
        give_python(checkout, "exit 1")
    fake_python(checkout, "3.9", place="bin/python3")
    for version in ("3.12", "3.11"):
        fake_python(checkout, version, place=f"bin/python{version}")
    script(checkout.parent / "bin/python3.13", "exit 127")  # as a shim of a Python that is not there
    found = make(checkout, "check", PATH=f"{checkout.parent / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert found.returncode == 0 and "Making .venv with Python 3.12" in found.stdout, found.stderr


def test_two_that_install_at_once_do_so_one_after_the_other(checkout):
    pip = 'case "$*" in *"install --disable"*) echo "ran pip" >> log; until [ -e go ]; do sleep 0.1; done ;; esac'
    command = ["make", "check", f"PYTHON={fake_python(checkout, pip=pip)}"]
    start = lambda: subprocess.Popen(command, cwd=checkout, env=environment(), stdout=subprocess.PIPE, text=True)
    first = start()
    while not (checkout / "log").exists():
        assert first.poll() is None
    second = start()
    assert "waiting" in second.stdout.readline()
    assert ran(checkout) == ["pip"]
    (checkout / "go").touch()
    for process in (first, second):
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert len(ran(checkout)) <= 2  # torch, then everything: once for both
    assert not (checkout / ".installing").is_symlink()


@pytest.mark.parametrize("number", ["nobody's", "another's"])
def test_what_a_killed_install_left_holds_nobody_up(checkout, number):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (checkout / ".installing").symlink_to(str(ended.pid if number == "nobody's" else os.getpid()))
    done = make(checkout, "check", f"PYTHON={fake_python(checkout)}", timeout=30)
    assert done.returncode == 0 and "waiting" not in done.stdout
    assert not (checkout / ".installing").is_symlink()


@pytest.mark.parametrize("shell", ["sh", "bash"])  # bash goes on after an interrupted command that ends by itself
def test_an_interrupt_ends_the_installing_and_the_next_one_goes_on(checkout, shell):
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    pip = "echo ran >> log; [ -e quick ] || { trap 'exit 1' INT; echo there; sleep 30 & wait; }"
    python = fake_python(checkout, pip=f'case "$*" in *"install --disable"*) {pip} ;; esac')
    installing = subprocess.Popen(
        [shell, "scripts/install.sh", python], cwd=checkout, env=environment(), stdout=subprocess.PIPE, process_group=0
    )
    while b"there" not in installing.stdout.readline():
        assert installing.poll() is None
    os.killpg(installing.pid, signal.SIGINT)
    assert installing.wait(timeout=20) != 0
    assert len(ran(checkout)) == 1 and not {".installing", ".venv/.installed"} & {*os.listdir(checkout)}
    (checkout / "quick").touch()
    assert make(checkout, "check", f"PYTHON={python}").returncode == 0


@pytest.mark.parametrize(("target", "left_out"), [("test", ""), ("test-all", " -m not slow")])
def test_tests_run_in_order_whatever_the_number_of_jobs_and_test_all_leaves_none_out(checkout, target, left_out):
    give_venv(checkout)
    # Slow at its start, so that a later step which did not wait would be seen to overtake it.
    give_python(checkout, 'case "$*" in *"ruff check"*) sleep 0.5 ;; esac; echo "ran $*" >> log')
    done = make(checkout, "-j8", target)
    assert done.returncode == 0 and "FAILED" not in done.stdout
    assert ran(checkout) == [step.removesuffix(left_out) for step in STEPS]


@pytest.mark.parametrize(
    ("failing", "stage"),
    [("ruff format", "check"), ("check_environment", "check"), ("-n 2 -m", "unit"), ("--nbval", "notebooks")],
)
def test_a_failing_step_stops_no_other_and_fails_the_whole(checkout, failing, stage):
    give_venv(checkout)
    says = f'echo "ran $*" >> log; case "$*" in *"{failing}"*) exit 5 ;; esac'  # 5: no test was collected
    give_python(checkout, says)
    failed = make(checkout, "test")
    assert failed.returncode != 0
    assert ran(checkout) == STEPS
    told = failed.stdout.splitlines()[-1]
    assert f"{stage} FAILED" in told and told.count("passed") == 3


def test_nb_and_lab_args_reach_their_scripts(checkout):
    give_venv(checkout)
    assert 'study.py --reset "03"' in make(checkout, "-n", "reset", "NB=03").stdout
    assert "refresh.py 03" in make(checkout, "-n", "refresh", "NB=03").stdout
    assert "--no-browser" in make(checkout, "-n", "lab", "LAB_ARGS=--no-browser").stdout
