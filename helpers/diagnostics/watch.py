"""Watch a training: the statistics of its own forward and backward passes, and what its steps really change."""

import re
import time
from statistics import median

import torch
from torch import nn

from .hooks import Watcher
from .networks import Network
from .pictures import plot_training
from .rows import Diagnosis, layer_rows, parameter_rows
from .statistics import layer_statistics, tensor_statistics

__all__ = ["watch"]

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
            raise ValueError(f"optimizer is a {type(optimizer).__name__}: give a torch.optim.Optimizer, or none and step()")
        self.model, self.optimizer, self.every = model, optimizer, every
        self.records, self.steps = [], 0
        self.live = _Live(self) if live else None
        self.watcher, self.handles = None, []

    def __enter__(self):
        if self.handles or self.watcher:
            raise RuntimeError("this watch is on already: make a second one for a loop inside the loop")
        self.network = Network(self.model)
        if self.optimizer is not None:
            self.handles = [
                self.optimizer.register_step_pre_hook(lambda *_: self._before_step()),
                self.optimizer.register_step_post_hook(lambda *_: self.step()),
            ]
        self._start()
        return self

    def __exit__(self, kind, error, traceback):
        self._stop()
        for handle in self.handles:
            handle.remove()
        self.handles = []
        if self.live and self.records:
            self.live.draw()

    def step(self):
        """A step is done: called after every update, by the optimizer if there is one, else by you."""
        if self.watcher:
            self._record()
            self._stop()
        self.steps += 1
        if self.steps % self.every == 0:
            self._start()

    @property
    def warnings(self):
        """What turned unhealthy, a sentence each: the first step that said so, and the last if there were more."""
        said = {}
        for step, diagnosis in self.records:
            for warning in diagnosis.warnings:
                said.setdefault(re.sub(r"[-+.\d]+(e[-+]\d+)?%?", "", warning), []).append((step, warning))
        if not self.records:
            return ["no step was recorded: give the optimizer, or call step() after each update"]
        last = self.records[-1][0]
        return [f"{_when([step for step, _ in hits], last)}: {hits[0][1]}" for hits in said.values()]

    def plot(self):
        """The four pictures by step: activations, gradients, the weights' grad:data and update:data."""
        if not self.records:
            raise ValueError(self.warnings[0])
        return plot_training(self.records)

    def _start(self):
        """Be ready for the forward pass of a step that is recorded."""
        self.before = None
        if self.optimizer is None:
            tensors = self._parameters().values()
            self.before = {id(p): (p.detach().clone(), p.requires_grad) for p in tensors}
        self.watcher = _Pass(self.network)
        self.watcher.__enter__()

    def _stop(self):
        if self.watcher:
            self.watcher.__exit__(None, None, None)
        self.watcher = None

    def _parameters(self):
        found = self.network.parameters
        if found is None:
            uses = self.watcher.functions.uses if self.watcher else {}
            held = {i: t for i, (_, t) in self.network.tensors.items() if t.requires_grad and t.is_leaf}
            found = self.network.parameters_found(uses, held)
        return found

    def _before_step(self):
        if self.watcher:
            self.watcher.pause()
            self.before = {id(p): (p.detach().clone(), p.grad) for p in self._parameters().values()}

    def _record(self):
        self.watcher.pause()
        parameters = self._parameters()
        gradients = [self._gradient(p) for p in parameters.values()]
        changes = [
            p.detach() - self.before[id(p)][0] if g is not None and id(p) in self.before else None
            for p, g in zip(parameters.values(), gradients, strict=True)
        ]
        uses = self.watcher.functions.uses
        rows = parameter_rows(self.network, uses, parameters, gradients, changes, self.optimizer, None, False)
        for seen in self.watcher.seen:
            seen.gradient = seen.gradient or {}
        activations, gradients = layer_rows(self.watcher.seen)
        self.records.append((self.steps, Diagnosis(activations, gradients, rows)))
        if self.live:
            self.live.draw_if_cheap()

    def _gradient(self, p):
        if self.optimizer is not None:
            return self.before[id(p)][1] if id(p) in self.before else p.grad
        return p.grad


class _Pass(Watcher):
    """The last forward pass with gradients, and its backward pass."""

    def __init__(self, network):
        super().__init__(network, self._see)

    def __enter__(self):
        super().__enter__()
        root = self.network.root
        if isinstance(root, nn.Module) and not self.network.own_call(root):
            self.handles.append(root.register_forward_pre_hook(lambda *_: self._begin(), prepend=True))
        return self

    def _begin(self):
        if torch.is_grad_enabled():
            self.restart()

    def pause(self):
        self.rows_wanted = False

    def _see(self, seen, tensor):
        if not tensor.requires_grad and not torch.is_grad_enabled():
            self.seen.remove(seen)  # an evaluation
            return
        seen.readings = layer_statistics(tensor, seen.bounds, seen.unit, False)
        if tensor.requires_grad:
            tensor.register_hook(lambda g: setattr(seen, "gradient", tensor_statistics(g, False)))


class _Live:
    """The pictures in Jupyter, drawn anew as often as a tenth of the time allows."""

    def __init__(self, seen):
        try:
            from IPython.display import display
        except ImportError as error:
            raise ImportError("live=True draws in Jupyter: install ipython, or leave live out") from error
        self.seen, self.display, self.handle = seen, display, None
        self.began, self.spent, self.costs = time.perf_counter(), 0.0, []

    def draw_if_cheap(self):
        elapsed = time.perf_counter() - self.began
        if self.spent + (median(self.costs[-3:]) if self.costs else 0.3) <= LIVE_SHARE * elapsed:
            self.draw()

    def draw(self):
        from matplotlib.figure import Figure

        start = time.perf_counter()
        fig = plot_training(self.seen.records, Figure(figsize=(10, 13), layout="constrained", dpi=60))
        if self.handle is None:
            self.handle = self.display(fig, display_id=True)
        else:
            self.handle.update(fig)
        self.costs.append(time.perf_counter() - start)
        self.spent += self.costs[-1]


def _when(steps, last):
    if len(steps) == 1:
        return f"step {steps[0]:,}"
    return f"from step {steps[0]:,} on" if steps[-1] == last else f"steps {steps[0]:,} to {steps[-1]:,}"
