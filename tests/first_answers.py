"""Answers to chapters 01 to 06, E01 and E02: right ones in many styles, and wrong ones that no check lists."""

import math
from collections import Counter
from decimal import Decimal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from helpers.checks import (
    check_batch_norm_forward,
    check_conv_as_linear,
    check_conv_output_size,
    check_dead_units,
    check_first_weight,
    check_fold,
    check_frequency_bias,
    check_gain,
    check_logit_std,
    check_sigmoid_slope,
    check_unigram_entropy,
    check_what_trains,
    check_wrong_by,
)

# ---- chapters 01 to 04


def entropy(Y):
    n = len(Y)
    return -sum(c / n * math.log(c / n) for c in Counter(Y.tolist()).values())


def sigmoid_slope_by_autograd(s):
    x = s.double().logit(eps=1e-12).requires_grad_()
    return torch.autograd.grad(x.sigmoid().sum(), x)[0].float()


def slopes(activation, x):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(activation(x).sum(), x)[0].abs()


def weight(std=None, mode="fan_in"):
    W = torch.empty((30, 200)) if mode == "fan_out" else torch.empty((200, 30))
    nn.init.kaiming_normal_(W, mode=mode, nonlinearity="tanh", generator=torch.Generator().manual_seed(1))
    W = W if mode == "fan_out" else W.T
    return W if std is None else W / W.std() * std


# ---- chapters 05 to 13


fold, normalised = check_fold.right, check_batch_norm_forward.right


def conv_by_slices(x, weight, stride, padding):
    x, k = F.pad(x, (padding,) * 4), weight.shape[-1]
    rows, columns = range(0, x.shape[2] - k + 1, stride), range(0, x.shape[3] - k + 1, stride)
    patches = torch.stack([x[:, :, i : i + k, j : j + k].flatten(1) for i in rows for j in columns], 2)
    return (weight.flatten(1) @ patches).view(len(x), len(weight), len(rows), len(columns))


def conv_by_unfold(x, weight, stride, padding):
    out = weight.flatten(1) @ F.unfold(x, weight.shape[-1], stride=stride, padding=padding)
    return out.view(conv_by_slices(x, weight, stride, padding).shape)


