"""Training, evaluation and sampling, for one network or for a stack of them."""

from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from helpers.by_hand import ByHand

__all__ = ["History", "evaluate", "sample", "train"]

LONGEST_NAME = 100  # where sample stops: a badly initialised network may never draw the final "."


@dataclass
class History:
    """What a run recorded.

    loss: every step's minibatch loss, (steps,) or (steps, num_models), float32.
    update_ratio: by parameter name, std(update) / std(data) at the steps 0, ratios_every, 2 * ratios_every, …:
    (records,) or (records, num_models); NaN where undefined, for constant data. Raw: the lecture takes log10.
    """

    loss: torch.Tensor
    update_ratio: dict[str, torch.Tensor] = field(default_factory=dict)
    ratios_every: int = 0

    def __len__(self):
        return len(self.loss)

    def __repr__(self):
        if not len(self):
            return "History(no steps)"
        return f"History({len(self):,} steps, mean loss of the last {len(self.loss[-200:])}: {self.loss[-200:].mean():.4f})"


def train(
    model,
    X,
    Y,
    *,
    steps,
    lr,
    batch_size=32,
    generator=None,
    optimizer=None,
    backward="autograd",
    record_ratios_every=0,
    progress=True,
):
    """Train on minibatches drawn as the lecture draws them; returns the History.

    X (N, …) and Y (N,) are the training set. lr: a number, or a function of the step (from 0): the lecture's is
    ``lambda step: 0.1 if step < 100_000 else 0.01``. A torch optimizer, if given, takes the steps in place of
    ``parameter += -lr * gradient``; lr=None then leaves its own learning rate.

    For a stack (logits with a model dimension) one generator shows every network the same minibatches; a list
    of generators gives each its own. Without an optimizer lr may then be a tensor of one value for each network.

    backward="by_hand" takes the gradients from helpers.by_hand: equal up to rounding, several times as fast, for
    networks of the course's layers.

    record_ratios_every=k keeps std(update) / std(data) of every weight (two dimensions or more) in
    History.update_ratio, at step 0 and every k-th from there. data is taken before the step, as diagnose does.

    The model is left in train mode. Interrupted (Jupyter's stop button, Ctrl-C), it keeps the parameters as they
    are and returns the History so far. Raises ValueError for data, a learning rate or a network that can't be used.
    """
    _check_data(X, Y)
    _check_settings(Y, steps, lr, optimizer, backward)
    rate = lr if callable(lr) else lambda step: lr
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    network = ByHand(model) if backward == "by_hand" else Autograd(model, list(trainable.values()))
    update = OptimizerStep(optimizer, trainable) if optimizer else PlainStep(trainable)
    if record_ratios_every:
        update = Recorded(update, network, record_ratios_every)
    losses = []
    model.train()
    try:
        for step in tqdm(range(steps), unit="step", disable=not progress, leave=False, delay=1):
            Xb, Yb = _minibatch(X, Y, batch_size, generator)
            loss = network.forward(Xb, Yb)
            gradients = network.backward()
            update(gradients, _checked(rate(step), loss, optimizer))
            losses.append(loss)
    except KeyboardInterrupt:
        print(f"interrupted after {len(losses):,} of {steps:,} steps: the parameters are kept as they are now")
    loss = torch.stack(losses) if losses else torch.empty(0)
    return History(loss, update.ratios() if record_ratios_every else {}, record_ratios_every)


def _minibatch(X, Y, batch_size, generator):
    """One draw, as the lecture's; with a list of generators one for each network, (num_models, batch_size, …)."""
    if isinstance(generator, (list, tuple)):
        ix = torch.stack([torch.randint(0, len(X), (batch_size,), generator=g) for g in generator])
    else:
        ix = torch.randint(0, len(X), (batch_size,), generator=generator)
    return X[ix], Y[ix]


