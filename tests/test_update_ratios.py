"""The recorder of update:data ratios against torch.std of what truly changed."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.train import Update


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ratios_of(steps, parameters, stacked=False, optimizer=None):
    """The ratios that Update records of these steps, (gradients, lr) each."""
    update = Update(parameters, SimpleNamespace(stacked=stacked), optimizer, every=1)
    for gradients, lr in steps:
        update(gradients, lr)
    return update.ratios()


def expected(before, change):
    return (change.double().std() / before.double().std()).item()


@settings(deadline=None, max_examples=50)
@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e2), st.floats(1e-4, 10), st.sampled_from(["float32", "float64"]))
def test_ratios_are_those_of_the_changes(mean, std, lr, dtype):
    weight = torch.nn.Parameter((draw(20, 30) * std + mean).to(getattr(torch, dtype)))
    gradient = draw(20, 30, seed=1).to(weight.dtype) + 0.3
    wanted = expected(weight.detach(), lr * gradient)
    found = ratios_of([([None, gradient], lr)], {"bias": torch.nn.Parameter(torch.zeros(30)), "weight": weight})
    ((name, ratio),) = found.items()
    assert name == "weight" and ratio.shape == (1,) and ratio.dtype == torch.float32
    assert ratio.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    "values", [draw(4, 5), draw(5, 4).t(), draw(4, 5).bfloat16()], ids=["plain", "transposed", "bfloat16"]
)
def test_every_record_sees_the_weights_as_they_are_then(values):
    weight, wanted = torch.nn.Parameter(values.clone()), []
    gradient = draw(4, 5, seed=1).to(weight.dtype)
    update = Update({"w": weight}, SimpleNamespace(stacked=False), None, every=1)
    for lr in (0.1, 0.5, 2.0):
        wanted.append(expected(weight.detach(), lr * gradient.double()))
        update([gradient], lr)
    assert update.ratios()["w"].tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("bias_first", [False, True])
def test_a_stack_has_a_ratio_for_each_network_with_its_own_rate(bias_first):
    stack, gradients = torch.nn.Parameter(draw(3, 4, 5)), draw(3, 4, 5, seed=1)
    bias = torch.nn.Parameter(torch.zeros(3, 5))
    rates = torch.tensor([0.1, 1.0, 10.0])
    wanted = [expected(stack[r].detach(), rates[r] * gradients[r]) for r in range(3)]
    rows = [("w", stack, gradients), ("b", bias, draw(3, 5))]
    rows = rows[::-1] if bias_first else rows
    parameters = {name: p for name, p, _ in rows}
    found = ratios_of([([gradient for *_, gradient in rows], rates)], parameters, stacked=True)
    assert list(found) == ["w"] and found["w"].shape == (1, 3)
    assert found["w"][0].tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_optimizers_ratio_is_that_of_what_it_changed(dtype):
    used, unused = (torch.nn.Parameter(draw(6, 7, seed=s).to(dtype)) for s in (0, 1))
    optimizer, before = torch.optim.Adam([used, unused], lr=0.1), used.detach().clone()
    gradients = [draw(6, 7, seed=2).to(dtype), None]
    found = ratios_of([(gradients, None)], {"used": used, "unused": unused}, optimizer=optimizer)
    assert found["used"].item() == pytest.approx(expected(before, used.detach() - before), rel=1e-2)
    assert math.isnan(found["unused"].item())


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 0.0, 1e5 / 3])
def test_undefined_ratios_are_nan(constant):
    flat, weight = torch.nn.Parameter(torch.full((30, 40), constant)), torch.nn.Parameter(draw(3, 4))
    found = ratios_of([([draw(30, 40), torch.zeros(3, 4)], 0.1)], {"constant": flat, "weight": weight})
    assert math.isnan(found["constant"].item()) and found["weight"].tolist() == [0]
    half = torch.nn.Parameter(torch.stack([torch.full((30, 40), constant), draw(30, 40)]))
    found = ratios_of([([draw(2, 30, 40)], 0.1)], {"half": half}, stacked=True)
    assert found["half"].isnan().tolist() == [[True, False]]


def test_every_third_step_and_no_weights_at_all():
    weight = torch.nn.Parameter(draw(3, 4))
    update = Update({"w": weight}, SimpleNamespace(stacked=False), None, every=3)
    for _ in range(7):
        update([draw(3, 4)], 0.1)
    assert update.ratios()["w"].shape == (3,)
    assert ratios_of([([torch.zeros(3)], 0.1)], {"bias": torch.nn.Parameter(torch.zeros(3))}) == {}
    assert ratios_of([], {"w": weight}) == {}
