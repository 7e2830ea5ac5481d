"""Lesson X03: its rules, against torch.optim; its exercises, against answers that no list holds; its sweep."""

import json

import pytest
import torch

import adam_sgd
from helpers.data import course_file
from helpers.models import alone, deep_mlp, lecture_mlp, seeded
from helpers.widgets.valley import read_valley
from notebook_cells import definitions


@pytest.fixture(scope="module")
def lesson():
    return definitions("X03_adam")


def follow(lesson, name, gradients, lr=0.01):
    """Where one of the lesson's rules goes."""
    memory = {"mean": torch.zeros(5), "square": torch.zeros(5), "t": 0}
    return torch.stack([lesson[name](g, memory, lr) for g in gradients]).sum(0)


def test_the_rules_are_torchs(lesson):
    gradients = torch.randn(40, 5, generator=seeded(1)) * torch.tensor([1e-4, 0.01, 1, 10, 1e3])
    makers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, dampening=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    }
    for name, make in makers.items():
        p = torch.nn.Parameter(torch.zeros(5))
        optimizer = make([p])
        for k, g in enumerate(gradients):
            # torch's dampening leaves the first gradient whole
            p.grad = g * 0.1 if name == "momentum" and k == 0 else g
            optimizer.step()
        torch.testing.assert_close(follow(lesson, name, gradients), p.detach(), rtol=1e-3, atol=1e-6)
    assert not torch.allclose(follow(lesson, "uncorrected", gradients), follow(lesson, "adam", gradients), rtol=0.1)


def test_the_four_walks_can_be_told_apart():
    """As the solution says: who begins along the slope, and who overruns the lowest point."""
    walks = read_valley(learning_rate=0.15, momentum=0.9).paths
    for name, path in walks.items():
        first = abs(path[1] - path[0])
        assert (first[1] > 5 * first[0]) == (name in ("SGD", "momentum"))
        assert (path[:61, 1].min() < -0.1) == (name in ("momentum", "Adam"))


def test_the_sweep_is_whole_and_its_networks_are_the_courses():
    kept = json.loads(course_file("data/results/adam_sgd.json").read_text(encoding="utf-8"))
    assert {kind: list(names) for kind, names in adam_sgd.KINDS.items()} == kept["kinds"]
    names = [f"{k}, {o}, {r}" for k in adam_sgd.KINDS for o in adam_sgd.RATES for r in adam_sgd.RATES[o]]
    assert list(kept["runs"]) == names
    for name, result in kept["runs"].items():
        shape = [len(adam_sgd.SEEDS)] * len(kept["kinds"][name.split(", ")[0]])
        assert all([len(row) for row in rows] == shape for rows in result.values())
    seeds = len(adam_sgd.SEEDS)
    stages, gains = adam_sgd.networks("stages"), adam_sgd.networks("gains")
    twins = (
        (alone(stages, 0), lecture_mlp("original", generator=seeded(0))),
        (alone(stages, 3 * seeds + 1), lecture_mlp("kaiming", generator=seeded(1))),
        (alone(gains, 4 * seeds + 2), deep_mlp(gain=3, generator=seeded(2))),
    )
    for one, other in twins:
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q)


def test_a_run_of_the_sweep_trains():
    before, after = (adam_sgd.run("batchnorm, Adam, 0.003", steps=steps, examples=200) for steps in (0, 30))
    assert all(b > a + 0.2 for b, a in zip(*before["train"], *after["train"], strict=True))
    assert all(0.009 < std < 0.011 for std in before["last_std"][0]) and before["rare_target"] != before["val"]


def test_a_warm_up_climbs_to_the_rate_and_the_end_is_lowered():
    with_it, without = ([adam_sgd.rate_at(k, 0.01, 100, warm) for k in range(100)] for warm in (True, False))
    assert with_it[:10] == pytest.approx([0.001 * k for k in range(1, 11)]) and with_it[10:] == without[10:]
    assert without == pytest.approx([0.01] * 80 + [0.001] * 20)
