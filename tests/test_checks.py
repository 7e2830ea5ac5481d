"""Every check accepts the right answer in several styles, and rejects the usual mistakes, each by its own name."""

import math
import random
from collections import Counter
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import odd_answers
from helpers import checks, layers
from helpers.checks import (
    CheckResult,
    check_batch_norm,
    check_batch_norm_forward,
    check_build_dataset,
    check_dead_units,
    check_initial_loss,
    check_kaiming_std,
    check_tanh_gain,
    check_tanh_gradient,
    check_unigram_entropy,
)
from helpers.checks import batch_norm as batch_norm_checks
from helpers.checks import engine as judge
from helpers.data import build_dataset

# ---- right answers, in more than one style


def dataset_with(change=None, *, end=".", pad=True, early=False, reset=True, last=False, block=None, shared=False):
    """build_dataset written as the lecture does it, with one thing to spoil."""

    def f(words, stoi, block_size=3):
        size = block or block_size
        X, Y, context = [], [], [0] * size
        for word in words:
            if reset:
                context = [0] * size
            rows = []
            for position, letter in enumerate(word + end):
                index = stoi[letter]
                if early:
                    context = [*context[1:], index]
                if pad or position >= size:
                    rows.append((context, index))
                if shared:
                    context.pop(0)
                    context.append(index)
                elif not early:
                    context = [*context[1:], index]
            for x, y in rows[-1:] if last else rows:
                X.append(x)
                Y.append(y)
        X, Y = torch.tensor(X), torch.tensor(Y)
        return change(X, Y) if change else (X, Y)

    return f


def numpy_dataset(words, stoi, block_size=3):
    rows = []
    for word in words:
        indices = [0] * block_size + [stoi[letter] for letter in word] + [0]
        rows += [indices[i : i + block_size + 1] for i in range(len(word) + 1)]
    rows = torch.from_numpy(np.array(rows))
    return [rows[:, :-1], rows[:, -1]]


def dataset_by_unfold(words, stoi, block_size=3):
    padded = [torch.tensor([0] * block_size + [stoi[letter] for letter in word + "."]) for word in words]
    windows = torch.cat([indices.unfold(0, block_size + 1, 1) for indices in padded])
    return windows[:, :-1], windows[:, -1]


def entropy_of_counter(Y):
    n = len(Y)
    return -sum(c / n * math.log(c / n) for c in Counter(Y.tolist()).values())


def entropy_of_bincount(Y):
    p = torch.bincount(Y, minlength=27).float() / len(Y)
    return -torch.where(p > 0, p * p.log(), 0).sum()


def entropy_as_loss(Y):
    return F.cross_entropy(torch.bincount(Y).float().log().expand(len(Y), -1), Y)


def dead_in_numpy(h):
    return (np.abs(h.numpy()) > 0.99).all(axis=0)


def dead_in_a_loop(h):
    return [all(abs(value) > 0.99 for value in column) for column in h.T.tolist()]


def gradient_by_autograd(t):
    z = torch.atanh(t.double()).requires_grad_()
    return torch.autograd.grad(z.tanh().sum(), z)[0]


def gain_by_quantiles():
    normal, n = NormalDist(), 20_000
    return (sum(math.tanh(normal.inv_cdf((i + 0.5) / n)) ** 2 for i in range(n)) / n) ** -0.5


def batch_norm_forward(x, gamma, beta, eps):
    return gamma * (x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + eps) + beta


RIGHT = {
    check_build_dataset: [dataset_with(), build_dataset, numpy_dataset, dataset_by_unfold],
    check_unigram_entropy: [
        entropy_of_counter,
        entropy_of_bincount,
        entropy_as_loss,
        lambda Y: torch.distributions.Categorical(torch.bincount(Y) / len(Y)).entropy(),
        lambda Y: torch.special.entr(torch.bincount(Y) / len(Y)).sum(),
        lambda Y: -(torch.bincount(Y) / len(Y))[Y].log().mean(),
    ],
    check_initial_loss: [
        math.log,
        lambda vocab_size: -torch.tensor(1 / vocab_size).log(),
        lambda vocab_size: -np.log(np.float64(1) / vocab_size),
        lambda vocab_size: F.cross_entropy(torch.zeros(1, vocab_size), torch.tensor([0])),
        lambda vocab_size: torch.tensor([vocab_size], requires_grad=True, dtype=torch.float32).log(),
    ],
    check_dead_units: [
        lambda h: (h.abs() > 0.99).all(dim=0),
        lambda h: h.abs().min(0).values > 0.99,
        lambda h: (h.abs() > 0.99).sum(0) == len(h),
        dead_in_numpy,
        dead_in_a_loop,
    ],
    check_tanh_gradient: [
        lambda t: (1 - t) * (1 + t),
        lambda t: 1 - t * t,
        lambda t: 1 - t.numpy() ** 2,
        gradient_by_autograd,
    ],
    check_kaiming_std: [
        lambda fan_in, gain: gain / fan_in**0.5,
        lambda fan_in, gain: gain * torch.tensor(fan_in).rsqrt(),
        lambda n, g: np.sqrt(g**2 / n),
    ],
    check_tanh_gain: [gain_by_quantiles, lambda: 1.5925, lambda: torch.randn(1_000_000).tanh().square().mean().rsqrt()],
    check_batch_norm_forward: [
        batch_norm_forward,
        lambda x, gamma, beta, eps: F.batch_norm(x, None, None, gamma, beta, True, 0.1, eps),
        lambda x, g, b, eps: F.layer_norm(x.T, (len(x),), eps=eps).T * g + b,
        lambda x, g, b, eps: g * (x - x.mean(0)) * ((x**2).mean(0) - x.mean(0) ** 2 + eps) ** -0.5 + b,
    ],
}


