"""Training, evaluation and sampling, for one network or for a stack of them."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from numbers import Integral, Real

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from helpers.by_hand import ByHand

AHEAD = 50  # steps whose examples are looked up at once: much faster than one step at a time
MOST_LETTERS = 100  # where sample stops: a badly initialised network may never draw the final "."


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
        last = self.loss[-200:]
        mean = f"{len(self):,} steps, mean loss of the last {len(last)}: {last.mean():.4f}"
        return f"History({mean if len(self) else 'no steps'})"


@np.errstate(all="ignore")  # as torch: what overflows or divides by zero is infinite or NaN, without a word
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

    X (N, …), Y (N,): the training set. lr: a number, or a function of the step (from 0), such as the lecture's
    ``lambda step: 0.1 if step < 100_000 else 0.01``. A step is ``parameter += -lr * gradient``, or the optimizer's
    (with lr, if lr is not None). A stack (logits with a model dimension): one generator shows every network the same
    minibatches, a list of them gives each its own; lr may be a tensor of one value for each, without an optimizer.
    backward="by_hand": helpers.by_hand's gradients, equal up to rounding, several times as fast, for networks of the
    course's layers. (Interrupted, its generator has drawn up to AHEAD steps further.)
    record_ratios_every=k: every k-th step, from step 0, History.update_ratio keeps std(update) / std(data) of each
    weight (two dimensions or more); data are the values before the step, where diagnose takes them too.
    The model is left in train mode. Interrupted (Jupyter's stop button, Ctrl-C), it keeps its parameters, and the
    History so far comes back. Raises ValueError for data, a learning rate or a network that can't be used.
    """
    _check_data(model, X, Y)
    _check_settings(steps, lr, batch_size, generator, optimizer, record_ratios_every)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    network = _network(backward, model, trainable, Y)
    _check_optimizer(optimizer, trainable)
    update = Update(trainable, network, optimizer, record_ratios_every)
    # With autograd each step draws for itself: a network may draw, too, as dropout does, and the order has to stay.
    minibatches = _minibatches(X, Y, steps, batch_size, generator, AHEAD if backward == "by_hand" else 1)
    rate = lr if callable(lr) else lambda step: lr
    losses = []
    model.train()
    try:
        for step in tqdm(range(steps), unit="step", disable=not progress, leave=False, delay=1):
            Xb, Yb = next(minibatches)
            loss = network.forward(Xb, Yb)
            gradients = network.backward()
            update(gradients, rate(step))
            losses.append(loss)
    except KeyboardInterrupt:
        print(f"interrupted after {len(losses):,} of {steps:,} steps: the parameters are kept as they are now")
    return History(torch.stack(losses) if losses else torch.empty(0), update.ratios(), record_ratios_every)


def _minibatches(X, Y, steps, batch_size, generator, ahead):
    """(Xb, Yb) of every step, drawn as the lecture draws; with a list of generators (num_models, batch_size, …)."""
    for step in range(0, steps, ahead):
        # Drawing for several steps at once takes the same numbers from a generator as drawing for each.
        shape = min(ahead, steps - step), batch_size
        if isinstance(generator, (list, tuple)):
            ix = torch.stack([torch.randint(0, len(X), shape, generator=g) for g in generator], 1)
        else:
            ix = torch.randint(0, len(X), shape, generator=generator)
        yield from zip(X[ix], Y[ix], strict=True)


class Autograd:
    """Loss and gradients of any network, from torch. ByHand has the same two methods."""

    def __init__(self, model, parameters):
        self.model, self.parameters = model, parameters

    def forward(self, X, Y):
        self.loss = _loss(self.model, X, Y)
        self.stacked = self.loss.dim() == 1
        return self.loss.detach()

    def backward(self):
        total = self.loss.sum() if self.stacked else self.loss  # the sum trains every network on its own loss
        return torch.autograd.grad(total, self.parameters, allow_unused=True)


def _network(backward, model, trainable, Y):
    if backward == "autograd":
        return Autograd(model, list(trainable.values()))
    if backward != "by_hand":
        raise ValueError(f'backward is {backward!r}: choose "autograd" or "by_hand"')
    if Y.min() < 0:
        raise ValueError('Y has targets below 0, which by hand count too: leave backward="by_hand" out')
    return ByHand(model)


