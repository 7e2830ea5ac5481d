"""Lesson X03: its rules, against torch.optim; its exercises, against answers that no list holds; its sweep."""

import torch

import adam_sgd
from helpers.models import alone, deep_mlp, lecture_mlp, seeded
from helpers.widgets.valley import read_valley


def follow(chapter, name, gradients, lr=0.01):
    """Where one of the lesson's rules goes."""
    memory = {"mean": torch.zeros(5), "square": torch.zeros(5), "t": 0}
    return torch.stack([chapter[name](g, memory, lr) for g in gradients]).sum(0)


def test_the_rules_are_torchs(chapter):
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
        torch.testing.assert_close(follow(chapter, name, gradients), p.detach(), rtol=1e-3, atol=1e-6)
    assert not torch.allclose(follow(chapter, "uncorrected", gradients), follow(chapter, "adam", gradients), rtol=0.1)


def test_the_four_walks_can_be_told_apart():
    """As the solution says: who begins along the slope, and who overruns the lowest point."""
    walks = read_valley(learning_rate=0.15, momentum=0.9).paths
    for name, path in walks.items():
        first = abs(path[1] - path[0])
        assert (first[1] > 5 * first[0]) == (name in ("SGD", "momentum"))
        assert (path[:61, 1].min() < -0.1) == (name in ("momentum", "Adam"))


def test_the_networks_of_its_sweep_are_the_courses():
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
