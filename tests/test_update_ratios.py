"""The recorder of update:data ratios against torch.std of what truly changed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.update_ratios import UpdateRatios


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def expected(before, change):
    return (change.double().std() / before.double().std()).item()


@settings(deadline=None, max_examples=50)
@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e2), st.floats(1e-4, 10), st.sampled_from(["float32", "float64"]))
def test_ratios_are_those_of_the_changes(mean, std, lr, dtype):
    weight = torch.nn.Parameter((draw(20, 30) * std + mean).to(getattr(torch, dtype)))
    gradient = draw(20, 30, seed=1).to(weight.dtype) + 0.3
    ratios = UpdateRatios({"bias": torch.nn.Parameter(torch.zeros(30)), "weight": weight}, stacked=False)
    ratios.before_step([None, gradient], lr)
    ratios.after_step()
    ((name, ratio),) = ratios.by_name().items()
    assert name == "weight" and ratio.shape == (1,)
    assert ratio.item() == pytest.approx(expected(weight.detach(), lr * gradient), rel=1e-4)


@pytest.mark.parametrize(
    "values", [draw(4, 5), draw(5, 4).t(), draw(4, 5).bfloat16()], ids=["plain", "transposed", "bfloat16"]
)
def test_every_record_sees_the_weights_as_they_are_then(values):
    weight = torch.nn.Parameter(values.clone())
    gradient, wanted = draw(4, 5, seed=1).to(weight.dtype), []
    ratios = UpdateRatios({"w": weight}, stacked=False)
    for lr in (0.1, 0.5, 2.0):
        wanted.append(expected(weight.detach(), lr * gradient.double()))
        ratios.before_step([gradient], lr)
        with torch.no_grad():
            weight -= lr * gradient
        ratios.after_step()
    assert ratios.by_name()["w"].tolist() == pytest.approx(wanted, rel=1e-5)


def test_a_stack_has_a_ratio_a_network_each_with_its_own_rate():
    stack, gradients = torch.nn.Parameter(draw(3, 4, 5)), draw(3, 4, 5, seed=1)
    bias = torch.nn.Parameter(torch.zeros(3, 5))
    rates = torch.tensor([0.1, 1.0, 10.0])
    ratios = UpdateRatios({"w": stack, "b": bias}, stacked=True)
    ratios.before_step([gradients, bias], rates)
    ratios.after_step()
    assert list(ratios.by_name()) == ["w"] and ratios.by_name()["w"].shape == (1, 3)
    wanted = [expected(stack[r].detach(), rates[r] * gradients[r]) for r in range(3)]
    assert ratios.by_name()["w"][0].tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_optimizers_ratio_is_that_of_what_it_changed(dtype):
    used, unused = (torch.nn.Parameter(draw(6, 7, seed=s).to(dtype)) for s in (0, 1))
    optimizer = torch.optim.Adam([used, unused], lr=0.1)
    ratios = UpdateRatios({"used": used, "unused": unused}, False, optimizer)
    used.grad, before = draw(6, 7, seed=2).to(dtype), used.detach().clone()
    ratios.before_step([used.grad, None], 0.1)
    optimizer.step()
    ratios.after_step()
    found = ratios.by_name()
    assert found["used"].item() == pytest.approx(expected(before, used.detach() - before), rel=1e-2)
    assert math.isnan(found["unused"].item())


def test_undefined_ratios_are_nan_and_an_interrupted_record_is_dropped():
    constant, weight = torch.nn.Parameter(torch.full((3, 4), 0.1)), torch.nn.Parameter(draw(3, 4))
    ratios = UpdateRatios({"constant": constant, "weight": weight}, stacked=False)
    ratios.before_step([draw(3, 4), torch.zeros(3, 4)], 0.1)
    ratios.after_step()
    ratios.data.append([1.0, 1.0])  # where a KeyboardInterrupt may leave it
    found = ratios.by_name()
    assert math.isnan(found["constant"].item()) and found["weight"].tolist() == [0]
    nothing = UpdateRatios({"bias": torch.nn.Parameter(torch.zeros(3))}, stacked=False)
    nothing.before_step([torch.zeros(3)], 0.1)
    nothing.after_step()
    assert nothing.by_name() == {} and UpdateRatios({}, False).names == []
