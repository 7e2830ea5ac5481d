"""diagnose against raw autograd, on networks that nobody here wrote, which it must leave bit-identical."""

import copy
import json
import math
import random
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.data import load_splits
from helpers.diagnostics import diagnose
from helpers.layers import BatchNorm1d
from helpers.models import SEED, deep_mlp, lecture_mlp
from helpers.train import train
from lecture_numbers import GRAD_TO_DATA, GRADIENT_STD


def generator(seed=SEED):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed))


@pytest.fixture(scope="module")
def splits():
    return load_splits()


def batch(splits, g):
    X, Y = splits.train
    ix = torch.randint(0, len(X), (32,), generator=g)
    return X[ix], Y[ix]


def equal_to(row, tensor):
    """Whether a row's mean, std and shape are those of a tensor, within 1e-6 (relative, for small gradients too)."""
    tensor = tensor.detach().double()
    assert row.shape == tuple(tensor.shape)
    scale = tensor.abs().max().item()
    assert row.mean == pytest.approx(tensor.mean().item(), rel=0, abs=1e-6 * scale)
    assert row.std == pytest.approx(tensor.std().item(), rel=1e-6)
    return True


def by_name(rows):
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


def state(model):
    """Everything that has to stay as it was, tensors as the very objects with the very bits."""
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "objects": [id(t) for t in tensors],
        "bits": [t.detach().clone() for t in tensors],
        "versions": [t._version for t in tensors],
        "grads": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "attributes": [sorted(m.__dict__) for m in model.modules()],
        "random": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


# The readings are raw autograd's


@pytest.mark.parametrize("stage", ["original", "tanh", "batchnorm"])
def test_every_reading_of_the_lectures_network_is_raw_autograds(splits, stage):
    g = generator()
    model = lecture_mlp(stage, generator=g)
    X, Y = batch(splits, g)
    outputs, x = {}, X
    for name, layer in copy.deepcopy(model).named_children():
        x = layer(x)
        x.retain_grad()
        outputs[name] = x
    twin = copy.deepcopy(model)
    F.cross_entropy(x, Y).backward()
    loss = F.cross_entropy(twin(X), Y)
    loss.backward()

    result = diagnose(model, X, Y, lr=0.1)
    assert result.loss == loss.item()
    assert [row.name for row in result.activations] == list(outputs)
    assert [row.name for row in result.gradients] == list(outputs)
    for row, gradient in zip(result.activations, result.gradients, strict=True):
        assert equal_to(row, outputs[row.name]) and equal_to(gradient, outputs[row.name].grad)
    h = outputs["tanh"]
    assert by_name(result.activations)["tanh"].saturated == ((h.abs() > 0.97).double().mean().item())
    density, edges = by_name(result.gradients)["tanh"].histogram
    expected = torch.histogram(h.grad.double(), density=True)
    torch.testing.assert_close(density, expected.hist)
    torch.testing.assert_close(edges, expected.bin_edges)

    assert [row.name for row in result.parameters] == [name for name, _ in model.named_parameters()]
    for row, p in zip(result.parameters, twin.parameters(), strict=True):
        assert row.grad_std == pytest.approx(p.grad.double().std().item(), rel=1e-6)
        if p.detach().unique().numel() > 1:
            std = p.detach().double().std().item()
            assert row.std == pytest.approx(std, rel=1e-6)
            assert row.grad_to_data == pytest.approx(row.grad_std / std, rel=1e-6)
            assert row.update_to_data == pytest.approx(0.1 * row.grad_std / std, rel=1e-6)
        else:  # a fresh gamma or beta
            assert (row.std, row.grad_to_data, row.update_to_data) == (0, None, None)


