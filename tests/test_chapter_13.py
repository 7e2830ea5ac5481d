"""Chapter 13: the powers of the gain by plain autograd, and what weight decay does in front of a BatchNorm."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from notebook_cells import execute, exercises, read, setup_source


@pytest.fixture(scope="module")
def chapter():
    return read("13_batch_norm_revisited")


def stds(gain):
    """The six quantities of exercise 13.1 for the first of two normalised torch.nn layers, whose weights have this gain."""
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


def test_the_powers_of_exercise_1_are_what_autograd_gives(chapter):
    (exercise,) = exercises(chapter)
    namespace = {}
    execute(exercise.solution, namespace)
    at_one, at_eight = stds(1.0), stds(8.0)
    for quantity, power in namespace["gain_powers"].items():
        assert math.log((at_eight[quantity] / at_one[quantity]).item(), 8) == pytest.approx(power, abs=1e-3)


def test_the_solution_of_exercise_2_ends_at_the_ratio_it_foretells(chapter):
    (prose,) = (cell.source for cell in chapter.cells if "### Exercise 13.2" in cell.source)
    (solution,) = re.findall(r"^```python\n(.*?)^```", prose, re.DOTALL | re.MULTILINE)
    (definitions,) = (cell.source for cell in chapter.cells if cell.cell_type == "code" and "def seeded" in cell.source)
    namespace = {}
    execute(setup_source(chapter), namespace)
    execute(definitions, namespace)
    execute(solution, namespace)
    hidden = [ratio for name, ratio in namespace["run"].update_ratio.items() if "linear" in name]
    late = torch.stack([ratio[-20:].log10().mean(0) for ratio in hidden])
    assert (late - math.log10(math.sqrt(2 * 0.1 * 0.03))).abs().max() < 0.2
