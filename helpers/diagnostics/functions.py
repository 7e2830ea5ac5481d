"""See the functions that a network calls: activations, products with its weights, losses."""

import os
import sys
import weakref
from collections import deque
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .rows import ACTIVATIONS, LossCall

INSIDE = os.path.dirname(torch.__file__), os.path.dirname(__file__)
MODULES = os.path.join(INSIDE[0], "nn", "modules")

# By the function's name, without underscores: torch.tanh, x.tanh_ and F.tanh are one.
BY_NAME = {name.lower(): name for name in ACTIVATIONS} | dict.fromkeys(["clamp", "clampmin", "clip"], "ReLU")
BY_NAME |= dict(specialexpit="Sigmoid", threshold="ReLU")
# What multiplies by a weight: the layer class that does the same, and the dimension of the units, from the end.
# 1: they are counted in dimension 1, from the front. None: it is not known.
PRODUCTS = dict.fromkeys(["linear", "matmul", "rmatmul", "mm", "bmm", "mv", "addmm", "baddbmm"], ("Linear", -1))
PRODUCTS |= {f"{kind.lower()}{n}d": (f"{kind}{n}d", -n - 1) for kind in ("Conv", "ConvTranspose") for n in (1, 2, 3)}
PRODUCTS |= dict(bilinear=("Bilinear", -1), einsum=("Linear", None), getitem=("Embedding", -1))
PRODUCTS |= dict(embedding=("Embedding", -1), embeddingbag=("EmbeddingBag", -1), layernorm=("LayerNorm", -1))
PRODUCTS |= dict(rmsnorm=("RMSNorm", -1), groupnorm=("GroupNorm", 1), instancenorm=("InstanceNorm1d", 1))
PRODUCTS |= dict(batchnorm=("BatchNorm1d", 1), nativebatchnorm=("BatchNorm1d", 1))
RECURRENT = {"lstm", "gru", "rnntanh", "rnnrelu", "multiheadattentionforward", "lstmcell", "grucell"}
# What leaves the units where they are.
ELEMENTWISE = (
    "add sub rsub mul div truedivide neg pow clone contiguous to float half bfloat16 double type typeas detach where "
    "dropout alphadropout dropout1d dropout2d dropout3d maskedfill nantonum addcmul lerp pad setitem fill zero copy"
)
MADE = {"requiresgrad"}  # x.requires_grad_(), x.requires_grad = True
RESHAPING = {"view", "reshape", "flatten", "getitem", "expand", "expandas", "permute", "transpose"}
RESHAPING |= {"squeeze", "unsqueeze"}
POOLING = {f"{kind}pool{n}d": -n - 1 for kind in ("max", "avg", "adaptivemax", "adaptiveavg", "lp") for n in (1, 2, 3)}
MIXING = {"view", "reshape", "softmax", "logsoftmax"}
LOSSES = {"crossentropy", "nllloss", "binarycrossentropy", "binarycrossentropywithlogits", "kldiv", "mseloss"}
LOSSES |= {"l1loss", "smoothl1loss", "huberloss", "softmarginloss", "hingeembeddingloss"}
OF_PAIRS = {"cosineembeddingloss", "marginrankingloss"}
KNOWN = {*MADE, *MIXING, *BY_NAME, *PRODUCTS, *RECURRENT, *ELEMENTWISE.split(), *RESHAPING, *POOLING}
KNOWN |= LOSSES | OF_PAIRS
GATES = {"Sigmoid", "Hardsigmoid", "Tanh"}


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

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # which can't take in what follows
            return func(*args, **kwargs)
        key = _key(func)
        if key is None and "requires_grad" not in kwargs:
            return func(*args, **kwargs)
        if key and func.__name__.endswith("_"):
            self.watcher.attempt(self.watcher.settle)
        output = func(*args, **kwargs)  # a warning here is torch's, about the network's own call
        if key in MADE or kwargs.get("requires_grad"):
            self.made.append(args[0] if key in MADE else output)
        if key is None or key in MADE:
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
        if key in LOSSES:
            self._loss_called(func.__name__, output, *args, **kwargs)
        elif key in OF_PAIRS and len(args) > 2:
            self._loss_called(func.__name__, output, args[0], args[2])
        elif key in ("sub", "mul") and not self.watcher.wants_rows() and _spreads(output, *args[:2]):
            self._loss_called("the loss", output, *args[:2])
        elif key in MIXING and args and _is_mixing(key, output, *args, **kwargs):
            self.mixing.append((self._where()[1].format(func.__name__), args[0].shape, output.shape))
        first = output[0] if isinstance(output, tuple) else output
        if not isinstance(first, torch.Tensor) or not (first.is_floating_point() or first.is_complex()):
            return output
        given = [a if isinstance(a, (list, tuple)) else (a,) for a in (*args, *kwargs.values())]
        tensors = [t for some in given for t in some if isinstance(t, torch.Tensor)]
        weights = [t for t in tensors if self._is_weight(t)]
        row, gate, unit = None, None, -1 if key in RECURRENT else None
        if key in PRODUCTS and (key != "getitem" or (self._is_weight(args[0]) and _is_lookup(*args))):
            if key in ("matmul", "mm") and weights and weights[0] is tensors[0] and not _is_learnt(weights[0]):
                weights = weights[1:]  # a matrix on the left that does not learn: an adjacency, a mask
            kind, unit = PRODUCTS[key]
            unit = _unit_of_product(key, unit, first, tensors, weights, args, kwargs)
            self._used(weights, kind)
            row = self._row(func, key, kind, unit, weights) if weights else None
        elif key not in RECURRENT:
            unit, gate = self._carried(key, first, tensors)
            self._used(weights, None)
            kind = _activation(key, args, kwargs)
            if kind and not (weights and weights[0] is tensors[0]):
                row = self._row(func, key, kind, unit, [], _bounds(kind, args, kwargs))
                gate = row if kind in GATES else None
        if row:
            replaced = self.watcher.function_called(row, first)
            output, first = (output, first) if replaced is first else (replaced, replaced)
        if unit is not None or gate is not None:
            self.note(first, unit, gate)
        return output

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
        if key in POOLING:
            (t, unit, _), *_ = notes
            return (unit if unit == POOLING[key] and t.dim() == output.dim() else None), None
        units = {unit for t, unit, _ in notes if unit is not None and t.shape == output.shape and key not in RESHAPING}
        gates = [gate for *_, gate in notes if gate is not None]
        if key == "mul" and gates and len(notes) > 1 and all(unit is not None or gate for _, unit, gate in notes):
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
        reduction = _argument("reduction", 4, args, kwargs, "mean")
        input, target, loss, node = input.detach(), target.detach(), loss.detach(), input.grad_fn
        counts = kwargs.get("label_smoothing", 0) == 0
        if reduction != "mean":
            counts &= _argument("weight", 0, args, kwargs) is None and not target.is_floating_point()
        mean = (loss.sum() / target.numel() if reduction == "sum" else loss.mean()) if counts else None
        self.losses.append(LossCall(name, input, target, loss, mean, node))


