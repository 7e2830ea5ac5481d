"""The lecture's layers as nn.Modules: Linear, BatchNorm1d, Tanh, Embedding, Flatten, Sequential; and Residual.

The batch is dimension -2 and the features are dimension -1. Any dimension to their left counts independent networks:
a layer made with ``num_models=R`` holds R layers and computes them in one call, each exactly as it would alone.
Unlike torch.nn's, weights are laid out ``(fan_in, fan_out)``, as in the lecture; biases start at zero; and
``BatchNorm1d`` can normalise either as torch does or as the lecture does (``correction``).
"""

from math import sqrt

import torch
from torch import nn

Tanh, Sequential = nn.Tanh, nn.Sequential  # torch's own work for a stack, too: neither has parameters of its own


def stack_shape(num_models):
    """The leading dimensions of a parameter: none for one network, one for a stack; ValueError for an empty stack."""
    if num_models is not None and num_models < 1:
        raise ValueError(f"num_models is {num_models}: give the number of networks in the stack, or None for one")
    return () if num_models is None else (num_models,)


def _over_batch(features):
    """A vector of features in a shape that broadcasts over the batch, for a stack too."""
    return features if features.dim() == 1 else features.unsqueeze(-2)


class Linear(nn.Module):
    """``x @ weight + bias``, with a weight that keeps the scale of its input (times ``gain``).

    Shapes: input (..., N, fan_in), output (..., N, fan_out); weight ([num_models,] fan_in, fan_out), bias
    ([num_models,] fan_out) or None. An input without model dimensions is shown to every network of a stack.
    At the start the weight has std gain / sqrt(fan_in) and the bias is zero (He et al. 2015, "Delving Deep into
    Rectifiers", eq. 10, with the gain in place of sqrt 2; the lecture at 27:53).
    """

    def __init__(self, fan_in, fan_out, bias=True, *, gain=1.0, num_models=None, generator=None):
        super().__init__()
        models = stack_shape(num_models)
        # Multiplied, then divided: the lecture's order, so that its numbers come out to the last bit.
        weight = torch.randn((*models, fan_in, fan_out), generator=generator) * gain / sqrt(fan_in)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros((*models, fan_out))) if bias else None

    def forward(self, x):
        # A product, then a sum, as in the lecture. torch can do both in one call, which rounds differently.
        out, bias = x @ self.weight, self.bias
        return out if bias is None else out + _over_batch(bias)

    def extra_repr(self):
        *models, fan_in, fan_out = self.weight.shape
        return f"{fan_in}, {fan_out}, bias={self.bias is not None}" + (f", num_models={models[0]}" if models else "")


def _normalize_over_batch(layer, x):
    """Chapter 05's train mode, by one call of torch that takes a fraction of the time. For a single network it does

        mean, var = x.mean(0), x.var(0, correction=layer.correction)
        out = gamma * (x - mean) / sqrt(var + eps) + beta
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * x.var(0)

    That call divides the sum of squares by n. With c = (n - correction) / n its variance is c * var, and
    gamma / sqrt(var + eps) = (gamma * sqrt(c)) / sqrt(c * var + c * eps): it gets the gamma and the eps on the right.
    """
    n, stacked = x.shape[-2], x.dim() == 3
    c = 1 - layer.correction / n
    features = layer.gamma * sqrt(c), layer.beta, layer.running_mean, layer.running_var
    if stacked:  # every feature is normalised alone, so a stack's are more features of one network
        x, features = x.transpose(0, 1).reshape(n, -1), [feature.view(-1) for feature in features]
    # What F.batch_norm calls. The lecture has eps=0, which F.batch_norm refuses.
    out, _, inv_std = torch.native_batch_norm(x, *features, True, layer.momentum, layer.eps * c)
    if layer.eps == 0 and not inv_std.all():
        out = out * (inv_std / inv_std)  # a constant feature is 0 / 0, so NaN; torch's call makes it 0
    return out.view(n, *layer.gamma.shape).transpose(0, 1) if stacked else out


