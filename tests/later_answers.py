"""Answers to chapters 08 to 14 and the lessons beyond: right ones in many styles, and wrong ones that no check lists."""

import math
import statistics
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from helpers.checks import (
    check_adam_ratio,
    check_collapse,
    check_even_gains,
    check_faulty_layer,
    check_fixed_point,
    check_four_findings,
    check_gain_powers,
    check_group_norm,
    check_most_left,
    check_mystery,
    check_new_rate,
    check_rate_from_ratios,
    check_ratio_of_step,
    check_stored_weight,
    check_stream_growth,
    check_three_faults,
    check_training,
    check_wrong_gain,
    check_xor,
)
from helpers.checks.chapter_14 import KINDS, fault_of

# ---- 08 to 11


def fixed_point(gain, steps=2_000, points=401, guard=True, low=-8, density=2, share=1):
    z, std = np.linspace(low, 8, points), 1.0
    p = np.exp(-(z**2) / density)
    if guard and gain <= 1:
        return 0
    for _ in range(steps):
        std = np.sqrt((np.tanh(gain * std * z) ** 2 * p).sum() / p.sum() * share)
    return std


def fixed_point_by_bisection(gain):
    """The s with s^2 = E[tanh(gain * s * z)^2], by Gauss-Hermite quadrature."""
    if gain <= 1:
        return 0
    z, p = np.polynomial.hermite_e.hermegauss(100)
    low, high = 1e-3, 1.0
    while high - low > 1e-6:
        s = (low + high) / 2
        low, high = (s, high) if (np.tanh(gain * s * z) ** 2) @ p / p.sum() > s**2 else (low, s)
    return low


def collapse_by_probing(weights, biases):
    """The bias is where zero goes, the rows of W are where the unit vectors go."""

    def stack(x):
        for W, b in zip(weights, biases, strict=True):
            x = x @ W + b
        return x

    b = stack(torch.zeros(1, len(weights[0])))
    return stack(torch.eye(len(weights[0]))) - b, b


def collapse(weights, biases):
    W, b = np.eye(len(weights[0])), np.zeros(len(weights[0]))
    for weight, bias in zip(weights, biases, strict=True):
        W, b = W @ weight.numpy(), b @ weight.numpy() + bias.numpy()
    return [W.tolist(), b.tolist()]


def stepwise(weight=lambda W, w: W @ w, bias=lambda b, w, c: b @ w + c):
    def collapse(weights, biases):
        W, b = weights[0], biases[0]
        for w, c in zip(weights[1:], biases[1:], strict=True):
            W, b = weight(W, w), bias(b, w, c)
        return W, b

    return collapse


def used_up(weights, biases):
    W, b = weights.pop(0), biases.pop(0)
    while weights:
        W, b = W @ weights[0], b @ weights.pop(0) + biases.pop(0)
    return W, b


def even_gains():
    """The first is 1; each that follows keeps the gradient's mean square, at the rms that is left of the signal."""
    z, p = np.polynomial.hermite_e.hermegauss(100)
    gains, s, p = [1.0], 1.0, p / p.sum()
    while len(gains) < 20:
        s, gain = np.sqrt(np.tanh(gains[-1] * s * z) ** 2 @ p), 1.0
        for _ in range(25):
            gain = ((1 - np.tanh(gain * s * z) ** 2) ** 2 @ p) ** -0.5
        gains.append(gain)
    return gains


EVEN = even_gains()
W1, B1, W2, B2 = [[2, 2], [2, 2]], [2, -2], [[1], [-1]], [-1]
LAYER = {"layer": 5, "fault": "biases too large"}
STORED = check_stored_weight.right

# ---- 12 to 14


def ratio(of, change=lambda step: step(), keep=lambda weight: weight.detach().clone()):
    def answer(weight, step):
        old = keep(weight)
        change(step)
        return of(old, weight)

    return answer


def std_ratio(old, new):
    return (new - old).std() / old.std()


def by_lists(weight, step):
    old = weight.flatten().tolist()
    step()
    return statistics.stdev(b - a for a, b in zip(old, weight.flatten().tolist(), strict=True)) / statistics.stdev(old)


def rate(middle, held=lambda lr, new: new):
    return lambda lr, ratios: held(lr, lr * 1e-3 / middle(ratios))


