"""scripts/reproduce.py and the sweep under it: what they write, how they resume, what an interrupt leaves."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
import torch

import reproduce
from common import ROOT
from helpers.data import BUNDLED_FILE, load_names
from helpers.models import SEED, STAGES, lecture_mlp
from helpers.train import evaluate, train
from reproduce import MINIBATCH_SEEDS, run_stage
from sweep import as_json, resume, sweep

SETTINGS = {"steps": 1000, "seeds": (1, 2)}


def log_with(**runs):
    return SETTINGS | {"runs": runs}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.json"


def test_only_what_is_missing_is_done_and_the_order_stays(path, capsys):
    path.write_text(as_json(log_with(b="marked")), encoding="utf-8")
    log = sweep(path, log_with(), str.upper, ["a", "b", "c"], first=["c", "b", "a"])
    assert log["runs"] == {"a": "A", "b": "marked", "c": "C"} and list(log["runs"]) == ["a", "b", "c"]
    assert json.loads(path.read_text(encoding="utf-8")) == log | {"seeds": [1, 2]}
    assert capsys.readouterr().out.splitlines() == ["b: already there"]


def test_a_run_that_fails_keeps_what_was_saved_before(path):
    with pytest.raises(ValueError):
        sweep(path, log_with(), int, ["4", "four"], jobs=1)
    assert json.loads(path.read_text(encoding="utf-8"))["runs"] == {"4": 4}


def test_other_settings_put_the_old_log_aside_and_overwrite_nothing(path, capsys):
    old = as_json(log_with(a=1) | {"steps": 2000})
    path.write_text(old, encoding="utf-8")
    path.with_suffix(".old.json").write_text("older", encoding="utf-8")
    assert resume(path, log_with()) == log_with()
    assert "steps" in capsys.readouterr().out and not path.exists()
    assert path.with_suffix(".old.json").read_text(encoding="utf-8") == "older"
    assert path.with_suffix(".old1.json").read_text(encoding="utf-8") == old


@pytest.mark.parametrize(
    "text", ['{"runs": {"tanh": {"tr', "[]", '{"steps": 1000}', '{"runs": {"other": 1}}', '{"runs": ["tanh"]}', "", "1"]
)
def test_a_damaged_log_is_named_with_the_remedy_and_left_as_it_is(path, text):
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="damaged.*git restore") as refused:
        resume(path, log_with(), names=STAGES)
    assert str(path) in str(refused.value)
    assert path.read_text(encoding="utf-8") == text


STAGE = {"step0": [27.0, 26.0], "train": [2.1, 2.1], "val": [2.2, 2.2], "curve": [[2.2, 2.1]] * 2}


@pytest.mark.parametrize("broken", [{}, 1, {"train": [2.1]}, STAGE | {"curve": [[2.2, 2.1], [2.2]]}])
def test_a_stage_that_is_not_all_there_is_named(path, broken):
    is_whole = partial(reproduce.is_whole, steps=2000, seeds=2)
    path.write_text(as_json(log_with(original=STAGE)), encoding="utf-8")
    assert resume(path, log_with(), whole=is_whole)["runs"]["original"] == STAGE
    path.write_text(as_json(log_with(original=STAGE, tanh=broken)), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(SystemExit, match=r"damaged \(tanh: not all there\).*git restore"):
        resume(path, log_with(), whole=is_whole)
    assert path.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no sleep command")
def test_the_processes_of_a_sweep_that_is_killed_end_in_the_middle_of_a_run(path):
    runs = "sweep(Path(sys.argv[1]), {'runs': {}}, subprocess.getoutput, ['sleep 600', 'sleep 601'])"
    code = f"import subprocess, sys\nfrom pathlib import Path\nfrom sweep import sweep\n{runs}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, cwd=ROOT
    )
    running = []
    while sum("sleep" in child.name() for child in running) < 2:
        assert process.poll() is None
        time.sleep(0.1)
        with contextlib.suppress(psutil.NoSuchProcess):
            running = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in running if "python" in child.name()]
    process.kill()
    process.wait()
    left = psutil.wait_procs(workers, timeout=60)[1]
    for child in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    assert workers and not left


@pytest.mark.slow
def test_the_command_goes_on_where_it_was_and_draws_on_any_terminal(path):
    log = reproduce.new_log(load_names(BUNDLED_FILE), 2000, 2)
    log["stages"]["tanh"] = saved = dict(STAGE)
    path.write_text(as_json(log), encoding="utf-8")
    command = [sys.executable, "scripts/reproduce.py", "--steps", "2000", "--seeds", "2", "--out", path]
    bare = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "MAKEMORE_NAMES": str(BUNDLED_FILE)}
    ran = subprocess.run(command, check=False, cwd=ROOT, env=bare, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")  # no semaphore is reported as leaked, no sign is missing
    assert [f"{stage}: already there" in ran.stdout for stage in STAGES] == [stage == "tanh" for stage in STAGES]

    stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
    assert list(stages) == list(STAGES) and stages.pop("tanh") == saved
    for result in stages.values():
        assert [len(curve) for curve in result["curve"]] == [2, 2]
        for first, on_train, on_val in zip(result["step0"], result["train"], result["val"], strict=True):
            assert 2 < on_train < first and abs(on_train - on_val) < 0.2
        assert result["val"][0] != result["val"][1]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_seeds_networks_equal_their_solo_runs_and_share_their_minibatches(monkeypatch, splits):
    """The first seed is the lecture's run; the others' minibatches are the same at every stage."""
    monkeypatch.setattr("reproduce.CURVE_EVERY", 50)
    few = {part: tuple(t[:2000] for t in getattr(splits, part)) for part in ("train", "val")}
    splits = dataclasses.replace(splits, **few)
    monkeypatch.setattr("reproduce.load_splits", lambda: splits)
    for stage in ("kaiming", "batchnorm"):
        result = run_stage(stage, 100, [SEED, 1])
        for r, seed in enumerate((SEED, 1)):
            g = torch.Generator().manual_seed(seed)
            model = lecture_mlp(stage, generator=g)
            draws = torch.Generator().manual_seed(MINIBATCH_SEEDS + seed) if r else g
            lr = lambda step: 0.1 if step < 50 else 0.01
            losses = train(model, *splits.train, steps=100, lr=lr, generator=draws, progress=False).loss
            assert result["step0"][r] == pytest.approx(losses[0].item(), abs=1e-5)
            assert result["curve"][r] == pytest.approx(losses.view(2, 50).mean(1).tolist(), abs=2e-4)
            for part, (X, Y) in few.items():
                assert result[part][r] == pytest.approx(evaluate(model, X, Y), abs=2e-4)


IN_A_FINALIZER = """Slow()

