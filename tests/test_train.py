"""train, evaluate and sample: the steps they take, stacks of networks, recorded ratios, and what they refuse."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.diagnostics import diagnose
from helpers.layers import BatchNorm1d, Linear
from helpers.models import SEED, deep_mlp, lecture_mlp, seeded
from helpers.train import evaluate, sample, train
from notebook_cells import definitions

either_backward = pytest.mark.parametrize("backward", ["autograd", "by_hand"])


# The steps (test_models.py holds them against the lecture's own loops)


def test_lr_may_be_a_function_of_the_step(splits):
    runs = []
    for lr in 0.1, lambda step: 0.1 if step < 5 else 0.0:
        model = lecture_mlp("kaiming", generator=seeded())
        runs.append((train(model, *splits.train, steps=10, lr=lr, generator=seeded(1)).loss, model))
    (a, _), (b, stopped) = runs
    assert torch.equal(a[:6], b[:6]) and not torch.equal(a[6:], b[6:])
    five = lecture_mlp("kaiming", generator=seeded())
    train(five, *splits.train, steps=5, lr=0.1, generator=seeded(1))
    assert torch.equal(five.hidden.weight, stopped.hidden.weight)


@either_backward
def test_an_optimizer_takes_the_step_with_its_own_lr_or_ours(splits, backward):
    def run(make_optimizer, lr):
        model = lecture_mlp("batchnorm", generator=seeded())
        optimizer = make_optimizer(model.parameters())
        how = dict(lr=lr, generator=seeded(1), optimizer=optimizer, backward=backward)
        return train(model, *splits.train, steps=20, **how).loss

    plain = run(lambda p: None, 0.1)
    torch.testing.assert_close(run(lambda p: torch.optim.SGD(p, lr=0.1), None), plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(run(lambda p: torch.optim.SGD(p, lr=9.0), 0.1), plain, rtol=0, atol=1e-5)
    adam = run(lambda p: torch.optim.Adam(p, lr=0.01), None)
    assert adam[0] == plain[0] and not torch.equal(adam, plain)


@pytest.mark.parametrize("kind", ["one", "a list", "one twice", "global"])
def test_minibatches_are_those_of_one_randint_a_step(kind):
    """The same examples; and interrupted, the generator stands where one draw a step leaves it."""
    X, Y = torch.arange(1000).view(500, 2), torch.zeros(500, dtype=torch.int64)
    stacked, shown = kind in ("a list", "one twice"), []

    class Noting(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros((2, 1, 3) if stacked else 3))

        def forward(self, x):
            shown.append(x)
            return self.bias.expand(*x.shape[:-1], 3)

    def lr(step):
        if step == 70:
            raise KeyboardInterrupt
        return 0.1

    def generators():
        torch.manual_seed(5)
        one = seeded(3)
        return {"one": [one], "a list": [one, seeded(4)], "one twice": [one, one], "global": [torch.default_generator]}[
            kind
        ]

    ours = generators()
    given = ours if stacked else None if kind == "global" else ours[0]
    train(Noting(), X, Y, steps=150, lr=lr, generator=given, progress=False)
    states = [g.get_state() for g in ours]
    plain = generators()
    for x in shown:
        ix = torch.stack([torch.randint(0, 500, (32,), generator=g) for g in plain])
        assert torch.equal(x, X[ix if stacked else ix[0]])
    assert len(shown) == 71 and all(map(torch.equal, states, [g.get_state() for g in plain]))


@either_backward
def test_interrupted_training_keeps_what_was_trained(splits, capsys, backward):
    def lr(step):
        if step == 7:
            raise KeyboardInterrupt
        return 0.1

    model, same = (lecture_mlp("batchnorm", generator=seeded()) for _ in range(2))
    history = train(model, *splits.train, steps=100, lr=lr, generator=seeded(1), backward=backward)
    assert repr(history).startswith("History(7 steps, mean loss of the last 7:")
    assert "interrupted after 7 of 100 steps" in capsys.readouterr().out
    train(same, *splits.train, steps=7, lr=0.1, generator=seeded(1), backward=backward)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), same.parameters(), strict=True))
    assert repr(train(model, *splits.train, steps=0, lr=0.1, backward=backward)) == "History(no steps)"


def test_frozen_and_unused_parameters_stay_as_they_are_and_what_is_frozen_has_no_ratio(splits):
    model = lecture_mlp("kaiming", generator=seeded())
    model.embedding.weight.requires_grad_(False)
    model.unused = nn.Parameter(torch.ones(3))
    before = model.embedding.weight.clone()
    history = train(model, *splits.train, steps=3, lr=0.1, generator=seeded(), record_ratios_every=1)
    assert torch.equal(model.embedding.weight, before) and torch.equal(model.unused, torch.ones(3))
    assert list(history.update_ratio) == ["hidden.weight", "output.weight"] and not history.loss.requires_grad


def test_train_takes_any_module():
    X, Y = torch.randn(64, 5, generator=seeded()), torch.randint(0, 3, (64,), generator=seeded())
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    history = train(model, X, Y, steps=200, lr=0.1, generator=seeded())
    assert history.loss[-20:].mean() < history.loss[:20].mean()
    stack = nn.Sequential(Linear(5, 8, num_models=2), BatchNorm1d(8, num_models=2), Linear(8, 3, num_models=2))
    assert train(stack, X, Y, steps=5, lr=0.1, generator=seeded()).loss.shape == (5, 2)
    left_out = torch.tensor([*Y[:-1], -100])  # cross_entropy's own number for a target that does not count
    assert train(model, X, left_out, steps=1, lr=torch.tensor(0.1)).loss.isfinite().all()
    table = nn.Sequential(nn.Embedding(27, 27, sparse=True), nn.Flatten())
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.01)
    assert train(table, Y[:, None], Y, steps=3, lr=None, optimizer=optimizer).loss.isfinite().all()


# Stacks


STACKS = {
    "kaiming": lambda **how: lecture_mlp("kaiming", **how),
    "batchnorm": lambda **how: lecture_mlp("batchnorm", **how),
    "deep_batchnorm": lambda **how: deep_mlp(gain=1.0, batch_norm=True, n_hidden=40, **how),
}


@either_backward
@pytest.mark.parametrize("own_minibatches", [False, True])
@pytest.mark.parametrize("name", STACKS)
def test_a_stack_trains_as_its_networks_do_alone_each_with_its_own_rate(splits, name, own_minibatches, backward):
    seeds, rates, few = [11, 12], torch.tensor([0.1, 0.05]), [part[:1000] for part in splits.val]
    settings = dict(steps=20, backward=backward, record_ratios_every=8)
    stack = STACKS[name](generator=[seeded(s) for s in seeds], num_models=2)
    draws = [seeded(s) for s in (21, 22)] if own_minibatches else seeded(21)
    together = train(stack, *splits.train, lr=lambda step: rates, generator=draws, **settings)
    val = evaluate(stack, *few)
    for r, (seed, lr) in enumerate(zip(seeds, rates.tolist(), strict=True)):
        solo = STACKS[name](generator=seeded(seed))
        g = seeded(21 + r if own_minibatches else 21)
        alone = train(solo, *splits.train, lr=lr, generator=g, **settings)
        # Where a processor sums in another order for one network than for two, rounding grows from step to step.
        torch.testing.assert_close(together.loss[:, r], alone.loss, rtol=0, atol=1e-4)
        for ours, theirs in zip(stack.state_dict().values(), solo.state_dict().values(), strict=True):
            torch.testing.assert_close(ours[r], theirs, rtol=0, atol=1e-4)
        for weight, ratio in alone.update_ratio.items():
            torch.testing.assert_close(together.update_ratio[weight][:, r], ratio, rtol=1e-3, atol=0)
        assert val[r].item() == pytest.approx(evaluate(solo, *few), abs=1e-4)


# Recorded ratios


@pytest.mark.parametrize("make_optimizer", [None, torch.optim.Adam])
def test_recorded_ratios_are_those_of_the_steps_and_change_nothing(splits, make_optimizer):
    def run(**kw):
        model = lecture_mlp("kaiming", generator=seeded())
        optimizer = make_optimizer and make_optimizer(model.parameters())
        return model, train(model, *splits.train, lr=0.1, generator=seeded(1), optimizer=optimizer, **kw)

    def matrices(model):
        return {name: p for name, p in model.named_parameters() if p.dim() > 1}

    model, history = run(steps=8, record_ratios_every=3)
    plain, unrecorded = run(steps=8)
    assert torch.equal(history.loss, unrecorded.loss) and unrecorded.update_ratio == {}
    assert torch.equal(model.output.weight, plain.output.weight)
    assert list(history.update_ratio) == ["embedding.weight", "hidden.weight", "output.weight"]
    assert history.ratios_every == 3
    for record, step in enumerate((0, 3, 6)):
        before, after = matrices(run(steps=step)[0]), matrices(run(steps=step + 1)[0])
        for name, ratio in history.update_ratio.items():
            expected = (after[name] - before[name]).std() / before[name].std()
            assert ratio.shape == (3,) and ratio[record].item() == pytest.approx(expected.item(), rel=1e-3)


def test_recorded_ratios_are_what_diagnose_foresees(splits):
    model = lecture_mlp("batchnorm", generator=seeded())
    X, Y = splits.train
    ix = torch.randint(0, len(X), (32,), generator=seeded(1))
    foreseen = {row.name: row.update_to_data for row in diagnose(model, X[ix], Y[ix], lr=0.1).parameters}
    history = train(model, X, Y, steps=1, lr=0.1, generator=seeded(1), record_ratios_every=1)
    for name, ratio in history.update_ratio.items():
        assert ratio.item() == pytest.approx(foreseen[name], rel=1e-5)


class Product(nn.Module):
    """x @ weight, and nothing else: what is added to all of the weight leaves the softmax as it is."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, x):
        out = x.to(self.weight.dtype) @ self.weight
        return out.abs() if out.is_complex() else out