class BatchNorm(nn.Module):
    """Right as it stands; its subclasses spoil one thing each."""

    def __init__(self, dim, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.gamma, self.beta = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x):
        if self.training:
            self.refuse(x)
            mean, var = self.statistics(x)
            with torch.no_grad():
                self.update(x)
        else:
            mean, var = self.running_mean, self.running_var
        return self.output(x, mean, var)

    def refuse(self, x):
        if len(x) < 2:
            raise ValueError("one example has no variance")

    def statistics(self, x):
        return x.mean(0), x.var(0, unbiased=False)

    def update(self, x):
        self.running_mean += self.momentum * (x.mean(0) - self.running_mean)
        self.running_var += self.momentum * (x.var(0) - self.running_var)

    def output(self, x, mean, var):
        return self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta


class LectureStyle:
    """A plain class as in the lecture: whoever trains it switches the gradients of parameters() on."""

    def __init__(self, dim, eps=1e-5, momentum=0.1):
        self.eps, self.momentum, self.training = eps, momentum, True
        self.gamma, self.beta = torch.ones(dim), torch.zeros(dim)
        self.running_mean, self.running_var = torch.zeros(dim), torch.ones(dim)

    def __call__(self, x):
        if self.training:
            mean, var = x.mean(0, keepdim=True), x.var(0, keepdim=True, unbiased=False)
        else:
            mean, var = self.running_mean, self.running_var
        self.out = self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta
        if self.training:
            with torch.no_grad():
                self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mean
                self.running_var = (1 - self.momentum) * self.running_var + self.momentum * x.var(0, keepdim=True)
        return self.out

    def parameters(self):
        return [self.gamma, self.beta]


class PlainTensors(LectureStyle):
    """Tensors that require grad from the start, and no parameters()."""

    parameters = None

    def __init__(self, dim, eps=1e-5, momentum=0.1):
        super().__init__(dim, eps, momentum)
        self.gamma, self.beta = (torch.ones(1, dim, requires_grad=True), torch.zeros(1, dim, requires_grad=True))


class OnTorchs(nn.Module):
    """A wrapper: eval() has to reach the layer inside."""

    def __init__(self, dim, eps, momentum):
        super().__init__()
        self.inner = nn.BatchNorm1d(dim, eps, momentum)

    gamma = property(lambda self: self.inner.weight)
    beta = property(lambda self: self.inner.bias)
    running_mean = property(lambda self: self.inner.running_mean)
    running_var = property(lambda self: self.inner.running_var)

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    ("check", "answer"), [(check, answer) for check, answers in RIGHT.items() for answer in answers]
)
def test_right_answers_are_accepted_in_any_style(check, answer):
    result = check(answer)
    assert result, result
    assert result.status == "right"
    assert not result.note


@pytest.mark.parametrize("cls", [BatchNorm, layers.BatchNorm1d, OnTorchs])
def test_right_batch_norms_are_accepted(cls):
    result = check_batch_norm(cls)
    assert result, result
    assert not result.note


@pytest.mark.parametrize("cls", [LectureStyle, PlainTensors])
def test_a_plain_class_is_accepted_and_told_about_single_examples(cls):
    result = check_batch_norm(cls)
    assert result, result
    assert "single example" in result.note


# ---- wrong answers, and the phrase that names the mistake


def bincount_entropy(Y, minlength=0):
    p = torch.bincount(Y, minlength=minlength) / len(Y)
    return -(p * p.log()).sum()


def counts(Y):
    return torch.unique(Y, return_counts=True)[1].double()


def saturated(h, threshold=0.99):
    return h.abs() > threshold


def normalised(mean=lambda x: x.mean(0), var=lambda x: x.var(0, correction=0), output=None):
    def f(x, gamma, beta, eps):
        m, v = mean(x), var(x)
        return output(x, m, v, gamma, beta, eps) if output else gamma * (x - m) / (v + eps).sqrt() + beta

    return f