def conv_in_numpy(x, weight, stride, padding):
    x = np.pad(x.numpy(), [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    k, flat = weight.shape[-1], weight.numpy().reshape(len(weight), -1)
    rows, columns = range(0, x.shape[2] - k + 1, stride), range(0, x.shape[3] - k + 1, stride)
    places = [[[flat @ image[:, i : i + k, j : j + k].ravel() for j in columns] for i in rows] for image in x]
    return np.array(places).transpose(0, 3, 1, 2)


def fold_with_torch(W, b, gamma, beta, mean, var, eps):
    linear, norm = nn.Linear(*W.shape).double(), nn.BatchNorm1d(len(b), eps).double().eval()
    linear.weight.data, linear.bias.data = W.T, b
    norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var = gamma, beta, mean, var
    folded = torch.nn.utils.fusion.fuse_linear_bn_eval(linear.eval(), norm)
    return folded.weight.T, folded.bias


def fold_by_hand(W, b, gamma, beta, mean, var, eps):
    """Python floats in lists."""
    s = [g / (v + eps) ** 0.5 for g, v in zip(gamma.tolist(), var.tolist(), strict=True)]
    W2 = [[w * scale for w, scale in zip(row, s, strict=True)] for row in W.tolist()]
    b2 = [(c - m) * k + h for c, m, k, h in zip(b.tolist(), mean.tolist(), s, beta.tolist(), strict=True)]
    return W2, b2


def scaling(
    weight=lambda W, s: W * s, *, scale=lambda g, v, e: g / (v + e).sqrt(), bias=lambda b, s, m, h: (b - m) * s + h
):
    """A fold in three steps, each of which may be another."""

    def my_fold(W, b, gamma, beta, running_mean, running_var, eps):
        s = scale(gamma, running_var, eps)
        return weight(W, s), bias(b, s, running_mean, beta)

    return my_fold


NAMES = ("C", "W1", "b1", "W2", "b2")

RIGHT = {
    check_unigram_entropy: [
        entropy, lambda Y: torch.special.entr(torch.bincount(Y) / len(Y)).sum(), lambda Y: Decimal(entropy(Y)),
        lambda Y: torch.distributions.Categorical(torch.bincount(Y) / len(Y)).entropy(), lambda Y: [entropy(Y)],
        lambda Y: -(torch.bincount(Y) / len(Y))[Y].log().mean(),
        lambda Y: F.cross_entropy(torch.bincount(Y).float().log().expand(len(Y), -1), Y),
        lambda Y: torch.special.entr(torch.bincount(Y, minlength=27) / len(Y) + 1e-8).sum(),
    ],
    check_frequency_bias: [
        lambda Y, n: [math.log(Counter(Y.tolist())[i]) for i in range(n)], lambda Y, n: np.log(np.bincount(Y, minlength=n) / len(Y)),
        lambda Y, n: (torch.bincount(Y, minlength=n) / len(Y) + 1e-8).log() + 3,
    ],
    check_sigmoid_slope: [
        lambda s: s**2 * (1 / s - 1), lambda s: s - s**2, lambda s: s.numpy() * (1 - s.numpy()), lambda s: 0.25 - (s - 0.5) ** 2, sigmoid_slope_by_autograd,
    ],
    check_dead_units: [
        lambda f, x: slopes(f, x).max(0).values < 0.02, lambda f, x: (slopes(f, x) < 0.02).sum(0) == len(x),
        lambda f, x: (slopes(f, x).numpy() < 0.02).all(axis=0), lambda f, x: ~(slopes(f, x) >= 0.02).any(0),
        lambda f, x: [(slopes(f, column) < 0.02).all() for column in x.T],
        lambda f, x: ((f(x + 1e-3) - f(x - 1e-3)).abs() / 2e-3 < 0.02).all(0),
    ],
    check_gain: [lambda f, std: std / f(std * torch.randn(200_000)).square().mean().sqrt()],
    check_first_weight: [
        weight(), list(weight()), weight().tolist(), weight().numpy(), nn.Parameter(weight().double()), weight(mode="fan_out"),
        nn.init.kaiming_uniform_(torch.empty(200, 30), nonlinearity="tanh").T,
    ],
    check_batch_norm_forward: [
        lambda x, gamma, beta, eps: F.batch_norm(x, None, None, gamma, beta, True, 0.1, eps),
        lambda x, g, b, eps: F.layer_norm(x.T, (len(x),), eps=eps).T * g + b,
        lambda x, g, b, eps: g * (x - x.mean(0)) * ((x**2).mean(0) - x.mean(0) ** 2 + eps) ** -0.5 + b,
    ],
    check_conv_output_size: [
        lambda n, k, s, p: math.floor((n + 2 * p - k) / s + 1), lambda n, k, s, p: (n + 2 * p - (k - 1) - 1) // s + 1.0,
        lambda n, k, s, p: len(range(0, n + 2 * p - k + 1, s)), lambda n, k, s, p: torch.tensor((n + 2 * p - k + s) // s),
    ],
    check_conv_as_linear: [conv_by_slices, conv_in_numpy, lambda *args: list(conv_by_slices(*args))],
    check_what_trains: [
        {"b2"}, ["b2"], ("b2",), frozenset({"b2"}), "b2", " b2 ", ["b2", "b2"], dict.fromkeys(["b2"]).keys(), {np.str_("b2")},
        np.array(["b2"]), np.array("b2"), np.array(["b2"], object),
    ],
    check_fold: [fold_by_hand, fold_with_torch, lambda *args: tuple(map(nn.Parameter, fold(*args))),
                 lambda *args: (list(fold(*args)[0]), fold(*args)[1].numpy())],
    check_wrong_by: [
        lambda v, was, new: math.sqrt((v + was) / (v + new)), lambda v, was, new: torch.sqrt((v + was) / (v + new)),
        lambda v, was, new: np.sqrt(v + was) / np.sqrt(v + new), lambda v, was, new: float((v + was) / (v + new)) ** 0.5,
    ],
}  # fmt: skip


WRONG = {  # {check: {fault: answers}}; those with one fault get one remedy, and other faults another
    check_unigram_entropy: {
        "base 2": [lambda Y: entropy(Y) / math.log(2)],
        "uniform": [lambda Y: F.cross_entropy(torch.zeros(len(Y), 27), Y), lambda Y: math.log(len(set(Y.tolist())))],
        "": [
            lambda Y: 2.8226, lambda Y: entropy(Y[:5]), lambda Y: entropy(Y) * len(Y),
            lambda Y: 1 - (torch.bincount(Y) / len(Y)).square().sum(),
        ],
    },
    check_sigmoid_slope: {
        "half": [lambda s: s * (1 - s) / 2],
        "a root": [lambda s: (s * (1 - s)).sqrt()],
        "rows and columns": [lambda s: s.T * (1 - s.T)],
        "": [lambda s: (s * (1 - s)).mean(), lambda s: 1 / s],
    },
    check_dead_units: {
        "nearly all": [
            lambda f, x: slopes(f, x).median(0).values < 0.02, lambda f, x: (slopes(f, x[:1000]) < 0.02).all(0),
            lambda f, x: (slopes(f, x) < 0.02).sum(0) >= len(x) - 1,
        ],
        "a formula": [lambda f, x: x.abs().min(0).values > 2.6],
        "a constant": [lambda f, x: [False] * x.shape[1]],
        "": [lambda f, x: slopes(f, x).mean(0) < 0.01, lambda f, x: (slopes(f, x) < 0.01).all(0)],
    },
    check_batch_norm_forward: {
        "another N": [
            lambda x, g, b, e: g * (x - x.mean(0)) / (((x - x.mean(0)) ** 2).sum(0) / x.shape[1] + e).sqrt() + b,
        ],
        "gamma and beta exchanged": [lambda x, g, b, e: normalised(x, b, g, e)],
        "another eps": [lambda x, g, b, e: normalised(x, g, b, 0.3)],
        "cut off": [lambda *args: normalised(*args).detach()],
        "gamma cut off": [lambda x, g, b, e: normalised(x, g.data, b, e)],
        "no tensor": [lambda *args: normalised(*args).detach().numpy()],
        "detached": [
            lambda x, g, b, e: F.batch_norm(x, x.mean(0).data, x.var(0, correction=0).data, g, b, False, 0.1, e),
        ],
        "": [
            lambda x, g, b, e: normalised(x, g, b, e) if len(x) > 3 else x,
            lambda x, g, b, e: normalised(x, g, b, 0) + e, lambda x, g, b, e: normalised(x, g, b, -e),
        ],
    },
    check_conv_output_size: {
        "kernel_size is used for padding": [lambda n, k, s, p: (n + 2 * (k // 2) - k) // s + 1],
        "a constant": [lambda n, k, s, p: 112, lambda n, k, s, p: (112, 112)],
        "": [lambda n, k, s, p: (n + 2 * min(p, 1) - k) // s + 1, lambda n, k, s, p: (n + 2 * p - k) // min(s, 2) + 1],
    },
    check_conv_as_linear: {
        "no stride": [lambda x, w, s, p: conv_by_slices(x, w, 1, p)],
        "torch's own": [lambda x, w, s, p: F.conv2d(x, w, stride=s, padding=p), conv_by_unfold],
        "": [
            lambda x, w, s, p: conv_by_slices(x, w, s, min(p, 1)),
            lambda x, w, s, p: conv_by_slices(x, w, min(s, 2), p), lambda *args: conv_by_slices(*args).relu(),
            lambda x, w, s, p: x @ w, lambda x, w, s, p: conv_by_slices(F.pad(x, (p,) * 4, mode="replicate"), w, s, 0),
        ],
    },
    check_what_trains: {
        "no parameter": [{"w2"}, {"b2", "bngain"}, {"b2", 2}, [torch.zeros(27)], [["b2"]]],
        "no set": [{}, {"b2": True}, 3, torch.zeros(3), lambda: {"b2"}],
        "C": [np.array(["C", "b2"]), ["C"]],
        "W2": [(name for name in NAMES), "C, W1, b1, W2, b2", NAMES[:4]],
        "none": ["", []],
        "W1": [["C", "b2", "W1"]],
        "b1": [NAMES[:3]],
    },
    check_fold: {
        "inexact": [
            lambda *args: (fold(*args)[0] * (1 + 1e-8), fold(*args)[1]),
            lambda W, b, g, h, m, v, e: fold(W, b, g, h, m, v, 2 * e),
        ],
        "float32": [lambda *args: tuple(t.float() for t in fold(*args))],
        "beta for gamma": [lambda W, b, g, h, m, v, e: fold(W, b, h, g, m, v, e)],
        "no running_var": [lambda W, b, g, h, m, v, e: fold(W, b, g, h, W.mean(0), W.var(0), e)],
        "the rows are scaled": [  # whatever else is wrong
            scaling(lambda W, s: s.view(-1, 1) * W), scaling(lambda W, s: W * s[:, None], bias=lambda b, s, m, h: b * s - m + h),
            scaling(lambda W, s: W * s[:, None], scale=lambda g, v, e: g / (v.sqrt() + e)),
            scaling(lambda W, s: torch.diag(s) @ W, scale=lambda g, v, e: g / v.sqrt(), bias=lambda b, s, m, h: h),
        ],
        "transposed": [scaling(lambda W, s: W.T * s[:, None])],
        "beta is scaled, or b is not": [
            scaling(bias=lambda b, s, m, h: b + h - m * s), scaling(bias=lambda b, s, m, h: (b - m + h) * s),
            scaling(bias=lambda b, s, m, h: (b - m) / s + h), scaling(bias=lambda b, s, m, h: (b + m) * s + h),
        ],
        "no beta": [scaling(bias=lambda b, s, m, h: (b - m) * s)],
        "arguments": [lambda W, b, g, h, m, v: 0],
        "in place": [lambda W, *args: (W.mul_(2), args[0])],
        "three results": [lambda *args: (*fold(*args), 0)],
        "": [lambda *args: (fold(*args)[0][:-1], fold(*args)[1])],
    },
    check_logit_std: {"rounded": [lambda loss, n: round(math.sqrt(2 * (loss - math.log(n))), 2)]},
    check_frequency_bias: {
        "no minlength": [lambda Y, n: np.log(np.bincount(Y))],
        "one row": [lambda Y, n: torch.bincount(Y, minlength=n).float().log()[None]],
    },
    check_gain: {
        "a constant": [lambda f, std: 5 / 3],
        "too few": [lambda f, std: 0.985 * check_gain.right(f, std)],
    },
    check_first_weight: {
        "another mean": [torch.rand(30, 200), weight() + 0.3],
        "not filled": [torch.full((30, 200), math.nan)],
        "not at random": [torch.full((30, 200), 0.3), weight().sign()],
        "no numbers": ["0.3", nn.Linear(30, 200)],
        "transposed": [weight().T],
        "the fan of 200": [weight(5 / 3 / 200**0.5)],
        "ReLU": [weight(15**-0.5)],
        "no gain": [weight(30**-0.5)],
        "by trying": [weight(0.2)],
        "another std": [weight(1.0), weight(5 / 3 / 30)],
    },
    check_wrong_by: {"no root": [lambda v, was, new: (v + was) / (v + new)]},
}  # fmt: skip