DIAGNOSES = {number: fault_of(number) for number in range(1, 5)}


def diagnoses(change):
    return {number: change(*diagnosis) for number, diagnosis in DIAGNOSES.items()}


GAIN = check_wrong_gain.right
WHICH, FACTOR, SPEED = GAIN
POWERS = check_gain_powers.right

# ---- X01 to X05


class Right(nn.Module):
    """The network of X01, in pieces that its variants replace."""

    end, bend = staticmethod(lambda logits: logits), staticmethod(torch.tanh)

    def __init__(self):
        super().__init__()
        self.embedding, self.output = nn.Embedding(27, 10), nn.Linear(50, 27)
        self.first, self.second = nn.Linear(30, 50), nn.Linear(50, 50)

    def hidden(self, x):
        return self.bend(self.second(self.bend(self.first(x))))

    def forward(self, x):
        return self.end(self.output(self.hidden(self.embedding(x).flatten(1))))


def net(**changes):
    return type("Changed", (Right,), changes)


class InRow(nn.Module):
    def __init__(self):
        super().__init__()
        norms = (nn.BatchNorm1d(50), nn.Identity())
        parts = [part for n, norm in zip((30, 50), norms, strict=True) for part in (nn.Linear(n, 50), norm, nn.ReLU())]
        self.table, self.rest = nn.Embedding(27, 10), nn.Sequential(nn.Flatten(), *parts, nn.Linear(50, 27))

    def forward(self, x):
        return self.rest(self.table(x))


class ByList(Right):
    """Its layers are in a list, and its own parameters() finds them there."""

    def __init__(self):
        super().__init__()
        self.kept = [self.first, self.second]
        del self.first, self.second

    def parameters(self, recurse=True):
        return [*super().parameters(), *(p for layer in self.kept for p in layer.parameters())]

    def hidden(self, x):
        return self.kept[1](self.kept[0](x).tanh()).tanh()


class Hidden(ByList):
    parameters = nn.Module.parameters


class Frozen(Right):
    def __init__(self):
        super().__init__()
        self.first.requires_grad_(False), self.second.requires_grad_(False)


class FromZero(Right):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.output.weight), nn.init.zeros_(self.output.bias)


def step(net, optimizer, x, y, loss_of=F.cross_entropy, clean=lambda net, optimizer: net.zero_grad(), times=1):
    loss = loss_of(net(x), y)
    clean(net, optimizer)
    loss.backward()
    for _ in range(times):
        optimizer.step()
    return loss.item()


def stepping(**how):
    return lambda *args: step(*args, **how)


def zeroed_afterwards(net, optimizer, x, y):
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()


def by_closure(net, optimizer, x, y):
    def loss():
        optimizer.zero_grad()
        found = -net(x).log_softmax(1)[range(len(y)), y].mean()
        found.backward()
        return found

    return optimizer.step(loss)


def trained(
    make=torch.optim.Adam, batches_of=lambda batches: batches, rate=None, call=lambda net, x: net(x), **options
):
    def train_names(net, batches, lr):
        optimizer = make(net.parameters(), lr=rate or lr, **options)
        for x, y in batches_of(batches):
            optimizer.zero_grad()
            F.cross_entropy(call(net, x), y).backward()
            optimizer.step()

    return train_names


def adam_by_hand(net, batches, lr):
    moments = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in net.parameters()]
    for t, (x, y) in enumerate(batches, start=1):
        gradients = torch.autograd.grad(F.cross_entropy(net(x), y), [p for p, *_ in moments])
        for (p, mean, square), gradient in zip(moments, gradients, strict=True):
            mean.lerp_(gradient, 0.1), square.lerp_(gradient**2, 0.001)
            p.data -= lr * mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)


def by_chunks(x, groups, eps):
    return torch.cat([F.layer_norm(part, part.shape[1:], eps=eps) for part in x.chunk(groups, 1)], 1)


