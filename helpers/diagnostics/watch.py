"""Watch a training: the statistics of its own forward and backward passes, and what its steps really change."""

import io
import re
import time
from statistics import median

import torch
from matplotlib.figure import Figure
from torch import nn

from .hooks import Watcher
from .networks import Network
from .pictures import plot_training
from .rows import Diagnosis, layer_rows, parameter_rows
from .statistics import layer_statistics, tensor_statistics

__all__ = ["watch"]

NUMBER = re.compile(r"[-+]?\d(?:[\d.,]*\d)?(?:e[-+]?\d+)?%?")
LIVE_SHARE = 0.1  # of the wall time, at most, for drawing while it trains


class watch:
    """``with watch(model, optimizer, every=10) as seen:`` around your own training loop.

    At every k-th step of the optimizer the statistics (no histograms) of the forward and backward pass that belong
    to it are kept, and by how much each parameter really changed. An update rule of plain tensors calls
    ``seen.step()`` after each update. Of several forward passes in a step the last one with gradients counts.

    records: a list of (step, Diagnosis), kept whatever happens. warnings: what turned unhealthy, and when.
    plot(): the four pictures by step. live=True draws them in Jupyter while it trains, in a tenth of the time.
    """

    def __init__(self, model, optimizer=None, *, every=10, live=False):
        if every < 1:
            raise ValueError(f"every is {every}: give 1 to record every step, 10 for every tenth")
        if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
            raise ValueError("a compiled model can't be watched: watch the model before torch.compile, or use diagnose")
        if optimizer is not None and not hasattr(optimizer, "register_step_post_hook"):
            raise ValueError(
                f"optimizer is a {type(optimizer).__name__}: give a torch.optim.Optimizer, or none and step()"
            )
        self.model, self.optimizer, self.every = model, optimizer, every
        self.steps, self._kept = 0, []
        self.live = _Live(self) if live else None
        self.watching, self.handles = None, []

    def __enter__(self):
        if self.watching:
            raise RuntimeError("this watch is on already: make a second one for a loop inside the loop")
        self.network = Network(self.model)
        if self.optimizer is not None:
            self.handles = [
                self.optimizer.register_step_pre_hook(lambda *_: self._before_step()),
                self.optimizer.register_step_post_hook(lambda *_: self.step()),
            ]
        if self.steps % self.every == 0:
            self._start()
        return self

    def __exit__(self, kind, error, traceback):
        self._stop()
        self.watching = None
        for handle in self.handles:
            handle.remove()
        if self.live and self._kept:
            self.live.draw()

    def step(self):
        """A step is done: called after every update, by the optimizer if there is one, else by you."""
        if self.watching:
            self._stop()
            self._record()
        self.steps += 1
        if self.steps % self.every == 0:
            self._start()

    @property
    def records(self):
        """(step, Diagnosis) of every step that was recorded."""
        for i, (step, *kept) in enumerate(self._kept):
            if len(kept) > 1:  # made when first asked for: the training need not wait for it
                seen, rows = kept
                self._kept[i] = step, Diagnosis(*layer_rows(seen), rows)
        return list(self._kept)

    @property
    def warnings(self):
        """What turned unhealthy, and when, a sentence each; "50% → 60%" is what it was at first and at last."""
        said = {}
        for step, diagnosis in self.records:
            for warning in diagnosis.warnings:
                said.setdefault(_kind(warning), []).append((step, warning))
        if not self.records:
            return ["no step was recorded: give the optimizer, or call step() after each update"]
        last = self.records[-1][0]
        # A network that has learned moves less: a rate is too low from the start, or not at all.
        first = self.records[0][0]
        said = [hits for hits in said.values() if "rate is probably too low" not in hits[0][1] or hits[0][0] == first]
        return [f"{_when([step for step, _ in hits], last)}: {_merged(hits[0][1], hits[-1][1])}" for hits in said]

    def plot(self):
        """The four pictures by step: activations, gradients, the weights' grad:data and update:data."""
        if not self.records:
            raise ValueError(self.warnings[0])
        return plot_training(self.records)

    def _start(self):
        """Be ready for the forward pass of a step that is recorded."""
        self.watching = _Pass(self.network)
        self.before = {} if self.optimizer is not None else self._values(self.network.held_leaves())
        self.watching.__enter__()

    def _stop(self):
        if self.watching and self.watching.is_on:
            self.watching.__exit__(None, None, None)

    def _before_step(self):
        if self.watching:
            self._stop()
            self.before = self._values(self._parameters().values())

    def _values(self, parameters):
        return {id(p): (p.detach().clone(), p.grad) for p in parameters}

    def _parameters(self):
        found, uses = self.network.parameters, self.watching.functions.uses
        if found is None:
            found = self.network.parameters_found(uses, self.watching.functions.leaves_used())
        return found

    def _record(self):
        seen, parameters = self.watching.seen, self._parameters()
        known = [(p, *self.before.get(id(p), (p.detach(), None))) for p in parameters.values()]
        gradients = [p.grad if self.optimizer is None else gradient for p, _, gradient in known]
        changes = [None if g is None else p.detach() - old for (p, old, _), g in zip(known, gradients, strict=True)]
        values = [old for _, old, _ in known]
        uses, self.watching = self.watching.functions.uses, None
        rows = parameter_rows(self.network, uses, parameters, values, gradients, changes, self.optimizer, None, False)
        self._kept.append((self.steps, seen, rows))
        if self.live:
            self.live.draw_if_cheap()


