"""Watch a network while it runs: what every layer, activation and product puts out, in the order of the calls."""

import copy
from collections import Counter, namedtuple
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from functools import partial
from unittest.mock import patch

import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode

from .functions import Functions, Seen
from .rows import activation_of

PATCHED = {}  # class -> (the watchers that see its calls, how to put back its own __call__)
# A layer that is being called. put: (Seen or None, tensor, its version) of all that came out inside.
Call = namedtuple("Call", "layer is_leaf put")


class Hook:
    """A hook whose copies do nothing: a model that is copied or saved while it is watched is watched alone.

    Nor does it do anything while torch.compile reads a step, which can't take it in.
    """

    def __init__(self, do):
        self.do = do

    def __call__(self, *args):
        return None if torch.compiler.is_compiling() else self.do(*args)

    def __reduce__(self):  # to what takes any arguments, returns None, and is found where this folder is not
        return getattr, (nullcontext(), "__exit__")


class Watcher:
    """``with Watcher(network, see): ...`` calls ``see(seen, tensor)`` for whatever the network's layers put out.

    It is called before anything can change the tensor in place. seen: a Seen for every row, in order. A layer that
    ends with a function has that function's row; one that hands on what came out inside it has none.
    """

    def __init__(self, network, see):
        self.network, self.see = network, see
        self.functions = Functions(self, network)
        self.undo, self.listening, self.is_done = [], False, False
        self.restart()

    def restart(self):
        self.seen, self.calls, self.open = [], Counter(), [Call(None, False, [])]

    def __enter__(self):
        mha = torch.backends.mha  # its fast path would go past a transformer's layers in eval mode
        self.undo.append(partial(mha.set_fastpath_enabled, mha.get_fastpath_enabled()))
        mha.set_fastpath_enabled(False)
        before, after = (Hook(partial(self.attempt, do)) for do in (self._before, self._after))
        layers = [layer for _, layer in self.network.layers.values()]
        # Written into the tables by hand: torch's register_forward_hook and its handle take ten times as long.
        tables = [(m._forward_pre_hooks, m._forward_hooks) for m in layers if not self.network.own_call(m)]
        for pre_hooks, hooks in tables:
            pre_hooks[-id(self)], hooks[-id(self)] = before, after  # torch's own keys are counted from 0
        self.undo.append(lambda: [hooks.pop(-id(self), None) for pair in tables for hooks in pair])
        scripts = patch.object(nn.Module, "__prepare_scriptable__", _without_hooks, create=True)
        scripts.start()
        self.undo.append(scripts.stop)
        for cls in {type(layer) for layer in layers if self.network.own_call(layer)}:  # torch's hooks do not see them
            _watch_calls(cls, self)
            self.undo.append(partial(_watch_calls_no_more, cls, self))
        self.listen(True)
        return self

    def __exit__(self, *error):
        self.listen(False)
        while self.undo:
            self.undo.pop()()

    def attempt(self, do, *args):
        """What is done as the network runs; None where that failed and the network's run goes on."""
        return do(*args)

    def listen(self, wanted):
        """See functions, or no longer."""
        if wanted == self.listening:
            return
        # Beneath all other modes: those of the user's own end in any order, and each takes off the topmost one.
        modes = [mode for mode in _get_current_function_mode_stack() if mode is not self.functions]
        self.listening = wanted
        while _get_current_function_mode_stack():
            _pop_mode()
        for mode in [self.functions, *modes] if wanted else modes:
            _push_mode(mode)

    def call(self, args, kwargs):
        """The network's output. From then on there are no rows: the loss is no layer."""
        for t in tensors_in((args, kwargs)):
            if t.dim() == 2:  # (examples, features), as everywhere in torch
                self.functions.note(t, -1)
        output = self.network(args, kwargs)
        self.is_done = True
        self.mark_outputs(output)
        return output

    def mark_outputs(self, output):
        """An output may be near 0 or 1, wherever it was computed."""
        nodes = {t.grad_fn for t in tensors_in(output)} - {None}
        for row in self.seen:
            row.is_output = row.node in nodes
            row.is_gate |= row.is_output and row is not self.seen[-1]

    def wants_rows(self):
        return not self.is_done

    def is_open(self, layer):
        return any(call.layer is layer for call in self.open)

    def function_called(self, seen, output):
        """The tensor to go on with. In a leaf a product waits: if it is not the last one, the row is the layer's."""
        if not self.wants_rows():
            return output
        self.settle()
        output, call = _safe(output), self.open[-1]
        seen.name = self._numbered(seen.name)
        self.seen.append(seen)
        call.put.append((None if seen.is_layer else seen, output, output._version))
        if seen.is_layer or seen.activation or not call.is_leaf:
            self._measure(seen, output)
        return output

    def settle(self):
        """A product that waits is measured, before anything changes it in place."""
        for seen, tensor, _ in self.open[-1].put[-1:]:
            if seen is not None and seen.readings is None:
                with torch._C.DisableTorchFunction():
                    self._measure(seen, tensor)

    def _measure(self, seen, tensor):
        seen.shape, seen.node = tuple(tensor.shape), tensor.grad_fn
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            text = f"{seen.name} is inside vmap or another transform of torch.func, where a tensor's values are hidden"
            raise ValueError(f"{text}: call it without vmap")
        if tensor.is_nested:
            raise ValueError(f"{seen.name} puts out a nested (jagged) tensor: pad it, with to_padded_tensor")
        self.see(seen, tensor)

    def _numbered(self, name):
        self.calls[name] += 1
        return name + (f" (call {self.calls[name]})" if self.calls[name] > 1 else "")

    def _before(self, layer, args):
        self.settle()
        self.open.append(Call(layer, id(layer) not in self.network.containers, []))

    def _after(self, layer, args, output):
        with torch._C.DisableTorchFunction():
            if not self.is_open(layer):
                return output
            while self.open[-1].layer is not layer:  # an error that the network caught
                self.open[-2].put.extend(self.open.pop().put)
            call, output = self.open.pop(), self._replaced(output)
            tensors = list(tensors_in(output)) if self.wants_rows() else []
            self.open[-1].put.extend((None, t, t._version) for t in tensors)
            same = [[seen for seen, old, version in call.put if old is t and version == t._version] for t in tensors]
            name, kind, *activation = self.network.layers[id(layer)][0], type(layer), *activation_of(layer)
            if len(same) == 1 and any(same[0]):
                self._hand_over(next(filter(None, same[0])), tensors[0], name, kind, *activation)
            elif call.is_leaf or not all(same):
                last = call.put[-1][0] if call.put and call.is_leaf else None
                if last is not None and not last.activation:
                    self.calls[last.name.partition(" (call")[0]] -= 1
                    self.seen.remove(last)
                name = self._numbered(name)
                for i, t in enumerate(tensors):
                    unit = self.functions.noted(t)[0]
                    self.seen.append(Seen(name + (f"[{i}]" if i else ""), kind, *activation, unit))
                    self._measure(self.seen[-1], t)
            return output

    def _hand_over(self, seen, tensor, name, kind, activation, bounds):
        """A layer ends with a function: its row is the layer's."""
        self.calls[seen.name.partition(" (call")[0]] -= 1
        seen.name, seen.type = self._numbered(name), kind
        if activation and bounds != seen.bounds:
            seen.bounds, seen.readings = bounds, None
        seen.activation = activation or seen.activation
        if seen.readings is None:
            self._measure(seen, tensor)

    def _replaced(self, output):
        """The output with copies of its views, for which a change in place would lose their place in the graph."""
        if type(output) is tuple:
            return tuple(map(self._replaced, output))
        if not isinstance(output, torch.Tensor) or (copy := _safe(output)) is output:
            return output
        self.functions.note(copy, *self.functions.noted(output))
        return copy


