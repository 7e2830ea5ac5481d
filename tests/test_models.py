"""The five networks of part 1: counted, drawn in the lecture's order, alone or stacked."""

import pytest
import torch

from helpers.data import load_splits
from helpers.models import SEED, STAGES, alone, deep_mlp, lecture_mlp, seeded
from helpers.train import train
from lecture_loop import lecture_loop


def generator(seed=SEED):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def splits():
    return load_splits()


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_the_lectures(stage):
    model = lecture_mlp(stage, generator=generator())
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
        g = generator()
        model = lecture_mlp(stage, generator=g)
        ix = torch.randint(0, len(X), (32,), generator=g)
        assert torch.nn.functional.cross_entropy(model(X[ix]), Y[ix]).item() == pytest.approx(loss, abs=5e-5)


@pytest.mark.parametrize("stage", ["tanh", "batchnorm"])
def test_a_stack_is_drawn_one_after_the_other_or_from_a_list(stage):
    g = generator(1)
    one_after_the_other = [lecture_mlp(stage, generator=g) for _ in range(3)]
    stack = lecture_mlp(stage, generator=generator(1), num_models=3)
    twins = [lecture_mlp(stage, generator=generator(seed)) for seed in range(3)]
    listed = lecture_mlp(stage, generator=[generator(seed) for seed in range(3)], num_models=3)
    for solo, together in (one_after_the_other, stack), (twins, listed):
        for r, model in enumerate(solo):
            for p, q in zip(model.parameters(), together.parameters(), strict=True):
                assert torch.equal(p, q[r])


def test_a_generator_is_all_that_it_draws_from():
    state = torch.get_rng_state()
    lecture_mlp("kaiming", generator=generator())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    a = lecture_mlp("kaiming")
    torch.manual_seed(5)
    assert torch.equal(a.hidden.weight, lecture_mlp("kaiming").hidden.weight)


def test_unusable_arguments_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="unknown stage 'xavier': choose one of original, softmax, tanh"):
        lecture_mlp("xavier")
    with pytest.raises(ValueError, match=r"2 generators.* for 3 network\(s\)"):
        lecture_mlp("tanh", generator=[generator(), generator()], num_models=3)


def test_the_networks_run_on_the_names_in_use(splits):
    X, _ = splits.train
    assert lecture_mlp("batchnorm", generator=generator())(X[:8]).shape == (8, 27)
    assert lecture_mlp("batchnorm", generator=generator(), num_models=2)(X[:8]).shape == (2, 8, 27)


def test_seeded_is_a_generator_of_the_lectures_seed_or_another():
    assert torch.equal(torch.randn(3, generator=seeded()), torch.randn(3, generator=generator(SEED)))
    assert torch.equal(torch.randn(3, generator=seeded(5)), torch.randn(3, generator=generator(5)))


@pytest.mark.parametrize("make", [lambda **how: lecture_mlp("batchnorm", **how), lambda **how: deep_mlp(**how)])
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
