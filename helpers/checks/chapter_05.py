"""Chapter 05: batch normalisation as a function, and as a class beside nn.BatchNorm1d."""

from functools import partial

import torch
from torch import nn

from helpers.checks.classes import fill, gradients, is_a_class, not_shared, tensor, trainable
from helpers.checks.engine import Check, Look
from helpers.checks.kinds import lecture_at
from helpers.checks.mistakes import variant
from helpers.checks.readings import as_tensors
from helpers.checks.sandbox import Verdict

WHERE = lecture_at("chapter 05, standardise, scale and shift", 2440)
EPS, MOMENTUM = 0.3, 0.2  # far from the defaults, so that a forgotten eps or a swapped momentum shows


def _batch(n, dim, seed):
    """A batch whose features differ in mean and scale, in numbers short enough to be worked out by hand."""
    x = torch.randn((n, dim), generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return (x * (0.5 + torch.arange(dim)) + torch.arange(dim) * 2 - 3).round(decimals=1)


# Square first: a statistic over the wrong axis then has a shape that fits, and can be named.
SQUARE, SMALLER, LONG, WIDE = _batch(5, 5, 1), _batch(4, 4, 2), _batch(9, 5, 3), _batch(3, 5, 4)
GAMMA, BETA, MEAN, VAR = (torch.tensor(values, dtype=torch.float32) for values in (
    [1.5, -0.5, 2, 0.8, 1.2], [0.3, 1, -2, 0.5, 0.1], [4, -1, 0.5, 2, -3], [0.5, 2, 3, 0.1, 1.5]))  # fmt: skip


def _scaled(x, m, v, g, b, e):
    return (x - m) / (v + e).sqrt() * g + b


def _statistics(x):
    return x.mean(0), x.var(0, correction=0)


STATISTICS = {  # in place of _statistics
    "The variance is over the wrong axis: the batch is dimension 0.": (
        lambda x: (x.mean(0), x.var(1, correction=0, keepdim=True)), lambda x: (x.mean(0), x.var(1, correction=0)),
        lambda x: (x.mean(0), x.var(1, keepdim=True)), lambda x: (x.mean(0), x.var(1))),
    "Mean and variance are over the wrong axis: the batch is dimension 0 (over dimension 1 it is LayerNorm).": (
        *(lambda x, k=k, c=c: (x.mean(1, keepdim=k), x.var(1, correction=c, keepdim=k))
          for k in (True, False) for c in (0, 1)),),
    "Mean and variance are over all entries: each feature has its own, over dimension 0.": (
        lambda x: (x.mean(), x.var(correction=0)), lambda x: (x.mean(), x.var())),
    "The mean is not subtracted before the squares are averaged: the variance is E[(x - mean)^2].":
        lambda x: (x.mean(0), x.square().mean(0)),
    "The squares are not averaged over the batch: the variance is their sum, divided by len(x).": (
        lambda x: (x.mean(0), x.var(0, correction=0) * len(x)),
        lambda x: (x.mean(0), x.var(0, correction=0) * len(x) / x.shape[1])),
    "The variance is unbiased (torch.var's default, by N - 1): the forward pass divides by N.":
        lambda x: (x.mean(0), x.var(0)),
    "The batch statistics are detached: they depend on x, and its gradient flows through them too.": (
        lambda x: (x.mean(0).detach(), x.var(0, correction=0).detach()),
        lambda x: (x.mean(0).detach(), x.var(0, correction=0)), lambda x: (x.mean(0), x.var(0, correction=0).detach())),
}  # fmt: skip
SCALES = {  # in place of _scaled
    "eps is forgotten, or not the one given: add it to the variance, under the root.": (
        lambda x, m, v, g, b, e: _scaled(x, m, v, g, b, 0), lambda x, m, v, g, b, e: _scaled(x, m, v, g, b, 1e-5)),
    "eps is outside the root: add it to the variance, before the root.":
        lambda x, m, v, g, b, e: (x - m) / (v.sqrt() + e) * g + b,
    "That divides by the variance: its root, the std, brings the scale to 1.":
        lambda x, m, v, g, b, e: (x - m) / (v + e) * g + b,
    "gamma and beta are missing from the output.": lambda x, m, v, g, b, e: (x - m) / (v + e).sqrt(),
    "gamma is missing from the output: multiply by it.": lambda x, m, v, g, b, e: _scaled(x, m, v, 1, b, e),
    "beta is missing from the output: add it.": lambda x, m, v, g, b, e: _scaled(x, m, v, g, 0, e),
    "beta is multiplied by gamma too: scale first, then shift.": lambda x, m, v, g, b, e: (_scaled(x, m, v, 1, b, e)) * g,
    "The mean is not subtracted.": lambda x, m, v, g, b, e: _scaled(x, 0, v, g, b, e),
    "The mean is subtracted after the division: subtract it from x, then divide.":
        lambda x, m, v, g, b, e: (x / (v + e).sqrt() - m) * g + b,
    "That is not divided by the std.": lambda x, m, v, g, b, e: (x - m) * g + b,
    "That multiplies by the std: divide by it.": lambda x, m, v, g, b, e: (x - m) * (v + e).sqrt() * g + b,
    "eps is added after the division: it belongs to the variance, under the root.": (
        lambda x, m, v, g, b, e: ((x - m) / v.sqrt() + e) * g + b, lambda x, m, v, g, b, e: _scaled(x, m, v, g, b + e, 0)),
    "beta has the wrong sign: add it.": lambda x, m, v, g, b, e: _scaled(x, m, v, g, -b, e),
    "x is scaled and shifted, but not standardised first.": lambda x, m, v, g, b, e: x * g + b,
}  # fmt: skip


def _function(statistics=_statistics, scaled=_scaled):
    return lambda x, gamma, beta, eps: scaled(x, *statistics(x), gamma, beta, eps)


def _each(change, table):
    """A table of mistakes, each part made into a whole answer."""
    return {why: tuple(map(change, parts if isinstance(parts, tuple) else (parts,))) for why, parts in table.items()}


def _called(f, x, gamma, beta, eps):
    return f(x, gamma, beta, eps)


def _derived(f, x, gamma, beta, eps):
    tensors = {name: t.clone().requires_grad_() for name, t in (("x", x), ("gamma", gamma), ("beta", beta))}
    return gradients(f(*tensors.values(), eps), tensors)


FORWARD = [
    (SQUARE, GAMMA, BETA, EPS),
    (SMALLER, GAMMA[:4], BETA[:4], EPS / 2),
    (LONG, GAMMA, BETA, EPS),
    (WIDE, GAMMA, BETA, EPS),
]
GRADIENTS = as_tensors("x.grad", "gamma.grad", "beta.grad")
check_batch_norm_forward = Check(
    "f(x, gamma, beta, eps) -> batch normalisation in train mode, as nn.BatchNorm1d does it; x (N, dim).",
    _function(),
    [
        Look(_called, FORWARD, read=as_tensors("output"), tolerance=1e-4),
        Look(_derived, FORWARD[::2], "the gradients through {}(x, gamma, beta, eps)", GRADIENTS, 1e-4),
    ],
    WHERE,
    call="{}(x, gamma, beta, eps)",
    mistakes={
        **_each(lambda part: _function(statistics=part), STATISTICS),
        **_each(lambda part: _function(scaled=part), SCALES),
        "The variance is unbiased, and eps is forgotten: these are the two places that differ from the chapter's function.":
            lambda x, gamma, beta, eps: gamma * (x - x.mean(0)) / x.std(0) + beta,
    },
)  # fmt: skip


class _BatchNorm(nn.Module):
    """The right answer, in pieces that the mistakes replace."""

    def __init__(self, dim, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.gamma, self.beta = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x):
        if self.training and len(x) < 2:
            raise ValueError("one example has no variance")
        mean, var = self.statistics(x) if self.training else (self.running_mean, self.running_var)
        out = self.scaled(x, mean, var, self.gamma, self.beta, self.eps)
        if self.training:
            with torch.no_grad():
                self.update(x.mean(0), x.var(0), x)
        return out

    def statistics(self, x):
        return _statistics(x)

    def scaled(self, *tensors):
        return _scaled(*tensors)

    def update(self, mean, var, x, old=None, new=None):
        old, new = 1 - self.momentum if old is None else old, self.momentum if new is None else new
        self.running_mean = old * self.running_mean + new * mean
        self.running_var = old * self.running_var + new * var


def _starting(**values):
    def __init__(self, *args, **how):
        _BatchNorm.__init__(self, *args, **how)
        for name, value in values.items():
            getattr(self, name).data.fill_(value) if name != "training" else setattr(self, name, value)

    return variant(_BatchNorm, __init__=__init__)


def _updating(var=lambda x: x.var(0), **weights):
    return variant(_BatchNorm, update=lambda self, m, v, x: _BatchNorm.update(self, m, var(x), x, **weights))


def _always_live(self, x):
    if self.training:
        return _BatchNorm.forward(self, x)
    return self.scaled(x, *self.statistics(x), self.gamma, self.beta, self.eps)


def _always_updating(self, x):
    out = _BatchNorm.forward(self, x)
    if not self.training:
        with torch.no_grad():
            self.update(x.mean(0), x.var(0), x)
    return out


VECTORS = "gamma", "beta", "running_mean", "running_var"


def _layer(cls, dim, *values, training=True):
    """A layer with these values in its tensors, in order, in the mode that is wanted."""
    layer = cls(dim, eps=EPS, momentum=MOMENTUM)
    for name in VECTORS:
        tensor(layer, name, dim)
    if not hasattr(layer, "training"):
        raise Verdict("layer.training does not exist", "There are two modes: let it be True in the beginning.")
    if not training:
        if isinstance(layer, nn.Module):
            layer.eval()
        layer.training = False
    return fill(layer, **dict(zip(VECTORS, values, strict=False)))


def _buffers(layer, dim):
    for name in VECTORS[2:]:
        if tensor(layer, name, dim).requires_grad:
            hint = "It keeps the graph of every batch so far alive: update it under `torch.no_grad()`."
            raise Verdict(f"layer.{name}.requires_grad is True", hint)
    return [getattr(layer, name).detach().reshape(-1).clone() for name in VECTORS[2:]]


def _start(cls):
    layer = _layer(cls, 5)
    not_shared(layer, _layer(cls, 5), VECTORS)
    return *(getattr(layer, name).reshape(-1) for name in VECTORS), torch.tensor(bool(layer.training))


def _trained(cls, x, gamma, beta, running_mean, running_var):
    return _layer(cls, x.shape[1], gamma, beta, running_mean, running_var)(x)


def _after_training(cls, x, y, running_mean, running_var):
    layer = _layer(cls, x.shape[1], GAMMA, BETA, running_mean, running_var)
    (
        layer(x.clone().requires_grad_()),
        layer(y.clone().requires_grad_()),
    )  # as in a network, where x depends on parameters
    return _buffers(layer, x.shape[1])


def _evaluated(cls, x, gamma, beta, running_mean, running_var):
    layer = _layer(cls, x.shape[1], gamma, beta, running_mean, running_var, training=False)
    return layer(x), *_buffers(layer, x.shape[1])


def _derived_layer(cls, x, gamma, beta, training=True):
    layer, x = _layer(cls, x.shape[1], gamma, beta, MEAN, VAR, training=training), x.clone().requires_grad_()
    tensors = {"x": x, **trainable(layer, ("gamma", "beta"))}
    out = layer(x)
    for name, value in tensors.items():
        if not value.requires_grad:
            hint = "gamma and beta are learnt: make them nn.Parameters, or tensors with requires_grad=True."
            raise Verdict(f"layer.{name}.requires_grad is False", hint)
    return [gradient.reshape(x.shape if i == 0 else (-1,)) for i, gradient in enumerate(gradients(out, tensors))]


def _without_defaults(cls):
    try:
        return cls(5) and ""
    except TypeError:
        return "your class has no defaults for eps and momentum; those of nn.BatchNorm1d are 1e-5 and 0.1"


def _by_default(cls, x):
    layer = cls(5, EPS, MOMENTUM) if _without_defaults(cls) else cls(5)
    if _without_defaults(cls):
        return _by_default(_BatchNorm, x)
    return layer(x), *_buffers(layer, 5)


def _alone(cls, x):
    try:
        _layer(cls, 5)(x)
    except Exception:  # noqa: BLE001 - any error will do
        return torch.zeros(())
    hint = "One example has no variance: raise an error in train mode, as nn.BatchNorm1d does, which asks for more of them."
    raise Verdict("your layer accepts a batch of one example in train mode", hint)


VALUES = (GAMMA, BETA, MEAN, VAR)
check_batch_norm = Check(
    """A class with the behaviour of nn.BatchNorm1d on inputs (N, dim): cls(dim, eps, momentum), then layer(x).

    Its attributes are gamma, beta, running_mean, running_var (tensors of dim values) and training; its defaults are
    eps=1e-5 and momentum=0.1. In train mode one example is an error. A plain class will do; its gamma and beta then
    require grad, or are what a method parameters() lists, as in the lecture.
    """,
    _BatchNorm,
    [
        Look(_start, call="layer = {}(dim, eps, momentum)", tolerance=1e-4,
             read=as_tensors(*(f"layer.{name}" for name in (*VECTORS, "training")))),
        Look(_trained, [(SQUARE, *VALUES), (SMALLER, *(v[:4] for v in VALUES)), (LONG, *VALUES), (WIDE, *VALUES)],
             f"layer(x) in train mode with eps = {EPS}", as_tensors("output"), 1e-4),
        Look(_derived_layer, [(LONG, GAMMA, BETA)], "the gradients through layer(x) in train mode", GRADIENTS, 1e-4),
        Look(_after_training, [(LONG, SQUARE, MEAN, VAR), (WIDE, LONG, MEAN, VAR)],
             f"the buffers after layer(x) and layer(y) in train mode with momentum = {MOMENTUM}",
             as_tensors(*VECTORS[2:]), 1e-4),
        Look(_evaluated, [(LONG, *VALUES), (LONG[:1], *VALUES)], f"layer(x) in eval mode with eps = {EPS}",
             as_tensors("output", "running_mean afterwards", "running_var afterwards"), 1e-4),
        Look(partial(_derived_layer, training=False), [(LONG, GAMMA, BETA)],
             "the gradients through layer(x) in eval mode", GRADIENTS, 1e-4, ("x", "gamma", "beta")),
        Look(_by_default, [(LONG / 1000,)], "layer = {}(dim), with eps = 1e-5 and momentum = 0.1; layer(x) in train mode",
             as_tensors("output", *VECTORS[2:]), (1e-4, 1e-6)),
        Look(_alone, [(LONG[:1],)], "layer(x) in train mode", as_tensors("output"), 1e-4),
    ],
    WHERE,
    call="layer = {}(dim, eps, momentum); layer(x)",
    agreed="its start values, output, gradients, buffers, eval mode and defaults are those of nn.BatchNorm1d",
    refuse=is_a_class("running_mean"),
    note=_without_defaults,
    mistakes={
        "running_var starts at 1, not 0: an untrained layer in eval mode then leaves its input as it is.":
            _starting(running_var=0),
        "gamma starts at 1: at 0 every output would be 0.": _starting(gamma=0),
        "A new layer is in train mode.": _starting(training=False),
        **_each(lambda part: variant(_BatchNorm, statistics=lambda self, x: part(x)), STATISTICS),
        **_each(lambda part: variant(_BatchNorm, scaled=lambda self, *tensors: part(*tensors)), SCALES),
        "The momentum is the wrong way round: new = (1 - momentum) * old + momentum * batch.":
            _updating(old=MOMENTUM, new=1 - MOMENTUM),
        "The momentum is the wrong way round, and the stored variance is biased.":
            _updating(lambda x: x.var(0, correction=0), old=MOMENTUM, new=1 - MOMENTUM),
        "The stored variance is biased: running_var takes the unbiased one (by N - 1), the output the biased one.":
            _updating(lambda x: x.var(0, correction=0)),
        "The std is stored in place of the variance.": (
            _updating(lambda x: x.std(0)), _updating(lambda x: x.std(0, correction=0))),
        "The stored variance is corrected twice: x.var() is by N - 1 already.":
            _updating(lambda x: x.var(0) * len(x) / (len(x) - 1)),
        "The buffers are not updated: train mode moves them towards the batch's statistics.": _updating(old=1, new=0),
        "The buffers are overwritten by the last batch: keep (1 - momentum) of the old value.": _updating(old=0, new=1),
        "The old value is kept whole: it has to shrink by (1 - momentum).": _updating(old=1),
        "momentum is hard-coded, or not the one given: use self.momentum.": tuple(
            _updating(old=1 - m, new=m) for m in (0.1, 0.001, 0.01, 0.5, 0.9, 0.99, 0.999)),
        "Train mode normalises by the running statistics: they are for eval mode, train mode takes the batch's.":
            variant(_BatchNorm, statistics=lambda self, x: (self.running_mean, self.running_var)),
        "Eval mode uses the batch's statistics: off-centre data should stay off-centre.":
            variant(_BatchNorm, forward=_always_live),
        "Eval mode only reads the buffers: update them in train mode alone.": variant(_BatchNorm, forward=_always_updating),
    },
)  # fmt: skip