def test_the_lectures_figures(splits):
    if splits.names.source != "lecture":
        pytest.skip("the figures are those of the lecture's names")
    g = generator()
    model = deep_mlp(generator=g)
    tanh = [row for row in diagnose(model, *batch(splits, g)).activations if row.type is nn.Tanh]
    assert [round(row.std, 2) for row in tanh] == [0.75, 0.69, 0.67, 0.66, 0.66]
    saturated = [100 * row.saturated for row in tanh]
    assert saturated == pytest.approx([20.25, 8.38, 6.62, 5.47, 6.13], abs=0.006)
    g = generator()
    model = deep_mlp(gain=1.0, batch_norm=True, generator=g)
    train(model, *splits.train, steps=1000, lr=0.1, generator=g, progress=False)
    result = diagnose(model, *batch(splits, g))
    stds = [row.std for row in result.gradients if row.type is nn.Tanh]
    assert stds == pytest.approx(GRADIENT_STD, rel=2e-6)
    # The lecture divides by the parameters after the step, hence three digits.
    ratios = [row.grad_to_data for row in result.parameters if len(row.shape) == 2]
    assert ratios == pytest.approx(GRAD_TO_DATA, rel=1e-2)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(6, 6), nn.Tanh()

    def forward(self, x):
        return self.fc(self.act(self.fc(x)))


def test_a_module_used_twice_has_a_row_a_call():
    model, x = Twice(), draw(8, 6)
    first = model.fc(x)
    hidden = model.act(first)
    second = model.fc(hidden)
    expected = {"fc": first, "act": hidden, "fc (call 2)": second}
    gradients = torch.autograd.grad(second.square().mean(), list(expected.values()))
    result = diagnose(model, x, loss_fn=lambda out: out.square().mean())
    assert [row.name for row in result.activations] == list(expected)
    for row, out in zip(result.activations, expected.values(), strict=True):
        assert equal_to(row, out)
    for row, gradient in zip(result.gradients, gradients, strict=True):
        assert equal_to(row, gradient)


@pytest.mark.parametrize("shape", [(8, 6), (8, 5, 6)])  # a Linear returns a view for three dimensions
def test_values_and_gradients_are_those_before_an_in_place_change(shape):
    in_place = nn.Sequential(nn.Linear(6, 6), nn.Flatten(0, -2), nn.ReLU(inplace=True), nn.Linear(6, 3))
    outside = copy.deepcopy(in_place)
    outside[2].inplace = False
    x = draw(*shape)
    kept = x.clone()
    a = diagnose(in_place, x, loss_fn=lambda out: out.exp().mean())
    b = diagnose(outside, x, loss_fn=lambda out: out.exp().mean())
    dicts = a.to_dicts(), b.to_dicts()
    flat, expected = (found["gradients"].pop(1) for found in dicts)
    assert same(*dicts) and a.gradients[0].std > 0
    if len(shape) == 2:
        assert same(flat, expected)
    else:  # of a view that is changed in place nobody knows the gradient it had; to hand on a copy would change the network
        assert flat["std"] is None and expected["std"] > 0
    h = outside[0](x)
    assert equal_to(a.activations[0], h) and h.min() < 0
    front = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3))
    diagnose(front, x, loss_fn=None)
    assert torch.equal(x, kept)


def test_a_container_that_computes_has_a_row_and_one_that_hands_on_has_none():
    class Residual(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            self.body, self.in_place = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)), in_place

        def forward(self, x):
            out = self.body(x)
            if self.in_place:
                out += x
                return out
            return out + x

    for in_place in False, True:
        model, x = nn.Sequential(Residual(in_place), nn.Tanh()), draw(8, 6)
        rows = by_name(diagnose(model, x, loss_fn=torch.mean).activations)
        assert list(rows) == ["0.body.0", "0.body.1", "0.body.2", "0", "1"]
        assert equal_to(rows["0"], model[0](x)) and equal_to(rows["0.body.2"], model[0].body(x))

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(draw(6, 3))

        def forward(self, x):
            return x @ self.w

    result = diagnose(Bare(), draw(8, 6), loss_fn=torch.mean)
    assert [(row.name, row.type) for row in result.activations] == [("Bare", Bare)]
    assert result.parameters[0].type is Bare


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 7, batch_first=True), nn.Linear(7, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[1][0][-1])


