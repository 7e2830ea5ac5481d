"""train, evaluate and sample against the lecture's own loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from helpers.diagnostics import diagnose
from helpers.layers import BatchNorm1d, Linear
from helpers.models import SEED, STAGES, lecture_mlp, seeded
from helpers.train import LONGEST_NAME, evaluate, sample, train
from lecture_loop import lecture_loop
from notebook_cells import definitions


@pytest.mark.parametrize("stage", STAGES)
def test_many_steps_equal_the_lectures_loop(splits, stage):
    # The first network is chaotic at the start, see chapter 02: rounding alone moves its later losses.
    steps = 5 if stage == "original" else 100
    g = seeded()
    model = lecture_mlp(stage, generator=g)
    losses = train(model, *splits.train, steps=steps, lr=0.1, generator=g).loss
    expected, parameters = lecture_loop(stage, *splits.train, steps)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.hidden.weight.detach(), parameters["W1"], rtol=0, atol=1e-5)
    torch.testing.assert_close(model.output.bias.detach(), parameters["b2"], rtol=0, atol=1e-5)
    if stage == "batchnorm":
        torch.testing.assert_close(model.batch_norm.gamma.detach(), parameters["bngain"][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(model.batch_norm.running_mean, parameters["bnmean_running"][0], rtol=0, atol=1e-5)


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


def test_an_optimizer_takes_the_step_with_its_own_lr_or_ours(splits):
    def run(make_optimizer, lr):
        model = lecture_mlp("batchnorm", generator=seeded())
        optimizer = make_optimizer(model.parameters())
        return train(model, *splits.train, steps=50, lr=lr, generator=seeded(1), optimizer=optimizer).loss

    plain = run(lambda p: None, 0.1)
    torch.testing.assert_close(run(lambda p: torch.optim.SGD(p, lr=0.1), None), plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(run(lambda p: torch.optim.SGD(p, lr=9.0), 0.1), plain, rtol=0, atol=1e-5)
    adam = run(lambda p: torch.optim.Adam(p, lr=0.01), None)
    assert adam[0] == plain[0] and not torch.equal(adam, plain)


def test_what_train_cannot_train_on_is_refused_with_the_remedy(splits):
    words = torch.randint(0, 27, (50, 8), generator=seeded(1))
    model = torch.nn.Sequential(torch.nn.Embedding(27, 16), torch.nn.Linear(16, 27))
    with pytest.raises(ValueError, match=r"Y has shape \(50, 8\).*not \(50,\)"):
        train(model, words, words, steps=1, lr=0.1)
    with pytest.raises(ValueError, match=r"Y has shape \(50, 8\).*not \(50,\)"):
        evaluate(model, words, words)
    flat = torch.nn.Sequential(torch.nn.Embedding(27, 4, sparse=True), torch.nn.Flatten(), torch.nn.Linear(12, 27))
    with pytest.raises(ValueError, match="sparse gradients.*sparse=True"):
        train(flat, *splits.train, steps=1, lr=0.1)
    table = torch.nn.Sequential(torch.nn.Embedding(27, 27, sparse=True), torch.nn.Flatten())
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.01)
    history = train(table, splits.train[0][:, 2:], splits.train[1], steps=3, lr=None, optimizer=optimizer)
    assert len(history) == 3 and history.loss.isfinite().all()


@pytest.mark.parametrize("own_minibatches", [False, True])
def test_a_stack_trains_as_its_networks_do_alone(splits, own_minibatches):
    seeds, few = [1, 2], [part[:1000] for part in splits.val]
    stack = lecture_mlp("batchnorm", generator=[seeded(s) for s in seeds], num_models=2)
    draws = [seeded(10 + s) for s in seeds] if own_minibatches else seeded(11)
    history = train(stack, *splits.train, steps=40, lr=0.1, generator=draws)
    val = evaluate(stack, *few)
    assert history.loss.shape == (40, 2) and val.shape == (2,)
    for r, s in enumerate(seeds):
        solo = lecture_mlp("batchnorm", generator=seeded(s))
        g = seeded(10 + s) if own_minibatches else seeded(11)
        alone = train(solo, *splits.train, steps=40, lr=0.1, generator=g)
        torch.testing.assert_close(history.loss[:, r], alone.loss, rtol=0, atol=1e-5)
        assert val[r].item() == pytest.approx(evaluate(solo, *few), abs=1e-5)


def test_a_stack_may_have_one_lr_a_network(splits):
    rates = torch.tensor([0.1, 0.01, 0.5])
    stack = lecture_mlp("kaiming", generator=[seeded() for _ in rates], num_models=3)
    settings = dict(steps=20, record_ratios_every=5)
    history = train(stack, *splits.train, lr=lambda step: rates, generator=seeded(1), **settings)
    for r, lr in enumerate(rates.tolist()):
        solo = lecture_mlp("kaiming", generator=seeded())
        alone = train(solo, *splits.train, lr=lr, generator=seeded(1), **settings)
        torch.testing.assert_close(history.loss[:, r], alone.loss, rtol=0, atol=1e-5)
        for name, ratio in alone.update_ratio.items():
            torch.testing.assert_close(history.update_ratio[name][:, r], ratio)
    with pytest.raises(ValueError, match=r"lr has shape \(2,\).* one for each network"):
        train(stack, *splits.train, steps=1, lr=rates[:2])
    with pytest.raises(ValueError, match="one number for all"):
        optimizer = torch.optim.SGD(stack.parameters())
        train(stack, *splits.train, steps=1, lr=rates, optimizer=optimizer)


@pytest.mark.parametrize("backward", ["autograd", "by_hand"])
def test_interrupted_training_keeps_what_was_trained(splits, capsys, backward):
    def lr(step):
        if step == 7:
            raise KeyboardInterrupt
        return 0.1

    model, same = (lecture_mlp("batchnorm", generator=seeded()) for _ in range(2))
    history = train(model, *splits.train, steps=100, lr=lr, generator=seeded(1), backward=backward)
    assert len(history) == 7
    assert "interrupted after 7 of 100 steps" in capsys.readouterr().out
    train(same, *splits.train, steps=7, lr=0.1, generator=seeded(1), backward=backward)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("stop", [None, 70])
@pytest.mark.parametrize("kind", ["one", "a list", "one twice", "global"])
def test_minibatches_are_those_of_one_randint_a_step(kind, stop):
    """Drawn ahead or not: the same examples, and the generator ends where one draw a step leaves it."""
    X, Y = torch.arange(1000).view(500, 2), torch.zeros(500, dtype=torch.int64)
    shown = []

    class Noting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros((2, 1, 3) if "one" != kind != "global" else 3))

        def forward(self, x):
            shown.append(x)
            return self.bias.expand(*x.shape[:-1], 3)

    def lr(step):
        if step == stop:
            raise KeyboardInterrupt
        return 0.1

    def generators():
        torch.manual_seed(5)
        one = seeded(3)
        return {"one": one, "a list": [one, seeded(4)], "one twice": [one, one], "global": None}[kind]

    def states(g):
        return [torch.get_rng_state()] if g is None else [h.get_state() for h in ([g] if kind == "one" else g)]

    ours = generators()
    train(Noting(), X, Y, steps=150, lr=lr, generator=ours, progress=False)
    ended, plain = states(ours), generators()
    for x in shown:
        if isinstance(plain, list):
            ix = torch.stack([torch.randint(0, 500, (32,), generator=g) for g in plain])
        else:
            ix = torch.randint(0, 500, (32,), generator=plain)
        assert torch.equal(x, X[ix])
    assert len(shown) == (150 if stop is None else stop + 1)
    for a, b in zip(ended, states(plain), strict=True):
        assert torch.equal(a, b)


def test_frozen_and_unused_parameters_stay_as_they_are(splits):
    model = lecture_mlp("kaiming", generator=seeded())
    model.embedding.weight.requires_grad_(False)
    model.unused = torch.nn.Parameter(torch.ones(3))
    before = model.embedding.weight.clone()
    loss = train(model, *splits.train, steps=3, lr=0.1, generator=seeded()).loss
    assert torch.equal(model.embedding.weight, before) and torch.equal(model.unused, torch.ones(3))
    assert not loss.requires_grad


def test_history_and_refusals(splits):
    model = lecture_mlp("kaiming", generator=seeded())
    assert repr(train(model, *splits.train, steps=0, lr=0.1)) == "History(no steps)"
    assert repr(train(model, *splits.train, steps=3, lr=0.1)).startswith("History(3 steps, mean loss of the last 3:")
    with pytest.raises(ValueError, match="steps is -1.*batch_size 32"):
        train(model, *splits.train, steps=-1, lr=0.1)
    with pytest.raises(ValueError, match="lr is None: give a number"):
        train(model, *splits.train, steps=1, lr=None)
    with pytest.raises(ValueError, match="X has 0 examples"):
        train(model, splits.train[0][:0], splits.train[1][:0], steps=1, lr=0.1)
    with pytest.raises(ValueError, match="both need the same number"):
        evaluate(model, splits.train[0], splits.train[1][:-1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(lr=math.nan), "lr is nan: give a number"),
        (dict(lr="0.1"), "lr is '0.1': give a number"),
        (dict(generator=42), "generator is 42: .*seeded"),
        (dict(generator=[42, 43]), r"generator is \[42, 43\]: .*seeded"),
        (dict(record_ratios_every=-1), "record_ratios_every -1: give 0 or more"),
        (dict(Y=torch.full((9,), -100)), "all targets of Y are below 0"),
    ],
)
def test_odd_settings_are_refused_by_name(settings, words):
    model, X, Y = torch.nn.Linear(3, 4), torch.randn(9, 3), torch.randint(0, 4, (9,))
    with pytest.raises(ValueError, match=words):
        train(model, **dict(X=X, Y=Y, steps=1, lr=0.1, progress=False) | settings)
    with pytest.raises(ValueError, match="LBFGS.*another optimizer"):
        train(model, X, Y, steps=1, lr=None, optimizer=torch.optim.LBFGS(model.parameters()))
    train(
        model, X, torch.tensor([*Y[:-1], -100]), steps=1, lr=torch.tensor(0.1), progress=False
    )  # some may be left out


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
    assert [len(name) for name in sample(model, splits.itos, 2, seeded())] == [LONGEST_NAME] * 2


def test_train_takes_any_module(splits):
    X, Y = torch.randn(64, 5, generator=seeded()), torch.randint(0, 3, (64,), generator=seeded())
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    history = train(model, X, Y, steps=200, lr=0.1, generator=seeded())
    assert history.loss[-20:].mean() < history.loss[:20].mean()
    stack = torch.nn.Sequential(Linear(5, 8, num_models=2), BatchNorm1d(8, num_models=2), Linear(8, 3, num_models=2))
    assert train(stack, X, Y, steps=5, lr=0.1, generator=seeded()).loss.shape == (5, 2)


def matrices(model):
    return {name: p for name, p in model.named_parameters() if p.dim() > 1}


@pytest.mark.parametrize("make_optimizer", [None, torch.optim.Adam])
def test_recorded_ratios_are_those_of_the_steps_and_change_nothing(splits, make_optimizer):
    def run(**kw):
        model = lecture_mlp("kaiming", generator=seeded())
        optimizer = make_optimizer and make_optimizer(model.parameters())
        return model, train(model, *splits.train, lr=0.1, generator=seeded(1), optimizer=optimizer, **kw)

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


def test_recorded_ratios_of_a_stack_and_of_constant_weights(splits):
    stack = lecture_mlp("kaiming", generator=[seeded(1), seeded(2)], num_models=2)
    with torch.no_grad():
        stack.output.weight[1] = 0.1
    stack.hidden.weight.requires_grad_(False)
    history = train(stack, *splits.train, steps=2, lr=0.1, generator=seeded(3), record_ratios_every=1)
    assert list(history.update_ratio) == ["embedding.weight", "output.weight"]  # no bias, nothing frozen
    solo = lecture_mlp("kaiming", generator=seeded(1))
    solo.hidden.weight.requires_grad_(False)
    alone = train(solo, *splits.train, steps=2, lr=0.1, generator=seeded(3), record_ratios_every=1)
    for name, ratio in history.update_ratio.items():
        torch.testing.assert_close(ratio[:, 0], alone.update_ratio[name], rtol=1e-5, atol=0)
    assert history.update_ratio["output.weight"][:, 1].isnan().tolist() == [True, False]


def test_an_optimizer_of_another_model_and_a_frozen_model_are_refused():
    model, X, Y = torch.nn.Linear(3, 4), torch.randn(9, 3), torch.randint(0, 4, (9,))
    optimizer = torch.optim.Adam(torch.nn.Linear(3, 4).parameters())
    with pytest.raises(ValueError, match=r"does not hold weight, bias: make it anew from model.parameters\(\)"):
        train(model, X, Y, steps=2, lr=None, optimizer=optimizer, progress=False)
    with pytest.raises(ValueError, match="does not hold bias.*freeze"):
        train(model, X, Y, steps=2, lr=None, optimizer=torch.optim.Adam([model.weight]), progress=False)
    with pytest.raises(ValueError, match="no parameter needs a gradient"):
        train(model.requires_grad_(False), X, Y, steps=2, lr=0.1, progress=False)


class Pair(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x), x


def test_what_is_no_module_no_tensor_or_no_logits_is_refused_by_name():
    model, X, Y = torch.nn.Linear(3, 4), torch.randn(9, 3), torch.randint(0, 4, (9,))
    sequences = torch.nn.Sequential(torch.nn.Embedding(5, 8), torch.nn.Linear(8, 5))  # as many steps as examples
    T = torch.randint(0, 5, (9, 4))
    for what, arguments in {
        "list, Tensor, Tensor.*Sequential": ([model], X, Y),
        "Linear, ndarray, ndarray.*tensors": (model, X.numpy(), Y.numpy()),
        "torch.float32, not.*int64": (model, X, Y.float()),
        "torch.int32, not.*int64": (model, X, Y.int()),
        "puts out a tuple: .*logits": (Pair(3, 4), X, Y),
        r"puts out a Tensor\(4, 4, 5\).*from a stack": (sequences, T, Y),
    }.items():
        with pytest.raises(ValueError, match=what):
            train(*arguments, steps=1, lr=0.1, batch_size=4, progress=False)
        with pytest.raises(ValueError, match=what.replace("(4,", "(9,")):
            evaluate(*arguments)
    with pytest.raises(ValueError, match="batch_size 0"):
        train(model, X, Y, steps=1, lr=0.1, batch_size=0)


def test_complex_weights_have_the_ratios_of_their_absolute_spread():
    class Complex(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3, 4, generator=seeded(1), dtype=torch.complex64))

        def forward(self, x):
            return (x.to(torch.complex64) @ self.weight).abs()

    X, Y = torch.randn(9, 3, generator=seeded(2)), torch.randint(0, 4, (9,), generator=seeded(3))
    model, first = Complex(), Complex().weight.detach()
    history = train(model, X, Y, steps=1, lr=0.1, record_ratios_every=1, progress=False)
    expected = (model.weight.detach() - first).std() / first.std()
    assert history.update_ratio["weight"].item() == pytest.approx(expected.item(), rel=1e-4)
