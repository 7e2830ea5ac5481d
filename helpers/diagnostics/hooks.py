"""Watch a network while it runs: what every layer, activation and product puts out, in the order of the calls."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass

import torch
from torch import nn

from .functions import Functions
from .rows import activation_of

__all__ = ["Seen", "Watcher", "map_tensors", "tensors_in"]


@dataclass(eq=False)
class Seen:
    """One tensor that a layer or a function put out."""

    name: str
    type: type
    activation: str | None
    bounds: tuple | None
    unit: int | None  # the dimension that counts its units, from the end, where that is certain
    shape: tuple = ()
    readings: dict = field(default_factory=dict)
    gradient: object = None  # its place in the graph, or the readings of its gradient
    is_gate: bool = False


class _Open:
    """A layer that is being called."""

    def __init__(self, layer, is_leaf):
        self.layer, self.is_leaf = layer, is_leaf
        self.returned = []  # by the layers called inside: (tensor, its version)
        self.waiting = None  # in a leaf, its only function so far: (what was called, Seen)
        self.last = None  # the last function that has a row: the same


class Watcher:
    """``with Watcher(network, see): ...`` calls ``see(seen, tensor)`` for whatever the network's layers put out.

    It is called before anything can change the tensor in place. seen: a Seen for every row, in order.
    """

    def __init__(self, network, see):
        self.network, self.see = network, see
        self.functions = Functions(self, network)
        self.restart()

    def restart(self):
        self.seen, self.calls, self.open, self.rows_wanted = [], Counter(), [_Open(None, False)], True

    def __enter__(self):
        self.handles, self.patched = [], []
        self.fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it would go past a transformer's layers in eval mode
        for _, layer in self.network.layers.values():
            if not self.network.own_call(layer):
                self.handles.append(layer.register_forward_pre_hook(lambda layer, args: self._before(layer)))
                self.handles.append(layer.register_forward_hook(lambda layer, args, out: self._after(layer, out)))
            elif all(type(layer) is not cls for cls, _ in self.patched):
                self._patch(type(layer))
        self.is_on, self.listening = True, False
        self.listen(True)
        return self

    def __exit__(self, *error):
        self.listen(False)
        self.is_on = False
        for cls, call in self.patched:
            if call is None:
                del cls.__call__
            else:
                cls.__call__ = call
        for handle in self.handles:
            handle.remove()
        torch.backends.mha.set_fastpath_enabled(self.fast_path)

    def listen(self, wanted):
        """See functions, or no longer."""
        if wanted != self.listening:
            self.listening = wanted
            self.functions.__enter__() if wanted else self.functions.__exit__(None, None, None)

    def call(self, args, kwargs):
        """The network's output. From then on there are no rows: the loss is no layer."""
        for t in tensors_in((args, kwargs)):
            self.functions.set_input(t)
        output = self.network(args, kwargs)
        self.rows_wanted = False
        return output

    def _patch(self, cls):
        """Classes that are no modules have no hooks: their __call__ is another one for a while."""
        call = cls.__call__

        def watched(layer, *args, **kwargs):
            if id(layer) not in self.network.layers or self.is_open(layer):
                return call(layer, *args, **kwargs)
            self._before(layer)
            return self._after(layer, call(layer, *args, **kwargs))

        self.patched.append((cls, vars(cls).get("__call__")))
        cls.__call__ = watched

    def innermost(self):
        """The layer that is being called, and its name."""
        layer = self.open[-1].layer
        return layer, "" if layer is None else self.network.layers[id(layer)][0]

    def is_open(self, layer):
        return any(call.layer is layer for call in self.open)

    def about_to_change(self, tensor):
        """A tensor that waits is measured before a function changes it in place."""
        waiting = self.open[-1].waiting
        if tensor is not None and waiting and waiting[0].output is tensor and not waiting[1].readings:
            self._measure(waiting[1], tensor)

    def function_called(self, called, unit):
        """(what was seen, the tensor to go on with). In a leaf a first function waits: its row may be the layer's."""
        call, seen = self.open[-1], Seen(called.name, called.type, called.activation, called.bounds, unit)
        if not self.rows_wanted:
            return seen, called.output
        self._settle(call)
        output = _safe(called.output)
        if output is not called.output:
            called = called._replace(output=output, version=output._version)
        call.waiting = called, seen
        if not call.is_leaf:
            self._settle(call)
        return seen, output

    def _settle(self, call):
        if call.waiting:
            called, seen = call.waiting
            call.waiting, call.last = None, None if called.is_layer else call.waiting
            seen.name = self._numbered(seen.name)
            self._row(seen, called.output)
            call.returned.append((called.output, called.version))

    def _row(self, seen, tensor):
        if not seen.readings:
            self._measure(seen, tensor)
        self.seen.append(seen)

    def _measure(self, seen, tensor):
        seen.shape = tuple(tensor.shape)
        if torch._C._functorch.is_batchedtensor(tensor):
            raise ValueError(f"{seen.name} is inside vmap, where a layer sees one example only: call it without vmap")
        if tensor.is_nested:
            raise ValueError(f"{seen.name} puts out a nested (jagged) tensor: pad it, with to_padded_tensor")
        with torch._C.DisableTorchFunction():
            self.see(seen, tensor)

    def _numbered(self, name):
        self.calls[name] += 1
        return name + (f" (call {self.calls[name]})" if self.calls[name] > 1 else "")

    def _before(self, layer):
        self.open.append(_Open(layer, id(layer) not in self.network.containers))

    def _after(self, layer, output):
        with torch._C.DisableTorchFunction():
            if not self.is_open(layer):
                return output
            while self.open[-1].layer is not layer:  # an error that the network caught
                self.open.pop()
            call, outside = self.open.pop(), self.open[-1]
            output = self._replaced(output)
            tensors = list(tensors_in(output)) if self.rows_wanted else []
            outside.returned += [(t, t._version) for t in tensors]
            if call.last and len(tensors) == 1 and _is(tensors[0], call.last[0]):
                self._hand_over(call.last[1], layer)  # it ends with a function, whose row is then its own
            elif call.is_leaf or not all(_is_among(t, call.returned) for t in tensors):
                self._layer_rows(layer, call, tensors)
            return output

    def _layer_rows(self, layer, call, tensors):
        name, kind, activation, bounds = self.network.layers[id(layer)][0], type(layer), *activation_of(layer)
        waiting = None
        if call.waiting and len(tensors) == 1 and _is(tensors[0], call.waiting[0]):
            waiting = call.waiting[1]  # it ends with a function, whose row is then its own
            if activation is None:
                activation, bounds = waiting.activation, waiting.bounds
        elif call.waiting and call.waiting[0].activation:
            self._settle(call)
        name = self._numbered(name)
        for i, t in enumerate(tensors):
            seen = waiting or Seen("", kind, None, None, None)
            seen.name, seen.type, seen.activation = name + (f"[{i}]" if i else ""), kind, activation
            seen.bounds, seen.unit = bounds, self.functions.unit(t)
            self._row(seen, t)

    def _hand_over(self, seen, layer):
        self.calls[seen.name.partition(" (call")[0]] -= 1
        seen.name, seen.type = self._numbered(self.network.layers[id(layer)][0]), type(layer)
        activation, bounds = activation_of(layer)
        if activation:
            seen.activation, seen.bounds = activation, bounds

    def _replaced(self, output):
        """The output with copies of its views, for which a change in place would lose their place in the graph."""
        if type(output) is tuple:
            return tuple(map(self._replaced, output))
        if not isinstance(output, torch.Tensor) or (copy := _safe(output)) is output:
            return output
        self.functions.copy_note(output, copy)
        return copy


def _safe(t):
    return t.clone() if t._is_view() and t.requires_grad and torch.is_grad_enabled() else t


def _is(tensor, called):
    return tensor is called.output and tensor._version == called.version


def _is_among(tensor, returned):
    return any(tensor is other and tensor._version == version for other, version in returned)


def map_tensors(function, value):
    """function of every tensor in a tensor, tuple, list or dict; whatever else is there stays."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, v) for v in value))
    if type(value) in (tuple, list):
        return type(value)(map_tensors(function, v) for v in value)
    return {k: map_tensors(function, v) for k, v in value.items()} if type(value) is dict else value


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