WRONG = {
    check_build_dataset: [
        (dataset_with(lambda X, Y: (X - 1, Y - 1)), "???"),
        (lambda words, stoi, n: dataset_with()(words[:1], stoi, n), "Only the first name"),
        (lambda words, stoi, n: dataset_with()(words[-1:], stoi, n), "Only the last name"),
        (lambda words, stoi, n: dataset_with()(sorted(words), stoi, n), "another order"),
        (lambda words, stoi, n: dataset_with()(["." + word for word in words], stoi, n), "predicted as well"),
        (lambda words, stoi, n: dataset_with()(words, stoi, n + 1), "one too long"),
        (dataset_with(lambda X, Y: (F.one_hot(X, 27), Y)), "Characters are indices"),
        (dataset_with(end=""), 'final "." is missing'),
        (dataset_with(pad=False), "first windows are missing"),
        (dataset_with(early=True), "already holds its own answer"),
        (dataset_with(lambda X, Y: (X, Y.roll(1))), "shifted by one"),
        (dataset_with(lambda X, Y: (X, Y.roll(-1))), "shifted by one"),
        (dataset_with(reset=False), "runs over from one name"),
        (dataset_with(block=3), "block_size is ignored"),
        (dataset_with(last=True), "Only the last window"),
        (dataset_with(shared=True), "the same list"),
        (dataset_with(lambda X, Y: (X.flip(1), Y)), "backwards"),
        (dataset_with(lambda X, Y: (X.float(), Y)), "torch.float32"),
        (dataset_with(lambda X, Y: (X, Y.float())), "Y is torch.float32"),
        (dataset_with(lambda X, Y: (X.tolist(), Y.tolist())), "X is of type list"),
        (dataset_with(lambda X, Y: (X.numpy(), Y.numpy())), "X is of type ndarray"),
        (dataset_with(lambda X, Y: (Y, X)), "shape"),
        (dataset_with(lambda X, Y: (X, Y[:-1])), "append to X and Y"),
        (dataset_with(lambda X, Y: X), "return X, Y"),
        (dataset_with(lambda X, Y: (X * 0 + 99, Y)), "??? -> e"),
        (dataset_with(lambda X, Y: (X[:0], Y[:0])), "number of examples"),
    ],
    check_unigram_entropy: [
        (lambda Y: -(counts(Y) / len(Y)).log().mean(), "counts alike"),
        (lambda Y: -(counts(Y) / len(Y)).log().sum(), "not weighed"),
        (lambda Y: -(counts(Y) / len(Y)).log() * counts(Y) / len(Y), "sum them up"),
        (lambda Y: torch.distributions.Categorical(logits=counts(Y)).entropy(), "softmax"),
        (lambda Y: torch.distributions.Categorical(logits=torch.bincount(Y).double()).entropy(), "softmax"),
        (lambda Y: torch.distributions.Categorical(torch.bincount(Y, minlength=27) + 1.0).entropy(), "smoothing"),
        (lambda Y: 2.8226, "same for every input"),
        (bincount_entropy, "0 * log(0) = NaN"),
        (lambda Y: bincount_entropy(Y, 27), "0 * log(0) = NaN"),
        (lambda Y: -entropy_of_counter(Y), "minus is missing"),
        (lambda Y: entropy_of_counter(Y) / math.log(2), "bits"),
        (lambda Y: entropy_of_counter(Y) / math.log(10), "base 10"),
        (lambda Y: -(counts(Y) * counts(Y).log()).sum(), "not normalised"),
        (lambda Y: -(counts(Y) / len(Y) * counts(Y).log()).sum(), "not normalised"),
        (lambda Y: math.log(27), "uniform"),
        (lambda Y: math.log(len(set(Y.tolist()))), "uniform"),
        (lambda Y: -sum(c / len(Y) * math.log(c / len(Y)) for c in Counter(Y).values()), "Y.tolist()"),
        (lambda Y: math.exp(entropy_of_counter(Y)), "perplexity"),
        (lambda Y: entropy_of_counter(Y) / len(counts(Y)), "average"),
    ],
    check_initial_loss: [
        (math.log2, "log2"),
        (lambda v: torch.log10(torch.tensor(v)), "log10"),
        (lambda v: 1 / v, "minus its log"),
        (lambda v: torch.softmax(torch.ones(v), 0)[0], "minus its log"),
        (lambda v: math.log(27), "hard-coded"),
        (lambda v: 3.2958, "same for every input"),
        (lambda v: math.log(1 / v), "sign"),
        (lambda v: math.log(v - 1), "take none away"),
        (lambda v: math.log(v + 1), "add none"),
        (lambda v: -torch.log_softmax(torch.ones(v), 0).sum(), "sum over all"),
        (lambda v: F.cross_entropy(torch.zeros(v), F.one_hot(torch.tensor(0), v).float()) / v, "average over"),
        (lambda v: 1 - 1 / v, "being wrong"),
        (lambda v: math.log(v) + 0.5, "None of the usual"),
        (lambda v: float(v), "perplexity"),
        (lambda v: math.log(v) / 2, "half of it"),
        (lambda v: torch.log_softmax(torch.ones(v), 0), "shape (27,)"),
        (lambda v: True, "truth value"),
        (lambda v: complex(v), "complex"),
        (lambda v: str(math.log(v)), "type str"),
    ],
    check_dead_units: [
        (lambda h: (1 - h**2 < 0.01).all(0), "above 0.995"),
        (lambda h: (h**2).mean(0) > 0.99, "mean hides"),
        (lambda h: saturated(h).double().mean(0) > 0.5, "More than half"),
        (lambda h: (h <= 0).all(0), "ReLU's dead unit"),
        (lambda h: h.std(0) < 1e-3, "not at its spread"),
        (lambda h: saturated(h).all(0).nonzero().ravel(), "indices"),
        (lambda h: saturated(h).all(0).sum(), "their number"),
        (lambda h: saturated(h).all(0, keepdim=True), "keepdim"),
        (lambda h: saturated(h).any(0), "asks for any"),
        (lambda h: saturated(h).all(1), "wrong axis"),
        (lambda h: saturated(h).any(1), "wrong axis"),
        (lambda h: (h > 0.99).all(0), "negative side"),
        (lambda h: (h > 0.99).all(0) | (h < -0.99).all(0), "jump between"),
        (lambda h: saturated(h).sum(0), "counts"),
        (lambda h: saturated(h).float().mean(0), "fractions"),
        (lambda h: saturated(h, 0.97).all(0), "0.97"),
        (lambda h: saturated(h[:32]).all(0), "white column"),
        (lambda h: h.abs().mean(0) > 0.99, "mean hides"),
        (lambda h: h.mean(0).abs() > 0.99, "mean hides"),
        (saturated, "every single activation"),
        (lambda h: saturated(h).all(), "whole layer"),
        (lambda h: ~saturated(h).all(0), "upside down"),
        (lambda h: (h.abs() < 0.99).all(0), "never saturated"),
        (lambda h: saturated(h).all(0).float(), "return them as bools"),
    ],
    check_tanh_gradient: [
        (lambda t: -2 * t, "differentiated once more"),
        (lambda t: 1 / torch.cosh(t) ** 2, "second time"),
        (lambda t: 1 - 2 * t**2, "2 is too many"),
        (lambda t: t * (1 - t**2), "t comes in once more"),
        (lambda t: torch.sigmoid(t) * (1 - torch.sigmoid(t)), "no tanh, sigmoid"),
        (lambda t: 1 - torch.tanh(t) ** 2, "second time"),
        (lambda t: 1 - t, "square is missing"),
        (lambda t: 1 - t.abs(), "kink"),
        (lambda t: t * (1 - t), "sigmoid"),
        (lambda t: t**2, "what is left of 1"),
        (lambda t: t**2 - 1, "sign"),
        (lambda t: (1 - t) ** 2, "square t before"),
        (lambda t: 1 + t**2, "1 plus"),
        (torch.tanh, "tanh itself"),
        (lambda t: (1 - t**2).sqrt(), "root of it"),
        (lambda t: (1 - t**2).mean(), "shape ()"),
        (lambda t: 1 / t, "infinity"),
        (lambda t: t.abs() * 0 + math.inf, "infinity"),
        (lambda t: (t - t) / (t - t), "NaN"),
    ],
    check_kaiming_std: [
        (lambda n, g: g, "fan_in is ignored"),
        (lambda gain, fan_in: gain / fan_in**0.5, "changed places"),
        (lambda n, g: (6 / n) ** 0.5, "The 6 belongs"),
        (lambda n, g: 2 / n, "variance for ReLU"),
        (lambda n, g: g * n, "multiplies by fan_in"),
        (lambda n, g: 0.2, "same for every input"),
        (lambda n, g: (torch.randn(n, 200) * g / n**0.5).std(), "None of the usual"),
        (lambda n, g: g**2 / n, "variance"),
        (lambda n, g: g / n, "not rooted"),
        (lambda n, g: g**2 / n**0.5, "gain is squared"),
        (lambda n, g: g * n**0.5, "divide"),
        (lambda n, g: n**-0.5, "gain is ignored"),
        (lambda n, g: (g / n) ** 0.5, "inside the root"),
        (lambda n, g: 5 / 3 / n**0.5, "hard-coded"),
        (lambda n, g: (3 * n) ** -0.5, "nn.Linear's default"),
        (lambda n, g: g * (3 / n) ** 0.5, "uniform"),
        (lambda n, g: (2 / n) ** 0.5, "ReLU"),
        (lambda n, g: g * (2 / n) ** 0.5, "already stands for the nonlinearity"),
        (lambda n, g: g / (3 * n) ** 0.5, "uniform"),
        (lambda n, g: n**0.5 / g, "upside down"),
        (lambda n, g: 1 / (g * n**0.5), "divides by the gain"),
    ],
    check_tanh_gain: [
        (lambda: 1 / torch.randn(1_000_000).tanh().abs().mean(), "root of the mean square"),
        (lambda: 1 / (1 - torch.randn(1_000_000).tanh() ** 2).mean(), "from tanh's gradient"),
        (lambda: (1 - torch.randn(1_000_000).tanh() ** 2).square().mean().rsqrt(), "from tanh's gradient"),
        (lambda: 1 / math.tanh(1), "1 / tanh(1)"),
        (lambda: 1.086, "where gain 5/3 settles"),
        (lambda: 1 / 0.6513, "undoes gain 5/3"),
        (lambda: 5 / 3, "1.086"),
        (lambda: 1.6, "None of the usual"),
        (lambda: 1, "Gain 1"),
        (lambda: 2**0.5, "ReLU"),
        (lambda: 0.6279, "undo"),
        (lambda: 2.536, "root is missing"),
        (lambda: 0.3943, "1 over its root"),
    ],
    check_batch_norm_forward: [
        (normalised(var=lambda x: (x**2).mean(0)), "before the squares are averaged"),
        (normalised(var=lambda x: ((x - x.mean(0)) ** 2).sum(0)), "squares are summed up"),
        (normalised(output=lambda x, m, v, g, b, e: g * (x / (v + e).sqrt() - m) + b), "after the division"),
        (normalised(output=lambda x, m, v, g, b, e: g * (x - m) * (v + e).sqrt() + b), "multiplies by the std"),
        (normalised(output=lambda x, m, v, g, b, e: g * ((x - m) / v.sqrt() + e) + b), "eps is added after"),
        (normalised(output=lambda x, m, v, g, b, e: g * (x - m) / (v + e).sqrt() - b), "beta has the wrong sign"),
        (normalised(output=lambda x, m, v, g, b, e: g * (x - m) + b), "not divided by the std"),
        (normalised(output=lambda x, m, v, g, b, e: g * x + b), "not standardised"),
        (normalised(lambda x: x.mean(0).detach()), "detached"),
        (normalised(var=lambda x: x.var(0, correction=0).detach()), "detached"),
        (lambda x, g, b, e: batch_norm_forward(x, g, b, e).detach(), "output has no gradient"),
        (lambda x, g, b, e: batch_norm_forward(x, g.data, b, e), "gamma receives no gradient"),
        (normalised(var=lambda x: x.var(0)), "unbiased"),
        (normalised(var=lambda x: x.var(1, correction=0)), "variance is over the wrong axis"),
        (normalised(var=lambda x: x.var(1, keepdim=True)), "variance is over the wrong axis"),
        (normalised(lambda x: x.mean(1, keepdim=True), lambda x: x.var(1, keepdim=True)), "LayerNorm"),
        (normalised(lambda x: x.mean(), lambda x: x.var()), "over all entries"),
        (normalised(output=lambda x, m, v, g, b, e: g * (x - m) / v.sqrt() + b), "eps is forgotten"),
        (normalised(output=lambda x, m, v, g, b, e: g * (x - m) / (v.sqrt() + e) + b), "outside the root"),
        (normalised(output=lambda x, m, v, g, b, e: g * (x - m) / (v + e) + b), "divides by the variance"),
        (normalised(output=lambda x, m, v, g, b, e: (x - m) / (v + e).sqrt()), "gamma and beta are missing"),
        (normalised(output=lambda x, m, v, g, b, e: g * (x - m) / (v + e).sqrt()), "beta is missing"),
        (normalised(output=lambda x, m, v, g, b, e: (x - m) / (v + e).sqrt() + b), "gamma is missing"),
        (normalised(output=lambda x, m, v, g, b, e: b * (x - m) / (v + e).sqrt() + g), "changed places"),
        (normalised(output=lambda x, m, v, g, b, e: g * x / (v + e).sqrt() + b), "not subtracted"),
        (normalised(output=lambda x, m, v, g, b, e: g * ((x - m) / (v + e).sqrt() + b)), "multiplied by gamma too"),
        (normalised(lambda x: x.mean(1), lambda x: x.var(1, correction=0)), "Mean and variance are over the wrong"),
        (lambda x, g, b, e: g * (x - x.mean(0)) / x.std(0) + b, "unbiased"),
        (lambda x, g, b, e: g * (x - x.mean(0)) / x.std(0) + b, "eps is forgotten"),
        (lambda x, g, b, e: batch_norm_forward(x, g, b, e).numpy(), "type ndarray"),
    ],
}