def test_tuple_outputs_lstm():
    model, x, y = Recurrent(), draw(8, 4, 5), torch.arange(8) % 3
    out, (h, c) = model.lstm(x)
    loss = F.cross_entropy(model.head(h[-1]), y)
    (gradient,) = torch.autograd.grad(loss, h)
    result = diagnose(model, x, y)
    rows, gradients = by_name(result.activations), by_name(result.gradients)
    assert list(rows) == ["lstm", "lstm[1]", "lstm[2]", "head"]
    assert equal_to(rows["lstm"], out) and equal_to(rows["lstm[1]"], h) and equal_to(rows["lstm[2]"], c)
    assert equal_to(gradients["lstm[1]"], gradient)
    assert gradients["lstm"].std is None and gradients["lstm"].histogram is None  # the loss does not use it


def test_tuple_outputs_attention_and_keyword_inputs():
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    q, kv = draw(4, 3, 8), draw(4, 5, 8, seed=1)
    out, weights = model(q, kv, kv)
    (gradient,) = torch.autograd.grad(out.square().mean(), out)
    inputs = {"query": q, "key": kv, "value": kv}
    for given_inputs in (q, kv, kv), inputs:
        result = diagnose(model, given_inputs, loss_fn=lambda output: output[0].square().mean())
        assert [row.name for row in result.activations] == ["MultiheadAttention", "MultiheadAttention[1]"]
        assert equal_to(result.activations[0], out) and equal_to(result.activations[1], weights)
        assert equal_to(result.gradients[0], gradient)
        assert len(result.parameters) == 4 and not result.warnings
    assert list(inputs) == ["query", "key", "value"] and inputs["query"] is q


def test_a_transformers_layers_are_seen_in_eval_mode_too():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    mask = torch.zeros(4, 6, dtype=torch.bool).index_fill(1, torch.tensor([5]), True)
    names = [
        [row.name for row in diagnose(model, {"src": draw(4, 6, 8), "src_key_padding_mask": mask}, **kw).activations]
        for kw in (dict(loss_fn=None), dict(loss_fn=torch.mean))
    ]
    assert names[0] == names[1] and "layers.1.linear2" in names[0]


def test_losses(splits):
    g = generator()
    model = lecture_mlp("tanh", generator=g)
    X, Y = batch(splits, g)
    default = diagnose(model, X, Y)
    custom = diagnose(model, X, Y, loss_fn=lambda output, targets: 3 * F.cross_entropy(output, targets))
    without = diagnose(model, X, loss_fn=lambda output: 3 * F.cross_entropy(output, Y))
    assert same(custom.to_dicts(), without.to_dicts())
    for a, b in zip(default.gradients, custom.gradients, strict=True):
        assert b.std == pytest.approx(3 * a.std, rel=1e-5)
    with torch.no_grad():  # as evaluation code often is
        assert same(diagnose(model, X, Y).to_dicts(), default.to_dicts())
    no_loss = diagnose(model, X, loss_fn=None, lr=0.1)
    assert same(no_loss.to_dicts()["activations"], default.to_dicts()["activations"])
    assert no_loss.gradients == [] and no_loss.loss is None and not no_loss.warnings
    assert all(p.grad_std is p.grad_to_data is p.update_to_data is None for p in no_loss.parameters)
    with pytest.raises(ValueError, match="targets is None.*give targets, or loss_fn=None"):
        diagnose(model, X)
    with pytest.raises(ValueError, match=r"the loss has shape \(32,\)"):
        diagnose(model, X, Y, loss_fn=nn.CrossEntropyLoss(reduction="none"))


