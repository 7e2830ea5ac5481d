"""Lesson X02: residual_mlp against a loop written out, its stacks, its sweep; the lesson's own code."""

from math import sqrt

import pytest
import torch
import torch.nn.functional as F

import residual_depth
from helpers.data import load_splits
from helpers.diagnostics import diagnose
from helpers.layers import Residual
from helpers.models import alone, deep_mlp, residual_mlp, seeded
from helpers.train import evaluate, train

X = torch.randint(0, 27, (64, 3), generator=seeded(1))
Y = torch.randint(0, 27, (64,), generator=seeded(2))
KINDS = [{}, {"scale": 0.25}, {"norm": "before"}, {"norm": "after"}, {"last": 1.5}, {"nonlinearity": "linear"}]


def test_it_is_the_plain_network_with_a_plus():
    plain, net = (make(depth=5, generator=seeded(0)) for make in (deep_mlp, residual_mlp))
    weights = [p for name, p in plain.named_parameters() if name.endswith("weight")]
    h = (plain.embedding.weight[X].flatten(1) @ weights[1]).tanh()
    for W in weights[2:5]:
        h = h + (h @ W).tanh()
    torch.testing.assert_close(net(X), h @ weights[5])


def test_scale_norm_and_last():
    def normed(h):
        return (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()

    for norm in ("before", "after"):
        net = residual_mlp(depth=4, n_hidden=20, scale=0.3, norm=norm, last=0.7, generator=seeded(0))
        h = net[:4](X)
        for k in (1, 2):
            W, V = (p for p in net.get_submodule(f"block{k}").parameters() if p.dim() == 2)
            branch = 0.3 * ((normed(h) if norm == "before" else h) @ W).tanh() @ V
            h = h + branch if norm == "before" else normed(h + branch)
            assert V.std().item() == pytest.approx(0.7 / sqrt(20), rel=0.2)
        torch.testing.assert_close(net(X), net.output(normed(h) if norm == "before" else h))


def test_a_last_layer_of_zeros_makes_every_block_the_identity_and_it_wakes_up():
    net = residual_mlp(depth=6, last=0, generator=seeded(0))
    torch.testing.assert_close(net(X), net.output(net[:4](X)))
    train(net, X, Y, steps=2, lr=0.1, generator=seeded(0), progress=False)
    assert all(block.branch[2].weight.any() for block in net if isinstance(block, Residual))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_stack_is_its_networks_and_trains_as_they_do(kind):
    generators = [seeded(seed) for seed in (3, 4)]
    how = dict(depth=4, n_hidden=10, **kind)
    stack = residual_mlp(**how, gain=torch.tensor([1.0, 2.0]), generator=generators, num_models=2)
    solo = residual_mlp(**how, gain=2.0, generator=seeded(4))
    torch.testing.assert_close(alone(stack, 1)(X), solo(X))
    train(stack, X, Y, steps=3, lr=0.1, generator=seeded(0), progress=False)
    train(solo, X, Y, steps=3, lr=0.1, generator=seeded(0), progress=False)
    torch.testing.assert_close(stack(X)[1], solo(X))
    assert evaluate(stack, X, Y)[1] == pytest.approx(evaluate(solo, X, Y), rel=1e-5)


def test_diagnose_sees_the_sum_and_the_branch():
    rows = {row.name for row in diagnose(residual_mlp(depth=4, generator=seeded(0)), X, Y).activations}
    assert {"block1", "block2", "block2.branch.1"} <= rows


def test_what_it_refuses():
    with pytest.raises(ValueError, match="depth is 1: give 2"):
        residual_mlp(depth=1)
    with pytest.raises(ValueError, match="norm is 'pre'.*before"):
        residual_mlp(norm="pre")
    with pytest.raises(ValueError, match="nonlinearity"):
        residual_mlp(nonlinearity="tan")
    with pytest.raises(ValueError, match="(?s)Residual.*autograd"):
        train(residual_mlp(depth=3), X, Y, steps=1, lr=0.1, backward="by_hand")
    assert len(residual_mlp(depth=2)(X)) == 64  # no block at all


def test_what_the_sweep_makes_of_the_branches():
    plain, norms, zero = (residual_depth.networks(f"relu {kind}", 4, [0, 1]) for kind in ("+", "BatchNorm", "ReZero"))
    h = alone(norms, 1)[:4](X)
    torch.testing.assert_close(h, alone(plain, 1)[:4](X))
    added = alone(norms, 1).block1(h) - h
    torch.testing.assert_close(added.mean(0), torch.zeros(100), atol=1e-5, rtol=0)
    torch.testing.assert_close(added.var(0, correction=0), torch.ones(100), atol=1e-3, rtol=0)
    torch.testing.assert_close(zero(X), zero.output(zero[:4](X)))
    assert residual_depth.networks("scaled", 6, [0]).block1.scale == pytest.approx(1 / sqrt(4))
    train(zero, X, Y, steps=2, lr=torch.tensor([0.1, 0.0]), generator=seeded(0), progress=False)
    assert zero.block2.scale[0].any() and not zero.block2.scale[1].any()


@pytest.mark.parametrize("kind", ["plain", "pre-norm"])
def test_the_lesions_are_those_of_each_network(kind):
    found = residual_depth.lesions(kind, steps=0, examples=64, pairs=2)
    net = alone(residual_depth.networks(kind, 20, residual_depth.SEEDS), 1)
    x, y = (part[:64] for part in load_splits().train)
    blocks = [net[4 + 2 * k : 6 + 2 * k] if kind == "plain" else net[4 + k] for k in range(18)]

    def loss(order):
        h = net[:4](x)
        for k in order:
            h = blocks[k](h)
        return F.cross_entropy(
            net.get_submodule("linear20" if kind == "plain" else "output")(h if kind == "plain" else net.norm(h)), y
        ).item()

    whole = loss(range(18))
    assert found["whole"][1] == pytest.approx(whole, abs=2e-4)
    assert found["left out"][5][1] == pytest.approx(loss([k for k in range(18) if k != 5]) - whole, abs=2e-4)
    i, j = found["pairs"][1]
    swapped = [{i: j, j: i}.get(k, k) for k in range(18)]
    assert found["two swapped"][1][1] == pytest.approx(loss(swapped) - whole, abs=2e-4)


def test_the_stream_is_what_the_network_computes(chapter):
    net = residual_mlp(depth=6, generator=seeded(0))
    states, logits = chapter["stream"](net, X)
    assert len(states) == 5 and torch.equal(logits, net(X))
    torch.testing.assert_close(states[2], states[1] + net.block2.branch(states[1]))
    assert len(chapter["stream"](chapter["make"]("plain", depth=6), X)[0]) == 5


def test_shares_by_length_count_every_way(chapter):
    net = residual_mlp(depth=5, scale=0.5, generator=seeded(0))
    net.requires_grad_(False)
    states, _ = chapter["stream"](net, chapter["x"])
    blocks = [layer for layer in net if isinstance(layer, Residual)]
    c = [0.25 * 25 / 9 * (1 - block.branch(h) ** 2).square().mean() for block, h in zip(blocks, states, strict=False)]
    ways = [1, sum(c), c[0] * c[1] + c[0] * c[2] + c[1] * c[2], c[0] * c[1] * c[2]]
    torch.testing.assert_close(chapter["shares_by_length"](net), torch.tensor(ways))


def test_a_batch_norm_gives_every_block_its_share(chapter):
    shares, sizes = chapter["shares_and_sizes"](chapter["resnet_like"](batch_norm=True, depth=6))
    assert shares == pytest.approx([1 / 2, 1 / 3, 1 / 4, 1 / 5], rel=0.2) and len(sizes) == 5
    assert sizes[-1] == pytest.approx(sizes[0] * sqrt(5), rel=0.15)
    assert min(chapter["shares_and_sizes"](chapter["resnet_like"](batch_norm=False, depth=6))[0]) > 0.3


def test_rezero_begins_as_the_identity_and_only_its_scales_move_first(chapter):
    net = chapter["rezero"](depth=4)
    torch.testing.assert_close(net(X), net.output(net[:4](X)))
    F.cross_entropy(net(X), Y).backward()
    moved = [name for name, p in net.named_parameters() if name.startswith("block") and p.grad.any()]
    assert moved == ["block1.scale", "block2.scale"]
