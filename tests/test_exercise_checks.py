"""The checks of E01 and E02 accept the right answer in any style, and reject every wrong one with its reason."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import odd_answers
from helpers import checks
from helpers.checks import check_fold, check_what_trains
from helpers.checks import exercises as exercise_checks

# ---- E01: what trains when everything starts at zero

NAMES = ("C", "W1", "b1", "W2", "b2")


def gradients_of_the_zero_network(steps):
    """The names of the parameters that ever receive a gradient that is not exactly zero."""
    sizes = {"C": (27, 10), "W1": (30, 200), "b1": (200,), "W2": (200, 27), "b2": (27,)}
    p = {name: torch.zeros(size, requires_grad=True) for name, size in sizes.items()}
    generator, moved = torch.Generator().manual_seed(1), set()
    for _ in range(steps):
        X, Y = (torch.randint(0, 27, size, generator=generator) for size in ((32, 3), (32,)))
        h = (p["C"][X].flatten(1) @ p["W1"] + p["b1"]).tanh()
        gradients = torch.autograd.grad(F.cross_entropy(h @ p["W2"] + p["b2"], Y), list(p.values()))
        for (name, parameter), gradient in zip(p.items(), gradients, strict=True):
            if gradient.any():
                moved.add(name)
            parameter.data -= 0.1 * gradient
    return moved


def test_the_answer_that_the_check_expects_is_what_training_shows():
    assert check_what_trains(gradients_of_the_zero_network(20))


@pytest.mark.parametrize(
    "answer",
    [{"b2"}, ["b2"], ("b2",), frozenset({"b2"}), "b2", " b2 ", ["b2", "b2"], dict.fromkeys(["b2"]).keys(), {np.str_("b2")}],
)  # fmt: skip
def test_the_right_set_is_accepted_in_any_style(answer):
    result = check_what_trains(answer)
    assert result, result
    assert "b2" in repr(result)


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        (set(), "no bias at all"),
        ("", "no bias at all"),
        ({"C"}, "published answer"),
        (set(NAMES), "Zeros are not fine"),
        ("C, W1, b1, W2, b2", "Zeros are not fine"),
        ({"W2", "b2"}, "h = tanh(0) = 0"),
        ({"W2"}, "h = tanh(0) = 0"),
        ({"W1", "b1", "W2", "b2"}, "h = tanh(0) = 0"),
        ({"b1", "b2"}, "b1 needs a way back"),
        ({"b1"}, "comes back through W2"),
        ({"C", "b2"}, "C's gradient comes back through W1"),
        ({"C", "b1", "b2"}, "b1's gradient comes back through W2"),
        ({"W1", "b2"}, "W1's gradient"),
        ({"W1", "W2"}, "Both weights meet zeros"),
        ({"w2"}, "'w2' is not one of the parameters"),
        ({"b2", "bngain"}, "'bngain' is not one of the parameters"),
        ({"b2", 2}, "an object of type int is not one"),
        ([torch.zeros(27)], "an object of type Tensor is not one"),
        ([["b2"]], "an object of type list is not one"),
        ({}, "type dict"),
        ({"b2": True}, "type dict"),
        (3, "type int"),
        (torch.zeros(3), "type Tensor"),
        (lambda: {"b2"}, "type function"),
        (np.array("b2"), "type ndarray"),
    ],
)
def test_wrong_sets_are_rejected_each_with_its_reason(answer, phrase):
    result = check_what_trains(answer)
    assert result.status == "wrong"
    assert phrase in str(result)
    assert result.misconception
    assert "https://youtu.be/P6sfmUTpUmc?t=" in result.look


WRONG_SETS = [set(names) for size in range(6) for names in itertools.combinations(NAMES, size)]
WRONG_SETS.remove({"b2"})


@pytest.mark.parametrize("answer", WRONG_SETS, ids=lambda names: "-".join(sorted(names)) or "none")
def test_every_wrong_set_gets_a_reason_and_none_gives_the_answer_away(answer):
    result = check_what_trains(answer)
    assert result.status == "wrong"
    assert "None of the usual" not in result.misconception
    assert "expected" not in result.difference
    if "b2" not in answer:
        assert "b2" not in result.misconception + result.difference


@pytest.mark.parametrize("stub", [None, ..., {...}, [...], (..., ...)])
def test_no_set_yet_is_not_an_attempt(stub):
    assert check_what_trains(stub).status == "not attempted"


# ---- E02: folding


def fold(W, b, gamma, beta, running_mean, running_var, eps):
    s = gamma / (running_var + eps).sqrt()
    return W * s, (b - running_mean) * s + beta


def fold_by_hand(W, b, gamma, beta, mean, var, eps):
    """Python floats in lists."""
    s = [g / (v + eps) ** 0.5 for g, v in zip(gamma.tolist(), var.tolist(), strict=True)]
    W2 = [[w * scale for w, scale in zip(row, s, strict=True)] for row in W.tolist()]
    b2 = [(c - m) * k + h for c, m, k, h in zip(b.tolist(), mean.tolist(), s, beta.tolist(), strict=True)]
    return W2, b2


def fold_in_numpy(W, b, gamma, beta, mean, var, eps):
    W, b, gamma, beta, mean, var = (t.numpy() for t in (W, b, gamma, beta, mean, var))
    s = gamma / np.sqrt(var + eps)
    return W @ np.diag(s), b * s - mean * s + beta


def fold_with_torch(W, b, gamma, beta, mean, var, eps):
    linear, norm = nn.Linear(*W.shape).double(), nn.BatchNorm1d(len(b), eps).double().eval()
    linear.weight.data, linear.bias.data = W.T, b
    norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var = gamma, beta, mean, var
    folded = torch.nn.utils.fusion.fuse_linear_bn_eval(linear.eval(), norm)
    return folded.weight.T, folded.bias


def fold_by_probing(W, b, gamma, beta, mean, var, eps):
    def both(x):
        return F.batch_norm(x @ W + b, mean, var, gamma, beta, training=False, eps=eps)

    b2 = both(W.new_zeros(1, len(W)))
    return [both(torch.eye(len(W), dtype=W.dtype)) - b2, b2]


def fold_as_parameters(*args):
    return tuple(map(nn.Parameter, fold(*args)))


@pytest.mark.parametrize(
    "answer", [fold, fold_by_hand, fold_in_numpy, fold_with_torch, fold_by_probing, fold_as_parameters]
)
def test_the_right_fold_is_accepted_in_any_style(answer):
    result = check_fold(answer)
    assert result, result
    assert not result.note


def scaled(scale):
    """The fold with another scale."""

    def f(W, b, gamma, beta, mean, var, eps):
        s = scale(gamma, var, eps)
        return W * s, (b - mean) * s + beta

    return f


def shifted(bias, weight=lambda W, s: W * s):
    """The fold with another bias, or another weight."""

    def f(W, b, gamma, beta, mean, var, eps):
        s = gamma / (var + eps) ** 0.5
        return weight(W, s), bias(b, s, mean, beta)

    return f


def right_bias(b, s, mean, beta):
    return (b - mean) * s + beta


def by_batch(**options):
    """The statistics of this very batch of outputs, in place of the running ones."""

    def f(W, b, gamma, beta, mean, var, eps):
        x = torch.randn(32, len(W), dtype=W.dtype, generator=torch.Generator().manual_seed(0)) @ W + b
        return fold(W, b, gamma, beta, x.mean(0), x.var(0, **options), eps)

    return f


def in_place(W, b, gamma, beta, mean, var, eps):
    s = gamma / (var + eps).sqrt()
    W *= s
    return W, (b - mean) * s + beta


def bias_in_place(W, b, gamma, beta, mean, var, eps):
    s = gamma / (var + eps).sqrt()
    b -= mean
    return W * s, b * s + beta


def to_float32(*args):
    return tuple(t.float() for t in fold(*args))


def in_float32(*args):
    return fold(*(a.float() if torch.is_tensor(a) else a for a in args))


def only_the_bias_float32(*args):
    W2, b2 = fold(*args)
    return W2.numpy(), b2.numpy().astype(np.float32)


WRONG = [
    (scaled(lambda g, v, e: g / v.sqrt()), "eps is forgotten"),
    (scaled(lambda g, v, e: g / (v.sqrt() + e)), "outside the root"),
    (scaled(lambda g, v, e: g / (v + 1e-5).sqrt()), "hard-coded as 1e-5"),
    (scaled(lambda g, v, e: g / (v + e)), "divides by the variance"),
    (scaled(lambda g, v, e: g * (v + e).sqrt()), "multiplies by the std"),
    (scaled(lambda g, v, e: 1 / (v + e).sqrt()), "gamma is forgotten"),
    (scaled(lambda g, v, e: g), "running_var is forgotten"),
    (scaled(lambda g, v, e: g / (v * 31 / 32 + e).sqrt()), "31/32"),
    (scaled(lambda g, v, e: g / (v * 32 / 31 + e).sqrt()), "32/31"),
    (shifted(lambda b, s, m, h: b * s + h), "running_mean is forgotten"),
    (shifted(lambda b, s, m, h: b - m * s + h), "b is not scaled"),
    (shifted(lambda b, s, m, h: b * s - m + h), "running_mean is not scaled"),
    (shifted(lambda b, s, m, h: b - m + h), "Neither b nor running_mean"),
    (shifted(lambda b, s, m, h: (b - m + h) * s), "beta is scaled too"),
    (shifted(lambda b, s, m, h: (b + m) * s + h), "running_mean has the wrong sign"),
    (shifted(lambda b, s, m, h: (b - m) * s - h), "beta has the wrong sign"),
    (shifted(lambda b, s, m, h: (b - m) * s), "beta is forgotten"),
    (shifted(lambda b, s, m, h: -m * s + h), "b is forgotten"),
    (shifted(lambda b, s, m, h: b), "b is kept as it was"),
    (shifted(right_bias, lambda W, s: W), "missing from W2"),
    (shifted(right_bias, lambda W, s: W * s[:, None]), "on the rows of W"),
    (shifted(right_bias, lambda W, s: (W.T * s).T), "on the rows of W"),
    (shifted(right_bias, lambda W, s: W / s), "divided by the scale"),
    (shifted(right_bias, lambda W, s: (W * s).T), "transposed"),
    (shifted(lambda b, s, m, h: b * s + h, lambda W, s: W), "missing from W2: it multiplies the columns of W. running_mean"),
    (lambda W, b, g, h, m, v, e: fold(W, b, g, h, W.mean(0), W.var(0), e), "never the statistics of a batch"),
    (lambda W, b, g, h, m, v, e: fold(W, b, h, g, m, v, e), "gamma and beta have changed places"),
    (by_batch(), "never the statistics of a batch"),
    (by_batch(correction=0), "never the statistics of a batch"),
    (lambda W, b, g, h, m, v, e: (W + 1, b), "never the statistics of a batch"),
    (lambda *args: (2 * fold(*args)[0], fold(*args)[1]), "None of the usual"),
    (lambda *args: (fold(*args)[0] * (1 + 1e-8), fold(*args)[1]), "None of the usual"),
    (lambda W, b, g, h, m, v, e: fold(W, b, g, h, m, W.var(0), e), "None of the usual"),
    (lambda W, b, g, h, m, v, e: fold(W, b, g, h, W.mean(0), v, e), "None of the usual"),
    (lambda *args: fold(*args)[::-1], "return W2, b2"),
    (lambda *args: fold(*args)[0], "return W2, b2"),
    (lambda *args: (*fold(*args), 0), "it returned 3 things"),
    (lambda *args: (fold(*args)[0], None), "tuple"),
    (lambda *args: (fold(*args)[0][:-1], fold(*args)[1]), "W2 has shape"),
    (lambda *args: (fold(*args)[0], fold(*args)[1].sum()), "b2 has shape"),
    (in_place, "in place"),
    (bias_in_place, "in place"),
    (to_float32, "W2 is torch.float32"),
    (in_float32, "W2 is torch.float32"),
    (only_the_bias_float32, "b2 is float32"),
    (lambda W, b, gamma, beta, running_mean, running_var: 0, "does your definition take these arguments"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "phrase"), WRONG)
def test_wrong_folds_are_rejected_each_with_its_own_message(answer, phrase):
    for _ in range(2):  # the second time shows whether the check's own inputs are still whole
        result = check_fold(answer)
        assert result.status == "wrong"
        assert phrase in str(result)
        assert result.misconception
        assert "https://youtu.be/P6sfmUTpUmc?t=" in result.look
    assert check_fold(fold)


def test_every_mistake_on_the_list_is_wrong_and_each_single_one_is_told_by_its_own_sentence(monkeypatch):
    tables = (exercise_checks.SCALES, exercise_checks.WEIGHTS, exercise_checks.BIASES)
    single = [sentence for table in tables for sentence, _ in table if sentence]
    mistakes = odd_answers.listed_mistakes(check_fold, monkeypatch)
    assert {*single} <= {sentence for sentence, _ in mistakes}
    for sentence, wrong in mistakes:
        if sentence in single or wrong in (pair[1] for pair in mistakes[-4:-1]):
            assert check_fold(wrong).misconception == sentence
    for _, wrong in mistakes[len(single) :: 7]:
        assert not check_fold(wrong)


@pytest.mark.parametrize("eps", [0, 2])
def test_a_wrong_eps_changes_less_than_a_thousandth_and_is_told(eps):
    args = exercise_checks._layer(4, 6, 1e-5, seed=1)
    W2, _ = fold(*args)
    wrong, _ = fold(*args[:-1], eps * 1e-5)
    assert torch.allclose(W2, wrong, rtol=1e-3, atol=0)
    assert not check_fold(lambda *args: fold(*args[:-1], eps * args[-1]))


# ---- stubs, broken code, odd values


@pytest.mark.parametrize("stub", [None, ..., *odd_answers.STUBS])
def test_a_stub_is_not_an_attempt(stub):
    assert check_fold(stub).status == "not attempted"


@pytest.mark.parametrize("value", odd_answers.ODD_VALUES, ids=odd_answers.ODD_IDS)
def test_whatever_an_answer_returns_is_an_answer_to_be_judged(value):
    assert check_fold(lambda *args: value).status == "wrong"
    assert check_what_trains(value).status == "wrong"


@pytest.mark.parametrize("answer", odd_answers.NOT_CALLABLE)
def test_what_cannot_be_called_is_refused(answer):
    assert "without calling it" in check_fold(answer).misconception


@pytest.mark.parametrize(("answer", "phrase"), odd_answers.BROKEN)
def test_broken_code_is_reported_not_raised(answer, phrase):
    result = check_fold(answer)
    assert result.status == "wrong"
    assert phrase in str(result)


def test_random_states_and_torchs_settings_stay_as_they_were():
    before = odd_answers.states()
    for answer in (odd_answers.meddles, fold):
        check_fold(answer)
        assert odd_answers.states() == before


def test_both_checks_are_handed_on():
    for name in ("check_what_trains", "check_fold"):
        assert getattr(checks, name) is getattr(exercise_checks, name)
        assert name in checks.__all__
        assert getattr(checks, name).__doc__
