"""What chapter 12 writes inline gives what the helpers give, and what it keeps is what its script makes."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from helpers.checks import check_new_rate, check_ratio_of_step
from helpers.train import train
from notebook_cells import definitions

KEPT = Path(__file__).parent.parent / "data" / "results" / "learning_rates.json"


@pytest.fixture(scope="module")
def chapter():
    return definitions("12_update_ratio")


def test_the_chapters_loop_records_what_train_records(chapter):
    ours, theirs = (chapter["deep_mlp"](generator=chapter["seeded"]()) for _ in range(2))
    ratios = chapter["lecture_loop"](ours, 0.1, 5, chapter["seeded"](0))
    options = {"generator": chapter["seeded"](0), "record_ratios_every": 1, "progress": False}
    history = train(theirs, chapter["X"], chapter["Y"], steps=5, lr=0.1, **options)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(p, q, rtol=1e-4, atol=1e-7)
    assert ratios.keys() == history.update_ratio.keys()
    for name, values in ratios.items():
        assert_close(torch.tensor(values), history.update_ratio[name], rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("sgd", lambda p: torch.optim.SGD([p], lr=0.1)),
        ("momentum", lambda p: torch.optim.SGD([p], lr=0.01, momentum=0.9)),
        ("adam", lambda p: torch.optim.Adam([p], lr=0.001)),
    ],
)
def test_the_chapters_optimizers_take_torchs_steps(chapter, name, theirs):
    g, memory = chapter["seeded"](3), {}
    ours = torch.randn(6, 5, generator=g)
    optimizer = theirs(p := torch.nn.Parameter(ours.clone()))
    for k in range(1, 5):
        p.grad = torch.randn(6, 5, generator=g)
        optimizer.step()
        ours = ours - chapter[name](p.grad, memory, k)
        assert_close(ours, p.detach(), rtol=1e-5, atol=1e-6)


def test_weights_without_fan_in_are_plain_normal_numbers_times_the_gain(chapter):
    net = chapter["without_fan_in"](chapter["deep_mlp"](generator=chapter["seeded"]()))
    for i, std in ((1, 5 / 3), (3, 5 / 3), (6, 0.1)):
        assert net.get_submodule(f"linear{i}").weight.std().item() == pytest.approx(std, rel=0.05)


def test_the_kept_runs_are_whole():
    log = json.loads(KEPT.read_text(encoding="utf-8"))
    for run in log["runs"].values():
        for part in ("ratio", "held", "decayed"):
            assert {int(steps): len(values) for steps, values in run[part].items()} == dict.fromkeys(log["horizons"], 8)


def test_a_kept_run_can_be_made_again(monkeypatch):
    learning_rates = pytest.importorskip("learning_rates")
    monkeypatch.setattr(learning_rates, "HORIZONS", (40,))
    monkeypatch.setattr(learning_rates, "SEEDS", 2)
    slow, fast = (learning_rates.run_rate(rate) for rate in ("0.001", "0.1"))
    for one, other in zip(slow["ratio"]["40"], fast["ratio"]["40"], strict=True):
        assert 100 < other / one < 1_000  # 100 times the rate, and larger gradients in the faster run
    assert all(a > b for a, b in zip(slow["held"]["40"], fast["held"]["40"], strict=True))


def measured(weight, step, before=lambda weight: weight.clone()):
    old = before(weight)
    step()
    return (weight - old).std() / old.std()


def test_the_ratio_of_a_step_is_measured_after_one_step_and_changes_nothing():
    right = (
        measured,
        lambda w, step: float(measured(w, step)),
        lambda weight, step: [measured(weight, step, torch.clone)],
    )
    assert all(check_ratio_of_step(answer) for answer in right)

    def by_what_step_returns(weight, step):
        old = weight.clone()
        return (step() - old).std() / old.std()

    def in_place(weight, step):
        old = weight.clone()
        step()
        return weight.sub_(old).std() / old.std()

    wrong = {
        by_what_step_returns: "error",
        in_place: "copies",
        lambda weight, step: measured(weight, lambda: (step(), step())): "once",
        lambda weight, step: measured(weight, lambda: None): "once",
        lambda weight, step: measured(weight, step, lambda weight: weight.data): "clone",
    }
    for answer, said in wrong.items():
        result = check_ratio_of_step(answer)
        assert result.status == "wrong" and said in result.misconception


@pytest.mark.parametrize("factor", ["30", "x30", -30, 0, math.nan, [20, 40], {"factor": 30}, True, lambda: 30])
def test_a_factor_is_one_positive_number(factor):
    assert "Give one" in check_new_rate(factor).misconception
    assert check_new_rate((30,)) and check_new_rate(torch.tensor(40.0))
