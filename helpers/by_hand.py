"""Backpropagation by hand: every layer of the course with its backward pass written out, in NumPy.

``train(model, …, backward="by_hand")`` uses it. As in the lecture that follows this one, d… is the gradient of the
loss with respect to …, and each line of a ``backward`` can be compared with the chain rule on paper. The gradients are
autograd's, up to rounding, several times as fast: no graph is recorded, and each step uses the arrays of the last one.

Every array is (R, rows, columns): R networks (1 for a single one), a row for each example, a column for each feature.
A vector has one row. A layer here is made from the model's layer, an input x of the right shape, and the ByHand below.
It keeps what its backward pass needs, and writes over arrays that nobody needs any more: always over dout, and over x
where ``network.free`` is true. So there are few arrays, which fit into the processor's cache; that saves more time
than fewer sums would.
"""

from math import pi, sqrt

import numpy as np
import torch
from torch import nn

from helpers import layers


class Linear:
    """out = x @ W + b"""

    def __init__(self, layer, x, network):
        self.W, self.dW = network.with_gradient(layer.weight)
        self.b, self.db = (None, None) if layer.bias is None else network.with_gradient(layer.bias)
        self.out, self.dx = np.empty((*x.shape[:2], self.W.shape[2]), x.dtype), np.empty_like(x)
        self.ones = np.ones((1, 1, x.shape[1]), x.dtype)  # ones @ x is x.sum(1, keepdims=True) in a third of the time

    def forward(self, x):
        self.x = x
        np.matmul(x, self.W, out=self.out)
        if self.b is not None:
            self.out += self.b
        return self.out

    def backward(self, dout):
        np.matmul(self.x.swapaxes(1, 2), dout, out=self.dW)
        if self.b is not None:
            np.matmul(self.ones, dout, out=self.db)
        return np.matmul(dout, self.W.swapaxes(1, 2), out=self.dx)


class BatchNorm1d:
    """out = gamma * (x - mean) / sqrt(var + eps) + beta, with the mean and variance of each column"""

    def __init__(self, layer, x, network):
        self.layer, self.n = layer, x.shape[1]
        if self.n != network.examples or self.n < 2:
            got = f"{self.n} vectors of {network.examples} example(s): put a Flatten before it"
            raise ValueError(f"BatchNorm1d needs two examples or more and one vector for each, not {got}")
        self.gamma, self.dgamma = network.with_gradient(layer.gamma)
        self.beta, self.dbeta = network.with_gradient(layer.beta)
        self.running_mean, self.running_var = network.array(layer.running_mean), network.array(layer.running_var)
        self.diff, self.out = x if network.free else np.empty_like(x), np.empty_like(x)
        self.ones = np.ones((1, 1, self.n), x.dtype)

    def forward(self, x):
        n, momentum = self.n, self.layer.momentum
        mean = self.ones @ x / n
        np.subtract(x, mean, out=self.diff)
        squares = self.ones @ np.multiply(self.diff, self.diff, out=self.out)
        self.inv_std = 1 / np.sqrt(squares / (n - self.layer.correction) + self.layer.eps)
        np.multiply(self.diff, self.gamma * self.inv_std, out=self.out)
        self.out += self.beta
        self.running_mean += momentum * (mean - self.running_mean)
        self.running_var += momentum * (squares / (n - 1) - self.running_var)
        return self.out

    def backward(self, dout):
        n, scratch = self.n, self.out
        np.matmul(self.ones, dout, out=self.dbeta)
        np.multiply(self.ones @ np.multiply(dout, self.diff, out=scratch), self.inv_std, out=self.dgamma)
        # x moves the mean and the variance too: for xhat = diff * inv_std,
        # dx = gamma * inv_std * (dout - dbeta / n - xhat * dgamma / (n - correction)).
        dout -= np.multiply(self.diff, self.inv_std * self.dgamma / (n - self.layer.correction), out=scratch)
        dout -= self.dbeta / n
        dout *= self.gamma * self.inv_std
        return dout


