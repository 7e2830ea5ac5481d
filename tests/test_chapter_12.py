"""What chapter 12 writes inline gives what the helpers give, and what it keeps is what its script makes."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from helpers.train import train

KEPT = Path(__file__).parent.parent / "data" / "results" / "learning_rates.json"


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