INPUTS, TARGETS = torch.randn(32, 5, generator=seeded(1)), torch.randint(0, 4, (32,), generator=seeded(2))
DRAWN = torch.randn(5, 4, generator=seeded(3))
WEIGHTS = {
    "far from zero": 0.1 * DRAWN + 1000,
    "float64": 0.1 * DRAWN.double() - 1000,
    "transposed": torch.randn(4, 5, generator=seeded(3)).t(),
    "bfloat16": DRAWN.bfloat16(),
    "complex": torch.randn(5, 4, generator=seeded(3), dtype=torch.complex64),
}


@pytest.mark.parametrize("make_optimizer", [None, torch.optim.SGD])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_ratio_is_exact_for_weights_of_any_kind(kind, make_optimizer):
    model = Product(WEIGHTS[kind])
    before = model.weight.detach().clone()
    ix = torch.randint(0, 32, (32,), generator=seeded(4))
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(INPUTS[ix]), TARGETS[ix]), model.weight)
    optimizer = make_optimizer and make_optimizer(model.parameters())
    how = dict(lr=0.3, generator=seeded(4), optimizer=optimizer, record_ratios_every=1)
    ratio = train(model, INPUTS, TARGETS, steps=1, **how).update_ratio["weight"]
    # What an optimizer has done is read off the weights; there rounding is a part of the change.
    wide = torch.promote_types(before.dtype, torch.float64)
    change = model.weight.detach() - before if optimizer else 0.3 * gradient.to(wide)
    assert ratio.item() == pytest.approx((change.to(wide).std() / before.to(wide).std()).item(), rel=1e-3)
    assert ratio.shape == (1,) and ratio.dtype == torch.float32


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 0.0, 1e5 / 3])
def test_undefined_ratios_are_nan(splits, constant):
    def ratios(model, X=INPUTS, **how):
        how = dict(lr=0.1, record_ratios_every=1, generator=seeded(1)) | how
        return train(model, X, TARGETS, steps=1, **how).update_ratio

    assert ratios(Product(torch.full((5, 4), constant)))["weight"].isnan().all()
    assert ratios(Product(DRAWN), torch.zeros(32, 5))["weight"] == 0  # a gradient of zeros moves nothing
    half = Linear(5, 4, num_models=2)
    half.weight.data[0] = constant
    assert ratios(half)["weight"].isnan().tolist() == [[True, False]]
    model = Product(DRAWN)
    model.unused = nn.Parameter(DRAWN.clone())
    found = ratios(model, lr=None, optimizer=torch.optim.Adam(model.parameters()))
    assert found["unused"].isnan().all() and found["weight"].isfinite().all()
    assert ratios(nn.Sequential(nn.BatchNorm1d(5))) == {}  # no weights at all


