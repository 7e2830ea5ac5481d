"""The five networks of part 1, counted and drawn in the lecture's order; any network alone or stacked."""

from functools import partial

import pytest
import torch

from helpers.models import SEED, STAGES, alone, deep_mlp, lecture_mlp, seeded
from helpers.train import train
from lecture_loop import lecture_loop


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_the_lectures(stage):
    model = lecture_mlp(stage, generator=seeded())
    assert sum(p.numel() for p in model.parameters()) == (12_097 if stage == "batchnorm" else 11_897)
    _, drawn = lecture_loop(stage, None, None, steps=0)
    ours = dict(model.named_parameters())
    for theirs, name in {"C": "embedding", "W1": "hidden", "W2": "output"}.items():
        assert torch.equal(ours[f"{name}.weight"], drawn[theirs])
    assert torch.equal(ours["output.bias"], drawn["b2"])
    if stage == "batchnorm":
        assert "hidden.bias" not in ours
    else:
        assert torch.equal(ours["hidden.bias"], drawn["b1"])


def test_first_losses_are_the_lectures(lecture_splits):
    stated = {"original": 27.8817, "softmax": 3.3221, "tanh": 3.3135, "kaiming": 3.3179, "batchnorm": 3.3239}
    X, Y = lecture_splits.train
    for stage, loss in stated.items():
        g = seeded()
        model = lecture_mlp(stage, generator=g)
        ix = torch.randint(0, len(X), (32,), generator=g)
        assert torch.nn.functional.cross_entropy(model(X[ix]), Y[ix]).item() == pytest.approx(loss, abs=5e-5)


MAKE = {
    "lecture_mlp": partial(lecture_mlp, "tanh"),
    "lecture_mlp with BatchNorm": partial(lecture_mlp, "batchnorm"),
    "deep_mlp": deep_mlp,
    "deep_mlp with BatchNorm": partial(deep_mlp, batch_norm=True, depth=3),
}
every_network = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def assert_stacked(solo, stack):
    for r, model in enumerate(solo):
        assert list(stack.state_dict()) == list(model.state_dict())
        for ours, theirs in zip(stack.state_dict().values(), model.state_dict().values(), strict=True):
            assert torch.equal(ours[r], theirs)


@every_network
def test_a_stack_is_drawn_one_after_the_other_or_from_a_list(make):
    g = seeded(1)
    assert_stacked([make(generator=g) for _ in range(3)], make(generator=seeded(1), num_models=3))
    listed = make(generator=[seeded(seed) for seed in range(3)], num_models=3)
    assert_stacked([make(generator=seeded(seed)) for seed in range(3)], listed)


def test_each_network_of_a_stack_may_have_its_own_gain():
    gains, g = torch.tensor([0.5, 1.0, 5 / 3]), seeded(1)
    one_after_the_other = [deep_mlp(gain=gain, generator=g) for gain in gains.tolist()]
    assert_stacked(one_after_the_other, deep_mlp(gain=gains, generator=seeded(1), num_models=3))


@every_network
def test_a_generator_is_all_that_it_draws_from_and_every_tensor_can_be_trained(make):
    state = torch.get_rng_state()
    for model in make(generator=seeded()), make(generator=seeded(), num_models=2):
        assert all(p.requires_grad and p.is_leaf for p in model.parameters())
        assert not any(b.requires_grad for b in model.buffers())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    first = make()
    torch.manual_seed(5)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), make().parameters(), strict=True))


@pytest.mark.parametrize(
    "make, arguments, message",
    [
        (lecture_mlp, {"stage": "xavier"}, "unknown stage 'xavier': choose one of original, softmax, tanh"),
        (lecture_mlp, {"stage": "tanh", "generator": [seeded()] * 2, "num_models": 3}, "2 generators.* for 3 network"),
        (deep_mlp, {"depth": 0}, "depth is 0: give 1 layers or more"),
        (deep_mlp, {"n_hidden": 0}, "n_hidden is 0, .*of 1 unit or more"),
        (deep_mlp, {"nonlinearity": "tan"}, "unknown nonlinearity 'tan': choose one of tanh, relu, "),
        (deep_mlp, {"num_models": 0}, "num_models is 0: give the number of networks"),
        (deep_mlp, {"gain": torch.ones(2)}, r"gain has shape \(2,\).* for 1 network"),
        (deep_mlp, {"gain": torch.ones(2), "num_models": 3}, r"gain has shape \(2,\).* for 3 network"),
    ],
)
def test_unusable_arguments_are_refused_with_the_remedy(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_seeded_is_a_generator_of_the_lectures_seed_or_another():
    for ours, seed in ((seeded(), SEED), (seeded(5), 5)):
        assert torch.equal(ours.get_state(), torch.Generator().manual_seed(seed).get_state())


@pytest.mark.parametrize("make", [partial(lecture_mlp, "batchnorm"), deep_mlp])
def test_alone_takes_a_network_out_of_its_stack(splits, make):
    stack = make(generator=[seeded(s) for s in range(3)], num_models=3)
    train(stack, *splits.train, steps=3, lr=0.1, generator=seeded(1), progress=False)
    stack[-1].requires_grad_(False)
    for r in (0, 2, -1):
        network, twin = alone(stack, r), make(generator=seeded(r % 3))
        train(twin, *splits.train, steps=3, lr=0.1, generator=seeded(1), progress=False)
        for (name, ours), theirs in zip(twin.state_dict().items(), network.state_dict().values(), strict=False):
            torch.testing.assert_close(
                ours, theirs, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )
        assert network.training and not network[-1].weight.requires_grad and network[0].weight.requires_grad
        X = splits.train[0][:8]
        torch.testing.assert_close(network.eval()(X), stack.eval()(X)[r])
        stack.train()
        with torch.no_grad():  # a copy: the stack stays as it is
            network[0].weight.zero_()
        assert stack[0].weight[r].abs().max() > 0
    with pytest.raises(IndexError):
        alone(stack, 3)
    with pytest.raises(ValueError, match="no stack.*num_models"):
        alone(make(), 0)
