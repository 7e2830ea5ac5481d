"""What a network is made of, whatever its kind: a module, plain classes, a list of layers, a function."""

import random
import sys
from collections import deque
from contextlib import contextmanager, nullcontext
from functools import partial
from inspect import unwrap
from operator import is_
from types import CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import nn

__all__ = ["Network", "held", "left_as_it_was"]

PLAIN = (str, bytes, int, float, complex, type(None), type, ModuleType, torch.dtype, torch.device, torch.Size)
FOREIGN = {*sys.stdlib_module_names, "torch", "numpy", "matplotlib", "IPython", "ipykernel", "tqdm", "pandas", "PIL"}
TORCHS = vars(nn.Module()).keys()  # what torch itself keeps in every module
CONTAINERS = (dict, list, tuple, set, frozenset, deque)


class Network:
    """A model of any kind: ``layers`` and ``tensors`` by their id, with their names; ``network(inputs)`` calls it.

    root: the model, or the original of a compiled one. parameters: the given ones by name (a list or a dict);
    None for the model's own, which are found when it has run, if it has no parameters().
    """

    def __init__(self, model, parameters=None):
        self.root = root = _original(model)
        fits = (callable(root) and not isinstance(root, type)) or isinstance(root, (list, tuple))
        if not fits:
            kind = f"the class {root.__name__}" if isinstance(root, type) else f"a {type(model).__name__}"
            raise ValueError(f"model is {kind}: give a module (an object), a function, or a list of layers")
        self.reached = reached = held(root)
        self.name = getattr(root, "__name__", type(root).__name__).strip("<>")
        self.layers = {}  # id -> (name, layer)
        if isinstance(root, nn.Module):
            self.layers = {id(m): (_written(name) or self.name, m) for name, m in nn.Module.named_modules(root)}
        for path, value in reached.values():
            if isinstance(value, nn.Module) or (is_own(value) and callable(value)):
                self.layers.setdefault(id(value), (_written(path) or self.name, value))
        _refuse([root, *(layer for _, layer in self.layers.values())])
        self.containers = {
            i for i, (_, layer) in self.layers.items() if any(id(v) in self.layers for v in _inside(layer))
        }
        self.tensors = {i: (path, value) for i, (path, value) in reached.items() if isinstance(value, torch.Tensor)}
        self.owners = {}  # the class of the layer that holds a tensor, by the tensor's id
        for i, (_, layer) in self.layers.items():
            if i in self.containers and not isinstance(layer, nn.Module):
                continue  # its use says more
            self.owners |= {id(v): type(layer) for _, v in _parts(layer) if isinstance(v, torch.Tensor)}
        self.parameters = self._own_parameters() if parameters is None else self._named(parameters)

    def __call__(self, args, kwargs):
        if not isinstance(self.root, (list, tuple)):
            return self.root(*args, **kwargs)
        (x,) = args
        for place, layer in enumerate(self.root):
            self.place = place
            x = layer(x)
        return x

    def own_call(self, layer):
        """Whether a layer has a __call__ of its own, which torch's hooks do not see."""
        return type(layer).__call__ is not nn.Module.__call__

    def _own_parameters(self):
        """By name; None where nobody knows beforehand."""
        root, found = self.root, {}
        if isinstance(root, nn.Module):
            found = {_written(name): p for name, p in nn.Module.named_parameters(root)}
        layers = root if isinstance(root, (list, tuple)) else [root]
        for layer in layers:
            method = getattr(type(layer), "parameters", None)
            if method is None and not isinstance(root, (list, tuple)):
                return None
            if method is not None and method is not nn.Module.parameters:
                found |= self._named([p for p in layer.parameters() if not any(p is q for q in found.values())])
            elif isinstance(layer, nn.Module) and layer is not root:
                found |= self._named(list(nn.Module.parameters(layer)))
        return found if found or isinstance(root, nn.Module) else None

    def _named(self, parameters):
        if isinstance(parameters, dict):
            return parameters
        parameters = parameters if isinstance(parameters, torch.Tensor) else list(parameters)
        strange = [type(p).__name__ for p in parameters if not isinstance(p, torch.Tensor)]
        if strange or isinstance(parameters, torch.Tensor):
            raise ValueError(f"parameters is, or holds, a {(strange or ['Tensor'])[0]}: give a list or dict of tensors")
        return {self.tensor_name(p, f"parameters[{i}]"): p for i, p in enumerate(parameters)}

    def parameters_found(self, uses, leaves):
        """By name: the leaves, in the order in which the network used them first."""
        used = [t for i, (t, _) in uses.items() if i in leaves]
        return self._named([*used, *(t for i, t in leaves.items() if i not in uses)])

    def held_leaves(self):
        """What may be its parameters before it has run: all tensors that it holds and that need a gradient."""
        return [t for _, t in self.tensors.values() if t.requires_grad and t.is_leaf]

    def tensor_name(self, tensor, otherwise):
        return self.tensors[id(tensor)][0] if id(tensor) in self.tensors else otherwise


