"""Chapter 05: what BatchNorm makes of a batch when one number moves, and its running statistics."""

import math
from types import SimpleNamespace

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, IdentityTransform, blended_transform_factory

from helpers.layers import BatchNorm1d
from helpers.models import seeded
from helpers.plots import BLUE, GREEN, VERMILION, reference_line
from helpers.widgets.board import legend
from helpers.widgets.panel import Panel, log_slider, slider

TRUE_MEAN, TRUE_STD = 1.0, 4.0  # the distribution of the batches whose running statistics are shown


@torch.no_grad()
def read_batch_norm(*, moved_number=10.0, batch_size=5, gamma=1.0, beta=0.0, momentum=0.1, batches_seen=50):
    """x, a batch of one feature whose first number is moved, and out, what BatchNorm makes of it in train mode.

    running_mean, running_std: those of a second layer, after each of `batches_seen` batches of N(1, 4²).
    """
    generator = seeded()
    others = TRUE_STD * torch.randn(32, generator=generator) + TRUE_MEAN
    others[:4] = torch.tensor([-4.0, -2.0, 1.0, 5.0])  # five by default, as in the lecture's own widget
    x = torch.cat([torch.tensor([moved_number]), others[: batch_size - 1]])
    layer, watched = BatchNorm1d(1), BatchNorm1d(1, momentum=momentum)
    layer.gamma.fill_(gamma)
    layer.beta.fill_(beta)
    means, variances = [0.0], [1.0]
    for _ in range(batches_seen):
        watched(TRUE_STD * torch.randn(batch_size, 1, generator=generator) + TRUE_MEAN)
        means.append(watched.running_mean.item())
        variances.append(watched.running_var.item())
    reading = SimpleNamespace(running_mean=np.array(means), running_std=np.sqrt(variances))
    reading.x, reading.out = x.numpy(), layer(x[:, None])[:, 0].numpy()
    return reading


class _Joined(LineCollection):
    """Lines from inputs, above, to outputs, below; placed when drawn, because the limits may change until then."""

    def __init__(self, x, out, inputs, **style):
        super().__init__([], transform=IdentityTransform(), **style)
        self.ends, self.inputs = (np.stack([x, np.ones_like(x)], 1), np.stack([out, np.zeros_like(out)], 1)), inputs

    def draw(self, renderer):
        above, below = self.inputs.transform(self.ends[0]), self.axes.transData.transform(self.ends[1])
        self.set_segments(np.stack([above, below], 1))
        super().draw(renderer)


def draw_normalised(reading, ax):
    """A batch of one feature (above) and what BatchNorm makes of it (below), with both Gaussians."""
    x, out = reading.x, reading.out
    limit = 3.6 * max(1, math.ceil(abs(out).max() / 3.6))
    # Outputs are read on the lower axis, inputs on the upper one, which goes from -36 to 36.
    inputs = blended_transform_factory(Affine2D().translate(36, 0).scale(1 / 72, 1) + ax.transAxes, ax.transData)
    z = np.linspace(-4, 4, 120)
    bell = 0.5 * np.exp(-(z**2) / 2)
    ax.fill_between(z * x.std() + x.mean(), 1, 1 + bell, color=BLUE, alpha=0.2, transform=inputs)
    ax.fill_between(z * out.std() + out.mean(), -bell, 0, color=GREEN, alpha=0.2)
    for part, color, size in (slice(1, None), "0.35", 4.5), (slice(1), VERMILION, 7):  # the moved one on top
        ax.add_collection(_Joined(x[part], out[part], inputs, color=color, linewidth=1.1, zorder=2), autolim=False)
        ax.plot(x[part], np.ones_like(x[part]), "o", color=color, markersize=size, transform=inputs)
        ax.plot(out[part], np.zeros_like(x[part]), "o", color=color, markersize=size)
    ax.set(xlim=(-limit, limit), ylim=(-0.8, 1.8), yticks=[], xlabel="outputs (train mode)")
    if not ax.child_axes:
        functions = (lambda out: out / ax.get_xlim()[1] * 36), (lambda x: x / 36 * ax.get_xlim()[1])
        ax.secondary_xaxis("top", functions=functions).set_xlabel("inputs")
    for y, va, name, values in (0.975, "top", "inputs", x), (0.025, "bottom", "outputs", out):
        text = f"{name}: {_mean_and_std(values.mean(), values.std())}"
        ax.text(0.015, y, text, transform=ax.transAxes, fontsize=10, va=va)


def _mean_and_std(*values):
    mean, std = (f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−") for value in values)  # no −0.00
    return f"mean {mean}, std {std}"


def draw_running_statistics(reading, ax):
    """What the running mean and std have become after each batch, against the true ones."""
    mean, std = reading.running_mean, reading.running_std
    for name, values, true, color in ("mean", mean, TRUE_MEAN, BLUE), ("std", std, TRUE_STD, GREEN):
        ax.plot(values, color=color, label=f"running {name}")
        reference_line(ax, true, f"true\n{name}", side="outside")
    batches = len(mean) - 1
    ax.set(xlim=(0, batches), ylim=(-4, 8), xlabel="batches seen")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(ax, loc="lower right", fontsize=9)
    after = f"after {batches} batch{'es' if batches > 1 else ''} of {len(reading.x)}"
    ax.set_title(f"{after}: {_mean_and_std(mean[-1], std[-1])}")


def batch_norm_explorer(*, moved=10.0, gamma=1.0, beta=0.0, batch_size=5, momentum=0.1, batches=50):
    """Move one number of a batch, as in the lecture's bonus widget; beside it, running statistics of many batches."""
    controls = [
        slider("moved number", "The orange one among the inputs.", moved, -30, 30, 0.5),
        slider("batch size", "How many numbers are normalised together.", batch_size, 2, 32, 1),
        slider("gamma", "Scales what is normalised.", gamma, -2, 3, 0.1),
        slider("beta", "Shifts it afterwards.", beta, -3, 3, 0.1),
        log_slider("momentum", "The weight of the newest batch in the running statistics.", momentum, -3, 0, 3),
        slider("batches seen", "How many the running statistics have seen.", batches, 1, 200, 1),
    ]
    what = f"{batch_size} numbers joined to their normalised values, both as Gaussians"
    alt = f"{what}; and the running statistics by batch, at momentum {momentum:g}."
    margins = {"left": 0.02, "top": 0.84, "right": 0.945}
    return Panel(read_batch_norm, [draw_normalised, draw_running_statistics], controls, alt=alt, margins=margins)
