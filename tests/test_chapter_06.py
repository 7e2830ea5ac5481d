"""What chapter 06 writes inline: its hooks against diagnose, and its two ways to alter a ResNet."""

import copy
import math

import pytest
import torch
from torch import nn

from helpers.diagnostics import diagnose
from helpers.resnet import ResNet


@pytest.fixture()
def small():
    """A ResNet of one block a stage, and a batch for it."""
    torch.manual_seed(0)
    return ResNet((1, 1, 1, 1), num_classes=10), torch.randn(4, 3, 64, 64), torch.arange(4)


def test_watched_relus_are_diagnosed_the_same(chapter, small):
    """Every call of a shared ReLU, in order; nothing stays behind on the network."""
    net, x, y = small
    expected = diagnose(net, x, y)
    loss, stds, norms, of_parameters = chapter["watch_relus"](net, x, y)
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
    for gradient, row in zip(of_parameters, expected.parameters, strict=True):
        assert gradient.std().item() == pytest.approx(row.grad_std, rel=1e-3, abs=1e-9)


def test_scaled_stds_leave_the_network_as_it_was(chapter, small):
    """A factor of 1 changes nothing; 2 is divided out again by BatchNorm, and the weights come back to the bit."""
    net, x, y = small
    before = {name: p.clone() for name, p in net.named_parameters()}
    plain, doubled = (chapter["relu_stds"](net, factor, x) for factor in (1, 2))
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    torch.testing.assert_close(plain, chapter["watch_relus"](net, x, y).stds)
    torch.testing.assert_close(plain, doubled, rtol=1e-3, atol=0)
    bare = chapter["replace_batch_norms"](net, lambda n: nn.Identity())
    assert chapter["relu_stds"](bare, 2, x)[-1] > 10 * chapter["relu_stds"](bare, 1, x)[-1]


def test_losses_after_one_step_each(chapter, small):
    """Each rate is tried from the same place, as plain SGD does it; the network stays as it was."""
    net, x, y = small
    gradients, rates, wanted = chapter["watch_relus"](net, x, y).gradients, [1e-5, 1e-3, 1e-2], []
    for lr in rates:
        trial = copy.deepcopy(net)
        for parameter, gradient in zip(trial.parameters(), gradients, strict=True):
            parameter.grad = gradient
        torch.optim.SGD(trial.parameters(), lr=lr).step()
        wanted.append(nn.functional.cross_entropy(trial(x), y).item())
    assert chapter["losses_after"](net, gradients, rates, x, y) == pytest.approx(wanted, rel=0.02)
    assert len({round(loss, 3) for loss in wanted}) == 3


def test_the_photograph_and_its_tiles(chapter):
    """A tile is a square of the photograph; back in colours it lies between 0 and 1."""
    photo, tiles = chapter["load_photo"](128), chapter["load_tiles"](32)
    assert tiles.shape == (8, 3, 32, 32) and photo.dtype == torch.float32
    assert torch.equal(tiles[0], photo[:, :32, :32]) and torch.equal(tiles[1], photo[:, :32, 64:96])
    colors = chapter["as_colors"](photo)
    assert colors.shape == (128, 128, 3) and 0 <= colors.min() < 0.1 and 0.9 < colors.max() <= 1


def test_a_silent_block_without_shortcuts(chapter, small):
    """It silences one block in the real network, and only its last convolution."""
    net = chapter["fresh_resnet"](0)
    kept = {name: p.clone() for name, p in net.named_parameters()}
    silent = chapter["silence"](net)
    changed = [name for name, p in silent.named_parameters() if not torch.equal(p, kept[name])]
    assert silent is net and changed == ["layer3.2.conv3.weight"]


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