class Autograd:
    """Loss and gradients of any network, from torch; ByHand is its twin."""

    def __init__(self, model, parameters):
        self.model, self.parameters, self.loss = model, parameters, None

    def forward(self, X, Y):
        self.loss = _loss(self.model(X), Y)
        self.stacked = self.loss.dim() == 1
        return self.loss.detach()

    def backward(self):
        total = self.loss.sum() if self.stacked else self.loss  # the sum trains every network on its own loss
        return torch.autograd.grad(total, self.parameters, allow_unused=True)


class PlainStep:
    """parameter += -lr * gradient; lr is a number, or a tensor of one value for each network."""

    def __init__(self, trainable):
        self.trainable = trainable
        self.values = [p.detach() for p in trainable.values()]  # the same memory, without a graph
        self.ones = [torch.ones((), dtype=p.dtype, device=p.device) for p in self.values]

    def __call__(self, gradients, lr):
        for name, gradient in zip(self.trainable, gradients, strict=True):
            if gradient is not None and gradient.layout is not torch.strided:
                raise ValueError(
                    f"{name} has sparse gradients: make its layer with sparse=False, or give an optimizer that takes "
                    "them, such as torch.optim.SparseAdam"
                )
        rows = zip(self.values, gradients, self.ones, strict=True)
        values, gradients, ones = zip(*(row for row in rows if row[1] is not None), strict=True)
        if isinstance(lr, torch.Tensor):
            gradients, lr = [lr.view(-1, *[1] * (g.dim() - 1)) * g if lr.dim() else lr * g for g in gradients], 1
        # value += -lr * gradient * 1 rounds as the lecture's two operations do, in one call for all parameters and
        # without a second array of that size, which would cost more than the sums.
        torch._foreach_addcmul_(values, gradients, ones, value=-lr)


class OptimizerStep:
    """A torch optimizer's step, with lr unless it is None."""

    def __init__(self, optimizer, trainable):
        self.optimizer, self.trainable = optimizer, trainable

    def __call__(self, gradients, lr):
        for p, gradient in zip(self.trainable.values(), gradients, strict=True):
            p.grad = gradient
        if lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        self.optimizer.step()


class Recorded:
    """A step that keeps std(update) / std(data) of every weight, at its first call and every so many from there."""

    def __init__(self, step, network, every):
        self.step, self.network, self.every = step, network, every
        self.calls, self.records = 0, []

    def __call__(self, gradients, lr):
        self.calls += 1
        if (self.calls - 1) % self.every:
            return self.step(gradients, lr)
        at = [i for i, p in enumerate(self.step.trainable.values()) if p.dim() - self.network.stacked > 1]
        weights = [list(self.step.trainable.values())[i] for i in at]
        data = [self._spread(weight) for weight in weights]
        if isinstance(self.step, PlainStep):  # the update is lr times the gradient
            lrs = lr.numpy(force=True) if isinstance(lr, torch.Tensor) else lr
            updates = [np.abs(lrs) * self._spread(gradients[i]) for i in at]
            self.step(gradients, lr)
        else:
            before = [weight.detach().clone() for weight in weights]
            self.step(gradients, lr)
            changes = zip(weights, before, at, strict=True)
            updates = [self._spread(p.detach() - q if gradients[i] is not None else None) for p, q, i in changes]
        with np.errstate(all="ignore"):
            self.records.append([u / np.where(d > 0, d, np.nan) for u, d in zip(updates, data, strict=True)])

    def ratios(self):
        """(records,) by name, or (records, num_models) for a stack."""
        names = [name for name, p in self.step.trainable.items() if p.dim() - self.network.stacked > 1]
        columns = zip(*self.records, strict=True)
        ratios = [torch.from_numpy(np.stack(column)).float() for column in columns]
        return {name: ratio if self.network.stacked else ratio[:, 0] for name, ratio in zip(names, ratios, strict=True)}

    def _spread(self, tensor):
        """std * sqrt(n - 1) for each network, in a fraction of torch.std's time; exactly 0 for constant data."""
        if tensor is None:
            return np.array([np.nan])
        if tensor.dtype not in (torch.float32, torch.float64):
            tensor = tensor.float()  # NumPy has no bfloat16
        x = tensor.numpy(force=True)
        x = x.reshape(len(x) if self.network.stacked else 1, -1)
        deviations = x - (x @ np.ones(x.shape[1], x.dtype) / x.shape[1])[:, None]
        if (x[:, 0] == x[:, -1]).any():
            deviations[(x == x[:, :1]).all(1)] = 0
        return np.sqrt(np.vecdot(deviations, deviations))


