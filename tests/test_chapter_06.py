"""What chapter 06 writes inline: its hooks against diagnose, and its two ways to alter a ResNet."""

import math

import pytest
import torch
from torch import nn

from helpers.diagnostics import diagnose
from helpers.resnet import ResNet
from notebook_cells import definitions


@pytest.fixture(scope="module")
def chapter():
    return definitions("06_resnet50_walkthrough")


@pytest.fixture()
def small():
    """A ResNet of one block a stage, and a batch for it."""
    torch.manual_seed(0)
    return ResNet((1, 1, 1, 1), num_classes=10), torch.randn(4, 3, 64, 64), torch.arange(4)


def test_watched_relus_are_diagnosed_the_same(chapter, small):
    """Every call of a shared ReLU, in order; nothing stays behind on the network."""
    net, x, y = small
    expected = diagnose(net, x, y)
    loss, stds, norms = chapter["watch_relus"](net, x, y)
    calls = [i for i, row in enumerate(expected.activations) if row.type is nn.ReLU]
    gradients = [expected.gradients[i] for i in calls]
    n = [math.prod(row.shape) for row in gradients]
    assert len(stds) == len(norms) == len(calls) == 1 + 3 * 4
    assert loss == pytest.approx(expected.loss)
    assert stds.tolist() == pytest.approx([expected.activations[i].std for i in calls])
    squares = [(k - 1) * row.std**2 + k * row.mean**2 for k, row in zip(n, gradients, strict=True)]
    assert (norms**2).tolist() == pytest.approx(squares, rel=1e-4)
    assert not any(module._forward_hooks for module in net.modules())
    assert all(p.grad is None for p in net.parameters())


def test_replaced_batch_norms(chapter, small):
    """All of them go, with their number of features known; the network itself keeps its own."""
    net, x, _ = small
    sizes = [m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    replaced = chapter["replace_batch_norms"](net, lambda n: nn.GroupNorm(1, n))
    assert [m.num_channels for m in replaced.modules() if isinstance(m, nn.GroupNorm)] == sizes
    assert not any(isinstance(m, nn.BatchNorm2d) for m in replaced.modules())
    assert len(sizes) == sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 1 + 3 * 4 + 4

    bare = chapter["replace_batch_norms"](net, lambda n: nn.Identity())
    torch.testing.assert_close(bare(x), net.eval()(x), rtol=1e-3, atol=1e-3)


def test_without_shortcuts_only_the_sum_is_missing(chapter, small):
    """The same tensors; a block is its three convolutions and nothing else."""
    net, *_ = small
    plain = chapter["without_shortcuts"](net)
    for (name, a), (other, b) in zip(net.state_dict().items(), plain.state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b)
    block, bare = net.layer2[0], plain.layer2[0]
    x = torch.rand(4, 256, 8, 8)
    for module in (block, bare):
        nn.init.zeros_(module.bn3.weight)
    assert bare(x).count_nonzero() == 0
    torch.testing.assert_close(block(x), block.downsample(x).relu())