@pytest.mark.parametrize(
    ("check", "answer", "phrase"), [(check, *pair) for check, pairs in WRONG.items() for pair in pairs]
)
def test_wrong_answers_are_rejected_each_with_its_own_message(check, answer, phrase):
    result = check(answer)
    assert not result
    assert result.status == "wrong"
    assert phrase in str(result)
    assert result.tried
    assert result.difference
    assert result.misconception
    assert "https://youtu.be/P6sfmUTpUmc?t=" in result.look


@pytest.mark.parametrize("check", RIGHT)
def test_every_mistake_on_a_checks_list_is_wrong_and_told_by_its_own_sentence(check, monkeypatch):
    mistakes = odd_answers.listed_mistakes(check, monkeypatch)
    if check is check_batch_norm_forward:  # then come combinations, of which one may look like another
        tables = (batch_norm_checks.STATISTICS, batch_norm_checks.CORRECTIONS, batch_norm_checks.SCALES)
        mistakes = mistakes[: sum(len(table) - 1 for table in tables)]
    for sentence, wrong in mistakes:
        assert check(wrong).misconception == sentence


# ---- BatchNorm, spoilt in one place at a time


def spoilt(**methods):
    return type("Spoilt", (BatchNorm,), methods)


def set_up(**values):
    def __init__(self, dim, eps, momentum):
        BatchNorm.__init__(self, dim, eps, momentum)
        for name, value in values.items():
            if isinstance(getattr(self, name), nn.Parameter):
                delattr(self, name)
            setattr(self, name, value(dim) if callable(value) else value)

    return spoilt(__init__=__init__)


