"""What an object holds, however it holds it; and how to leave all of it exactly as it was."""

import random
import sys
from collections import deque
from contextlib import contextmanager, nullcontext
from functools import partial
from operator import is_
from types import CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import nn

__all__ = ["held", "inside", "is_own", "left_as_it_was", "parts"]

PLAIN = (str, bytes, int, float, complex, type(None), type, ModuleType, torch.dtype, torch.device, torch.Size)
FOREIGN = {*sys.stdlib_module_names, "torch", "numpy", "matplotlib", "IPython", "ipykernel", "tqdm", "pandas", "PIL"}
TORCHS = vars(nn.Module()).keys()  # what torch itself keeps in every module
CONTAINERS = (dict, list, tuple, set, frozenset, deque)


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
        for key, part in parts(value):
            if not isinstance(part, PLAIN):
                queue.append((f"{above}.{key}".strip("."), part))
        if type(value) not in classes:
            classes.add(type(value))
            queue.extend(("", method) for method in _methods(type(value)))
    return found


def is_own(value):
    """Whether an object's class is somebody's own, neither Python's nor a library's."""
    return hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] not in FOREIGN


def parts(value):
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


def inside(layer):
    """The objects that a layer holds itself or in its lists and dicts."""
    for _, part in parts(layer):
        yield part
        if isinstance(part, CONTAINERS):
            yield from (v for _, v in parts(part))


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
