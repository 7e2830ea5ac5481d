"""diagnose on networks as learners write them: right, or refused by name with a remedy, and bit-identical afterwards."""

import random
import re
from collections import namedtuple
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from helpers.diagnostics import diagnose

torch.manual_seed(0)
X, Y = torch.randn(64, 12, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 5
IMAGES = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(2))
WORDS, NEXT = (torch.randint(0, 11, (8, 7), generator=torch.Generator().manual_seed(s)) for s in (3, 4))


def module(forward, **parts):
    """A module of a class of its own, with these parts and this forward."""
    net = type("Net", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(net, name, part)
    return net


def parameter(*shape, scale=0.3, seed=0):
    return nn.Parameter(scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


class SelfAttention(nn.Module):
    """nanoGPT's, more or less."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.heads, -1).transpose(1, 2) for t in self.qkv(x).split(C, 2))
        weights = (q @ k.transpose(-2, -1) / (C // self.heads) ** 0.5).masked_fill(
            ~torch.tril(torch.ones(T, T, dtype=torch.bool)), float("-inf")
        )
        return self.proj((F.softmax(weights, -1) @ v).transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.ln1, self.attn, self.ln2 = nn.LayerNorm(width), SelfAttention(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class GPT(nn.Module):
    def __init__(self, blocks=2, tied=False):
        super().__init__()
        self.tok, self.pos = nn.Embedding(11, 16), nn.Embedding(7, 16)
        self.blocks, self.ln = nn.Sequential(*[Block() for _ in range(blocks)]), nn.LayerNorm(16)
        self.head = nn.Linear(16, 11, bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02 if tied else 0.1)
        if tied:
            self.head.weight = self.tok.weight

    def forward(self, idx, targets=None):
        logits = self.head(self.ln(self.blocks(self.tok(idx) + self.pos(torch.arange(idx.shape[1])))))
        if targets is None:
            return logits[:, [-1], :], None
        return logits, F.cross_entropy(logits.view(-1, 11), targets.view(-1))


class PlainLinear:
    """The lecture's."""

    def __init__(self, fan_in, fan_out, gain=5 / 3):
        self.weight = torch.randn(fan_in, fan_out, generator=torch.Generator().manual_seed(fan_in)) / fan_in**0.5 * gain
        self.bias = torch.zeros(fan_out)

    def __call__(self, x):
        self.out = x @ self.weight
        if self.bias is not None:
            self.out += self.bias
        return self.out

    def parameters(self):
        return [self.weight, self.bias]


class PlainBatchNorm1d:
    """The lecture's, its running statistics assigned anew in each call."""

    def __init__(self, dim):
        self.training, self.momentum = True, 0.1
        self.gamma, self.beta = torch.ones(dim), torch.zeros(dim)
        self.running_mean, self.running_var = torch.zeros(dim), torch.ones(dim)

    def __call__(self, x):
        mean, var = x.mean(0, keepdim=True), x.var(0, keepdim=True)
        self.out = self.gamma * (x - mean) / torch.sqrt(var + 1e-5) + self.beta
        with torch.no_grad():
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean
            self.running_var.mul_(0.9).add_(0.1 * var[0])
        return self.out

    def parameters(self):
        return [self.gamma, self.beta]


class PlainTanh:
    def __call__(self, x):
        self.out = torch.tanh(x)
        return self.out

    def parameters(self):
        return []


def plain_layers():
    layers = [
        PlainLinear(12, 20),
        PlainBatchNorm1d(20),
        PlainTanh(),
        PlainLinear(20, 20),
        PlainTanh(),
        PlainLinear(20, 5),
    ]
    for layer in layers:
        for p in layer.parameters():
            p.requires_grad = True
    return layers


class PlainMLP:
    def __init__(self):
        self.layers = plain_layers()

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def parameters(self):
        return [p for layer in self.layers for p in layer.parameters()]


def plain_function(scale=0.2):
    """(f, its weights): the lecture's part 1, in plain tensors."""
    W1, b1, W2 = parameter(12, 30, scale=scale), parameter(30, scale=0.01, seed=1), parameter(30, 5, scale=0.1, seed=2)

    def forward(x):
        h = torch.tanh(x @ W1 + b1)
        return h @ W2

    return forward, dict(W1=W1, b1=b1, W2=W2)


class OwnCall(nn.Module):
    """A learner's: __call__ for forward, tensors for Parameters, parameters() a list."""

    def __init__(self):
        super().__init__()
        self.W, self.V = (torch.randn(*s).mul_(0.3).requires_grad_() for s in ((12, 20), (20, 5)))

    def __call__(self, x):
        return torch.relu(x @ self.W) @ self.V

    def parameters(self):
        return [self.W, self.V]


@dataclass
class ModelOutput:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


class HuggingFace(nn.Module):
    def __init__(self, dropout=0.1):
        super().__init__()
        self.dense, self.out, self.dropout = nn.Linear(12, 16), nn.Linear(16, 5), nn.Dropout(dropout)

    def forward(self, inputs, labels=None):
        logits = self.out(self.dropout(F.silu(self.dense(inputs))))
        return ModelOutput(logits, None if labels is None else F.cross_entropy(logits, labels))


class VectorQuantizer(nn.Module):
    """A codebook that follows an average, straight-through."""

    def __init__(self):
        super().__init__()
        self.register_buffer("codes", torch.randn(8, 4))
        self.counts, self.usage, self.history, self.calls = torch.zeros(8), {"total": 0}, [], 0

    def forward(self, z):
        nearest = torch.cdist(z, self.codes).argmin(1)
        with torch.no_grad():
            onehot = F.one_hot(nearest, 8).float()
            self.counts.mul_(0.9).add_(onehot.sum(0), alpha=0.1)
            self.codes.copy_(0.9 * self.codes + 0.1 * (onehot.t() @ z) / self.counts[:, None].clamp(min=1e-3))
        self.usage["total"] += len(z)
        self.history.append(nearest)
        self.calls += 1
        return z + (self.codes[nearest] - z).detach()


class MyLSTMCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates = nn.Linear(12 + 8, 32)
        nn.init.constant_(self.gates.bias, 6)  # open gates are no fault

    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g - 6)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, c


class SiameseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, a, b):
        return self.branch(a), self.branch(b)


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.mu, self.logvar = nn.Linear(12, 16), nn.Linear(16, 3), nn.Linear(16, 3)
        self.d1, self.d2 = nn.Linear(3, 16), nn.Linear(16, 12)

    def forward(self, x):
        h = F.relu(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return torch.sigmoid(self.d2(F.relu(self.d1(z)))), mu, logvar


def vae_loss(out):
    x, mu, logvar = out
    return F.mse_loss(x, X.sigmoid()) - 0.5 * (1 + logvar - mu**2 - logvar.exp()).mean()


def conv_net():
    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(self.bn(self.conv2(x)).relu_(), 2)
        return self.fc2(F.dropout(F.relu(self.fc1(x.flatten(1))), 0.2, self.training))

    parts = dict(conv1=nn.Conv2d(3, 8, 3, padding=1), conv2=nn.Conv2d(8, 8, 3, padding=1), bn=nn.BatchNorm2d(8))
    return module(forward, **parts, fc1=nn.Linear(128, 32), fc2=nn.Linear(32, 5))


def looping(net, times=4):
    def forward(self, x):
        h = torch.zeros(len(x), 8)
        for _ in range(times):
            h = torch.tanh(self.inp(x) + self.rec(h))
        return self.out(h)

    return module(forward, inp=nn.Linear(12, 8), rec=nn.Linear(8, 8), out=nn.Linear(8, 5))


def kept_list_forward(self, x):
    self.features.clear()
    self.features.append(self.a(x))
    self.features.append(F.elu(self.features[0]))
    return self.features


def random_forward(self, x):
    noise = torch.randn(x.shape, generator=self.generator) + random.random() + np.random.rand()
    noise = noise + float(self.numpy.normal())
    return self.a(x + 0.01 * noise)


def inner_backward(self, x):
    penalty = self.a(x).square().mean()
    penalty.backward()
    return self.a(x)


def clamping(self, x):
    with torch.no_grad():
        self.a.weight.clamp_(-0.1, 0.1)
    self.b.weight.data = self.b.weight.data / self.b.weight.data.norm()
    self.b.bias = nn.Parameter(torch.zeros(5))
    return self.b(F.relu(self.a(x)))


def grad_penalty(x):
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(POTENTIAL(x).sum(), x, create_graph=True)
    return slope


POTENTIAL = nn.Sequential(nn.Linear(12, 16), nn.Softplus(), nn.Linear(16, 1))
GENERATED = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 6))
CRITIC = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.LeakyReLU(0.2), nn.Linear(16, 1))


