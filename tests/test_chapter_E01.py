"""What E01 writes inline: the zeroing, the loop that says who moves, the map of it; and that networks do what it asks."""

import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

from helpers.checks import check_failing_pair, check_lora_starts, check_sigmoid_zeros, check_what_trains
from helpers.models import deep_mlp, lecture_mlp, seeded
from helpers.train import train


def first_steps(chapter, net, steps=5):
    """Per parameter, the first step at which its gradient is not all zero, as the exercises name it."""
    largest = torch.tensor(chapter["who_moves"](net, steps))
    return [f"step {int(sizes.nonzero()[0])}" if sizes.any() else "never" for sizes in largest.T]


def test_who_moves_trains_as_train_does(chapter):
    ours, twin = (lecture_mlp("kaiming", generator=seeded(1)) for _ in range(2))
    chapter["who_moves"](ours, steps=5, lr=0.3)
    train(twin, chapter["X"], chapter["Y"], steps=5, lr=0.3, generator=seeded(0), progress=False)
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), twin.parameters(), strict=True))


def test_who_moves_records_the_largest_gradient_and_exact_zeros(chapter):
    net = chapter["zero"](lecture_mlp("kaiming", generator=seeded(1)), *chapter["NAMES"])
    largest = chapter["who_moves"](net, steps=3)
    assert [[size > 0 for size in sizes] for sizes in largest] == [[False] * 4 + [True]] * 3
    moved = torch.tensor(largest).any(0).tolist()
    assert check_what_trains([name for name, moves in zip(chapter["NAMES"], moved, strict=True) if moves])
    ix = torch.randint(0, len(chapter["X"]), (32,), generator=seeded(0))
    counts = torch.bincount(chapter["Y"][ix], minlength=27)
    assert largest[0][4] == pytest.approx((1 / 27 - counts / 32).abs().max().item(), abs=1e-6)


def test_zero_touches_what_it_is_given_only(chapter):
    net, twin = (lecture_mlp("original", generator=seeded(1)) for _ in range(2))
    assert chapter["zero"](net, "W1", "W2", "b2") is net
    assert torch.equal(net.embedding.weight, twin.embedding.weight)
    assert torch.equal(net.hidden.bias, twin.hidden.bias)
    assert not any(p.any() for p in (net.hidden.weight, net.output.weight, net.output.bias))


def test_the_map_tells_exact_zeros_from_small_gradients(chapter):
    ax = plt.subplots()[1]
    largest = [[0.0, 1e-12], [0.5, 0.0], [0.0, 0.0]]
    chapter["draw_map"](largest, ax, steps=[0, 1], rows=["a", "b"])
    filled = {patch.get_xy(): matplotlib.colors.to_hex(patch.get_facecolor()) != "#ffffff" for patch in ax.patches}
    assert filled == {(0, 0): False, (0, 1): True, (1, 0): True, (1, 1): False}
    assert [text.get_text() for text in ax.texts] == ["0", "", "", "0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


# ---- the values that the checks expect are what networks do


def test_the_first_gradients_with_a_sigmoid(chapter):
    net = deep_mlp(depth=2, n_hidden=20, nonlinearity="sigmoid", generator=seeded(1))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    answer = dict(zip(chapter["NAMES"], first_steps(chapter, net), strict=True))
    assert check_sigmoid_zeros(answer)
    assert not check_sigmoid_zeros({**answer, "W1": "step 1"})


@pytest.mark.parametrize("pair", ["C and W1", "C and b1", "C and W2", "W1 and b1", "W1 and W2", "b1 and W2"])
def test_the_pair_that_fails(chapter, pair):
    zeros = {*chapter["NAMES"]} - {*pair.split(" and ")}
    net = chapter["zero"](lecture_mlp("kaiming", generator=seeded(2)), *zeros)
    assert bool(check_failing_pair(pair)) == ("never" in first_steps(chapter, net))


def test_which_half_of_lora_gets_a_gradient():
    x, target, answer = torch.randn(8, 6, generator=seeded(1)), torch.randn(8, 5, generator=seeded(2)), {}
    for zeros in ("B", "A", "both"):
        A, B = torch.randn(6, 2, generator=seeded(3)), torch.randn(2, 5, generator=seeded(4))
        A, B = (t.mul(zeros not in (name, "both")).requires_grad_() for name, t in (("A", A), ("B", B)))
        (x @ A @ B - target).square().sum().backward()
        moving = [name for name, t in (("A", A), ("B", B)) if t.grad.any()]
        answer[f"{zeros} zero"] = {0: "neither", 1: moving[0] if moving else "", 2: "both"}[len(moving)]
    assert check_lora_starts(answer)
    assert not check_lora_starts({**answer, "both zero": "both"})
