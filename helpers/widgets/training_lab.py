"""Train a network live: start, pause, reset, and turn the knobs while it learns."""

import math
import time
from functools import partial

import ipywidgets as widgets
import numpy as np
import torch

from helpers.layers import Linear
from helpers.models import STAGES, deep_mlp, lecture_mlp, seeded
from helpers.plots import BLUE, plot_loss, reference_line
from helpers.train import train
from helpers.widgets import network as four
from helpers.widgets.board import up
from helpers.widgets.panel import Panel, alert, button, choice, default_splits, log_slider

# name -> (a function of the generator, the gain that it is drawn at)
NETWORKS = {
    "deep": (deep_mlp, 5 / 3),
    "deep, linear": (partial(deep_mlp, nonlinearity="linear"), 5 / 3),
    "deep, batch norm": (partial(deep_mlp, gain=1, batch_norm=True), 1.0),
    **{f"one hidden layer, {stage}": (partial(lecture_mlp, stage), 1.0) for stage in STAGES},
}
STEPS = 5  # trained at a time, between looks at the buttons
SECONDS = 0.25  # of training at every tick of the clock
MOST_RATIOS = 400  # points shown per weight, evenly spaced: more could not be seen


class TrainingRun:
    """One of NETWORKS and its training so far, for a panel or any cell; learning_rate may change at any time."""

    def __init__(self, network="deep", *, learning_rate=0.1, gain=None, splits=None):
        if network not in NETWORKS:
            raise ValueError(f"unknown network {network!r}: choose one of {', '.join(NETWORKS)}")
        self.network, self.learning_rate, self.splits = network, learning_rate, splits or default_splits()
        self.reset(gain)

    def reset(self, gain=None):
        """Back to step 0: the same weights, the same minibatches to come; gain None means the network's own."""
        build, self.gain = NETWORKS[self.network]
        self.generator, self.losses, self.ratios = seeded(), [], {}
        self.model = build(generator=self.generator)
        self.set_gain(self.gain if gain is None else gain)

    @torch.no_grad()
    def set_gain(self, gain):
        """Multiply the hidden weights (and with BatchNorm the last ones) as if they had been drawn at this gain."""
        linears = [layer for layer in self.model if isinstance(layer, Linear)]
        for layer in linears if self.network == "deep, batch norm" else linears[:-1]:
            layer.weight *= gain / self.gain
        self.gain = gain

    @property
    def failed(self):  # whether the loss is no longer a finite number
        return bool(self.losses) and not math.isfinite(self.losses[-1])

    def advance(self, steps=STEPS):
        """Train this many steps; keep all their losses, and the update:data ratios of the first one."""
        options = dict(generator=self.generator, record_ratios_every=steps, progress=False)
        history = train(self.model, *self.splits.train, steps=steps, lr=self.learning_rate, **options)
        for name, ratio in history.update_ratio.items():
            self.ratios.setdefault(name, []).append(ratio[0].item())
        self.losses += history.loss.tolist()

    def read(self):
        """What the pictures show now: a network_reading on the first 200 training examples."""
        recent = self.losses[-200:]
        said = f"loss {np.mean(recent):.3f}, the mean of the last {len(recent)}" if recent else "not trained yet"
        said = f"the loss is {self.losses[-1]}" if self.failed else said
        every = max(1, -(-len(next(iter(self.ratios.values()), ())) // MOST_RATIOS))
        some = (part[: four.EXAMPLES] for part in self.splits.train)
        reading = four.network_reading(self.model, *some, label="", lr=self.learning_rate)  # the headline has the step
        reading.losses, reading.headline = list(self.losses), f"step {len(self.losses):,}: {said}"
        reading.update_ratio = {name: values[::every] for name, values in self.ratios.items()}
        reading.ratios_every = STEPS * every
        return reading


def draw_loss(reading, ax):
    """The minibatch losses so far, and their running mean; in the title the step and the recent loss."""
    losses = np.array(reading.losses)
    if len(losses):
        plot_loss(losses, ax=ax, color=BLUE)
    seen = losses[-20_000:][np.isfinite(losses[-20_000:])]
    top = np.quantile(seen, 0.98) * 1.05 if len(seen) else 0
    # A loss above 75 has blown up; the picture then shows where it left.
    ax.set(xlim=(0, up(max(len(losses), 100))), ylim=(1.8, 3.6 if top <= 3.6 else min(up(top), 75)))
    ax.set(xlabel="step", ylabel="minibatch loss", title=reading.headline)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    reference_line(ax, math.log(27), "ln 27")


PICTURES = [draw_loss, four.draw_update_ratios_by_step, four.draw_activations, four.draw_gradients]
PICTURES += [four.draw_weight_gradients]


class TrainingLab(Panel):
    """A TrainingRun and its five pictures: at every tick of a clock it trains for a moment, and is drawn anew."""

    def __init__(self, run):
        self.run = run
        self.clock = widgets.Play(max=10**9, interval=50, layout={"display": "none"})  # it ticks in the browser
        self.clock.observe(self.tick, "value")
        start = button("start", "Train on, in the background.", lambda: self.clock.set_trait("playing", True))
        pause = button("pause", "Stop after the present steps.", lambda: self.clock.set_trait("playing", False))
        widgets.dlink((self.clock, "playing"), (start, "disabled"))
        widgets.dlink((self.clock, "playing"), (pause, "disabled"), lambda playing: not playing)
        reset = button("reset", "Back to step 0, the same weights.", self.reset)
        note = widgets.HTML("Jupyter's own stop button does not reach this training: press pause.")
        controls = [
            choice("network", "One of the course's; a change begins at step 0.", run.network, options=list(NETWORKS)),
            log_slider("learning rate", "Takes effect at the next step.", run.learning_rate, -4, 1, 2),
            four.gain_slider(run.gain, "Scales the hidden weights, at once."),
        ]
        margins = dict(left=0.06, right=0.97, bottom=0.085, top=0.95, wspace=0.62, hspace=0.31)
        layout = dict(figsize=(11, 6.4), margins=margins, mosaic="LLLUUU;AAGGWW")
        alt = "The loss and update:data by step, and histograms of activations and gradients, so far."
        buttons = [self.clock, start, pause, reset, note]
        super().__init__(self._read, PICTURES, controls, alt=alt, buttons=buttons, **layout)

    def _read(self, network, learning_rate, init_gain):
        """Take over what the controls say; the run goes on from where it is."""
        run = self.run
        run.learning_rate = learning_rate
        if network != run.network:
            self.clock.playing = False
            run.network = network
            run.reset()
            # The knob follows; its own callback then finds nothing left to do.
            self.controls["init gain"].value = run.gain
        elif not math.isclose(init_gain, run.gain):
            run.set_gain(init_gain)
        return run.read()

    def tick(self, _):
        """Train for a moment, and show it; a failure stops the clock."""
        if not self.clock.playing:
            return  # a tick that was on its way
        with self.errors_shown():
            began = time.perf_counter()
            while time.perf_counter() - began < SECONDS and not self.run.failed:
                self.run.advance()
            self.reading = self.run.read()
            self.redraw()
            if not self.run.failed:
                return
        self.clock.playing = False

    def reset(self):
        self.clock.playing = False
        with self.errors_shown():
            self.run.reset(self.controls["init gain"].value)
            self.update()

    def redraw(self):
        super().redraw()
        if self.run.failed:
            step = next(i for i, loss in enumerate(self.run.losses) if not math.isfinite(loss))
            what = f"At step {step:,} the loss is no longer a finite number: the updates grew too large for the weights"
            setting = f"learning rate {self.run.learning_rate:.2g} and gain {self.run.gain:.2f}"
            self.message.value = alert(f"{what}, at {setting}. Lower one, then press reset.") + self.message.value


def training_lab(network="deep", *, learning_rate=0.1, gain=None, splits=None):
    """Train one of NETWORKS live: start, pause, reset with the same weights; learning rate and gain on the fly."""
    return TrainingLab(TrainingRun(network, learning_rate=learning_rate, gain=gain, splits=splits))