def tied_autoencoder(self, x):
    return F.linear(torch.sigmoid(F.linear(x, self.W, self.b)), self.W.t())


def functional(x):
    return torch.func.functional_call(FUNCTIONAL, dict(FUNCTIONAL.named_parameters()), (x,))


def parts():
    return dict(a=nn.Linear(12, 20), b=nn.Linear(20, 5))


def with_parameters(kind):
    forward, weights = plain_function()
    return forward, X, dict(targets=Y, parameters=kind(weights)), r"forward.tanh:\d+"


def around(a, b):
    return lambda x: b(F.relu(a(x)))


FUNCTIONAL = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))
Pair = namedtuple("Pair", "left right")

# name: (the network, its inputs, what else diagnose is given, rows that must be there)
NETWORKS = {
    "function of plain tensors": lambda: (plain_function()[0], X, dict(targets=Y), r"forward.tanh:\d+ forward.matmul\(W1\):\d+"),
    "function, parameters in a list": lambda: with_parameters(lambda weights: list(weights.values())),
    "function, parameters in a dict": lambda: with_parameters(dict),
    "lambda around modules": lambda: (around(nn.Linear(12, 9), nn.Linear(9, 5)), X, dict(targets=Y), r"a b lambda.relu:\d+"),
    "partial": lambda: (partial(lambda W, x: (x @ W).clamp(min=0), parameter(12, 5)), X, dict(targets=Y), r"lambda.clamp:\d+", "a ReLU puts out"),
    "list of plain layers": lambda: (plain_layers(), X, dict(targets=Y), "0 1 2 3 4 5"),
    "plain class": lambda: (PlainMLP(), X, dict(targets=Y), "layers.0 layers.1 layers.2 layers.5"),
    "list of modules and a function": lambda: ([nn.Linear(12, 9), torch.tanh, nn.Linear(9, 5)], X, dict(targets=Y), "0 2"),
    "own __call__ and parameters": lambda: (OwnCall(), X, dict(targets=Y), r"OwnCall.relu:\d+ OwnCall"),
    "raw Parameters": lambda: (module(lambda self, x: torch.tanh(x @ self.W1) @ self.W2, W1=parameter(12, 20), W2=parameter(20, 5)),
                               X, dict(targets=Y), r"Net.matmul\(W1\):\d+ Net.tanh:\d+ Net"),
    "ends with a function": lambda: (module(lambda self, x: torch.sigmoid(self.a(x)), a=nn.Linear(12, 1)), X,
                                     dict(targets=(Y[:, None] > 2).float(), loss_fn=F.binary_cross_entropy), "a Net"),
    "layers called by forward": lambda: (module(lambda self, x: self.b.forward(self.act.forward(self.a.forward(x))), **parts(),
                                                act=nn.Tanh()), X, dict(targets=Y), "a act b"),
    "CNN with F.relu": lambda: (conv_net(), IMAGES, dict(targets=Y), r"conv1 Net.relu:\d+ fc2"),
    "loop over time": lambda: (looping(None), X, dict(targets=Y), r"Net.tanh:\d+ rec Net.tanh:\d+.\(call.4\)"),
    "GPT that returns (logits, loss)": lambda: (GPT(), (WORDS, NEXT), dict(loss_fn=lambda out: out[1]),
                                                r"blocks.0.attn.qkv blocks.1.gelu:\d+ head"),
    "GPT, tied": lambda: (GPT(tied=True), (WORDS, NEXT), dict(loss_fn=lambda out: out[1]), "head"),
    "logits (B, T, V)": lambda: (nn.Sequential(nn.Embedding(11, 8), nn.ReLU(), nn.Linear(8, 11)), WORDS, dict(targets=NEXT), "0 1 2"),
    "ModelOutput": lambda: (HuggingFace(), dict(inputs=X, labels=Y), dict(loss_fn=lambda out: out.loss), r"dense Net|dense"),
    "TransformerEncoder": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), torch.randn(4, 6, 8),
        dict(loss_fn=lambda out: out[:, 0].exp().mean()),
        "layers.0.relu layers.0.linear1 layers.1.relu"),
    "LSTM and a PackedSequence": lambda: (
        module(lambda self, x: self.b(self.a(x)[1][0][-1]), a=nn.LSTM(3, 8), b=nn.Linear(8, 5)),
        nn.utils.rnn.pack_padded_sequence(torch.randn(6, 4, 3), [6, 5, 3, 2]), dict(targets=Y[:4]), "a a[1] b"),
    "LSTM cell by hand": lambda: (MyLSTMCell(), (X, (torch.zeros(64, 8), torch.zeros(64, 8))),
                                  dict(loss_fn=lambda out: out[0].square().mean()), "gates"),
    "Siamese": lambda: (SiameseNet(), (X, -X), dict(loss_fn=lambda out: (out[0] - out[1]).square().mean()), r"branch.0.\(call.2\)"),
    "VAE": lambda: (VAE(), X, dict(loss_fn=vae_loss), r"enc Net.relu:\d+|enc"),
    "tied autoencoder": lambda: (module(tied_autoencoder, W=parameter(6, 12), b=parameter(6)), X, dict(targets=X, loss_fn=F.mse_loss),
                                 r"Net.linear\(W\):\d+ Net.sigmoid:\d+ Net"),
    "VQ codebook": lambda: (nn.Sequential(nn.Linear(12, 4), VectorQuantizer(), nn.Linear(4, 5)), X, dict(targets=Y), "0 1 2"),
    "spectral norm": lambda: (nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(12, 9)), nn.ReLU(), nn.Linear(9, 5)), X,
                              dict(targets=Y), "0 1 2"),
    "weight norm": lambda: (nn.utils.parametrizations.weight_norm(nn.Linear(12, 5)), X, dict(targets=Y), "ParametrizedLinear"),
    "old spectral norm": lambda: (nn.Sequential(nn.utils.spectral_norm(nn.Linear(12, 5))), X, dict(targets=Y), "0"),
    "checkpoint": lambda: (module(lambda self, x: self.b(checkpoint(lambda t: F.relu(self.a(t)), x, use_reentrant=False)), **parts()), X,
                           dict(targets=Y), "a b"),
    "embedding with max_norm": lambda: (nn.Sequential(nn.Embedding(11, 8, max_norm=1.0), nn.Flatten(), nn.Linear(56, 5)), WORDS,
                                        dict(targets=Y[:8]), "0 1 2"),
    "sparse embedding": lambda: (nn.Sequential(nn.EmbeddingBag(11, 8, sparse=True), nn.Linear(8, 5)), WORDS, dict(targets=Y[:8]), "0 1"),
    "clamped and assigned in forward": lambda: (module(clamping, **parts()), X, dict(targets=Y), "a b", "not among the model's", "b.bias: no gradient"),
    "its own generator, Python's, NumPy's": lambda: (
        module(random_forward, a=nn.Linear(12, 5), generator=torch.Generator().manual_seed(1), numpy=np.random.default_rng(1)), X,
        dict(targets=Y), "a"),
    "an inner backward": lambda: (module(inner_backward, a=nn.Linear(12, 5)), X, dict(targets=Y), "a"),
    "a list that it keeps and returns": lambda: (module(kept_list_forward, a=nn.Linear(12, 5), features=[]), X,
                                                 dict(loss_fn=lambda out: out[1].square().mean()), r"a Net.elu:\d+"),
    "gradients of its inputs": lambda: (grad_penalty, X, dict(loss_fn=lambda out: 20 * out.square().mean()), "POTENTIAL.0", "POTENTIAL.2.bias: no gradient"),
    "generator of a GAN": lambda: (GENERATED, X, dict(loss_fn=lambda out: -CRITIC(out).mean()), "0 1 2 3"),
    "functional_call": lambda: (functional, X, dict(targets=Y), "FUNCTIONAL.0 FUNCTIONAL.1"),
    "a named tuple is one input": lambda: (module(lambda self, pair: self.a(pair.left * pair.right), a=nn.Linear(12, 5)), Pair(X, X + 1),
                                           dict(targets=Y), "a"),
    "dict of tensors in and out": lambda: (module(lambda self, x, mask: {"logits": self.a(x * mask)}, a=nn.Linear(12, 5)),
                                           dict(x=X, mask=torch.ones(12)),
                                           dict(targets=Y, loss_fn=lambda out, y: F.cross_entropy(out["logits"], y)), "a"),
    "several losses": lambda: (module(lambda self, x: (self.a(x), self.c(x)), a=nn.Linear(12, 5), c=nn.Linear(12, 1)), X,
                               dict(loss_fn=lambda out: F.cross_entropy(out[0], Y) + out[1].square().mean()), "a c"),
    "bfloat16 body, float32 head": lambda: (module(lambda self, x: self.b(self.a(x.bfloat16()).relu().float()),
                                                   a=nn.Linear(12, 20).bfloat16(), b=nn.Linear(20, 5)), X, dict(targets=Y), "a b"),
    "complex weights": lambda: (module(lambda self, x: (x.to(torch.complex64) @ self.W).abs(),
                                       W=nn.Parameter(torch.randn(12, 5, dtype=torch.complex64))), X, dict(targets=Y), "Net"),
    "einsum": lambda: (module(lambda self, x: torch.einsum("bi,ij->bj", x, self.W).tanh() @ self.V, W=parameter(12, 9), V=parameter(9, 5)),
                       X, dict(targets=Y), r"Net.einsum\(W\):\d+ Net.tanh:\d+"),
    "frozen backbone": lambda: (nn.Sequential(nn.Linear(12, 9).requires_grad_(False), nn.ReLU(), nn.Linear(9, 5)), X, dict(targets=Y), "0 2"),
    "views changed in place": lambda: (module(lambda self, x: self.b(self.a(x[:, None]).squeeze(1).relu_()), **parts()), X,
                                       dict(targets=Y), "a b"),
    "used layers, mixed": lambda: (nn.Sequential(nn.Unflatten(1, (3, 4)), nn.Conv1d(3, 6, 2), nn.GroupNorm(2, 6), nn.SiLU(), nn.Flatten(),
                                                 nn.LazyLinear(5).eval() if 0 else nn.Linear(18, 5)), X, dict(targets=Y), "1 2 3 5"),
}  # fmt: skip


