"""What the slider panels show, as ordinary functions: a setting in, a reading out.

Each reading is what the pictures in helpers.widgets.pictures and helpers.widgets.chapter_pictures draw, with or without a panel.
"""

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch

from helpers.data import load_splits
from helpers.diagnostics import Diagnosis, diagnose
from helpers.layers import BatchNorm1d, Linear
from helpers.models import SEED, deep_mlp
from helpers.train import train
from helpers.widgets.theory import expected_std

__all__ = [
    "CHARACTERS",
    "NetworkReading",
    "network_reading",
    "read_batch_norm",
    "read_logits",
    "read_network",
    "read_update_ratios",
]

CHARACTERS = ".abcdefghijklmnopqrstuvwxyz"
BATCH = 32  # train's own
EXAMPLES = 200  # diagnosed at a time: enough for a smooth histogram, few enough for a quick one
TRUE_MEAN, TRUE_STD = 1.0, 4.0  # of the batches that BatchNorm's running statistics see


@cache
def default_splits():
    return load_splits()


@dataclass
class NetworkReading:
    """A network, diagnosed, its rows sorted into what the pictures show."""

    diagnosis: Diagnosis
    label: str  # the setting, for titles
    lr: float
    layers: list  # LayerRows of the hidden layers' outputs, from the first to the last
    layer_gradients: list
    weights: list  # ParameterRows of what has two dimensions
    expected_std: list | None = None
    losses: list = field(default_factory=list)
    headline: str = ""
    ratios: tuple = ((), {})  # (steps, {weight: update:data at those steps})


def network_reading(model, X, Y, *, label, lr, **more):
    """Diagnose a network of helpers.models and sort its rows: a NetworkReading. more: its further fields."""
    diagnosis = diagnose(model, X, Y, lr=lr)
    rows = diagnosis.activations
    at = [i for i, row in enumerate(rows) if row.is_activation]
    if not at:  # fully linear: what comes before the next Linear
        linears = [i for i, row in enumerate(rows) if row.type.__name__ == "Linear"]
        at = [i - 1 for i in linears[1:]]
    return NetworkReading(
        diagnosis,
        label,
        lr,
        layers=[rows[i] for i in at],
        layer_gradients=[diagnosis.gradients[i] for i in at],
        weights=[row for row in diagnosis.parameters if len(row.shape) > 1],
        **more,
    )


def read_network(
    *, init_gain=5 / 3, depth=6, width=100, nonlinearity="tanh", batch_norm=False, seed=SEED, lr=0.1, splits=None
):
    """A fresh deep_mlp at a setting, diagnosed on the first 200 training examples: a NetworkReading.

    The weights come from `seed` in deep_mlp's order, so two settings of the same shape share all their draws
    and only the setting tells them apart. depth counts the Linears, the output one included.
    """
    X, Y = (part[:EXAMPLES] for part in (splits or default_splits()).train)
    model = deep_mlp(
        depth=depth,
        n_hidden=width,
        gain=init_gain,
        batch_norm=batch_norm,
        nonlinearity=nonlinearity,
        generator=torch.Generator().manual_seed(seed),
    )
    reading = network_reading(model, X, Y, label=f"gain {init_gain:.2f}", lr=lr)
    square = model.embedding(X).square().mean().item()
    reading.expected_std = expected_std(
        init_gain, len(reading.layers), nonlinearity, batch_norm=batch_norm, input_square=square
    )
    return reading


