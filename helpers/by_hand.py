"""The backward pass of part 1's networks, written out by hand: NumPy, the chain rule, and nothing else.

``train(model, …, backward="by_hand")`` uses it. It computes what autograd computes, in half the time or less:
there is no graph to record, and every large array is written over the one of the step before.
"""

import numpy as np
import torch

from helpers.models import lecture_mlp

__all__ = ["ByHand"]

LECTURE_NAMES = {
    "embedding.weight": "C",
    "hidden.weight": "W1",
    "hidden.bias": "b1",
    "batch_norm.gamma": "gamma",
    "batch_norm.beta": "beta",
    "output.weight": "W2",
    "output.bias": "b2",
}


class ByHand:
    """Loss and gradients of one of lecture_mlp's networks, or of a stack of them.

    ``loss, gradients = ByHand(model)(X, Y)``: X ([R,] N, block_size) and Y ([R,] N) are a minibatch; loss is
    a tensor (), or (R,) for a stack; the gradients are tensors in the order of ``model.parameters()``, which
    the next call overwrites. Parameters are read where the model keeps them, and BatchNorm's running statistics
    move there as in train mode. No layer is called, so hooks do not run. Raises ValueError for any other network.

    As in the lecture that follows this one, d… is the gradient of the loss with respect to …. Every array is
    (R, rows, columns): the networks first, R = 1 for a single one, and a vector is one row.
    """

    def __init__(self, model):
        _refuse_others(model)
        self.stacked = model.embedding.weight.dim() == 3
        self.bn = getattr(model, "batch_norm", None)
        if self.bn is not None:
            self.running_mean, self.running_var = map(self._array, (self.bn.running_mean, self.bn.running_var))
        self.gradients = []
        for name, p in model.named_parameters():
            self.gradients.append(torch.zeros_like(p))
            setattr(self, LECTURE_NAMES[name], self._array(p))
            setattr(self, "d" + LECTURE_NAMES[name], self._array(self.gradients[-1]))
        self.one_hot = np.eye(self.C.shape[1], dtype=self.C.dtype)
        self.h = None

    def _array(self, tensor):
        """The tensor's own memory as an array (R, rows, columns)."""
        array = tensor.detach().numpy()
        array = array if self.stacked else array[None]
        return array if array.ndim == 3 else array[:, None]

    def __call__(self, X, Y):
        self._make_room(X.shape[-2])
        loss = self.forward(X.numpy(), Y.numpy())
        self.backward()
        return torch.from_numpy(loss if self.stacked else loss.reshape(())), self.gradients

    def forward(self, X, Y):
        """The loss (R,); keeps what the backward pass needs."""
        R, N = len(self.C), X.shape[-2]
        # Looking up C[X] is a product with one-hot rows, and its backward pass then the product's.
        self.looked_up = self.one_hot.take(X, axis=0).reshape(*X.shape[:-2], -1, len(self.one_hot))
        self.embcat = (self.looked_up @ self.C).reshape(R, N, -1)  # (R, N, block_size * n_embd)
        h = np.matmul(self.embcat, self.W1, out=self.h)  # (R, N, n_hidden)
        if self.bn is None:
            h += self.b1
        else:
            self._batch_norm(h)
        np.tanh(h, out=h)

        logits = np.matmul(h, self.W2, out=self.probs)  # (R, N, vocab_size)
        logits += self.b2
        logits -= logits.max(2, keepdims=True)  # so that no exp overflows; the softmax stays what it is
        self.right = self.one_hot.take(Y, axis=0)
        right_logits = logits[*self.rows, Y]
        probs = np.exp(logits, out=logits)
        total = np.einsum("rnv->rn", probs)
        probs /= total[:, :, None]
        return (np.log(total) - right_logits).sum(1) / N

    def _batch_norm(self, x):
        """x -> gamma * xhat + beta, in place; the running statistics follow."""
        N, bn = x.shape[1], self.bn
        mean = self.ones @ x / N
        x -= mean
        sum_of_squares = self.ones @ np.multiply(x, x, out=self.xhat)
        self.inv_std = 1 / np.sqrt(sum_of_squares / (N - bn.correction) + bn.eps)
        np.multiply(x, self.inv_std, out=self.xhat)
        np.multiply(self.xhat, self.gamma, out=x)
        x += self.beta
        self.running_mean += bn.momentum * (mean - self.running_mean)
        self.running_var += bn.momentum * (sum_of_squares / (N - 1) - self.running_var)

    def backward(self):
        """Every gradient, from the loss back to the embedding."""
        h, dh, dlogits = self.h, self.dh, self.probs
        R, N, _ = h.shape
        dlogits -= self.right  # softmax and cross-entropy in one: the probabilities, less 1 where it is right
        dlogits /= N  # the loss is a mean
        np.matmul(h.swapaxes(1, 2), dlogits, out=self.dW2)
        np.matmul(self.ones, dlogits, out=self.db2)
        np.matmul(dlogits, self.W2.swapaxes(1, 2), out=dh)

        h *= h  # tanh' is 1 - tanh²
        dh *= np.subtract(1, h, out=h)
        if self.bn is None:
            np.matmul(self.ones, dh, out=self.db1)
        else:
            self._batch_norm_backward(dh)
        np.matmul(self.embcat.swapaxes(1, 2), dh, out=self.dW1)
        demb = (dh @ self.W1.swapaxes(1, 2)).reshape(R, -1, self.C.shape[2])  # (R, N * block_size, n_embd)
        np.matmul(self.looked_up.swapaxes(-1, -2), demb, out=self.dC)

    def _batch_norm_backward(self, dout):
        """dout -> the gradient before the BatchNorm, in place; its mean and std depend on the input too."""
        N, xhat = dout.shape[1], self.xhat
        np.matmul(self.ones, dout, out=self.dbeta)
        np.matmul(self.ones, np.multiply(dout, xhat, out=self.h), out=self.dgamma)
        xhat *= self.dgamma / (N - self.bn.correction)
        dout -= xhat
        dout -= self.dbeta / N
        dout *= self.gamma * self.inv_std

    def _make_room(self, N):
        """Arrays for N examples, kept from step to step: fresh memory costs more than most of the sums."""
        if self.h is None or self.h.shape[1] != N:
            R, n_hidden, vocab_size = self.W2.shape
            self.h, self.dh, self.xhat = (np.empty((R, N, n_hidden), self.C.dtype) for _ in range(3))
            self.probs = np.empty((R, N, vocab_size), self.C.dtype)
            self.rows = np.arange(R)[:, None], np.arange(N)
            # ones @ x sums over the batch, three times as fast as x.sum(1).
            self.ones = np.ones((1, 1, N), self.C.dtype)


def _refuse_others(model):
    """ValueError for a network that is not built as lecture_mlp builds one."""

    def structure(network):
        layers = [(name, type(layer)) for name, layer in network.named_children()]
        return type(network), layers, [name for name, _ in network.named_parameters()]

    instead = 'leave backward="by_hand" out: autograd takes any network'
    stage = "batchnorm" if hasattr(model, "batch_norm") else "kaiming"
    if structure(model) != structure(lecture_mlp(stage, generator=torch.Generator())):
        layers = ", ".join(type(layer).__name__ for layer in model.children())
        raise ValueError(
            "the backward pass by hand is written for the networks of lecture_mlp, not for this "
            f"{type(model).__name__}({layers}); {instead}"
        )
    for name, p in model.named_parameters():
        if not p.requires_grad or p.device.type != "cpu" or p.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the backward pass by hand trains every parameter, in float32 or float64 on the CPU; {name} is "
                f"{p.dtype} on {p.device}{'' if p.requires_grad else ' and frozen'}; {instead}"
            )