def everything(*roots):
    """All that can be reached, as text and bits, found in another way than the room's: by pickling parts of it."""
    seen, found, queue = set(), [], list(roots)
    while queue:
        x = queue.pop(0)
        if id(x) in seen or isinstance(x, (str, type)):
            continue
        seen.add(id(x))
        if isinstance(x, torch.Tensor):
            grad = x.grad if x.is_leaf else None
            found.append(
                (
                    id(x),
                    x.data_ptr(),
                    x._version,
                    x.requires_grad,
                    x.detach().clone(),
                    grad if grad is None else grad.clone(),
                )
            )
        elif isinstance(x, torch.Generator):
            found.append(x.get_state())
        elif isinstance(x, np.random.Generator):
            found.append(str(x.bit_generator.state))
        elif isinstance(x, (list, tuple)):
            found.append((id(x), [id(v) for v in x]))
            queue += x
        elif isinstance(x, dict):
            found.append([(k, id(v), v if isinstance(v, (int, float)) else 0) for k, v in x.items()])
            queue += x.values()
        elif callable(x) and getattr(x, "__closure__", None):
            queue += [c.cell_contents for c in x.__closure__]
        elif isinstance(x, nn.Module) or type(x).__module__ == __name__:
            found.append((id(x), "__call__" in vars(type(x)), len(getattr(x, "_forward_hooks", ()))))
            queue.append(vars(x))
    return [*found, torch.get_rng_state(), str(random.getstate()), str(np.random.get_state())]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, (list, tuple)) else a == b


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_read_and_left_as_it_was(name):
    torch.manual_seed(0)
    model, inputs, how, rows, *unhealthy = NETWORKS[name]()
    roots = model, inputs, FUNCTIONAL, POTENTIAL, GENERATED, CRITIC
    before = everything(*roots)
    result = diagnose(model, inputs, **how, lr=0.03)
    assert same(everything(*roots), before)
    again = diagnose(model, inputs, **how, lr=0.03, histograms=False)
    names = [row.name for row in result.activations]
    assert len(set(names)) == len(names) and names == [row.name for row in again.activations]
    for wanted in rows.split(" "):
        assert any(wanted == n or re.fullmatch(wanted, n) for n in names), (wanted, names)
    assert result.loss == again.loss and result.warnings == again.warnings
    assert len(result.warnings) == len(unhealthy) and all(map(re.search, unhealthy, result.warnings)), result.warnings

    # The loss and the gradients are raw autograd's.
    f, targets = how.get("loss_fn", F.cross_entropy), how.get("targets")
    call = model if callable(model) else lambda x: [x := layer(x) for layer in model][-1]
    args = inputs if type(inputs) is tuple else () if isinstance(inputs, dict) else (inputs,)
    output = call(*args, **inputs if isinstance(inputs, dict) else {})
    if targets is not None and "loss_fn" not in how:
        output, targets = output.flatten(0, -2), targets.flatten()
    (f(output) if targets is None else f(output, targets)).backward()
    expected = sorted(_spread(p.grad) for p in _parameters(model) if p.grad is not None and p.numel() > 1)
    if name != "clamped and assigned in forward" and name != "an inner backward":
        assert sorted(row.grad_std for row in result.parameters if row.grad_std is not None) == pytest.approx(
            expected, rel=1e-4, abs=1e-9
        )
    assert result.parameters and all(row.trainable or row.grad_std is None for row in result.parameters)


