"""See the functions that a network calls: activations, products with its weights, losses."""

import os
import sys
import weakref
from collections import deque
from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from . import calls
from .rows import LossCall

INSIDE = os.path.dirname(torch.__file__), os.path.dirname(__file__)
MODULES = os.path.join(INSIDE[0], "nn", "modules")


@dataclass(eq=False, slots=True)
class Seen:
    """One tensor that a layer or a function put out: what a row will say of it."""

    name: str  # where it is: the layer's path, the function, the line
    type: type  # the layer's, or torch's layer that does the same
    activation: str | None  # the name in ACTIVATIONS
    bounds: tuple | None
    unit: int | None  # the dimension that counts its units, from the end, where that is certain
    is_layer: bool = False  # a layer whose forward was called past the hooks
    shape: tuple = ()
    readings: dict | None = None  # None until it is measured
    gradient: object = None  # its place in the graph, or the readings of its gradient
    is_gate: bool = False
    node: object = None  # of the graph
    is_output: bool = False


class Functions(TorchFunctionMode):
    """While it is on, ``watcher.function_called(row, output)`` is called after each activation and product.

    Also kept: the dimension of every tensor's units, the order in which weights are used, the calls of losses, and
    what is no parameter though it needs a gradient: inputs, and leaves that the call makes itself.
    """

    def __init__(self, watcher, network):
        super().__init__()
        self.watcher, self.network = watcher, network
        self.weights = {id(p) for p in (network.parameters or {}).values()} | set(network.tensors)
        self.uses = {}  # id of a weight -> (the weight, the layer class that it is used as), in the order of use
        self.notes = {}  # id of a tensor -> (a reference to it, its units' dimension, the gate that it is)
        self.losses = deque(maxlen=8)  # the last ones: they hold on to what they were given
        self.made, self.mixing = [], []  # mixing: (name, shape before, after)
        # Of attention written by hand: (name, the weights' shape, the dimension of their softmax, the mean of the largest).
        self.attention, self.softmax = [], (None, 0)
        self.float_masks = []  # names of attention whose mask holds 0.0 and 1.0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # which can't take in what follows
            return func(*args, **kwargs)
        key = calls.key_of(func)
        if key is None and "requires_grad" not in kwargs:
            return func(*args, **kwargs)
        if key and func.__name__.endswith("_"):
            self.watcher.attempt(self.watcher.settle)
        output = func(*args, **kwargs)  # a warning here is torch's, about the network's own call
        if key in calls.MADE or kwargs.get("requires_grad"):
            self.made.append(args[0] if key in calls.MADE else output)
        if key is None or key in calls.MADE:
            return output
        with torch._C.DisableTorchFunction():
            replaced = self.watcher.attempt(self._look, func, key, output, args, kwargs)
        return output if replaced is None else replaced

    def note(self, tensor, unit, gate=None):
        """Keep in mind the dimension that counts a tensor's units, from the end, and the gate that it is."""
        self.notes[id(tensor)] = weakref.ref(tensor), unit, gate

    def noted(self, tensor):
        """(its units' dimension, its gate), None for what is not certain."""
        reference, *note = self.notes.get(id(tensor), (None, None, None))
        return note if reference is not None and reference() is tensor else (None, None)

    def parameters(self, others=()):
        """By name: the network's own; else the leaves that it used, in that order, and others that the loss needs."""
        if self.network.parameters is not None:
            return self.network.parameters
        made = {id(t) for t in self.made}
        used = [t for i, (t, _) in self.uses.items() if t.requires_grad and t.is_leaf and i not in made]
        return self.network.named([*used, *(t for t in others if id(t) not in self.uses)])

    def _look(self, func, key, output, args, kwargs):
        """The output to go on with."""
        if key in calls.LOSSES:
            self._loss_called(func.__name__, output, *args, **kwargs)
        elif key in calls.OF_PAIRS and len(args) > 2:
            self._loss_called(func.__name__, output, args[0], args[2])
        elif key in ("sub", "mul") and not self.watcher.wants_rows() and calls.spreads(output, *args[:2]):
            self._loss_called("the loss", output, *args[:2])
        elif key in calls.MIXING and args and calls.is_mixing(key, output, *args, **kwargs):
            self.mixing.append((self._where()[1].format(func.__name__), args[0].shape, output.shape))
        elif key in ("multiheadattentionforward", "scaleddotproductattention"):
            mask = calls.argument("attn_mask", 3 if key.startswith("scaled") else 16, args, kwargs)
            if calls.is_mask_of_floats(mask):
                self.float_masks.append(self._where()[1].format(func.__name__))
        if key in ("softmax", "dropout", "matmul", "bmm") and args:
            self._attends(key, func, output, args, kwargs)
        first = output[0] if isinstance(output, tuple) else output
        if not isinstance(first, torch.Tensor) or not (first.is_floating_point() or first.is_complex()):
            return output
        given = [a if isinstance(a, (list, tuple)) else (a,) for a in (*args, *kwargs.values())]
        tensors = [t for some in given for t in some if isinstance(t, torch.Tensor)]
        weights = [t for t in tensors if self._is_weight(t)]
        row, gate, unit = None, None, -1 if key in calls.RECURRENT else None
        if key in calls.PRODUCTS and (key != "getitem" or (self._is_weight(args[0]) and calls.is_lookup(*args))):
            if key in ("matmul", "mm") and weights and weights[0] is tensors[0] and not _is_learnt(weights[0]):
                weights = weights[1:]  # a matrix on the left that does not learn: an adjacency, a mask
            kind, unit = calls.PRODUCTS[key]
            unit = calls.unit_of_product(key, unit, first, tensors, weights, args, kwargs)
            self._used(weights, kind)
            row = self._row(func, key, kind, unit, weights) if weights else None
        elif key not in calls.RECURRENT:
            unit, gate = self._carried(key, first, tensors)
            self._used(weights, None)
            kind = calls.activation(key, first, args, kwargs)
            if kind and not (weights and weights[0] is tensors[0]):
                row = self._row(func, key, kind, unit, [], calls.bounds(kind, args, kwargs))
                gate = row if kind in calls.GATES else None
        if row:
            replaced = self.watcher.function_called(row, first)
            output, first = (output, first) if replaced is first else (replaced, replaced)
        if unit is not None or gate is not None:
            self.note(first, unit, gate)
        return output

    def _attends(self, key, func, output, args, kwargs):
        """What a softmax put out, and a dropout perhaps, is multiplied with the values."""
        reference, dim = self.softmax
        is_softmaxed = reference is not None and reference() is args[0]
        if key == "softmax":
            self.softmax = weakref.ref(output), calls.argument("dim", 1, args, kwargs, -1) % max(output.dim(), 1)
        elif reference is not None and args[0]._is_view() and args[0]._base is reference():
            self.mixing = [
                entry for entry in self.mixing if "softmax" not in entry[0]
            ]  # k.T @ v: summed over it, as meant
        elif is_softmaxed and key == "dropout":
            self.softmax = weakref.ref(output), dim
        elif is_softmaxed and args[0].dim() > 2:
            largest = args[0].detach().amax(-1).mean().item()
            self.attention.append((self._where()[1].format(func.__name__), args[0].shape, dim, largest))

    def _is_weight(self, t):
        """Whether it is a tensor that is learnt, or held by the network, or a view of one (W.T)."""
        base = _base(t)
        return base is not None and (id(base) in self.weights or (base.requires_grad and base.is_leaf))

    def _used(self, weights, kind):
        for base in map(_base, weights):
            known = self.uses.get(id(base))
            self.uses[id(base)] = base, (known and known[1]) or kind  # the first use as a layer tells its kind

    def _carried(self, key, output, tensors):
        """The units' dimension and the gate that an elementwise function or a pooling hands on."""
        notes = [(t, *self.noted(t)) for t in tensors]
        if key in calls.POOLING:
            (t, unit, _), *_ = notes
            return (unit if unit == calls.POOLING[key] and t.dim() == output.dim() else None), None
        stays = key not in calls.RESHAPING
        units = {unit for t, unit, _ in notes if unit is not None and t.shape == output.shape and stays}
        gates = [gate for *_, gate in notes if gate is not None]
        if key == "mul" and gates and len(notes) > 1 and all(_is_hidden(*note, output) for note in notes):
            # It opens and closes what it is multiplied by: it may be saturated.
            for g in gates if any("igmoid" in g.activation for g in gates) else gates[:1]:
                g.is_gate = True
        return (units.pop() if len(units) == 1 else None), (gates[0] if gates and len(notes) == 1 else None)

    def _row(self, func, key, kind, unit, weights, bounds=None):
        """kind: the name of torch's layer that does the same. weights: of a product."""
        layer, where = self._where()
        written = "embedding" if key == "getitem" else func.__name__.strip("_")
        if layer is None and weights:
            name = self.network.tensor_name(_base(max(weights, key=torch.Tensor.dim)), "")
            last = name.rpartition(".")[2]
            written += f"({name if last.isdigit() else last})" if name else ""
        activation = None if weights else kind
        kind = getattr(nn, kind, nn.Linear) if layer is None else type(layer)
        return Seen(where.format(written), kind, activation, bounds, unit, layer is not None)

    def _where(self):
        """(the layer whose forward was called past the hooks, or None; the place's name, with {} for the function's)."""
        frame = sys._getframe(1)
        while frame.f_back and frame.f_code.co_filename.startswith(INSIDE):
            if frame.f_code.co_filename.startswith(MODULES):
                break
            if frame.f_code is type(self.network).__call__.__code__:  # it calls a list's layers: this is one of them
                return None, f"{self.network.place}.{{}}"
            frame = frame.f_back
        code = frame.f_code
        in_torch = code.co_filename.startswith(INSIDE)
        layer = self.watcher.open_calls[-1].layer
        path = "" if layer is None else self.network.layers[id(layer)][0]
        this = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if this is not None and this is not layer and id(this) in self.network.layers:
            path, layer = self.network.layers[id(this)]
            if in_torch and not self.watcher.is_open(layer):
                return layer, path
        if not path and code.co_name != "<module>":
            path = code.co_name.strip("<>")
        return None, f"{path}.{{}}{'' if in_torch else f':{frame.f_lineno}'}".lstrip(".")

    def _loss_called(self, name, loss, input, target, *args, **kwargs):
        if name.endswith("loss") and target.requires_grad and not input.requires_grad:
            input, target = target, input  # mse_loss(y, output) is as good: the output comes first here
        reduction = calls.argument("reduction", 4, args, kwargs, "mean")
        edge = get_gradient_edge(loss) if loss.numel() > 1 and loss.requires_grad else None
        input, target, loss, node = input.detach(), target.detach(), loss.detach(), input.grad_fn
        counts = kwargs.get("label_smoothing", 0) == 0
        if reduction != "mean":
            counts &= calls.argument("weight", 0, args, kwargs) is None and not target.is_floating_point()
        mean = (loss.sum() / target.numel() if reduction == "sum" else loss.mean()) if counts else None
        self.losses.append(LossCall(name, input, target, loss, mean, node, edge))


def _is_hidden(t, unit, gate, output):
    """Whether a factor is no constant, such as a mask."""
    return unit is not None or gate is not None or (t.requires_grad and t.shape == output.shape)


def _base(t):
    return t._base if t._is_view() else t


def _is_learnt(weight):
    return weight.requires_grad or isinstance(_base(weight), nn.Parameter)
