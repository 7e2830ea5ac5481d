"""Chapter 13: its exercises' answers against plain autograd and torch.nn, and its inline code against the course's."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.chapter_13 import multiply_one
from helpers.models import deep_mlp, seeded
from notebook_cells import execute, read
from notebook_parts import exercises

NOTEBOOK = read("13_batch_norm_revisited")


@pytest.fixture(scope="module")
def solutions():
    namespace = {}
    for exercise in exercises(NOTEBOOK):
        execute(exercise.solutions[0], namespace)
    return namespace


def stds(gain):
    """The six quantities of exercise 13.4 for the first of two normalised torch.nn layers, whose weights have this gain."""
    torch.manual_seed(0)
    first, second = nn.Linear(20, 30, bias=False), nn.Linear(30, 5, bias=False)
    with torch.no_grad():
        for layer in (first, second):
            layer.weight *= gain
    x, y = torch.randn(64, 20), torch.randint(0, 5, (64,))
    linear = first(x)
    normalised = nn.BatchNorm1d(30, eps=1e-12)(linear)
    loss = F.cross_entropy(nn.BatchNorm1d(5, eps=1e-12)(second(normalised.tanh())), y)
    at_linear, at_normalised, at_weight = torch.autograd.grad(loss, [linear, normalised, first.weight])
    return {
        "linear output": linear.std(),
        "batch norm output": normalised.std(),
        "gradient at batch norm output": at_normalised.std(),
        "gradient at linear output": at_linear.std(),
        "weight gradient": at_weight.std(),
        "update:data of the weight": at_weight.std() / first.weight.std(),
    }


def test_the_powers_are_what_autograd_gives(solutions):
    at_one, at_eight = stds(1.0), stds(8.0)
    for quantity, power in solutions["gain_powers"].items():
        assert math.log((at_eight[quantity] / at_one[quantity]).item(), 8) == pytest.approx(power, abs=1e-3)


def test_the_free_weights_are_those_that_torchs_own_layers_let_free(solutions):
    torch.manual_seed(0)
    x, with_bias, without = torch.randn(64, 10), nn.Linear(10, 10), nn.Linear(10, 10, bias=False)
    batch_norm, layer_norm = nn.BatchNorm1d(10, eps=1e-12), nn.LayerNorm(10, eps=1e-12)
    pieces = {
        "Linear with a bias, BatchNorm": lambda: batch_norm(with_bias(x)),
        "Linear without a bias, ReLU, BatchNorm": lambda: batch_norm(without(x).relu()),
        "Linear without a bias, tanh, BatchNorm": lambda: batch_norm(without(x).tanh()),
        "Linear without a bias, LayerNorm": lambda: layer_norm(without(x)),
        "x + Linear(x), LayerNorm": lambda: layer_norm(x + without(x)),
    }
    assert pieces.keys() == solutions["scale_free"].keys()
    before = {name: piece() for name, piece in pieces.items()}
    for linear in (with_bias, without):
        linear.weight.data *= 3
    for name, piece in pieces.items():
        assert torch.allclose(piece(), before[name], atol=1e-4) == (solutions["scale_free"][name] == "yes"), name


def test_the_multiplied_weight_and_its_remedy_are_what_the_check_says(solutions):
    healthy, patient = (deep_mlp(batch_norm=True, gain=1, generator=seeded()) for _ in range(2))
    multiply_one(patient)
    moved = {name for name, p in patient.named_parameters() if not torch.equal(p, healthy.get_parameter(name))}
    layer, factor, rate = solutions["answer"].values()
    assert moved == {f"linear{layer}.weight"} and rate == factor**2
    ratio = patient.linear4.weight / healthy.linear4.weight
    assert torch.allclose(ratio, torch.full_like(ratio, float(factor)))


def test_networks_trained_at_once_are_those_trained_alone(chapter):
    runs = chapter["train_each"]([0.2, 1], steps=30, lr=0.1)
    for gain, (ratios, longer) in runs.items():
        model = chapter["network"](gain)
        before = model.linear3.weight.norm().item()
        how = dict(generator=seeded(0), backward="by_hand", record_ratios_every=1)
        alone = chapter["train"](model, *chapter["splits"].train, steps=30, lr=0.1, **how)
        assert torch.allclose(alone.update_ratio["linear3.weight"], ratios, rtol=1e-3)
        assert model.linear3.weight.norm().item() / before == pytest.approx(longer, rel=1e-4)


def test_the_drawn_arrows_step_at_right_angles(chapter):
    tips, angles = chapter["spiral"](0.5, steps=10)
    steps = tips[1:] - tips[:-1]
    assert abs((steps * tips[:-1]).sum(1)).max() < 1e-9
    assert (abs((steps**2).sum(1) ** 0.5 / (tips[:-1] ** 2).sum(1) ** 0.5 - [math.tan(a) for a in angles]) < 1e-9).all()


@pytest.mark.slow
def test_weight_decay_ends_at_the_ratio_that_its_solution_foretells(chapter):
    (prose,) = (cell.source for cell in NOTEBOOK.cells if "### Exercise 13.3" in cell.source)
    (solution,) = re.findall(r"^```python\n(.*?)^```", prose, re.DOTALL | re.MULTILINE)
    namespace = dict(chapter)
    execute(solution, namespace)
    hidden = [ratio for name, ratio in namespace["decayed"].update_ratio.items() if "linear" in name]
    late = torch.stack([ratio[-20:].log10().mean(0) for ratio in hidden])
    assert (late - math.log10(math.sqrt(2 * 0.1 * 0.03))).abs().max() < 0.2
