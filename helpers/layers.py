"""The lecture's layers as nn.Modules: Linear, BatchNorm1d, Tanh, Embedding, Flatten, Sequential.

The batch is dimension -2 and the features are dimension -1. Any dimension to their left counts
independent networks: a layer made with ``num_models=R`` holds R layers and computes them in one call,
each exactly as it would alone.

What differs from torch.nn: weights are laid out ``(fan_in, fan_out)``, as in the lecture; biases start
at zero; and ``BatchNorm1d`` can normalise either as torch does or as the lecture does (``correction``).
"""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["BatchNorm1d", "Embedding", "Flatten", "Linear", "Sequential", "Tanh"]

# torch.nn's own serve as they are: one has no parameters, the other only holds layers.
Tanh = nn.Tanh
Sequential = nn.Sequential


def _models(num_models):
    """The leading dimensions of a parameter: none for a single network, one for a stack."""
    if num_models is None:
        return ()
    if num_models < 1:
        raise ValueError(
            f"num_models is {num_models}: give the number of networks in the stack, or None for one"
        )
    return (num_models,)


def _over_batch(features):
    """A vector of features in a shape that broadcasts over the batch, for a stack too."""
    return features if features.dim() == 1 else features.unsqueeze(-2)


class Linear(nn.Module):
    """``x @ weight + bias``, with a weight that keeps the scale of its input (times ``gain``).

    Shapes: input (..., N, fan_in), output (..., N, fan_out); weight ([num_models,] fan_in, fan_out),
    bias ([num_models,] fan_out) or None. An input without model dimensions is shown to every network
    of a stack.

    At the start the weight has std gain / sqrt(fan_in) and the bias is zero (He et al. 2015,
    "Delving Deep into Rectifiers", eq. 10, with the gain in place of sqrt 2; the lecture at 27:53).
    """

    def __init__(self, fan_in, fan_out, bias=True, *, gain=1.0, num_models=None, generator=None):
        super().__init__()
        models = _models(num_models)
        # Multiplied, then divided: the lecture's order, so that its numbers come out to the last bit.
        weight = torch.randn((*models, fan_in, fan_out), generator=generator) * gain / sqrt(fan_in)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros((*models, fan_out))) if bias else None

    def forward(self, x):
        out = x @ self.weight
        return out if self.bias is None else out + _over_batch(self.bias)

    def extra_repr(self):
        *models, fan_in, fan_out = self.weight.shape
        return f"{fan_in}, {fan_out}, bias={self.bias is not None}" + (
            f", num_models={models[0]}" if models else ""
        )


class BatchNorm1d(nn.Module):
    """Make every feature's mean 0 and variance 1 over the batch, then scale by gamma and shift by beta.

    Shapes: input and output ([num_models,] N, dim); gamma, beta, running_mean, running_var
    ([num_models,] dim). The running statistics are buffers, updated in train mode without a graph as
    ``(1 - momentum) * running + momentum * batch``, and used in place of the batch's in eval mode.

    ``correction`` is torch.var's word for Bessel's: 0 divides by N and equals nn.BatchNorm1d, 1 divides by
    N - 1 and equals the lecture's class (outputs smaller by sqrt((N - 1) / N)). It is read at every
    forward pass. running_var is the unbiased variance either way, as in nn.BatchNorm1d.

    Raises ValueError in train mode for a batch of one example, which has no variance, and for an input
    that has model dimensions other than the layer's.
    Source: Ioffe and Szegedy 2015, algorithm 1; the lecture at 40:40.
    """

    def __init__(self, dim, eps=1e-5, momentum=0.1, *, correction=0, num_models=None):
        super().__init__()
        shape = (*_models(num_models), dim)
        self.eps, self.momentum, self.correction = eps, momentum, correction
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    def forward(self, x):
        if (*x.shape[:-2], x.shape[-1]) != self.gamma.shape:
            wanted = (*self.gamma.shape[:-1], "N", self.gamma.shape[-1])
            raise ValueError(
                f"BatchNorm1d got an input of shape {tuple(x.shape)}, not ({', '.join(map(str, wanted))}): "
                "the batch is dimension -2; make the layer with num_models for a stack of networks"
            )
        if self.training and x.shape[-2] < 2:
            raise ValueError(
                "BatchNorm1d needs two examples or more in train mode; call .eval() for a single one"
            )
        # torch's own kernel is several times as fast, but knows neither stacks nor that 0 / 0 is NaN (eps = 0).
        if self.training and x.dim() == 2 and self.eps > 0:
            return self._with_torchs_kernel(x)
        if self.training:
            mean, var = self._batch_statistics(x)
        else:
            mean, var = _over_batch(self.running_mean), _over_batch(self.running_var)
        scale = _over_batch(self.gamma) / (var + self.eps).sqrt()
        return (x - mean) * scale + _over_batch(self.beta)

    def _batch_statistics(self, x):
        n = x.shape[-2]
        mean = x.mean(-2, keepdim=True)
        sum_of_squares = (x - mean).square().sum(-2, keepdim=True)  # six times faster here than x.var(-2)
        with torch.no_grad():  # or the buffers would hold on to the graph of every batch so far
            self.running_mean.lerp_(mean.squeeze(-2), self.momentum)
            self.running_var.lerp_(sum_of_squares.squeeze(-2) / (n - 1), self.momentum)
        return mean, sum_of_squares / (n - self.correction)

    def _with_torchs_kernel(self, x):
        # The kernel divides the sum of squares by n. With c = (n - correction) / n, its variance is c times ours:
        # gamma / sqrt(var + eps) = gamma * sqrt(c) / sqrt(c * var + c * eps).
        c = 1 - self.correction / len(x)
        gamma = self.gamma * sqrt(c) if self.correction else self.gamma
        buffers = self.running_mean, self.running_var
        return F.batch_norm(x, *buffers, gamma, self.beta, True, self.momentum, self.eps * c)

    def extra_repr(self):
        *models, dim = self.gamma.shape
        stack = f", num_models={models[0]}" if models else ""
        return f"{dim}, eps={self.eps}, momentum={self.momentum}, correction={self.correction}{stack}"


class Embedding(nn.Module):
    """A table of vectors, looked up by index: ``weight[x]``, which equals ``one_hot(x) @ weight``.

    Shapes: input (..., T) of integers, output (..., T, dim); weight ([num_models,] num_embeddings, dim) ~ randn.
    For a stack, an input (N, T) is shown to every network, and (num_models, N, T) gives each its own.
    """

    def __init__(self, num_embeddings, dim, *, num_models=None, generator=None):
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn((*_models(num_models), num_embeddings, dim), generator=generator)
        )

    def forward(self, x):
        if self.weight.dim() == 2:
            return self.weight[x]
        if x.dim() == 2:
            return self.weight[:, x]
        model = torch.arange(len(self.weight), device=x.device).view(-1, 1, 1)
        return self.weight[model, x]

    def extra_repr(self):
        return ", ".join(map(str, self.weight.shape))


class Flatten(nn.Module):
    """Concatenate each example's vectors: (..., N, T, dim) -> (..., N, T * dim).

    nn.Flatten would not do: it flattens everything after the first dimension, which in a stack counts networks.
    """

    def forward(self, x):
        return x.flatten(-2)
