"""scripts/benchmark.py: a contender that computes something else is refused, and what it writes can be read."""

import json
import sys
from functools import partial

import pytest
import torch

import benchmark
from benchmark import PART_1, PART_2, Course, Usual, Vmapped, with_torchs_batch_norm
from helpers import by_hand


@pytest.fixture
def data(splits):
    return splits.train


def check(data, batch_norm, networks=1, part=1, **how):
    plain, course = (benchmark.plain_shallow, PART_1) if part == 1 else (benchmark.plain_deep, PART_2)
    lectures = benchmark.reached(partial(plain, batch_norm), *data)
    benchmark.check("it", lectures, partial(Course, course[batch_norm], networks, **how), *data, steps=20)


def check_torch(data, batch_norm, kind, *networks, part=1):
    course = with_torchs_batch_norm((PART_1 if part == 1 else PART_2)[batch_norm])
    twins = benchmark.reached(lambda seed: Course(course, seed=seed), *data)
    benchmark.check("it", twins, partial(kind, course, *networks), *data, steps=20)


@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_right_answers_pass(data, batch_norm, part):
    check(data, batch_norm, networks=2, part=part, backward="by_hand")
    check(data, batch_norm, part=part)
    check_torch(data, batch_norm, Usual, part=part)
    check_torch(data, batch_norm, Vmapped, 2, part=part)


def break_method(monkeypatch, kind, method, damage):
    """The method does what it does, and its layer or its result is damaged then."""
    right = getattr(kind, method)

    def wrong(self, *args):
        result = right(self, *args)
        damaged = damage(self, result)
        return result if damaged is None else damaged

    monkeypatch.setattr(kind, method, wrong)


def grow(array):
    array *= 1.01


@pytest.mark.parametrize(
    "kind, method, damage, network, message",
    [
        (by_hand.Embedding, "backward", lambda self, dx: grow(self.dC), (True,), "tensor 0 of network 0"),
        (by_hand.Linear, "backward", lambda self, dx: grow(self.dW), (True,), "tensor 1 of network 0"),
        (by_hand.BatchNorm1d, "backward", lambda self, dx: grow(self.dgamma), (True,), "tensor 2 of network 0"),
        (by_hand.Tanh, "backward", lambda self, dx: grow(dx), (True,), r"tensor \d of network 0"),
        (by_hand.Linear, "backward", lambda self, dx: grow(self.db[1:]), (False, 2), "of network 1 after 1 steps"),
        # The running variance, after six parameters and the running mean.
        (by_hand.BatchNorm1d, "forward", lambda self, out: grow(self.running_var), (True,), "tensor 7 of network 0"),
        (by_hand.CrossEntropy, "forward", lambda self, loss: loss + 1e-4, (False,), "losses of network 0"),
    ],
)
def test_what_computes_something_else_is_refused(data, monkeypatch, kind, method, damage, network, message):
    break_method(monkeypatch, kind, method, damage)
    with pytest.raises(SystemExit, match=f"{message}.*a faster wrong answer does not count"):
        check(data, *network, backward="by_hand")


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """The benchmark with the shortest of turns; where it writes."""
    out = tmp_path / "bench.json"
    monkeypatch.setattr(benchmark, "SECONDS", 0.001)
    monkeypatch.setattr(benchmark, "WARM_UP", 2)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--turns", "1", "--out", str(out)])
    return out


def test_main_checks_before_it_measures(monkeypatch, quick):
    break_method(monkeypatch, by_hand.Linear, "backward", lambda self, dx: grow(self.dW))
    with pytest.raises(SystemExit, match="by hand: tensor 1 of network 0"):
        benchmark.main()
    assert not quick.exists()


def test_what_it_writes(monkeypatch, quick, capsys):
    right, checked = benchmark.check, []

    def fewer_steps(name, reference, make, X, Y):
        checked.append(name)
        right(name, reference, make, X, Y, steps=2)

    monkeypatch.setattr(benchmark, "check", fewer_steps)
    benchmark.main()
    bench = json.loads(quick.read_text(encoding="utf-8"))
    assert bench["machine"].keys() == {"processor", "cores", "python", "torch", "kernels", "numpy", "blas"}
    assert bench["machine"]["torch"] == torch.__version__
    rows = {(row["group"], row["name"]): row for row in bench["rows"]}
    assert len(rows) == len(bench["rows"])
    trained = [names for names, row in rows.items() if row["unit"]]
    unchecked = {name for group, name in trained if f"{group}, {name}" not in checked}
    assert unchecked == {"the lecture's loop", "its matrix products alone"}
    assert all(row["microseconds"] > 0 for row in rows.values())
    table, shown = quick.with_suffix(".md").read_text(encoding="utf-8"), capsys.readouterr().out
    for (group, name), row in rows.items():
        assert group in table and f"| {name} |" in table and name in shown
        assert row["goal"] is None or f"| {row['goal']:g} {'×' if row['unit'] == 'x' else '%'} |" in table
    assert not list(quick.parent.glob("*.tmp"))
