"""Chapter 05's checks: batch normalisation as a function, and as a class beside nn.BatchNorm1d.

The class is put through experiments, each a function of the class and a case's values that returns tensors, so
that torch's own class gives the right answer. `helpers.checks` hands both checks on.
"""

import itertools
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from helpers.checks.engine import CheckResult, Verdict, as_array, as_tensors, combined, judge, lecture_at
from helpers.checks.layers import class_refused, gradients, refuse_shared

LOOK = lecture_at("chapter 05, standardise, scale and shift", 2440)
EPS, MOMENTUM = 0.3, 0.2  # far from the defaults, so that a forgotten eps or a swapped momentum shows


def _batch(n, dim, seed):
    """A batch whose features differ in mean and scale, in numbers short enough to be worked out by hand."""
    x = torch.randn((n, dim), generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return (x * (0.5 + torch.arange(dim)) + torch.arange(dim) * 2 - 3).float().round(decimals=1)


# Square on purpose: a statistic over the wrong axis then has a shape that fits, and can be named.
SQUARE, SMALLER, LONG = _batch(5, 5, 1), _batch(4, 4, 2), _batch(6, 5, 3)
GAMMA = torch.tensor([1.5, -0.5, 2.0, 0.8, 1.2], dtype=torch.float32)
BETA = torch.tensor([0.3, 1.0, -2.0, 0.5, 0.1], dtype=torch.float32)
MEAN = torch.tensor([4.0, -1.0, 0.5, 2.0, -3.0], dtype=torch.float32)
VAR = torch.tensor([0.5, 2.0, 3.0, 0.1, 1.5], dtype=torch.float32)

STATISTICS = [
    ("", lambda x, c: (x.mean(0), x.var(0, correction=c))),
    ("The variance is over the wrong axis: the batch is dimension 0.",
     lambda x, c: (x.mean(0), x.var(1, correction=c, keepdim=True))),
    ("The variance is over the wrong axis: the batch is dimension 0.",
     lambda x, c: (x.mean(0), x.var(1, correction=c))),
    ("Mean and variance are over the wrong axis: the batch is dimension 0 (over dimension 1 it is LayerNorm).",
     lambda x, c: (x.mean(1, keepdim=True), x.var(1, correction=c, keepdim=True))),
    ("Mean and variance are over the wrong axis: the batch is dimension 0.",
     lambda x, c: (x.mean(1), x.var(1, correction=c))),
    ("Mean and variance are over all entries: each feature has its own, over dimension 0.",
     lambda x, c: (x.mean(), x.var(correction=c))),
    ("The mean is not subtracted before the squares are averaged: the variance is E[(x - mean)^2].",
     lambda x, c: (x.mean(0), x.square().sum(0) / (len(x) - c))),
    ("The squares are summed up: the variance is their average, by N.",
     lambda x, c: (x.mean(0), x.var(0, correction=0) * len(x))),
]  # fmt: skip
CORRECTIONS = [("", 0), ("The variance is unbiased (torch.var's default, by N - 1): the forward pass divides by N.", 1)]
SCALES = [
    ("", lambda x, g, b, eps, m, v: (x - m) / (v + eps).sqrt() * g + b),
    ("eps is forgotten, or not the one given: add it to the variance, under the root.",
     lambda x, g, b, eps, m, v: (x - m) / v.sqrt() * g + b),
    ("eps is outside the root: add it to the variance, before the root.",
     lambda x, g, b, eps, m, v: (x - m) / (v.sqrt() + eps) * g + b),
    ("That divides by the variance: its root, the std, brings the scale to 1.",
     lambda x, g, b, eps, m, v: (x - m) / (v + eps) * g + b),
    ("gamma and beta are missing from the output.", lambda x, g, b, eps, m, v: (x - m) / (v + eps).sqrt()),
    ("gamma is missing from the output: multiply by it.", lambda x, g, b, eps, m, v: (x - m) / (v + eps).sqrt() + b),
    ("beta is missing from the output: add it.", lambda x, g, b, eps, m, v: (x - m) / (v + eps).sqrt() * g),
    ("gamma and beta have changed places.", lambda x, g, b, eps, m, v: (x - m) / (v + eps).sqrt() * b + g),
    ("beta is multiplied by gamma too: scale first, then shift.",
     lambda x, g, b, eps, m, v: ((x - m) / (v + eps).sqrt() + b) * g),
    ("The mean is not subtracted.", lambda x, g, b, eps, m, v: x / (v + eps).sqrt() * g + b),
    ("The mean is subtracted after the division: subtract it from x, then divide.",
     lambda x, g, b, eps, m, v: (x / (v + eps).sqrt() - m) * g + b),
    ("The mean is added: subtract it.", lambda x, g, b, eps, m, v: (x + m) / (v + eps).sqrt() * g + b),
    ("That is not divided by the std.", lambda x, g, b, eps, m, v: (x - m) * g + b),
    ("That multiplies by the std: divide by it.", lambda x, g, b, eps, m, v: (x - m) * (v + eps).sqrt() * g + b),
    ("eps is added after the division: it belongs to the variance, under the root.",
     lambda x, g, b, eps, m, v: ((x - m) / v.sqrt() + eps) * g + b),
    ("eps is added after the division: it belongs to the variance, under the root.",
     lambda x, g, b, eps, m, v: (x - m) / v.sqrt() * g + b + eps),
    ("beta has the wrong sign: add it.", lambda x, g, b, eps, m, v: (x - m) / (v + eps).sqrt() * g - b),
    ("That divides by gamma: multiply by it.", lambda x, g, b, eps, m, v: (x - m) / (v + eps).sqrt() / g + b),
    ("x is scaled and shifted, but not standardised first.", lambda x, g, b, eps, m, v: x * g + b),
]  # fmt: skip


def _forward(statistic, correction, scale):
    return lambda x, gamma, beta, eps: scale(x, gamma, beta, eps, *statistic(x, correction))


_, FORWARD_MISTAKES = combined(_forward, STATISTICS, CORRECTIONS, SCALES)


def _at(f, x, gamma, beta, eps=EPS):
    """The gradients through f(x, gamma, beta, eps)."""
    tensors = [tensor.clone().requires_grad_() for tensor in (x, gamma, beta)]
    return gradients(f(*tensors, eps), **dict(zip(("x", "gamma", "beta"), tensors, strict=True)))


def _detached(mean, var):
    """Batch statistics that are plain numbers to autograd: the gradient through them is lost."""

    def forward(x, gamma, beta, eps):
        m, v = x.mean(0), x.var(0, correction=0)
        return SCALES[0][1](x, gamma, beta, eps, m.detach() if mean else m, v.detach() if var else v)

    return forward


DETACHED = "The batch statistics are detached: they depend on x, and its gradient flows through them too."
GRADIENT_MISTAKES = [
    (DETACHED, partial(_at, _detached(mean, var))) for mean, var in ((True, True), (True, False), (False, True))
]
GRADIENTS = as_tensors("x.grad", "gamma.grad", "beta.grad")


def check_batch_norm_forward(f):
    """f(x, gamma, beta, eps) -> batch normalisation in train mode, as nn.BatchNorm1d does it; x (N, dim)."""
    cases = [(SQUARE, GAMMA, BETA, EPS), (SMALLER, GAMMA[:4], BETA[:4], EPS / 2)]
    parameters = "x, gamma, beta, eps"

    def right(x, gamma, beta, eps):
        return F.batch_norm(x, None, None, gamma, beta, training=True, eps=eps)

    read = as_tensors("output")
    result = judge(f, parameters, cases, right, FORWARD_MISTAKES, LOOK, read=read, tolerance=1e-4)
    if not result:
        return result
    options = {"read": GRADIENTS, "tolerance": 1e-4, "call": f"the gradients through f({parameters})"}
    backward = judge(partial(_at, f), parameters, cases, partial(_at, right), GRADIENT_MISTAKES, LOOK, **options)
    return result if backward else backward


class _TorchBatchNorm(nn.BatchNorm1d):
    """The right answer: torch's own, under the names of the exercise."""

    gamma, beta = property(lambda self: self.weight), property(lambda self: self.bias)


BUFFERS = ("running_mean", "running_var")
VECTORS = ("gamma", "beta", *BUFFERS)


def _vector(layer, name, dim):
    value = getattr(layer, name, None)
    if not isinstance(value, torch.Tensor):
        kind = f"is of type {type(value).__name__}" if hasattr(layer, name) else "does not exist"
        hint = "gamma, beta, running_mean and running_var are tensors with one value per feature, from __init__ on."
        raise Verdict(f"layer.{name} {kind}", hint)
    if value.numel() != dim or value.shape[-1] != dim:
        hint = f"It should hold one value per feature: shape ({dim},)."
        raise Verdict(f"layer.{name} has shape {tuple(value.shape)}", hint)
    return value


def _layer(cls, dim, *values, training=True):
    """A learner's layer, with these values in gamma, beta, running_mean and running_var."""
    layer = cls(dim, eps=EPS, momentum=MOMENTUM)
    for name, value in itertools.zip_longest(VECTORS, values):
        target = _vector(layer, name, dim)
        if value is not None:
            target.data.copy_(value.view_as(target))
    if not isinstance(layer, nn.Module) and callable(getattr(layer, "parameters", None)):
        # The lecture's way: whoever trains a plain class switches its gradients on.
        for parameter in layer.parameters():
            parameter.requires_grad_()
    if not training:
        if isinstance(layer, nn.Module):
            layer.eval()
        layer.training = False
    return layer


STAGES = []  # check_batch_norm goes through them in this order


def _stage(call, parameters, cases, labels, mistakes):
    """Register one experiment on a class: a function of the class and a case's values, which returns tensors."""

    def register(experiment):
        right, read = partial(experiment, _TorchBatchNorm), as_tensors(*labels)
        options = {"read": read, "tolerance": 1e-4, "call": call}
        STAGES.append(lambda cls: judge(partial(experiment, cls), parameters, cases, right, mistakes, LOOK, **options))
        return experiment

    return register


ONES, ZEROS, YES = torch.ones(5), torch.zeros(5), torch.tensor(True)
START_MISTAKES = [
    ("running_var starts at 1, not 0: an untrained layer in eval mode then leaves its input as it is.",
     lambda dim: (ONES, ZEROS, ZEROS, ZEROS, YES)),
    ("gamma starts at 1: at 0 every output would be 0.", lambda dim: (ZEROS, ZEROS, ZEROS, ONES, YES)),
    ("A new layer is in train mode.", lambda dim: (ONES, ZEROS, ZEROS, ONES, ~YES)),
]  # fmt: skip


@_stage(
    "layer = BatchNorm(dim, eps, momentum)",
    "dim",
    [(5,)],
    [f"layer.{name}" for name in (*VECTORS, "training")],
    START_MISTAKES,
)
def _start(cls, dim):
    layer, other = _layer(cls, dim), _layer(cls, dim)
    refuse_shared(layer, other, VECTORS)
    if not hasattr(layer, "training"):
        raise Verdict("layer.training does not exist", "There are two modes: let it be True in the beginning.")
    return *(getattr(layer, name).reshape(-1) for name in VECTORS), torch.tensor(bool(layer.training))


VALUES = "x, gamma, beta, running_mean, running_var"
TRAIN_MISTAKES = [
    (sentence, lambda x, g, b, m, v, wrong=wrong: wrong(x, g, b, EPS)) for sentence, wrong in FORWARD_MISTAKES
]
RUNNING = "Train mode normalises by the running statistics: they are for eval mode, train mode takes the batch's."
TRAIN_MISTAKES += [
    (RUNNING, lambda x, g, b, m, v: SCALES[0][1](x, g, b, EPS, m, v)),
    (
        RUNNING,
        lambda x, g, b, m, v: SCALES[0][1](x, g, b, EPS, m.lerp(x.mean(0), MOMENTUM), v.lerp(x.var(0), MOMENTUM)),
    ),
]
TRAIN_CASES = [(SQUARE, GAMMA, BETA, MEAN, VAR), (SMALLER, GAMMA[:4], BETA[:4], MEAN[:4], VAR[:4])]


@_stage(f"layer(x) in train mode with eps = {EPS}", VALUES, TRAIN_CASES, ["output"], TRAIN_MISTAKES)
def _trained(cls, x, *values):
    return _layer(cls, x.shape[1], *values)(x)


@_stage("the gradients through layer(x) in train mode", "x, gamma, beta", [(LONG, GAMMA, BETA)],
        ["x.grad", "gamma.grad", "beta.grad"], GRADIENT_MISTAKES)  # fmt: skip
def _gradients(cls, x, gamma, beta):
    layer, x = _layer(cls, x.shape[1], gamma, beta), x.clone().requires_grad_()
    out = layer(x)
    for name in ("gamma", "beta"):
        if out.requires_grad and not getattr(layer, name).requires_grad:
            hint = "gamma and beta are learnt: make them nn.Parameters, or tensors with requires_grad=True."
            raise Verdict(f"layer.{name}.requires_grad is False", hint)
    of_x, *others = gradients(out, x=x, gamma=layer.gamma, beta=layer.beta)
    return of_x, *(gradient.reshape(-1) for gradient in others)


def _updated(keep, take, variance=lambda x: x.var(0)):
    """The running statistics after two batches, moved as keep * old + take * new."""

    def update(first, second, running_mean, running_var):
        for x in (first, second):
            running_mean = keep * running_mean + take * x.mean(0)
            running_var = keep * running_var + take * variance(x)
        return running_mean, running_var

    return update


def _biased(x):
    return x.var(0, correction=0)


_moved = _updated(1 - MOMENTUM, MOMENTUM)
BUFFER_MISTAKES = [
    ("The momentum is the wrong way round: new = (1 - momentum) * old + momentum * batch.",
     _updated(MOMENTUM, 1 - MOMENTUM)),
    ("The momentum is the wrong way round, and the stored variance is biased.",
     _updated(MOMENTUM, 1 - MOMENTUM, _biased)),
    ("The stored variance is biased: running_var takes the unbiased one (by N - 1), the output the biased one.",
     _updated(1 - MOMENTUM, MOMENTUM, _biased)),
    ("The std is stored in place of the variance.", _updated(1 - MOMENTUM, MOMENTUM, lambda x: x.std(0))),
    ("The std is stored in place of the variance.", _updated(1 - MOMENTUM, MOMENTUM, lambda x: _biased(x).sqrt())),
    ("The buffers are not updated: train mode moves them towards the batch's statistics.", _updated(1, 0)),
    ("The buffers are overwritten by the last batch: keep (1 - momentum) of the old value.", _updated(0, 1)),
    ("The old value is kept whole: it has to shrink by (1 - momentum).", _updated(1, MOMENTUM)),
    ("The stored variance is corrected twice: x.var() is by N - 1 already.",
     _updated(1 - MOMENTUM, MOMENTUM, lambda x: x.var(0) * len(x) / (len(x) - 1))),
    ("All batches so far are averaged, as nn.BatchNorm1d does with momentum=None: here momentum is a number.",
     lambda x, y, m, v: ((x.mean(0) + y.mean(0)) / 2, (x.var(0) + y.var(0)) / 2)),
    ("running_var is not updated: it moves as running_mean does.",
     lambda x, y, m, v: (_moved(x, y, m, v)[0], v)),
    ("running_mean is not updated: it moves as running_var does.",
     lambda x, y, m, v: (m, _moved(x, y, m, v)[1])),
    *((f"momentum is hard-coded as {m}: use the one that is given.", _updated(1 - m, m))
      for m in (0.1, 0.001, 0.01, 0.5, 0.9, 0.99, 0.999)),
]  # fmt: skip


@_stage(f"the buffers after layer(x) and layer(y) in train mode with momentum = {MOMENTUM}",
        "x, y, running_mean, running_var", [(LONG, SQUARE, MEAN, VAR)], BUFFERS, BUFFER_MISTAKES)  # fmt: skip
def _after_training(cls, first, second, running_mean, running_var):
    layer = _layer(cls, first.shape[1], GAMMA, BETA, running_mean, running_var)
    for x in (first, second):
        layer(x.clone().requires_grad_())  # as in a network, where x depends on parameters
    for name in BUFFERS:
        if _vector(layer, name, first.shape[1]).requires_grad:
            hint = "It keeps the graph of every batch so far alive: update it under `torch.no_grad()`."
            raise Verdict(f"layer.{name}.requires_grad is True", hint)
    return tuple(getattr(layer, name).reshape(-1) for name in BUFFERS)


LIVE = (
    "Eval mode uses the batch's statistics: at running mean 0 and variance 1, off-centre data should stay off-centre."
)
EVAL_MISTAKES = [
    (LIVE, lambda x, g, b, m, v, c=c: SCALES[0][1](x, g, b, EPS, x.mean(0), x.var(0, correction=c))) for c in (0, 1)
]
EVAL_MISTAKES += [
    (sentence, lambda x, g, b, m, v, scale=scale: scale(x, g, b, EPS, m, v)) for sentence, scale in SCALES[1:]
]
EVAL_CASES = [(LONG, GAMMA, BETA, MEAN, VAR), (LONG[:1], GAMMA, BETA, MEAN, VAR)]


@_stage(f"layer(x) in eval mode with eps = {EPS}", VALUES, EVAL_CASES, ["output"], EVAL_MISTAKES)
def _evaluated(cls, x, *values):
    return _layer(cls, x.shape[1], *values, training=False)(x)


@_stage("the buffers after layer(x) in eval mode", VALUES, EVAL_CASES[:1], BUFFERS, [])
def _after_evaluation(cls, x, *values):
    layer = _layer(cls, x.shape[1], *values, training=False)
    layer(x)
    for name, value in zip(BUFFERS, values[2:], strict=True):
        if not torch.equal(_vector(layer, name, x.shape[1]).detach().reshape(-1), value):
            hint = "Eval mode only reads the buffers: update them in train mode alone."
            raise Verdict(f"layer.{name} has changed", hint)
    return values[2:]


def check_batch_norm(cls):
    """A class with the behaviour of nn.BatchNorm1d on inputs (N, dim): cls(dim, eps, momentum), then layer(x).

    Its attributes are gamma, beta, running_mean, running_var (tensors of dim values) and training. A plain class
    will do; its gamma and beta then require grad, or are listed by a method parameters(), as in the lecture.
    """
    call = "layer = {}(dim, eps, momentum); layer(x)".format(getattr(cls, "__name__", "BatchNorm"))

    def trial():
        return cls(5, eps=EPS, momentum=MOMENTUM)(SQUARE.clone())

    refused = class_refused(cls, call, "running_mean", trial, LOOK)
    if refused is not None:
        return refused
    for stage in STAGES:
        if not (result := stage(cls)):
            return result
    alone = judge(lambda x: _trained(cls, x), "x", [(LONG[:1],)], torch.abs, [], LOOK, read=as_array)
    accepts = (
        "your layer accepts a single example in train mode; it has no variance, so nn.BatchNorm1d raises ValueError"
    )
    note = "" if alone.difference.startswith("your code raised") else accepts
    agreed = "its start values, output, gradients, buffers and eval mode are those of nn.BatchNorm1d"
    return CheckResult("right", f"{call}: {agreed}", note=note)