class BatchNorm1d(nn.Module):
    """Make every feature's mean 0 and variance 1 over the batch, then scale by gamma and shift by beta.

    Shapes: input and output ([num_models,] N, dim); gamma, beta, running_mean, running_var ([num_models,] dim).
    Train mode takes the mean and the variance of the batch, and updates the running ones. Eval mode takes the running
    ones. They are buffers, without a gradient; running_var is the unbiased variance, divided by N - 1.
    correction: the batch's own variance is divided by N - correction. 0 equals nn.BatchNorm1d, 1 equals the lecture's
    class (outputs smaller by sqrt((N - 1) / N)). It may be changed at any time.
    Raises ValueError for an input of another shape, and in train mode for one example, which has no variance.
    Source: Ioffe and Szegedy 2015, algorithm 1; the lecture at 40:40.
    """

    def __init__(self, dim, eps=1e-5, momentum=0.1, *, correction=0, num_models=None):
        super().__init__()
        shape = (*stack_shape(num_models), dim)
        self.eps, self.momentum, self.correction = eps, momentum, correction
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    def forward(self, x):
        self._check_shape(x)
        if self.training:
            return _normalize_over_batch(self, x)  # the lines below, with the mean and variance of this batch
        mean, var = _over_batch(self.running_mean), _over_batch(self.running_var)
        xhat = (x - mean) / torch.sqrt(var + self.eps)
        return _over_batch(self.gamma) * xhat + _over_batch(self.beta)

    def _check_shape(self, x):
        *models, dim = self.gamma.shape
        if (*x.shape[:-2], *x.shape[-1:]) != (*models, dim) or x.dim() < 2:
            wanted = f"({', '.join(map(str, [*models, 'N', dim]))})"
            remedy = "num_models for a stack, and a Flatten before it or x.flatten(0, 1) for (N, T, C)"
            raise ValueError(f"BatchNorm1d got an input of shape {tuple(x.shape)}, not {wanted}: give {remedy}")
        if self.training and x.shape[-2] < 2:
            raise ValueError("BatchNorm1d needs two examples or more in train mode; call .eval() for a single one")

    def extra_repr(self):
        *models, dim = self.gamma.shape
        how = f"{dim}, eps={self.eps}, momentum={self.momentum}, correction={self.correction}"
        return how + (f", num_models={models[0]}" if models else "")


class Embedding(nn.Module):
    """A table of vectors, looked up by index: ``weight[x]``, which equals ``one_hot(x) @ weight``.

    Shapes: input (..., T) of integers, output (..., T, dim); weight ([num_models,] num_embeddings, dim) ~ randn.
    For a stack, an input (N, T) is shown to every network, and (num_models, N, T) gives each its own.
    """

    def __init__(self, num_embeddings, dim, *, num_models=None, generator=None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn((*stack_shape(num_models), num_embeddings, dim), generator=generator))

    def forward(self, x):
        if self.weight.dim() == 2:
            return self.weight[x]
        if x.dim() == 2:
            return self.weight[:, x]
        return self.weight[torch.arange(len(self.weight), device=x.device).view(-1, 1, 1), x]

    def extra_repr(self):
        return ", ".join(map(str, self.weight.shape))


class Flatten(nn.Module):
    """Concatenate each example's vectors: (..., N, T, dim) -> (..., N, T * dim).

    nn.Flatten would not do: it flattens everything after the first dimension, which in a stack counts networks.
    """

    def forward(self, x):
        return x.flatten(-2)


class Residual(nn.Module):
    """``x + scale * branch(x)``: what the branch's layers compute is added to their input.

    Shapes: the branch puts out the shape that it gets. Source: He et al. 2015, "Deep Residual Learning", eq. 1.
    """

    def __init__(self, *layers, scale=1.0):
        super().__init__()
        self.branch, self.scale = Sequential(*layers), scale

    def forward(self, x):
        return x + self.scale * self.branch(x)

    def extra_repr(self):
        return f"scale={self.scale:g}"