def read_update_ratios(
    *, learning_rate=0.1, init_gain=5 / 3, batch_norm=False, fan_in=True, steps=50, seed=SEED, splits=None
):
    """Train part 2's network for some steps and keep every weight's update:data: a NetworkReading.

    Its rows are those of step 0, on the first minibatch. fan_in=False draws the weights without 1/sqrt(fan_in),
    as the lecture tries at 1:43. The same seed gives the same weights and minibatches at every setting.
    """
    X, Y = (splits or default_splits()).train
    generator = torch.Generator().manual_seed(seed)
    model = deep_mlp(gain=init_gain, batch_norm=batch_norm, generator=generator)
    if not fan_in:
        with torch.no_grad():
            for layer in model:
                if isinstance(layer, Linear):
                    layer.weight *= math.sqrt(layer.weight.shape[-2])
    label = f"gain {init_gain:.2f}" + ("" if fan_in else ", no fan_in")
    ix = torch.randint(0, len(X), (BATCH,), generator=generator.clone_state())  # the first step's minibatch
    reading = network_reading(model, X[ix], Y[ix], label=label, lr=learning_rate)
    history = train(
        model,
        X,
        Y,
        steps=steps,
        lr=learning_rate,
        batch_size=BATCH,
        generator=generator,
        record_ratios_every=1,
        progress=False,
    )
    reading.losses = history.loss.tolist()
    reading.ratios = list(range(steps)), {name: r.tolist() for name, r in history.update_ratio.items()}
    return reading


@dataclass
class LogitReading:
    """Logits (already scaled), what softmax makes of them, and the loss at every scale."""

    logits: list
    label: int
    scale: float
    probabilities: list
    loss: float
    scales: np.ndarray
    losses: np.ndarray
    names: str  # what each logit stands for


def read_logits(logits=None, label=2, *, scale=1.0, seed=SEED):
    """Softmax and cross-entropy of some logits times a scale. logits: numbers; None draws 27, one a character."""
    if logits is None:
        logits = torch.randn(len(CHARACTERS), generator=torch.Generator().manual_seed(seed))
    logits = torch.as_tensor(logits, dtype=torch.float32)
    if not 0 <= label < len(logits):
        raise ValueError(f"label is {label}: with {len(logits)} logits, give one from 0 to {len(logits) - 1}")
    scales = torch.linspace(0, 15, 151)
    return LogitReading(
        logits=(scale * logits).tolist(),
        label=label,
        scale=scale,
        probabilities=(scale * logits).softmax(0).tolist(),
        loss=-(scale * logits).log_softmax(0)[label].item(),
        scales=scales.numpy(),
        losses=-(scales[:, None] * logits).log_softmax(1)[:, label].numpy(),
        names=CHARACTERS if len(logits) == len(CHARACTERS) else "".join(map(str, range(len(logits)))),
    )


@dataclass
class BatchNormReading:
    """A batch of one feature, normalised; and the running statistics after each of many batches."""

    x: np.ndarray
    out: np.ndarray
    mean: float
    std: float
    momentum: float
    running_mean: np.ndarray
    running_std: np.ndarray
    true_mean: float = TRUE_MEAN
    true_std: float = TRUE_STD


@torch.no_grad()
def read_batch_norm(*, moved_number=10.0, batch_size=5, gamma=1.0, beta=0.0, momentum=0.1, batches_seen=50):
    """BatchNorm's forward pass on `batch_size` numbers, the first of them moved: a BatchNormReading.

    The running statistics are those of a second layer that sees `batches_seen` batches of N(1, 4²).
    """
    generator = torch.Generator().manual_seed(SEED)
    others = TRUE_STD * torch.randn(32, generator=generator) + TRUE_MEAN
    others[:4] = torch.tensor([-4.0, -2.0, 1.0, 5.0])  # five by default, as in the lecture's own widget
    x = torch.cat([torch.tensor([moved_number]), others[: batch_size - 1]])
    layer = BatchNorm1d(1)
    layer.gamma.fill_(gamma)
    layer.beta.fill_(beta)
    watched = BatchNorm1d(1, momentum=momentum)
    means, variances = [0.0], [1.0]
    for _ in range(batches_seen):
        watched(TRUE_STD * torch.randn(batch_size, 1, generator=generator) + TRUE_MEAN)
        means.append(watched.running_mean.item())
        variances.append(watched.running_var.item())
    return BatchNormReading(
        x=x.numpy(),
        out=layer(x[:, None])[:, 0].numpy(),
        mean=x.mean().item(),
        std=x.std(correction=0).item(),
        momentum=momentum,
        running_mean=np.array(means),
        running_std=np.sqrt(variances),
    )
