"""The checks of chapters 06 to 13 accept the right answer in any style, and reject the usual mistakes by their names."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import odd_answers
from helpers import checks, layers
from helpers.checks import (
    check_collapse,
    check_conv_as_linear,
    check_conv_output_size,
    check_fixed_point,
    check_gain_powers,
    check_grad_to_data,
    check_gradient_growth,
    check_linear,
    check_saturated_share,
    check_update_ratio,
)
from helpers.checks import linear as linear_checks
from helpers.checks import network as network_checks
from helpers.checks import statistics as statistics_checks

# ---- right answers, in more than one style


def conv_by_unfold(x, weight, stride, padding):
    n, _, height, _ = x.shape
    k = weight.shape[-1]
    patches = F.unfold(x, k, stride=stride, padding=padding)
    out = weight.flatten(1) @ patches
    return out.view(n, len(weight), (height + 2 * padding - k) // stride + 1, -1)


def conv_by_strides(x, weight, stride, padding):
    patches = F.pad(x, (padding,) * 4).unfold(2, weight.shape[-1], stride).unfold(3, weight.shape[-1], stride)
    return torch.einsum("nchwij,ocij->nohw", patches, weight)


def conv_in_loops(x, weight, stride, padding):
    x = np.pad(x.numpy(), [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    k = weight.shape[-1]
    rows, columns = range(0, x.shape[2] - k + 1, stride), range(0, x.shape[3] - k + 1, stride)
    flat = weight.numpy().reshape(len(weight), -1)
    return np.array(
        [[[flat @ image[:, i : i + k, j : j + k].ravel() for j in columns] for i in rows] for image in x]
    ).transpose(0, 3, 1, 2)


def fixed_point_by_iteration(gain, *, steps=2_000, points=401):
    z, std = np.linspace(-8, 8, points), 1.0
    p = np.exp(-(z**2) / 2)
    for _ in range(steps):
        std = np.sqrt((np.tanh(gain * std * z) ** 2 * p).sum() / p.sum())
    return std


def fixed_point_by_bisection(gain):
    """The s with s^2 = E[tanh(gain * s * z)^2], by Gauss-Hermite quadrature."""
    if gain <= 1:
        return 0
    z, p = np.polynomial.hermite_e.hermegauss(100)
    low, high = 1e-3, 1.0
    while high - low > 1e-6:
        s = (low + high) / 2
        low, high = (s, high) if (np.tanh(gain * s * z) ** 2) @ p / p.sum() > s**2 else (low, s)
    return low


def growth_by_samples(gain, std):
    return gain**2 * (1 - (std * torch.randn(2_000_000)).tanh() ** 2).square().mean()


def growth_by_hermite(gain, std):
    z, p = np.polynomial.hermite_e.hermegauss(120)
    return float(gain**2 * (np.cosh(std * z) ** -4.0 @ p) / p.sum())


def collapse_in_a_loop(weights, biases):
    W, b = weights[0], biases[0]
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        W, b = W @ weight, b @ weight + bias
    return W, b


def collapse_by_probing(weights, biases):
    """The bias is where zero goes, the rows of W are where the unit vectors go."""

    def stack(x):
        for W, b in zip(weights, biases, strict=True):
            x = x @ W + b
        return x

    b = stack(torch.zeros(1, len(weights[0])))
    return stack(torch.eye(len(weights[0]))) - b, b


def collapse_in_numpy(weights, biases):
    W, b = np.eye(len(weights[0])), np.zeros(len(weights[0]))
    for weight, bias in zip(weights, biases, strict=True):
        W, b = W @ weight.numpy(), b @ weight.numpy() + bias.numpy()
    return [W.tolist(), b.tolist()]


RIGHT = {
    check_conv_output_size: [
        lambda size, kernel_size, stride, padding: (size + 2 * padding - kernel_size) // stride + 1,
        lambda n, k, s, p: math.floor((n + 2 * p - k) / s + 1),
        lambda n, k, s, p: (n + 2 * p - (k - 1) - 1) // s + 1.0,
        lambda n, k, s, p: len(range(0, n + 2 * p - k + 1, s)),
        lambda n, k, s, p: nn.Conv2d(1, 1, k, s, p)(torch.zeros(1, 1, n, n)).shape[-1],
    ],
    check_conv_as_linear: [
        conv_by_unfold,
        conv_by_strides,
        conv_in_loops,
        lambda x, weight, stride, padding: F.conv2d(x, weight, stride=stride, padding=padding),
    ],
    check_saturated_share: [
        lambda t, threshold: (t.abs() > threshold).float().mean(),
        lambda t, threshold: (t.abs() >= threshold).sum().item() / t.numel(),
        lambda t, threshold: ((t > threshold) | (t < -threshold)).double().mean(),
        lambda t, threshold: np.mean(np.abs(t.numpy()) > threshold),
        lambda t, threshold: (t.abs() > threshold).float().mean(0).mean(),
        lambda t, threshold: sum(abs(v) > threshold for row in t.tolist() for v in row) / t.numel(),
    ],
    check_fixed_point: [
        fixed_point_by_iteration,
        fixed_point_by_bisection,
        lambda gain: torch.tensor(fixed_point_by_iteration(gain, points=201), dtype=torch.float32),
        lambda gain: fixed_point_by_iteration(gain, steps=100),
    ],
    check_gradient_growth: [growth_by_samples, growth_by_hermite],
    check_collapse: [collapse_in_a_loop, collapse_by_probing, collapse_in_numpy],
    check_grad_to_data: [
        lambda data, grad: grad.std() / data.std(),
        lambda data, grad: (grad.std() / data.std()).item(),
        lambda data, grad: grad.numpy().std() / data.numpy().std(),
        lambda data, grad: (grad.var() / data.var()) ** 0.5,
        lambda data, grad: (grad - grad.mean()).norm() / (data - data.mean()).norm(),
    ],
    check_update_ratio: [
        lambda parameter, update: (update.std() / parameter.std()).log10(),
        lambda parameter, update: (update.std() / parameter.std()).log10().item(),
        lambda parameter, update: math.log10(update.std() / parameter.std()),
        lambda parameter, update: update.std().log10() - parameter.std().log10(),
        lambda parameter, update: np.log10(np.std(update.numpy()) / np.std(parameter.numpy())),
        lambda parameter, update: (update.std() / parameter.std()).log() / math.log(10),
    ],
}


@pytest.mark.parametrize(
    ("check", "answer"), [(check, answer) for check, answers in RIGHT.items() for answer in answers]
)
def test_right_answers_are_accepted_in_any_style(check, answer):
    result = check(answer)
    assert result, result
    assert not result.note


# ---- wrong answers, and the phrase that names the mistake


def flipped(x, weight, stride, padding):
    return conv_by_unfold(x, weight.flip(-1, -2), stride, padding)


def channels_last_weight(x, weight, stride, padding):
    return conv_by_unfold(x, weight.permute(0, 2, 3, 1).reshape(weight.shape), stride, padding)


def rows_for_columns(x, weight, stride, padding):
    return conv_by_unfold(x, weight.mT.reshape(weight.shape), stride, padding)


def viewed_without_transpose(x, weight, stride, padding):
    patches = F.unfold(x, weight.shape[-1], stride=stride, padding=padding).mT
    return (patches @ weight.flatten(1).T).reshape(conv_by_unfold(x, weight, stride, padding).shape)


def still_a_row(x, weight, stride, padding):
    return weight.flatten(1) @ F.unfold(x, weight.shape[-1], stride=stride, padding=padding)


def width_first(x, weight, stride, padding):
    out = conv_by_unfold(x, weight, stride, padding)
    return out.reshape(*out.shape[:2], out.shape[3], out.shape[2])


def share(t, threshold):
    return (t.abs() > threshold).float()


def product(weights):
    return torch.linalg.multi_dot(weights) if len(weights) > 1 else weights[0]


def fixed(step, steps=500):
    std = 1.0
    for _ in range(steps):
        std = step(std)
    return std


Z = torch.linspace(-8, 8, 2001, dtype=torch.float64)
P = torch.softmax(-(Z**2) / 2, 0)


def mean(values):
    return (P * values).sum().item()


def rms(std):
    return mean((std * Z).tanh() ** 2) ** 0.5


def slope(std, power=2):
    return mean((1 - (std * Z).tanh() ** 2) ** power)


WRONG = {
    check_conv_output_size: [
        (lambda n, k, s, p: (n + 2 * p - k) // s, "+ 1 is missing"),
        (lambda n, k, s, p: (n + 2 * p - k) / s + 1, "rounded down"),
        (lambda n, k, s, p: math.ceil((n + 2 * p - k) / s) + 1, "rounded down"),
        (lambda n, k, s, p: (n + p - k) // s + 1, "added once"),
        (lambda n, k, s, p: n + 2 * p - k + 1, "stride is ignored"),
        (lambda n, k, s, p: (n - k) // s + 1, "padding is ignored"),
        (lambda n, k, s, p: (n - k) // s + 1 + 2 * p, "after the division"),
        (lambda n, k, s, p: (n - 2 * p - k) // s + 1, "taken away"),
        (lambda n, k, s, p: (n + 2 * p) // s, "kernel_size is ignored"),
        (lambda n, k, s, p: n // s, "size over the stride"),
        (lambda n, k, s, p: (n + 2 * p - k + 1) // s, "inside the division"),
        (lambda n, k, s, p: (n + 2 * p - k) // s - 1, "None of the usual"),
        (lambda n, k, s, p: 112, "same for every input"),
        (lambda n, k, s, p: (112, 112), "shape (2,)"),
    ],
    check_conv_as_linear: [
        (flipped, "kernel is flipped"),
        (channels_last_weight, "another order"),
        (rows_for_columns, "rows and columns have changed places"),
        (viewed_without_transpose, "view and reshape only relabel"),
        (still_a_row, "still one row"),
        (lambda *args: still_a_row(*args).mT, "before the channels"),
        (lambda *args: conv_by_unfold(*args).mT, "Height and width have changed places"),
        (lambda *args: conv_by_unfold(*args).permute(0, 2, 3, 1), "channels come last"),
        (lambda *args: conv_by_unfold(*args).transpose(0, 1), "Batch and channels"),
        (width_first, "result has shape"),
        (lambda x, w, s, p: conv_by_unfold(x, w, s, 0), "padding is ignored"),
        (lambda x, w, s, p: conv_by_unfold(x, w, 1, p), "stride is ignored"),
        (lambda x, w, s, p: conv_by_unfold(x, w, 1, 0), "Stride and padding are ignored"),
        (lambda x, w, s, p: conv_by_unfold(x, w, s, p) / w[0].numel(), "average"),
        (lambda x, w, s, p: x @ w, "your code raised RuntimeError"),
        (lambda x, w, s, p: x.mul_(2), "in place"),
    ],
    check_saturated_share: [
        (lambda t, threshold: (t > threshold).float().mean(), "negative side"),
        (lambda t, threshold: (t < -threshold).float().mean(), "positive side"),
        (lambda t, threshold: share(t, threshold).sum(), "count"),
        (lambda t, threshold: 100 * share(t, threshold).mean(), "percentage"),
        (lambda t, threshold: 1 - share(t, threshold).mean(), "not saturated"),
        (lambda t, threshold: share(t, 0.97).mean(), "0.97 is written"),
        (lambda t, threshold: share(t, 0.99).mean(), "0.99 is written"),
        (lambda t, threshold: share(t, threshold).mean(0), "one share per unit"),
        (lambda t, threshold: share(t, threshold).mean(1), "one share per example"),
        (lambda t, threshold: t.abs() > threshold, "not a comparison"),
        (lambda t, threshold: (t.abs() > threshold).any(0).float().mean(), "which units"),
        (lambda t, threshold: (t.abs() > threshold).any(1).float().mean(), "which examples"),
        (lambda t, threshold: (t.abs() > threshold).all(0).float().mean(), "dead units"),
        (lambda t, threshold: (t.abs() > threshold).all(1).float().mean(), "examples that saturate"),
        (lambda t, threshold: share(t.tanh(), threshold).mean(), "second time"),
        (lambda t, threshold: share(t, threshold).sum() / len(t), "number of examples"),
        (lambda t, threshold: (t.abs() > threshold).any(), "truth value"),
        (lambda t, threshold: t.abs_().gt(threshold).float().mean(), "in place"),
    ],
    check_fixed_point: [
        (lambda gain: gain * fixed_point_by_bisection(gain), "std of the pre-activations"),
        (lambda gain: fixed_point_by_bisection(gain) ** 2, "variance"),
        (lambda gain: rms(gain), "after 1 layer:"),
        (lambda gain: fixed(lambda s: rms(gain * s), 5), "after 5 layers"),
        (lambda gain: fixed(lambda s: rms(gain * s), 20), "after 20 layers"),
        (lambda gain: fixed(lambda s: math.tanh(gain * s)), "as if it were a value"),
        (math.tanh, "tanh of the gain"),
        (lambda gain: fixed(lambda s: rms((gain * s) ** 0.5)), "taken for a variance"),
        (lambda gain: fixed(lambda s: rms(gain**0.5 * s)), "gain is rooted"),
        (lambda gain: fixed(lambda s: rms(gain**2 * s)), "gain is squared"),
        (lambda gain: fixed(lambda s: mean((gain * s * Z).tanh().abs())), "|tanh(z)|"),
        (lambda gain: fixed_point_by_bisection(5 / 3), "5/3 is written"),
        (lambda gain: 0.6513, "5/3 is written"),
        (lambda gain: fixed_point_by_bisection(gain) or gain, "the std there is 0"),
        (lambda gain: gain, "Tanh is left out"),
        (lambda gain: 0.0, "same for every input"),
        (lambda gain: torch.randn(1000, generator=torch.Generator()) * gain, "shape (1000,)"),
    ],
    check_gradient_growth: [
        (lambda gain, std: gain * slope(std) ** 0.5, "factor on the std"),
        (lambda gain, std: gain**2 * slope(std, 1), "square of the local gradient is missing"),
        (lambda gain, std: gain**2 * slope(std, 1) ** 2, "mean is squared"),
        (lambda gain, std: gain * slope(std), "gain is not squared"),
        (lambda gain, std: slope(std), "gain is missing"),
        (lambda gain, std: gain**2, "tanh is missing"),
        (lambda gain, std: gain**2 * slope(1.0), "std is ignored"),
        (lambda gain, std: gain**2 * slope(std**0.5), "taken for a variance"),
        (lambda gain, std: gain**2 * slope(std**2), "std is squared"),
        (lambda gain, std: gain**2 * slope(gain * std), "used twice"),
        (lambda gain, std: gain**2 * (1 - math.tanh(std) ** 2) ** 2, "at z = std"),
        (lambda gain, std: gain**2 * rms(std) ** 2, "going forward"),
        (lambda gain, std: 1 / (gain**2 * slope(std)), "upside down"),
        (lambda gain, std: 1.21, "same for every input"),
        (lambda gain, std: gain**2 * slope(std) + 0.005, "None of the usual"),
    ],
    check_collapse: [
        (lambda w, b: (product(w[::-1]), collapse_in_a_loop(w, b)[1]), "wrong order"),
        (lambda w, b: collapse_in_a_loop(w[::-1], b[::-1]), "wrong order"),
        (lambda w, b: (product(w), sum(b)), "passes through all"),
        (lambda w, b: (product(w), b[-1]), "Only the last bias"),
        (lambda w, b: (product(w), torch.zeros(w[-1].shape[1])), "biases are left out"),
        (lambda w, b: (product(w), collapse_in_a_loop(w, b)[1] - b[-1]), "last bias is left out"),
        (lambda w, b: (product(w).T, collapse_in_a_loop(w, b)[1]), "transposed"),
        (lambda w, b: (sum(w), sum(b)), "matrices are added"),
        (lambda w, b: (math.prod(w), collapse_in_a_loop(w, b)[1]), "entry by entry"),
        (lambda w, b: collapse_in_a_loop(w[:2], b[:2]), "first two layers"),
        (lambda w, b: collapse_in_a_loop(w, b)[::-1], "changed places"),
        (lambda w, b: product(w), "return W, b"),
        (lambda w, b: (product(w), b, None), "3 things"),
        (lambda w, b: (product(w), None), "it returned an object of type tuple"),
        (lambda w, b: (w.pop(), b[-1]), "in place"),
        (lambda w, b: (w[0].mul_(2), b[-1]), "in place"),
    ],
    check_grad_to_data: [
        (lambda data, grad: data.std() / grad.std(), "upside down"),
        (lambda data, grad: (grad.std() / data.std()).log10(), "log10 of the ratio"),
        (lambda data, grad: (grad.std() / data.std()).log(), "That is the log"),
        (lambda data, grad: grad.abs().mean() / data.abs().mean(), "mean absolute"),
        (lambda data, grad: grad.norm() / data.norm(), "norms"),
        (lambda data, grad: grad.var() / data.var(), "variances"),
        (lambda data, grad: (grad / data).std(), "std of the quotients"),
        (lambda data, grad: (grad / data).abs().mean(), "mean of the quotients"),
        (lambda data, grad: grad.std(0) / data.std(0), "per column"),
        (lambda data, grad: grad.std(), "grad's std alone"),
        (lambda data, grad: 0.1 * grad.std() / data.std(), "learning rate"),
        (lambda data, grad: grad.std() / np.std(data.numpy()), "N - 1"),
        (lambda data, grad: grad / data, "shape (6, 4)"),
    ],
    check_update_ratio: [
        (lambda parameter, update: (update.std() / parameter.std()).log(), "natural log"),
        (lambda parameter, update: (update.std() / parameter.std()).log2(), "log2"),
        (lambda parameter, update: update.std() / parameter.std(), "log is missing"),
        (lambda parameter, update: (parameter.std() / update.std()).log10(), "sign is wrong"),
        (lambda parameter, update: (update.abs().mean() / parameter.abs().mean()).log10(), "mean absolute"),
        (lambda parameter, update: (update.norm() / parameter.norm()).log10(), "norms"),
        (lambda parameter, update: (update.var() / parameter.var()).log10(), "variances"),
        (lambda parameter, update: (0.1 * update.std() / parameter.std()).log10(), "learning rate"),
        (lambda parameter, update: update.std().log10() / parameter.std().log10(), "difference of logs"),
        (lambda parameter, update: update.std().log10(), "the update's std alone"),
        (lambda parameter, update: (update.std(0) / parameter.std(0)).log10(), "per column"),
        (lambda parameter, update: (update / parameter).abs().log10().mean(), "each entry"),
        (lambda parameter, update: (update.std() / (parameter + update).std()).log10(), "added first"),
        (lambda parameter, update: math.log10(update.mean() / parameter.mean()), "your code raised"),
        (lambda parameter, update: update.div_(parameter).std().log10(), "in place"),
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
    for sentence, wrong in odd_answers.listed_mistakes(check, monkeypatch):
        assert check(wrong).misconception == sentence


# ---- Linear, spoilt in one place at a time


class Linear(nn.Module):
    """Right as it stands; its subclasses spoil one thing each."""

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()
        self.weight = nn.Parameter(self.draw(fan_in, fan_out))
        self.bias = nn.Parameter(self.start(fan_out)) if bias else None

    def draw(self, fan_in, fan_out):
        return torch.randn(fan_in, fan_out) / fan_in**0.5

    def start(self, fan_out):
        return torch.zeros(fan_out)

    def forward(self, x):
        return self.output(x, self.weight, 0 if self.bias is None else self.bias)

    def output(self, x, weight, bias):
        return x @ weight + bias


class LectureStyle:
    """A plain class as in the lecture: whoever trains it switches the gradients of parameters() on."""

    def __init__(self, fan_in, fan_out, bias=True):
        self.weight = torch.randn((fan_in, fan_out)) / fan_in**0.5
        self.bias = torch.zeros(fan_out) if bias else None

    def __call__(self, x):
        self.out = x @ self.weight
        if self.bias is not None:
            self.out += self.bias
        return self.out

    def parameters(self):
        return [self.weight] + ([] if self.bias is None else [self.bias])


class WithGradients(LectureStyle):
    """Tensors that require grad from the start."""

    def __init__(self, fan_in, fan_out, bias=True):
        self.weight = torch.normal(0, fan_in**-0.5, (fan_in, fan_out)).requires_grad_()
        self.bias = torch.zeros(1, fan_out, requires_grad=True) if bias else None


class WithoutParameters(LectureStyle):
    parameters = None

    def __init__(self, fan_in, fan_out, bias=True):
        self.weight = nn.init.kaiming_normal_(torch.empty(fan_in, fan_out), mode="fan_out", nonlinearity="linear")
        self.bias = torch.zeros(fan_out) if bias else None


class Uniform(Linear):
    """Not normal, but of the right std."""

    def draw(self, fan_in, fan_out):
        return (torch.rand(fan_in, fan_out) - 0.5) * (12 / fan_in) ** 0.5


class FromNumpy(Linear):
    def draw(self, fan_in, fan_out):
        return torch.from_numpy(np.random.randn(fan_in, fan_out) / np.sqrt(fan_in)).float()

    def output(self, x, weight, bias):
        return torch.einsum("...i,ij->...j", x, weight) + bias


class OnLinear(Linear):
    def forward(self, x):
        return F.linear(x, self.weight.T, self.bias)


GENERATOR = torch.Generator().manual_seed(2147483647)


class OneGenerator(LectureStyle):
    def __init__(self, fan_in, fan_out, bias=True):
        self.weight = torch.randn((fan_in, fan_out), generator=GENERATOR) * fan_in**-0.5
        self.bias = torch.zeros(fan_out) if bias else None


class NoOut(LectureStyle):
    def __call__(self, x):
        return x @ self.weight + (0 if self.bias is None else self.bias)


@pytest.mark.parametrize(
    "cls",
    [
        Linear,
        LectureStyle,
        WithGradients,
        WithoutParameters,
        Uniform,
        FromNumpy,
        OnLinear,
        OneGenerator,
        layers.Linear,
        lambda fan_in, fan_out, bias=True: layers.Linear(fan_in, fan_out, bias),
    ],
)
def test_right_linears_are_accepted(cls):
    result = check_linear(cls)
    assert result, result
    assert not result.note


def test_a_plain_class_that_keeps_no_output_is_right_and_told_so():
    result = check_linear(NoOut)
    assert result
    assert "layer.out" in result.note


def spoilt(base=Linear, **methods):
    return type("Spoilt", (base,), methods)


def drawn(formula):
    return spoilt(draw=lambda self, n, m: formula(n, m))


def computed(formula):
    return spoilt(output=lambda self, x, w, b: formula(x, w, b))


def kaiming(**options):
    return drawn(lambda n, m: nn.init.kaiming_normal_(torch.empty(n, m), **options))


def init_shared(self, fan_in, fan_out, bias=True, table={}):  # noqa: B006 - the mistake
    LectureStyle.__init__(self, fan_in, fan_out, bias)
    self.weight = table.setdefault((fan_in, fan_out), self.weight)


def init_seeded(self, fan_in, fan_out, bias=True):
    generator = torch.Generator().manual_seed(2147483647)
    LectureStyle.__init__(self, fan_in, fan_out, bias)
    self.weight = torch.randn((fan_in, fan_out), generator=generator) / fan_in**0.5


def init_plain_tensors(self, fan_in, fan_out, bias=True):
    nn.Module.__init__(self)
    self.weight = torch.randn(fan_in, fan_out) / fan_in**0.5
    self.bias = torch.zeros(fan_out) if bias else None


def init_not_a_leaf(self, fan_in, fan_out, bias=True):
    self.weight = torch.randn((fan_in, fan_out), requires_grad=True) / fan_in**0.5
    self.bias = torch.zeros(fan_out) if bias else None


def init_always_bias(self, fan_in, fan_out, bias=True):
    Linear.__init__(self, fan_in, fan_out)


def init_keyword_only(self, fan_in, fan_out, *, bias=True):
    Linear.__init__(self, fan_in, fan_out, bias)


def init_bias_missing(self, fan_in, fan_out, bias=True):
    LectureStyle.__init__(self, fan_in, fan_out, bias)
    if not bias:
        del self.bias


def init_without_bias_argument(self, fan_in, fan_out):
    LectureStyle.__init__(self, fan_in, fan_out)


def call_keeps_the_product(self, x):
    self.out = x @ self.weight
    return self.out if self.bias is None else self.out + self.bias


def call_keeps_the_first(self, x):
    out = x @ self.weight + (0 if self.bias is None else self.bias)
    self.out = getattr(self, "out", out)
    return out


def call_under_no_grad(self, x):
    with torch.no_grad():
        return x @ self.weight + (0 if self.bias is None else self.bias)


def call_in_place(self, x):
    x *= 2
    return (x / 2) @ self.weight + (0 if self.bias is None else self.bias)


WRONG_LINEARS = [
    (nn.Linear, "nn.Linear's layout"),
    (drawn(lambda n, m: torch.randn(m, n) / n**0.5), "nn.Linear's layout"),
    (drawn(lambda n, m: torch.randn(n, m)), "1/sqrt(fan_in) is missing"),
    (drawn(lambda n, m: torch.randn(n, m) / m**0.5), "1/sqrt(fan_out)"),
    (drawn(lambda n, m: torch.randn(n, m) / n), "1/fan_in"),
    (drawn(lambda n, m: torch.randn(n, m) * n**0.5), "multiplies by sqrt(fan_in)"),
    (drawn(lambda n, m: torch.empty(n, m).uniform_(-(n**-0.5), n**-0.5)), "nn.Linear's default"),
    (drawn(lambda n, m: nn.Linear(n, m).weight.detach().T.contiguous()), "nn.Linear's default"),
    (drawn(lambda n, m: nn.init.kaiming_uniform_(torch.empty(n, m), a=5**0.5)), "1/sqrt(3 fan_out)"),
    (drawn(lambda n, m: nn.init.xavier_normal_(torch.empty(n, m))), "Xavier"),
    (kaiming(), 'mode="fan_out"'),
    (kaiming(nonlinearity="linear"), "1/sqrt(fan_out)"),
    (kaiming(nonlinearity="tanh"), "5/3/sqrt(fan_out)"),
    (kaiming(mode="fan_out"), "ReLU's gain"),
    (drawn(lambda n, m: torch.randn(n, m) * 5 / 3 / n**0.5), "gain of 5/3"),
    (drawn(lambda n, m: torch.randn(n, m) * 0.2), "0.2 is hard-coded"),
    (drawn(lambda n, m: torch.rand(n, m) / n**0.5), "torch.rand is uniform"),
    (drawn(lambda n, m: torch.rand(n, m)), "torch.rand is uniform"),
    (drawn(torch.zeros), "All weights are the same"),
    (drawn(torch.ones), "All weights are the same"),
    (drawn(lambda n, m: torch.randn(n, m) / n**0.5 + 0.05), "root mean square"),
    (drawn(lambda n, m: torch.randn(1, n, m) / n**0.5), "shape (3,)"),
    (spoilt(start=lambda self, m: torch.randn(m)), "bias starts at zero"),
    (spoilt(start=lambda self, m: torch.ones(m)), "bias starts at zero"),
    (spoilt(start=lambda self, m: torch.zeros(m, 1)), "layer.bias has shape (5, 1)"),
    (spoilt(start=lambda self, m: torch.zeros(1)), "layer.bias has shape (1,)"),
    (spoilt(__init__=init_always_bias), "although bias=False"),
    (spoilt(__init__=init_keyword_only), "takes 3 positional arguments but 4"),
    (spoilt(LectureStyle, __init__=init_bias_missing), "layer.bias does not exist"),
    (spoilt(LectureStyle, __init__=init_without_bias_argument), "unexpected keyword argument"),
    (spoilt(LectureStyle, __init__=init_shared), "two layers share one tensor as their layer.weight"),
    (spoilt(LectureStyle, __init__=init_seeded), "both start with the same numbers"),
    (spoilt(__init__=init_plain_tensors), "in an nn.Module make it an nn.Parameter"),
    (spoilt(LectureStyle, __init__=init_not_a_leaf), "computed from another tensor"),
    (spoilt(LectureStyle, parameters=lambda self: [self.weight]), "layer.bias is not among"),
    (spoilt(LectureStyle, parameters=lambda self: []), "layer.weight is not among"),
    (spoilt(LectureStyle, __call__=call_keeps_the_product), "layer.out is not"),
    (spoilt(LectureStyle, __call__=call_keeps_the_first), "layer.out is not"),
    (spoilt(LectureStyle, __call__=call_under_no_grad), "no gradient"),
    (spoilt(LectureStyle, __call__=call_in_place), "in place"),
    (spoilt(LectureStyle, __call__=lambda self, x: print(x.shape)), "Did you forget `return`?"),
    (spoilt(LectureStyle, __call__=lambda self: 0), "takes 1 positional argument"),
    (computed(lambda x, w, b: x @ w), "bias is not added"),
    (computed(lambda x, w, b: x @ w - b), "bias is subtracted"),
    (computed(lambda x, w, b: x @ w.T + b), "weight is transposed"),
    (computed(lambda x, w, b: x @ w / len(w) ** 0.5 + b), "divides once more"),
    (computed(lambda x, w, b: (x @ w + b).tanh()), "A tanh is part"),
    (computed(lambda x, w, b: (x @ w + b).relu()), "A ReLU is part"),
    (computed(lambda x, w, b: x @ w + 2 * b), "None of the usual"),
    (computed(lambda x, w, b: x.mm(w) + b), "your code raised RuntimeError"),
    (computed(lambda x, w, b: (x @ w + b).mean(1)), "output has shape"),
    (computed(lambda x, w, b: (x @ w + b).detach().numpy()), "type ndarray"),
    (computed(lambda x, w, b: x @ w.data + b), "weight receives no gradient"),
    (computed(lambda x, w, b: x @ w + (b.data if torch.is_tensor(b) else b)), "bias receives no gradient"),
    (computed(lambda x, w, b: x.detach() @ w + b), "x receives no gradient"),
    (Linear(3, 5), "given a layer"),
    (3, "type int"),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "phrase"), WRONG_LINEARS)
def test_spoilt_linears_are_rejected_each_with_its_own_message(cls, phrase):
    result = check_linear(cls)
    assert not result
    assert result.status == "wrong"
    assert phrase in str(result)
    assert result.misconception
    assert result.look


class Empty: ...


class UntouchedStub:
    def __init__(self, fan_in, fan_out, bias=True):
        self.weight = ...
        self.bias = ...

    def __call__(self, x):
        return ...

    def parameters(self):
        return ...


class StubThatKeeps(UntouchedStub):
    def __call__(self, x):
        self.out = ...
        return self.out


class HalfFilled(UntouchedStub):
    def __call__(self, x):
        self.out = x @ self.weight + self.bias
        return self.out


class StubModule(nn.Module):
    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()

    def forward(self, x):
        raise NotImplementedError


class OnlyInit(nn.Module):
    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()


@pytest.mark.parametrize("stub", [None, ..., Empty, UntouchedStub, StubThatKeeps, HalfFilled, StubModule, OnlyInit])
def test_a_stub_of_a_class_is_not_an_attempt(stub):
    assert check_linear(stub).status == "not attempted"


# ---- the powers of the gain

POWERS = {
    "linear output": 1,
    "batch norm output": 0,
    "gradient at batch norm output": 0,
    "gradient at linear output": -1,
    "weight gradient": -1,
    "update:data of the weight": -2,
}


def measured_powers():
    """The slope of log std over log gain, between gain 1 and 2, in the middle of a network with BatchNorm."""
    stds = []
    for gain in (1.0, 2.0):
        generator = torch.Generator().manual_seed(1)
        x, y = torch.randn(64, 30, generator=generator), torch.randint(0, 5, (64,), generator=generator)
        net = nn.Sequential()
        for n, m in ((30, 50), (50, 50), (50, 5)):
            linear = layers.Linear(n, m, bias=False, gain=gain, generator=generator)
            net.extend([linear, layers.BatchNorm1d(m, eps=0), nn.Tanh()])
        kept, out = [x], x
        for layer in net[:-1]:
            out = layer(out)
            out.retain_grad()
            kept.append(out)
        F.cross_entropy(out, y).backward()
        weight, linear, norm = net[3].weight, kept[4], kept[5]
        tensors = [linear, norm, norm.grad, linear.grad, weight.grad]
        stds.append([t.std().item() for t in tensors] + [(weight.grad.std() / weight.std()).item()])
    return {key: math.log2(b / a) for key, a, b in zip(POWERS, *stds, strict=True)}


def test_the_powers_that_the_check_expects_are_those_of_a_network():
    for key, power in measured_powers().items():
        assert power == pytest.approx(POWERS[key], abs=1e-3)
        assert statistics_checks.GAIN_POWERS[key][0] == POWERS[key]


@pytest.mark.parametrize("number", [int, float, np.int64, torch.tensor, Fraction, lambda v: [v]])
def test_right_powers_are_accepted_as_any_kind_of_number(number):
    assert check_gain_powers({key: number(power) for key, power in reversed(POWERS.items())})


@pytest.mark.parametrize(
    ("key", "power", "phrase"),
    [
        ("linear output", 0, "its own output still has it"),
        ("linear output", 2, "variance"),
        ("linear output", -1, "not divided"),
        ("batch norm output", 1, "takes away again"),
        ("gradient at batch norm output", 1, "the next BatchNorm divides"),
        ("gradient at batch norm output", -1, "the next BatchNorm divides"),
        ("gradient at linear output", 0, "this one is before it"),
        ("gradient at linear output", 1, "wrong way round"),
        ("gradient at linear output", -2, "divided once"),
        ("weight gradient", 0, "That one does depend"),
        ("weight gradient", 1, "does not enter its own gradient"),
        ("weight gradient", -2, "not divided a second time"),
        ("update:data of the weight", -1, "the update alone"),
        ("update:data of the weight", 0, "do not cancel"),
        ("update:data of the weight", 1, "the weight alone"),
        ("update:data of the weight", 2, "upside down"),
        ("update:data of the weight", -3, "Measure it"),
        ("weight gradient", 0.5, "Measure it"),
        ("weight gradient", math.nan, "Measure it"),
        ("weight gradient", "-1", "type str"),
        ("weight gradient", object(), "type object"),
        ("batch norm output", False, "truth value"),
    ],
)
def test_a_wrong_power_is_told_why_without_the_right_one(key, power, phrase):
    result = check_gain_powers({**POWERS, key: power})
    assert result.status == "wrong"
    assert repr(key) in result.tried
    assert phrase in str(result)
    assert "expected" not in str(result)


def test_wrong_keys_are_named():
    renamed = {key.replace("weight gradient", "weight grad"): power for key, power in POWERS.items()}
    result = check_gain_powers(renamed)
    assert "'weight grad' is not asked for" in result.difference
    assert "'weight gradient' is missing" in result.difference
    assert "'weight gradient'" in result.misconception
    assert check_gain_powers([1, 0, 0, -1, -1, -2]).status == "wrong"
    assert "type function" in str(check_gain_powers(lambda: POWERS))


@pytest.mark.parametrize(
    "stub", [None, ..., {}, dict.fromkeys(POWERS, ...), dict.fromkeys(POWERS), {**POWERS, "weight gradient": ...}]
)
def test_powers_to_be_filled_in_are_not_an_attempt(stub):
    assert check_gain_powers(stub).status == "not attempted"


# ---- stubs, broken code, odd values


@pytest.mark.parametrize("check", RIGHT)
@pytest.mark.parametrize("stub", [None, ..., *odd_answers.STUBS])
def test_a_stub_is_not_an_attempt(check, stub):
    assert check(stub).status == "not attempted"


@pytest.mark.parametrize("check", RIGHT)
@pytest.mark.parametrize("value", odd_answers.ODD_VALUES, ids=odd_answers.ODD_IDS)
def test_whatever_an_answer_returns_is_an_answer_to_be_judged(check, value):
    result = check(lambda *args: value)
    assert result.status == "wrong"
    assert str(result)


@pytest.mark.parametrize("check", [*RIGHT, check_linear])
@pytest.mark.parametrize("answer", odd_answers.NOT_CALLABLE)
def test_what_cannot_be_called_is_refused(check, answer):
    assert "without calling it" in check(answer).misconception


@pytest.mark.parametrize("check", RIGHT)
@pytest.mark.parametrize(("answer", "phrase"), odd_answers.BROKEN)
def test_broken_code_is_reported_not_raised(check, answer, phrase):
    result = check(answer)
    assert result.status == "wrong"
    assert phrase in str(result)


@pytest.mark.parametrize("check", [*RIGHT, check_linear])
def test_random_states_and_torchs_settings_stay_as_they_were(check):
    before = odd_answers.states()
    for answer in (odd_answers.meddles, RIGHT.get(check, [Linear])[0]):
        check(answer)
        assert odd_answers.states() == before


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_checks_work_where_gradients_are_off(context):
    with context():
        assert check_linear(Linear)
        assert check_conv_as_linear(conv_by_unfold)


@pytest.mark.parametrize("module", [linear_checks, network_checks, statistics_checks])
def test_every_public_function_has_a_docstring_and_is_handed_on(module):
    for name, value in vars(module).items():
        if name.startswith("check_"):
            assert value.__doc__
            assert getattr(checks, name) is value
            assert name in checks.__all__


# ---- how a result reads


def test_a_listed_mistake_that_cannot_take_an_input_is_passed_over():
    def patched(weights, biases):  # the sum of the biases, which no rectangular stack allows
        return product(weights), sum(biases) if len({len(b) for b in biases}) == 1 else biases[-1]

    result = check_collapse(patched)
    assert "None of the usual" in result.misconception
    assert "weights of shapes (4, 4), (4, 4), (4, 4)" in result.tried
    assert "1:32:07, https" in result.look


def test_of_a_matrix_only_the_column_in_question_is_shown():
    square_only = computed(lambda x, w, b: x @ w + (b if w.shape[0] == w.shape[1] else 0))
    tried = check_linear(square_only).tried
    assert "x of shape (4, 3), weight of shape (3, 5) with weight[:, 0] = [" in tried
    assert "x[:" not in tried