def test_frozen_and_unused_parameters(splits):
    g = generator()
    model = lecture_mlp("tanh", generator=g)
    model.embedding.requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(2, 3)))
    X, Y = batch(splits, g)
    adam = torch.optim.AdamW(model.parameters())
    for kw in dict(lr=0.1), dict(optimizer=adam):
        result = diagnose(model, X, Y, **kw)
        rows = by_name(result.parameters)
        for name in "embedding.weight", "unused":
            row = rows[name]
            assert row.grad_std is row.grad_to_data is row.update_to_data is None
        assert rows["hidden.weight"].update_to_data > 0
        assert [row.std is None for row in result.gradients] == [True, True, False, False, False]
        assert [w for w in result.warnings if "no gradient" in w] == [
            "unused: no gradient; the loss does not depend on it: in this step, or never, and then it will not learn"
        ]
    for p in model.parameters():
        p.requires_grad_(False)
    result = diagnose(model, X, Y)
    assert result.loss > 0 and len(result.warnings) == 1 and all(row.std is None for row in result.gradients)


def test_bfloat16():
    model, x, y = (
        nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).bfloat16(),
        draw(32, 6),
        torch.arange(32) % 3,
    )
    x = x.bfloat16()
    result = diagnose(model, x, y, lr=0.1)
    twin = copy.deepcopy(model)
    h = twin[0](x)
    h.retain_grad()
    F.cross_entropy(twin[2](twin[1](h)), y).backward()
    assert equal_to(result.activations[0], h) and equal_to(result.gradients[0], h.grad)
    assert result.parameters[0].grad_std == pytest.approx(twin[0].weight.grad.double().std().item(), rel=1e-6)


# Everything stays as it was


