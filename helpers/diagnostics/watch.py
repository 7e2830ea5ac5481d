"""Watch a training: the statistics of its own forward and backward passes, and what its steps really change."""

import sys
from contextlib import contextmanager

import torch
from torch import nn

from .diagnosis import Diagnosis
from .judgements import LOSS, Look, learning
from .live import Live
from .networks import Network
from .over_time import over_time
from .passes import Pass
from .pictures import plot_training
from .rows import layer_rows, parameter_rows
from .trial import check_optimizer

ELSEWHERE = "the optimizer trains other tensors than the watched model's: if that is not meant, make both anew"


class watch:
    """``with watch(model, optimizer, every=10) as seen:`` around your own training loop.

    At every k-th step of the optimizer the statistics (no histograms) of the forward and backward pass that belong
    to it are kept, and by how much each parameter really changed. An update rule of plain tensors calls
    ``seen.step()`` after each update. Of several forward passes in a step the last one with gradients counts.

    records: a list of (step, Diagnosis), kept whatever happens. warnings: what turned unhealthy, and when.
    plot(): the four pictures by step. live=True draws them in Jupyter while it trains, in a tenth of the time.
    """

    def __init__(self, model, optimizer=None, *, every=10, live=False):
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every is {every!r}: give 1 to record every step, 10 for every tenth")
        modules = nn.Module.named_modules(model) if isinstance(model, nn.Module) else [("", model)]
        for name in [name for name, m in modules if _is_compiled(m)][:1]:
            where = f" ({name})" if name else ""
            raise ValueError(f"a compiled model{where} can't be watched: do it before torch.compile, or use diagnose")
        check_optimizer(optimizer, "_optimizer_step_post_hooks", "none and step()")
        self.model, self.optimizer, self.every = model, optimizer, every
        self.steps, self.records, self._findings, self._trainable = 0, [], [], {}
        self.live = Live(self) if live else None
        self.watching, self.handles = None, []

    def __enter__(self):
        if self.watching:
            raise RuntimeError("this watch is on already: make a second one for a loop inside the loop")
        self._read()
        if self.optimizer is not None:
            before = self.optimizer.register_step_pre_hook(self._before_step)
            self.handles = [before, self.optimizer.register_step_post_hook(lambda *_: self.step())]
        if self.steps % self.every == 0:
            self._start()
        return self

    def __exit__(self, kind, error, traceback):
        if self.watching:
            self.watching.__exit__()
        self.watching = None
        for handle in self.handles:
            handle.remove()
        if self.live and self.records:
            self.live.draw()

    def step(self):
        """A step is done: called after every update, by the optimizer if there is one, else by you."""
        if self.watching:
            self.watching.__exit__()
            with self._going_on():
                self._record()
            self.watching = None
        self.steps += 1
        if self.steps % self.every == 0:
            with self._going_on():  # a layer may have been replaced by one that cannot be watched
                self._start()

    @contextmanager
    def _going_on(self):
        """The training goes on, whatever happens here; it is said once."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            text = f"could not be recorded: {type(error).__name__}: {error}"
            if not any(said.endswith(text) for said in self._findings):
                self._findings.append(f"step {self.steps:,} {text}")

    @property
    def warnings(self):
        """What turned unhealthy, and when, a sentence each; "50% → 60%" is what it was at first and at last."""
        if not self.records:
            why = "give the optimizer, or call step() after each update"
            if self.optimizer is not None:
                why = "the optimizer that was given took none; is another one made in the loop?"
            return self._findings or [f"no step was recorded: {why}"]
        # What the optimizer does not hold and what moves all the same has an optimizer of its own.
        unmoved = {name: p for name, (p, first) in self._trainable.items() if first is None or p.equal(first)}
        is_known = self.optimizer is None or ELSEWHERE in self._findings
        found = self._findings + (
            [] if is_known else Look(optimizer=self.optimizer, tensors=unmoved).judge([learning.not_in_the_optimizer])
        )
        rows = (row for _, diagnosis in self.records for row in diagnosis.parameters)
        learn = {row.name for row in rows if row.grad_std or row.grad_mean or row.grad_nonfinite}  # now and then
        first, *later = self.records
        zero = Look(parameters=first[1].parameters).zero
        said = [(step, diagnosis.all_warnings(learn, zero)) for step, diagnosis in later]
        rates = [(step, [p.lr for p in d.parameters if p.lr is not None]) for step, d in self.records]
        found += _fallen([(step, max(those)) for step, those in rates if those])
        return found + over_time([(first[0], first[1].all_warnings(learn)), *said])

    def plot(self):
        """The four pictures by step: activations, gradients, the weights' grad:data and update:data."""
        if not self.records:
            raise ValueError(self.warnings[0])
        return plot_training(self.records)

    def _read(self):
        self.network, self.is_new = Network(self.model), True
        self.parts = _ids_of_parts(self.network)

    def _start(self):
        """Be ready for the forward pass of a step that is recorded."""
        if self.parts != _ids_of_parts(self.network):  # a layer was replaced
            self._read()
        self.watching = Pass(self.network, self.is_new, self._trained())
        self.before = {} if self.optimizer is not None else _values(self.network.held_leaves())
        self.watching.__enter__()

    def _before_step(self, optimizer, args, kwargs):
        if self.watching:
            self.is_closure = any(x is not None for x in (*args[1:], *kwargs.values()))  # args[0] is the optimizer
            parameters = self.network.held_leaves()
            if not self.is_closure:  # which runs the model inside the step
                self.watching.__exit__()
                parameters = self.watching.functions.parameters().values()
            self.before = _values(parameters)
            self.watching.divide_gradients(_loss_scale())

    def _trained(self):
        if self.optimizer is not None:
            return [p for group in self.optimizer.param_groups for p in group["params"]]
        return self.network.held_leaves() if self.network.parameters is None else list(self.network.parameters.values())

    def _record(self):
        watching, seen = self.watching, self.watching.rows()
        if watching.failure and not seen:
            raise watching.failure
        parameters = watching.functions.parameters()
        known = [self.before.get(id(p), (p.detach(), None)) for p in parameters.values()]
        values, gradients = zip(*known, strict=True) if known else ((), ())
        if self.optimizer is None or self.is_closure:
            gradients = [p.grad for p in parameters.values()]
        trained = self._trained()
        ours = {id(p) for p in trained}  # others may have moved before this optimizer's step
        steps = list(zip(parameters.values(), values, gradients, strict=True))
        unmoved = [(g is None or id(p) not in ours) and p.equal(old) for p, old, g in steps]
        changes = [None if same else p.detach() - old for (p, old, _), same in zip(steps, unmoved, strict=True)]
        if self.is_new:  # what is true of the whole training
            self.is_new = False
            look = Look(losses=watching.losses(), seen=watching.rows(), inputs=watching.inputs)
            self.has_learned = watching.has_learned()
            found = [*watching.found, *look.judge(LOSS)]
            if ours.isdisjoint(map(id, parameters.values())) and any(p.grad is not None for p in trained):
                found.append(ELSEWHERE)
            self._findings += [text for text in found if text not in self._findings]
            learn = [(name, p, None if id(p) in ours else p.detach().clone()) for name, p in parameters.items()]
            self._trainable = {name: (p, first) for name, p, first in learn if p.requires_grad}
        tensors = values, gradients, changes
        rows = parameter_rows(self.network, watching.functions.uses, parameters, *tensors, self.optimizer, None, False)
        found = [*watching.left_over(), *watching.mode, *watching.far_from_targets()]
        if self.optimizer is not None:
            found += _not_trained(seen, () if ELSEWHERE in self._findings else gradients)
        if seen and not watching.was_called and watching.is_module:
            text = "layers were called, but never the model itself, so that functions between them are not seen"
            found += [
                f"{text}: call the model, or watch the part that is called",
                *Look(self.network, is_step=True).judge([learning.eval_mode]),
            ]
        diagnosis = Diagnosis(*layer_rows(seen), rows, findings=found, has_learned=self.has_learned)
        self.records.append((self.steps, diagnosis))
        if self.live:
            self.live.draw_if_cheap()