def mean_in_place(x, groups, eps):
    x -= x.unflatten(1, (groups, -1)).mean(2, keepdim=True).expand(-1, -1, x.shape[1] // groups).flatten(1)
    return F.group_norm(x, groups, eps=eps)


def adam_without(method):
    """Adam with a method that does nothing."""
    return type("Without", (torch.optim.Adam,), {method: lambda self: None})


def beginning_anew(net, batches, lr):
    for k in (0, 2, 4):
        trained()(net, batches[k : k + 2], lr)


FINDINGS = check_four_findings.right
ENDS = torch.sigmoid, torch.relu, torch.tanh, lambda out: out.softmax(-1), lambda out: out.softmax(-1) - 1
ADDING = stepping(clean=lambda *_: None)

RIGHT = {
    check_fixed_point: [
        fixed_point, fixed_point_by_bisection, lambda gain: fixed_point(gain, steps=100),
        lambda gain: torch.tensor([fixed_point(gain, points=201)], dtype=torch.float32),
    ],
    check_most_left: [
        lambda g, n: math.prod([g / 4] * n), lambda g, n: np.full(n, g / 4).prod(), lambda g, n: torch.full((n,), g / 4).prod(),
    ],
    check_faulty_layer: [LAYER, {"fault": "Biases_too large.", "layer": np.int64(5)}, {**LAYER, "layer": torch.tensor(5.0)}],
    check_even_gains: [tuple(EVEN), np.array([EVEN]), torch.tensor(EVEN)[:, None], iter(EVEN), [round(gain, 2) for gain in EVEN]],
    check_collapse: [collapse_by_probing, collapse, lambda w, b: (list(check_collapse.right(w, b)[0]), collapse(w, b)[1])],
    check_xor: [
        [W1, B1, W2, -1], [W1, [B1], W2, [B2]], [np.array(W1), B1, W2, np.float64(-1)],
        [[torch.tensor([2, 2]), torch.tensor([2, 2])], B1, W2, B2], [[[torch.tensor(2.0)] * 2] * 2, B1, W2, B2],
    ],
    check_stored_weight: [{key: kind(power) for key, power in STORED.items()} for kind in (float, np.float32, lambda v: [v + 0.004])],
    check_adam_ratio: [lambda lr, w, g: lr * (g / g) / w, lambda lr, w, g: (lr * torch.tensor([1.0, -1.0])).std(correction=0) / w],
    check_ratio_of_step: [
        ratio(std_ratio), by_lists, ratio(lambda old, new: [std_ratio(old, new).item()], keep=torch.clone),
        ratio(lambda old, new: np.std(new.numpy() - old) / np.std(old), keep=lambda weight: weight.numpy().copy()),
    ],
    check_new_rate: [(30,), torch.tensor(40.0), 16, 100, np.float64(4e-3 / 1e-4)],
    check_wrong_gain: [
        {**GAIN, FACTOR: 9.98}, {**GAIN, FACTOR: 9.6, SPEED: 95}, {**GAIN, FACTOR: torch.tensor(10.02), SPEED: 100.3},
    ],
    check_gain_powers: [
        {key: number(power) for key, power in reversed(POWERS.items())}
        for number in (int, float, np.int64, torch.tensor, Fraction, lambda v: [v], lambda v: v + 0.04)
    ],
    check_rate_from_ratios: [
        rate(np.median), rate(lambda r: torch.tensor(r).median()), lambda lr, r: statistics.median(lr * 1e-3 / x for x in r),
    ],
    check_mystery: [
        diagnoses(lambda kind, layer: [f" {kind.title()}. ", float(layer)]),
        diagnoses(lambda kind, layer: (kind.replace(" ", "_"), np.int64(layer))),
        diagnoses(lambda kind, layer: (kind.removeprefix("a ").replace("nonl", "non-l"), torch.tensor(layer))),
    ],
    check_three_faults: [
        (Right, step), [InRow, step], (ByList, step), (FromZero, step), (lambda: Right(), step), (net(end=staticmethod(lambda out: out.log_softmax(-1))), step),
        (Right, zeroed_afterwards), (Right, by_closure), (InRow, stepping(clean=lambda net, optimizer: optimizer.zero_grad())),
    ],
    check_stream_growth: [lambda s, n: math.hypot(1, s) ** n, lambda s, n: abs(complex(1, s)) ** n],
    check_training: [
        trained(), trained(call=lambda net, x: net.forward(x)), trained(torch.optim.AdamW, weight_decay=0), adam_by_hand,
        *(trained(batches_of=of, fused=True) for of in (list, iter, lambda all_of: (all_of[i] for i in range(len(all_of))))),
    ],
    check_group_norm: [by_chunks, lambda x, groups, eps: F.group_norm(x, groups, eps=eps).tolist()],
    check_four_findings: [
        {**FINDINGS, "b": "Initialization", "c": "the optimiser"}, {key: f"'{organ}.'" for key, organ in FINDINGS.items()},
    ],
}  # fmt: skip


WRONG = {  # {check: {fault: answers}}; those with one fault get one remedy, and other faults another
    check_fixed_point: {
        "dozens of layers": [
            *(partial(fixed_point, steps=n) for n in (15, 40)),
            *(lambda g, low=low: 0 if g < low else fixed_point(g) for low in (1.06, 1.2)),
        ],
        "no guard": [
            *(partial(fixed_point, steps=n, guard=False) for n in (100, 700, 2000)),
            lambda g: 0 if g < 1 else fixed_point(g, guard=False),
        ],
        "a constant": [lambda g: 0.6513],
        "an offset": [lambda g: fixed_point(g) + 0.002],
        "": [partial(fixed_point, points=9), lambda g: max(0, (g * g - 1) / (2 * g**4)) ** 0.5],
    },
    check_most_left: {
        "rounded": [lambda g, n: round((g / 4) ** n, 4)],
        "root missing": [lambda g, n: (g * g / 16) ** n],
    },
    check_faulty_layer: {
        "ratio": [{**LAYER, "layer": 4.9}, {**LAYER, "layer": 5.08}],
        "number": [{**LAYER, "layer": "5"}],
    },
    check_even_gains: {
        "not 20 gains": [
            3, "1.2", [1.2] * 19 + [math.nan], [-1.2] * 20, [[1.2] * 20] * 2, [1e200] * 20, [[1], []],
            dict(enumerate(EVEN)), EVEN[:19], [1.2] * 21, ["1.2"] * 20,
        ],
        "uneven": [torch.ones(20), [1.22] * 20, EVEN[::-1]],
        "no signal": [[0.01] + [1.0001] * 19],
    },
    check_collapse: {
        "in place": [used_up],
        "shape": [lambda w, b: (collapse(w, b)[0], [[entry] for entry in collapse(w, b)[1]])],
        "the order of the matrices": [
            stepwise(lambda W, w: w @ W), stepwise(lambda W, w: w @ W, lambda b, w, c: w @ b + c),
            stepwise(lambda W, w: w @ W, lambda b, w, c: b + c), stepwise(lambda W, w: w @ W, lambda b, w, c: c),
        ],
        "added": [stepwise(lambda W, w: W + w), stepwise(lambda W, w: W + w, lambda b, w, c: b + c)],
        "entry by entry": [stepwise(lambda W, w: W * w), stepwise(lambda W, w: W * w, lambda b, w, c: c)],
        "the bias on its way": [
            *(stepwise(bias=bias) for bias in (lambda b, w, c: b + c, lambda b, w, c: w @ b + c, lambda b, w, c: b @ w)),
            lambda w, b: (collapse(w, b)[0], b[-1] + (b[-2] @ w[-1] if len(b) > 1 else 0)),
        ],
        "": [
            lambda w, b: collapse(w, b)[0], lambda w, b: (*collapse(w, b), 0), lambda w, b: (collapse(w, b)[0], None),
            lambda w, b: (collapse(w, b)[0], 2 * np.array(collapse(w, b)[1])),
        ],
    },
    check_xor: {
        "turned": [[W1, B1, [[-1], [1]], [1]]],
        "not apart": [
            *([W1, B1, last, [0]] for last in ([[0], [0]], [[math.nan], [1]])),
            *([W1, first, W2, last] for first, last in (([2, 2], B2), (B1, [1]))),
        ],
        "shapes": [
            *([part, B1, W2, B2] for part in ([[1, 2], [3]], None, "W1")),
            *([W1, B1, last, B2] for last in ([[1, -1]], [1, -1])), [W1, 2.0, W2, -1.0],
        ],
    },
    check_stored_weight: {"step": [{**STORED, "change of the output": 2.2}]},
    check_ratio_of_step: {
        "copies": [ratio(lambda old, new: new.sub_(old).std() / old.std())],
        "once": [ratio(std_ratio, change=lambda step: (step(), step())), ratio(std_ratio, change=lambda step: None)],
        "clone": [ratio(std_ratio, keep=lambda weight: weight.data)],
        "": [ratio(lambda old, new: new.std(), change=lambda step: step().std())],
    },
    check_new_rate: {
        "no factor": ["30", "x30", -30, 0, math.nan, [20, 40], {"factor": 30}, True, lambda: 30],
        "cliff": [1000],
        "too low": [1],
        "safe": [10],
    },
    check_wrong_gain: {
        "": [
            *({**GAIN, **off} for off in ({FACTOR: 9.2}, {SPEED: 93}, {FACTOR: "ten"}, {FACTOR: [10, 10]}, {WHICH: 4.1})),
        ],
    },
    check_gain_powers: {
        "another key": [{**POWERS, "x": 1}],
        "no dict": [[1, 0, 0, -1, -1, -2], lambda: POWERS],
        "": [
            *({**POWERS, "batch norm output": off} for off in (0.3, -0.6, math.nan, False, "0", object(), [0, 0], 1j)),
        ],
    },
    check_rate_from_ratios: {
        "held": [rate(np.median, held=min), rate(np.median, held=lambda lr, new: min(new, 1.0))],
        "no ratios": [lambda lr, ratios: lr * 1e-3],
        "new object": [lambda lr, ratios: ratios.sort() or rate(np.median)(lr, ratios)],
        "": [
            rate(np.median, held=max), rate(lambda r: sorted(r)[min(2, len(r) - 1)]),
            rate(lambda r: statistics.fmean(sorted(r)[1:-1] or r)),
        ],
    },
    check_mystery: {
        "no pair": [
            *(DIAGNOSES | {1: (DIAGNOSES[1][0], layer)} for layer in ("3", "linear3", np.array([3, 4]), None, True)),
            DIAGNOSES | {3: "a shifted bias"},
        ],
        "other keys": [{str(number): answer for number, answer in DIAGNOSES.items()}],
        "the layer": [DIAGNOSES | {4: (DIAGNOSES[4][0], 7 - DIAGNOSES[4][1])}],
        "the kind": [*(DIAGNOSES | {2: (kind, DIAGNOSES[2][1])} for kind in {*KINDS} - {DIAGNOSES[2][0]})],
    },
    check_three_faults: {
        "container": [*((Hidden, how) for how in (step, ADDING))],
        "logits": [*((net(end=staticmethod(end)), how) for end in ENDS for how in (step, ADDING))],
        "all four": [
            (Frozen, step), (net(bend=staticmethod(torch.detach)), step),
            (net(hidden=lambda self, x: self.first(x).tanh()), step),
            (net(hidden=lambda self, x: Right.hidden(self, x.detach())), step),
        ],
        "added": [(Right, ADDING), (Right, stepping(clean=lambda net, optimizer: net.output.zero_grad()))],
        "no effect": [(Right, stepping(times=0))],
        "another loss or step": [
            *((Right, stepping(loss_of=of)) for of in (lambda out, y: F.cross_entropy(out.softmax(-1), y), F.nll_loss)),
            (Right, stepping(times=2)),
            (Right, stepping(loss_of=lambda out, y: F.cross_entropy(out, y, reduction="sum"))),
        ],
        "tanh": [
            (net(bend=staticmethod(lambda x: x)), step),
            (net(hidden=lambda self, x: self.second(self.first(x).tanh())), step),
        ],
        "not the pair": [3, (nn.Linear,), "Net", Right, (Right(), step), (step, Right)],
    },
    check_training: {
        "Adam": [
            *(trained(make) for make in (torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop)), trained(rate=0.01),
            trained(betas=(0.9, 0.99)), trained(weight_decay=1e-2),
            lambda net, batches, lr: trained(rate=lr / 2)(net, batches, lr),
        ],
        "memory": [beginning_anew],
        "takes them away": [trained(adam_without("zero_grad"))],
        "each batch": [
            trained(adam_without("step")), trained(batches_of=lambda batches: batches[:1]),
            trained(batches_of=lambda batches: batches[:1] * 5),
        ],
    },
    check_group_norm: {
        "in place": [mean_in_place],
        "no eps": [*(lambda x, n, _, eps=eps: F.group_norm(x, n, eps=eps) for eps in (0, 1e-5))],
        "a factor": [lambda x, groups, eps: F.group_norm(x, groups, eps=eps) * 1.01],
    },
}  # fmt: skip
