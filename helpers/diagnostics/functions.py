"""See the functions that a network calls: activations, products with its weights, cross-entropy."""

import os
import sys
import weakref
from typing import NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .rows import ACTIVATIONS

__all__ = ["Called", "CrossEntropy", "Functions", "is_softmaxed"]

INSIDE = os.path.dirname(torch.__file__), os.path.dirname(__file__)
MODULES = os.path.join(INSIDE[0], "nn", "modules")


def _words(text):
    return set(text.split())


# By the function's name, without underscores: torch.tanh, x.tanh_ and F.tanh are one.
BY_NAME = {name.lower(): name for name in ACTIVATIONS}
BY_NAME |= dict(specialexpit="Sigmoid", clamp="ReLU", clampmin="ReLU")
# What multiplies by a weight: the layer class that does the same, and the dimension of the units, from the end.
# 1 stands for dimension 1 whatever their number, None for one that is not known.
PRODUCTS = {"linear": ("Linear", -1), "bilinear": ("Bilinear", -1), "einsum": ("Linear", None)}
PRODUCTS |= dict.fromkeys(("matmul", "rmatmul", "mm", "bmm", "mv", "addmm", "baddbmm"), ("Linear", -1))
PRODUCTS |= {f"conv{n}d": (f"Conv{n}d", -n - 1) for n in (1, 2, 3)}
PRODUCTS |= {f"convtranspose{n}d": (f"ConvTranspose{n}d", -n - 1) for n in (1, 2, 3)}
PRODUCTS |= {"embedding": ("Embedding", -1), "embeddingbag": ("EmbeddingBag", -1), "getitem": ("Embedding", -1)}
PRODUCTS |= {"batchnorm": ("BatchNorm1d", 1), "instancenorm": ("InstanceNorm1d", 1), "groupnorm": ("GroupNorm", 1)}
PRODUCTS |= {"layernorm": ("LayerNorm", -1), "rmsnorm": ("RMSNorm", -1), "nativebatchnorm": ("BatchNorm1d", 1)}
RECURRENT = _words("lstm gru rnntanh rnnrelu multiheadattentionforward lstmcell grucell")
# What leaves the units where they are.
ELEMENTWISE = _words(
    "add sub rsub mul div truedivide neg pow clone contiguous to float half bfloat16 double type typeas"
)
ELEMENTWISE |= _words(
    "detach dropout alphadropout dropout1d dropout2d dropout3d where maskedfill nantonum addcmul lerp"
)
ELEMENTWISE |= _words("pad setitem fill zero copy") | BY_NAME.keys()
RESHAPING = _words("view reshape unsqueeze squeeze getitem expand expandas permute transpose flatten")
POOLING = {f"{kind}pool{n}d": -n - 1 for kind in ("max", "avg", "adaptivemax", "adaptiveavg", "lp") for n in (1, 2, 3)}
LOSSES = {"crossentropy", "nllloss"}
MADE = {"requiresgrad"}  # x.requires_grad_(), x.requires_grad = True
KNOWN = {*MADE, *BY_NAME, *PRODUCTS, *RECURRENT, *ELEMENTWISE, *RESHAPING, *POOLING, *LOSSES}
KEYS = {}  # of the functions that were called so far: their name, or None for one that does not matter
GATES = {"Sigmoid", "Hardsigmoid", "Tanh"}


class Called(NamedTuple):
    """A function that was called: what a row will say of it."""

    name: str  # where it is: the layer's path, the function, the line
    type: type  # torch's layer that does the same
    activation: str | None  # the name in ACTIVATIONS
    bounds: tuple | None
    output: torch.Tensor
    version: int
    is_layer: bool  # whose forward was called past the hooks


class CrossEntropy(NamedTuple):
    """A call of cross-entropy: what can be wrong with its input."""

    loss: float
    classes: int
    is_mean: bool
    is_softmaxed: bool