def _spread(t):
    t = t.to_dense() if t.is_sparse else t
    t = torch.view_as_real(t) if t.is_complex() else t
    return t.double().std().item()


def _parameters(model):
    if hasattr(model, "parameters"):
        return list(model.parameters())
    if isinstance(model, list):
        return [p for layer in model if hasattr(layer, "parameters") for p in layer.parameters()]
    if isinstance(model, partial):
        return model.args
    cells = [c.cell_contents for c in model.__closure__ or ()] or [
        {functional: FUNCTIONAL, grad_penalty: POTENTIAL}[model]
    ]
    return [
        p for c in cells for p in (c.parameters() if isinstance(c, nn.Module) else [c]) if isinstance(p, torch.Tensor)
    ]


class Mapped(np.ndarray):
    """A file that is mapped to memory: too large to be copied."""

    def copy(self, *args):
        raise MemoryError


def test_arrays_are_put_back_and_what_can_only_be_read_is_not_copied():
    def forward(self, x):
        self.counts += 1
        return self.a(x + float(self.data[0]))

    net = module(forward, a=nn.Linear(12, 5), counts=np.zeros(3), data=np.zeros(3).view(Mapped))
    net.data.flags.writeable = False
    diagnose(net, X, Y)
    assert not net.counts.any()


