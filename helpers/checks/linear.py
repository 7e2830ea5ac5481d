"""Chapter 07's check of a Linear class, plain or an nn.Module.

The class is put through experiments, each a function of the class and a case's values that returns tensors.
`helpers.checks` hands the check on.
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from helpers.checks.engine import CheckResult, Verdict, as_tensors, judge, lecture_at, seeded_randn
from helpers.checks.layers import class_refused, gradients, refuse_shared

LOOK = lecture_at("chapter 07, the class Linear", 4715)

FOUND = torch.zeros(1)  # of an experiment in which there is nothing to compare
STAGES = []  # check_linear goes through them in this order


def _stage(
    call, parameters="fan_in, fan_out", cases=((3, 5),), right=lambda *_: FOUND, mistakes=(), *,
    labels=("result",), tolerance=1e-5,
):  # fmt: skip
    """Register one experiment on a class: a function of the class and a case's values, which returns tensors."""

    def register(experiment):
        def stage(cls):
            options = {"read": as_tensors(*labels), "tolerance": tolerance, "call": call.format(_name(cls))}
            return judge(partial(experiment, cls), parameters, cases, right, mistakes, LOOK, **options)

        STAGES.append(stage)
        return experiment

    return register


def _name(cls):
    return str(getattr(cls, "__name__", "Linear")).replace("<lambda>", "Linear")


# What a new layer holds


def _tensor(layer, name, shape):
    value = getattr(layer, name, None)
    if not isinstance(value, torch.Tensor):
        kind = f"is of type {type(value).__name__}" if hasattr(layer, name) else "does not exist"
        raise Verdict(f"layer.{name} {kind}", f"Make it a tensor of shape {shape} in __init__.")
    return value


TRANSPOSED = "That is nn.Linear's layout, (fan_out, fan_in): here it is x @ weight, so (fan_in, fan_out)."


@_stage("layer = {}(fan_in, fan_out)", cases=[(3, 5), (20, 4)], right=lambda n, m: torch.tensor([n, m]),
        mistakes=[(TRANSPOSED, lambda n, m: torch.tensor([m, n]))], labels=["layer.weight.shape"])  # fmt: skip
def _shapes(cls, fan_in, fan_out):
    layer = cls(fan_in, fan_out)
    bias = _tensor(layer, "bias", (fan_out,))
    if bias.numel() != fan_out or bias.shape[-1] != fan_out:
        raise Verdict(f"layer.bias has shape {tuple(bias.shape)}", f"One number an output: ({fan_out},).")
    return torch.tensor(_tensor(layer, "weight", (fan_in, fan_out)).shape)


@_stage("layer = {}(fan_in, fan_out)")
def _bias_at_start(cls, fan_in, fan_out):
    bias = cls(fan_in, fan_out).bias.detach().reshape(-1)
    if bias.any():
        raise Verdict(f"layer.bias is {bias.tolist()}", "The bias starts at zero: only the weight is random.")
    return FOUND


@_stage("layer = {}(fan_in, fan_out, bias=False)")
def _no_bias(cls, fan_in, fan_out):
    for layer in (cls(fan_in, fan_out, bias=False), cls(fan_in, fan_out, False)):
        if not hasattr(layer, "bias"):
            raise Verdict("layer.bias does not exist", "Make it None, so that `layer.bias is None` can be asked.")
        if layer.bias is not None:
            hint = "Without a bias it is None: before a BatchNorm it would only be taken away again."
            raise Verdict("layer.bias is there, although bias=False", hint)
    return FOUND


def _normal(std, mean=0.0):
    """What _scale gives for weights of this std, a function of fan_in and fan_out; mean in units of that std."""
    return lambda n, m: (torch.tensor(std(n, m)), torch.tensor(std(n, m) * (1 + mean**2) ** 0.5))


