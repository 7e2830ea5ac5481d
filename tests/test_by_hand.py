"""The backward pass by hand against autograd: every layer, for one network and for stacks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from helpers import layers
from helpers.by_hand import ByHand
from helpers.layers import BatchNorm1d, Embedding, Flatten, Linear, Sequential, Tanh
from helpers.models import STAGES, deep_mlp, lecture_mlp, seeded
from helpers.train import evaluate, train

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
    by_hand = by_hand or ByHand(model)
    loss, gradients = by_hand.forward(X, Y), by_hand.backward()
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


@pytest.mark.parametrize("correction", [0, 1])
def test_both_ways_to_normalize_and_any_eps_and_momentum(splits, correction):
    model = lecture_mlp("batchnorm", generator=seeded(1)).double()
    model.batch_norm.correction = correction
    model.batch_norm.eps, model.batch_norm.momentum = 0.1, 0.3
    assert_equal_to_autograd(model, *draw(splits, 32), 1e-10)


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


NETWORKS = {stage: lambda stage=stage, **how: lecture_mlp(stage, **how) for stage in ("tanh", "kaiming", "batchnorm")}
NETWORKS["deep"] = lambda **how: deep_mlp(gain=1.2, depth=4, n_hidden=40, nonlinearity="gelu", **how)
NETWORKS["deep_batchnorm"] = lambda **how: deep_mlp(gain=1.0, batch_norm=True, n_hidden=40, **how)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_by_hand_is_training(splits, name):
    def run(**how):
        model = NETWORKS[name](generator=seeded(3))
        settings = dict(steps=60, lr=lambda step: 0.1 if step < 40 else 0.01, record_ratios_every=16)
        return model, train(model, *splits.train, generator=seeded(4), progress=False, **settings, **how)

    (model, history), (plain, expected) = run(backward="by_hand"), run()
    torch.testing.assert_close(history.loss, expected.loss, rtol=0, atol=1e-4)
    assert history.update_ratio.keys() == expected.update_ratio.keys() and history.ratios_every == 16
    for weight, ratio in expected.update_ratio.items():
        torch.testing.assert_close(history.update_ratio[weight], ratio, rtol=1e-3, atol=0)
    for ours, theirs in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not history.loss.requires_grad and history.loss.dtype == torch.float32
    assert evaluate(model, *splits.val) == pytest.approx(evaluate(plain, *splits.val), abs=1e-4)


@pytest.mark.parametrize("own_minibatches", [False, True])
@pytest.mark.parametrize("name", ["kaiming", "batchnorm", "deep_batchnorm"])
def test_a_stack_equals_its_solo_runs(splits, name, own_minibatches):
    seeds, rates = [11, 12], torch.tensor([0.1, 0.05])
    settings = dict(steps=60, backward="by_hand", progress=False)
    stack = NETWORKS[name](generator=[seeded(s) for s in seeds], num_models=2)
    draws = [seeded(s) for s in (21, 22)] if own_minibatches else seeded(21)
    together = train(stack, *splits.train, lr=rates, generator=draws, **settings)
    for r, (seed, lr) in enumerate(zip(seeds, rates.tolist(), strict=True)):
        solo = NETWORKS[name](generator=seeded(seed))
        g = seeded(21 + r if own_minibatches else 21)
        alone = train(solo, *splits.train, lr=lr, generator=g, **settings)
        # Where a processor sums in another order for one network than for two, rounding grows from step to step.
        assert (together.loss[:, r] - alone.loss).abs().max() <= 1e-4
        for ours, theirs in zip(stack.state_dict().values(), solo.state_dict().values(), strict=True):
            assert (ours[r] - theirs).abs().max() <= 1e-4


def test_an_optimizer_may_take_the_step(splits):
    def run(backward):
        model = lecture_mlp("kaiming", generator=seeded(1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        how = dict(steps=20, lr=None, optimizer=optimizer, backward=backward)
        return train(model, *splits.train, generator=seeded(2), **how).loss

    torch.testing.assert_close(run("by_hand"), run("autograd"), rtol=0, atol=1e-3)


def shared_weight():
    model = deep_mlp(depth=3, n_hidden=30, generator=seeded(1))
    model.linear2.weight = model.linear1.weight
    return model


def weight_norm():
    model = deep_mlp(depth=2, generator=seeded(1))
    parametrizations.weight_norm(model.linear1, "weight")
    return model


def pruned():
    model = deep_mlp(depth=2, generator=seeded(1))
    prune.random_unstructured(model.linear1, "weight", 0.5)
    return model


def frozen():
    model = lecture_mlp("kaiming", generator=seeded(1))
    model.hidden.weight.requires_grad_(False)
    return model


def another(**layers):
    model = lecture_mlp("kaiming", generator=seeded(1))
    for name, layer in layers.items():
        setattr(model, name, layer)
    return model


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = lecture_mlp("kaiming", generator=seeded(1))

    def forward(self, x):
        return self.inner(x) + 1


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 27)), "nn.Linear|Flatten"),
        (lambda: another(tanh=nn.SiLU()), "SiLU"),
        (lambda: another(tanh=nn.GELU(approximate="tanh")), "tanh.*approximate='tanh'"),
        (lambda: another(tanh=nn.Dropout(0.5)), "Dropout"),
        (lambda: another(hidden=nn.Linear(30, 200)), "Linear"),
        (lambda: another(hidden=Linear(30, 200, num_models=2)), "num_models"),
        (lambda: another(tanh=Embedding(27, 10)), "Embedding is the first"),
        (lambda: another(tanh=nn.PReLU()), "PReLU"),
        (Residual, "the model, a .*Residual.*"),
        (lambda: another(tanh=layers.Residual(Linear(200, 200))), "tanh, a helpers.layers.Residual.*"),
        (weight_norm, "ParametrizedLinear"),
        (pruned, "weight_orig"),
        (shared_weight, "of its own"),
        (lambda: Sequential(Tanh()), "parameters"),
        (frozen, "hidden.weight is torch.float32 on cpu and frozen"),
        (lambda: another().bfloat16(), "torch.bfloat16"),
        (lambda: another(output=Linear(200, 27).double()), "output.weight is torch.float64"),
    ],
)
def test_other_networks_are_refused_by_name_with_the_remedy(splits, make, name):
    with pytest.raises(ValueError, match=name) as refused:
        train(make(), *splits.train, steps=1, lr=0.1, backward="by_hand")
    assert 'leave backward="by_hand" out' in str(refused.value) and "\n" not in str(refused.value)


def test_what_its_layers_cannot_do_with_the_data_is_refused(splits):
    def refusal(model, **how):
        with pytest.raises(ValueError) as refused:
            train(model, *splits.train, steps=1, lr=0.1, **{"backward": "by_hand"} | how)
        return str(refused.value)

    characters = Sequential(Embedding(27, 4), BatchNorm1d(4), Flatten(), Linear(12, 27))
    assert "put a Flatten before it" in refusal(characters)
    assert "Flatten" in refusal(Sequential(Embedding(27, 4), Linear(4, 27)))
    assert "two examples or more" in refusal(lecture_mlp("batchnorm"), batch_size=1)
    assert 'choose "autograd" or "by_hand"' in refusal(lecture_mlp("kaiming"), backward="hand")
    with pytest.raises(ValueError, match="targets below 0"):
        train(lecture_mlp("kaiming"), splits.train[0], splits.train[1] - 1, steps=1, lr=0.1, backward="by_hand")


def test_it_draws_nothing():
    model, state = lecture_mlp("kaiming", generator=seeded(1)), torch.get_rng_state()
    ByHand(model).forward(torch.zeros((4, 3), dtype=torch.int64), torch.arange(4))
    assert torch.equal(torch.get_rng_state(), state)


def test_characters_that_are_not_in_the_table_are_refused():
    stack = lecture_mlp("kaiming", generator=seeded(1), num_models=2)
    X, Y = torch.full((8, 3), 27), torch.zeros(8, dtype=torch.int64)
    with pytest.raises(IndexError):  # not read from the next network's table
        ByHand(stack).forward(X, Y)
    with pytest.raises(IndexError):
        ByHand(stack).forward(X - 1, Y + 27)
