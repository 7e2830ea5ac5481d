"""Chapter 07: the class Linear, the heart of nn.Module, four networks to tell apart, and a lead to explain."""

import torch
from torch import nn

from helpers.checks.classes import fill, gradients, is_a_class, not_shared, tensor, trainable
from helpers.checks.engine import Check, Look, is_empty
from helpers.checks.kinds import choice, choices, conditions, lecture_at, seeded_randn
from helpers.checks.mistakes import each, variant
from helpers.checks.readings import as_parts
from helpers.checks.sandbox import require, was_given


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
    hint = "Inherit from it: `class LinearModule(nn.Module)`."
    require(isinstance(layer, nn.Module), "your layer is no nn.Module", hint)
    weight, bias = tensor(layer, "weight", fan_in, fan_out), tensor(layer, "bias", fan_out)
    require(not bias.any(), f"layer.bias is {bias.tolist()}", "The bias starts at zero: only the weight is random.")
    not_shared(layer, other, ("weight", "bias"))
    apart = not torch.equal(weight, other.weight) or weight.std() == 0
    hint = "A seed or generator set inside __init__ starts anew for every layer: set it once, outside."
    require(apart, "two new layers start with the same numbers in layer.weight", hint)
    for bare in (cls(fan_in, fan_out, bias=False), cls(fan_in, fan_out, False)):
        matter = "is there, although bias=False" if hasattr(bare, "bias") else "does not exist, with bias=False"
        hint = "Make it None then, so that `layer.bias is None` can be asked."
        require(getattr(bare, "bias", ...) is None, f"layer.bias {matter}", hint)
        trainable(bare, ("weight", "bias"))
    return 0.0


def _scale(cls, fan_in, fan_out):
    weight = cls(fan_in, fan_out).weight.detach()
    return weight.std(), weight.square().mean().sqrt()


def _called(cls, x, weight, bias):
    layer = fill(cls(*weight.shape, bias=bias is not None), weight=weight, bias=bias)
    layer(x + 1)
    out = layer(x.requires_grad_())
    found = gradients(out, {"x": x, **trainable(layer, ("weight", "bias"))})
    hint = "Keep what the layer returns, as it is: `self.out = ...`. The lecture's pictures look for it there."
    kept = getattr(layer, "out", None)
    is_kept = isinstance(kept, torch.Tensor) and kept.requires_grad and torch.equal(kept, out)
    require(is_kept, "layer.out is not what the layer has just returned, with its graph", hint)
    return out, *(*found, torch.zeros(()))[:3]  # without a bias there are two