def output(formula):
    return spoilt(output=lambda self, x, m, v: formula(x, m, v, self.gamma, self.beta, self.eps))


def statistics(mean, var):
    return spoilt(statistics=lambda self, x: (mean(x), var(x)))


def updating(mean=None, var=None, *, both=None):
    def update(self, x):
        self.running_mean = (mean or both)(self.running_mean, x.mean(0), self.momentum)
        self.running_var = (var or both)(self.running_var, x.var(0), self.momentum)

    return spoilt(update=update)


def moved(old, new, momentum):
    return (1 - momentum) * old + momentum * new


def forward_in_place(self, x):
    x -= x.mean(0)
    return self.output(x, x.mean(0), x.var(0, unbiased=False))


def forward_with_graph(self, x):
    mean, var = self.statistics(x) if self.training else (self.running_mean, self.running_var)
    if self.training:
        self.running_mean = moved(self.running_mean, mean, self.momentum)
        self.running_var = moved(self.running_var, x.var(0), self.momentum)
    return self.output(x, mean, var)


def forward_always_training(self, x):
    with torch.no_grad():
        if self.training or len(x) > 1:
            self.update(x)
    return self.output(x, *self.statistics(x))


def forward_updates_in_eval(self, x):
    if self.training:
        return BatchNorm.forward(self, x)
    out = BatchNorm.forward(self, x)
    with torch.no_grad():
        self.update(x)
    return out


def forward_under_no_grad(self, x):
    with torch.no_grad():
        return BatchNorm.forward(self, x)


def biased_update(self, x):
    self.running_mean = moved(self.running_mean, x.mean(0), self.momentum)
    self.running_var = moved(self.running_var, x.var(0, unbiased=False), self.momentum)


def swapped_biased_update(self, x):
    self.running_mean = moved(self.running_mean, x.mean(0), 1 - self.momentum)
    self.running_var = moved(self.running_var, x.var(0, unbiased=False), 1 - self.momentum)


def biased_std_update(self, x):
    self.running_mean = moved(self.running_mean, x.mean(0), self.momentum)
    self.running_var = moved(self.running_var, x.std(0, unbiased=False), self.momentum)


