"""What chapter 11 writes inline gives what the helpers give, and what its exercises state is so."""

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from helpers.checks import check_layer_table, check_stored_weight
from helpers.diagnostics import diagnose
from helpers.models import deep_mlp, seeded

X = torch.randint(0, 27, (32, 3), generator=seeded(0))
Y = torch.randint(0, 27, (32,), generator=seeded(1))


def test_the_chapters_gradients_are_those_that_diagnose_reads(chapter):
    gradients_of = chapter["gradients_of"]
    seeds = 3, 4
    stack = deep_mlp(generator=[seeded(seed) for seed in seeds], num_models=2)
    for r, seed in enumerate(seeds):
        net = deep_mlp(generator=seeded(seed))
        rows = [row for row in diagnose(net, X, Y).parameters if len(row.shape) == 2]
        found, stacked = gradients_of(net, X, Y), gradients_of(stack, X, Y)
        assert [f"{layer}.weight" for layer in found] == [row.name for row in rows]
        for row, (layer, gradient) in zip(rows, found.items(), strict=True):
            assert_close(gradient.std().item(), row.grad_std, rtol=1e-5, atol=0)
            assert_close(stacked[layer][r], gradient, rtol=1e-4, atol=1e-7)


def test_the_tables_answer_follows_from_its_numbers():
    table = {"a": (1.0, 4e-3, 2.0), "b": (0.7, 2e-4, 0.01), "c": (0.1, 2e-3, 0.02), "d": (3.0, 3e-4, 0.05)}
    gradient = {layer: x * g for layer, (x, g, _) in table.items()}
    ratio = {layer: gradient[layer] / w for layer, (_, _, w) in table.items()}
    assert check_layer_table({"gradient": max(gradient, key=gradient.get), "grad:data": max(ratio, key=ratio.get)})
    assert not check_layer_table({"gradient": "d", "grad:data": "d"})


def test_a_weight_stored_smaller_learns_by_the_square():
    x, W = torch.randn(32, 8, generator=seeded(2)).double(), torch.randn(8, 27, generator=seeded(3)).double()

    def step(factor):
        V = (W / factor).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(x @ (factor * V), Y), V)
        return gradient.std(), gradient.std() / V.detach().std(), (x @ (factor * 0.1 * gradient)).std()

    powers = [round(torch.log10(b / a).item() / 2, 6) for a, b in zip(step(1), step(100), strict=True)]
    assert check_stored_weight(dict(zip(("gradient", "grad:data", "change of the output"), powers, strict=True)))
    assert not check_stored_weight({"gradient": 1, "grad:data": 1, "change of the output": 2})
