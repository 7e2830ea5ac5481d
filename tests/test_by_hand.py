"""The backward pass by hand against autograd: every layer, for one network and for stacks."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from helpers import layers
from helpers.by_hand import ByHand
from helpers.layers import BatchNorm1d, Embedding, Flatten, Linear, Sequential, Tanh
from helpers.models import STAGES, deep_mlp, lecture_mlp, seeded
from helpers.train import train

ATOL = {torch.float64: 1e-10, torch.float32: 1e-6}


def with_autograd(model, X, Y):
    """Loss, (R,) for a stack, and gradients, as torch computes them."""
    logits = model(X)
    Y = Y.expand(logits.shape[:-1])
    each = F.cross_entropy(logits.flatten(0, -2), Y.flatten(), reduction="none")
    loss = each.view(Y.shape).mean(-1)
    return loss.detach(), torch.autograd.grad(loss.sum(), list(model.parameters()))


def moved(model):
    """The model away from its start: fresh parameters would hide a gamma, a beta or a bias that is left out."""
    with torch.no_grad():
        for i, (name, tensor) in enumerate([*model.named_parameters(), *model.named_buffers()]):
            if not name.endswith("weight"):
                tensor += 0.5 * torch.rand(tensor.shape, generator=seeded(i), dtype=tensor.dtype)
    return model


def assert_equal_to_autograd(model, X, Y, atol, by_hand=None):
    """Loss, every gradient and every buffer, on twins that see the same minibatch."""
    twin = copy.deepcopy(model).train()
    by_hand, state = by_hand or ByHand(model), torch.get_rng_state()
    loss, gradients = by_hand.forward(X, Y), by_hand.backward()
    assert torch.equal(torch.get_rng_state(), state)  # it draws nothing
    expected_loss, expected = with_autograd(twin, X, Y)
    torch.testing.assert_close(loss, expected_loss, rtol=atol, atol=atol)
    for (name, p), ours, theirs in zip(model.named_parameters(), gradients, expected, strict=True):
        assert ours.shape == p.shape and ours.dtype == p.dtype, name
        # What only shifts the inputs of a BatchNorm has no gradient but rounding.
        assert theirs.abs().max() > 1e-6 or name.endswith(("bias", "beta")), name
        assert (ours - theirs).abs().max() <= atol * max(1, theirs.abs().max()), name
    for (name, ours), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert (ours - theirs).abs().max() <= atol, name


def draw(splits, *shape, seed=0):
    ix = torch.randint(0, len(splits.train[0]), shape, generator=seeded(seed))
    return splits.train[0][ix], splits.train[1][ix]


@pytest.mark.parametrize("num_models, dtype", [(None, torch.float64), (1, torch.float32), (3, torch.float64)])
@pytest.mark.parametrize("stage", STAGES)
def test_part_1s_networks(splits, stage, num_models, dtype):
    model = moved(lecture_mlp(stage, generator=seeded(5), num_models=num_models).to(dtype))
    # The original's logits reach 50, where float32 ends at 4e-6.
    atol = 1e-5 if (stage, dtype) == ("original", torch.float32) else ATOL[dtype]
    by_hand = ByHand(model)
    own = () if num_models is None else (num_models,)
    for shape in (*own, 32), (*own, 7), (32,):  # the last: one minibatch for all
        assert_equal_to_autograd(model, *draw(splits, *shape), atol, by_hand)


@pytest.mark.parametrize("num_models", [None, 8])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "leaky_relu", "elu", "gelu", "sigmoid", "linear"])
def test_part_2s_networks_with_every_nonlinearity(splits, nonlinearity, batch_norm, num_models):
    for depth, correction in (1, 1), (2, 0), (20, 1):
        how = dict(depth=depth, n_hidden=16, correction=correction, nonlinearity=nonlinearity, batch_norm=batch_norm)
        gain = 2 if batch_norm or nonlinearity in ("relu", "elu", "gelu") else 1
        model = deep_mlp(**how, gain=gain, generator=seeded(depth), num_models=num_models).double()
        if nonlinearity == "sigmoid" and not batch_norm and depth == 20:
            model = deep_mlp(**how, gain=6, generator=seeded(depth), num_models=num_models).double()
        assert_equal_to_autograd(moved(model), *draw(splits, *([num_models] if num_models else []), 16), 1e-10)


@pytest.mark.parametrize(
    "layer", [nn.LeakyReLU(0.3), nn.LeakyReLU(2.0), nn.LeakyReLU(-0.5), nn.ELU(0.4), nn.ELU(2.0), nn.ReLU(inplace=True)]
)
def test_a_nonlinearitys_own_settings(splits, layer):
    model = lecture_mlp("kaiming", generator=seeded(1)).double()
    model.tanh = layer
    assert_equal_to_autograd(model, *draw(splits, 16), 1e-10)


@pytest.mark.parametrize("num_models", [None, 2])
def test_any_sequential_of_them(num_models):
    def linear(fan_in, fan_out, **how):
        return Linear(fan_in, fan_out, num_models=num_models, generator=seeded(fan_in), **how)

    one = {"num_models": num_models}
    first, tanh = Embedding(27, 4, generator=seeded(1), **one), Tanh()
    inner = Sequential(BatchNorm1d(9, eps=0.1, momentum=0.3, **one), nn.Tanh(), nn.ReLU())
    normalized = linear(12, 9, bias=False), BatchNorm1d(9, **one), Tanh(), nn.Sigmoid()
    networks = [
        Sequential(first, Flatten(), *normalized, inner, linear(9, 27), nn.GELU()),  # layers inside layers
        Sequential(first, Flatten(), tanh, linear(12, 27), tanh),  # one layer in two places
    ]
    if num_models is None:  # a Linear on every character
        networks.append(Sequential(first, linear(4, 5), Tanh(), Flatten(), linear(15, 27)))
    for model in networks:
        X = torch.randint(0, 27, (16, 3), generator=seeded(2))
        assert_equal_to_autograd(moved(model.double()), X, X[:, 0], 1e-10)
    # Numbers instead of characters, the same for all networks or one minibatch each.
    model = Sequential(nn.Tanh(), linear(6, 8), BatchNorm1d(8, correction=1, **one), nn.ELU(), linear(8, 5)).double()
    for own in [()] if num_models is None else [(), (2,)]:
        X = torch.randn((*own, 16, 6), generator=seeded(3), dtype=torch.float64)
        assert_equal_to_autograd(model, X, torch.randint(0, 5, (*own, 16), generator=seeded(4)), 1e-10)


def test_logits_of_any_size_do_not_overflow():
    model = lecture_mlp("original", generator=seeded(1))
    with torch.no_grad():
        model.output.weight *= 1000
    X, Y = torch.zeros((4, 3), dtype=torch.int64), torch.arange(4)
    by_hand = ByHand(model)
    torch.testing.assert_close(by_hand.forward(X, Y), with_autograd(model, X, Y)[0])
    assert all(gradient.isfinite().all() for gradient in by_hand.backward())


@pytest.mark.filterwarnings("error")
def test_what_divides_by_zero_is_not_a_number_without_a_word(splits):
    model = lecture_mlp("batchnorm", generator=seeded(1))  # its eps is 0
    with torch.no_grad():
        model.hidden.weight[:, 3] = 0
    assert train(model, *splits.train, steps=2, lr=0.1, backward="by_hand", progress=False).loss.isnan().all()


NETWORKS = {
    "kaiming": partial(lecture_mlp, "kaiming"),
    "batchnorm": partial(lecture_mlp, "batchnorm"),
    "deep": partial(deep_mlp, gain=1.2, depth=4, n_hidden=40, nonlinearity="gelu"),
    "deep_batchnorm": partial(deep_mlp, gain=1.0, n_hidden=40, batch_norm=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_training_by_hand_is_training(splits, name):
    """For one network; test_train.py has the stacks, optimizers and interrupts."""

    def run(**how):
        model = NETWORKS[name](generator=seeded(3))
        settings = dict(steps=60, lr=lambda step: 0.1 if step < 40 else 0.01, record_ratios_every=16)
        return model, train(model, *splits.train, generator=seeded(4), **settings, **how)

    (model, history), (plain, expected) = run(backward="by_hand"), run()
    torch.testing.assert_close(history.loss, expected.loss, rtol=0, atol=1e-4)
    assert history.update_ratio.keys() == expected.update_ratio.keys() and history.ratios_every == 16
    for weight, ratio in expected.update_ratio.items():
        torch.testing.assert_close(history.update_ratio[weight], ratio, rtol=1e-3, atol=0)
    for ours, theirs in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not history.loss.requires_grad and history.loss.dtype == torch.float32


# What it refuses


def kaiming(change=lambda model: None, **layers):
    """The lecture's network with other layers, or changed in place."""
    model = lecture_mlp("kaiming", generator=seeded(1))
    for name, layer in layers.items():
        setattr(model, name, layer)
    change(model)
    return model


