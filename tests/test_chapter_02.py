"""Chapter 02: its exercises' answers do what the page says of them, in the styles in which learners write them."""

import math

import pytest
import torch
import torch.nn.functional as F

from helpers.checks import check_frequency_bias, check_guilty_layer, check_logit_std
from helpers.checks.chapter_02 import start_of_nine


@pytest.mark.parametrize("classes", [27, 1000])
@pytest.mark.parametrize("sigma", [0.3, 0.9])
def test_the_std_is_that_of_logits_which_cause_the_loss(sigma, classes):
    z = sigma * torch.randn(4_000, classes, generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(z, torch.randint(0, classes, (4_000,), generator=torch.Generator().manual_seed(1)))
    assert check_logit_std.right(loss.item(), classes) == pytest.approx(sigma, rel=0.06)


def test_no_bias_has_a_lower_first_loss_than_the_right_one():
    Y = torch.randint(0, 5, (300,), generator=torch.Generator().manual_seed(2)).square() % 5
    Y = torch.cat([Y, torch.arange(5)])
    bias = check_frequency_bias.right(Y, 5).requires_grad_()
    loss = F.cross_entropy(bias.expand(len(Y), 5), Y)
    (gradient,) = torch.autograd.grad(loss, bias)
    assert gradient.abs().max() < 1e-6 and loss < math.log(5)


def test_only_the_guilty_layer_makes_numbers_larger():
    network, x = start_of_nine(), torch.randint(0, 27, (500, 3), generator=torch.Generator().manual_seed(3))
    growth = {}
    for name, layer in network.named_children():
        before, x = x, layer(x)
        if name.startswith("layer"):
            growth[name] = (x.std() / before.std()).item()
    assert max(growth, key=growth.get) == check_guilty_layer.right
    assert growth.pop(check_guilty_layer.right) > 5 * max(growth.values())


def test_whoever_draws_it_gets_the_same_network():
    torch.manual_seed(0)
    first = start_of_nine()
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), start_of_nine().parameters(), strict=True))