class Update:
    """Takes the steps, and keeps the update:data ratio of every weight at the first and every ``every``-th of them."""

    def __init__(self, trainable, network, optimizer, every):
        self.trainable, self.network, self.optimizer, self.every = trainable, network, optimizer, every
        self.values = [p.detach() for p in trainable.values()]  # the same memory, without a graph
        self.ones = [torch.ones((), dtype=p.dtype, device=p.device) for p in self.values]
        self.steps, self.kept = 0, {}

    def __call__(self, gradients, lr):
        if isinstance(lr, torch.Tensor) and lr.dim():  # one for each network
            gradients, lr = self._scaled(gradients, lr), 1
        take_step = self._sgd_step if self.optimizer is None else self._optimizer_step
        if self.every and self.steps % self.every == 0:
            self._record(take_step, gradients, lr)
        else:
            take_step(gradients, lr)
        self.steps += 1

    def _scaled(self, gradients, rates):
        """The gradients, those of each network times its own rate."""
        if self.optimizer or not self.network.stacked or len(rates) != len(self.values[0]):
            remedy = "one number for all, or one for each network of a stack, without an optimizer"
            raise ValueError(f"lr has shape {tuple(rates.shape)}: give {remedy}")
        return [g if g is None else rates.view(-1, *[1] * (g.dim() - 1)) * g for g in gradients]

    def _sgd_step(self, gradients, lr):
        values, ones = self.values, self.ones
        if any(gradient is not None and gradient.is_sparse for gradient in gradients):
            raise ValueError("sparse gradients: make the layer without sparse=True, or give torch.optim.SparseAdam")
        if any(gradient is None for gradient in gradients):  # the loss does not depend on that parameter
            rows = zip(values, gradients, ones, strict=True)
            values, gradients, ones = zip(*(row for row in rows if row[1] is not None), strict=True)
        # parameter += -lr * gradient, for all parameters in one call. The 1 is there because this is the one call that
        # rounds as the lecture's two operations do, and makes no second array of that size.
        torch._foreach_addcmul_(values, gradients, ones, value=-float(lr))

    def _optimizer_step(self, gradients, lr):
        for p, gradient in zip(self.trainable.values(), gradients, strict=True):
            p.grad = gradient
        for group in self.optimizer.param_groups if lr is not None else ():
            group["lr"] = lr
        self.optimizer.step()

    def _record(self, take_step, gradients, lr):
        """Take the step; keep the spreads of each weight's update and of its values before it."""
        rows = zip(self.trainable, self.values, gradients, strict=True)
        weights = [(name, p, g) for name, p, g in rows if p.dim() - self.network.stacked > 1]
        before = [(self._spread(p), p.clone() if self.optimizer else p) for _, p, _ in weights]
        take_step(gradients, lr)
        for (name, p, gradient), (data, old) in zip(weights, before, strict=True):
            if gradient is None:
                update = np.nan * data
            elif self.optimizer:
                update = self._spread(p - old)
            else:  # the update is -lr * gradient, and so is its spread: no copy of the old values is needed
                update = abs(float(lr)) * self._spread(gradient)
            self.kept.setdefault(name, []).append((update, data))

    def _spread(self, tensor):
        """std * sqrt(n - 1), for each network of a stack, in a fraction of torch.std's time; 0 for constant data."""
        x = (tensor.float() if tensor.dtype.itemsize < 4 else tensor).numpy(force=True)  # NumPy has no bfloat16
        x = x.reshape(len(x) if self.network.stacked else 1, -1)
        x = x - x[:, :1]  # exactly 0 for constant data
        x -= np.add.reduce(x, axis=1, keepdims=True) / x.shape[1]
        spread = np.sqrt(np.vecdot(x, x).real)
        return spread if self.network.stacked else spread[0]

    def ratios(self):
        """update / data by name: (records,), or (records, num_models) for a stack; NaN where data does not vary."""
        pairs = {name: np.array(kept, np.float64).swapaxes(0, 1) for name, kept in self.kept.items()}
        return {name: torch.from_numpy(u / np.where(d > 0, d, np.nan)).float() for name, (u, d) in pairs.items()}


