"""Chapter 07: the class Linear, plain or an nn.Module."""

import torch
from torch import nn

from helpers.checks.classes import fill, gradients, is_a_class, not_shared, tensor, trainable
from helpers.checks.engine import Check, Look
from helpers.checks.kinds import lecture_at, seeded_randn
from helpers.checks.mistakes import variant
from helpers.checks.readings import as_tensors
from helpers.checks.sandbox import Verdict


class _Linear(nn.Module):
    """The right answer, in pieces that the mistakes replace."""

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()
        self.weight = nn.Parameter(self.draw(fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None

    def draw(self, n, m):
        return torch.randn(n, m) / n**0.5

    def forward(self, x):
        self.out = self.product(x, self.weight, 0 if self.bias is None else self.bias)
        return self.out

    def product(self, x, weight, bias):
        return x @ weight + bias


def _weight(layer, fan_in, fan_out):
    value = getattr(layer, "weight", None)
    if value is ...:
        raise Verdict("layer.weight is still `...`", status="not attempted")
    if not isinstance(value, torch.Tensor) or value.shape != (fan_in, fan_out):
        kind = f"is of type {type(value).__name__}" if hasattr(layer, "weight") else "does not exist"
        kind = f"has shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else kind
        hint = f"Make it a tensor of shape (fan_in, fan_out), {fan_in, fan_out}, in __init__: here it is x @ weight."
        if isinstance(value, torch.Tensor) and value.shape == (fan_out, fan_in):
            hint = "That is nn.Linear's layout, (fan_out, fan_in): here it is x @ weight, so (fan_in, fan_out)."
        raise Verdict(f"layer.weight {kind}", hint)
    return value


def _start(cls, fan_in, fan_out):
    layer, other = cls(fan_in, fan_out), cls(fan_in, fan_out)
    weight, bias = _weight(layer, fan_in, fan_out), tensor(layer, "bias", fan_out)
    if bias.any():
        raise Verdict(f"layer.bias is {bias.tolist()}", "The bias starts at zero: only the weight is random.")
    not_shared(layer, other, ("weight", "bias"))
    if torch.equal(weight, other.weight) and weight.std() > 0:
        hint = "A seed or generator set inside __init__ starts anew for every layer: set it once, outside."
        raise Verdict("two new layers start with the same numbers in layer.weight", hint)
    for layer in (cls(fan_in, fan_out, bias=False), cls(fan_in, fan_out, False)):
        if not hasattr(layer, "bias"):
            raise Verdict("layer.bias does not exist", "Make it None, so that `layer.bias is None` can be asked.")
        if layer.bias is not None:
            hint = "Without a bias it is None: before a BatchNorm it would only be taken away again."
            raise Verdict("layer.bias is there, although bias=False", hint)
        trainable(layer, ("weight", "bias"))
    return torch.zeros(())


def _scale(cls, fan_in, fan_out):
    weight = cls(fan_in, fan_out).weight.detach()
    return weight.std(), weight.square().mean().sqrt()


def _layer(cls, weight, bias):
    return fill(cls(*weight.shape, bias=bias is not None), weight=weight, bias=bias)


def _output(cls, x, weight, bias):
    layer = _layer(cls, weight, bias)
    layer(x + 1)
    return layer(x)


def _kept(cls, x, weight, bias):
    layer = _layer(cls, weight, bias)
    layer(x + 1)
    trainable(layer, ("weight", "bias"))
    layer.weight.requires_grad_()
    out = layer(x)
    hint = "Keep what the layer returns, as it is: `self.out = ...`. The lecture's pictures look for it there."
    if not isinstance(getattr(layer, "out", None), torch.Tensor):
        raise Verdict("layer.out is missing", hint)
    if not torch.equal(layer.out, out):
        raise Verdict("layer.out is not what the layer has just returned", hint)
    if out.requires_grad and not layer.out.requires_grad:
        raise Verdict("layer.out is detached from the graph: its gradient could not be looked at", hint)
    return torch.zeros(())


def _derived(cls, x, weight, bias):
    layer, x = _layer(cls, weight, bias), x.clone().requires_grad_()
    tensors = trainable(layer, ("weight", "bias"))
    for value in tensors.values():
        value.requires_grad_()  # the lecture's way: whoever trains a plain class switches its gradients on
    of_x, of_weight, of_bias = gradients(layer(x), {"x": x, **tensors})
    return of_x, of_weight, of_bias.reshape(-1)


VALUES = [  # x, weight, bias; a square weight first, whose transpose fits and can be named
    (seeded_randn(2, 4, 3, seed=1), seeded_randn(3, 3, seed=2), seeded_randn(3, seed=3)),
    (seeded_randn(4, 3, seed=4), seeded_randn(3, 5, seed=5), seeded_randn(5, seed=6)),
    (seeded_randn(2, 4, 6, seed=7), seeded_randn(6, 1, seed=8), seeded_randn(1, seed=9)),
    (seeded_randn(4, 3, seed=4), seeded_randn(3, 5, seed=5), None),
]


def _drawn(*formulas):
    return tuple(variant(_Linear, draw=lambda self, n, m, formula=formula: formula(n, m)) for formula in formulas)


def _computed(*formulas):
    return tuple(variant(_Linear, product=lambda self, *values, f=f: f(*values)) for f in formulas)


def _normal(*stds):
    return _drawn(*(lambda n, m, std=std: torch.randn(n, m) * std(n, m) for std in stds))


FAN_OUT = (
    "fan_out is in it: fan_in alone counts. torch.nn.init expects the layout (fan_out, fan_in), so its fan_in is ours."
)
check_linear = Check(
    """A class with cls(fan_in, fan_out, bias=True): layer(x) is x @ weight + bias, for x (..., fan_in).

    layer.weight (fan_in, fan_out) starts with mean 0 and std 1 / sqrt(fan_in); layer.bias (fan_out,) starts at zero,
    with bias=False it is None. layer.out is the latest output. An nn.Module registers both; a plain class will do,
    whose gradients are switched on later, as in the lecture; its parameters(), where there is one, lists both.
    """,
    _Linear,
    [
        Look(_start, [(3, 5), (20, 4)], "layer = {}(fan_in, fan_out)", as_tensors("start")),
        # 40,000 numbers or more tell a std to half a per cent.
        Look(_scale, [(400, 100), (100, 400), (900, 50)], "layer = {}(fan_in, fan_out) of many inputs and outputs",
             as_tensors("the std of layer.weight", "its root mean square, with mean 0 the same,"), (0.02, 1e-4)),
        Look(_output, VALUES, "layer = {}(fan_in, fan_out); layer(x)", as_tensors("output")),
        Look(_derived, VALUES[:2], "the gradients through layer(x)", as_tensors("x.grad", "weight.grad", "bias.grad")),
        Look(_kept, VALUES[1:2], "layer(x), and then layer.out", as_tensors("out")),
    ],
    lecture_at("chapter 07, the class Linear", 4715),
    call="layer = {}(fan_in, fan_out, bias=True); layer(x)",
    agreed="its start values, output and gradients are those of x @ weight + bias",
    refuse=is_a_class("weight"),
    mistakes={
        "1/sqrt(fan_in) is missing: the output's std would be sqrt(fan_in) times the input's.": _normal(lambda n, m: 1),
        "That is 1/fan_in: it is variances that add up, so the std takes the root.": _normal(lambda n, m: 1 / n),
        "That multiplies by sqrt(fan_in): the more inputs, the smaller each weight, so divide.": _normal(lambda n, m: n**0.5),
        FAN_OUT: _normal(lambda n, m: m**-0.5, lambda n, m: 1 / m, lambda n, m: (2 / (n + m)) ** 0.5,
            lambda n, m: (n + m) ** -0.5, lambda n, m: (2 / m) ** 0.5, lambda n, m: 5 / 3 * m**-0.5,
            lambda n, m: (3 * m) ** -0.5),
        "That is 1/sqrt(3 fan_in), as in nn.Linear's default: the std of a uniform distribution up to 1/sqrt(fan_in).":
            _normal(lambda n, m: (3 * n) ** -0.5),
        "A gain is in it, 5/3 or ReLU's root of 2: this layer has none, the network multiplies afterwards.":
            _normal(lambda n, m: 5 / 3 * n**-0.5, lambda n, m: (2 / n) ** 0.5),
        "The std is hard-coded: it depends on fan_in.": _normal(
            *(lambda n, m, std=std: std for std in (0.2, 0.1, 0.05, 0.02, 0.01))),
        "torch.rand is uniform from 0 to 1: torch.randn is normal, around 0.": _drawn(
            lambda n, m: torch.rand(n, m) / n**0.5, torch.rand),
        "All weights are the same: units that start alike stay alike. Draw them with torch.randn.": _drawn(
            torch.zeros, torch.ones, lambda n, m: torch.ones(n, m) / n**0.5),
        "The bias is not added.": _computed(lambda x, w, b: x @ w),
        "The bias is subtracted.": _computed(lambda x, w, b: x @ w - b),
        "The weight is transposed: in the layout (fan_in, fan_out) it is x @ weight.": _computed(lambda x, w, b: x @ w.T + b),
        "The root of fan_in divides once more: it belongs into the weight, in __init__.": _computed(
            lambda x, w, b: x @ w / len(w) ** 0.5 + b, lambda x, w, b: (x @ w + b) / len(w) ** 0.5),
        "A nonlinearity is part of it: that is a layer of its own.": _computed(
            lambda x, w, b: (x @ w + b).tanh(), lambda x, w, b: (x @ w + b).relu()),
    },
)  # fmt: skip