def std_update(self, x):
    self.running_mean = moved(self.running_mean, x.mean(0), self.momentum)
    self.running_var = moved(self.running_var, x.std(0), self.momentum)


def doubly_corrected_update(self, x):
    self.running_mean = moved(self.running_mean, x.mean(0), self.momentum)
    self.running_var = moved(self.running_var, x.var(0) * len(x) / (len(x) - 1), self.momentum)


def cumulative_update(self, x):
    self.batches = getattr(self, "batches", 0) + 1
    self.running_mean = moved(self.running_mean, x.mean(0), 1 / self.batches)
    self.running_var = moved(self.running_var, x.var(0), 1 / self.batches)


def init_shared(self, dim, eps, momentum, means={}):  # noqa: B006 - the mistake
    BatchNorm.__init__(self, dim, eps, momentum)
    self.running_mean = means.setdefault(dim, self.running_mean)


class TheLectures(LectureStyle):
    """As the lecture has it: unbiased in the forward pass too."""

    def __call__(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(0, keepdim=True), x.var(0, keepdim=True)
            with torch.no_grad():
                self.running_mean = moved(self.running_mean, mean, self.momentum)
                self.running_var = moved(self.running_var, var, self.momentum)
        self.out = self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta
        return self.out


def eval_forward(**change):
    def forward(self, x):
        if self.training:
            return BatchNorm.forward(self, x)
        v, e, g, b = self.running_var, self.eps, self.gamma, self.beta
        return change["formula"](x, self.running_mean, v, g, b, e)

    return spoilt(forward=forward)


BIASED = {"correction": 0}
WRONG_BATCH_NORMS = [
    (statistics(lambda x: x.mean(0), lambda x: x.var(1, **BIASED)), "variance is over the wrong axis"),
    (statistics(lambda x: x.mean(0), lambda x: x.var(1, keepdim=True)), "variance is over the wrong axis"),
    (statistics(lambda x: x.mean(1), lambda x: x.var(1)), "Mean and variance are over the wrong axis"),
    (
        statistics(lambda x: x.mean(1, keepdim=True), lambda x: x.var(1, keepdim=True, **BIASED)),
        "Mean and variance are over the wrong axis",
    ),
    (statistics(lambda x: x.mean(), lambda x: x.var(**BIASED)), "over all entries"),
    (statistics(lambda x: x.mean(0), lambda x: x.var(0)), "variance is unbiased"),
    (lambda *a, **k: layers.BatchNorm1d(*a, **k, correction=1), "variance is unbiased"),
    (output(lambda x, m, v, g, b, e: g * (x - m) / v.sqrt() + b), "eps is forgotten"),
    (output(lambda x, m, v, g, b, e: g * (x - m) / (v.sqrt() + e) + b), "outside the root"),
    (output(lambda x, m, v, g, b, e: g * (x - m) / (v + 1e-5).sqrt() + b), "not the one given"),
    (output(lambda x, m, v, g, b, e: g * (x - m) / (v + e) + b), "divides by the variance"),
    (output(lambda x, m, v, g, b, e: (x - m) / (v + e).sqrt()), "gamma and beta are missing"),
    (output(lambda x, m, v, g, b, e: g * (x - m) / (v + e).sqrt()), "beta is missing"),
    (output(lambda x, m, v, g, b, e: (x - m) / (v + e).sqrt() + b), "gamma is missing"),
    (output(lambda x, m, v, g, b, e: g.data * (x - m) / (v + e).sqrt() + b), "gamma receives no gradient"),
    (output(lambda x, m, v, g, b, e: g * (x - m) / (v + e).sqrt() + b.data), "beta receives no gradient"),
    (set_up(gamma=lambda dim: torch.ones(dim)), "gamma.requires_grad is False"),
    (set_up(beta=lambda dim: torch.zeros(dim)), "beta.requires_grad is False"),
    (statistics(lambda x: x.mean(0).detach(), lambda x: x.var(0, **BIASED).detach()), "detached"),
    (statistics(lambda x: x.mean(0).data, lambda x: x.var(0, **BIASED)), "detached"),
    (statistics(lambda x: x.mean(0), lambda x: x.var(0, **BIASED).data), "detached"),
    (spoilt(forward=forward_under_no_grad), "the output has no gradient"),
    (spoilt(update=biased_update), "stored variance is biased"),
    (spoilt(update=swapped_biased_update), "wrong way round, and the stored variance is biased"),
    (spoilt(update=std_update), "std is stored"),
    (spoilt(update=biased_std_update), "std is stored"),
    (updating(both=lambda old, new, m: 0.999 * old + 0.001 * new), "hard-coded as 0.001"),
    (spoilt(forward=forward_with_graph), "graph of every batch"),
    (updating(both=lambda old, new, m: m * old + (1 - m) * new), "momentum is the wrong way round"),
    (updating(both=lambda old, new, m: new), "overwritten"),
    (updating(both=lambda old, new, m: old), "not updated"),
    (updating(both=lambda old, new, m: old + m * new), "kept whole"),
    (updating(both=lambda old, new, m: 0.9 * old + 0.1 * new), "momentum is hard-coded"),
    (updating(moved, lambda old, new, m: old), "running_var is not updated"),
    (updating(lambda old, new, m: old, moved), "running_mean is not updated"),
    (updating(both=lambda old, new, m: (old + new) / 2), "hard-coded as 0.5"),
    (spoilt(update=doubly_corrected_update), "corrected twice"),
    (spoilt(update=cumulative_update), "momentum=None"),
    (spoilt(__init__=init_shared), "two layers share one tensor as their layer.running_mean"),
    (nn.LayerNorm, "layer = BatchNorm(dim, eps, momentum)"),
    (nn.BatchNorm1d, "layer.gamma does not exist"),
    (TheLectures, "variance is unbiased"),
    (spoilt(forward=forward_always_training), "Eval mode uses the batch's statistics"),
    (spoilt(forward=forward_updates_in_eval), "Eval mode only reads the buffers"),
    (eval_forward(formula=lambda x, m, v, g, b, e: g * (x - m) / v.sqrt() + b), "eps is forgotten"),
    (eval_forward(formula=lambda x, m, v, g, b, e: (x - m) / (v + e).sqrt()), "gamma and beta are missing"),
    (eval_forward(formula=lambda x, m, v, g, b, e: g * (x - m) / (v + e) + b), "divides by the variance"),
    (
        spoilt(statistics=lambda self, x: (self.running_mean + 0, self.running_var + 0)),
        "Train mode normalises by the running",
    ),
    (spoilt(statistics=lambda self, x: (self.running_mean, self.running_var)), "Train mode normalises by the running"),
    (set_up(running_var=lambda dim: torch.zeros(dim)), "running_var starts at 1"),
    (set_up(gamma=lambda dim: nn.Parameter(torch.zeros(dim))), "gamma starts at 1"),
    (set_up(training=False), "train mode"),
    (set_up(running_var=lambda dim: torch.ones(dim, 1)), "shape (5, 1)"),
    (set_up(running_mean=lambda dim: torch.zeros(1)), "shape (1,)"),
    (set_up(running_mean=lambda dim: torch.zeros(3, dim)), "shape (3, 5)"),
    (set_up(gamma=1.0), "gamma is of type float"),
    (spoilt(forward=forward_in_place), "in place"),
    (spoilt(forward=lambda self, x: BatchNorm.forward(self, x).detach().numpy()), "type ndarray"),
    (spoilt(forward=lambda self, x: BatchNorm.forward(self, x)[0]), "shape (5,)"),
    (spoilt(forward=lambda self, x: print(self.statistics(x))), "Did you forget `return`?"),
    (spoilt(forward=lambda self: 0), "takes 1 positional argument"),
    (spoilt(__init__=lambda self, dim: None), "unexpected keyword argument"),
    (BatchNorm(5), "given a layer"),
    (3, "type int"),
]


@pytest.mark.parametrize(("cls", "phrase"), WRONG_BATCH_NORMS)
def test_spoilt_batch_norms_are_rejected_each_with_its_own_message(cls, phrase):
    result = check_batch_norm(cls)
    assert not result
    assert result.status == "wrong"
    assert phrase in str(result)
    assert result.look


def test_a_plain_class_without_gradients_or_parameters_is_told_so():
    cls = type("Untrainable", (LectureStyle,), {"parameters": None})
    assert "gamma.requires_grad is False" in check_batch_norm(cls).difference


# ---- stubs and what else may be handed in

CHECKS = [*RIGHT, check_batch_norm]
FUNCTION_CHECKS = list(RIGHT)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("stub", [..., None])
def test_an_empty_answer_is_not_an_attempt(check, stub):
    assert check(stub).status == "not attempted"


@pytest.mark.parametrize("check", FUNCTION_CHECKS)
@pytest.mark.parametrize("stub", odd_answers.STUBS)
def test_a_stub_is_not_an_attempt(check, stub):
    result = check(stub)
    assert result.status == "not attempted"
    assert not result
    assert "Not attempted" in repr(result)


class Empty: ...


class OnlyInit(nn.Module):
    def __init__(self, dim, eps=1e-5, momentum=0.1):
        super().__init__()
        self.gamma = ...


class StubCall:
    def __init__(self, dim, eps=1e-5, momentum=0.1): ...

    def __call__(self, x):
        return ...


class UntouchedModule(nn.Module):
    def __init__(self, dim, eps=1e-5, momentum=0.1): ...

    def forward(self, x):
        return ...


class Unfinished(LectureStyle):
    def __call__(self, x):
        mean = x.mean(0)
        var = ...
        return (x - mean) / (var + self.eps)


class NotYet:
    def __init__(self, dim, eps=1e-5, momentum=0.1):
        raise NotImplementedError


@pytest.mark.parametrize("stub", [Empty, OnlyInit, StubCall, UntouchedModule, Unfinished, NotYet])
def test_a_class_stub_is_not_an_attempt(stub):
    assert check_batch_norm(stub).status == "not attempted"


@pytest.mark.parametrize("check", FUNCTION_CHECKS)
@pytest.mark.parametrize("value", odd_answers.ODD_VALUES, ids=odd_answers.ODD_IDS)
def test_whatever_an_answer_returns_is_an_answer_to_be_judged(check, value):
    result = check(lambda *args: value)
    assert result.status == "wrong"
    assert str(result)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("answer", odd_answers.NOT_CALLABLE)
def test_what_cannot_be_called_is_refused(check, answer):
    assert "without calling it" in check(answer).misconception


@pytest.mark.parametrize("check", FUNCTION_CHECKS)
@pytest.mark.parametrize(("answer", "phrase"), odd_answers.BROKEN)
def test_broken_code_is_reported_not_raised(check, answer, phrase):
    result = check(answer)
    assert result.status == "wrong"
    assert phrase in str(result)


def test_an_exception_is_shown_with_the_learners_own_line():
    def f(vocab_size):
        return math.log(-vocab_size)

    result = check_initial_loss(f)
    assert "ValueError" in result.difference
    assert f"in line {f.__code__.co_firstlineno + 1}: `return math.log(-vocab_size)`" in result.difference
    assert result.tried == "f(27)"

    source = {}
    exec("def g(vocab_size):\n    return undefined", source)  # noqa: S102 - as typed where no source can be found
    assert check_initial_loss(source["g"]).difference.endswith("name 'undefined' is not defined, in line 2")


def test_an_exception_on_a_later_input_does_not_hide_an_earlier_difference():
    def f(vocab_size):
        return math.log2(vocab_size) if vocab_size == 27 else 1 / 0

    result = check_initial_loss(f)
    assert "expected 3.296, yours is 4.755" in result.difference
    assert "log2" in result.misconception


def test_an_exception_on_a_later_input_is_reported_with_that_input():
    result = check_initial_loss(lambda v: math.log(v) if v == 27 else 1 / 0)
    assert result.tried == "f(2)"
    assert "ZeroDivisionError" in result.difference


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_dead_units, lambda h: (h.abs_() > 0.99).all(0)),
        (check_tanh_gradient, lambda t: t.square_().neg_().add_(1)),
        (check_unigram_entropy, lambda Y: entropy_of_counter(Y.add_(1))),
        (check_build_dataset, lambda w, s, n: (numpy_dataset(w, s, n), w.pop())[0]),
        (check_build_dataset, lambda w, s, n: (numpy_dataset(w, s, n), s.clear())[0]),
        (check_batch_norm_forward, lambda x, g, b, e: F.batch_norm(x.mul_(2), None, None, g, b, True, 0.1, e)),
    ],
)
def test_changing_the_input_in_place_is_refused_and_harms_nobody(check, answer):
    for _ in range(2):  # the second time shows whether the check's own inputs are still whole
        assert "in place" in check(answer).difference
    assert check(RIGHT[check][0])