@pytest.mark.parametrize(
    "model, name",
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 27)), "nn.Linear|Flatten"),
        (kaiming(tanh=nn.SiLU()), "SiLU"),
        (kaiming(tanh=nn.GELU(approximate="tanh")), "tanh.*approximate='tanh'"),
        (kaiming(tanh=nn.Dropout(0.5)), "Dropout"),
        (kaiming(hidden=nn.Linear(30, 200)), "Linear"),
        (kaiming(hidden=Linear(30, 200, num_models=2)), "num_models"),
        (kaiming(tanh=Embedding(27, 10)), "Embedding is the first"),
        (kaiming(tanh=nn.PReLU()), "PReLU"),
        (layers.Residual(kaiming()), "the model, a helpers.layers.Residual"),
        (kaiming(tanh=layers.Residual(Linear(200, 200))), "tanh, a helpers.layers.Residual"),
        (kaiming(lambda model: parametrizations.weight_norm(model.hidden)), "ParametrizedLinear"),
        (kaiming(lambda model: prune.random_unstructured(model.hidden, "weight", 0.5)), "weight_orig"),
        (kaiming(lambda model: setattr(model, "tanh", model.hidden)), "of its own"),
        (Sequential(Tanh()), "parameters"),
        (kaiming(lambda model: model.hidden.weight.requires_grad_(False)), "hidden.weight is .* on cpu and frozen"),
        (kaiming().bfloat16(), "torch.bfloat16"),
        (kaiming(output=Linear(200, 27).double()), "output.weight is torch.float64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_networks_are_refused_by_name_with_the_remedy(splits, model, name):
    with pytest.raises(ValueError, match=name) as refused:
        train(model, *splits.train, steps=1, lr=0.1, backward="by_hand")
    assert 'leave backward="by_hand" out' in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "model, how, words",
    [
        (Sequential(Embedding(27, 4), BatchNorm1d(4), Flatten(), Linear(12, 27)), {}, "put a Flatten before it"),
        (Sequential(Embedding(27, 4), Linear(4, 27)), {}, "Flatten"),
        (lecture_mlp("batchnorm"), {"batch_size": 1}, "two examples or more"),
        (lecture_mlp("kaiming"), {"Y": torch.arange(-1, 31)}, "targets below 0"),
    ],
)
def test_what_its_layers_cannot_do_with_the_data_is_refused(model, how, words):
    data = dict(X=torch.zeros((32, 3), dtype=torch.int64), Y=torch.zeros(32, dtype=torch.int64))
    with pytest.raises(ValueError, match=words):
        train(model, steps=1, lr=0.1, backward="by_hand", **data | how)


def test_characters_that_are_not_in_the_table_are_refused():
    stack = lecture_mlp("kaiming", generator=seeded(1), num_models=2)
    X, Y = torch.full((8, 3), 27), torch.zeros(8, dtype=torch.int64)
    with pytest.raises(IndexError):  # not read from the next network's table
        ByHand(stack).forward(X, Y)
    with pytest.raises(IndexError):
        ByHand(stack).forward(X - 1, Y + 27)