VALUES = [  # x, weight, bias; a square weight first, whose transpose fits and can be named
    (seeded_randn(2, 4, 3, seed=1), seeded_randn(3, 3, seed=2), seeded_randn(3, seed=3)),
    (seeded_randn(4, 3, seed=4), seeded_randn(3, 5, seed=5), seeded_randn(5, seed=6)),
    (seeded_randn(2, 4, 6, seed=7), seeded_randn(6, 1, seed=8), seeded_randn(1, seed=9)),
    (seeded_randn(4, 3, seed=4), seeded_randn(3, 5, seed=5), None),
]
STDS = {
    "1/sqrt(fan_in) is missing: the output's std would be sqrt(fan_in) times the input's.": lambda n, m: 1,
    "fan_out is in it: fan_in counts. torch.nn.init expects (fan_out, fan_in): what it takes for fan_in is fan_out here.": (
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
}  # fmt: skip
check_linear = Check(
    """An nn.Module, cls(fan_in, fan_out, bias=True): layer(x) is x @ weight + bias, for x (..., fan_in).

    layer.weight (fan_in, fan_out) starts with mean 0 and std 1 / sqrt(fan_in); layer.bias (fan_out,) starts at zero,
    with bias=False it is None. Both are registered. layer.out is the latest output.
    """,
    _Linear,
    [
        Look(_start, [(3, 5), (20, 4)], "layer = {}(fan_in, fan_out)"),
        # 40,000 numbers or more tell a std to half a per cent.
        Look(_scale, [(400, 100), (100, 400), (900, 50)], "layer = {}(fan_in, fan_out) of many inputs and outputs",
             as_parts("the std of layer.weight", "the root mean square, which is the std where the mean is 0"), (0.02, 1e-4)),
        Look(_called, VALUES, "layer = {}(fan_in, fan_out); layer(x), and the gradients through it",
             as_parts("output", "x.grad", "weight.grad", "bias.grad")),
    ],
    lecture_at("chapter 07, the class Linear", 4715),
    call="layer = {}(fan_in, fan_out, bias=True); layer(x)",
    refuse=is_a_class("weight"),
    mistakes=each(lambda part: variant(_Linear, draw=staticmethod(part)), DRAWS) | {
        "The weight is transposed: in the layout (fan_in, fan_out) it is x @ weight.": variant(
            _Linear, product=staticmethod(lambda x, w, b: x @ w.T + b))},
)  # fmt: skip

LOST = "Let Python store the attribute too: super().__setattr__(name, value), whatever it is, and as it is."
LISTED = "Only a tensor that requires a gradient is registered, under its name, and so is a Module."
LISTS = "It lists the tensors themselves, each once: all of own, then what every child lists."
DEEP = "Ask every child for its parameters(), and let it ask its own children."
SWITCHES = "Set self.training to mode, then call train(mode) of every child."
HOOKS = "forward first, once, then every hook with (self, x, out), then return out."


@conditions("the class Module", "chapter 07, exercise 7.1", 4715)
def check_module(cls):
    """A class whose objects register tensors and Modules, list parameters(), train(mode), and call their hooks."""
    yield isinstance(cls, type), was_given(cls), "Pass the class itself."
    empty = [name for name in ("__setattr__", "parameters", "train", "__call__") if is_empty(getattr(cls, name, None))]
    yield not empty, f"{'its four methods are' if len(empty) == 4 else ', '.join(empty)} still empty"
    made = []

    class Scale(cls):
        def __init__(self, *parts):
            super().__init__()
            self.slope, self.mean = torch.ones(2, requires_grad=True), torch.zeros(2)
            for i, part in enumerate(parts):
                setattr(self, f"part{i}", part)
            self.parts = len(parts)

        def forward(self, x):
            for i in range(self.parts):
                x = getattr(self, f"part{i}")(x)
            made.append(self.slope * x)
            return made[-1]

    leaf = Scale()
    for matter in ("is not what own holds after an assignment", "is still in own after another took its name"):
        leaf.slope = slope = torch.full((2,), 3.0, requires_grad=True)
        kept = torch.equal(getattr(leaf, "mean", torch.ones(2)), torch.zeros(2)) and getattr(leaf, "slope", 0) is slope
        yield kept, "an attribute that was assigned is not what is read again", LOST
        yield len(leaf.own) == 1 and leaf.own.get("slope") is slope, f"a tensor {matter}", LISTED
        listed = [*map(id, leaf.parameters() or [])]
        yield listed == [id(slope)], "parameters() does not list the one tensor of a layer, once", LISTS
    middle, beside = Scale(leaf), Scale()
    nested = net, *_ = Scale(middle, beside), middle, leaf, beside
    yield [*net.children] == ["part0", "part1"], "two layers that were assigned are not the two children", LISTED
    same = sorted(map(id, net.parameters())) == sorted(id(part.slope) for part in nested)
    yield same, "four layers, some inside others, do not list their four tensors", DEEP
    for mode, args in ((True, [True]), (False, [False]), (True, []), (False, [False]), (False, [False])):
        net.train(*args)
        yield all(part.training is mode for part in nested), f"a switch is wrong after train({mode})", SWITCHES
    x, seen = torch.tensor([1.0, 2.0]), []
    leaf.hooks += [lambda *got: seen.append(("first", *got)), lambda *got: seen.append(("second", *got))]
    for number in (1, 2):
        made.clear(), seen.clear()
        out = net(x)
        yield made and out is made[-1], "net(x) is not what forward(x) returned", HOOKS
        yield len(made) == len(nested), "forward did not run once per layer", HOOKS
        told = [(name, *map(id, (leaf, x, made[0]))) for name in ("first", "second")]
        good = [(name, *map(id, got)) for name, *got in seen] == told
        yield good, f"the two hooks of an inner layer were not called as asked in call {number}", HOOKS


class _Network(nn.Module):
    def __init__(self, fault):
        super().__init__()
        hidden = [nn.Linear(30, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh()]
        if fault == "tensor":
            del hidden[2].bias  # no Parameter any more, and used all the same
            hidden[2].bias = torch.zeros(50, requires_grad=True)
        self.embedding, self.output, self.cut = nn.Embedding(27, 10), nn.Linear(50, 27), fault == "cut"
        self.hidden = hidden if fault == "list" else nn.Sequential(*hidden)

    def forward(self, x):
        x = self.embedding(x).flatten(1)
        for layer in self.hidden:
            x = layer(x)
        return self.output(x.detach() if self.cut else x)


FAULTS = {"a": "tensor", "b": "cut", "c": "healthy", "d": "list"}


def four_modules():
    """Four networks {"a": …, "d": …} that all run, contexts (N, 3) to logits (N, 27); three have a fault."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return {name: _Network(fault) for name, fault in FAULTS.items()}


WHY_NOT = {
    "healthy": "After a backward pass, ask every tensor in .parameters() for its .grad, and count them: is one missing?",
    "list": "print(net) shows its hidden layers: they are registered.",
    "tensor": "Count its tensors: two of every Linear, one of the embedding. Does just one bias lack?",
    "cut": "Every tensor that it lists gets a gradient.",
}
check_four_modules = choices("the four networks", "chapter 07, exercise 7.2", 4715, {
    name: (right, WHY_NOT) for name, right in FAULTS.items()
}, noun="condition")  # fmt: skip

check_lead = choice("the lead", "chapter 07, exercise 7.3", 4715, "B", {
    "A": "Then both bars would be equally high: in eval mode neither has any noise.",
    "C": "Then nothing would be left of it in eval mode.",
})  # fmt: skip
