"""Training, evaluation and sampling, for one network or for a stack of them."""

from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from helpers.by_hand import ByHand
from helpers.minibatches import minibatches
from helpers.update_ratios import UpdateRatios

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

    X (N, block_size) and Y (N,) are the training set. lr: a number, or a function of the step (from 0):
    ``lambda step: 0.1 if step < 100_000 else 0.01`` is the lecture's. Each step draws
    ``torch.randint(0, N, (batch_size,), generator=generator)``, computes the cross-entropy of
    ``model(X[ix])`` and its gradients, and takes ``parameter += -lr * gradient``, unless a torch optimizer
    is given, which then takes the step (with lr, if lr is not None).

    For a stack (logits with a model dimension) one generator shows every network the same minibatches; a list
    of generators gives each its own. Without an optimizer lr may then be a tensor of one value a network.

    backward="by_hand" takes the gradients from helpers.by_hand instead of autograd: twice as fast or more, equal
    up to rounding, and only for the networks of lecture_mlp, alone or in a stack.

    record_ratios_every=k keeps the update:data ratio of every weight (two dimensions or more) at every k-th
    step, from step 0, in History.update_ratio: of ``lr * gradient`` to the values before the step, where
    diagnose takes them too; with an optimizer, of the change that it made.

    The model is left in train mode. Interrupted (Jupyter's stop button, Ctrl-C), it keeps the parameters
    as they are and returns the History so far. Raises ValueError for data that can't be trained on, and for a
    network that has no backward pass by hand.
    """
    _check_data(X, Y)
    if steps < 0:
        raise ValueError(f"steps is {steps}: give the number of minibatches to train on, 0 or more")
    if lr is None and optimizer is None:
        raise ValueError("lr is None: give a learning rate, or an optimizer that has its own")
    if backward not in ("autograd", "by_hand"):
        raise ValueError(f'backward is {backward!r}: choose "autograd" or "by_hand"')
    rate = lr if callable(lr) else lambda step: lr
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parameters = list(trainable.values())
    gradients_of = ByHand(model) if backward == "by_hand" else Autograd(model)
    sgd = PlainSGD(parameters)
    losses, ratios = [], None
    model.train()
    drawn = minibatches(X, Y, batch_size, generator, steps)
    bar = tqdm(drawn, total=steps, unit="step", disable=not progress, leave=False, delay=1)
    try:
        with closing(drawn):
            for step, (Xb, Yb) in enumerate(bar):
                loss, gradients = gradients_of(Xb, Yb)
                recording = record_ratios_every and step % record_ratios_every == 0
                step_size = _checked(rate(step), loss, optimizer)
                if recording:
                    ratios = ratios or UpdateRatios(trainable, loss.dim() == 1, optimizer)
                    ratios.before_step(gradients, step_size)
                if optimizer is None:
                    sgd.step(gradients, step_size)
                else:
                    _optimizer_step(optimizer, parameters, gradients, step_size)
                losses.append(loss)
                if recording:
                    ratios.after_step()
    except KeyboardInterrupt:
        print(f"interrupted after {len(losses):,} of {steps:,} steps: the parameters are kept as they are now")
    loss = torch.stack(losses) if losses else torch.empty(0)
    return History(loss, ratios.by_name() if ratios else {}, record_ratios_every)


class Autograd:
    """Losses and gradients of any network; ByHand is its twin."""

    def __init__(self, model):
        self.model = model
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def __call__(self, X, Y):
        loss = _loss(self.model(X), Y)
        total = loss.sum() if loss.dim() else loss  # the sum trains every network of a stack on its own loss
        return loss.detach(), torch.autograd.grad(total, self.parameters, allow_unused=True)


class PlainSGD:
    """parameter += -lr * gradient; lr is a number, or a tensor of one value a network."""

    def __init__(self, parameters):
        self.values = [p.detach() for p in parameters]  # the same memory, without a graph
        self.ones = [torch.ones((), dtype=p.dtype, device=p.device) for p in parameters]

    def step(self, gradients, lr):
        rows = zip(self.values, gradients, self.ones, strict=True)
        values, gradients, ones = zip(*(row for row in rows if row[1] is not None), strict=True)
        if isinstance(lr, torch.Tensor):
            gradients, lr = [_along_networks(lr, gradient) * gradient for gradient in gradients], 1
        # value += -lr * gradient * 1 rounds as the lecture's two operations do, in one call for all parameters and
        # without a second array of that size, which would cost more than the sums.
        torch._foreach_addcmul_(values, gradients, ones, value=-lr)


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


def _along_networks(lr, parameter):
    """lr in a shape that multiplies a parameter (num_models, …), where there is one lr a network."""
    return lr.view(-1, *[1] * (parameter.dim() - 1)) if lr.dim() else lr


def _optimizer_step(optimizer, parameters, gradients, lr):
    for p, grad in zip(parameters, gradients, strict=True):
        p.grad = grad
    if lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = lr
    optimizer.step()


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