def _written(path):
    """A path as it was before torch.compile."""
    return path.replace("._orig_mod", "").replace("_orig_mod.", "")


def _original(model):
    if isinstance(model, nn.Module):
        return getattr(model, "_orig_mod", model)  # torch.compile's
    return unwrap(model) if isinstance(model, FunctionType) and hasattr(model, "_torchdynamo_orig_callable") else model


def _refuse(layers):
    for layer in layers:
        why = None
        if isinstance(layer, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
            why = "lets nobody look inside: give the Python module or function that it was made from"
        elif isinstance(layer, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            why = "runs replicas of its module: give model.module"
        elif isinstance(layer, nn.Module) and any(nn.parameter.is_lazy(p) for p in layer._parameters.values()):
            why = "has no weights yet: let the model run once, model(inputs), before"
        if why:
            raise ValueError(f"{type(layer).__name__} {why}")


def held(*roots):
    """Everything that the roots hold: id -> (path, object), through attributes, items and a function's variables."""
    found, classes, queue = {}, set(), deque(("", root) for root in roots)
    while queue:
        path, value = queue.popleft()
        if isinstance(value, PLAIN) or id(value) in found:
            continue
        found[id(value)] = path, value
        if isinstance(value, torch.Tensor):
            continue
        above = "" if isinstance(value, FunctionType) else path  # what a function uses has a name of its own
        for key, part in _parts(value):
            if not isinstance(part, PLAIN):
                queue.append((f"{above}.{key}".strip("."), part))
        if type(value) not in classes:
            classes.add(type(value))
            queue.extend(("", method) for method in _methods(type(value)))
    return found


def is_own(value):
    """Whether an object's class is somebody's own, neither Python's nor a library's."""
    return hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] not in FOREIGN


def _parts(value):
    if isinstance(value, nn.Module):
        yield from (*value._parameters.items(), *value._buffers.items(), *value._modules.items())
        for key, part in vars(value).items():
            if key not in TORCHS or (part and key.endswith("_hooks")):
                yield key, part
    elif isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, CONTAINERS):
        yield from enumerate(value)
    elif isinstance(value, MethodType):
        yield from (("", value.__self__), ("", value.__func__))
    elif isinstance(value, FunctionType):
        if _is_known(value):
            yield from _variables(value).items()
    elif isinstance(value, partial):
        yield from (("", value.func), *enumerate(value.args), *value.keywords.items())
    elif is_own(value):
        yield from vars(value).items()


def _methods(cls):
    """The functions of a class and its bases, if they are somebody's own: they may use variables around them."""
    own = [base for base in cls.__mro__ if base.__module__.partition(".")[0] not in FOREIGN]
    return (f for base in own for f in vars(base).values() if isinstance(f, FunctionType))


def _inside(layer):
    """The objects that a layer holds itself or in its lists and dicts."""
    for _, part in _parts(layer):
        yield part
        if isinstance(part, CONTAINERS):
            yield from (v for _, v in _parts(part))


def _is_known(function):
    return (function.__module__ or "").partition(".")[0] not in FOREIGN


