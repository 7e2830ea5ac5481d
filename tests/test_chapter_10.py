"""Chapter 10: what a stack of linear layers is, and the facts about deep_mlp(nonlinearity="linear") it rests on."""

import pytest
import torch

from helpers.diagnostics import diagnose
from helpers.layers import Linear
from helpers.models import deep_mlp, seeded
from helpers.train import train


def linear_mlp(gain=1, **options):
    return deep_mlp(gain=gain, nonlinearity="linear", **options)


@pytest.mark.parametrize("num_models", [None, 3])
def test_read_off_finds_the_product_of_the_matrices(chapter, num_models):
    net = linear_mlp(generator=seeded(), num_models=num_models).double()
    weights, biases = zip(*((m.weight, m.bias) for m in net if isinstance(m, Linear)), strict=True)
    with torch.no_grad():
        for i, bias in enumerate(biases):
            bias.copy_(torch.randn(bias.shape, generator=seeded(i)))
        W, b = weights[0], biases[0].unsqueeze(-2)
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            W, b = W @ weight, b @ weight + bias.unsqueeze(-2)
    found = chapter["read_off"](net[2:], 30)
    torch.testing.assert_close(found, (W, b), rtol=0, atol=1e-13)
    assert not found[0].requires_grad and found[0].dtype == torch.float64


@pytest.mark.parametrize("gain", [0.5, 1, 5 / 3])
def test_forward_backward_and_weight_gradients_follow_the_gain(gain):
    g = seeded()
    net = linear_mlp(gain, generator=g)
    x, y = torch.randint(0, 27, (64, 3), generator=g), torch.randint(0, 27, (64,), generator=g)
    d = diagnose(net, x, y)
    rows = [i for i, row in enumerate(d.activations) if row.name.startswith("linear")][:5]
    forward = torch.tensor([d.activations[i].std for i in rows])
    backward = torch.tensor([d.gradients[i].std for i in rows])
    weights = torch.tensor([p.grad_std for p in d.parameters if "linear" in p.name and "weight" in p.name][:5])
    powers = gain ** torch.arange(5.0)
    for measured, expected in ((forward, powers), (backward, 1 / powers), (weights, powers**0)):
        ratio = measured / expected
        assert ratio.max() / ratio.min() < 1.35


def test_at_gain_five_thirds_the_loss_is_soon_no_number():
    g = seeded()
    net = linear_mlp(5 / 3, generator=g)
    X, Y = torch.randint(0, 27, (1_000, 3), generator=g), torch.randint(0, 27, (1_000,), generator=g)
    losses = train(net, X, Y, steps=12, lr=0.1, generator=g, progress=False).loss
    assert 3 <= losses.isfinite().sum() <= 10
