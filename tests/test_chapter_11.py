"""What chapter 11 writes inline gives what the helpers give."""

import torch
from torch.testing import assert_close

from helpers.diagnostics import diagnose
from helpers.models import deep_mlp
from notebook_cells import definitions


def generator(seed):
    return torch.Generator().manual_seed(seed)


X = torch.randint(0, 27, (32, 3), generator=generator(0))
Y = torch.randint(0, 27, (32,), generator=generator(1))


def test_the_chapters_gradients_are_those_that_diagnose_reads():
    weights_and_gradients = definitions("11_parameter_gradients")["weights_and_gradients"]
    seeds = 3, 4
    solo = [deep_mlp(generator=generator(seed)) for seed in seeds]
    stack = deep_mlp(generator=[generator(seed) for seed in seeds], num_models=2)
    for r, net in enumerate(solo):
        rows = [row for row in diagnose(net, X, Y).parameters if len(row.shape) == 2]
        found = weights_and_gradients(net, X, Y)
        assert [name for name, _, _ in found] == [row.name for row in rows]
        for row, (_, p, grad), (_, _, stacked) in zip(rows, found, weights_and_gradients(stack, X, Y), strict=True):
            assert_close((grad.std() / p.std()).item(), row.grad_to_data, rtol=1e-5, atol=0)
            assert_close(grad.mean().item(), row.grad_mean, rtol=1e-4, atol=1e-9)
            assert_close(stacked[r], grad, rtol=1e-4, atol=1e-7)
