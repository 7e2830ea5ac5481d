"""Chapter 07's inline classes against their twins in helpers.layers, its network against deep_mlp, its four networks."""

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from helpers.checks.chapter_07 import FAULTS, four_modules
from helpers.layers import BatchNorm1d, Linear, Tanh
from helpers.models import deep_mlp, seeded
from helpers.widgets.layer_list import draw_layers, read_layer_list, read_layers
from lecture import PlainDeep

close = torch.testing.assert_close


def randn(*shape, seed):
    return torch.randn(shape, generator=seeded(seed))


def give_values(inline, layer):
    """The same parameters for both, far from those they start with."""
    for seed, (ours, theirs) in enumerate(zip(inline.parameters(), layer.parameters(), strict=True)):
        assert torch.equal(ours, theirs)
        ours.copy_(randn(*ours.shape, seed=seed))
        theirs.data.copy_(ours)
        ours.requires_grad = True


def assert_same(inline, layer, x):
    """Outputs, and the gradients of the input and of the parameters."""
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outs = inline(inputs[0]), layer(inputs[1])
    close(*outs)
    assert inline.out is outs[0]
    for out in outs:
        out.backward(randn(*out.shape, seed=3))
    close(inputs[0].grad, inputs[1].grad)
    for ours, theirs in zip(inline.parameters(), layer.parameters(), strict=True):
        close(ours.grad, theirs.grad)


@pytest.mark.parametrize("bias", [True, False])
def test_its_linear_equals_the_layer(chapter, bias):
    inline, layer = (kind(30, 20, bias=bias, generator=seeded()) for kind in (chapter["Linear"], Linear))
    give_values(inline, layer)
    assert_same(inline, layer, randn(32, 30, seed=2))


def test_its_batch_norm_equals_the_layer_with_correction_1(chapter):
    inline, layer = chapter["BatchNorm1d"](5, eps=0.1, momentum=0.3), BatchNorm1d(5, 0.1, 0.3, correction=1)
    give_values(inline, layer)
    for seed in range(3):
        assert_same(inline, layer, 2 * randn(8, 5, seed=seed) + 1)
    close(inline.running_mean, layer.running_mean)
    close(inline.running_var, layer.running_var)
    assert not inline.running_mean.requires_grad and not inline.running_var.requires_grad

    inline.training = False
    stored = inline.running_mean.clone()
    one = randn(1, 5, seed=7)
    close(inline(one), layer.eval()(one))
    assert torch.equal(inline.running_mean, stored)


def test_its_tanh_equals_the_layer(chapter):
    inline, x = chapter["Tanh"](), randn(4, 5, seed=0)
    assert torch.equal(inline(x), Tanh()(x)) and torch.equal(inline.out, Tanh()(x))
    assert inline.parameters() == []


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("gain", [5 / 3, 1])
def test_its_network_is_deep_mlp(chapter, batch_norm, gain):
    g, h = seeded(), seeded()
    C, layers, parameters = chapter["make_network"](g, gain=gain, batch_norm=batch_norm)
    model = deep_mlp(gain=gain, batch_norm=batch_norm, generator=h)
    for ours, theirs in zip(parameters, model.parameters(), strict=True):
        assert ours.requires_grad and torch.equal(ours, theirs)
    assert torch.equal(g.get_state(), h.get_state())
    x = torch.randint(0, 27, (32, 3), generator=g)
    close(chapter["forward"](C, layers, x), model(x))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_its_loop_is_the_lectures(chapter, batch_norm):
    X, Y = torch.randint(0, 27, (500, 4), generator=seeded(0)).split([3, 1], 1)
    g = seeded()
    network = chapter["make_network"](g, gain=1, batch_norm=batch_norm)
    losses = chapter["train_list"](network, X, Y[:, 0], 20, g, lr=0.2)
    plain = PlainDeep(batch_norm, gain=1)
    close(losses, plain.train(X, Y[:, 0], 20, lr=0.2))
    close(network[0], plain.C)


def test_each_of_the_four_networks_has_the_condition_that_its_answer_key_says():
    x, before = torch.randint(0, 27, (32, 3), generator=seeded(0)), torch.random.get_rng_state()
    nets, again = four_modules(), four_modules()
    assert torch.equal(before, torch.random.get_rng_state())
    found = {}
    for name, net in nets.items():
        assert torch.equal(net(x), again[name](x))
        net(x).square().sum().backward()
        listed = dict(net.named_parameters())
        cut = any(p.grad is None for p in listed.values())
        biases = sum("bias" in key for key in listed)
        linears = sum(isinstance(module, nn.Linear) for module in net.modules())
        found[name] = "list" if linears < 3 else "cut" if cut else "tensor" if biases < linears else "healthy"
    assert found == FAULTS and set(found.values()) == {"healthy", "list", "tensor", "cut"}


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_list_that_is_drawn_is_the_network(chapter, batch_norm):
    C, layers, parameters = chapter["make_network"](seeded(), batch_norm=batch_norm)
    own, panels = read_layers(layers, C), read_layer_list(batch_norm=batch_norm)
    assert own == panels and own.parameters == sum(p.numel() for p in parameters)
    assert own.of("BatchNorm1d") == 2 * 527 * batch_norm and len(own.boxes) == len(layers) + 1
    _, ax = plt.subplots()
    draw_layers(own, ax)
    shown = {text.get_text() for text in ax.texts}
    assert {"C  27 × 10", "Tanh", "Linear  30 → 100", "270"} <= shown and ("BatchNorm  27" in shown) == batch_norm
    assert f"{own.parameters:,}" in ax.get_title(loc="left") + ax.get_title()


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_one_example_with_the_switch_on_spoils_the_running_variances(chapter):
    C, layers, _ = chapter["make_network"](seeded(), batch_norm=True)
    norms = [layer for layer in layers if isinstance(layer, chapter["BatchNorm1d"])]
    chapter["set_training"](layers, False)
    with torch.no_grad():
        chapter["forward"](C, layers, torch.zeros(1, 3, dtype=torch.int64))
        assert all(norm.running_var.isfinite().all() for norm in norms)
        chapter["set_training"](layers, True)
        chapter["forward"](C, layers, torch.zeros(1, 3, dtype=torch.int64))
    assert all(norm.running_var.isnan().all() for norm in norms)
