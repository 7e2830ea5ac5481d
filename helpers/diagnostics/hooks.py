"""Watch a network while it runs: what every layer, activation and product puts out, in the order of the calls."""

import copy
from collections import Counter, namedtuple
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from unittest.mock import patch

import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils._device import DeviceContext

from .functions import Functions, Seen
from .rows import activation_of
from .shared import NO_FAST_PATH, Shared

HOOKS = ["_forward_hooks", "_forward_pre_hooks"]
OF_HOOKS = ["_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs"]
# A model that is copied or saved while it is watched takes no hooks along.
COPIES = Shared(lambda: patch.object(nn.Module, "__getstate__", state_without_hooks, create=True))
PATCHED = {}  # class -> (the watchers that see the calls of its objects, the patch of its __call__)
# A layer that is being called; and what came out inside it: a tensor, its version then, the row that it has, or None.
OpenCall = namedtuple("OpenCall", "layer is_leaf outputs")
Output = namedtuple("Output", "tensor version row")


class Hook:
    """A hook whose copies do nothing: a model that is copied or saved while it is watched is watched alone.

    Nor does it do anything while torch.compile reads a step, which can't take it in.
    """

    def __init__(self, watcher, do):
        self.watcher, self.do = watcher, do

    def __call__(self, *args):
        return None if torch.compiler.is_compiling() else self.watcher.attempt(self.do, *args)

    def __reduce__(self):
        # A copy is nullcontext().__exit__: it takes any arguments, returns None, and can be read without this folder.
        return getattr, (nullcontext(), "__exit__")


class Watcher:
    """``with Watcher(network, see): ...`` calls ``see(row, tensor)`` for whatever the network's layers put out.

    see is called before anything can change the tensor in place. seen: the rows, a Seen each, in order. What a layer
    puts out is often put out by something inside it, too. Then there is one row:
      - the layer's, where a function of its own ends it (``return F.relu(self.conv(x))``);
      - the inner one's, where a layer hands on what a layer inside it put out.
    nn.Linear calls F.linear, and a layer of your own ``x @ W + b``: in a layer without layers (a leaf) a product is
    measured only when something else follows it, and has no row where it is the last thing that has one.
    """

    def __init__(self, network, see):
        self.network, self.see = network, see
        self.functions = Functions(self, network)
        self.undo, self.is_done = ExitStack(), False
        self.handles = {}  # id of a module -> those of its hooks
        self.restart()

    def restart(self):
        self.seen, self.open_calls = [], [OpenCall(None, False, [])]  # the innermost call comes last

    def __enter__(self):
        self.undo.enter_context(COPIES)
        for cls in {type(layer) for _, layer in self.network.layers.values() if _has_own_call(layer)}:
            self.undo.enter_context(_calls_seen(cls, self))
        self.undo.callback(self.take_off_hooks)
        self.put_on_hooks()
        self.listen(True)
        return self

    def put_on_hooks(self):
        begins, ends = Hook(self, self.layer_begins), Hook(self, self.layer_ends)
        for m in [m for _, m in self.network.layers.values() if not (_has_own_call(m) or id(m) in self.handles)]:
            before = m.register_forward_pre_hook(begins, with_kwargs=True)
            self.handles[id(m)] = before, m.register_forward_hook(ends, with_kwargs=True, always_call=True)

    def take_off_hooks(self, but_of=()):
        for key in self.handles.keys() - set(map(id, but_of)):
            for handle in self.handles.pop(key):
                handle.remove()

    def __exit__(self, *error):
        self.listen(False)
        self.undo.close()

    def attempt(self, do, *args):
        """Call do(*args). Pass overrides this, so that an error of ours never stops a training."""
        return do(*args)

    def listen(self, wanted):
        """See functions, and what torch's fast path would go past, or no longer."""
        stack = _get_current_function_mode_stack()
        modes = [mode for mode in stack if mode is not self.functions]
        if wanted == (len(modes) < len(stack)):
            return
        (NO_FAST_PATH.__enter__ if wanted else NO_FAST_PATH.__exit__)()
        # Beneath all other modes: those of the user's own end in any order, and each takes off the topmost one.
        while _get_current_function_mode_stack():
            _pop_mode()
        if wanted:  # but torch wants its own, of set_default_device, at the very bottom
            modes.insert(int(bool(modes) and isinstance(modes[0], DeviceContext)), self.functions)
        for mode in modes:
            _push_mode(mode)

    def call(self, args, kwargs):
        """The network's output. From then on there are no rows: the loss is no layer."""
        for t in tensors_in((args, kwargs)):
            if t.dim() == 2:  # (examples, features): dimension -1 counts the units
                self.functions.note(t, -1)
        output = self.network(args, kwargs)
        self.is_done = True
        self.mark_outputs(output)
        self.number_calls(self.seen)
        return output

    def mark_outputs(self, output):
        """An output may be near 0 or 1, wherever it was computed."""
        nodes = {t.grad_fn for t in tensors_in(output)} - {None}
        for row in self.seen:
            row.is_output = row.node in nodes
            row.is_gate |= row.is_output and row is not self.seen[-1]

    def number_calls(self, seen):
        """Tell the calls of one layer apart: "act", "act (call 2)"."""
        times = Counter()
        for row in seen:
            times[row.name] += 1
            row.name += f" (call {times[row.name]})" if times[row.name] > 1 else ""

    def wants_rows(self):
        return not self.is_done

    def is_open(self, layer):
        return any(call.layer is layer for call in self.open_calls)

    def function_called(self, row, tensor):
        """The tensor that the network goes on with. A leaf's product waits to be measured."""
        if not self.wants_rows():
            return tensor
        self.settle()
        call = self.open_calls[-1]
        if tensor._is_view() and tensor.requires_grad and not (row.activation or row.is_layer):
            tensor = tensor.clone()  # a view of what torch alone holds: changed in place it would lose its gradient
        self.seen.append(row)
        call.outputs.append(Output(tensor, tensor._version, None if row.is_layer else row))
        if row.is_layer or row.activation or not call.is_leaf:
            self._measure(row, tensor)
        return tensor

    def settle(self):
        """Measure the product that waits, before anything changes it in place."""
        for tensor, _, row in self.open_calls[-1].outputs[-1:]:
            if row is not None and row.readings is None:
                with torch._C.DisableTorchFunction():
                    self._measure(row, tensor)

    def _measure(self, row, tensor):
        row.shape, row.node = tuple(tensor.shape), tensor.grad_fn
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            text = f"{row.name} is inside vmap or another transform of torch.func, where a tensor's values are hidden"
            raise ValueError(f"{text}: call it without vmap")
        if tensor.is_nested:
            raise ValueError(f"{row.name} puts out a nested (jagged) tensor: pad it, with to_padded_tensor")
        self.see(row, tensor)

    def layer_begins(self, layer, args, kwargs):
        self.settle()
        self.open_calls.append(OpenCall(layer, id(layer) not in self.network.containers, []))

    def layer_ends(self, layer, args, kwargs, output):
        """After an error, which the network may catch, the output is None."""
        with torch._C.DisableTorchFunction():
            if not self.is_open(layer):  # an attempt has failed
                return
            call = self.open_calls.pop()
            tensors = list(tensors_in(output)) if self.wants_rows() else []
            self.open_calls[-1].outputs.extend(Output(t, t._version, None) for t in tensors)
            # Of each tensor: the rows of what came out inside and is this very tensor, unchanged; None for a layer's.
            inside = [[o.row for o in call.outputs if _is_same(o, t)] for t in tensors]
            own = next(filter(None, inside[0]), None) if len(tensors) == 1 else None
            if own:
                self._becomes(own, layer, tensors[0])
            elif call.is_leaf or not all(inside):
                self._drop_waiting(call)
                name, kind, activation = self._named(layer)
                for i, t in enumerate(tensors):
                    unit = self.functions.noted(t)[0]
                    self.seen.append(Seen(name + (f"[{i}]" if i else ""), kind, *activation, unit))
                    self._measure(self.seen[-1], t)

    def _named(self, layer):
        """What a layer's row says of it: its name, its type, (the activation that it is, its bounds)."""
        return self.network.layers[id(layer)][0], type(layer), activation_of(layer)

    def _becomes(self, row, layer, tensor):
        """The row of the function that ends a layer becomes the layer's."""
        row.name, row.type, (activation, bounds) = self._named(layer)
        if activation and bounds != row.bounds:
            row.bounds, row.readings = bounds, None
        row.activation = activation or row.activation
        if row.readings is None:
            self._measure(row, tensor)

    def _drop_waiting(self, call):
        """A product that a leaf goes on with, by adding its bias, say: the leaf's own row tells more."""
        for _, _, row in call.outputs[-1:] if call.is_leaf else ():
            if row is not None and not row.activation:
                self.seen.remove(row)