# evaluate and sample


def test_evaluate_is_the_cross_entropy_of_the_whole_split(splits):
    model = lecture_mlp("batchnorm", generator=seeded())
    train(model, *splits.train, steps=20, lr=0.1, generator=seeded())
    X, Y = splits.val  # some parts of 8,192 examples, and a shorter one
    loss = evaluate(model, X, Y)
    with torch.no_grad():
        assert loss == pytest.approx(F.cross_entropy(model.eval()(X), Y).item(), abs=1e-5)
        assert loss != pytest.approx(F.cross_entropy(model.train()(X), Y).item(), abs=1e-4)


def test_evaluate_and_sample_restore_every_modules_mode(splits):
    model = lecture_mlp("batchnorm", generator=seeded()).train()
    model.batch_norm.eval()  # a layer frozen on purpose stays frozen
    modes = {name: module.training for name, module in model.named_modules()}
    running_mean = model.batch_norm.running_mean.clone()
    evaluate(model, *splits.val)
    sample(model, splits.itos, 2, seeded())
    assert {name: module.training for name, module in model.named_modules()} == modes
    with pytest.raises(IndexError):
        evaluate(model, splits.val[0] + 27, splits.val[1])
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.equal(model.batch_norm.running_mean, running_mean)


@pytest.mark.parametrize("where", ["helpers.train", "chapter 01"])
def test_sample_draws_as_the_lecture_does(splits, where):
    sample_names = sample if where == "helpers.train" else definitions("01_starter_code")["sample"]
    model = lecture_mlp("kaiming", generator=seeded())
    train(model, *splits.train, steps=100, lr=0.1, generator=seeded())
    g = seeded(SEED + 10)
    expected = []
    for _ in range(5):
        out, context = [], [0, 0, 0]
        while True:
            with torch.no_grad():
                probs = F.softmax(model(torch.tensor([context])), dim=1)
            ix = torch.multinomial(probs, num_samples=1, generator=g).item()
            context = context[1:] + [ix]
            out.append(ix)
            if ix == 0:
                break
        expected.append("".join(splits.itos[i] for i in out).removesuffix("."))
    assert sample_names(model, splits.itos, 5, seeded(SEED + 10)) == expected