def _loss(model, X, Y):
    """Mean cross-entropy, () for logits (N, classes) and (num_models,) for logits (num_models, N, classes)."""
    logits = model(X)
    shape = getattr(logits, "shape", ())
    if len(shape) == 2:
        return F.cross_entropy(logits, Y)
    if len(shape) != 3 or any(p.shape[:1] != shape[:1] for p in model.parameters()):
        wanted = "logits (N, classes), or (num_models, N, classes) from a stack"
        raise ValueError(f"the model puts out a {type(logits).__name__}{tuple(shape) or ''}: let it put out {wanted}")
    Y = Y.expand(shape[:-1])
    return F.cross_entropy(logits.flatten(0, 1), Y.flatten(), reduction="none").view_as(Y).mean(-1)


@torch.no_grad()
def evaluate(model, X, Y):
    """Mean cross-entropy over a whole split, in eval mode: a float, or a tensor (num_models,) for a stack.

    The modes of the model and of all its layers are restored afterwards, which the lecture's own notebook forgets.
    """
    _check_data(model, X, Y)
    if Y.min() == -100:  # what cross_entropy leaves out
        X, Y = X[Y != -100], Y[Y != -100]
    with _eval_mode(model):
        # In parts: all of the training set's hidden units at once would take 150 MB per network.
        parts = [_loss(model, x, y).double() * len(y) for x, y in zip(X.split(8192), Y.split(8192), strict=True)]
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
            while len(name) < MOST_LETTERS:
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


def _check_data(model, X, Y):
    if not all(map(isinstance, (model, X, Y), (nn.Module, torch.Tensor, torch.Tensor))):
        kinds = ", ".join(type(value).__name__ for value in (model, X, Y))
        raise ValueError(f"model, X and Y are {kinds}: give a module, such as nn.Sequential(*layers), and two tensors")
    if len(X) != len(Y) or not len(X):
        raise ValueError(f"X has {len(X)} examples and Y has {len(Y)}: both need the same number, at least one")
    if Y.dim() != 1 or Y.dtype not in (torch.int64, torch.uint8) or Y.max() < 0:
        what = f"Y has shape {tuple(Y.shape)}, {Y.dtype} and at most {Y.max():g}, not ({len(Y)},), int64 and 0 or more"
        raise ValueError(f"{what}: give one class for each example, as a number, counted from 0")


def _check_settings(steps, lr, batch_size, generator, optimizer, record_ratios_every):
    counts = steps, batch_size, record_ratios_every
    if not batch_size or not all(isinstance(count, Integral) and count >= 0 for count in counts):
        given = f"steps is {steps!r}, batch_size {batch_size!r}, record_ratios_every {record_ratios_every!r}"
        raise ValueError(f"{given}: give whole numbers, a batch of 1 or more, the others 0 or more")
    is_rate = isfinite(lr) if isinstance(lr, Real) else callable(lr) or isinstance(lr, torch.Tensor)
    if not (is_rate or (lr is None and optimizer is not None)):
        raise ValueError(f"lr is {lr!r}: give a number or a function of the step, or an optimizer that has its own")
    if not all(g is None or isinstance(g, torch.Generator) for g in np.atleast_1d(generator)):
        raise ValueError(f"generator is {generator!r}: give what seeded(42) returns, or a list of such generators")


def _check_optimizer(optimizer, trainable):
    if not trainable:
        raise ValueError("no parameter needs a gradient: call model.requires_grad_() before")
    if isinstance(optimizer, type) or not (optimizer is None or hasattr(optimizer, "param_groups")):
        raise ValueError(f"optimizer is {optimizer!r}: give one, such as torch.optim.Adam(model.parameters())")
    if type(optimizer) is torch.optim.LBFGS:
        raise ValueError("LBFGS computes the loss several times per step, which train does not: give another optimizer")
    held = {id(p) for group in getattr(optimizer, "param_groups", ()) for p in group["params"]}
    if optimizer is not None and (missing := [name for name, p in trainable.items() if id(p) not in held]):
        remedy = "make it anew from model.parameters(), or freeze the others by requires_grad_(False)"
        raise ValueError(f"the optimizer does not hold {', '.join(missing)}: {remedy}")
