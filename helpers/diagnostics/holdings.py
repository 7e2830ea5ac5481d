"""What an object holds, however it holds it; and how to leave all of it exactly as it was."""

import random
import sys
from collections import deque
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import attrgetter, is_
from types import CellType, CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import nn

PLAIN = (str, bytes, int, float, complex, type(None), type, ModuleType, torch.dtype, torch.device, torch.Size)
FOREIGN = {*sys.stdlib_module_names, "torch", "numpy", "matplotlib", "IPython", "ipykernel", "tqdm", "pandas", "PIL"}
TORCHS = vars(nn.Module()).keys()  # what torch itself keeps in every module
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
# What has a state that is no attribute: how to get it, and how to set it.
STATES = {
    torch.Generator: (torch.Generator.get_state, torch.Generator.set_state),
    random.Random: (random.Random.getstate, random.Random.setstate),
    np.random.RandomState: (np.random.RandomState.get_state, np.random.RandomState.set_state),
    np.random.Generator: (attrgetter("bit_generator.state"), lambda g, state: setattr(g.bit_generator, "state", state)),
    np.ndarray: (np.copy, lambda array, values: array.flags.writeable and np.copyto(array, values)),
}


def held(*roots):
    """Everything that the roots hold: id -> (path, object), through attributes, items and a function's variables."""
    found, classes, queue = {}, set(), deque(("", root) for root in roots)
    while queue:
        path, value = queue.popleft()
        if isinstance(value, PLAIN) or id(value) in found:
            continue
        found[id(value)] = path, value
        above = "" if isinstance(value, FunctionType) else path  # what a function uses has a name of its own
        queue.extend((f"{above}.{key}".strip("."), part) for key, part in parts(value) if not isinstance(part, PLAIN))
        if type(value) not in classes:  # its methods may use variables around them
            classes.add(type(value))
            spaces = [vars(base).values() for base in type(value).__mro__ if _is_known(base)]
            queue.extend(("", f) for space in spaces for f in space if isinstance(f, FunctionType))
    return found


def is_own(value):
    """Whether an object's class is somebody's own, neither Python's nor a library's."""
    return hasattr(value, "__dict__") and _is_known(type(value))


def _is_known(value):
    """Whether a class or function is somebody's own."""
    return (value.__module__ or "").partition(".")[0] not in FOREIGN


def _tables(value):
    """The containers in which an object keeps what it holds."""
    if isinstance(value, nn.Module):
        return value._parameters, value._buffers, value._modules, vars(value)
    if isinstance(value, CONTAINERS):
        return (value,)
    return (vars(value),) if is_own(value) else ()


def parts(value):
    """(name, object) of what an object holds directly."""
    if isinstance(value, MethodType):
        yield from (("", value.__self__), ("", value.__func__))
    elif isinstance(value, partial):
        yield from (("", value.func), *enumerate(value.args), *value.keywords.items())
    elif isinstance(value, FunctionType) and _is_known(value):
        yield from ((name, cell.cell_contents) for name, cell in _cells(value))
        yield from ((k, value.__globals__[k]) for k in _names(value.__code__) if k in value.__globals__)
    for table in _tables(value):
        for key, part in table.items() if hasattr(table, "items") else enumerate(table):
            torchs = isinstance(value, nn.Module) and key in TORCHS
            if not torchs or (part and key.endswith("_hooks")):
                yield key, part


def inside(layer):
    """The objects that a layer holds itself or in its lists and dicts."""
    for _, part in parts(layer):
        yield part
        if isinstance(part, CONTAINERS):
            yield from (v for _, v in parts(part))


def _cells(function):
    """(name, cell) of the variables around a function that have a value."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [(name, cell) for name, cell in cells if cell != CellType()]  # cells without a value are equal


def _names(code):
    """The names of the global variables that a function uses, those of the functions inside it too."""
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return dict.fromkeys([*code.co_names, *(name for c in inner for name in _names(c))])


@contextmanager
def left_as_it_was(reached):
    """Put back, bit for bit, what was reached: tensors, lists, dicts, attributes, variables; and the random states."""
    things = [value for _, value in reached.values()]
    tensors = [t for t in things if isinstance(t, torch.Tensor)]
    with ExitStack() as at_the_end:  # the last one comes first
        at_the_end.callback(random.setstate, random.getstate())
        at_the_end.callback(np.random.set_state, np.random.get_state())
        for value in things:
            _put_back_later(value, at_the_end.callback)
        # A pending backward pass compares versions: those of the tensors that are changed back stay the same.
        counted = tuple(t for t in tensors if not t.is_inference())
        at_the_end.enter_context(torch.autograd._unsafe_preserve_version_counter(counted))
        at_the_end.enter_context(torch.random.fork_rng({t.device.index for t in tensors if t.is_cuda}))
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            # torch.compile's functions run as they are written, so that they can be watched.
            at_the_end.enter_context(torch.compiler.set_stance("force_eager"))
        for t in tensors:
            grad = t.grad if t.is_leaf else None
            at_the_end.callback(_put_back_tensor, t, t.data, t.detach().clone(), t.requires_grad, grad)
            if grad is not None:
                t.grad = None  # a backward pass inside the model would add to it
        yield


def _put_back_tensor(t, memory, values, requires_grad, grad):
    if t.data.data_ptr() != memory.data_ptr() or t.shape != memory.shape:
        t.data = memory
    if memory.layout is torch.strided and not t.is_nested and not torch.equal(memory, values):
        memory.copy_(values)
    if t.is_leaf:
        if t.requires_grad != requires_grad:
            t.requires_grad_(requires_grad)
        if t.grad is not grad:
            t.grad = grad


def _put_back_later(value, later):
    """later(function, *arguments): what puts back all that an object is now, but a tensor."""
    for table in _tables(value):
        if not isinstance(table, (tuple, frozenset)):
            later(_refill, table, dict(table) if isinstance(table, dict) else list(table))
    for kind, (get, put) in STATES.items():
        if isinstance(value, kind):
            later(put, value, get(value))
    if isinstance(value, FunctionType) and _is_known(value):
        for name in _names(value.__code__):
            _keep_variable(value.__globals__, name, later)
        for _, cell in _cells(value):
            later(setattr, cell, "cell_contents", cell.cell_contents)


def _keep_variable(space, name, later):
    later(space.__setitem__, name, space[name]) if name in space else later(space.pop, name, None)


def _refill(container, before):
    same = len(container) == len(before) and all(map(is_, container, before))
    if same and isinstance(container, dict):
        same = all(map(is_, container.values(), before.values()))
    if not same:
        container.clear()
        container.extend(before) if isinstance(container, (list, deque)) else container.update(before)