def test_what_the_code_prints_is_told_not_printed(capsys):
    def f(vocab_size):
        print("vocab", vocab_size)
        return math.log(vocab_size)

    result = check_initial_loss(f)
    assert result
    assert "vocab 27" in result.note
    assert capsys.readouterr().out == ""


# ---- nothing is left behind


@pytest.mark.parametrize("check", CHECKS)
def test_random_states_and_torchs_settings_stay_as_they_were(check):
    random.seed(42), np.random.seed(42), torch.manual_seed(42)  # in no state that an earlier check has left
    before = odd_answers.states()
    for answer in (odd_answers.meddles, RIGHT.get(check, [BatchNorm])[0]):
        check(answer)
        assert odd_answers.states() == before


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_checks_work_where_gradients_are_off(context):
    with context():
        assert check_batch_norm(BatchNorm)
        assert check_tanh_gradient(gradient_by_autograd)
        assert not torch.is_grad_enabled()


def test_random_answers_get_the_same_verdict_every_time():
    def f():
        return torch.randn(100).tanh().square().mean().rsqrt() + random.random() + np.random.rand()

    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    first = repr(check_tanh_gain(f))
    torch.manual_seed(2), random.seed(2), np.random.seed(2)
    assert repr(check_tanh_gain(f)) == first