def test_a_large_memory_of_the_models_own_is_put_back():
    def fills(self, x):
        self.queue[0], self.table.data[0] = x[0].detach(), 3
        return self.a(x)

    net = module(fills, a=nn.Linear(12, 5), queue=torch.zeros(100_000, 12), table=torch.zeros(1100, 1000))
    diagnose(net, X, Y)
    assert not net.queue.any() and not net.table.any()


def test_an_empty_batch_is_named():
    with pytest.raises(ValueError, match="the batch is empty"):
        diagnose(nn.Linear(12, 5), X[:0], Y[:0])


def test_a_cache_that_a_look_fills_is_emptied():
    log = []

    @lru_cache
    def table(n):
        log.append(n)
        return torch.arange(n)

    class Net(nn.Linear):
        @cached_property
        def scale(self):
            return 2.0

        @cache  # noqa: B019
        def half(self, n):
            return n / 2

        def forward(self, x):
            return super().forward(x) * self.scale * self.half(2) + 0 * table(5)

    net = Net(12, 5)
    diagnose(net, X, Y)
    assert log == [] and "scale" not in vars(net)
    assert table.cache_info().currsize == Net.half.cache_info().currsize == 0
    table(5)
    diagnose(net, X, Y)
    assert log == [5] and table.cache_info().currsize == 1


