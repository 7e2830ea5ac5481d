"""One step of a training, watched: the forward pass that counts, and its backward pass."""

import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import _get_current_function_mode_stack
from torch.utils.hooks import unserializable_hook

from .frames import calls_of
from .hooks import Hook, Watcher, tensors_in, without_hooks
from .judgements import Look, learning
from .losses import graph_behind, has_learned, read_from_gradient
from .rows import LossCall
from .shared import Shared
from .statistics import layer_statistics, tensor_statistics

HIDDEN = suppress(RuntimeError, TypeError)  # many gradients at once (vectorize=True) hide their values
# The loop may call torch.jit.script.
SCRIPTS = Shared(lambda: patch.object(nn.Module, "__prepare_scriptable__", without_hooks, create=True))


@dataclass(eq=False)
class Forward:
    """One forward pass with gradients: its rows, and what is known of it at its end.

    mode, found: sentences. logits: (the network's output, the gradient there), once there was a backward pass.
    """

    seen: list
    inputs: object = ()
    mode: list = ()
    found: list = ()
    logits: list = field(default_factory=list)

    def let_go(self):
        """Hooks hang on the nodes of the graph and hold the rows: as long as these hold the nodes, none is ever freed."""
        for row in self.seen:
            row.node = None


class Pass(Watcher):
    """Watch until the next step: its forward passes with gradients, and their backward passes.

    is_first: what is true of the whole training is looked for, too. trained: the tensors that the step will move.
    """

    def __init__(self, network, is_first, trained):
        self.forwards = []  # the last one is going on
        super().__init__(network, self._see)
        self.is_first, self.trained = is_first, trained
        # Of a root that is a function, or a list of layers, no call is seen.
        self.sees_root, self.was_called, self.without_gradients = id(network.root) in network.layers, False, False
        self.failure, self.paused = None, None

    def restart(self):
        """Another forward pass begins."""
        if self.forwards and not self.is_first and not any(row.gradient for row in self.seen):
            self.forwards[-1].let_go()  # an evaluation, perhaps, whose graph takes memory
        super().restart()
        self.forwards.append(Forward(self.seen))

    def attempt(self, do, *args):
        try:
            return do(*args)
        except Exception as error:  # noqa: BLE001  the training goes on, and this pass is not recorded
            self.restart()
            self.is_done, self.failure = True, error

    def __enter__(self):
        super().__enter__()
        self.undo.enter_context(SCRIPTS)
        if self.sees_root:  # its forward pass alone is looked at, so that no mode of the loop's own gets between
            self.listen(False)
        if self.is_first or not self.sees_root:  # it listens outside of the network, too, where others may be called
            begins, ends = Hook(self, self._another_begins), Hook(self, self._another_ends)
            self.undo.callback(register_module_forward_pre_hook(begins).remove)
            self.undo.callback(register_module_forward_hook(ends, always_call=True).remove)
        self._keep_a_gradient()
        return self

    def layer_begins(self, layer, args, kwargs):
        self._notice_an_interrupt(layer)
        if self._is_root(layer):
            self.was_called = True
            self.without_gradients |= not torch.is_grad_enabled()
        if not torch.is_grad_enabled():
            self._pause(layer)
        if self.paused is not None:
            return
        if self._is_root(layer):
            self.listen(_is_counted())
            if _is_counted():
                self.is_done = False
                self.restart()
        super().layer_begins(layer, args, kwargs)

    def _notice_an_interrupt(self, layer):
        """A layer begins. After a KeyboardInterrupt inside another one torch has called no hook."""
        if self.paused is not None and calls_of(self.paused) <= (layer is self.paused):
            self._go_on()
        if self.is_open(layer) and calls_of(layer) < 2:
            self.restart()

    def _pause(self, layer):
        """Without gradients nothing is seen, and nothing of ours is in torch's way, which may take a faster one."""
        if self.paused is None:
            self.paused, self.was_listening = layer, self.functions in _get_current_function_mode_stack()
            self.take_off_hooks(but_of=[layer, self.network.root])
            self.listen(False)

    def _go_on(self):
        if self.paused is not None:
            self.paused = None
            self.put_on_hooks()
            self.listen(self.was_listening)

    def _another_begins(self, layer, args):
        self._notice_an_interrupt(layer)
        if not (torch.is_grad_enabled() or id(layer) in self.network.layers):
            self._pause(layer)

    def _another_ends(self, layer, args, output):
        if layer is self.paused and id(layer) not in self.network.layers:
            self._go_on()

    def layer_ends(self, layer, args, kwargs, output):
        if self.paused is not None:
            return self._go_on() if layer is self.paused else None
        super().layer_ends(layer, args, kwargs, output)
        if self._is_root(layer):
            self.listen(self.is_first and _is_counted())  # to see the loss in the loop, once
            if _is_counted():
                self._forward_is_done((args, kwargs), output)

    def _is_root(self, layer):
        """Whether it is the network itself, called from outside."""
        return layer is self.network.root and not self.is_open(layer)

    def wants_rows(self):
        # Without gradients it is an evaluation; after the end, a checkpoint that computes its layers once more.
        return _is_counted() and not self.is_done and (self.sees_root or self._is_inside_function())

    def _is_inside_function(self):
        """Whether the network, a function, is being called, rather than a loss or another; of a list nobody knows."""
        code, frame = getattr(self.network.root, "__code__", None), sys._getframe(1)
        while code and frame and frame.f_code is not code:
            frame = frame.f_back
        return frame is not None

    def _forward_is_done(self, inputs, output):
        self.is_done, forward = True, self.forwards[-1]
        self.mark_outputs(output)
        forward.inputs, forward.mode = inputs, Look(self.network, is_step=True).judge([learning.eval_mode])
        logits = next((t for t in tensors_in(output) if t.requires_grad and t.dim() > 1), None)
        if logits is not None:
            with torch._C.DisableTorchFunction():
                values = logits.detach()
            self._at_gradient(logits, partial(_keep_logits, forward.logits, values))
        if not self.is_first:
            return
        try:
            ours = self.functions.parameters() | dict(enumerate(self.trained))  # functional_call takes others
            look = Look(self.network, self.functions, tensors=ours, inputs=inputs, output=output)
            forward.found = look.judge([learning.not_among_the_parameters])
        except ValueError as error:  # a reentrant checkpoint hides what the output depends on
            forward.found = [str(error)]

    def finish(self, scale):
        """The Forward that counts: the last one that had a backward pass. One after it, for an accuracy, has none.

        scale: by what a GradScaler has multiplied the loss, and so the gradients.
        """
        went_back = [forward for forward in self.forwards if any(row.gradient for row in forward.seen)]
        forward = (went_back or self.forwards)[-1]
        self.number_calls(forward.seen)
        for row in [row for row in forward.seen if row.gradient] if scale != 1 else ():
            scaled = {key: row.gradient[key] / scale for key in ("mean", "std") if row.gradient.get(key)}
            row.gradient = row.gradient | scaled
        return forward

    def let_go(self):
        for forward in self.forwards:
            forward.let_go()
        self.open_calls = []

    def _see(self, seen, tensor):
        seen.readings = layer_statistics(tensor, seen.bounds, seen.unit, False)
        if tensor.requires_grad:
            self._at_gradient(tensor, partial(_see_gradient, seen))

    def _at_gradient(self, tensor, do):
        handle = tensor.register_hook(unserializable_hook(do))
        if tensor.is_leaf:  # a parameter that a layer hands on: it does not end with this step
            self.undo.callback(handle.remove)

    def losses(self, forward):
        """Those that were called with what it put out; else the one that the gradient at the output tells of."""
        called = list(self.functions.losses)
        if len(self.forwards) > 1:
            nodes = {row.node for row in forward.seen} - {None}
            called = [call for call in called if not nodes.isdisjoint(graph_behind([call.node]))]
        return called or [call for pair in forward.logits[:1] for call in read_from_gradient(*pair)]

    def has_learned(self, forward, share=0):
        """What has_learned() says; of other losses as if they were means of squares, or binary ones.

        Their gradients tell the targets: of a mean of squares it is 2 (output - target) / n, of binary cross-entropy
        (sigmoid(output) - target) / n for logits, and (output - target) / (output (1 - output) n) for probabilities.
        """
        if (calls := self.losses(forward)) or not forward.logits:
            return any(has_learned(call, share) for call in calls)
        output, gradient = forward.logits[0]
        pull = gradient * gradient.numel()
        for labels in output.sigmoid() - pull, output - pull * output * (1 - output):
            if torch.allclose(labels, labels.round().clamp(0, 1), atol=1e-2):
                return has_learned(LossCall("", output, labels.round(), *[None] * 3), share)
        return has_learned(LossCall("", output, output - pull / 2, *[None] * 3))

    def _keep_a_gradient(self):
        """Notice when the gradient that a step has used is still there as the next one is added to it."""
        self.is_left, self.adds_up = None, False
        parameters = [p for p in self.trained if p.requires_grad and p.is_leaf and p.grad is not None]
        parameters = (p for p in sorted(parameters, key=torch.Tensor.numel) if p.grad.layout is torch.strided)
        p = next((p for p in parameters if p.grad.any()), None)
        if self.is_first or p is None:
            return
        used = p.grad.clone()

        def before(_):
            if p.grad is None or not p.grad.any():
                self.is_left = False
            elif self.is_left is None:
                self.is_left = torch.equal(p.grad, used)

        def after(_):  # autograd.grad does not come here
            self.adds_up = bool(self.is_left)

        self.undo.callback(p.register_hook(unserializable_hook(before)).remove)
        self.undo.callback(p.register_post_accumulate_grad_hook(after).remove)


def _see_gradient(seen, gradient):
    with HIDDEN:
        seen.gradient = tensor_statistics(gradient, False)


def _keep_logits(kept, logits, gradient):
    with HIDDEN:
        kept.append((logits, gradient.detach()))


def _is_counted():
    """Whether there are gradients, and no transform of torch.func or trace, in which tensors hide their values."""
    is_hidden = torch._C._functorch.peek_interpreter_stack() or torch._C._get_tracing_state()
    return torch.is_grad_enabled() and is_hidden is None