class Functions(TorchFunctionMode):
    """While it is on, ``watcher.function_called(called)`` is called after each activation and product.

    Also kept: the dimension of every tensor's units, the order in which weights are used, calls of cross-entropy.
    """

    def __init__(self, watcher, network):
        super().__init__()
        self.watcher, self.network = watcher, network
        self.weights = {id(p) for p in (network.parameters or {}).values()} | set(network.tensors)
        self.uses = {}  # id of a weight -> (the weight, the layer class that it is used as), in the order of use
        self.notes = {}  # id of a tensor -> (a weak reference to it, its units' dimension, the gate that it is)
        self.cross_entropies, self.made = [], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        try:
            key = KEYS[func]
        except KeyError:
            name = getattr(func, "__name__", "")
            name = getattr(func.__self__, "__name__", "") if name == "__set__" else name
            name = name.replace("_", "").lower()
            key = KEYS[func] = name if name in KNOWN else None
        if key is None or key in MADE:
            output = func(*args, **kwargs)
            if kwargs.get("requires_grad") or key in MADE:  # a leaf that is made here is no parameter
                self.made.append(args[0] if key in MADE else output)
            return output
        self.watcher.about_to_change(args[0] if args and func.__name__.endswith("_") else None)
        output = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            return self._look(func, key, output, args, kwargs)

    def unit(self, tensor):
        """The dimension that counts a tensor's units, from the end; None where that is not certain."""
        return self._note(tensor)[0]

    def leaves_used(self):
        """The weights that were used and need a gradient, by id; but what the call made itself."""
        made = {id(t) for t in self.made}
        return {i: t for i, (t, _) in self.uses.items() if t.requires_grad and t.is_leaf and i not in made}

    def copy_note(self, tensor, copy):
        self.notes[id(copy)] = weakref.ref(copy), *self._note(tensor)

    def set_input(self, tensor):
        if tensor.dim() == 2:  # (examples, features), as everywhere in torch
            self.notes[id(tensor)] = weakref.ref(tensor), -1, None

    def _note(self, tensor):
        reference, *note = self.notes.get(id(tensor), (lambda: None, None, None))
        return note if reference() is tensor else (None, None)

    def _look(self, func, key, output, args, kwargs):
        first = output[0] if key in RECURRENT or key == "nativebatchnorm" else output
        if key in LOSSES:
            self._cross_entropy(output, *args, **kwargs)
        if not isinstance(first, torch.Tensor) or not first.is_floating_point() and not first.is_complex():
            return output
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        tensors += [a for a in kwargs.values() if isinstance(a, torch.Tensor)]
        if key == "einsum" and len(args) == 2 and isinstance(args[1], (list, tuple)):
            tensors = list(args[1])
        weights = [t for t in tensors if self._is_weight(t)]
        called, unit, gate = None, None, None
        if key in PRODUCTS and (key != "getitem" or _is_lookup(args) and self._is_weight(args[0])):
            kind, unit = PRODUCTS[key]
            if key == "matmul" or key == "mm":
                left = bool(weights) and weights[-1] is tensors[0]
                unit = (-2 if first.dim() > 1 else -1) if left else -1 if weights else None
            unit = unit if unit != 1 else 1 - first.dim()
            if key in ("layernorm", "rmsnorm") and len(args[1] if len(args) > 1 else kwargs["normalized_shape"]) > 1:
                unit = None
            self._used(weights, kind)
            called = self._called(func, key, kind, first, weights) if weights else None
        elif key in RECURRENT:
            unit = -1
        else:
            self._used(weights, None)
            unit, gate = self._carried(key, first, tensors)
            if key in BY_NAME and _is_activation(key, args, kwargs) and not (weights and weights[0] is tensors[0]):
                called = self._called(func, key, BY_NAME[key], first, (), _bounds(key, args, kwargs))
        if called is not None:
            seen, copy = self.watcher.function_called(called, unit)
            if copy is not first:
                output = first = copy
            gate = seen if called.activation in GATES else None
        if unit is not None or gate is not None:
            self.notes[id(first)] = weakref.ref(first), unit, gate
        return output

    def _is_weight(self, t):
        """Whether it is a tensor that is learnt, or held by the network, or a view of one (W.T)."""
        base = t._base if t._is_view() else t
        return base is not None and (id(base) in self.weights or (base.requires_grad and base.is_leaf))

    def _used(self, weights, kind):
        for t in weights:
            base = t._base if t._is_view() else t
            known = self.uses.get(id(base))
            self.uses[id(base)] = base, (known and known[1]) or kind

    def _carried(self, key, output, tensors):
        """The units' dimension and the gate that an elementwise function or a pooling hands on."""
        notes = [(t, *self._note(t)) for t in tensors]
        if key in POOLING:
            (t, unit, _), *_ = notes
            return (unit if unit == POOLING[key] and t.dim() == output.dim() else None), None
        units = (
            set()
            if key in RESHAPING
            else {unit for t, unit, _ in notes if unit is not None and t.shape == output.shape}
        )
        gates = [gate for *_, gate in notes if gate is not None]
        if key == "mul" and gates and len(notes) > 1 and all(unit is not None or gate for _, unit, gate in notes):
            # It opens and closes what it is multiplied by: it may be saturated.
            next((g for g in gates if "igmoid" in g.activation), gates[0]).is_gate = True
        gate = gates[0] if gates and len(notes) == 1 else None
        return (units.pop() if len(units) == 1 else None), gate

    def _called(self, func, key, kind, output, weights, bounds=None):
        activation = kind if key in BY_NAME else None
        written = "embedding" if key == "getitem" else func.__name__.strip("_")
        owner, where = self._where()
        if owner is None and weights:
            weight = max(weights, key=torch.Tensor.dim)
            name = self.network.tensor_name(weight._base if weight._is_view() else weight, "")
            written += f"({_tail(name)})" if name else ""
        kind = getattr(nn, kind, nn.Linear) if owner is None else type(owner)
        return Called(
            where.format(written),
            kind,
            activation,
            bounds or ACTIVATIONS.get(activation),
            output,
            output._version,
            owner is not None,
        )

    def _where(self):
        """(the layer whose forward was called past the hooks, or None; the place's name, with {} for the function's)."""
        frame = sys._getframe(4)
        while frame.f_back and frame.f_code.co_filename.startswith(INSIDE):
            if frame.f_code.co_filename.startswith(MODULES):
                break
            if frame.f_code is type(self.network).__call__.__code__:  # a function in a list of layers
                return None, f"{self.network.place}.{{}}"
            frame = frame.f_back
        code = frame.f_code
        in_torch = code.co_filename.startswith(INSIDE)
        line = "" if in_torch else f":{frame.f_lineno}"
        layer, path = self.watcher.innermost()
        this = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if this is not None and this is not layer and id(this) in self.network.layers:
            path, layer = self.network.layers[id(this)]
            if in_torch and not self.watcher.is_open(layer):
                return layer, path
        if not path and code.co_name != "<module>":
            path = code.co_name.strip("<>")
        return None, f"{path}.{{}}{line}".lstrip(".")

    def _cross_entropy(self, loss, input, target, *args, **kwargs):
        reduction = kwargs.get("reduction", args[4] if len(args) > 4 else "mean")
        values = input.detach()
        if values.dim() > 1 and values.numel() and loss.numel() == 1:
            is_mean = reduction == "mean" and kwargs.get("label_smoothing", 0) == 0
            self.cross_entropies.append(CrossEntropy(loss.item(), values.shape[1], is_mean, is_softmaxed(values)))


def is_softmaxed(values):
    """Whether dimension 1 holds probabilities."""
    return values.shape[1] > 1 and bool((values >= 0).all() and ((values.sum(1) - 1).abs() < 1e-3).all())


def _tail(name):
    """The last part of a weight's name, or all of it if that is a number."""
    tail = name.rpartition(".")[2]
    return name if tail.isdigit() else tail


def _is_lookup(args):
    """Whether C[X] looks up rows: X holds whole numbers."""
    index = args[1]
    return (
        args[0].dim() == 2
        and isinstance(index, torch.Tensor)
        and index.dtype in (torch.int64, torch.int32)
        and args[0].requires_grad
    )


def _is_activation(key, args, kwargs):
    if not key.startswith("clamp"):
        return True
    low = kwargs.get("min", args[1] if len(args) > 1 else None)
    high = kwargs.get("max", args[2] if len(args) > 2 else None)
    return high is None and isinstance(low, (int, float)) and low == 0


def _bounds(key, args, kwargs):
    if key != "hardtanh":
        return None
    low, high = (kwargs.get(n, args[i] if len(args) > i else d) for n, i, d in (("min_val", 1, -1), ("max_val", 2, 1)))
    return low, high
