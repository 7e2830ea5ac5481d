"""The lecture's networks: drawn and trained as its own loops do, with its own numbers; and any of them in stacks."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from helpers.models import NONLINEARITIES, SEED, STAGES, alone, deep_mlp, lecture_mlp, seeded
from helpers.train import evaluate, sample, train
from lecture import PlainDeep, PlainShallow
from lecture_numbers import GRAD_TO_DATA, GRADIENT_STD

MAKE = {stage: partial(lecture_mlp, stage) for stage in STAGES}
PLAIN = {stage: partial(PlainShallow, stage) for stage in STAGES}
PARAMETERS = dict.fromkeys(STAGES, 11_897) | {"batchnorm": 12_097}
MAKE |= {"deep": deep_mlp, "deep, gain 0.5": partial(deep_mlp, gain=0.5)}
PLAIN |= {"deep": partial(PlainDeep, False), "deep, gain 0.5": partial(PlainDeep, False, gain=0.5)}
MAKE["deep, batch norm"], PLAIN["deep, batch norm"] = (
    partial(deep_mlp, gain=1.0, batch_norm=True),
    partial(PlainDeep, True),
)
PARAMETERS |= {"deep": 46_497, "deep, gain 0.5": 46_497, "deep, batch norm": 47_024}
every_network = pytest.mark.parametrize("name", MAKE)


def assert_same(model, plain, atol):
    """Every parameter and buffer of the model is the plain loop's, in the plain loop's order."""
    theirs = [*plain.parameters, *plain.buffers()]
    for (name, ours), p in zip([*model.named_parameters(), *model.named_buffers()], theirs, strict=True):
        torch.testing.assert_close(
            ours, p.view_as(ours), rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


@every_network
def test_it_is_drawn_as_the_lectures_to_the_last_bit_and_trains_as_its_loop_does(splits, name):
    g = seeded()
    model, plain = MAKE[name](generator=g), PLAIN[name]()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert_same(model, plain, atol=0)
    # The first network is chaotic at the start, see chapter 02: rounding alone moves its later losses.
    steps = 5 if name == "original" else 60
    losses = train(model, *splits.train, steps=steps, lr=0.1, generator=g).loss
    torch.testing.assert_close(losses, plain.train(*splits.train, steps), rtol=0, atol=1e-5)
    assert_same(model, plain, atol=1e-5)


# The lecture's own numbers, on its own names


def test_first_losses_are_the_lectures(lecture_splits):
    stated = {"original": 27.8817, "softmax": 3.3221, "tanh": 3.3135, "kaiming": 3.3179, "batchnorm": 3.3239}
    X, Y = lecture_splits.train
    for stage, loss in stated.items():
        g = seeded()
        model = lecture_mlp(stage, generator=g)
        ix = torch.randint(0, len(X), (32,), generator=g)
        assert F.cross_entropy(model(X[ix]), Y[ix]).item() == pytest.approx(loss, abs=5e-5)


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
    model = deep_mlp(generator=g)
    ix = torch.randint(0, len(X), (32,), generator=g)
    outputs, _ = tanh_outputs(model, X[ix], Y[ix])
    assert [h.std().item() for h in outputs] == pytest.approx([0.75, 0.69, 0.67, 0.66, 0.66], abs=0.005)
    # One of 3,200 numbers is .03 %: a rounding difference on the threshold is no fault.
    assert saturated(outputs) == pytest.approx([20.25, 8.38, 6.62, 5.47, 6.13], abs=0.04)


def test_with_batch_norm_the_lectures_1001_steps_come_out(lecture_splits):
    X, Y = lecture_splits.train
    g = seeded()
    model = deep_mlp(gain=1.0, batch_norm=True, generator=g)
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
    train(model, X, Y, steps=1, lr=0.1, generator=g)
    pairs = zip(seen.parameters(), model.parameters(), strict=True)
    ratios = [(p.grad.std() / updated.std()).item() for p, updated in pairs if p.dim() == 2]
    assert ratios == pytest.approx(GRAD_TO_DATA, rel=1e-5)

    assert evaluate(model, X, Y) == pytest.approx(2.4003, abs=1e-4)
    assert evaluate(model, *lecture_splits.val) == pytest.approx(2.3982, abs=1e-4)
    names = sample(model, lecture_splits.itos, 20, seeded(SEED + 10))
    assert " ".join(names) == (
        "carpah qarlileif jmrix thty sacansa jazhnte dpn arciigqeiunellaia chriiv kalein "
        "dhlm join qhinn sroin arian quiqaelogiearyxix kaeklinsan ed ecoia gtleley"
    )


# What else the arguments can make


def test_layers_have_readable_names_and_the_shapes_that_are_asked_for():
    def shapes(model):
        return {name: tuple(p.shape for p in layer.parameters()) for name, layer in model.named_children()}

    assert list(shapes(lecture_mlp("batchnorm"))) == ["embedding", "flatten", "hidden", "batch_norm", "tanh", "output"]
    assert shapes(deep_mlp(depth=2, n_hidden=7, batch_norm=True)) == {
        "embedding": ((27, 10),),
        "flatten": (),
        "linear1": ((30, 7),),
        "batch_norm1": ((7,), (7,)),
        "tanh1": (),
        "linear2": ((7, 27),),
        "batch_norm2": ((27,), (27,)),
    }
    assert list(shapes(deep_mlp(depth=2, nonlinearity="relu")))[2:] == ["linear1", "relu1", "linear2"]
    assert list(shapes(deep_mlp(depth=2, nonlinearity="linear")))[2:] == ["linear1", "linear2"]
    assert shapes(deep_mlp(depth=1))["linear1"] == ((30, 27), (27,))


def test_its_batch_norms_are_the_lectures_unless_correction_says_torchs():
    for options, correction in ({}, 1), ({"correction": 0}, 0):
        model = deep_mlp(depth=3, batch_norm=True, **options)
        norms = [layer for name, layer in model.named_children() if name.startswith("batch_norm")]
        assert [(norm.correction, norm.momentum, norm.eps) for norm in norms] == [(correction, 0.1, 1e-5)] * 3


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


@every_network
def test_a_generator_is_all_that_it_draws_from_and_every_tensor_can_be_trained(name):
    make, state = MAKE[name], torch.get_rng_state()
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


# Stacks


def assert_stacked(solo, stack):
    for r, model in enumerate(solo):
        assert list(stack.state_dict()) == list(model.state_dict())
        for ours, theirs in zip(stack.state_dict().values(), model.state_dict().values(), strict=True):
            assert torch.equal(ours[r], theirs)


@every_network
def test_a_stack_is_drawn_one_after_the_other_or_from_a_list(name):
    make, g = MAKE[name], seeded(1)
    assert_stacked([make(generator=g) for _ in range(3)], make(generator=seeded(1), num_models=3))
    listed = make(generator=[seeded(seed) for seed in range(3)], num_models=3)
    assert_stacked([make(generator=seeded(seed)) for seed in range(3)], listed)


def test_each_network_of_a_stack_may_have_its_own_gain():
    gains, g = torch.tensor([0.5, 1.0, 5 / 3]), seeded(1)
    one_after_the_other = [deep_mlp(gain=gain, generator=g) for gain in gains.tolist()]
    assert_stacked(one_after_the_other, deep_mlp(gain=gains, generator=seeded(1), num_models=3))


@pytest.mark.parametrize("name", ["batchnorm", "deep"])
def test_alone_takes_a_network_out_of_its_stack(splits, name):
    make = MAKE[name]
    stack = make(generator=[seeded(s) for s in range(3)], num_models=3)
    train(stack, *splits.train, steps=3, lr=0.1, generator=seeded(1))
    stack[-1].requires_grad_(False)
    X, training = splits.train[0][:8], [module.training for module in stack.modules()]
    for r in (0, 2, -1):
        network = alone(stack, r)
        for ours, theirs in zip(network.state_dict().values(), stack.state_dict().values(), strict=True):
            assert torch.equal(ours, theirs[r])
        assert [module.training for module in network.modules()] == training
        assert not network[-1].weight.requires_grad and network[0].weight.requires_grad
        with torch.no_grad():
            torch.testing.assert_close(network.eval()(X), stack.eval()(X)[r])
            stack.train()
            network[0].weight.zero_()  # a copy: the stack stays as it is
        assert stack[0].weight[r].abs().max() > 0
    with pytest.raises(IndexError):
        alone(stack, 3)
    with pytest.raises(ValueError, match="no stack.*num_models"):
        alone(make(), 0)