def test_sample_ends_even_if_the_network_never_ends_a_name(splits):
    model = lecture_mlp("kaiming", generator=seeded())
    with torch.no_grad():
        model.output.bias[0] = -math.inf
    assert [len(name) for name in sample(model, splits.itos, 2, seeded())] == [100] * 2


# What they refuse


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


MODEL, FROZEN, STACK = nn.Linear(5, 4), nn.Linear(5, 4).requires_grad_(False), Linear(5, 4, num_models=3)
PER_LETTER = nn.Sequential(nn.Embedding(27, 16), nn.Linear(16, 27))
LETTERS = torch.randint(0, 27, (32, 4), generator=seeded(1))
SPARSE = nn.Sequential(nn.Embedding(27, 4, sparse=True), nn.Flatten(), nn.Linear(16, 4))
UNUSABLE = [  # by train and by evaluate
    (dict(model=[MODEL]), "list, Tensor, Tensor.*Sequential"),
    (dict(X=INPUTS.numpy(), Y=TARGETS.numpy()), "Linear, ndarray, ndarray.*tensors"),
    (dict(Y=TARGETS.float()), "torch.float32 .*not.*int64"),
    (dict(Y=TARGETS.int()), "torch.int32 .*not.*int64"),
    (dict(Y=torch.full((32,), -100)), "at most -100, not.*0 or more"),
    (dict(X=INPUTS[:0], Y=TARGETS[:0]), "X has 0 examples"),
    (dict(Y=TARGETS[:-1]), "both need the same number"),
    (dict(model=PER_LETTER, X=LETTERS, Y=LETTERS), r"Y has shape \(32, 4\).*not \(32,\)"),
    (dict(model=PER_LETTER, X=LETTERS), r"puts out a Tensor\(32, 4, 27\).*from a stack"),
    (dict(model=Pair(5, 4)), "puts out a tuple: .*logits"),
]
REFUSED = [
    *UNUSABLE,
    (dict(model=SPARSE, X=LETTERS), "sparse gradients.*sparse=True"),
    (dict(steps=-1), "steps is -1.*batch_size 32"),
    (dict(steps=1e4), "steps is 10000.0.*whole numbers"),
    (dict(batch_size=0), "batch_size 0"),
    (dict(batch_size=4.0), "batch_size 4.0.*whole numbers"),
    (dict(record_ratios_every=-1), "record_ratios_every -1: .*0 or more"),
    (dict(lr=None), "lr is None: give a number"),
    (dict(lr=math.nan), "lr is nan: give a number"),
    (dict(lr=torch.tensor(0.1).numpy() * math.nan), r"lr is .*nan.*: give a number"),
    (dict(lr=[0.1, 0.01]), r"lr is \[0.1, 0.01\]: give a number or a function of the step"),
    (dict(lr="0.1"), "lr is '0.1': give a number"),
    (dict(model=STACK, lr=torch.ones(2)), r"lr has shape \(2,\).* one for each network"),
    (dict(model=STACK, lr=torch.ones(3), optimizer=torch.optim.SGD(STACK.parameters())), "one number for all"),
    (dict(generator=42), "generator is 42: .*seeded"),
    (dict(generator=[42, 43]), r"generator is \[42, 43\]: .*seeded"),
    (dict(backward="hand"), 'choose "autograd" or "by_hand"'),
    (dict(optimizer=torch.optim.Adam), r"class .*Adam.*: give .*model.parameters\(\)"),
    (dict(optimizer="adam"), r"optimizer is 'adam': give .*model.parameters\(\)"),
    (dict(optimizer=torch.optim.LBFGS(MODEL.parameters())), "LBFGS.*another optimizer"),
    (dict(optimizer=torch.optim.Adam(FROZEN.parameters())), r"does not hold weight, bias: .*model.parameters\(\)"),
    (dict(optimizer=torch.optim.Adam([MODEL.weight])), "does not hold bias.*freeze"),
    (dict(model=FROZEN), "no parameter needs a gradient"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_train_cannot_do_is_refused_by_name_with_the_remedy(arguments, words):
    with pytest.raises(ValueError, match=words):
        train(**dict(model=MODEL, X=INPUTS, Y=TARGETS, steps=1, lr=0.1) | arguments)


@pytest.mark.parametrize(("arguments", "words"), UNUSABLE, ids=[words for _, words in UNUSABLE])
def test_evaluate_refuses_the_same_data_and_networks(arguments, words):
    with pytest.raises(ValueError, match=words):
        evaluate(**dict(model=MODEL, X=INPUTS, Y=TARGETS) | arguments)


def test_evaluate_leaves_out_the_targets_that_cross_entropy_ignores():
    X, Y = torch.randn(16_384, 5, generator=seeded(1)), torch.randint(0, 4, (16_384,), generator=seeded(2))
    Y[:8_192] = -100  # all of the first part
    Y[8_192:9_000] = -100
    expected = F.cross_entropy(MODEL(X), Y).item()
    assert evaluate(MODEL, X, Y) == pytest.approx(expected, rel=1e-5)
