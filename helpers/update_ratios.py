"""What train records of the update:data ratio, std(update) / std(data) of every weight, at the price of a few sums."""

import numpy as np
import torch

from helpers.diagnostics.statistics import as_rows, moments

__all__ = ["UpdateRatios"]


class UpdateRatios:
    """The ratios of one run, step by step: ``before_step(gradients, lr)``, the step, ``after_step()``.

    parameters: by name; those of two dimensions or more (not counting a stack's) are the weights. stacked: whether
    dimension 0 counts networks. optimizer: the torch optimizer that takes the steps, or None for
    ``parameter -= lr * gradient``, whose update need not be looked at: its std is lr times the gradient's.
    """

    def __init__(self, parameters, stacked, optimizer=None):
        self.names = [name for name, p in parameters.items() if p.dim() - stacked > 1]
        self.weights = [parameters[name] for name in self.names]
        self.at = [i for i, name in enumerate(parameters) if name in self.names]
        self.networks = len(self.weights[0]) if stacked and self.weights else 1
        self.stacked, self.optimizer = stacked, optimizer
        # A record each: the sums of (x - mean)² of the weights and of their updates, and the learning rate.
        self.data, self.updates, self.factors = [], [], []
        largest = max((p.numel() for p in self.weights), default=0) // self.networks
        self.ones = np.ones(largest, np.float32)
        self.unknown = np.full((self.networks, 1), np.nan)
        # On the CPU NumPy looks at a tensor's own memory, where plain SGD's steps will be seen too.
        self.data_rows = [self._rows(p) for p in self.weights]
        shared = (x.ctypes.data == p.data_ptr() for x, p in zip(self.data_rows, self.weights, strict=True))
        if optimizer or not all(shared):
            self.data_rows = None

    def before_step(self, gradients, lr):
        """gradients: in the order of the parameters, None where there is none. lr: a number, or one a network."""
        data = self.data_rows or [self._rows(p) for p in self.weights]
        gradients = [gradients[i] for i in self.at]
        self.data.append(self._around_means(data))
        if self.optimizer:
            pairs = zip(data, gradients, strict=True)
            self.before = [self.unknown if g is None else rows.copy() for rows, g in pairs]
        else:
            self.updates.append(self._around_means(map(self._rows, gradients)))
            self.factors.append(abs(lr.numpy(force=True) if isinstance(lr, torch.Tensor) else lr))

    def after_step(self):
        if self.optimizer:
            pairs = zip(self.weights, self.before, strict=True)
            self.updates.append(self._around_means(self._rows(p) - before for p, before in pairs))
            self.factors.append(1)

    def by_name(self):
        """(records,) by name, or (records, num_models) for a stack; NaN where undefined."""
        records = len(self.factors)  # an interrupt may have come between the sums of one record
        shape = records, len(self.names), self.networks
        data, updates = (np.reshape(sums[:records], shape) for sums in (self.data, self.updates))
        factors = np.stack([np.broadcast_to(lr, self.networks) for lr in self.factors])[:, None]
        ratios = factors * np.sqrt(updates / np.where(data > 0, data, np.nan))
        ratios = torch.from_numpy(ratios if self.stacked else ratios[..., 0]).float()
        return dict(zip(self.names, ratios.unbind(1), strict=True))

    def _rows(self, tensor):
        """A tensor's entries, one row a network; NaN for None."""
        return self.unknown if tensor is None else as_rows(tensor, self.networks, precise=False)

    def _around_means(self, arrays):
        """For every row of every array the sum of (x - mean)²: (n - 1) * std²."""
        return [moments(x, self.ones)[1] for rows in arrays for x in rows]
