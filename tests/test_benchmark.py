"""scripts/benchmark.py: a contender that computes something else is refused, and what it writes can be read."""

import json
import sys

import pytest
import torch

import benchmark
from helpers.by_hand import ByHand
from helpers.data import load_splits


@pytest.fixture(scope="module")
def data():
    return load_splits().train


def check(data, batch_norm, networks=1, **how):
    def plain(seed):
        return benchmark.PlainShallow(batch_norm, seed)

    benchmark.check("it", plain, lambda: benchmark.shallow(batch_norm, networks, **how), *data, steps=20)


def test_right_answers_pass(data):
    check(data, True, networks=2, backward="by_hand")
    check(data, False)


@pytest.mark.parametrize("array", ["dC", "dW1", "dgamma", "dbeta", "dW2", "db2"])
def test_a_wrong_gradient_is_refused(data, monkeypatch, array):
    right = ByHand.backward

    def wrong(self):
        right(self)
        getattr(self, array)[:] *= 1.01

    monkeypatch.setattr(ByHand, "backward", wrong)
    with pytest.raises(SystemExit, match="a faster wrong answer does not count"):
        check(data, True, backward="by_hand")


def test_a_wrong_running_statistic_and_a_wrong_loss_are_refused(data, monkeypatch):
    right = ByHand.forward

    def biased(self, X, Y):
        before = self.running_var.copy()
        loss = right(self, X, Y)
        self.running_var[:] = before + (self.running_var - before) * 31 / 32
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(ByHand, "forward", biased)
        with pytest.raises(SystemExit, match="batch_norm.running_var of network 0"):
            check(data, True, backward="by_hand")
    with monkeypatch.context() as patch:
        patch.setattr(ByHand, "forward", lambda self, X, Y: right(self, X, Y) + 1e-4)
        with pytest.raises(SystemExit, match="losses of network 0"):
            check(data, False, backward="by_hand")


def test_main_checks_before_it_measures(monkeypatch, tmp_path):
    right = ByHand.backward

    def wrong(self):
        right(self)
        self.dW1[:] *= 1.01

    out = tmp_path / "bench.json"
    monkeypatch.setattr(ByHand, "backward", wrong)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--turns", "1", "--out", str(out)])
    with pytest.raises(SystemExit, match="by hand: hidden.weight of network 0"):
        benchmark.main()
    assert not out.exists()


def test_what_it_writes(monkeypatch, tmp_path, capsys):
    out = tmp_path / "bench.json"
    monkeypatch.setattr(benchmark, "STEPS", 20)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--turns", "1", "--out", str(out)])
    benchmark.main()
    bench = json.loads(out.read_text())
    assert bench["machine"].keys() == {"processor", "cores", "python", "torch", "numpy", "blas"}
    assert bench["machine"]["torch"] == torch.__version__
    rows = {(row["group"], row["name"]): row for row in bench["rows"]}
    assert len(rows) == len(bench["rows"]) == 2 * 7 + 2 * 2 + 2 + 4
    assert all(row["microseconds"] > 0 for row in rows.values())
    table = out.with_suffix(".md").read_text()
    shown = capsys.readouterr().out
    for group, name in rows:
        assert group in table and f"| {name} |" in table and name in shown
    assert not list(tmp_path.glob("*.tmp"))