def _loss(logits, Y):
    """Mean cross-entropy, () for logits (N, classes) and (num_models,) for logits (num_models, N, classes)."""
    if logits.dim() == 2:
        return F.cross_entropy(logits, Y)
    Y = Y.expand(logits.shape[:-1])
    return F.cross_entropy(logits.flatten(0, 1), Y.flatten(), reduction="none").view_as(Y).mean(-1)


def _checked(lr, loss, optimizer):
    if isinstance(lr, torch.Tensor) and lr.dim():
        if optimizer is not None:
            raise ValueError("lr is a tensor of several: an optimizer takes one number for all networks")
        if lr.shape != loss.shape:
            raise ValueError(f"lr has shape {tuple(lr.shape)} for {loss.numel()} network(s): give one value each")
    return lr


@torch.no_grad()
def evaluate(model, X, Y):
    """Mean cross-entropy over a whole split, in eval mode: a float, or a tensor (num_models,) for a stack.

    The modes of the model and of all its layers are restored afterwards, which the lecture's own notebook forgets.
    """
    _check_data(X, Y)
    with _eval_mode(model):
        # In parts: all of the training set's hidden units at once would take 150 MB a network.
        parts = [_loss(model(x), y).double() * len(y) for x, y in zip(X.split(8192), Y.split(8192), strict=True)]
    mean = sum(parts) / len(Y)
    return mean.item() if mean.dim() == 0 else mean.float()


@torch.no_grad()
def sample(model, itos, n, generator=None, *, block_size=3):
    """n new names from a trained network, drawn one character at a time in eval mode; without the final ".".

    itos: characters by index, 0 being the ".". The draws are the lecture's, torch.multinomial on the softmax
    of one example's logits, so its generator gives its names.
    """
    names = []
    with _eval_mode(model):
        for _ in range(n):
            context, name = [0] * block_size, []
            while len(name) < LONGEST_NAME:
                probabilities = F.softmax(model(torch.tensor([context])), dim=-1)
                ix = torch.multinomial(probabilities, num_samples=1, generator=generator).item()
                if ix == 0:
                    break
                context = [*context[1:], ix]
                name.append(itos[ix])
            names.append("".join(name))
    return names


@contextmanager
def _eval_mode(model):
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _check_data(X, Y):
    if len(X) != len(Y) or not len(X):
        raise ValueError(f"X has {len(X)} examples and Y has {len(Y)}: both need the same number, at least one")
    if Y.dim() != 1:
        raise ValueError(
            f"Y has shape {tuple(Y.shape)}, not ({len(Y)},): give one target for each example; "
            "several for one are more examples, in X too"
        )


def _check_settings(Y, steps, lr, optimizer, backward):
    if steps < 0:
        raise ValueError(f"steps is {steps}: give the number of minibatches to train on, 0 or more")
    if lr is None and optimizer is None:
        raise ValueError("lr is None: give a learning rate, or an optimizer that has its own")
    if backward not in ("autograd", "by_hand"):
        raise ValueError(f'backward is {backward!r}: choose "autograd" or "by_hand"')
    if backward == "by_hand" and Y.min() < 0:
        raise ValueError('Y has targets below 0, which by hand count too: leave backward="by_hand" out')
