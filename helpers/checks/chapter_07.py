"""Chapter 07: the class Linear, plain or an nn.Module."""

import torch
from torch import nn

from helpers.checks.classes import fill, gradients, is_a_class, not_shared, tensor, trainable
from helpers.checks.engine import Check, Look, Verdict
from helpers.checks.kinds import lecture_at, seeded_randn
from helpers.checks.mistakes import each, variant
from helpers.checks.readings import as_tensors


class _Linear(nn.Module):
    """The right answer, in pieces that the mistakes replace."""

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()
        self.weight = nn.Parameter(self.draw(fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None

    @staticmethod
    def draw(n, m):
        return torch.randn(n, m) / n**0.5

    @staticmethod
    def product(x, weight, bias):
        return x @ weight + bias

    def forward(self, x):
        self.out = self.product(x, self.weight, 0 if self.bias is None else self.bias)
        return self.out


def _start(cls, fan_in, fan_out):
    layer, other = cls(fan_in, fan_out), cls(fan_in, fan_out)
    weight, bias = tensor(layer, "weight", fan_in, fan_out), tensor(layer, "bias", fan_out)
    if bias.any():
        raise Verdict(f"layer.bias is {bias.tolist()}", "The bias starts at zero: only the weight is random.")
    not_shared(layer, other, ("weight", "bias"))
    if torch.equal(weight, other.weight) and weight.std() > 0:
        hint = "A seed or generator set inside __init__ starts anew for every layer: set it once, outside."
        raise Verdict("two new layers start with the same numbers in layer.weight", hint)
    for layer in (cls(fan_in, fan_out, bias=False), cls(fan_in, fan_out, False)):
        if getattr(layer, "bias", ...) is not None:
            matter = "is there, although bias=False" if hasattr(layer, "bias") else "does not exist, with bias=False"
            raise Verdict(f"layer.bias {matter}", "Make it None then, so that `layer.bias is None` can be asked.")
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


def _derived(cls, x, weight, bias):
    layer, x = _layer(cls, weight, bias), x.clone().requires_grad_()
    tensors = {name: value.requires_grad_() for name, value in trainable(layer, ("weight", "bias")).items()}
    return [g.reshape(x.shape if i == 0 else (-1,)) for i, g in enumerate(gradients(layer(x), {"x": x, **tensors}))]


def _kept(cls, x, weight, bias):
    layer = _layer(cls, weight, bias)
    layer(x + 1)
    out, kept = layer(x.clone().requires_grad_()), getattr(layer, "out", None)
    hint = "Keep what the layer returns, as it is: `self.out = ...`. The lecture's pictures look for it there."
    if not isinstance(kept, torch.Tensor):
        raise Verdict("layer.out is missing", hint)
    if not torch.equal(kept, out) or not kept.requires_grad:
        matter = "is detached from the graph" if torch.equal(kept, out) else "is not what the layer has just returned"
        raise Verdict(f"layer.out {matter}", hint)
    return torch.zeros(())


VALUES = [  # x, weight, bias; a square weight first, whose transpose fits and can be named
    (seeded_randn(2, 4, 3, seed=1), seeded_randn(3, 3, seed=2), seeded_randn(3, seed=3)),
    (seeded_randn(4, 3, seed=4), seeded_randn(3, 5, seed=5), seeded_randn(5, seed=6)),
    (seeded_randn(2, 4, 6, seed=7), seeded_randn(6, 1, seed=8), seeded_randn(1, seed=9)),
    (seeded_randn(4, 3, seed=4), seeded_randn(3, 5, seed=5), None),
]
STDS = {
    "1/sqrt(fan_in) is missing: the output's std would be sqrt(fan_in) times the input's.": lambda n, m: 1,
    "That is 1/fan_in: it is variances that add up, so the std takes the root.": lambda n, m: 1 / n,
    "The more inputs, the smaller each weight: divide by sqrt(fan_in).": lambda n, m: n**0.5,
    "fan_out is in it: fan_in counts. torch.nn.init expects the layout (fan_out, fan_in), so its fan_in is ours.": (
        lambda n, m: m**-0.5, lambda n, m: 1 / m, lambda n, m: (2 / (n + m)) ** 0.5, lambda n, m: (n + m) ** -0.5,
        lambda n, m: (2 / m) ** 0.5, lambda n, m: 5 / 3 * m**-0.5, lambda n, m: (3 * m) ** -0.5),
    "That is nn.Linear's default, 1/sqrt(3 fan_in): of a uniform distribution up to 1/sqrt(fan_in).": lambda n, m: (3 * n) ** -0.5,
    "A gain is in it, 5/3 or ReLU's root of 2: this layer has none, the network multiplies afterwards.": (
        lambda n, m: 5 / 3 * n**-0.5, lambda n, m: (2 / n) ** 0.5),
    "The std is hard-coded: it depends on fan_in.": tuple(lambda n, m, std=std: std for std in (0.2, 0.1, 0.02, 0.01)),
}  # fmt: skip
DRAWS = each(lambda std: lambda n, m: torch.randn(n, m) * std(n, m), STDS) | {
    "torch.rand is uniform from 0 to 1: torch.randn is normal.": (torch.rand, lambda n, m: torch.rand(n, m) / n**0.5),
    "All weights are the same: units that start alike stay alike.": (torch.zeros, lambda n, m: torch.ones(n, m) / n**0.5),
}
PRODUCTS = {
    "The bias is not added.": lambda x, w, b: x @ w,
    "The bias is subtracted.": lambda x, w, b: x @ w - b,
    "The weight is transposed: in the layout (fan_in, fan_out) it is x @ weight.": lambda x, w, b: x @ w.T + b,
    "The root of fan_in divides once more: it belongs into the weight.": lambda x, w, b: x @ w / len(w) ** 0.5 + b,
    "A nonlinearity is part of it: a layer of its own.": (lambda x, w, b: (x @ w + b).tanh(), lambda x, w, b: (x @ w + b).relu()),
}
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
             as_tensors("the std of layer.weight", "the root mean square, which is the std where the mean is 0"), (0.02, 1e-4)),
        Look(_output, VALUES, "layer = {}(fan_in, fan_out); layer(x)", as_tensors("output")),
        Look(_derived, VALUES[:2], "the gradients through layer(x)", as_tensors("x.grad", "weight.grad", "bias.grad")),
        Look(_kept, VALUES[1:4:2], "layer(x), and then layer.out", as_tensors("out")),
    ],
    lecture_at("chapter 07, the class Linear", 4715),
    call="layer = {}(fan_in, fan_out, bias=True); layer(x)",
    agreed="its start values, output and gradients are those of x @ weight + bias",
    refuse=is_a_class("weight"),
    mistakes=each(lambda part: variant(_Linear, draw=staticmethod(part)), DRAWS)
    | each(lambda part: variant(_Linear, product=staticmethod(part)), PRODUCTS),
)  # fmt: skip