class _Pass(Watcher):
    """The last forward pass with gradients, and its backward pass."""

    def __init__(self, network):
        super().__init__(network, self._see)

    def __enter__(self):
        super().__enter__()
        root = self.network.root
        if isinstance(root, nn.Module) and not self.network.own_call(root):
            # Its forward pass alone is looked at, so that no mode of the loop's own gets between.
            self.listen(False)
            self.handles.append(root.register_forward_pre_hook(lambda *_: self._begin(), prepend=True))
            self.handles.append(root.register_forward_hook(lambda *_: self.listen(False), always_call=True))
        return self

    def _begin(self):
        self.listen(torch.is_grad_enabled())
        if torch.is_grad_enabled():
            self.restart()

    @property
    def rows_wanted(self):
        return torch.is_grad_enabled()  # else it is an evaluation

    @rows_wanted.setter
    def rows_wanted(self, wanted):
        pass

    def _see(self, seen, tensor):
        seen.readings = layer_statistics(tensor, seen.bounds, seen.unit, False)
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: setattr(seen, "gradient", tensor_statistics(gradient, False)))


class _Live:
    """The pictures in Jupyter, drawn anew as often as a tenth of the time allows."""

    def __init__(self, seen):
        try:
            from IPython.display import Image, display
        except ImportError as error:
            raise ImportError("live=True draws in Jupyter: install ipython, or leave live out") from error
        self.seen, self.display, self.image, self.handle = seen, display, Image, None
        self.began, self.spent, self.costs = time.perf_counter(), 0.0, []

    def draw_if_cheap(self):
        elapsed = time.perf_counter() - self.began
        if self.spent + (median(self.costs[-3:]) if self.costs else 0.5) <= LIVE_SHARE * elapsed:
            self.draw()

    def draw(self):
        start, pixels = time.perf_counter(), io.BytesIO()
        fig = Figure(figsize=(10, 13))  # a constrained layout would take twice the time
        fig.subplots_adjust(left=0.08, right=0.72, bottom=0.05, top=0.98, hspace=0.12)
        plot_training(self.seen.records, fig).savefig(pixels, dpi=60)
        picture = self.image(pixels.getvalue())
        if self.handle is None:
            self.handle = self.display(picture, display_id=True)
        else:
            self.handle.update(picture)
        self.costs.append(time.perf_counter() - start)
        self.spent += self.costs[-1]


def _kind(warning):
    """A warning without its numbers, but those of a layer's name."""
    label, colon, rest = warning.partition(": ")
    if not re.fullmatch(r"\S+( \(.*\))?", label):
        label, rest = "", warning
    return label + colon + NUMBER.sub("", rest)


def _merged(first, last):
    """The first of two sentences of one kind, with those numbers of the last that are others."""
    numbers = iter(NUMBER.findall(last))

    def both(match):
        old, new = match[0], next(numbers, match[0])
        return old if old == new else f"{old} → {new}"

    return NUMBER.sub(both, first)


def _when(steps, last):
    if len(steps) == 1:
        return f"step {steps[0]:,}"
    return f"from step {steps[0]:,} on" if steps[-1] == last else f"steps {steps[0]:,} to {steps[-1]:,}"
