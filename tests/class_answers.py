"""Answers that are classes, in many styles, and spoilt in one place each."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from helpers import layers
from helpers.checks import check_batch_norm, check_linear, check_module
from helpers.checks.mistakes import variant


class BatchNorm(nn.Module):
    """Right as it stands; its variants spoil one thing each."""

    def __init__(self, dim, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.gamma, self.beta = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x):
        if self.training:
            self.refuse(x)
            mean, var = self.statistics(x)
            with torch.no_grad():
                self.update(x)
        else:
            mean, var = self.running_mean, self.running_var
        return self.output(x, mean, var)

    def refuse(self, x):
        if len(x) < 2:
            raise ValueError("one example has no variance")

    def statistics(self, x):
        return x.mean(0), x.var(0, unbiased=False)

    def update(self, x):
        self.running_mean += self.momentum * (x.mean(0) - self.running_mean)
        self.running_var += self.momentum * (x.var(0) - self.running_var)

    def output(self, x, mean, var):
        return self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta


class LectureStyle:
    """A plain class as in the lecture: whoever trains it switches the gradients of parameters() on."""

    def __init__(self, dim, eps=1e-5, momentum=0.1):
        self.eps, self.momentum, self.training = eps, momentum, True
        self.gamma, self.beta = torch.ones(dim), torch.zeros(dim)
        self.running_mean, self.running_var = torch.zeros(dim), torch.ones(dim)

    def __call__(self, x):
        if self.training:
            assert len(x) > 1
            mean, var = x.mean(0, keepdim=True), x.var(0, keepdim=True, unbiased=False)
        else:
            mean, var = self.running_mean, self.running_var
        self.out = self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta
        if self.training:
            with torch.no_grad():
                self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mean
                self.running_var = (1 - self.momentum) * self.running_var + self.momentum * x.var(0, keepdim=True)
        return self.out

    def parameters(self):
        return [self.gamma, self.beta]


class PlainTensors(LectureStyle):
    """Tensors that require grad from the start, and no parameters()."""

    parameters = None

    def __init__(self, dim, eps=1e-5, momentum=0.1):
        super().__init__(dim, eps, momentum)
        self.gamma, self.beta = torch.ones(1, dim, requires_grad=True), torch.zeros(1, dim, requires_grad=True)


class Torchs(nn.BatchNorm1d):
    gamma, beta = property(lambda self: self.weight), property(lambda self: self.bias)


class OnTorchs(nn.Module):
    """A wrapper: eval() has to reach the layer inside; and it has no defaults."""

    def __init__(self, dim, eps, momentum):
        super().__init__()
        self.inner = Torchs(dim, eps, momentum)

    gamma, beta = property(lambda self: self.inner.weight), property(lambda self: self.inner.bias)
    running_mean = property(lambda self: self.inner.running_mean)
    running_var = property(lambda self: self.inner.running_var)

    def forward(self, x):
        return self.inner(x)


def functional(self, x):
    options = {"training": self.training, "momentum": self.momentum, "eps": self.eps}
    return F.batch_norm(x, self.running_mean, self.running_var, self.gamma, self.beta, **options)


def lerp(self, x):
    self.running_mean.lerp_(x.mean(0), self.momentum), self.running_var.lerp_(x.var(0), self.momentum)


Linear = check_linear.right  # in pieces that variants replace: draw and product


class PlainLinear:
    def __init__(self, fan_in, fan_out, bias=True):
        self.weight = torch.randn((fan_in, fan_out)) / fan_in**0.5
        self.bias = torch.zeros(fan_out) if bias else None

    def __call__(self, x):
        self.out = x @ self.weight + (0 if self.bias is None else self.bias)
        return self.out

    def parameters(self):
        return [self.weight] + ([] if self.bias is None else [self.bias])


def starting(base, **values):
    """A variant whose new layers have other values in these attributes: functions of the sizes."""

    def __init__(self, *sizes, **how):
        base.__init__(self, *sizes, **how)
        for name, value in values.items():
            vars(self).get("_parameters", {}).pop(name, None), vars(self).get("_buffers", {}).pop(name, None)
            setattr(self, name, value(*sizes[:2]) if callable(value) else value)

    return variant(base, __init__=__init__)


def drawn(formula):
    return variant(Linear, draw=staticmethod(formula))


def computed(formula):
    return variant(Linear, product=staticmethod(formula))


def kaiming(**options):
    return drawn(lambda n, m: nn.init.kaiming_normal_(torch.empty(n, m), **options))


def numpys(n, m):
    return torch.from_numpy(np.random.randn(n, m) / np.sqrt(n)).float()


def fused(self, x):
    self.out = F.linear(x, self.weight.T, self.bias)
    return self.out


GENERATOR = torch.Generator().manual_seed(2147483647)
RIGHT = {
    check_batch_norm: [
        BatchNorm, LectureStyle, PlainTensors, Torchs, layers.BatchNorm1d, variant(BatchNorm, forward=functional),
        variant(BatchNorm, update=lerp), lambda dim, eps=1e-5, momentum=0.1: BatchNorm(dim, eps, momentum),
        variant(LectureStyle, parameters=lambda self: (p for p in (self.gamma, self.beta))), OnTorchs,
    ],
    check_linear: [
        Linear, drawn(numpys), variant(Linear, forward=fused),
        drawn(lambda n, m: torch.normal(0, n**-0.5, (n, m))), drawn(lambda n, m: (torch.rand(n, m) - 0.5) * (12 / n) ** 0.5),
        drawn(lambda n, m: torch.randn((n, m), generator=GENERATOR) * n**-0.5),
        lambda fan_in, fan_out, bias=True: Linear(fan_in, fan_out, bias),
    ],
}  # fmt: skip


def under_no_grad(self, x):
    if self.training:
        return BatchNorm.forward(self, x)
    with torch.no_grad():
        return BatchNorm.forward(self, x)


def evaluated(formula):
    """A variant that goes wrong in eval mode only."""

    def forward(self, x):
        return BatchNorm.forward(self, x) if self.training else formula(self, x, self.running_mean, self.running_var)

    return variant(BatchNorm, forward=forward)


def with_defaults(eps=1e-5, momentum=0.1):
    def __init__(self, dim, eps=eps, momentum=momentum):
        BatchNorm.__init__(self, dim, eps, momentum)

    return variant(BatchNorm, __init__=__init__)


def keeping_the_graph(self, x):
    self.refuse(x) if self.training else None
    mean, var = self.statistics(x) if self.training else (self.running_mean, self.running_var)
    if self.training:
        self.running_mean = 0.8 * self.running_mean + self.momentum * mean
    return self.output(x, mean, var)


def in_place(self, x):
    x -= x.mean(0)
    return self.output(x, x.mean(0), x.var(0, unbiased=False))


MEANS = {}
BUFFERS = ("gamma", "beta", "running_mean", "running_var")


def calling(out):
    """A variant that returns the right thing, and keeps another as .out."""

    def forward(self, x):
        result = x @ self.weight + (0 if self.bias is None else self.bias)
        if (kept := out(self, x, result)) is not None:
            self.out = kept
        return result

    return variant(Linear, forward=forward)


def seeded(n, m):
    return torch.randn((n, m), generator=torch.Generator().manual_seed(2147483647)) / n**0.5


def without_bias_argument(self, fan_in, fan_out):
    Linear.__init__(self, fan_in, fan_out)


def always_biased(self, fan_in, fan_out, bias=True):
    Linear.__init__(self, fan_in, fan_out)


class Module:
    """Right as it stands; its variants spoil one thing each."""

    def __init__(self):
        self.own, self.children, self.hooks, self.training = {}, {}, [], True

    def __setattr__(self, name, value):
        self.register(name, value)
        super().__setattr__(name, value)

    def register(self, name, value):
        if isinstance(value, Module):
            self.children[name] = value
        if isinstance(value, torch.Tensor) and value.requires_grad:
            self.own[name] = value

    def parameters(self):
        return sum((child.parameters() for child in self.children.values()), list(self.own.values()))

    def train(self, mode=True):
        self.training = mode
        for child in self.children.values():
            child.train(mode)
        return self

    def __call__(self, x):
        out = self.forward(x)
        for hook in self.hooks:
            hook(self, x, out)
        return out


class AsTorch(Module):
    """It stores what it registers nowhere else, and finds it by __getattr__."""

    def __init__(self):
        vars(self).update(own={}, children={}, hooks=[], training=True)

    def __setattr__(self, name, value):
        self.register(name, value)
        if name not in self.own and name not in self.children:
            vars(self)[name] = value

    def __getattr__(self, name):
        if name in self.own or name in self.children:
            return self.own.get(name, self.children.get(name))
        raise AttributeError(name)


def by_stack(self):
    stack = [self]
    while stack:
        module = stack.pop()
        yield from module.own.values()
        stack.extend(module.children.values())


def counted(self, name, value):
    Module.register(self, object(), value)


def by_name(self, name, value):
    if name in ("weight", "bias", "inner"):
        Module.register(self, name, value)


def every_tensor(self, name, value):
    (self.own if isinstance(value, torch.Tensor) else {})[name] = value
    Module.register(self, name, value)


def one_child(self, name, value):
    Module.register(self, "child" if isinstance(value, Module) else name, value)


def storing(change):
    def __setattr__(self, name, value):
        value = change(value)
        self.register(name, value) if name not in ("own", "children", "hooks", "training") else None
        object.__setattr__(self, name, value)

    return __setattr__


def called(run):
    """A __call__ that gives the hooks to `run`, with forward's result."""
    return lambda self, x: run(self, x, self.forward(x))


