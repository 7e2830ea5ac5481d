"""The patients: how each is made, what is wrong with it, and which remedy puts it right.

A Recipe is a whole training script as settings; a healthy one has the defaults. A fault changes some of them, a remedy
sets some of them back. So every remedy can be tried on every patient, also a wrong one. The answers stand in here.
"""

from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from itertools import count

import torch
import torch.nn.functional as F
from torch import nn

from helpers.models import deep_mlp, seeded


@dataclass(frozen=True)
class Recipe:
    """A training script. What is not said of it is as in the course: SGD, cross-entropy, hidden layers of 100 units."""

    nonlinearity: str = "tanh"
    batch_norm: bool = False
    gain: float = 1.0  # times the usual gain
    embedding: float = 1.0  # std of the embedding
    bias: float = 0.0  # added to the biases of the hidden layers
    registered: bool = True
    trainable: bool = True
    probabilities: bool = False
    lag: int = 0  # by how many places the labels are late
    shuffled: bool = True
    batch_size: int = 32
    lr: float = 0.1
    decay: float = 0.0
    own_optimizer: bool = True
    clean: bool = True  # gradients set to zero in each step
    train_mode: bool = True


HEALTHY = "nothing: it is healthy"
TANH, RELU, TANH_NORMED, RELU_NORMED = ("tanh", False), ("relu", False), ("tanh", True), ("relu", True)
PLAIN, NORMED = (TANH, RELU), (TANH_NORMED, RELU_NORMED)


@dataclass(frozen=True)
class Fault:
    """organ: where it sits. changes: the settings of a recipe that it changes. kinds: the networks that may have it.

    remedy: what puts it right. hints: where to look, and what to try. sign: words of the warning that names it.
    """

    organ: str
    changes: dict
    kinds: tuple
    remedy: str
    hints: tuple
    sign: str = ""


_START, _BUILT = "Look at the network before its first step.", "Look at how the network is put together."
_TRAINS = "Look at the weights while it trains."
FAULTS = {
    "the labels are one place late": Fault(
        "data", dict(lag=1), PLAIN + NORMED, "put each label beside its own window",
        ("Look at what goes in and what is asked for.", "Write X[k] and Y[k] in letters, for k = 0 to 8."), "label"),
    "the names are sorted and not shuffled": Fault(
        "data", dict(shuffled=False), PLAIN + NORMED, "shuffle the examples",
        ("Look at what goes in.", "Write some batches in letters: how do their names begin?"), "shuffle"),
    "the batch is too small for BatchNorm": Fault(
        "data", dict(batch_size=2), (TANH_NORMED,), "take 32 examples per batch",
        ("Look at what one step sees.", "Which values does the first BatchNorm put out on one batch?"), "batch size"),
    "the embedding is far too large": Fault(
        "initialisation", dict(embedding=100.0), (TANH,), "draw the embedding with std 1",
        (_START, "Compare the std of each weight with the course's: which one stands out?"), "embedding"),
    "the gain is far too low": Fault(
        "initialisation", dict(gain=0.2), PLAIN, "draw the weights with the usual gain",
        (_START, "Follow the std of the activations from layer to layer."), "activations shrink"),
    "the ReLUs are dead": Fault(
        "initialisation", dict(bias=-4.0), (RELU,), "start the biases at zero",
        (_START, "Which share of each ReLU's outputs is 0, and what are the biases before it?"), "dead"),
    "layers are not registered": Fault(
        "network", dict(registered=False), PLAIN, "register every layer",
        (_BUILT, "How many weights does the output depend on? How many has model.named_parameters()?"), "not among"),
    "layers are frozen": Fault(
        "network", dict(trainable=False), PLAIN, "let every layer be trained",
        (_BUILT, "Ask every parameter for its requires_grad."), "requires_grad"),
    "a softmax stands before the cross-entropy": Fault(
        "network", dict(probabilities=True), PLAIN + NORMED, "hand logits to the cross-entropy",
        (_BUILT, "Add up the 27 numbers that it puts out for one example."), "softmax"),
    "the learning rate is far too low": Fault(
        "optimizer", dict(lr=1e-3), PLAIN + NORMED, "set the learning rate to 0.1",
        ("Look at the size of its steps.", "Compare update:data with 1e-3; print its lr."), "rate is probably too low"),
    "the weight decay is too strong": Fault(
        "optimizer", dict(decay=0.1), PLAIN, "take the weight decay away",
        (_TRAINS, "Keep each weight's std for 300 steps; then print the optimizer."), "decay"),
    "the optimizer holds another model's parameters": Fault(
        "optimizer", dict(own_optimizer=False), PLAIN + NORMED, "make the optimizer from this model's parameters",
        (_TRAINS, "Compare a weight before and after ten steps."), "holds none"),
    "the gradients are never set to zero": Fault(
        "training loop", dict(clean=False), PLAIN + NORMED, "set the gradients to zero in each step",
        ("Look at single steps.", "Divide each step by lr times the gradient of its own batch."), "zero_grad"),
    "the network is in eval mode": Fault(
        "training loop", dict(train_mode=False, gain=0.3), NORMED, "call model.train() before each step",
        ("Look at what behaves in two ways.", "Print model.training, and a running mean at steps 0 and 10."), "eval mode"),
    HEALTHY: Fault(
        "none", {}, PLAIN + NORMED, "leave it as it is",
        ("Ask all six questions, and believe the answers.", "Compare its validation loss with that of cured ones.")),
}  # fmt: skip
ORGANS = {  # what belongs to each part of a script
    "data": "which examples, in which order, with which labels, how many per batch",
    "initialisation": "the numbers that it starts with",
    "network": "its layers, and which of them can learn",
    "optimizer": "what it holds, and its settings",
    "training loop": "what one step does, and in which mode",
    "none": "it is healthy",
}
_CURES = {fault.remedy: list(fault.changes)[:1] for fault in FAULTS.values()}  # the setting that each remedy puts right
CHOICES = {
    "organ": list(ORGANS),
    "fault": sorted([*FAULTS, "the gain is far too high", "the learning rate is far too high"]),
    "remedy": sorted(_CURES),
}


