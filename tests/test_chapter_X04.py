"""Lesson X04: its normalisations against torch.nn, its networks against the sweep's, its exercises, its sweep."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normalisations
from helpers.data import course_file
from helpers.layers import BatchNorm1d
from helpers.models import seeded

X = torch.randint(0, 27, (64, 3), generator=seeded(1))
Y = torch.randint(0, 27, (64,), generator=seeded(2))
TWO = (2, 4, 6)  # a shape with all three axes unlike


@pytest.fixture(scope="module")
def kept():
    return json.loads(course_file("data/results/normalisations.json").read_text(encoding="utf-8"))


def test_its_normalisations_are_torchs(chapter):
    x = 3 * torch.randn(TWO, generator=seeded(3)) + 1
    theirs = {
        "batch_norm": nn.BatchNorm1d(4)(x),
        "layer_norm": nn.LayerNorm((4, 6))(x),
        "instance_norm": nn.InstanceNorm1d(4)(x),
        "rms_norm": nn.RMSNorm((4, 6), eps=1e-5)(x),
    }
    for name, out in theirs.items():
        torch.testing.assert_close(chapter[name](x), out, atol=1e-5, rtol=1e-4)
    v, g = torch.randn(5, 3), torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(chapter["weight_norm"](v, g).norm(dim=0), g)


@pytest.mark.parametrize("kind", ["none", "BatchNorm", "LayerNorm", "GroupNorm", "RMSNorm"])
def test_a_network_of_the_sweep_is_the_lessons(chapter, kind):
    ours = chapter["network"](kind, depth=3, seed=4)
    stack = normalisations.network(kind, depth=3, seeds=[0, 4])
    torch.testing.assert_close(stack(X)[1], ours(X), atol=1e-5, rtol=1e-4)
    loss = F.cross_entropy(ours(X), Y)
    together = F.cross_entropy(stack(X)[1], Y) + F.cross_entropy(stack(X)[0], Y)
    for p, q in zip(torch.autograd.grad(loss, list(ours.parameters())[:2]),
                    torch.autograd.grad(together, list(stack.parameters())[:2]), strict=True):  # fmt: skip
        torch.testing.assert_close(q[1], p, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["none", "BatchNorm", "LayerNorm", "GroupNorm", "RMSNorm"])
def test_a_later_letter_reaches_earlier_answers_through_batch_norm_alone(chapter, kind):
    net, (one, other) = chapter["network"](kind, depth=2), X[:9].repeat(2, 1, 1)
    other = other.clone()
    other[5:8] = (other[5:8] + 1) % 27  # three windows hold the letter that is changed
    unlike = (net(one) - net(other)).abs().amax(1) > 1e-5
    assert unlike[5:8].all() and unlike[:5].all() == unlike[:5].any() == (kind == "BatchNorm")


def test_weight_norm_begins_as_the_plain_network_and_does_not_see_a_direction_grow():
    plain, stack = (normalisations.network(kind, depth=3, seeds=[0, 1]) for kind in ("none", "WeightNorm"))
    before = stack(X).detach()
    torch.testing.assert_close(before, plain(X), atol=1e-5, rtol=1e-4)
    stack[2].direction.data *= 7
    torch.testing.assert_close(stack(X), before, atol=1e-5, rtol=1e-4)


def test_after_puts_the_norm_behind_the_nonlinearity():
    layers = normalisations.network("BatchNorm", depth=3, seeds=[0], nonlinearity="relu", after=True)
    found = [type(layer) for layer in layers]
    assert [found[k - 1] for k, kind in enumerate(found) if kind is BatchNorm1d] == [nn.ReLU, nn.ReLU]


def test_spans_are_names_and_recalibration_takes_the_datas_statistics(chapter):
    names = chapter["spans"](chapter["Y"][:200])
    assert all(chapter["X"][name][0].eq(0).all() and chapter["Y"][name][-1] == 0 for name in names)
    net = chapter["network"]("BatchNorm", depth=2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fresh = chapter["recalibrated"](net, X)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    h = net.linear1(net.flatten(net.embedding(X)))
    torch.testing.assert_close(fresh.norm1.running_mean, h.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fresh.norm1.running_var, h.var(0), atol=1e-5, rtol=1e-4)


def test_what_the_four_reports_say_is_what_ails_them(kept):
    reports = {letter: list(kept["runs"][f"report, {letter}"].values()) for letter in "ABCD"}
    training, same_eval, alike, held, afresh = reports["A"]
    assert same_eval > training + 1 and abs(alike - training) < 0.2 and afresh > training + 1
    training, same_eval, alike, held, afresh = reports["B"]
    assert abs(same_eval - training) < 0.2 and min(alike, held, afresh) > training + 1
    training, same_eval, alike, held, afresh = reports["C"]
    assert min(same_eval, held) > training + 0.2 and max(abs(alike - training), abs(afresh - training)) < 0.05
    training, same_eval, alike, held, afresh = reports["D"]
    assert abs(same_eval - training) < 0.05 and min(alike, held, afresh) > training + 0.5
    short = normalisations.run("report, C", steps=30)
    assert list(short) == list(kept["runs"]["report, C"])