def only(which):
    return called(lambda self, x, out: ([hook(self, x, out) for hook in self.hooks[which]], out)[1])


def clearing(self, x, out):
    while self.hooks:
        self.hooks.pop(0)(self, x, out)
    return out


RIGHT[check_module] = [
    Module, AsTorch, variant(Module, parameters=by_stack), variant(Module, parameters=lambda self: {*by_stack(self)}),
    variant(Module, __call__=called(lambda self, x, out: ([hook(self, x, out) for hook in self.hooks], out)[1])),
]  # fmt: skip


WRONG = {  # {check: {fault: answers}}; those with one fault get one remedy, and other faults another
    check_batch_norm: {
        "a parameter that is not listed": [
            variant(BatchNorm, parameters=lambda self: []), variant(BatchNorm, parameters=lambda self: [self.gamma]),
            variant(LectureStyle, parameters=lambda self: []), starting(BatchNorm, gamma=torch.ones),
        ],
        "more than the parameters is listed": [
            variant(BatchNorm, parameters=lambda self: [getattr(self, name) for name in BUFFERS]),
            variant(LectureStyle, parameters=lambda self: [getattr(self, name) for name in BUFFERS]),
            variant(LectureStyle, parameters=lambda self: [self.gamma, self.beta, None]),
            starting(BatchNorm, running_mean=lambda dim: nn.Parameter(torch.zeros(dim))),
        ],
        "no gradient is asked for": [variant(LectureStyle, parameters=None)],
        "one example is accepted": [variant(BatchNorm, refuse=lambda self, x: None)],
        "other defaults": [with_defaults(eps=1e-3), with_defaults(eps=0), with_defaults(momentum=0.9)],
        "the output is cut off": [
            variant(BatchNorm, forward=under_no_grad), evaluated(lambda self, x, m, v: self.output(x, m, v).detach()),
        ],
        "eval mode by the batch": [evaluated(lambda self, x, m, v: self.output(x, *self.statistics(x)))],
        "gamma or beta is missing": [
            evaluated(lambda self, x, m, v: (x - m) / (v + self.eps).sqrt()),
            variant(BatchNorm, output=lambda self, x, m, v: self.gamma.data * (x - m) / (v + self.eps).sqrt()),
        ],
        "no eps, or another": [
            evaluated(lambda self, x, m, v: self.gamma * (x - m) / v.sqrt() + self.beta),
            variant(BatchNorm, output=lambda self, x, m, v: self.gamma * (x - m) / (v + 1e-5).sqrt() + self.beta),
        ],
        "eps outside the root": [evaluated(lambda self, x, m, v: self.gamma * (x - m) / (v.sqrt() + self.eps) + self.beta)],
        "eval mode that updates": [evaluated(lambda self, x, m, v: (self.output(x, m, v), self.update(x.data))[0])],
        "statistics that keep the graph": [
            variant(BatchNorm, forward=keeping_the_graph),
            starting(PlainTensors, running_mean=lambda dim: torch.zeros(dim, requires_grad=True)),
        ],
        "no tensor": [variant(BatchNorm, forward=lambda self, x: BatchNorm.forward(self, x).detach().numpy())],
        "no return": [variant(BatchNorm, forward=lambda self, x: print(self.statistics(x)))],
        "other start values": [
            starting(BatchNorm, gamma=lambda dim: nn.Parameter(torch.randn(dim))),
            starting(BatchNorm, beta=lambda dim: nn.Parameter(torch.ones(dim))),
        ],
        "no tensor of that shape": [
            starting(BatchNorm, gamma=1.0), starting(BatchNorm, running_mean=lambda dim: torch.zeros(1)),
            nn.BatchNorm1d,
        ],
        "a tensor that two layers share": [starting(BatchNorm, running_mean=lambda dim: MEANS.setdefault(dim, torch.zeros(dim)))],
        "the unbiased variance": [lambda *args, **how: layers.BatchNorm1d(*args, **how, correction=1)],
        "an error on a call": [nn.LayerNorm],
        "other arguments": [variant(BatchNorm, __init__=lambda self, dim: None)],
        "a layer in place of its class": [BatchNorm(5)],
        "": [
            variant(BatchNorm, refuse=lambda self, x: 1 / (len(x) > 2)),
            variant(BatchNorm, update=lambda self, x: BatchNorm.update(self, 0 * x)),
            variant(BatchNorm, forward=in_place),
            variant(BatchNorm, forward=lambda self, x: BatchNorm.forward(self, x)[0]),
        ],
    },
    check_linear: {
        "not kept as .out": [
            layers.Linear, calling(lambda self, x, out: None), calling(lambda self, x, out: out.detach()),
            calling(lambda self, x, out: x @ self.weight), calling(lambda self, x, out: getattr(self, "out", out)),
            calling(lambda self, x, out: None if self.bias is None else out),
        ],
        "no return": [variant(Linear, forward=lambda self, x: setattr(self, "out", x @ self.weight))],
        "no nn.Module": [PlainLinear, lambda *args, **how: PlainLinear(*args, **how)],
        "more than the parameters is listed": [
            variant(Linear, parameters=lambda self: [self.weight, self.bias]),
            variant(Linear, parameters=lambda self: [*nn.Module.parameters(self), torch.zeros(1)]),
        ],
        "a parameter that is not listed": [
            variant(Linear, parameters=lambda self: [self.weight]), variant(Linear, parameters=lambda self: []),
            starting(Linear, weight=lambda n, m: torch.randn(n, m) / n**0.5),
        ],
        "a seed inside": [drawn(seeded)],
        "no argument for a bias": [variant(Linear, __init__=without_bias_argument)],
        "no gradient is asked for": [
            starting(Linear, weight=lambda n, m: nn.Parameter(torch.randn(n, m) / n**0.5, requires_grad=False)),
        ],
        "a bias that was not asked for": [variant(Linear, __init__=always_biased)],
        "nn.Linear's layout": [nn.Linear, drawn(lambda n, m: torch.randn(m, n) / n**0.5)],
        "fan_out": [kaiming()],
        "a gain": [kaiming(mode="fan_out")],
        "another start of the bias": [starting(Linear, bias=lambda n, m: nn.Parameter(torch.ones(m)))],
        "no tensor of that shape": [starting(Linear, bias=lambda n, m: nn.Parameter(torch.zeros(1)))],
        "a gradient that is cut off": [
            computed(lambda x, w, b: x @ w.data + b), computed(lambda x, w, b: x.detach() @ w + b),
        ],
        "a layer in place of its class": [Linear(3, 5)],
        "": [
            drawn(lambda n, m: torch.randn(n, m) / n**0.5 + 0.05),
            drawn(lambda n, m: torch.randn(n, m) / n**0.5 * 1.1), computed(lambda x, w, b: x @ w + 2 * b),
            computed(lambda x, w, b: x.mm(w) + b),
        ],
    },
    check_module: {
        "registered wrongly": [
            variant(Module, register=counted), variant(Module, register=by_name), variant(Module, register=one_child),
            variant(Module, register=every_tensor),
        ],
        "stored as another": [
            variant(Module, __setattr__=storing(lambda v: v.detach().clone().requires_grad_() if isinstance(v, torch.Tensor) else v)),
        ],
        "not the tensors themselves": [
            variant(Module, parameters=lambda self: Module.parameters(self) * 2),
            variant(Module, parameters=lambda self: [p.data for p in Module.parameters(self)]),
            variant(Module, parameters=lambda self: print("none")),
        ],
        "not deep enough": [
            variant(Module, parameters=lambda self: [*self.own.values(), *(p for c in self.children.values() for p in c.own.values())]),
            variant(Module, parameters=lambda self: [*self.own.values()]),
        ],
        "switch": [
            variant(Module, train=lambda self, mode=True: setattr(self, "training", mode)),
            variant(Module, train=lambda self, mode=True: Module.train(self, not self.training)),
        ],
        "hooks": [
            variant(Module, __call__=lambda self, x: self.forward(x)), variant(Module, __call__=only(slice(1))),
            variant(Module, __call__=only(slice(1, None))),
            variant(Module, __call__=called(lambda self, x, out: ([h(self, x, out.detach()) for h in self.hooks], out)[1])),
            variant(Module, __call__=called(lambda self, x, out: ([h(self, x, out) for h in self.hooks if self.training], out)[1])),
            variant(Module, __call__=called(clearing)),
            variant(Module, __call__=called(lambda self, x, out: Module.__call__(self, x).detach())),
            variant(Module, __call__=lambda self, x: ([h(self, x, self.forward(x)) for h in self.hooks], self.forward(x))[1]),
        ],
        "no default mode": [variant(Module, train=lambda self, mode: Module.train(self, mode))],
        "no class": [Module(), 3],
    },
}  # fmt: skip


class OnlyInit(nn.Module):
    def __init__(self, *sizes, **how):
        super().__init__()
        self.gamma = self.weight = ...


def not_yet(self, *sizes, **how):
    raise NotImplementedError


FORWARDS = (
    lambda self, x: ...,
    lambda self, x: (setattr(self, "out", ...), self.out)[1],
    lambda self, x: x / (self.weight + 1),
)
STUBS = [None, ..., type("Empty", (), {}), OnlyInit, *(variant(OnlyInit, forward=forward) for forward in FORWARDS)]
STUBS += [variant(OnlyInit, __init__=not_yet, forward=lambda self, x: x)]
HALF_WRITTEN = variant(Module, train=lambda self, mode=True: ..., parameters=lambda self: None)