def _variables(function):
    """The variables around a function that it uses, by name; those of the functions inside it too."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {name: cell.cell_contents for name, cell in cells if _is_full(cell)}
    return found | {k: function.__globals__[k] for k in _names(function.__code__) if k in function.__globals__}


def _names(code):
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return dict.fromkeys([*code.co_names, *(name for c in inner for name in _names(c))])


def _is_full(cell):
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


@contextmanager
def left_as_it_was(reached):
    """Put back, bit for bit, what was reached: tensors, lists, dicts, attributes, variables; and the random states."""
    things = [value for _, value in reached.values()]
    tensors = [_Kept(t) for t in things if isinstance(t, torch.Tensor)]
    undo = [put_back for value in things for put_back in _snapshots(value)]
    random_state, numpy_state = random.getstate(), np.random.get_state()
    gpus = {t.tensor.device.index for t in tensors if t.tensor.device.type == "cuda"}
    counted = tuple(t.tensor for t in tensors if not t.tensor.is_inference())
    try:
        # A pending backward pass compares versions: those of the tensors that are changed back stay the same.
        with torch.autograd._unsafe_preserve_version_counter(counted), torch.random.fork_rng(gpus), _eager():
            try:
                for t in tensors:
                    t.lend()
                yield
            finally:
                for t in tensors:
                    t.put_back()
    finally:
        for put_back in undo:
            put_back()
        random.setstate(random_state)
        np.random.set_state(numpy_state)


def _eager():
    """torch.compile's functions run as they are written, so that they can be watched."""
    dynamo = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")
    return torch.compiler.set_stance("force_eager") if dynamo else nullcontext()


class _Kept:
    """A tensor, its memory, a copy of its values, and its gradient."""

    def __init__(self, tensor):
        self.tensor, self.memory, self.copy = tensor, tensor.data, tensor.detach().clone()
        self.requires_grad, self.grad = tensor.requires_grad, tensor.grad if tensor.is_leaf else None

    def lend(self):
        if self.grad is not None:
            self.tensor.grad = None  # a backward pass inside the model would add to it

    def put_back(self):
        t = self.tensor
        if t.data.data_ptr() != self.memory.data_ptr() or t.shape != self.memory.shape:
            t.data = self.memory
        if self.memory.layout is torch.strided and not t.is_nested and not torch.equal(self.memory, self.copy):
            self.memory.copy_(self.copy)
        if t.is_leaf:
            if t.requires_grad != self.requires_grad:
                t.requires_grad_(self.requires_grad)
            if t.grad is not self.grad:
                t.grad = self.grad


def _snapshots(value):
    """Functions that put back what an object is now."""
    if isinstance(value, nn.Module):
        tables = [vars(value), value._parameters, value._buffers, value._modules]
        yield from (partial(_refill, table, dict(table)) for table in tables)
    elif isinstance(value, dict):
        yield partial(_refill, value, dict(value))
    elif isinstance(value, (list, deque, set)):
        yield partial(_refill, value, list(value))
    elif isinstance(value, np.ndarray) and value.flags.writeable:
        yield partial(value.__setitem__, ..., value.copy())
    elif isinstance(value, torch.Generator):
        yield partial(value.set_state, value.get_state())
    elif isinstance(value, random.Random):
        yield partial(value.setstate, value.getstate())
    elif isinstance(value, np.random.Generator):
        yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    elif isinstance(value, np.random.RandomState):
        yield partial(value.set_state, value.get_state())
    elif isinstance(value, FunctionType) and _is_known(value):
        space, names = value.__globals__, _names(value.__code__)
        yield partial(_refill_names, space, names, {name: space[name] for name in names if name in space})
        for cell in value.__closure__ or ():
            if _is_full(cell):
                yield partial(setattr, cell, "cell_contents", cell.cell_contents)
    elif is_own(value):
        yield partial(_refill, vars(value), dict(vars(value)))


def _refill(container, before):
    same = len(container) == len(before) and all(map(is_, container, before))
    if same and isinstance(container, dict):
        same = all(map(is_, container.values(), before.values()))
    if same:
        return
    container.clear()
    container.extend(before) if isinstance(container, (list, deque)) else container.update(before)


def _refill_names(space, names, before):
    for name in names:
        if name in before:
            space[name] = before[name]
        else:
            space.pop(name, None)
