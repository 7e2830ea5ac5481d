"""A network trained live: start, pause, reset, with the knobs turned while it learns."""

import asyncio
import math
import time
from functools import partial

import numpy as np
import torch

from helpers.layers import Linear
from helpers.models import SEED, STAGES, deep_mlp, lecture_mlp
from helpers.plots import BLUE, plot_loss, reference_line
from helpers.train import train
from helpers.widgets import network_pictures as pictures
from helpers.widgets.board import up
from helpers.widgets.network import EXAMPLES, gain_slider, network_reading
from helpers.widgets.panel import Panel, alert, as_lines, button, choice, default_splits, log_slider

# name -> (a function of the generator, the gain that it is drawn at)
NETWORKS = {
    "deep": (deep_mlp, 5 / 3),
    "deep, linear": (partial(deep_mlp, nonlinearity="linear"), 5 / 3),
    "deep, batch norm": (partial(deep_mlp, gain=1, batch_norm=True), 1.0),
    **{f"one hidden layer, {stage}": (partial(lecture_mlp, stage), 1.0) for stage in STAGES},
}
MARGINS = dict(left=0.06, right=0.97, bottom=0.085, top=0.95, wspace=0.62, hspace=0.31)
STEPS = 5  # trained at a time, between looks at the buttons
SECONDS_A_CHUNK, SECONDS_A_PICTURE = 0.05, 0.3
MOST_RATIOS = 400  # shown of a weight, evenly spaced: no page shows more