ALIKE = "All weights are the same: units that start alike stay alike. Draw them with torch.randn."
KAIMING = 'torch.nn.init expects the layout (fan_out, fan_in): here it takes mode="fan_out", nonlinearity="linear".'
UNIFORM = "torch.rand is uniform from 0 to 1: torch.randn is normal, around 0."
SCALE_MISTAKES = [
    ("1/sqrt(fan_in) is missing: the output's std would be sqrt(fan_in) times the input's.", _normal(lambda n, m: 1.0)),
    ("That is 1/sqrt(fan_out): it is fan_in that counts. " + KAIMING, _normal(lambda n, m: m**-0.5)),
    ("That is 1/fan_in: it is variances that add up, so the std takes the root.", _normal(lambda n, m: 1 / n)),
    ("That is 1/fan_out: it is fan_in that counts, and its root.", _normal(lambda n, m: 1 / m)),
    ("That multiplies by sqrt(fan_in): the more inputs, the smaller each weight, so divide.", _normal(lambda n, m: n**0.5)),
    ("fan_in and fan_out both enter, as in Xavier's init: here only fan_in does.",
     _normal(lambda n, m: (2 / (n + m)) ** 0.5)),
    ("fan_in and fan_out both enter, as in Xavier's init: here only fan_in does.", _normal(lambda n, m: (n + m) ** -0.5)),
    ("That is 1/sqrt(3 fan_in), as in nn.Linear's default: the std of a uniform distribution up to 1/sqrt(fan_in).",
     _normal(lambda n, m: (3 * n) ** -0.5)),
    ("A gain of 5/3 is in it: this layer has none (gain 1), the network multiplies afterwards.",
     _normal(lambda n, m: 5 / 3 * n**-0.5)),
    ("The root of 2 is ReLU's gain: this layer has none (gain 1), the network multiplies afterwards.",
     _normal(lambda n, m: (2 / n) ** 0.5)),
    ("That is sqrt(2/fan_out): with ReLU's gain, and of fan_out, not fan_in. " + KAIMING,
     _normal(lambda n, m: (2 / m) ** 0.5)),
    ("That is 5/3/sqrt(fan_out): with tanh's gain, and of fan_out, not fan_in. " + KAIMING,
     _normal(lambda n, m: 5 / 3 * m**-0.5)),
    ("That is 1/sqrt(3 fan_out): it is fan_in that counts, without the 3. " + KAIMING,
     _normal(lambda n, m: (3 * m) ** -0.5)),
    *((f"{std} is hard-coded: the std depends on fan_in.", _normal(lambda n, m, std=std: std))
      for std in (0.2, 0.1, 0.05, 0.02, 0.01)),
    (UNIFORM, _normal(lambda n, m: (12 * n) ** -0.5, mean=3**0.5)),
    (UNIFORM, _normal(lambda n, m: 12**-0.5, mean=3**0.5)),
    (ALIKE, _normal(lambda n, m: 0.0)),
    (ALIKE, lambda n, m: (torch.tensor(0.0), torch.tensor(1.0))),
]  # fmt: skip


# 40,000 numbers or more tell a std to half a per cent.
@_stage("layer = {}(fan_in, fan_out) of many inputs and outputs", cases=[(400, 100), (100, 400), (900, 50)],
        right=_normal(lambda n, m: n**-0.5), mistakes=SCALE_MISTAKES, tolerance=(0.02, 1e-4),
        labels=["the std of layer.weight", "its root mean square, with mean 0 the same,"])  # fmt: skip
def _scale(cls, fan_in, fan_out):
    weight = cls(fan_in, fan_out).weight.detach()
    return weight.std(), weight.square().mean().sqrt()


@_stage("two layers {}(fan_in, fan_out)")
def _two_layers(cls, fan_in, fan_out):
    first, second = cls(fan_in, fan_out), cls(fan_in, fan_out)
    refuse_shared(first, second, ("weight", "bias"))
    if torch.equal(first.weight, second.weight):
        hint = "A seed or generator set inside __init__ starts anew for every layer: set it once, outside."
        raise Verdict("both start with the same numbers in layer.weight", hint)
    return FOUND


# What it computes


class _TorchLinear(nn.Linear):
    """The right answer: torch's own, in the lecture's layout."""

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__(fan_out, fan_in, bias=False)
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None

    def forward(self, x):
        return F.linear(x, self.weight.T, self.bias)


def _filled(cls, weight, bias):
    """A learner's layer with these values in weight and bias; with None for bias, a layer without."""
    layer = cls(*weight.shape, bias=bias is not None)
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            target = getattr(layer, name)
            target.data.copy_(value.view_as(target))
    return layer


