"""The layers against torch.nn, against the lecture's formulas, and a stack against its networks one by one."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.layers import BatchNorm1d, Embedding, Flatten, Linear, Sequential, Tanh
from helpers.models import alone, seeded
from notebook_cells import definitions


def randn(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed))


def close(a, b, atol=1e-6):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=atol)


# Linear


@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_torch(bias):
    ours, theirs = Linear(30, 20, bias=bias, generator=seeded()), nn.Linear(30, 20, bias=bias)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.T)  # torch keeps (fan_out, fan_in)
        if bias:
            ours.bias.copy_(randn(20))
            theirs.bias.copy_(ours.bias)
    x, y = (randn(8, 30).requires_grad_() for _ in range(2))
    ours(x).square().sum().backward()
    theirs(y).square().sum().backward()
    close(ours(x), theirs(y))
    close(x.grad, y.grad, atol=1e-5)
    close(ours.weight.grad, theirs.weight.grad.T, atol=1e-4)
    if bias:
        close(ours.bias.grad, theirs.bias.grad, atol=1e-4)


@pytest.mark.parametrize("fan_in, gain", [(30, 5 / 3), (400, 0.2)])
def test_linear_starts_as_the_lecture_draws_it(fan_in, gain):
    state = torch.get_rng_state()
    layer = Linear(fan_in, 200, gain=gain, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), state)
    close(layer.weight, torch.randn((fan_in, 200), generator=seeded(1)) * gain / fan_in**0.5)
    assert torch.equal(layer.bias, torch.zeros(200))
    torch.manual_seed(1)
    close(Linear(fan_in, 200, gain=gain).weight, layer.weight)


# BatchNorm1d


def run(layer, batches, upstream):
    """Outputs and input gradients of a layer over several batches, each its own step."""
    outputs, gradients = [], []
    for x, up in zip(batches, upstream, strict=True):
        x = x.clone().requires_grad_()
        out = layer(x)
        out.backward(up)
        outputs.append(out.detach())
        gradients.append(x.grad)
    return torch.stack(outputs), torch.stack(gradients)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 40),
    dim=st.integers(1, 12),
    eps=st.sampled_from([1e-5, 1e-3, 0.1]),
    momentum=st.sampled_from([0.001, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_batch_norm_equals_torch_over_many_steps(n, dim, eps, momentum, seed):
    ours, theirs = BatchNorm1d(dim, eps, momentum), nn.BatchNorm1d(dim, eps, momentum)
    with torch.no_grad():
        ours.gamma.copy_(randn(dim, seed=seed))
        ours.beta.copy_(randn(dim, seed=seed + 1))
        theirs.weight.copy_(ours.gamma)
        theirs.bias.copy_(ours.beta)
    ours, theirs = ours.double(), theirs.double()  # so that rounding hides nothing
    batches = randn(7, n, dim, seed=seed).double() * 3 + 2
    upstream = randn(7, n, dim, seed=seed + 2).double()
    for x, y in zip(run(ours, batches, upstream), run(theirs, batches, upstream), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)
    pairs = [(ours.gamma.grad, theirs.weight.grad), (ours.beta.grad, theirs.bias.grad)]
    pairs += [(ours.running_mean, theirs.running_mean), (ours.running_var, theirs.running_var)]
    ours.eval(), theirs.eval()
    pairs += [(ours(batches[0]), theirs(batches[0])), (ours(batches[0][:1]), theirs(batches[0][:1]))]
    for x, y in pairs:
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_correction_is_read_at_every_forward_pass():
    layer, x = BatchNorm1d(5, eps=0), randn(32, 5)
    biased = layer(x)
    layer.correction = 1
    close(biased / layer(x), torch.full((32, 5), (32 / 31) ** 0.5))


@pytest.mark.parametrize("models", [(), (3,)])
def test_a_constant_feature_without_eps_is_0_over_0(models):
    layer, x = BatchNorm1d(4, eps=0, num_models=models[0] if models else None), randn(*models, 8, 4)
    x[..., 2] = 0
    out = layer(x)
    assert out[..., 2].isnan().all() and out[..., [0, 1, 3]].isfinite().all()
    with_eps = BatchNorm1d(4, num_models=models[0] if models else None)
    assert (with_eps(x)[..., 2] == 0).all()


def test_buffers_are_saved_and_carry_no_graph():
    layer = BatchNorm1d(4)
    layer(randn(8, 4).requires_grad_())
    assert list(layer.state_dict()) == ["gamma", "beta", "running_mean", "running_var"]
    assert not layer.running_mean.requires_grad and not layer.running_var.requires_grad


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (BatchNorm1d(4), (1, 4), r"two examples or more in train mode; call \.eval\(\)"),
        (BatchNorm1d(4), (3, 8, 4), r"\(3, 8, 4\), not \(N, 4\).*num_models.*Flatten before it.*flatten\(0, 1\)"),
        (BatchNorm1d(4, num_models=3), (8, 4), r"\(8, 4\), not \(3, N, 4\)"),
        (BatchNorm1d(4), (8, 5), r"\(8, 5\), not \(N, 4\)"),
        (BatchNorm1d(4).eval(), (4,), r"\(4,\), not \(N, 4\)"),
    ],
)
def test_batch_norm_refuses_what_it_cannot_normalize(layer, shape, words):
    with pytest.raises(ValueError, match=words):
        layer(randn(*shape))


# Chapter 05's lines, before they become a class


def test_the_chapters_batch_norm_equals_the_layer():
    chapter = definitions("05_batch_norm")
    layer = BatchNorm1d(5, eps=0, momentum=0.01, correction=1)
    gamma, beta = randn(5, seed=1).requires_grad_(), randn(5, seed=2).requires_grad_()
    with torch.no_grad():
        layer.gamma.copy_(gamma)
        layer.beta.copy_(beta)
    mean, var = torch.zeros(1, 5), torch.ones(1, 5)
    for seed in range(4):
        x, y = (randn(32, 5, seed=seed).requires_grad_() for _ in range(2))
        (out, xmean, xstd), ours = chapter["batch_norm_train"](x, gamma, beta), layer(y)
        close(out, ours)
        for o in (out, ours):
            o.backward(randn(32, 5, seed=seed + 10))
        close(x.grad, y.grad)
        with torch.no_grad():
            mean = chapter["update_running"](mean, xmean, 0.01)
            var = chapter["update_running"](var, xstd**2, 0.01)
    close(gamma.grad, layer.gamma.grad, atol=1e-5)
    close(layer.running_mean, mean[0])
    close(layer.running_var, var[0])
    x = randn(1, 5)
    close(chapter["batch_norm_eval"](x, gamma, beta, mean, var.sqrt()), layer.eval()(x), atol=1e-5)


# Embedding, Flatten


def test_embedding_is_a_one_hot_vector_times_its_table():
    layer = Embedding(27, 10, generator=seeded())
    x = torch.randint(0, 27, (32, 3), generator=seeded())
    close(layer(x), F.one_hot(x, 27).float() @ layer.weight)
    assert Flatten()(layer(x)).shape == (32, 30)


# Stacks


@pytest.mark.parametrize("own_inputs, correction", [(False, 1), (True, 0), (True, 1)])
def test_a_stack_equals_its_networks_one_by_one(own_inputs, correction):
    norm = BatchNorm1d(6, eps=0.5, momentum=0.3, correction=correction, num_models=3)
    first = Embedding(27, 4, num_models=3), Flatten(), Linear(12, 6, num_models=3)
    stack = Sequential(*first, norm, Tanh(), Linear(6, 27, num_models=3))
    with torch.no_grad():
        norm.gamma += randn(3, 6, seed=1)
        norm.beta += randn(3, 6, seed=2)
    networks = [alone(stack, r) for r in range(3)]
    x, up = torch.randint(0, 27, (3, 16, 3), generator=seeded()), randn(3, 16, 27)
    for mode in (True, True, False):  # the last one in eval mode, on the running statistics of the first two
        out = stack.train(mode)(x if own_inputs else x[0])
        stack.zero_grad()
        out.backward(up)
        for r, network in enumerate(networks):
            out_r = network.train(mode)(x[r] if own_inputs else x[0])
            network.zero_grad()
            out_r.backward(up[r])
            close(out[r], out_r, atol=1e-5)
            for p, q in zip(network.parameters(), stack.parameters(), strict=True):
                close(q.grad[r], p.grad, atol=1e-4)
    for r, network in enumerate(networks):
        for a, b in zip(network.buffers(), stack.buffers(), strict=True):
            close(b[r], a)


def test_num_models_must_count_networks():
    with pytest.raises(ValueError, match="num_models is 0"):
        Linear(3, 4, num_models=0)