def _is_same(output, t):
    """Whether a layer puts out this very tensor, unchanged; torch wraps it for a full backward hook of the user's."""
    node, was = t.grad_fn, output.tensor
    if was.grad_fn is not node and type(node).__name__ == "BackwardHookFunctionBackward":
        return node.next_functions[t.output_nr][0] is was.grad_fn and output.version == t._version
    return was is t and output.version == t._version


def _has_own_call(layer):
    """Whether a layer's __call__ is not torch's, whose hooks do not see it then."""
    return type(layer).__call__ is not nn.Module.__call__


def state_without_hooks(module):
    """What is copied, or saved, of a watched module."""
    state = dict(vars(module))
    ours = {key for table in HOOKS for key, hook in state[table].items() if isinstance(hook, Hook)}
    for table in HOOKS + OF_HOOKS:
        state[table] = type(state[table])({key: value for key, value in state[table].items() if key not in ours})
    return state


def without_hooks(module):
    """What torch.jit.script takes in place of a watched module: it would compile the hooks as well."""
    if isinstance(module, torch.jit.ScriptModule):
        return module
    bare = copy.copy(module)
    vars(bare).update(state_without_hooks(module), _modules=module._modules.copy())
    return bare


@contextmanager
def _calls_seen(cls, watcher):
    """Let a watcher see the calls of a class's objects. Several may do so at once, and end in any order."""
    if cls not in PATCHED:
        watchers = []
        PATCHED[cls] = watchers, patch.object(cls, "__call__", _watched(cls, watchers))
        PATCHED[cls][1].start()
    watchers, patched = PATCHED[cls]
    watchers.append(watcher)
    try:
        yield
    finally:
        watchers.remove(watcher)
        if not watchers:
            del PATCHED[cls]
            patched.stop()


def _watched(cls, watchers):
    call = cls.__call__

    def watched(layer, *args, **kwargs):
        is_first = type(layer) is cls  # or else super().__call__
        those = [w for w in watchers if is_first and id(layer) in w.network.layers]
        output = None
        for w in those:
            w.attempt(w.layer_begins, layer, args, kwargs)
        try:
            output = call(layer, *args, **kwargs)
        finally:
            for w in those:
                w.attempt(w.layer_ends, layer, args, kwargs, output)
        return output

    return watched


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
