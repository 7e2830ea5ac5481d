"""scripts/reproduce.py, on short runs: what it writes, how it resumes, what an interrupt leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from helpers.data import load_splits
from helpers.models import SEED, STAGES, lecture_mlp
from helpers.train import evaluate, train
from reproduce import MINIBATCH_SEEDS, run_stage

ROOT = Path(__file__).resolve().parents[1]


def command(out, steps):
    return [sys.executable, "scripts/reproduce.py", "--steps", str(steps), "--seeds", "2", "--out", str(out)]


def run_script(out, steps=1000):
    environment = os.environ | {"MAKEMORE_NAMES": str(ROOT / "data" / "bundled_names.txt")}
    return subprocess.run(command(out, steps), check=False, cwd=ROOT, env=environment, capture_output=True, text=True)


def reproduce(out):
    run = run_script(out)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_a_run_is_resumed_and_another_is_kept_apart(tmp_path):
    out = tmp_path / "loss_log.json"
    said = reproduce(out)
    log = json.loads(out.read_text())
    assert list(log["stages"]) == list(STAGES)
    assert log["steps"] == 1000 and log["names"]["count"] == 8602 and log["seeds"] == [2147483647, 1]
    for stage, result in log["stages"].items():
        assert f"{stage:>9}    1,000 of 1,000 steps" in said
        assert [len(curve) for curve in result["curve"]] == [log["steps"] // log["curve_every"]] * 2
        for first, on_train, on_val in zip(result["step0"], result["train"], result["val"], strict=True):
            assert 2 < on_train < first and abs(on_train - on_val) < 0.2
        assert result["val"][0] != result["val"][1]
    assert (tmp_path / "loss_log.png").read_bytes().startswith(b"\x89PNG")

    # One stage taken out, one marked: the first is trained again to the same numbers, the other left alone.
    tanh = log["stages"].pop("tanh")
    log["stages"]["kaiming"]["val"] = [9.0, 9.0]
    out.write_text(json.dumps(log))
    said = reproduce(out)
    again = json.loads(out.read_text())
    assert again["stages"]["tanh"] == tanh and again["stages"]["kaiming"]["val"] == [9.0, 9.0]
    assert "kaiming: already there" in said and "tanh: already there" not in said
    assert list(again["stages"]) == list(STAGES)

    # Other settings: the old file is put aside, and nothing that was put aside before is overwritten.
    log = again | {"names": {"source": "others"}}
    out.write_text(json.dumps(log))
    (tmp_path / "loss_log.old.json").write_text("older")
    assert "made with another names: kept as " in reproduce(out)
    assert (tmp_path / "loss_log.old.json").read_text() == "older"
    assert json.loads((tmp_path / "loss_log.old1.json").read_text()) == log
    assert json.loads(out.read_text())["stages"]["kaiming"]["val"] != [9.0, 9.0]


@pytest.mark.parametrize("text", ['{"stages": {"tanh": {"tr', "[]", '{"steps": 1000}', '{"stages": {"other": 1}}', ""])
def test_a_damaged_log_is_named_with_the_remedy_and_left_as_it_is(tmp_path, text):
    out = tmp_path / "loss_log.json"
    out.write_text(text)
    run = run_script(out)
    assert run.returncode == 1
    assert run.stderr == f"{out} is damaged: restore it (git restore) or delete it, then run this again\n"
    assert out.read_text() == text


def test_a_seeds_networks_equal_their_solo_runs_and_share_their_minibatches():
    """The first seed is the lecture's run; the others' minibatches are the same at every stage."""
    splits = load_splits()
    for stage in ("kaiming", "batchnorm"):
        _, result = run_stage(stage, 1000, [SEED, 1])
        for r, seed in enumerate((SEED, 1)):
            g = torch.Generator().manual_seed(seed)
            model = lecture_mlp(stage, generator=g)
            draws = torch.Generator().manual_seed(MINIBATCH_SEEDS + seed) if r else g
            lr = lambda step: 0.1 if step < 500 else 0.01
            losses = train(model, *splits.train, steps=1000, lr=lr, generator=draws, progress=False).loss
            assert result["step0"][r] == pytest.approx(losses[0].item(), abs=1e-5)
            assert result["curve"][r] == pytest.approx([losses.mean().item()], abs=2e-4)
            assert result["val"][r] == pytest.approx(evaluate(model, *splits.val), abs=2e-4)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupt_leaves_no_process_and_no_half_trained_stage(tmp_path):
    out = tmp_path / "loss_log.json"
    process = subprocess.Popen(
        command(out, 200_000), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    process.stdout.readline()  # it has begun
    while len(workers := psutil.Process(process.pid).children(recursive=True)) < 2:
        time.sleep(0.1)
    time.sleep(5)  # until they train
    os.killpg(process.pid, signal.SIGINT)  # to all of them, as a terminal does
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1 and errors.strip().startswith("interrupted: 0 of 5 stages are saved")
    assert not out.exists() and not psutil.wait_procs(workers, timeout=60)[1]
