"""Chapter 10: what a stack of linear layers is. (What it says of gains and explosions its last cells assert.)"""

import pytest
import torch

from helpers.layers import Linear
from helpers.models import deep_mlp, seeded


@pytest.mark.parametrize("num_models", [None, 3])
def test_read_off_finds_the_product_of_the_matrices(chapter, num_models):
    net = deep_mlp(gain=1, nonlinearity="linear", generator=seeded(), num_models=num_models).double()
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