@cache
def _key(func):
    """The function's name in the tables above; None if it does not matter."""
    name = getattr(func, "__name__", "")
    name = getattr(func.__self__, "__name__", "") if name == "__set__" else name
    name = name.replace("_", "").lower()
    return name if name in KNOWN else None


def _is_mixing(key, output, x, dim=None, *_, **others):
    """Whether a view reads the sizes in another order, or a softmax sums over dimension 0."""
    if x.is_nested:
        return False
    if key.endswith("softmax"):
        dim = dim if dim is not None else 0 if x.dim() in (1, 3) else 1  # as torch guesses
        return x.dim() > 1 and dim in (0, -x.dim())
    was, now = ([n for n in t.shape if n > 1] for t in (x, output))
    if sorted(was) == sorted(now):
        return was != now
    return bool(now) and now[0] in was[1:] and was[0] % now[0] > 0  # what was counted inside is outermost


def _spreads(output, a, b):
    """Whether (N, 1) and (N,) became (N, N): an output and its targets, as only one of them needs a gradient."""
    are_pairs = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.dim() != b.dim()
    return are_pairs and a.numel() == b.numel() < output.numel() and a.requires_grad != b.requires_grad


def _base(t):
    return t._base if t._is_view() else t


def _is_learnt(weight):
    return weight.requires_grad or isinstance(_base(weight), nn.Parameter)


def _argument(name, place, args, kwargs, default=None):
    return kwargs.get(name, args[place] if len(args) > place else default)


def _unit_of_product(key, unit, output, tensors, weights, args, kwargs):
    if key in ("matmul", "mm"):  # x @ W has the units last, W @ x in front of the examples
        left = bool(weights) and weights[-1] is tensors[0]
        return (-2 if output.dim() > 1 else -1) if left else -1 if weights else None
    if key in ("layernorm", "rmsnorm") and len(_argument("normalized_shape", 1, args, kwargs)) > 1:
        return None
    return 1 - output.dim() if unit == 1 else unit


def _is_lookup(table, index):
    """Whether C[X] looks up rows: X holds whole numbers."""
    whole = isinstance(index, torch.Tensor) and index.dtype in (torch.int64, torch.int32)
    return whole and table.dim() == 2 and table.requires_grad


def _activation(key, args, kwargs):
    """The activation that a function is, or None: a clamp or a threshold is not always one."""
    if key == "threshold":
        return "ReLU" if _argument("threshold", 1, args, kwargs) == 0 == _argument("value", 2, args, kwargs) else None
    if not key.startswith(("clamp", "clip")):
        return BY_NAME.get(key)
    limits = _argument("min", 1, args, kwargs), _argument("max", 2, args, kwargs)
    is_hidden = args[0].requires_grad or not torch.is_grad_enabled()  # inputs are clamped, too
    if type(limits[0]) not in (int, float):
        return None
    return "ReLU" if limits == (0, None) else "Hardtanh" if limits == (-1, 1) and is_hidden else None


def _bounds(kind, args, kwargs):
    if kind == "Hardtanh":
        low, high = _argument("min_val", 1, args, kwargs, -1), _argument("max_val", 2, args, kwargs, 1)
        return "dies" if low == 0 else (low, high)
    return ACTIVATIONS.get(kind)
