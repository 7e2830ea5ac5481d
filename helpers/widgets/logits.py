"""Chapter 02: logits, their scale and the label, and what softmax and the loss make of them."""

import math
from types import SimpleNamespace

import ipywidgets as widgets
import torch

from helpers.data import ALPHABET
from helpers.models import SEED, seeded
from helpers.plots import BLUE, VERMILION, reference_line
from helpers.widgets.board import up
from helpers.widgets.panel import Panel, choice, seed_control, slider


def read_logits(logits=None, label=2, *, scale=1.0, seed=SEED):
    """The logits times the scale, their softmax as probabilities, the label's loss; its losses at all of the scales.

    logits: numbers; None draws 27, one per character. Raises ValueError for a label that has no logit.
    """
    if logits is None:
        logits = torch.randn(len(ALPHABET), generator=seeded(seed))
    logits = torch.as_tensor(logits, dtype=torch.float32)
    if not 0 <= label < len(logits):
        raise ValueError(f"label is {label}: with {len(logits)} logits, give one from 0 to {len(logits) - 1}")
    scaled, scales = scale * logits, torch.linspace(0, 15, 151)
    reading = SimpleNamespace(label=label, scale=scale, logits=scaled.tolist())
    reading.probabilities = scaled.softmax(0).tolist()
    reading.loss = -scaled.log_softmax(0)[label].item()
    reading.scales, reading.losses = scales.numpy(), -(scales[:, None] * logits).log_softmax(1)[:, label].numpy()
    return reading


def draw_probabilities(reading, ax):
    """The softmax of some logits as bars, the label's in orange, with the loss in the title."""
    n, few = len(reading.logits), len(reading.logits) <= 8
    names = [f"{logit + 0.0:.3g}".replace("-", "−") for logit in reading.logits] if few else ALPHABET  # no −0
    ax.bar(range(n), reading.probabilities, 0.7, color=[VERMILION if i == reading.label else BLUE for i in range(n)])
    for i, (name, p) in enumerate(zip(names, reading.probabilities, strict=True)):
        # Below the axis, where ticks would be: texts move, ticks stand still.
        look = dict(color=VERMILION, weight="bold") if i == reading.label else {}
        ax.text(i, -0.02, name, ha="center", va="top", fontsize=9, **look)
        if few:
            ax.text(i, p + 0.012, f"{p:.3f}", ha="center", va="bottom", fontsize=9)
    ax.set(xlim=(-0.6, n - 0.4), ylim=(0, 1.1), xticks=[], ylabel="probability")
    ax.set_xlabel(f"{'logit' if few else 'character'} (the label's is orange)", labelpad=18)
    reference_line(ax, 1 / n, f"1/{n}", side="outside")
    ax.set_title(f"loss {reading.loss:.2f} (all logits equal: ln {n} = {math.log(n):.2f})")


def draw_loss_by_scale(reading, ax):
    """The loss of the same logits multiplied by every scale, with a dot where the slider stands."""
    n = len(reading.logits)
    ax.plot(reading.scales, reading.losses, color=BLUE)
    ax.plot([reading.scale], [reading.loss], "o", color=VERMILION, markersize=9, clip_on=False)
    ax.set(xlim=(0, reading.scales[-1]), ylim=(0, up(max(*reading.losses, 3.5))), xlabel="scale", ylabel="loss")
    reference_line(ax, math.log(n), f"ln {n}", side="outside")
    ax.set_title(f"scale {reading.scale:.2g}: loss {reading.loss:.2f}")


def logit_explorer(*, how_many=4, logits=(0.0, 0.0, 5.0, 0.0), label=2, scale=1.0, seed=SEED):
    """Turn logits, their scale and the label: the probabilities and the loss. how_many: 4 on sliders, or 27 drawn."""
    says = "What the network says for class {}."
    four = [slider(f"logit {i}", says.format(i), z, -10, 10, 0.1) for i, z in enumerate(logits)]
    controls = many, _, labels, seeds = [
        choice("how many", "Four by hand, or 27 at random, one per character.", how_many, options=[4, 27]),
        slider("scale", "Multiplies all the logits.", scale, 0, 15, 0.1),
        slider("label", "The right answer, counted from 0.", label, 0, how_many - 1, 1),
        seed_control(seed),
    ]

    widgets.dlink((many, "value"), (labels, "max"), lambda n: n - 1)
    widgets.dlink((many, "value"), (seeds, "disabled"), lambda n: n == 4)
    for logit in four:
        widgets.dlink((many, "value"), (logit, "disabled"), lambda n: n == 27)

    def read(how_many, scale, label, seed, **z):
        return read_logits([*z.values()] if how_many == 4 else None, min(label, how_many - 1), scale=scale, seed=seed)

    alt = "Bars of softmax probabilities, the label's in orange, and the loss against the scale of the logits."
    margins = {"right": 0.955, "wspace": 0.24}
    return Panel(read, [draw_probabilities, draw_loss_by_scale], [*controls, *four], alt=alt, margins=margins)