LAYERS = [  # x, weight, bias; a square weight first, whose transpose fits and can be named
    (seeded_randn(2, 4, 3, seed=1), seeded_randn(3, 3, seed=2), seeded_randn(3, seed=3)),
    (seeded_randn(4, 3, seed=4), seeded_randn(3, 5, seed=5), seeded_randn(5, seed=6)),
    (seeded_randn(2, 4, 6, seed=7), seeded_randn(6, 1, seed=8), seeded_randn(1, seed=9)),
]
VALUES = "x, weight, bias"
WITHOUT = [(x, weight, None) for x, weight, _ in LAYERS]
AGAIN = "The root of fan_in divides once more: it belongs into the weight, in __init__."
OUTPUT_MISTAKES = [
    ("The bias is not added.", lambda x, w, b: x @ w),
    ("The bias is subtracted.", lambda x, w, b: x @ w - b),
    ("The weight is transposed: in the layout (fan_in, fan_out) it is x @ weight.", lambda x, w, b: x @ w.T + b),
    (AGAIN, lambda x, w, b: x @ w / len(w) ** 0.5 + b),
    (AGAIN, lambda x, w, b: (x @ w + b) / len(w) ** 0.5),
    ("A tanh is part of it: that is a layer of its own.", lambda x, w, b: (x @ w + b).tanh()),
    ("A ReLU is part of it: that is a layer of its own.", lambda x, w, b: (x @ w + b).relu()),
]  # fmt: skip


def _right_output(x, weight, bias):
    return _filled(_TorchLinear, weight, bias)(x)


@_stage("layer = {}(fan_in, fan_out, bias=False); layer(x)", VALUES, WITHOUT, _right_output, labels=["output"])
@_stage("layer = {}(fan_in, fan_out); layer(x)", VALUES, LAYERS, _right_output, OUTPUT_MISTAKES, labels=["output"])
def _output(cls, x, weight, bias):
    layer = _filled(cls, weight, bias)
    layer(x + 1)
    out = layer(x)
    if isinstance(kept := getattr(layer, "out", out), torch.Tensor) and not torch.equal(kept, out):
        raise Verdict("layer.out is not what the layer has just returned", "Keep it: `self.out = ...`.")
    return out


def _parameters(layer):
    """weight and bias, with gradients; a Verdict where whoever trains the layer would not find or move them."""
    named = {name: getattr(layer, name) for name in ("weight", "bias") if getattr(layer, name) is not None}
    method = getattr(layer, "parameters", None)
    listed = list(method()) if callable(method) else list(named.values())
    for name, tensor in named.items():
        if not any(tensor is parameter for parameter in listed):
            hint = "Nothing would train it: list it there; in an nn.Module make it an nn.Parameter."
            raise Verdict(f"layer.{name} is not among layer.parameters()", hint)
        if not tensor.is_leaf:
            hint = "Its .grad would stay None. Compute the numbers first, then switch the gradient on."
            raise Verdict(f"layer.{name} is computed from another tensor that requires grad", hint)
        tensor.requires_grad_()  # the lecture's way: whoever trains a plain class switches its gradients on
    return named


@_stage("the gradients through layer(x)", VALUES, LAYERS[:2], lambda *values: _gradients(_TorchLinear, *values),
        labels=["x.grad", "weight.grad", "bias.grad"])  # fmt: skip
def _gradients(cls, x, weight, bias):
    layer, x = _filled(cls, weight, bias), x.clone().requires_grad_()
    parameters = _parameters(layer)  # which switches their gradients on, before the layer is called
    of_x, of_weight, of_bias = gradients(layer(x), x=x, **parameters)
    return of_x, of_weight, of_bias.reshape(-1)


def check_linear(cls):
    """A class with cls(fan_in, fan_out, bias=True): layer(x) is x @ weight + bias, for x (..., fan_in).

    layer.weight (fan_in, fan_out) starts with mean 0 and std 1 / sqrt(fan_in); layer.bias (fan_out,) starts at
    zero, with bias=False it is None. A plain class will do, with tensors whose gradients are switched on later, as
    in the lecture; parameters(), where there is one, lists them all. layer.out, where there is one, is the latest
    output; a plain class without it is right, but told what it is for.
    """
    call = f"layer = {_name(cls)}(fan_in, fan_out, bias=True); layer(x)"
    refused = class_refused(cls, call, "weight", lambda: cls(3, 4)(torch.ones(2, 3)), LOOK)
    if refused is not None:
        return refused
    for stage in STAGES:
        if not (result := stage(cls)):
            return result

    def keeps():
        layer = cls(3, 4)
        layer(torch.ones(2, 3))
        return float(hasattr(layer, "out") or isinstance(layer, nn.Module))  # a module has hooks for that

    kept = judge(keeps, "", [()], lambda: 1.0, [], LOOK)
    unkept = "your layer does not keep its output as layer.out, where the lecture's pictures find it"
    agreed = "its start values, output and gradients are those of x @ weight + bias"
    return CheckResult("right", f"{call}: {agreed}", note="" if kept else unkept)