def names_of(forward, x=X, **parts):
    return [row.name for row in diagnose(module(forward, **parts), x, loss_fn=None).activations]


def test_a_row_is_named_by_the_layer_whose_method_is_called():
    class Block(nn.Linear):
        def positive(self, x):
            return F.relu(self(x))

    linear, relu, _ = names_of(lambda self, x: self.head(self.block.positive(x)), block=Block(12, 5), head=nn.Tanh())
    assert linear == "block" and re.fullmatch(r"block.relu:\d+", relu)


def test_the_layers_after_an_error_that_the_network_catches_are_seen():
    def forward(self, x):
        try:
            x = self.fails(x)
        except RuntimeError:
            x = self.act(self.a(x))
        return self.b(x)

    layers = dict(fails=nn.Sequential(nn.Linear(3, 3)), a=nn.Linear(12, 9), act=nn.Tanh(), b=nn.Linear(9, 5))
    assert names_of(forward, **layers) == ["a", "act", "b"]
    assert names_of(lambda self, x: self.body(x), body=module(forward, **layers))[-1] == "body.b"


def test_units_and_limits_that_are_not_certain():
    images = torch.randn(64, 4, 5, generator=torch.Generator().manual_seed(0))
    norm = lambda shape: module(
        lambda self, x: F.relu(F.layer_norm(x, shape, self.w)), w=nn.Parameter(torch.ones(shape))
    )
    dead = [[row.dead for row in diagnose(norm(shape), images, loss_fn=None).activations] for shape in ((5,), (4, 5))]
    assert dead[0][-1] == 0 and dead[1][-1] is None
    clipped = diagnose(lambda x: F.hardtanh(x, 0, 20), X - 9, loss_fn=None).activations  # a ReLU of another height
    assert clipped[0].dead == 1 and clipped[0].saturated is None
    lower = torch.zeros(12)
    rows = diagnose(lambda x: x.clamp(min=lower) + x.clamp(max=1) + x.clamp(min=0), X, loss_fn=None).activations
    assert [row.type for row in rows] == [nn.ReLU]