def _fallen(rates):
    """A learning rate that was next to nothing for more than a third of the training, after its peak; in a list."""
    most = max((rate for _, rate in rates), default=0)
    peak = [rate for _, rate in rates].index(most) if rates else 0
    low = [(step, rate) for step, rate in rates[peak:] if rate < 5e-4 * most]
    if len(rates) > 2 and most == 0:
        return ["the learning rate is 0 in all recorded steps: is scheduler.step() called, or has its schedule ended?"]
    if not low or len(low) <= max(2, len(rates) / 3):
        return []
    text = f"the learning rate fell from {most:.1e} to {low[0][1]:.1e} by step {low[0][0]:,}"
    return [f"{text}: is the scheduler stepped per batch in place of per epoch?"]


def _ids_of_parts(network):
    modules = [layer for _, layer in network.layers.values() if isinstance(layer, nn.Module)]
    return [id(part) for m in modules for table in (m._parameters, m._modules) for part in table.values()]


def _is_compiled(module):
    compiled = "_orig_mod", "_torchdynamo_orig_callable"
    by_method = getattr(module, "_compiled_call_impl", None) is not None  # module.compile()
    forward = getattr(module, "forward", None)
    return by_method or any(vars(x).get(key) for x in (module, forward) if hasattr(x, "__dict__") for key in compiled)


def _values(parameters):
    return {id(p): (p.detach().clone(), p.grad if p.requires_grad else None) for p in parameters}


def _loss_scale():
    """By what the GradScaler that takes this step has multiplied the loss; 1 without one."""
    frame = sys._getframe(2)
    while frame and not isinstance(scaler := frame.f_locals.get("self"), torch.amp.GradScaler):
        frame = frame.f_back
    return scaler.get_scale() if frame else 1


def _not_trained(rows, gradients):
    """Why the optimizer's step changes nothing, a sentence or none."""
    if not rows:
        text = "the watched model was not called before this step, or inside torch.compile or torch.func"
        yield f"{text}: watch the one that the loop trains (was its cell run again?)"
    elif gradients and all(gradient is None for gradient in gradients):
        text = "no parameter has a gradient when the optimizer steps: call zero_grad() before backward(), and both"
        yield f"{text} before step(); look for detach, .item() or a new tensor in the loss"
