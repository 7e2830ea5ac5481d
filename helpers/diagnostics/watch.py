"""Watch a training: the statistics of its own forward and backward passes, and what its steps really change."""

from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import unserializable_hook

from .diagnosis import Diagnosis
from .frames import loss_scale, steps_already
from .judgements import FIRST, TRAINING, Look, layers, learning, loss, training
from .live import Live
from .networks import Network
from .over_time import judged, over_time
from .passes import HIDDEN, Pass
from .pictures import plot_training
from .rows import layer_rows, parameter_rows
from .trial import check_optimizer, listed

ELSEWHERE = "the optimizer trains other tensors than the watched model's: if that is not meant, make both anew"

SURE = 0.9  # of the examples are right: from then on units are on or off, and gradients are small, by learning


class watch:
    """``with watch(model, optimizer, every=10) as seen:`` around your own training loop.

    At every k-th step of the optimizer the statistics (no histograms) of the forward and backward pass that belong
    to it are kept, and by how much each parameter really changed. An update rule of plain tensors calls
    ``seen.step()`` after each update. Of several forward passes in a step the last one that got gradients counts; of
    several backward passes through it the last one, for layers, and all together for parameters.

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
        self.handles = []  # of the optimizers' hooks
        self.current = None  # the Pass of a step that is recorded
        self.before = {}  # id of a parameter -> its values and its gradient before the step
        self.gradients = {}  # id of a parameter -> what backward passes have added to it, in a loop without an optimizer
        self.has_learned = False  # before the first step: what is trained further
        self.far, self.is_far = [], False  # what was said at first of targets far from the output; are they still?
        self.is_stepping, self.is_closure = False, False  # a closure runs the model inside the step
        self.is_missed = False  # a step that was to be recorded, but was interrupted
        self.others, self.most_others = 0, 0  # steps of other optimizers since the last own one; between two own ones

    def __enter__(self):
        if self.current:
            raise RuntimeError("this watch is on already: make a second one for a loop inside the loop")
        self._read()
        self.is_stepping, self.is_closure = False, False
        if self.optimizer is not None:
            before = self.optimizer.register_step_pre_hook(self._before_step)
            self.handles = [before, self.optimizer.register_step_post_hook(self._after_step)]
            self.handles.append(register_optimizer_step_post_hook(self._other_step))  # of all optimizers
        if self.steps % self.every == 0:
            self._start()
        return self

    def __exit__(self, kind, error, traceback):
        self._forget()
        for handle in self.handles:
            handle.remove()
        if self.live and self.records:
            self.live.draw()

    def step(self):
        """A step is done: called after every update, by the optimizer if there is one, else by you."""
        if self.current:
            self.current.__exit__()
            with self._going_on():
                self._record()
            self._forget()
        self.most_others, self.others = max(self.most_others, self.others), 0
        self.steps += 1
        if self.steps % self.every == 0 or self.is_missed:
            self.is_missed = False
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
                why = "step() of the optimizer that was given was not called; is another one made in the loop?"
            return self._findings or [f"no step was recorded: {why}"]
        # What the optimizer does not hold and what moves all the same has an optimizer of its own.
        unmoved = {name: p for name, (p, first) in self._trainable.items() if first is None or p.equal(first)}
        is_known = self.optimizer is None or ELSEWHERE in self._findings
        look, found = Look(optimizers=listed(self.optimizer), tensors=unmoved), list(self._findings)
        found += [] if is_known else look.judge([learning.not_in_the_optimizer])
        if self.others > 2 * self.most_others + 10:
            text = "the optimizer that was given takes no more steps, and another one trains the model"
            found.append(f"from step {self.steps:,} on {text}: give that to a second watch")
        found += training.rate_has_fallen(self.records)
        later = over_time(judged(self.records, bool(self.far)))
        if self.is_far and not any("standardise" in text for text in later):
            found += [text for text in self.far if "standardise" in text]
        return found + later

    def plot(self):
        """The four pictures by step: activations, gradients, the weights' grad:data and update:data."""
        if not self.records:
            raise ValueError(self.warnings[0])
        return plot_training(self.records)

    def _read(self):
        """Read the model, whose layers may be replaced later."""
        self.network, self.is_new = Network(self.model), True
        self.part_ids = _ids_of_parts(self.network)

    def _start(self):
        """Be ready for the forward pass of a step that is recorded."""
        if self.part_ids != _ids_of_parts(self.network):  # a layer was replaced
            self._read()
        self.current = Pass(self.network, self.is_new, self._trained())
        self.before, self.gradients = {}, {}
        if self.optimizer is None:
            leaves = self.network.held_leaves()
            self.before = _values(leaves)
            for p in leaves:  # the loop may clear .grad before it calls step(), or take autograd.grad
                hook = unserializable_hook(partial(self._add_gradient, id(p)))
                self.current.undo.callback(p.register_hook(hook).remove)
        self.current.__enter__()

    def _forget(self):
        """Keep nothing of the step that was recorded."""
        if self.current:
            self.current.__exit__()
            self.current.let_go()
        self.current = None

    def _add_gradient(self, key, gradient):
        with HIDDEN:
            gradient = gradient.detach().clone()
            self.gradients[key] = self.gradients[key] + gradient if key in self.gradients else gradient

    def _before_step(self, optimizer, args, kwargs):
        if self.is_stepping and not steps_already(optimizer):  # the step before this one ended in an error
            self.is_stepping, self.is_missed = False, self.current is not None
            self._forget()
        if self.current and not self.is_stepping:
            self.is_closure = any(x is not None for x in (*args[1:], *kwargs.values()))  # args[0] is the optimizer
            parameters = self.network.held_leaves()
            if not self.is_closure:  # which runs the model inside the step
                self.current.__exit__()
                parameters = self.current.functions.parameters().values()
            self.before = _values(parameters, getattr(optimizer, "grad_scale", None))  # fused ones divide in the step
        self.is_stepping = True

    def _after_step(self, *_):
        if self.is_stepping:  # in a subclass's step that calls super().step() torch calls the hooks twice
            self.is_stepping = False
            self.step()

    def _other_step(self, optimizer, *_):
        held = (p for group in optimizer.param_groups for p in group["params"])
        self.others += optimizer is not self.optimizer and any(id(p) in self.network.tensors for p in held)

    def _trained(self):
        if self.optimizer is not None:
            return [p for group in self.optimizer.param_groups for p in group["params"]]
        return self.network.held_leaves() if self.network.parameters is None else list(self.network.parameters.values())

    def _record(self):
        current = self.current
        forward = current.finish(loss_scale())
        seen = forward.seen
        if current.failure and not seen:
            raise current.failure
        parameters, trained = current.functions.parameters(), self._trained()
        if self.is_new:
            self._record_once(forward, parameters, trained)
        self._note_trainable(parameters, trained)
        values, gradients, changes = self._moves(parameters, trained)
        at_layers = [row.gradient.get("std") for row in seen if row.gradient]
        if self.optimizer is not None and at_layers and all(at_layers) and not any(map(_is_some, gradients)):
            gradients = [None for _ in gradients]  # zero_grad() came between backward() and step()
        uses, optimizers = current.functions.uses, listed(self.optimizer)
        rows = parameter_rows(self.network, uses, parameters, values, gradients, changes, optimizers, None, False)
        look = Look(seen=seen, optimizers=optimizers, adds_up=current.adds_up, findings=self._findings)
        look.were_far, look.without_gradients = bool(self.far), current.without_gradients
        look.parameters = () if ELSEWHERE in self._findings else rows
        if any("nonfinite" in row.readings for row in seen):  # else the model fills the gaps itself
            look.inputs = forward.inputs
        found = [*forward.mode, *look.judge(TRAINING)]
        if seen and current.sees_root and not current.was_called:
            text = "layers were called, but never the model itself, so that functions between them are not seen"
            found.append(f"{text}: call the model, or watch the part that is called")
            found += Look(self.network, is_step=True).judge([learning.eval_mode])
        look.activations, look.gradients = layer_rows(seen)
        ways = layers.ways(look)
        may_be_known = ways or self.far or any((row.saturated or 0) > layers.SATURATED for row in look.activations)
        has_learned = self.has_learned or (may_be_known and current.has_learned(forward, SURE))
        self.is_far = bool(self.far and forward.logits and not has_learned)
        known = dict(findings=found, has_learned=has_learned, **ways)
        diagnosis = Diagnosis(look.activations, look.gradients, rows, **known)
        self.records.append((self.steps, diagnosis))
        if self.live:
            self.live.draw_if_cheap()

    def _record_once(self, forward, parameters, trained):
        """What is true of the whole training, said at its first step."""
        self.is_new, current, ours = False, self.current, {id(p) for p in trained}
        self.has_learned = current.has_learned(forward)
        calls = current.losses(forward)  # of those that have a number for each place some may be masked later
        calls = [c for c in calls if c.loss is None or c.loss.numel() == 1 or c.loss.shape != c.input.shape]
        look = Look(self.network, current.functions, calls, forward.seen, parameters, forward.inputs)
        look.has_learned = self.has_learned
        look.loss = next((call.loss.mean() for call in look.losses if call.loss is not None), None)
        # Targets that were flattened, such as those of each word, do not count the examples.
        sizes = [t.shape[:1] for t in tree_leaves(forward.inputs) if isinstance(t, torch.Tensor)]
        look.targets = next((call.target for call in look.losses if call.target.shape[:1] in sizes), None)
        far = look.judge([loss.targets_out_of_reach])
        found = [*forward.found, *look.judge(FIRST), *(text for text in far if " puts out " in text)]
        if current.sees_root:  # else calls of the network are not told apart
            found += look.judge([learning.detached_in_a_loop])
        self.far = far
        if ours.isdisjoint(map(id, parameters.values())) and any(p.grad is not None for p in trained):
            found.append(ELSEWHERE)
        self._findings += [text for text in found if text not in self._findings]

    def _note_trainable(self, parameters, trained):
        """What may learn, and for what the optimizer does not hold its values when that was first seen."""
        ours = {id(p) for p in trained}
        for name, p in parameters.items():
            known, _ = self._trainable.get(name, (None, None))
            if p.requires_grad and known is not p:
                self._trainable[name] = p, None if id(p) in ours else p.detach().clone()

    def _moves(self, parameters, trained):
        """Of each parameter the values before the step, the gradient, and what the step changed, or None."""
        ours, values, gradients, changes = {id(p) for p in trained}, [], [], []
        for p in parameters.values():
            old, gradient = self.before.get(id(p), (p.detach(), None))
            if self.optimizer is None or self.is_closure:
                gradient = p.grad
            if id(p) in self.gradients and not _is_some(gradient):
                gradient = self.gradients[id(p)]
            # What is not ours may have moved before this optimizer's step; a loop by hand may make a new tensor.
            may_be_still = gradient is None or id(p) not in ours or self.optimizer is None
            is_still = may_be_still and p.equal(old)
            values.append(old)
            gradients.append(gradient)
            changes.append(None if is_still else p.detach() - old)
        return values, gradients, changes


def _ids_of_parts(network):
    modules = [layer for _, layer in network.layers.values() if isinstance(layer, nn.Module)]
    return [id(part) for m in modules for table in (m._parameters, m._modules) for part in table.values()]


def _is_compiled(module):
    compiled = "_orig_mod", "_torchdynamo_orig_callable"
    by_method = getattr(module, "_compiled_call_impl", None) is not None  # module.compile()
    forward = getattr(module, "forward", None)
    return by_method or any(vars(x).get(key) for x in (module, forward) if hasattr(x, "__dict__") for key in compiled)


def _values(parameters, scale=None):
    """Copies of the values and the gradients: a step may change both. scale: of a GradScaler, if they have it still."""
    found = {}
    for p in parameters:
        gradient = p.grad if p.requires_grad else None
        gradient = gradient if gradient is None else gradient.clone() if scale is None else gradient / scale
        found[id(p)] = p.detach().clone(), gradient
    return found


def _is_some(gradient):
    """Whether there is one that is not 0."""
    return gradient is not None and (gradient.layout is not torch.strided or bool(gradient.any()))
