"""The backward pass by hand against autograd, for one network and for stacks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.by_hand import ByHand
from helpers.data import load_splits
from helpers.models import STAGES, deep_mlp, lecture_mlp
from helpers.train import evaluate, train

ATOL = {torch.float64: 1e-10, torch.float32: 1e-6}


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def splits():
    return load_splits()


def with_autograd(model, X, Y):
    """Loss, (R,) for a stack, and gradients, as torch computes them."""
    logits = model(X)
    Y = Y.expand(logits.shape[:-1])
    each = F.cross_entropy(logits.flatten(0, -2), Y.flatten(), reduction="none")
    loss = each.view(Y.shape).mean(-1)
    return loss.detach(), torch.autograd.grad(loss.sum(), list(model.parameters()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("num_models", [None, 1, 3])
@pytest.mark.parametrize("stage", STAGES)
def test_loss_gradients_and_buffers_equal_autograds(splits, stage, num_models, dtype):
    model = lecture_mlp(stage, generator=generator(5), num_models=num_models).to(dtype)
    if stage == "batchnorm":  # fresh ones would hide a gamma, a beta or a mean that is left out
        with torch.no_grad():
            for i, tensor in enumerate([model.batch_norm.gamma, model.batch_norm.beta, *model.buffers()]):
                tensor += 0.5 * torch.rand(tensor.shape, generator=generator(i))
    twin = copy.deepcopy(model).train()
    # The original's logits reach 50, where float32 ends at 4e-6.
    atol = 1e-5 if (stage, dtype) == ("original", torch.float32) else ATOL[dtype]
    by_hand = ByHand(model)
    own = () if num_models is None else (num_models,)
    for batch_size, models in (32, own), (7, own), (32, ()):  # the last: one minibatch for all
        ix = torch.randint(0, len(splits.train[0]), (*models, batch_size), generator=generator(batch_size))
        X, Y = splits.train[0][ix], splits.train[1][ix]
        loss, gradients = by_hand(X, Y)
        expected_loss, expected = with_autograd(twin, X, Y)
        torch.testing.assert_close(loss, expected_loss, rtol=atol, atol=atol)
        for (name, p), ours, theirs in zip(model.named_parameters(), gradients, expected, strict=True):
            assert ours.shape == p.shape and ours.dtype == dtype
            assert theirs.abs().max() > 1e-3, name
            assert (ours - theirs).abs().max() <= atol, name
        for (name, ours), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
            assert (ours - theirs).abs().max() <= atol, name


@pytest.mark.parametrize("correction", [0, 1])
def test_both_ways_to_normalize_and_any_eps_and_momentum(splits, correction):
    model = lecture_mlp("batchnorm", generator=generator(1)).double()
    model.batch_norm.correction = correction
    model.batch_norm.eps, model.batch_norm.momentum = 0.1, 0.3
    twin = copy.deepcopy(model)
    X, Y = splits.train[0][:32], splits.train[1][:32]
    _, gradients = ByHand(model)(X, Y)
    for ours, theirs in zip(gradients, with_autograd(twin, X, Y)[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    for ours, theirs in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_logits_of_any_size_do_not_overflow():
    model = lecture_mlp("original", generator=generator(1))
    with torch.no_grad():
        model.output.weight *= 1000
    X, Y = torch.zeros((4, 3), dtype=torch.int64), torch.arange(4)
    loss, gradients = ByHand(model)(X, Y)
    torch.testing.assert_close(loss, with_autograd(model, X, Y)[0])
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("stage", ["tanh", "kaiming", "batchnorm"])
def test_training_by_hand_is_training(splits, stage):
    def run(**how):
        model = lecture_mlp(stage, generator=generator(3))
        settings = dict(steps=1000, lr=lambda step: 0.1 if step < 600 else 0.01, record_ratios_every=250)
        return model, train(model, *splits.train, generator=generator(4), progress=False, **settings, **how)

    (model, history), (plain, expected) = run(backward="by_hand"), run()
    torch.testing.assert_close(history.loss, expected.loss, rtol=0, atol=1e-5)
    assert history.update_ratio.keys() == expected.update_ratio.keys() and history.ratios_every == 250
    for name, ratio in expected.update_ratio.items():
        torch.testing.assert_close(history.update_ratio[name], ratio, rtol=1e-3, atol=0)
    for ours, theirs in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-5)
    assert not history.loss.requires_grad and history.loss.dtype == torch.float32
    assert evaluate(model, *splits.val) == pytest.approx(evaluate(plain, *splits.val), abs=1e-5)


@pytest.mark.parametrize("backward", ["by_hand", "autograd"])
@pytest.mark.parametrize("stage", ["kaiming", "batchnorm"])
@pytest.mark.parametrize("own_minibatches", [False, True])
def test_a_stack_equals_its_solo_runs_over_a_thousand_steps(splits, stage, backward, own_minibatches):
    seeds, rates = [11, 12, 13], torch.tensor([0.1, 0.05, 0.2])
    settings = dict(steps=1000, backward=backward, progress=False)
    stack = lecture_mlp(stage, generator=[generator(s) for s in seeds], num_models=3)
    draws = [generator(s) for s in (21, 22, 23)] if own_minibatches else generator(21)
    together = train(stack, *splits.train, lr=rates, generator=draws, **settings)
    for r, (seed, lr) in enumerate(zip(seeds, rates.tolist(), strict=True)):
        solo = lecture_mlp(stage, generator=generator(seed))
        g = generator(21 + r if own_minibatches else 21)
        alone = train(solo, *splits.train, lr=lr, generator=g, **settings)
        assert (together.loss[:, r] - alone.loss).abs().max() <= 1e-6
        for ours, theirs in zip(stack.state_dict().values(), solo.state_dict().values(), strict=True):
            assert (ours[r] - theirs).abs().max() <= 1e-5


def test_an_optimizer_may_take_the_step(splits):
    def run(backward):
        model = lecture_mlp("kaiming", generator=generator(1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        how = dict(steps=50, lr=None, optimizer=optimizer, backward=backward)
        return train(model, *splits.train, generator=generator(2), **how).loss

    torch.testing.assert_close(run("by_hand"), run("autograd"), rtol=0, atol=1e-3)


def test_interrupted_by_hand_it_keeps_what_was_trained(splits):
    def lr(step):
        if step == 7:
            raise KeyboardInterrupt
        return 0.1

    model, same = (lecture_mlp("batchnorm", generator=generator(1)) for _ in range(2))
    settings = dict(generator=generator(2), backward="by_hand")
    assert len(train(model, *splits.train, steps=100, lr=lr, **settings)) == 7
    settings = dict(generator=generator(2), backward="by_hand")
    train(same, *splits.train, steps=7, lr=0.1, **settings)
    for ours, theirs in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_other_networks_are_refused_with_the_remedy(splits):
    def refusal(model, **how):
        with pytest.raises(ValueError) as refused:
            train(model, *splits.train, steps=1, lr=0.1, **{"backward": "by_hand"} | how)
        return str(refused.value)

    remedy = 'leave backward="by_hand" out: autograd takes any network'
    said = refusal(nn.Sequential(nn.Flatten(), nn.Linear(3, 27)))
    assert "not for this Sequential(Flatten, Linear)" in said and remedy in said
    assert remedy in refusal(deep_mlp(generator=generator(1)))
    assert remedy in refusal(deep_mlp(generator=generator(1), batch_norm=True, depth=2))
    other = lecture_mlp("kaiming", generator=generator(1))
    other.tanh = nn.ReLU()
    assert "(Embedding, Flatten, Linear, ReLU, Linear)" in refusal(other)
    unbiased = lecture_mlp("kaiming", generator=generator(1))
    unbiased.hidden.bias = None
    assert remedy in refusal(unbiased)
    frozen = lecture_mlp("kaiming", generator=generator(1))
    frozen.hidden.weight.requires_grad_(False)
    assert "hidden.weight is torch.float32 on cpu and frozen" in refusal(frozen)
    assert "torch.bfloat16" in refusal(lecture_mlp("kaiming", generator=generator(1)).bfloat16())
    good = lecture_mlp("kaiming", generator=generator(1))
    assert 'choose "autograd" or "by_hand"' in refusal(good, backward="hand")
    state = torch.get_rng_state()
    ByHand(good)
    assert torch.equal(torch.get_rng_state(), state)


def test_characters_that_are_not_in_the_table_are_refused():
    stack = lecture_mlp("kaiming", generator=generator(1), num_models=2)
    X, Y = torch.full((8, 3), 27), torch.zeros(8, dtype=torch.int64)
    with pytest.raises(IndexError):  # not read from the next network's table
        ByHand(stack)(X, Y)
    with pytest.raises(IndexError):
        ByHand(stack)(X - 1, Y + 27)