def _without_hooks(module):
    """What torch.jit.script takes in place of a watched module: it would compile the hooks as well."""
    if isinstance(module, torch.jit.ScriptModule):
        return module
    bare = copy.copy(module)
    for name in "_forward_hooks", "_forward_pre_hooks", "_modules":
        kept = {key: value for key, value in getattr(module, name).items() if not isinstance(value, Hook)}
        vars(bare)[name] = type(getattr(module, name))(kept)
    return bare


def _watch_calls(cls, watcher):
    """Let a watcher see the calls of a class. Several take turns on one class, so they share what replaces it."""
    if cls not in PATCHED:
        call, watchers = cls.__call__, []

        def watched(layer, *args, **kwargs):
            those = [w for w in watchers if id(layer) in w.network.layers and not w.is_open(layer)]
            for w in those:
                w.attempt(w._before, layer, args)
            output = call(layer, *args, **kwargs)
            for w in reversed(those):
                replaced = w.attempt(w._after, layer, args, output)
                output = output if replaced is None else replaced
            return output

        patched = patch.object(cls, "__call__", watched)
        patched.start()
        PATCHED[cls] = watchers, patched.stop
    PATCHED[cls][0].append(watcher)


def _watch_calls_no_more(cls, watcher):
    watchers, stop = PATCHED[cls]
    watchers.remove(watcher)
    if not watchers:
        del PATCHED[cls]
        stop()


def _safe(t):
    return t.clone() if t._is_view() and t.requires_grad and torch.is_grad_enabled() else t


def tensors_in(value):
    """The floating-point (or complex) tensors in what a layer puts out, however nested."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value
    elif isinstance(value, (tuple, list, Mapping)):
        for v in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(v)
    elif is_dataclass(value) and not isinstance(value, (type, nn.Module)):
        for f in fields(value):
            yield from tensors_in(getattr(value, f.name))