class TrainingRun:
    """A network and its training so far; ordinary Python that a panel, or a cell, can drive.

    network: one of NETWORKS; gain scales its hidden weights, also while it trains; lr may change at any time.
    """

    def __init__(self, network="deep", *, learning_rate=0.1, gain=None, splits=None, seed=SEED):
        if network not in NETWORKS:
            raise ValueError(f"unknown network {network!r}: choose one of {', '.join(NETWORKS)}")
        self.network, self.learning_rate, self.seed = network, learning_rate, seed
        self.splits = splits or default_splits()
        self.reset(gain)

    def reset(self, gain=None):
        """Back to step 0: the same weights, the same minibatches to come; gain None means the network's own."""
        build, own_gain = NETWORKS[self.network]
        self.generator = torch.Generator().manual_seed(self.seed)
        self.model = build(generator=self.generator)
        self.gain, self.losses, self.ratios = own_gain, [], {}
        self.set_gain(own_gain if gain is None else gain)

    @torch.no_grad()
    def set_gain(self, gain):
        """Multiply the hidden weights (and with BatchNorm the last ones) as if they had been drawn at this gain."""
        linears = [layer for layer in self.model if isinstance(layer, Linear)]
        has_batch_norm = self.network == "deep, batch norm"
        for layer in linears if has_batch_norm else linears[:-1]:
            layer.weight *= gain / self.gain
        self.gain = gain

    @property
    def failed(self):
        """Whether the loss is no longer a finite number."""
        return bool(self.losses) and not math.isfinite(self.losses[-1])

    def advance(self, steps=STEPS):
        """Train so many steps, and keep their losses and the update:data ratios of the first."""
        options = dict(generator=self.generator, record_ratios_every=steps, progress=False)
        history = train(self.model, *self.splits.train, steps=steps, lr=self.learning_rate, **options)
        for name, ratio in history.update_ratio.items():
            self.ratios.setdefault(name, []).append(ratio[0].item())
        self.losses += history.loss.tolist()

    def read(self):
        """What the pictures show now: a NetworkReading on the first 200 training examples."""
        said, recent = "not trained yet", self.losses[-200:]
        if recent:
            said = f"loss {sum(recent) / len(recent):.3f}, the mean of the last {len(recent)}"
        if self.failed:
            said = f"the loss is {self.losses[-1]}"
        every = max(1, -(-len(next(iter(self.ratios.values()), ())) // MOST_RATIOS))
        return network_reading(
            self.model,
            *(part[:EXAMPLES] for part in self.splits.train),
            label="",  # the headline says the step for all pictures
            lr=self.learning_rate,
            losses=list(self.losses),
            headline=f"step {len(self.losses):,}: {said}",
            update_ratio={name: values[::every] for name, values in self.ratios.items()},
            ratios_every=STEPS * every,
        )


def draw_loss(reading, ax):
    """The minibatch losses so far, and their running mean; in the title the step and the recent loss."""
    losses = np.array(reading.losses)
    if len(losses):
        plot_loss(losses, ax=ax, color=BLUE)
    seen = losses[-20_000:][np.isfinite(losses[-20_000:])]
    top = np.quantile(seen, 0.98) * 1.05 if len(seen) else 0
    # Above 75 it has blown up: where it left is what there is to see.
    ax.set(xlim=(0, up(max(len(losses), 100))), ylim=(1.8, 3.6 if top <= 3.6 else min(up(top), 75)))
    ax.set(xlabel="step", ylabel="minibatch loss", title=reading.headline)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    reference_line(ax, math.log(27), "ln 27")


PICTURES = [draw_loss, pictures.draw_update_ratios_by_step, pictures.draw_activations, pictures.draw_gradients]
PICTURES += [pictures.draw_weight_gradients]


class TrainingLab(Panel):
    """A TrainingRun and its five pictures, drawn every third of a second while it trains in the background."""

    def __init__(self, run):
        self.run, self.task = run, None
        self.start_button = button("start", "Train on, in the background.", self.start)
        self.pause_button = button("pause", "Stop after the present steps.", self.pause)
        self.pause_button.disabled = True
        reset = button("reset", "Back to step 0, the same weights.", self.reset)
        controls = [
            choice("network", "One of the course's; a change begins at step 0.", NETWORKS, run.network),
            log_slider("learning rate", "Takes effect at the next step.", run.learning_rate, -4, 1, 2),
            gain_slider(run.gain, "Scales the hidden weights, at once."),
        ]
        alt = "The loss and update:data by step, and histograms of activations and gradients, so far."
        note = "Jupyter's own stop button does not reach this training: press pause."
        layout = dict(figsize=(11, 6.4), margins=MARGINS, mosaic="LLLUUU;AAGGWW")
        buttons = [self.start_button, self.pause_button, reset]
        super().__init__(self._read, PICTURES, controls, alt=alt, buttons=buttons, note=note, **layout)

    def _read(self, network, learning_rate, init_gain):
        """Take over what the controls say; the run goes on from where it is."""
        run = self.run
        run.learning_rate = learning_rate
        if network != run.network:
            self.pause()
            run.network = network
            run.reset()
            # The knob follows; its own callback then finds nothing left to do.
            self.controls["init gain"].value = run.gain
        elif not math.isclose(init_gain, run.gain):
            run.set_gain(init_gain)
        return run.read()

    def start(self):
        if self.task is None or self.task.done():
            self._trains(asyncio.get_running_loop().create_task(self._train()))

    def pause(self):
        if self.task is not None:
            self.task.cancel()
        self._trains(None)

    def _trains(self, task):
        self.task = task
        self.start_button.disabled, self.pause_button.disabled = task is not None, task is None

    def reset(self):
        self.pause()
        with self.errors_shown():
            self.run.reset(self.controls["init gain"].value)
            self.update()

    async def _train(self):
        """Train in short chunks, and let the kernel do other things in between."""
        drawn, sound = time.perf_counter(), True
        while sound and not self.run.failed:
            sound = False
            with self.errors_shown():
                began = time.perf_counter()
                while time.perf_counter() - began < SECONDS_A_CHUNK and not self.run.failed:
                    self.run.advance()
                if self.run.failed or time.perf_counter() - drawn > SECONDS_A_PICTURE:
                    self.reading = self.run.read()
                    self.redraw()
                    drawn = time.perf_counter()
                sound = True
            await asyncio.sleep(0.005)
        self._trains(None)

    def redraw(self):
        super().redraw()
        if self.run.failed:
            step = next(i for i, loss in enumerate(self.run.losses) if not math.isfinite(loss))
            self.message.value = alert(
                f"At step {step:,} the loss is no longer a finite number: the updates grew larger than the weights "
                f"could bear, at learning rate {self.run.learning_rate:.2g} and gain {self.run.gain:.2f}. Lower the "
                "learning rate (or the gain), then press reset."
            ) + as_lines(self.says())

    def close(self):
        if not self.is_closed:
            self.pause()
        super().close()
        self.run = None


def training_lab(network="deep", *, learning_rate=0.1, gain=None, steps=0, splits=None):
    """Train one of the course's networks live: start, pause, reset with the same weights; lr and gain on the fly.

    network: one of NETWORKS, "deep" being part 2's. steps: how many are trained before it is first
    shown. The notebook stays usable meanwhile; Jupyter's stop button does not reach this training, the panel's
    own pause does. Without a widget: `TrainingRun`.
    """
    run = TrainingRun(network, learning_rate=learning_rate, gain=gain, splits=splits)
    for _ in range(0, steps, STEPS):
        run.advance()
    return TrainingLab(run)
