"""Chapter 08's game: a network at random, what its layers put out, four diagnoses to choose from, a score."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from helpers.diagnostics import diagnose
from helpers.models import deep_mlp, seeded
from helpers.plots import BLUE, VERMILION, layer_colors
from helpers.train import train
from helpers.widgets.panel import Panel, as_lines, button, default_splits, dice, slider

EXAMPLES, BINS, WIDTH = 200, 60, 2.0  # outputs are shown from -2 to 2; a tanh ends at 1


@dataclass
class PatientReading:
    """The outputs (examples, units) of five layers, whether they are ReLUs, four diagnoses, and which one is right."""

    outputs: list
    relu: bool = False
    options: list = ()
    condition: str = ""
    why: str = ""  # what shows it
    says: str = ""  # diagnose's first warning


# What may be wrong: how it is seen, and the arguments of _make.
RELU = dict(nonlinearity="relu")
CONDITIONS = {
    "nothing is wrong": ("Five layers alike: wide, with few outputs in the flat part.", {}),
    "the gain is too low": ("Each layer is narrower than the one before it.", dict(gain=0.5)),
    "the learning rate was too high": ("In all layers nearly every unit says all or nothing.", dict(steps=50, lr=10)),
    "it has become NaN": ("A layer that holds NaN has no histogram.", dict(steps=50, lr=10, gain=3, **RELU)),
    "dead ReLUs": ("One-sided outputs are a ReLU's; bars: units that are always 0.", dict(steps=2, lr=2, gain=2**0.5, **RELU)),
    "one layer: biases shifted": ("One layer leans to a side.", dict(change=lambda layer: layer.bias.add_(1))),
    "one layer: weights too large": ("One layer is pressed to the ends.", dict(change=lambda layer: layer.weight.mul_(3))),
    "one layer: weights all zero": ("From there on, each output is 0.", dict(change=lambda layer: layer.weight.zero_())),
}  # fmt: skip


def _make(generator, data, *, steps=0, lr=0.1, change=None, **options):
    """A network, trained for a few steps; change: what happens to layer 2, 3 or 4."""
    model = deep_mlp(generator=generator, **options)
    train(model, *data, steps=steps, lr=lr, generator=generator, progress=False)
    if change:
        with torch.no_grad():
            change(model.get_submodule(f"linear{torch.randint(2, 5, (), generator=generator)}"))
    return model


def read_patient(*, patient=1, splits=None):
    """The patient of a number: its network has one of CONDITIONS; three other diagnoses stand beside it."""
    (X, Y), generator = (splits or default_splits()).train, seeded(patient)
    names = [list(CONDITIONS)[i] for i in torch.randperm(len(CONDITIONS), generator=generator)[:4]]
    model = _make(generator, (X, Y), **CONDITIONS[names[0]][1])
    ix = torch.randint(0, len(X), (EXAMPLES,), generator=generator)
    outputs, x = [], X[ix]
    for name, layer in model.named_children():
        x = layer(x).detach()
        outputs += [x.numpy()] if name.startswith(("tanh", "relu")) else []
    says = next(iter(diagnose(model, X[ix], Y[ix], histograms=False).warnings), "nothing")
    options = [names[i] for i in torch.randperm(4, generator=generator)]
    return PatientReading(outputs, hasattr(model, "relu1"), options, names[0], CONDITIONS[names[0]][0], says)


def draw_outputs(reading, ax):
    """A histogram per layer, the first on top, each as high as fits. Values beyond ±2 count in the outermost bins."""
    for k, (outputs, color) in enumerate(zip(reading.outputs, layer_colors(5), strict=True)):
        if not np.isfinite(outputs).all():
            ax.text(0, 0.3 - k, "nothing that could be drawn", ha="center", fontsize=9.5)
            continue
        counts, edges = np.histogram(outputs.clip(-WIDTH, WIDTH), BINS, (-WIDTH, WIDTH))
        tallest = counts[edges[:-1] > 1e-9].max() if reading.relu else counts.max()  # a ReLU's bar at 0 is cut off
        heights = (0.85 * counts / max(tallest, 1)).clip(max=0.92)
        ax.fill(np.repeat(edges, 2), np.r_[0, np.repeat(heights, 2), 0] - k, color=color, alpha=0.85, linewidth=0)
    _by_layer(ax, "output", (-WIDTH, WIDTH), "what each layer puts out (beyond ±2: at the edge)")


def draw_flat_shares(reading, ax):
    """Per layer the share in the flat part of the nonlinearity, as a bar, and the std, as a dot."""
    for k, outputs in enumerate(reading.outputs):
        if np.isfinite(outputs).all():
            flat = (outputs == 0).all(0) if reading.relu else abs(outputs) > 0.97
            ax.barh(0.25 - k, flat.mean(), 0.3, color=VERMILION)
            ax.plot(min(outputs.std(), 1.5), 0.6 - k, "o", color=BLUE, markersize=7, clip_on=False)
    what = "units that are always 0" if reading.relu else "share beyond ±0.97"
    _by_layer(ax, "share (bar), std (dot; 1.5 stands for more)", (0, 1.5), f"bar: {what}; dot: std")


def _by_layer(ax, xlabel, xlim, title):
    ax.set(xlim=xlim, ylim=(-4.1, 1.05), xlabel=xlabel, title=title)
    ax.set_yticks([0.4 - k for k in range(5)], [f"layer {k}" for k in range(1, 6)])


class Patients(Panel):
    """The game: of four buttons one is right, the first answer to a patient counts. It reads PatientReadings."""

    def __init__(self, read, pictures, patient, alt, **shown):
        self.right, self.seen, self.judged, self.verdict = 0, 0, None, ()  # judged: the reading that was answered
        self.answers = [button("?", "Your diagnosis.", partial(self.answer, i)) for i in range(4)]
        # Only the patient at which a drag ends is made, none of those on the way.
        number = slider("patient", "Each number is another patient.", patient, 1, 999, 1, continuous_update=False)
        more = dice("next patient", "A patient at random.", number)
        self.next = more.click
        super().__init__(read, pictures, [number], alt=alt, buttons=[*self.answers, more], **shown)

    def redraw(self):
        super().redraw()
        for made, option in zip(self.answers, self.reading.options, strict=True):
            made.description = option

    def says(self):
        return self.verdict if self.judged is self.reading else ["What is the matter with it? Choose one of the four."]

    def answer(self, i):
        """Judge the diagnosis on button i."""
        with self.errors_shown():
            given, truth = self.reading.options[i], self.reading.condition
            if self.judged is not self.reading:
                self.judged, self.seen, self.right = self.reading, self.seen + 1, self.right + (given == truth)
            verdict = f"Right: {truth}." if given == truth else f"You say: {given}. It is another one: {truth}."
            self.verdict = [f"{verdict} {self.reading.why}", f"diagnose says: {self.reading.says}"]
            self.verdict += [f"Score: {self.right} of {self.seen}."]
            self.message.value = as_lines(self.says())


def patients(*, patient=1, splits=None):
    """A network at random with one of eight conditions, its layers' outputs, four diagnoses, and a score."""
    alt = "The histograms of five layers' outputs, one above the other; beside them their std and flat share."
    return Patients(partial(read_patient, splits=splits), [draw_outputs, draw_flat_shares], patient, alt)
