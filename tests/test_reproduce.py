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

from helpers.models import STAGES

ROOT = Path(__file__).resolve().parents[1]


def command(out, steps):
    return [sys.executable, "scripts/reproduce.py", "--steps", str(steps), "--out", str(out)]


def reproduce(out, steps=1000):
    environment = os.environ | {"MAKEMORE_NAMES": str(ROOT / "data" / "bundled_names.txt")}
    run = subprocess.run(
        command(out, steps), check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_run_is_resumed_and_another_is_kept_apart(tmp_path):
    out = tmp_path / "loss_log.json"
    said = reproduce(out)
    log = json.loads(out.read_text())
    assert list(log["stages"]) == list(STAGES)
    assert log["steps"] == 1000 and log["names"]["count"] == 8602 and log["seeds"] == [2147483647]
    for stage, result in log["stages"].items():
        assert f"{stage:>9}    1,000 of 1,000 steps" in said
        assert len(result["curve"][0]) == log["steps"] // log["curve_every"]
        assert (
            2 < result["train"][0] < result["step0"][0] and abs(result["train"][0] - result["val"][0]) < 0.2
        )
    assert (tmp_path / "loss_log.png").read_bytes().startswith(b"\x89PNG")

    # One stage taken out, one marked: the first is trained again to the same numbers, the other left alone.
    tanh = log["stages"].pop("tanh")
    log["stages"]["kaiming"]["val"] = [9.0]
    out.write_text(json.dumps(log))
    said = reproduce(out)
    again = json.loads(out.read_text())
    assert again["stages"]["tanh"] == tanh and again["stages"]["kaiming"]["val"] == [9.0]
    assert "kaiming: already there" in said and "tanh: already there" not in said
    assert list(again["stages"]) == list(STAGES)

    # Other settings: the old file is put aside, not overwritten.
    log = again | {"names": {"source": "others"}}
    out.write_text(json.dumps(log))
    assert "made with another names" in reproduce(out)
    assert json.loads((tmp_path / "loss_log.old.json").read_text()) == log
    assert json.loads(out.read_text())["stages"]["kaiming"]["val"] != [9.0]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupt_leaves_no_process_and_no_half_trained_stage(tmp_path):
    out = tmp_path / "loss_log.json"
    process = subprocess.Popen(
        command(out, 200_000),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    process.stdout.readline()  # it has begun
    while len(workers := psutil.Process(process.pid).children(recursive=True)) < 2:
        time.sleep(0.1)
    time.sleep(5)  # until they train
    os.killpg(process.pid, signal.SIGINT)  # to all of them, as a terminal does
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1 and errors.strip().startswith("interrupted: 0 of 5 stages are saved")
    assert not out.exists() and not psutil.wait_procs(workers, timeout=60)[1]