class Foreign(nn.Module):
    """Counts its calls, keeps its output, gives its buffer a new tensor: as networks in the wild do."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(4, 3)
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("nothing", None)
        self.calls = 0

    def forward(self, x, fail=False):
        self.calls += 1
        self.out = self.bn(self.conv(x)).relu().mean((2, 3))
        self.average = 0.9 * self.average + 0.1 * self.out.detach().mean(0)
        if fail:
            raise RuntimeError("the model's own")
        return self.fc(self.drop(self.out)) + random.random() * 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_grad", [True, False])
def test_a_foreign_network_is_left_as_it_was(training, with_grad):
    torch.manual_seed(1)
    model, x, y = Foreign().train(training), draw(8, 3, 6, 6), torch.arange(8) % 3
    model.drop.train(not training)  # modes of layers may differ
    optimizer = torch.optim.Adam(model.parameters())
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    if not with_grad:
        optimizer.zero_grad()
    before, adam = state(model), copy.deepcopy(optimizer.state_dict())
    calls, out = model.calls, model.out
    result = diagnose(model, x, y, optimizer=optimizer, lr=1.0)
    diagnose(model, x, loss_fn=None)
    assert torch.is_grad_enabled()
    with pytest.raises(RuntimeError, match="the model's own"):
        diagnose(model, (x, True), y)
    assert same(before, state(model)) and same(adam, optimizer.state_dict())
    assert model.calls == calls and model.out is out
    assert optimizer.param_groups[0]["params"][0] is model.conv.weight
    torch.testing.assert_close(result.loss, diagnose(model, x, y).loss)  # the same dropout again


def test_diagnose_between_a_forward_and_a_backward_pass_changes_nothing():
    model, x, y = (nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)), draw(8, 5), torch.arange(8) % 3)
    twin = copy.deepcopy(model)
    for m in model, twin:
        loss = F.cross_entropy(m.eval()(x), y)
        if m is model:
            diagnose(m.train(), x, y)
        loss.backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def test_dropout_in_a_transformer_draws_what_it_would_have_drawn():
    model, x = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.3, batch_first=True).train(), draw(4, 6, 16)
    torch.manual_seed(5)
    expected = model(x)
    torch.manual_seed(5)
    result = diagnose(model, x, loss_fn=lambda out: (out * x).mean())
    assert equal_to(result.activations[-1], expected)
    assert torch.equal(model(x), expected)  # so the random state is the one before
    assert not result.warnings


# Updates


def test_updates_are_the_true_changes(splits):
    g = generator()
    model = lecture_mlp("batchnorm", generator=g)
    X, Y = batch(splits, g)
    head = [model.output.weight, model.output.bias]
    body = [p for p in model.parameters() if not any(p is q for q in head)]
    optimizers = [
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
        torch.optim.AdamW([dict(params=body), dict(params=head, lr=1e-4)], lr=1e-2),
        torch.optim.Adam([model.hidden.weight]),
    ]
    for optimizer in optimizers:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)  # wraps optimizer.step
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(X), Y).backward()
            optimizer.step()
        scheduler.step()
        result = diagnose(model, X, Y, optimizer=optimizer)
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
        for row, old, p in zip(result.parameters, before, model.parameters(), strict=True):
            if id(p) not in own:
                assert row.update_std is row.update_to_data is None
                continue
            update = (p.detach() - old).double().std().item()
            assert row.update_std == pytest.approx(update, rel=1e-4)
            if old.unique().numel() > 1:
                assert row.update_to_data == pytest.approx(update / old.double().std().item(), rel=1e-4)
    ratios = [diagnose(model, X, Y, optimizer=optimizers[2], lr=lr).parameters[1].update_std for lr in (1e-3, 2e-3)]
    assert ratios[1] == pytest.approx(2 * ratios[0], rel=1e-3)


# Statistics


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=50),
    st.floats(-1e4, 1e4, width=32),
)
def test_statistics_are_two_pass_and_never_infinite(values, offset):
    x = torch.tensor(values)
    model = nn.Sequential(nn.Identity())
    model.register_parameter("p", nn.Parameter((x.double() + offset).float()))
    model.p.grad = None
    result = diagnose(model, x.unsqueeze(0), loss_fn=lambda out: (out * model.p).sum(), lr=0.5)
    row, (p,) = result.activations[0], result.parameters
    data = model.p.detach().double()
    assert row.mean == pytest.approx(x.double().mean().item(), rel=1e-9, abs=1e-12)
    if len(values) == 1:
        assert row.std is p.std is p.grad_to_data is None
    elif len(data.unique()) == 1:
        assert p.std == 0 and p.grad_to_data is p.update_to_data is None
    else:
        assert p.std == pytest.approx(data.std().item(), rel=1e-9)
        if p.grad_to_data is not None:
            assert math.isfinite(p.grad_to_data) and p.update_to_data == pytest.approx(p.grad_to_data / 2)
    density, edges = row.histogram
    assert (density * edges.diff()).sum() == pytest.approx(1, rel=1e-4)


def test_a_constant_is_recognised_in_spite_of_rounding():
    model = nn.Linear(100, 100).double()
    nn.init.constant_(model.weight, 0.1)
    assert model.weight.std() > 0  # about 1e-17, by rounding
    row = diagnose(model, draw(4, 100).double(), loss_fn=torch.mean, lr=0.1).parameters[0]
    assert row.std == 0 and row.grad_std > 0 and row.grad_to_data is row.update_to_data is None


@pytest.mark.parametrize(
    "layer, low, high",
    [
        (nn.Tanh(), -0.97, 0.97),
        (nn.Sigmoid(), 0.015, 0.985),
        (nn.Hardtanh(-2, 6), -1.88, 5.88),
        (nn.Hardsigmoid(), 0.015, 0.985),
        (nn.Softsign(), -0.97, 0.97),
    ],
)
def test_saturation_is_scaled_to_the_activations_range(layer, low, high):
    x = 4 * draw(500, 10).double()
    (row,) = diagnose(layer, x, loss_fn=None).activations
    out = layer(x)
    assert row.saturated == ((out < low) | (out > high)).double().mean().item()
    assert row.dead is None and (row.saturated > 0) == (
        layer.__class__ is not nn.Softsign or bool((out.abs() > 0.97).any())
    )


def test_an_activation_of_your_own_counts_by_its_name():
    Tanh = type("Tanh", (nn.Module,), {"forward": lambda self, x: x.tanh()})
    (row,) = diagnose(Tanh(), 3 * draw(50, 10), loss_fn=None).activations
    assert row.is_activation and row.saturated == (((3 * draw(50, 10)).tanh().abs() > 0.97).double().mean().item())


def test_dead_units_are_features_or_channels():
    x = draw(8, 6).abs()
    x[:, 2] = -1
    assert diagnose(nn.ReLU(), x, loss_fn=None).activations[0].dead == pytest.approx(1 / 6)
    assert diagnose(nn.ReLU6(), draw(8, 10, 6), loss_fn=None).activations[0].dead is None  # which dimension is it?
    images = draw(8, 4, 5, 5).abs()
    images[:, 1:] *= -1
    for conv, x in (nn.Conv1d(4, 4, 1, bias=False), images.flatten(2)), (nn.Conv2d(4, 4, 1, bias=False), images):
        nn.init.dirac_(conv.weight)
        relu = nn.ReLU(inplace=True)
        assert diagnose(nn.Sequential(conv, relu), x, loss_fn=None).activations[1].dead == 0.75
    leaky = diagnose(nn.LeakyReLU(), x, loss_fn=None).activations[0]
    assert leaky.dead is leaky.saturated is None and leaky.is_activation


@pytest.mark.parametrize(("layer", "share"), [(nn.ReLU(), "dead"), (nn.Tanh(), "saturated")])
def test_shares_are_none_where_there_is_nan(layer, share):
    x = draw(40, 6)
    assert getattr(diagnose(layer, x, loss_fn=None).activations[0], share) is not None
    x[3, 2] = math.nan
    row = diagnose(layer, x, loss_fn=None).activations[0]
    assert row.nonfinite == 1 and getattr(row, share) is None
    html = diagnose(layer, x, loss_fn=None)._repr_html_()
    assert f"% {share}" not in html and "None" not in html


# Warnings

HEALTHY = {
    "tanh": lambda g: lecture_mlp("tanh", generator=g),
    "kaiming": lambda g: lecture_mlp("kaiming", generator=g),
    "batchnorm": lambda g: lecture_mlp("batchnorm", generator=g),
    "gain 5/3": lambda g: deep_mlp(generator=g),
    "gain 1, BatchNorm": lambda g: deep_mlp(gain=1.0, batch_norm=True, generator=g),
}


@pytest.mark.parametrize("network", HEALTHY)
def test_healthy_networks_raise_no_warning(splits, network):
    for seed in SEED, 1:
        g = generator(seed)
        model = HEALTHY[network](g)
        for _ in range(2):
            assert diagnose(model, *batch(splits, g), lr=0.1).warnings == []
            train(model, *splits.train, steps=1000, lr=0.1, generator=g, progress=False)
        assert diagnose(model, *batch(splits, g), lr=0.1).warnings == []


def spoil(model, change):
    with torch.no_grad():
        change(model)
    return model


UNHEALTHY = {
    "original": (
        lambda g: lecture_mlp("original", generator=g),
        0.1,
        r"tanh: [67]\d% saturated; the gain is probably too high",
    ),
    "softmax": (lambda g: lecture_mlp("softmax", generator=g), 0.1, r"tanh: [67]\d% saturated"),
    "gain 3": (lambda g: deep_mlp(gain=3.0, generator=g), 0.1, r"tanh1: [45]\d% saturated"),
    "gain .5": (lambda g: deep_mlp(gain=0.5, generator=g), 0.1, "activations shrink with depth.*too low"),
    "vanishing": (lambda g: deep_mlp(gain=0.5, generator=g), 0.1, "gradients vanish.*at tanh5, .* at tanh1"),
    "linear": (lambda g: deep_mlp(nonlinearity="linear", generator=g), 0.01, "activations grow .* linear5.*too high"),
    "exploding": (lambda g: deep_mlp(nonlinearity="linear", generator=g), 0.01, "gradients explode.*too high"),
    "no fan-in": (lambda g: deep_mlp(gain=10.0, batch_norm=True, generator=g), 0.1, "update:data.*1/sqrt"),
    "lr .001": (HEALTHY["gain 5/3"], 0.001, "update:data is .*rate is probably too low"),
    "lr 10": (HEALTHY["gain 5/3"], 10, "update:data is .*rate is probably too high"),
    "dead": (
        lambda g: spoil(deep_mlp(nonlinearity="relu", gain=2**0.5, generator=g), lambda m: m.linear2.bias.sub_(6)),
        0.1,
        r"relu2: \d+% of its units are dead",
    ),
    "zero": (
        lambda g: spoil(deep_mlp(generator=g), lambda m: [p.zero_() for p in m.parameters()]),
        0.1,
        "tanh1: puts out the same number everywhere",
    ),
    "sigmoids": (lambda g: deep_mlp(nonlinearity="sigmoid", generator=g), 0.1, "gradients vanish"),
    "NaN": (
        lambda g: spoil(deep_mlp(generator=g), lambda m: m.linear3.weight[0, 0].fill_(math.nan)),
        0.1,
        "linear3.weight: NaN or infinite in 1 of 10,000 places",
    ),
    "overflow": (
        lambda g: spoil(deep_mlp(generator=g), lambda m: m.linear3.weight.mul_(1e38).mul_(4)),
        0.1,
        "linear3: NaN or infinite in .* no layer before it",
    ),
}


@pytest.mark.parametrize("network", UNHEALTHY)
def test_unhealthy_networks_are_told_so(splits, network):
    make, lr, message = UNHEALTHY[network]
    g = generator()
    result = diagnose(make(g), *batch(splits, g), lr=lr)
    assert any(re.search(message, warning) for warning in result.warnings), result.warnings
    json.dumps(result.to_dicts() | {"loss": None}, allow_nan=False)


def test_an_answer_that_is_the_same_for_all_examples_is_said():
    """But for the rounding of a product, which may differ from row to row."""
    net = nn.Sequential(nn.Linear(20, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 10))
    x, y = torch.randn(64, 20, generator=generator()), torch.arange(64) % 10
    said = [any("the same for all 64 examples" in w for w in diagnose(net, x, y).warnings)]
    said += [any("the same for all" in w for w in diagnose(net, x[:1].repeat(64, 1), y).warnings)]  # rightly so
    for layer in net[4], net[0], net[2]:
        kept = layer.weight.detach().clone()
        spoil(layer, lambda m: m.weight.zero_())
        said += [any("the same for all 64 examples" in w for w in diagnose(net, x, y).warnings)]
        spoil(layer, lambda m, kept=kept: m.weight.copy_(kept))
    assert said == [False, False, False, True, True]


@pytest.mark.parametrize("zeroed", ["linear3.weight", "linear6.weight"])
def test_an_output_layer_may_begin_at_zero_and_no_other(splits, zeroed):
    g = generator()
    model = spoil(deep_mlp(generator=g), lambda m: m.get_parameter(zeroed).zero_())
    warnings = diagnose(model, *batch(splits, g), lr=0.1).warnings
    if zeroed == "linear6.weight":  # an output layer may begin at zero
        assert warnings == []
    else:
        assert "the same for all 32 examples" in warnings[0] and warnings[1].startswith("tanh3: puts out the same")
    spoil(model, lambda m: [p.zero_() for name, p in m.named_parameters() if "embedding" not in name])
    warnings = diagnose(model, *batch(splits, g), lr=0.1).warnings
    assert not any("too large" in w or "too low" in w for w in warnings), warnings
    assert any("are the weights before it all zero?" in w for w in warnings), warnings
    assert not any("would not move at all" in w for w in warnings), warnings  # which would say it twice


def test_rates_of_their_own_are_no_fault(splits):
    g = generator()
    model = deep_mlp(gain=1.0, batch_norm=True, generator=g)
    rest = [p for name, p in model.named_parameters() if name != "linear6.weight"]
    X, Y = batch(splits, g)
    for lr in 0.1, 3.0:
        groups = [dict(params=rest), dict(params=[model.linear6.weight], lr=lr)]
        assert diagnose(model, X, Y, optimizer=torch.optim.SGD(groups, lr=0.1)).warnings == []
        groups = [dict(params=rest, lr=1e-6), dict(params=[model.linear6.weight], lr=1e-3)]
        assert diagnose(model, X, Y, optimizer=torch.optim.AdamW(groups)).warnings == []


def test_a_gradient_that_is_not_finite_is_traced_to_its_layer():
    root = type("Root", (nn.Module,), {"forward": lambda self, x: (x - x).sqrt()})
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), root(), nn.Linear(6, 3))
    warnings = diagnose(model, draw(8, 6), torch.arange(8) % 3).warnings
    assert [w.split(":")[0] for w in warnings if "gradient NaN" in w] == ["1 (Tanh)"]


# What is shown


def test_the_table_and_the_dicts(splits):
    g = generator()
    model = deep_mlp(gain=3.0, generator=g)
    result = diagnose(model, *batch(splits, g), lr=0.1)
    html = result._repr_html_()
    assert re.search(r"<li>tanh1: [45]\d% saturated", html)
    assert "linear6.weight" in html and "10000" not in html and "100 × 27" in html and "None" not in html
    assert html.count("<tr>") == 2 + len(result.activations) + len(result.parameters)
    assert repr(result).startswith("Diagnosis(13 layer calls, 13 parameters, 5 warnings)\ntanh1:")
    plain = json.loads(json.dumps(result.to_dicts()))
    assert plain["activations"][3]["type"] == "Tanh" and plain["activations"][3]["shape"] == [32, 100]
    assert len(plain["gradients"][3]["histogram"]["edges"]) == 101
    assert plain["warnings"] == result.warnings
    odd = nn.Sequential()
    odd.add_module("<b>", nn.Linear(2, 2))
    assert "<b>" not in diagnose(odd, draw(3, 2), loss_fn=None)._repr_html_().replace("<b>Warnings", "")


def test_our_batch_norm_keeps_its_running_statistics():
    model, x = BatchNorm1d(4), draw(8, 4)
    mean, var = model.running_mean.clone(), model.running_var.clone()
    diagnose(model, x, loss_fn=lambda out: out.square().mean())
    assert torch.equal(model.running_mean, mean) and torch.equal(model.running_var, var)


def without_histograms(diagnosis):
    plain = diagnosis.to_dicts()
    for row in plain["activations"] + plain["gradients"] + plain["parameters"]:
        for name in [name for name in row if "histogram" in name]:
            del row[name]
    return plain


def test_what_the_optimizer_does_not_hold_does_not_move_by_lr_times_gradient(splits):
    model = lecture_mlp("tanh", generator=generator(1))
    optimizer = torch.optim.SGD(model.output.parameters(), lr=0.1)
    X, Y = splits.train[0][:32], splits.train[1][:32]
    rows = by_name(diagnose(model, X, Y, optimizer=optimizer, lr=0.5).parameters)
    assert rows["hidden.weight"].grad_std > 0
    assert rows["hidden.weight"].update_std is rows["hidden.weight"].update_to_data is None
    assert rows["output.weight"].update_std == pytest.approx(0.5 * rows["output.weight"].grad_std, rel=1e-4)


def test_without_histograms_everything_else_is_the_same(splits):
    g = generator()
    model = deep_mlp(generator=g)
    X, Y = batch(splits, g)
    full, quick = (diagnose(model, X, Y, lr=0.1, histograms=h) for h in (True, False))
    assert without_histograms(full) == without_histograms(quick)
    assert all(row.histogram is None for row in [*quick.activations, *quick.gradients, *quick.parameters])