class Net(nn.Module):
    """Characters in, one number per character out."""

    def __init__(self, path, layers):
        super().__init__()
        self.path, self.layers = tuple(path), nn.ModuleList(layers)

    def forward(self, x):
        for part in self.path:
            x = part(x)
        return x


class Patient:
    """Somebody's training script, as it runs: look at anything, change nothing.

    model, optimizer, loss_fn; X, Y: its training examples; batch(): its next minibatch; step(): one step of training,
    which returns the loss. losses: of all the steps that it took; last_batch: the (x, y) of the last one.
    """

    def __init__(self, name, model, optimizer, data, batch, step):
        self.name, self.model, self.optimizer, self.loss_fn = name, model, optimizer, F.cross_entropy
        (self.X, self.Y), self.batch, self._step = data, batch, step
        self.losses, self.last_batch = [], None

    def step(self):
        self.last_batch = self.batch()
        self.losses.append(self._step(*self.last_batch))
        return self.losses[-1]

    def __repr__(self):
        return f"{self.name}: {len(self.X):,} examples, {len(self.losses):,} steps taken"


def recipe_of(fault, seed, kind=None):
    """The recipe of a patient with this fault; the seed draws which kind of network it is, if none is given."""
    kinds = FAULTS[fault].kinds
    kind = kind or kinds[torch.randint(len(kinds), (), generator=seeded(seed))]
    return Recipe(*kind, **FAULTS[fault].changes)


def treated(recipe, remedy):
    """The recipe with the remedy applied."""
    return replace(recipe, **{f.name: f.default for f in fields(Recipe) if f.name in _CURES[remedy]})


def make_patient(recipe, seed, splits, name="patient"):
    """The script that the recipe describes, at step 0. Everything random in it comes from the seed."""
    generator = seeded(seed)
    model, made = _network(recipe, generator), _network(recipe, generator)
    chosen = model if recipe.own_optimizer else made
    optimizer = torch.optim.SGD(chosen.parameters(), lr=recipe.lr, weight_decay=recipe.decay)
    order = slice(None) if recipe.shuffled else _alphabetical(splits.train[0])
    X, Y = splits.train[0][order], splits.train[1].roll(recipe.lag)[order]
    model.train(recipe.train_mode)
    batch = partial(next, _batches(X, Y, recipe, generator))

    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        if recipe.clean:
            model.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Patient(name, model, optimizer, (X, Y), batch, step)


def _network(recipe, generator):
    usual = 1 if recipe.batch_norm else {"tanh": 5 / 3, "relu": 2**0.5}[recipe.nonlinearity]
    kind = dict(nonlinearity=recipe.nonlinearity, batch_norm=recipe.batch_norm)
    drawn = deep_mlp(depth=4, gain=recipe.gain * usual, generator=generator, **kind)
    layers = list(drawn)
    hidden = layers[2 : -2 if recipe.batch_norm else -1]
    with torch.no_grad():
        drawn.embedding.weight *= recipe.embedding
        for layer in hidden:
            if getattr(layer, "bias", None) is not None:
                layer.bias += recipe.bias
            layer.requires_grad_(recipe.trainable)
    path = [*layers, partial(torch.softmax, dim=-1)] if recipe.probabilities else layers
    return Net(path, layers if recipe.registered else [layer for layer in layers if layer not in hidden])


@lru_cache(1)
def _alphabetical(X):
    """The order of the windows when the names are sorted; a window of dots begins a name."""
    names = bytes(X[:, -1].tolist()).split(b"\0")[1:]  # the last characters: all names in a row, each after a 0
    rank = torch.tensor(sorted(range(len(names)), key=names.__getitem__)).argsort()
    return rank[(X == 0).all(1).cumsum(0) - 1].argsort(stable=True)


def _batches(X, Y, recipe, generator):
    size = recipe.batch_size
    for at in count(0, size):
        ix = torch.randint(0, len(X), (size,), generator=generator) if recipe.shuffled else torch.arange(at, at + size)
        yield X[ix % len(X)], Y[ix % len(X)]