class Embedding:
    """out = C[x], computed as one_hot(x) @ C, so that its backward pass is that of a product"""

    def __init__(self, layer, x, network):
        self.C, self.dC = network.with_gradient(layer.weight)
        networks, vocab_size, dim = self.C.shape
        self.out = np.empty((networks, x.shape[-2] * x.shape[-1], dim), self.C.dtype)
        self.one_hot_rows = np.eye(vocab_size, dtype=self.C.dtype)

    def forward(self, x):
        # Indices that all networks share are looked up once: (1, rows, vocab_size).
        self.one_hot = self.one_hot_rows.take(x, axis=0).reshape(-1, self.out.shape[1], len(self.one_hot_rows))
        return np.matmul(self.one_hot, self.C, out=self.out)

    def backward(self, dout):
        np.matmul(self.one_hot.swapaxes(1, 2), dout, out=self.dC)  # x has no gradient: it holds indices


class Flatten:
    """An example's vectors side by side: nothing but another shape"""

    def __init__(self, layer, x, network):
        self.x_shape, self.out = x.shape, x.reshape(len(x), network.examples, -1)

    def forward(self, x):
        return x.reshape(self.out.shape)

    def backward(self, dout):
        return dout.reshape(self.x_shape)


class Tanh:
    """out = tanh(x), whose slope is 1 - tanh(x)²"""

    def __init__(self, layer, x, network):
        self.out = x if network.free else np.empty_like(x)

    def forward(self, x):
        return np.tanh(x, out=self.out)

    def backward(self, dout):
        np.multiply(self.out, self.out, out=self.out)
        dout *= np.subtract(1, self.out, out=self.out)
        return dout


class Nonlinearity:
    """out = f(x) for each entry; f is one of the functions below"""

    def __init__(self, layer, x, network):
        self.f, self.layer, self.out = WITH_SLOPE[type(layer)], layer, np.empty_like(x)

    def forward(self, x):
        out, self.slope = self.f(x, self.layer)
        return out

    def backward(self, dout):
        dout *= self.slope
        return dout


# Each returns f(x) and its slope there. layer: torch's, for its settings.


def relu(x, layer):
    return np.maximum(x, 0), x > 0


def leaky_relu(x, layer):
    slope = np.where(x > 0, x.dtype.type(1), x.dtype.type(layer.negative_slope))
    return x * slope, slope


def elu(x, layer):
    exp = layer.alpha * np.exp(np.minimum(x, 0))
    return np.where(x > 0, x, exp - layer.alpha), np.where(x > 0, x.dtype.type(1), exp)


def gelu(x, layer):
    P = (1 + torch.erf(torch.from_numpy(x / sqrt(2))).numpy()) / 2  # how often a standard normal draw is below x
    density = np.exp(x * x / -2) / sqrt(2 * pi)  # of the normal distribution: the derivative of P
    return x * P, P + x * density


def sigmoid(x, layer):
    out = 1 / (1 + np.exp(-x))
    return out, out * (1 - out)


WITH_SLOPE = {nn.ReLU: relu, nn.LeakyReLU: leaky_relu, nn.ELU: elu, nn.GELU: gelu, nn.Sigmoid: sigmoid}


class CrossEntropy:
    """The mean over the examples of -log softmax(logits)[y], for each network"""

    def __init__(self, logits):
        R, self.n, classes = logits.shape
        self.probs, self.ones = np.empty_like(logits), np.ones((classes, 1), logits.dtype)
        self.classes, self.starts = np.arange(classes), np.arange(R * self.n).reshape(R, self.n) * classes

    def forward(self, logits, Y):
        # The largest logit is subtracted, so that no exp overflows. The softmax stays the same.
        np.subtract(logits, np.maximum.reduce(logits, axis=2, keepdims=True), out=self.probs)
        self.right = self.starts + self.classes.take(Y)  # where the right logits lie; take refuses other classes
        right_logits = self.probs.reshape(-1).take(self.right)
        np.exp(self.probs, out=self.probs)
        total = self.probs @ self.ones  # the sum over the classes: (R, N, 1)
        self.probs /= total
        return np.add.reduce(np.log(total)[:, :, 0] - right_logits, axis=1) / self.n

    def backward(self):
        dlogits = self.probs
        dlogits.reshape(-1)[self.right] -= 1  # the probabilities, minus 1 at the right class
        dlogits /= self.n  # the loss is a mean
        return dlogits


BY_HAND = {layers.Embedding: Embedding, layers.Flatten: Flatten, layers.Linear: Linear, layers.BatchNorm1d: BatchNorm1d}
BY_HAND |= {nn.Tanh: Tanh, **dict.fromkeys(WITH_SLOPE, Nonlinearity)}