# ---- how a result looks


def test_a_result_says_what_was_tried_where_it_differs_why_and_where_to_look():
    def my_loss(vocab_size):
        return math.log2(vocab_size)

    assert repr(check_initial_loss(my_loss)) == (
        "Wrong: my_loss(27)\n"
        "  Difference: result: expected 3.296, yours is 4.755\n"
        "  Likely: That is log2: torch's cross-entropy uses the natural log.\n"
        "  Look at: chapter 02, ln 27; the lecture at 4:19, https://youtu.be/P6sfmUTpUmc?t=259"
    )


def test_numbers_that_differ_late_are_shown_to_that_digit():
    assert "expected 3.29583687, yours is 3.29603687" in check_initial_loss(lambda v: math.log(v) + 2e-4).difference


def test_html_escapes_the_learners_text_and_links_the_lecture():
    def f(vocab_size):
        raise ValueError("<script>")

    html = check_initial_loss(f)._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert '<a href="https://youtu.be/P6sfmUTpUmc?t=259">' in html


def test_addresses_in_memory_are_left_out():
    def f(vocab_size):
        raise ValueError(f"odd thing: {object()}")

    assert "0x..." in check_initial_loss(f).difference
    assert repr(check_initial_loss(f)) == repr(check_initial_loss(f))


# ---- properties


@given(st.integers(2, 10**6))
def test_result_is_truthy_only_when_right(n):
    assert not CheckResult("wrong", f"f({n})")
    assert not CheckResult("not attempted", f"f({n})")
    assert CheckResult("right", f"f({n})")


@settings(max_examples=50, deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_wrong_constant_is_never_right_and_never_raises(value):
    for check in (check_initial_loss, check_kaiming_std, check_unigram_entropy):
        assert check(lambda *args: value).status == "wrong"


@settings(max_examples=50, deadline=None)
@given(st.floats(-2, 2), st.floats(-1, 1))
def test_only_the_right_power_law_passes(exponent, power):
    right = math.isclose(exponent, -0.5, abs_tol=1e-9) and math.isclose(power, 1.0, abs_tol=1e-9)
    if right or not (abs(exponent + 0.5) < 1e-4 and abs(power - 1) < 1e-4):
        assert bool(check_kaiming_std(lambda n, g: g**power * n**exponent)) == right


@pytest.mark.parametrize("module", [checks, batch_norm_checks, judge])
def test_no_public_name_goes_without_a_docstring(module):
    for name, value in vars(module).items():
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == module.__name__:
            assert value.__doc__, name
