"""The lecture's two training loops, written plainly, as in its cells: what `make bench` and the tests compare with.

Nothing here comes from helpers, so that a mistake there can't hide here too.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F

SEED = 2147483647  # the lecture's
STAGES = ("original", "softmax", "tanh", "kaiming", "batchnorm")  # of part 1, each with one more repair


class PlainShallow:
    """Part 1's network at one of its five stages; the attributes are the lecture's variables."""

    def __init__(self, stage, seed=SEED):
        if stage not in STAGES:
            raise ValueError(f"stage is {stage!r}: give one of {', '.join(STAGES)}")
        g = self.g = torch.Generator().manual_seed(seed)
        self.batch_norm = stage == "batchnorm"
        self.C = torch.randn((27, 10), generator=g)
        self.W1 = torch.randn((30, 200), generator=g)
        if stage == "tanh":
            self.W1 = self.W1 * 0.2
        if stage in ("kaiming", "batchnorm"):
            self.W1 = self.W1 * (5 / 3) / (30**0.5)
        if not self.batch_norm:
            self.b1 = torch.randn(200, generator=g)
            if stage in ("tanh", "kaiming"):
                self.b1 = self.b1 * 0.01
        self.W2 = torch.randn((200, 27), generator=g)
        self.b2 = torch.randn(27, generator=g)
        if stage != "original":
            self.W2, self.b2 = self.W2 * 0.01, self.b2 * 0
        if self.batch_norm:
            self.bngain, self.bnbias = torch.ones((1, 200)), torch.zeros((1, 200))
            self.bnmean_running, self.bnvar_running = torch.zeros((1, 200)), torch.ones((1, 200))
        between = [self.bngain, self.bnbias] if self.batch_norm else [self.b1]
        self.parameters = [self.C, self.W1, *between, self.W2, self.b2]
        for p in self.parameters:
            p.requires_grad = True

    def buffers(self):
        return [self.bnmean_running, self.bnvar_running] if self.batch_norm else []

    def train(self, X, Y, steps, lr=0.1):
        """Train on minibatches of 32; returns the loss of each step."""
        losses = []
        for _ in range(steps):
            ix = torch.randint(0, X.shape[0], (32,), generator=self.g)
            Xb, Yb = X[ix], Y[ix]
            emb = self.C[Xb]
            embcat = emb.view(emb.shape[0], -1)
            if self.batch_norm:
                hpreact = embcat @ self.W1
                bnmeani = hpreact.mean(0, keepdim=True)
                bnstdi = hpreact.std(0, keepdim=True)
                hpreact = self.bngain * (hpreact - bnmeani) / bnstdi + self.bnbias
                with torch.no_grad():
                    self.bnmean_running = 0.999 * self.bnmean_running + 0.001 * bnmeani
                    # The lecture keeps the std; its variance is what the course's layer keeps.
                    self.bnvar_running = 0.999 * self.bnvar_running + 0.001 * bnstdi**2
            else:
                hpreact = embcat @ self.W1 + self.b1
            h = torch.tanh(hpreact)
            logits = h @ self.W2 + self.b2
            loss = F.cross_entropy(logits, Yb)
            for p in self.parameters:
                p.grad = None
            loss.backward()
            for p in self.parameters:
                p.data += -lr * p.grad
            losses.append(loss.item())
        return torch.tensor(losses)


class Linear:
    def __init__(self, fan_in, fan_out, generator, bias):
        self.weight = torch.randn((fan_in, fan_out), generator=generator) / fan_in**0.5
        self.bias = torch.zeros(fan_out) if bias else None

    def __call__(self, x):
        self.out = x @ self.weight
        if self.bias is not None:
            self.out = self.out + self.bias
        return self.out

    def parameters(self):
        return [self.weight] if self.bias is None else [self.weight, self.bias]


class BatchNorm1d:
    def __init__(self, dim, eps=1e-5, momentum=0.1):
        self.eps, self.momentum = eps, momentum
        self.gamma, self.beta = torch.ones(dim), torch.zeros(dim)
        self.running_mean, self.running_var = torch.zeros(dim), torch.ones(dim)

    def __call__(self, x):
        xmean, xvar = x.mean(0, keepdim=True), x.var(0, keepdim=True)
        xhat = (x - xmean) / torch.sqrt(xvar + self.eps)
        self.out = self.gamma * xhat + self.beta
        with torch.no_grad():
            self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * xmean
            self.running_var = (1 - self.momentum) * self.running_var + self.momentum * xvar
        return self.out

    def parameters(self):
        return [self.gamma, self.beta]


class Tanh:
    def __call__(self, x):
        self.out = torch.tanh(x)
        return self.out

    def parameters(self):
        return []


class PlainDeep:
    """Part 2's six layers. gain: the lecture's 5/3 without BatchNorm and 1 with it, unless given.

    statistics: whether to keep, as the lecture does, every layer's gradient and in `ud` the update:data ratios.
    """

    def __init__(self, batch_norm, seed=SEED, *, gain=None, statistics=False):
        gain = (1.0 if batch_norm else 5 / 3) if gain is None else gain
        g = self.g = torch.Generator().manual_seed(seed)
        self.statistics, self.ud = statistics, []
        self.C = torch.randn((27, 10), generator=g)
        self.layers = []
        for fan_in, fan_out in pairwise([30, 100, 100, 100, 100, 100, 27]):
            self.layers.append(Linear(fan_in, fan_out, g, bias=not batch_norm))
            if batch_norm:
                self.layers.append(BatchNorm1d(fan_out))
            self.layers.append(Tanh())
        self.layers.pop()  # the logits are not squashed
        if batch_norm:
            self.layers[-1].gamma *= 0.1
        else:
            self.layers[-1].weight *= 0.1
        for layer in self.layers[:-1]:
            if isinstance(layer, Linear):
                layer.weight *= gain
        self.parameters = [self.C, *(p for layer in self.layers for p in layer.parameters())]
        for p in self.parameters:
            p.requires_grad = True

    def buffers(self):
        norms = [layer for layer in self.layers if isinstance(layer, BatchNorm1d)]
        return [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]

    def train(self, X, Y, steps, lr=0.1):
        """Train on minibatches of 32; returns the loss of each step."""
        losses = []
        for _ in range(steps):
            ix = torch.randint(0, X.shape[0], (32,), generator=self.g)
            Xb, Yb = X[ix], Y[ix]
            emb = self.C[Xb]
            x = emb.view(emb.shape[0], -1)
            for layer in self.layers:
                x = layer(x)
            loss = F.cross_entropy(x, Yb)
            if self.statistics:
                for layer in self.layers:
                    layer.out.retain_grad()
            for p in self.parameters:
                p.grad = None
            loss.backward()
            for p in self.parameters:
                p.data += -lr * p.grad
            losses.append(loss.item())
            if self.statistics:
                with torch.no_grad():
                    self.ud.append([(lr * p.grad.std() / p.data.std()).log10().item() for p in self.parameters])
        return torch.tensor(losses)
