"""ResNet-50: its published form, computed again from the state dict alone, and its initialisation."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.resnet import resnet50

# He et al. 2015, table 1, the column of 50 layers: blocks, channels inside a block, channels after it.
STAGES = {"layer1": (3, 64, 256), "layer2": (4, 128, 512), "layer3": (6, 256, 1024), "layer4": (3, 512, 2048)}


@pytest.fixture(scope="module")
def fresh():
    torch.manual_seed(0)
    return resnet50()


@pytest.fixture(scope="module")
def worn_once():
    """A network of which no tensor still has the value it was made with, as after training."""
    g = torch.Generator().manual_seed(1)
    model = resnet50(num_classes=10)
    for name, tensor in model.state_dict().items():
        if name.startswith("fc") or tensor.dim() == 4:
            tensor.mul_(1.1)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif name.endswith(("weight", "running_var")):
            tensor.copy_(torch.rand(tensor.shape, generator=g) + 0.5)
        else:
            tensor.copy_(torch.randn(tensor.shape, generator=g) * 0.2)
    return model


@pytest.fixture
def worn(worn_once):
    return copy.deepcopy(worn_once)


def images(n, size):
    return torch.randn((n, 3, size, size), generator=torch.Generator().manual_seed(2))


def table_of_convolutions():
    """(convolution, its BatchNorm, shape) of all 53, from the paper's table."""
    rows = [("conv1", "bn1", (64, 3, 7, 7))]
    before = 64
    for stage, (blocks, inside, after) in STAGES.items():
        for b in range(blocks):
            rows += [
                (f"{stage}.{b}.conv1", f"{stage}.{b}.bn1", (inside, before, 1, 1)),
                (f"{stage}.{b}.conv2", f"{stage}.{b}.bn2", (inside, inside, 3, 3)),
                (f"{stage}.{b}.conv3", f"{stage}.{b}.bn3", (after, inside, 1, 1)),
            ]
            if b == 0:
                rows.append((f"{stage}.0.downsample.0", f"{stage}.0.downsample.1", (after, before, 1, 1)))
            before = after
    return rows


def test_state_dict_has_torchvisions_keys_and_shapes(fresh):
    expected = {"fc.weight": (1000, 2048), "fc.bias": (1000,)}
    for convolution, norm, shape in table_of_convolutions():
        expected[f"{convolution}.weight"] = shape
        for name in "weight", "bias", "running_mean", "running_var":
            expected[f"{norm}.{name}"] = shape[:1]
        expected[f"{norm}.num_batches_tracked"] = ()
    state = fresh.state_dict()
    assert len(state) == 320 and sum(p.numel() for p in fresh.parameters()) == 25_557_032
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_attributes_without_parameters_have_torchvisions_names_too(fresh):
    assert [name for name, _ in fresh.named_children()] == (
        ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
    )
    assert isinstance(fresh.layer1[0].relu, nn.ReLU)


def forward_from(state, x, training):
    """ResNet-50 by torch's functions, from a state dict alone; in train mode its running statistics move."""

    def convolve(x, conv, norm, stride=1):
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        gamma, beta = state[f"{norm}.weight"], state[f"{norm}.bias"]
        return F.batch_norm(x, mean, var, gamma, beta, training, momentum=0.1, eps=1e-5)

    x = F.max_pool2d(F.relu(convolve(x, "conv1", "bn1", stride=2)), 3, stride=2, padding=1)
    for stage, (blocks, _, _) in STAGES.items():
        for b in range(blocks):
            name = f"{stage}.{b}."
            stride = 2 if b == 0 and stage != "layer1" else 1
            shortcut = x
            if b == 0:
                shortcut = convolve(x, name + "downsample.0", name + "downsample.1", stride)
            x = F.relu(convolve(x, name + "conv1", name + "bn1"))
            x = F.relu(convolve(x, name + "conv2", name + "bn2", stride))
            x = F.relu(convolve(x, name + "conv3", name + "bn3") + shortcut)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("training", [False, True])
def test_forward_pass_equals_the_functional_one(worn, training):
    x = images(2, 65)
    state = {name: tensor.clone() for name, tensor in worn.state_dict().items()}
    with torch.no_grad():
        ours = worn.train(training)(x)
        expected = forward_from(state, x, training)
    assert ours.std() > 0.1  # or everything would be equal
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    for name, tensor in worn.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert tensor == (8 if training else 7)
        else:
            torch.testing.assert_close(tensor, state[name], rtol=1e-5, atol=1e-5)


def test_initialisation_is_the_papers(fresh):
    for name, module in fresh.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            z = module.weight.detach() / math.sqrt(2 / fan_out)
            n = z.numel()
            # Four standard errors of each statistic of n standard normals; a uniform one's kurtosis is 1.8.
            assert z.mean().item() == pytest.approx(0, abs=4 / math.sqrt(n)), name
            assert z.std().item() == pytest.approx(1, abs=4 / math.sqrt(2 * n)), name
            assert z.pow(4).mean().item() == pytest.approx(3, abs=4 * math.sqrt(96 / n)), name
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones(module.num_features)), name
            assert torch.equal(module.bias, torch.zeros(module.num_features)), name
            assert (module.eps, module.momentum) == (1e-5, 0.1)
