"""Chapter 00's panel: an untrained network, the scale of its two layers, and what it answers, loses and writes."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from helpers.models import SEED, lecture_mlp, seeded
from helpers.plots import BLUE
from helpers.widgets.board import DARK, up
from helpers.widgets.panel import Panel, default_splits, seed_control, slider

EXAMPLES, NAMES, LETTERS = 32, 10, 16


@torch.no_grad()
def read_first_look(*, w1_scale=1.0, w2_scale=1.0, seed=SEED, splits=None):
    """The lecture's first network, untrained, both layers scaled: h (examples, units), loss on a batch, names."""
    splits, generator = splits or default_splits(), seeded(seed)
    X, Y = splits.train
    model = lecture_mlp("original", generator=generator)
    for layer, scale in ((model.hidden, w1_scale), (model.output, w2_scale)):
        layer.weight *= scale
        layer.bias *= scale
    ix = torch.randint(0, len(X), (EXAMPLES,), generator=generator)
    h = model[:-1](X[ix])  # all but the last layer
    loss = F.cross_entropy(model.output(h), Y[ix]).item()
    return SimpleNamespace(h=h.numpy(), loss=loss, names=write_names(model, splits.itos, generator=seeded(seed)))


def write_names(model, itos, generator):
    """Ten names, a letter of each at a time; "…" where a name goes on."""
    contexts = torch.zeros(NAMES, 3, dtype=torch.int64)
    for _ in range(LETTERS + 1):
        drawn = torch.multinomial(model(contexts[:, -3:]).softmax(-1), 1, generator=generator)
        contexts = torch.cat([contexts, drawn], 1)
    rows = ["".join(itos[i] for i in row) for row in contexts[:, 3:].tolist()]
    return [row.partition(".")[0] if "." in row else row[:LETTERS] + "…" for row in rows]


def draw_answers(reading, ax):
    """The histogram of h: what the hidden units answer."""
    h, look = reading.h.ravel(), dict(histtype="stepfilled", color=DARK, alpha=0.75)
    shares, *_ = ax.hist(h, 40, range=(-1, 1), weights=np.full(h.size, 1 / h.size), **look)
    ax.set(xlim=(-1.05, 1.05), xticks=[-1, -0.5, 0, 0.5, 1], xlabel="h: an answer lies between −1 and 1")
    ax.set(ylim=(0, up(1.05 * shares.max())), ylabel="share of all answers", title="what the 200 hidden units answer")


def draw_first_loss(reading, ax):
    """The loss before training, as one bar."""
    ax.bar([0], [reading.loss], 0.6, color=BLUE)
    ax.text(0, reading.loss, f"{reading.loss:.2f}", ha="center", va="bottom", color=BLUE, fontsize=12, weight="bold")
    ax.set(xlim=(-0.6, 0.6), ylim=(0, up(max(1.1 * reading.loss, 50))), xticks=[], ylabel="loss on 32 examples")
    ax.set_title("first loss")


def draw_names(reading, ax):
    """The names, one on each line."""
    ax.set(xlim=(0, 1), ylim=(NAMES - 0.4, -0.6), title=f"{NAMES} names that it writes")
    ax.axis("off")
    for row, name in enumerate(reading.names):
        look = dict(family="monospace", fontsize=11) if name else dict(fontsize=9.5, alpha=0.6, style="italic")
        ax.text(0, row, name or "(ends at once)", va="center", **look)


def first_look(*, w1_scale=1.0, w2_scale=1.0, seed=SEED, splits=None):
    """Turn the scale of W1 and of W2 in a network that is not trained: its answers, its first loss, its names."""
    says = "The weights and biases of the {} layer are multiplied by it."
    controls = [
        slider("W1 scale", says.format("hidden"), w1_scale, 0, 1.5, 0.05),
        slider("W2 scale", says.format("output"), w2_scale, 0, 1.5, 0.01),
        seed_control(seed),
    ]
    what = "The histogram of h, the first loss as a bar, and ten names"
    alt = f"{what}, at W1 scale {w1_scale:g}, W2 scale {w2_scale:g}."
    layout = dict(mosaic="aaaaabbccc", margins=dict(wspace=1.6, bottom=0.16))
    pictures = [draw_answers, draw_first_loss, draw_names]
    return Panel(partial(read_first_look, splits=splits), pictures, controls, alt=alt, **layout)