class ByHand:
    """Loss and gradients of a Sequential of the layers above, or of a stack of such networks.

    ``loss = network.forward(X, Y)``, then ``gradients = network.backward()``: X ([R,] N, …) and Y ([R,] N) are a
    minibatch. The loss is a tensor ([R]), the gradients are tensors in the order of ``model.parameters()``, which the
    next call overwrites. BatchNorm's running statistics move as in train mode. The model's own layers are not called:
    their hooks do not run. Raises ValueError for a layer or a parameter that it can't do, by name.
    """

    def __init__(self, model):
        self.modules, self.stacked = _checked(model)
        self.gradients = {p: torch.zeros_like(p) for p in model.parameters()}
        self.networks = len(next(model.parameters())) if self.stacked else 1
        self.shape = None

    def forward(self, X, Y):
        if X.shape != self.shape:
            self._make_layers(X.numpy())
        x = self._as_rows(X.numpy())
        for layer in self.layers:
            x = layer.forward(x)
        loss = self.loss.forward(x, Y.numpy())
        return torch.from_numpy(loss if self.stacked else loss.reshape(()))

    def backward(self):
        dx = self.loss.backward()
        for layer in reversed(self.layers):
            dx = layer.backward(dx)
        return list(self.gradients.values())

    def array(self, tensor):
        """A parameter's or buffer's own memory as an array (R, rows, columns)."""
        array = tensor.detach().numpy() if self.stacked else tensor.detach().numpy()[None]
        return array if array.ndim == 3 else array[:, None]

    def with_gradient(self, parameter):
        return self.array(parameter), self.array(self.gradients[parameter])

    def _make_layers(self, x):
        """Layers with arrays for minibatches of this shape, to be used in every step: new ones would cost more time."""
        self.shape, self.examples = x.shape, x.shape[1 if self.stacked and x.ndim > 2 else 0]
        self.layers, x = [], self._as_rows(x)
        for module in self.modules:
            # A Linear or a BatchNorm1d does not need its own output again: the next layer may write over it.
            self.free = bool(self.layers) and type(self.layers[-1]) in (Linear, BatchNorm1d)
            self.layers.append(BY_HAND[type(module)](module, x, self))
            x = self.layers[-1].out
        if x.shape[1] != self.examples:
            raise ValueError(f"{x.shape[1]} vectors of logits for {self.examples} examples: put a Flatten before them")
        self.loss = CrossEntropy(x)

    def _as_rows(self, x):
        """Characters stay as they are; numbers ([R,] N, columns) or (N, T, columns) become (R, rows, columns)."""
        if type(self.modules[0]) is layers.Embedding:
            return x
        x = x if self.stacked and x.ndim == 3 else x.reshape(1, -1, x.shape[-1])
        return np.broadcast_to(x, (self.networks, *x.shape[1:]))


def _checked(model):
    """The layers in their order, and whether they are a stack; ValueError for what has no backward pass here."""

    def check(right, fault):
        if not right:
            raise ValueError(f'by hand {fault}; leave backward="by_hand" out: autograd takes any network')

    modules = [pair for pair in model.named_modules(remove_duplicate=False) if type(pair[1]) is not layers.Sequential]
    for i, (name, layer) in enumerate(modules):
        names = {name for name, _ in layer.named_parameters()}
        known = type(layer) in BY_HAND and names <= {"weight", "bias", "gamma", "beta"}
        kind = f"{type(layer).__module__}.{type(layer).__name__}({layer.extra_repr()}) with {sorted(names)}"
        right = known and getattr(layer, "approximate", "none") == "none"
        check(right, f"{name or 'the model'}, a {kind}, has no backward pass")
        check(type(layer) is not layers.Embedding or i == 0, "an Embedding is the first layer")
    parameters, own = dict(model.named_parameters()), [p for _, layer in modules for p in layer.parameters()]
    check(len(parameters) == len(own) > 0, "every layer has parameters of its own, and one layer at least has some")
    for name, p in parameters.items():
        right = p.requires_grad and p.device.type == "cpu" and p.dtype == own[0].dtype and p.dtype.itemsize >= 4
        what = f"{name} is {p.dtype} on {p.device}{'' if p.requires_grad else ' and frozen'}"
        check(right, f"every parameter is trained, all float32 or all float64, on the CPU; {what}")
    # A single network has weights of two dimensions and vectors of one; a stack has one more, in front.
    stacks = {len(p) if p.dim() > 1 + name.endswith("weight") else None for name, p in parameters.items()}
    check(len(stacks) == 1, "every layer has the same num_models, or none has any")
    return [layer for _, layer in modules], stacks != {None}
