"""Chapter 05: batch normalisation as a function, and as a class beside nn.BatchNorm1d."""

from functools import partial

import torch
from torch import nn

from helpers.checks.classes import fill, gradients, is_a_class, not_shared, tensor, trainable
from helpers.checks.engine import Check, Look
from helpers.checks.kinds import check, lecture_at
from helpers.checks.mistakes import each, variant
from helpers.checks.readings import as_parts
from helpers.checks.sandbox import require

PLACE = "chapter 05, standardise, scale and shift", 2440
EPS, MOMENTUM = 0.3, 0.2  # far from the defaults, so that a forgotten eps or a swapped momentum shows


def _batch(n, dim, seed):
    """A batch whose features differ in mean and scale, in numbers short enough to be worked out by hand."""
    x = torch.randn((n, dim), generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return (x * (0.5 + torch.arange(dim)) + torch.arange(dim) * 2 - 3).round(decimals=1)


# Square first: a statistic over the wrong axis then has a shape that fits, and can be named.
SQUARE, SMALLER, LONG, WIDE = _batch(5, 5, 1), _batch(4, 4, 2), _batch(9, 5, 3), _batch(2, 5, 4)
GAMMA, BETA = torch.tensor([1.5, -0.5, 2.0, 0.8, 1.2]), torch.tensor([0.3, 1.0, -2.0, 0.5, 0.1])
MEAN, VAR = torch.tensor([4.0, -1.0, 0.5, 2.0, -3.0]), torch.tensor([0.5, 2.0, 3.0, 0.1, 1.5])


def _scaled(x, m, v, g, b, e):
    return (x - m) / (v + e).sqrt() * g + b


def _over(mean, var, correction=0, keep=True, detached=""):
    """Statistics over these dimensions; None stands for all."""

    def statistics(x):
        m, v = x.mean(mean, keepdim=keep), x.var(var, correction=correction, keepdim=keep)
        return m.detach() if "m" in detached else m, v.detach() if "v" in detached else v

    return statistics


STATISTICS = {
    "The wrong axis: the batch is dimension 0, for the mean and for the variance (over dimension 1 it is LayerNorm).": tuple(
        _over(mean, 1, c, keep) for mean in (0, 1) for c in (0, 1) for keep in (False, True)),
    "Mean and variance are over all entries: each feature has its own.": (_over(None, None), _over(None, None, 1)),
    "The mean is not subtracted before the squares are averaged.": lambda x: (x.mean(0), x.square().mean(0)),
    "The variance is the sum of the squares divided by len(x), the size of the batch.": (
        *(lambda x, n=n: (x.mean(0), x.var(0, correction=0) * len(x) / n(x)) for n in (lambda x: 1, lambda x: x.shape[1])),),
    "The variance is unbiased (torch.var's default, by N - 1): the forward pass divides by N.": _over(0, 0, 1),
    "The batch statistics are detached: they depend on x, and its gradient flows through them too.": (
        *(_over(0, 0, detached=which) for which in ("mv", "m", "v")),),
}  # fmt: skip
SCALES = {
    "eps is forgotten, or not the one given: add it to the variance, under the root.": (
        *(lambda x, m, v, g, b, e, c=c: _scaled(x, m, v, g, b, c) for c in (0, 1e-5)),),
    "eps is outside the root: add it to the variance.": lambda x, m, v, g, b, e: (x - m) / (v.sqrt() + e) * g + b,
    "That divides by the variance: divide by its root.": lambda x, m, v, g, b, e: (x - m) / (v + e) * g + b,
    "gamma or beta is missing: multiply by gamma, then add beta.": tuple(
        lambda x, m, v, g, b, e, c=c: _scaled(x, m, v, g if c == "gamma" else 1, b if c == "beta" else 0, e)
        for c in ("gamma", "beta", "")),
    "beta is multiplied by gamma too: scale, then shift.": lambda x, m, v, g, b, e: _scaled(x, m, v, 1, b, e) * g,
    "gamma and beta have changed places: gamma multiplies.": lambda x, m, v, g, b, e: _scaled(x, m, v, b, g, e),
    "The mean is not subtracted.": lambda x, m, v, g, b, e: _scaled(x, 0, v, g, b, e),
}  # fmt: skip

OUTPUTS = "output", "x.grad", "gamma.grad", "beta.grad"
BATCHES = SQUARE, SMALLER, LONG, WIDE, _batch(3, 5, 5)
FORWARD = [(x, GAMMA[: x.shape[1]], BETA[: x.shape[1]], EPS / i) for i, x in enumerate(BATCHES, 1)]


def _forward(f, x, gamma, beta, eps):
    """The output, and the gradients through it."""
    tensors = {"x": x, "gamma": gamma, "beta": beta}
    out = f(*(tensor.requires_grad_() for tensor in tensors.values()), eps)
    return out, *gradients(out, tensors)


@check(*PLACE, FORWARD, trial=_forward, read=as_parts(*OUTPUTS), tolerance=1e-4)
def check_batch_norm_forward(x, gamma, beta, eps):
    """f(x, gamma, beta, eps) -> batch normalisation in train mode, as nn.BatchNorm1d does it; x (N, dim)."""
    return _scaled(x, *_over(0, 0)(x), gamma, beta, eps)


check_batch_norm_forward.mistakes = {
    **each(lambda part: lambda x, *rest: _scaled(x, *part(x), *rest), STATISTICS),
    **each(lambda part: lambda x, *rest: part(x, *_over(0, 0)(x), *rest), SCALES),
}


class _BatchNorm(nn.Module):
    """The right answer, in pieces that the mistakes replace."""

    statistics, scaled = staticmethod(_over(0, 0, keep=False)), staticmethod(_scaled)

    def __init__(self, dim, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.gamma, self.beta = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.running_mean, self.running_var = torch.zeros(dim), torch.ones(dim)

    def forward(self, x):
        if self.training and len(x) < 2:
            raise ValueError("one example has no variance")
        mean, var = self.statistics(x) if self.training else (self.running_mean, self.running_var)
        out = self.scaled(x, mean, var, self.gamma, self.beta, self.eps)
        if self.training:
            self.update(x.detach())
        return out

    def update(self, x, var=lambda x: x.var(0), weigh=lambda momentum: (1 - momentum, momentum)):
        old, new = weigh(self.momentum)
        self.running_mean = old * self.running_mean + new * x.mean(0)
        self.running_var = old * self.running_var + new * var(x)


def _updating(var=lambda x: x.var(0), weigh=lambda m: (1 - m, m)):
    return variant(_BatchNorm, update=lambda self, x: _BatchNorm.update(self, x, var, weigh))


def _evaluating(change):
    """A class that does something else in eval mode."""
    return variant(_BatchNorm, forward=lambda self, x: (_BatchNorm.forward if self.training else change)(self, x))


def _training(change):
    """A class that does something else in train mode."""
    return variant(_BatchNorm, forward=lambda self, x: (change if self.training else _BatchNorm.forward)(self, x))


def _stored(layer, x):
    return _scaled(x, layer.running_mean, layer.running_var, layer.gamma, layer.beta, layer.eps)


VECTORS = "gamma", "beta", "running_mean", "running_var"


def _start(cls):
    layer, other = cls(5, eps=EPS, momentum=MOMENTUM), cls(5, eps=EPS, momentum=MOMENTUM)
    require(getattr(layer, "training", False), "layer.training is not True", "A new layer is in train mode.")
    hint = "An untrained layer in eval mode changes nothing: scale and variance start at 1, shift and mean at 0."
    for name, value in zip(VECTORS, (1, 0, 0, 1), strict=True):
        found = tensor(layer, name, 5).reshape(-1).tolist()
        require(found == [value] * 5, f"layer.{name} starts as {found}", hint)
    not_shared(layer, other, VECTORS)
    return torch.zeros(())


def _layer(cls, dim, training):
    layer = cls(dim, eps=EPS, momentum=MOMENTUM)
    if not training:
        layer.eval() if isinstance(layer, nn.Module) else None
        layer.training = False
    return layer


def _observed(cls, x, y, *values, training=True):
    """The output for x, the gradients through it, and the running statistics after x and y."""
    layer = fill(_layer(cls, x.shape[1], training), **dict(zip(VECTORS, values, strict=True)))
    tensors = {"x": x.requires_grad_(), **trainable(layer, VECTORS[:2])}
    out = layer(x)
    to_x, to_gamma, to_beta = gradients(out, tensors)
    layer(y.requires_grad_())  # as in a network, where it depends on parameters
    return out, to_x, to_gamma.reshape(-1), to_beta.reshape(-1), *_statistics(layer)


def _statistics(layer):
    """The running statistics of a layer."""
    for name in VECTORS[2:]:
        hint = "It is not learnt: make it a tensor without a gradient, and update it under `torch.no_grad()`."
        require(not getattr(layer, name).requires_grad, f"layer.{name}.requires_grad is True", hint)
    return [getattr(layer, name).reshape(-1) for name in VECTORS[2:]]


def _by_default(cls, x):
    try:
        layer = cls(5)
    except TypeError:
        layer = _BatchNorm(5)  # without defaults there is nothing to compare
    out, statistics = layer(x), _statistics(layer)
    hint = "One example has no variance: raise an error in train mode, as nn.BatchNorm1d does."
    require(not _takes_one(cls, x, True), "your layer accepts a batch of one example in train mode", hint)
    hint = "It uses the statistics that it has stored: one example is enough."
    require(_takes_one(cls, x, False), "your layer refuses one example in eval mode", hint)
    return out, *statistics


def _takes_one(cls, x, training):
    try:
        return _layer(cls, 5, training)(x[:1]) is not None
    except Exception:  # noqa: BLE001 - any error will do
        return False


PAIRS = list(zip(BATCHES, (LONG, SMALLER + 1, SQUARE, LONG, WIDE), strict=True))
STATES = "running_mean afterwards", "running_var afterwards"
check_batch_norm = Check(
    """A class with the behaviour of nn.BatchNorm1d on inputs (N, dim): cls(dim, eps, momentum), then layer(x).

    Its attributes are gamma, beta, running_mean, running_var (tensors of dim values) and training; its defaults are
    eps=1e-5 and momentum=0.1. In train mode one example is an error. A plain class will do; its gamma and beta then
    require grad, or are what a method parameters() lists, as in the lecture.
    """,
    _BatchNorm,
    [
        Look(_start, call="layer = {}(dim, eps, momentum)"),
        Look(_observed, [(x, y, *(v[: x.shape[1]] for v in (GAMMA, BETA, MEAN, VAR))) for x, y in PAIRS],
             f"layer(x), then layer(y) in train mode with eps = {EPS}, momentum = {MOMENTUM}", as_parts(*OUTPUTS, *STATES), 1e-4),
        Look(partial(_observed, training=False), [(LONG, SQUARE, GAMMA, BETA, MEAN, VAR)],
             f"layer(x), then layer(y) in eval mode with eps = {EPS}", as_parts(*OUTPUTS, *STATES), 1e-4),
        Look(_by_default, [(LONG / 1000,)], "layer = {}(dim), without eps and momentum; layer(x) in train mode",
             as_parts("output", *STATES), (1e-4, 1e-6),
             hint="The defaults are those of nn.BatchNorm1d: eps = 1e-5, added to the variance, and momentum = 0.1."),
    ],
    lecture_at(*PLACE),
    call="layer = {}(dim, eps, momentum); layer(x)",
    refuse=is_a_class("running_mean"),
    mistakes={
        **each(lambda part: variant(_BatchNorm, statistics=staticmethod(part)), STATISTICS),
        **each(lambda part: variant(_BatchNorm, scaled=staticmethod(part)), SCALES),
        "The two are not weighed so: new = (1 - momentum) * old + momentum * batch.": (
            _updating(weigh=lambda m: (m, 1 - m)), _updating(weigh=lambda m: (1, m))),
        "The stored variance is biased: running_var takes the unbiased one (by N - 1), the output the biased one.": _updating(
            lambda x: x.var(0, correction=0)),
        "The std is stored in place of the variance.": tuple(_updating(lambda x, c=c: x.std(0, correction=c)) for c in (0, 1)),
        "The buffers are not updated: train mode moves them towards the batch's statistics.": _updating(weigh=lambda m: (1, 0)),
        "The buffers are overwritten by the last batch: keep (1 - momentum) of the old value.": _updating(weigh=lambda m: (0, 1)),
        "momentum is hard-coded, or not the one given: use self.momentum.": tuple(
            _updating(weigh=lambda _, m=m: (1 - m, m)) for m in (0.1, 0.001, 0.01, 0.5, 0.9, 0.99)),
        "Train mode normalises by the running statistics: they are for eval mode.": (
            _training(lambda self, x: (_stored(self, x), self.update(x.detach()))[0]),
            _training(lambda self, x: (self.update(x.detach()), _stored(self, x))[1])),
        "Eval mode uses the batch's statistics: off-centre data should stay off-centre.": _evaluating(
            lambda self, x: self.scaled(x, *self.statistics(x), self.gamma, self.beta, self.eps)),
        "Eval mode only reads the buffers: update them in train mode alone.": (
            _evaluating(lambda self, x: (_BatchNorm.forward(self, x), self.update(x.detach()))[0]),
            _evaluating(lambda self, x: (self.update(x.detach()), _BatchNorm.forward(self, x))[1])),
    },
)  # fmt: skip
