"""Part 2's networks: the lecture's own numbers, its own loop, and what else the arguments can make."""

import copy

import pytest
import torch
import torch.nn.functional as F

from helpers.models import NONLINEARITIES, SEED, deep_mlp, seeded
from helpers.train import evaluate, sample, train
from lecture_loop import GRAD_TO_DATA, GRADIENT_STD, deep_lecture_loop

# The lecture's two networks.
PLAIN = {"gain": 5 / 3, "batch_norm": False}
NORMALISED = {"gain": 1.0, "batch_norm": True}


def assert_parameters(model, C, layers, atol):
    """Every parameter of the model equals the plain loop's, in the plain loop's order."""
    theirs = [C] + [p for layer in layers for p in layer.parameters()]
    for (name, ours), p in zip(model.named_parameters(), theirs, strict=True):
        torch.testing.assert_close(ours, p, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("batch_norm, count", [(False, 46_497), (True, 47_024)])
@pytest.mark.parametrize("gain", [5 / 3, 1.0, 0.5])
def test_parameters_are_the_lectures_to_the_last_bit(gain, batch_norm, count):
    model = deep_mlp(gain=gain, batch_norm=batch_norm, generator=seeded())
    assert sum(p.numel() for p in model.parameters()) == count
    _, C, layers = deep_lecture_loop(batch_norm, gain, None, None, steps=0)
    assert_parameters(model, C, layers, atol=0)


def test_defaults_are_the_network_without_batch_norm():
    ours, named = deep_mlp(generator=seeded()), deep_mlp(**PLAIN, generator=seeded())
    assert repr(ours) == repr(named)
    for p, q in zip(ours.parameters(), named.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("network", [PLAIN, NORMALISED])
def test_many_steps_equal_the_lectures_loop(splits, network):
    g = seeded()
    model = deep_mlp(**network, generator=g)
    losses = train(model, *splits.train, steps=40, lr=0.1, generator=g).loss
    expected, C, layers = deep_lecture_loop(**network, X=splits.train[0], Y=splits.train[1], steps=40)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-5)
    assert_parameters(model, C, layers, atol=1e-5)
    if network["batch_norm"]:
        for i, layer in enumerate([layer for layer in layers if hasattr(layer, "gamma")], start=1):
            ours = model.get_submodule(f"batch_norm{i}")
            torch.testing.assert_close(ours.running_mean, layer.running_mean[0], rtol=0, atol=1e-5)
            torch.testing.assert_close(ours.running_var, layer.running_var[0], rtol=0, atol=1e-5)


def tanh_outputs(model, X, Y):
    """The outputs of the five Tanhs on a minibatch and the gradients there; leaves the parameters' grads, too."""
    x, outputs = X, []
    for layer in model:
        x = layer(x)
        if isinstance(layer, torch.nn.Tanh):
            x.retain_grad()
            outputs.append(x)
    F.cross_entropy(x, Y).backward()
    return outputs, [h.grad for h in outputs]


def saturated(outputs):
    return [100 * (h.abs() > 0.97).double().mean().item() for h in outputs]


def test_without_batch_norm_the_first_tanh_outputs_are_the_lectures(lecture_splits):
    X, Y = lecture_splits.train
    g = seeded()
    model = deep_mlp(**PLAIN, generator=g)
    ix = torch.randint(0, len(X), (32,), generator=g)
    outputs, _ = tanh_outputs(model, X[ix], Y[ix])
    assert [h.std().item() for h in outputs] == pytest.approx([0.75, 0.69, 0.67, 0.66, 0.66], abs=0.005)
    # One of 3,200 numbers is .03 %: a rounding difference on the threshold is no fault.
    assert saturated(outputs) == pytest.approx([20.25, 8.38, 6.62, 5.47, 6.13], abs=0.04)


def test_with_batch_norm_the_lectures_1001_steps_come_out(lecture_splits):
    X, Y = lecture_splits.train
    g = seeded()
    model = deep_mlp(**NORMALISED, generator=g)
    losses = train(model, X, Y, steps=1000, lr=0.1, generator=g).loss
    assert losses[0].item() == pytest.approx(3.2870, abs=5e-5)

    # The lecture's pictures show its last, the 1,001st, minibatch before its update. (The tolerances below leave
    # room for another processor's rounding: a millionth of a gradient's std.)
    seen = copy.deepcopy(model)
    ix = torch.randint(0, len(X), (32,), generator=torch.Generator().set_state(g.get_state()))
    outputs, gradients = tanh_outputs(seen, X[ix], Y[ix])
    assert [h.std().item() for h in outputs] == pytest.approx([0.63, 0.64, 0.65, 0.65, 0.65], abs=0.005)
    assert saturated(outputs) == pytest.approx([2.78, 2.56, 2.25, 1.69, 1.88], abs=0.04)
    assert [grad.std().item() for grad in gradients] == pytest.approx(GRADIENT_STD, rel=1e-5)

    # But its grad:data divides by the parameters after that update.
    losses = train(model, X, Y, steps=1, lr=0.1, generator=g).loss
    ratios = [
        (p.grad.std() / updated.std()).item()
        for p, updated in zip(seen.parameters(), model.parameters(), strict=True)
        if p.dim() == 2
    ]
    assert ratios == pytest.approx(GRAD_TO_DATA, rel=1e-5)

    assert evaluate(model, X, Y) == pytest.approx(2.4003, abs=1e-4)
    assert evaluate(model, *lecture_splits.val) == pytest.approx(2.3982, abs=1e-4)
    names = sample(model, lecture_splits.itos, 20, seeded(SEED + 10))
    assert " ".join(names) == (
        "carpah qarlileif jmrix thty sacansa jazhnte dpn arciigqeiunellaia chriiv kalein "
        "dhlm join qhinn sroin arian quiqaelogiearyxix kaeklinsan ed ecoia gtleley"
    )


def test_layers_have_readable_names():
    model = deep_mlp(depth=3, batch_norm=True)
    assert [name for name, _ in model.named_children()] == (
        ["embedding", "flatten", "linear1", "batch_norm1", "tanh1"]
        + ["linear2", "batch_norm2", "tanh2", "linear3", "batch_norm3"]
    )
    assert [name for name, _ in deep_mlp(depth=2, nonlinearity="relu").named_children()] == (
        ["embedding", "flatten", "linear1", "relu1", "linear2"]
    )
    assert [name for name, _ in deep_mlp(depth=2, nonlinearity="linear").named_children()] == (
        ["embedding", "flatten", "linear1", "linear2"]
    )


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_a_nonlinearity_is_torchs_own_and_moves_no_draw(splits, nonlinearity):
    X, _ = splits.train
    model = deep_mlp(depth=2, nonlinearity=nonlinearity, generator=seeded())
    C, W1, b1, W2, b2 = (p.detach() for p in deep_mlp(depth=2, generator=seeded()).parameters())
    hidden = C[X[:32]].view(32, -1) @ W1 + b1
    if nonlinearity != "linear":
        functions = torch if nonlinearity in ("tanh", "sigmoid") else F
        hidden = getattr(functions, nonlinearity)(hidden)
    torch.testing.assert_close(model(X[:32]), hidden @ W2 + b2)


def test_depth_width_and_correction_are_as_asked():
    model = deep_mlp(depth=1, n_hidden=7)
    assert model.linear1.weight.shape == (30, 27) and len(model) == 3
    model = deep_mlp(depth=4, n_hidden=7, batch_norm=True, correction=0)
    assert [tuple(p.shape) for p in model.parameters() if p.dim() == 2] == (
        [(27, 10), (30, 7), (7, 7), (7, 7), (7, 27)]
    )
    norms = [model.get_submodule(f"batch_norm{i}") for i in (1, 2, 3, 4)]
    assert all((norm.correction, norm.momentum, norm.eps) == (0, 0.1, 1e-5) for norm in norms)
    assert deep_mlp(batch_norm=True).batch_norm1.correction == 1