class Slow:
    def __del__(self):
        begin()
"""
AS_TRAIN_DOES = """try:
        begin()
    except KeyboardInterrupt:
        return 'less than all'
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("body", [IN_A_FINALIZER, AS_TRAIN_DOES], ids=["in a finalizer", "as train does"])
def test_an_interrupt_leaves_no_process_and_no_half_of_a_run(tmp_path, body):
    """Python ignores what a signal's handler raises in a finalizer; train ends early, which would count as done."""
    begin = "import os, time\n\ndef begin():\n    os.write(1, b'in it\\n')\n    for _ in range(3000):\n        time.sleep(0.1)\n"
    (tmp_path / "runs.py").write_text(f"{begin}\ndef run(name):\n    {body}", encoding="utf-8")
    code = "import sys\nfrom pathlib import Path\nfrom runs import run\nfrom sweep import sweep\n"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}sweep(Path('log.json'), {{'runs': {{}}}}, run, ['a', 'b'])"],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{tmp_path}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout.readline() == process.stdout.readline() == "in it\n"
    workers = psutil.Process(process.pid).children(recursive=True)
    for worker in workers:  # a terminal sends it to all of them, in any order
        worker.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    try:
        errors = process.communicate(timeout=60)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1 and errors.strip() == "interrupted: 0 of 2 runs are saved, run it again to go on"
    assert not (tmp_path / "log.json").exists() and len(workers) >= 2 and not psutil.wait_procs(workers, timeout=60)[1]
