"""What an object holds, however it holds it; and how to leave all of it exactly as it was.

A network may keep tensors in attributes, in lists, in the variables around a function, in a module's globals. held()
walks through all of them; left_as_it_was() remembers each, and puts it back. Both stop at what is not somebody's own:
what comes with Python or with an installed package.
"""

import random
import re
import sys
from argparse import Namespace
from collections import UserDict, UserList, deque
from contextlib import contextmanager, nullcontext
from functools import _lru_cache_wrapper as Cached
from functools import cache, partial
from operator import attrgetter, is_
from types import CellType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import nn

PLAIN = (str, bytes, int, float, complex, type(None), ModuleType, torch.dtype, torch.device, torch.Size)
# Of these nothing is somebody's own.
FOREIGN = {*sys.stdlib_module_names, "torch", "numpy", "matplotlib", "IPython", "ipykernel", "tqdm", "pandas", "PIL"}
TORCHS = vars(nn.Module()).keys()  # what torch itself keeps in every module
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
HOLDERS = (SimpleNamespace, Namespace, UserDict, UserList)  # Python's classes, with somebody's own data
# What has a state that is no attribute: how to get it, and how to set it. A file that is mapped to memory is not copied.
STATES = {
    torch.Generator: (torch.Generator.get_state, torch.Generator.set_state),
    random.Random: (random.Random.getstate, random.Random.setstate),
    np.random.RandomState: (np.random.RandomState.get_state, np.random.RandomState.set_state),
    np.random.Generator: (attrgetter("bit_generator.state"), lambda g, state: setattr(g.bit_generator, "state", state)),
    # What a look has put into an empty cache goes; from one that was filled nothing can be taken out.
    Cached: (lambda c: c.cache_info().currsize, lambda c, size: size or c.cache_clear()),
    np.ndarray: (lambda a: a.copy() if a.flags.writeable else a, lambda a, old: a is old or np.copyto(a, old)),
}


def held(*roots):
    """Everything that the roots hold: id -> (path, object), through attributes, items and a function's variables."""
    found, queue = {}, deque(("", "", root) for root in roots)
    while queue:
        above, key, value = queue.popleft()
        if id(value) in found or isinstance(value, PLAIN) or (isinstance(value, type) and not _is_known(value)):
            continue
        path = f"{above}.{key}".strip(".")
        found[id(value)] = path, value
        if not isinstance(value, torch.Tensor):
            path = "" if isinstance(value, (FunctionType, type)) else path  # what these hold has a name of its own
            queue += [(path, key, part) for key, part in parts(value)]
            queue += [("", "", base) for base in _bases(type(value))]
    return found


def is_own(value):
    """Whether an object is somebody's own, of a class that is neither Python's nor a library's."""
    return _makes_own(type(value))


@cache
def _makes_own(cls):
    return not issubclass(cls, type) and (_is_known(cls) or issubclass(cls, HOLDERS))


def _is_known(value):
    """Whether a class or function is somebody's own."""
    module = value.__module__ or ""  # of some classes written in C a descriptor
    return isinstance(module, str) and module.partition(".")[0] not in FOREIGN


@cache
def _bases(cls):
    """A class and its bases, as far as they are somebody's own."""
    return [base for base in cls.__mro__ if _is_known(base)]


@cache
def _slots(cls):
    slots = [vars(base).get("__slots__", ()) for base in _bases(cls)]
    return [name for some in slots for name in ((some,) if isinstance(some, str) else some)]


def _tables(value):
    """The containers in which an object keeps what it holds."""
    if isinstance(value, nn.Module):
        return value._parameters, value._buffers, value._modules, vars(value)
    if isinstance(value, CONTAINERS):
        return (value,)
    return (vars(value),) if is_own(value) and hasattr(value, "__dict__") else ()


def _attributes(value):
    """Those of a class, and those of __slots__."""
    if isinstance(value, type):
        return dict(vars(value))
    return {name: getattr(value, name) for name in _slots(type(value)) if hasattr(value, name)}


def parts(value):
    """(name, object) of what an object holds directly."""
    if isinstance(value, nn.Module):
        yield from (*value._parameters.items(), *value._buffers.items(), *value._modules.items())
        yield from [(k, v) for k, v in vars(value).items() if k not in TORCHS or (v and k.endswith("_hooks"))]
        return
    if isinstance(value, MethodType):
        yield from (("", value.__self__), ("", value.__func__))
    elif isinstance(value, partial):
        yield from (("", value.func), *enumerate(value.args), *value.keywords.items())
    elif isinstance(value, Cached):
        yield "", value.__wrapped__
    elif isinstance(value, FunctionType) and _is_known(value):
        yield from ((name, cell.cell_contents) for name, cell in _cells(value))
        yield from (item for some in _globals(value) for item in _some_of(*some).items())
        names = value.__code__.co_varnames[: value.__code__.co_argcount]
        yield from zip(reversed(names), reversed(value.__defaults__ or ()), strict=False)
        yield from (value.__kwdefaults__ or {}).items()
    for table in (*_tables(value), _attributes(value)):
        yield from table.items() if isinstance(table, dict) else enumerate(table)


def _globals(function):
    """(variables, names) of a function's globals, and of the modules of somebody's own that it names there."""
    variables, names = function.__globals__, _names(function.__code__)
    modules = [variables[k] for k in names if isinstance(variables.get(k), ModuleType)]
    return [(variables, names), *((vars(m), names) for m in modules if not _is_installed(m))]


def _some_of(variables, names):
    return {name: variables[name] for name in names if name in variables}


def _is_installed(module):
    """Whether a module is Python's or a package's, through which all of it could be reached."""
    is_foreign = module.__name__.partition(".")[0] in FOREIGN
    return is_foreign or re.search("(site|dist)-packages", getattr(module, "__file__", None) or "") is not None


def _cells(function):
    """(name, cell) of the variables around a function that have a value."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [(name, cell) for name, cell in cells if cell != CellType()]  # cells without a value are equal


@cache
def _names(code):
    """The names of the global variables that a function uses, those of the functions inside it too."""
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return dict.fromkeys([*code.co_names, *(name for c in inner for name in _names(c))])


@contextmanager
def left_as_it_was(reached):
    """Put back, bit for bit, what was reached: tensors, lists, dicts, attributes, variables; and the random states."""
    things = [value for _, value in reached.values()]
    tensors = [t for t in things if isinstance(t, torch.Tensor)]
    kept = [(t, t.data, t.detach().clone(), t.requires_grad, t.grad if t.is_leaf else None) for t in tensors]
    undo = [partial(random.setstate, random.getstate()), partial(np.random.set_state, np.random.get_state())]
    undo += [put_back for value in things for put_back in _snapshots(value)]
    gpus = {t.device.index for t in tensors if t.is_cuda}
    # torch.compile's functions run as they are written, so that they can be watched.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    # A pending backward pass compares versions: those of the tensors that are changed back stay the same.
    counted = torch.autograd._unsafe_preserve_version_counter(tuple(t for t in tensors if not t.is_inference()))
    try:
        with counted, torch.random.fork_rng(gpus), eager:
            try:
                for t, *_, grad in kept:
                    if grad is not None:
                        t.grad = None  # a backward pass inside the model would add to it
                yield
            finally:
                for tensor in kept:
                    _put_back_tensor(*tensor)
    finally:
        for put_back in undo:
            put_back()


def _put_back_tensor(t, memory, values, requires_grad, grad):
    if memory.layout is torch.strided and not t.is_meta:
        if t.data.data_ptr() != memory.data_ptr() or t.shape != memory.shape:
            t.data = memory
        if not t.is_nested and not torch.equal(memory, values):
            memory.copy_(values)
    elif not t.is_meta and not torch.equal(*(x._values() if x.is_sparse else x.values() for x in (t.detach(), values))):
        with torch.no_grad():
            t.copy_(values)
    if t.is_leaf:
        if t.requires_grad != requires_grad:
            t.requires_grad_(requires_grad)
        if t.grad is not grad:
            t.grad = grad


def _snapshots(value):
    """Functions that put back what an object is now; a tensor's values are kept by themselves."""
    for table in _tables(value):
        if not isinstance(table, (tuple, frozenset)):
            yield partial(_refill, table, dict(table) if isinstance(table, dict) else list(table))
    if state := _state(type(value)):
        get, put = state
        yield partial(put, value, get(value))
    if attributes := _attributes(value):
        read, write, remove = partial(_attributes, value), partial(setattr, value), partial(delattr, value)
        yield partial(_put_back_names, read, write, remove, attributes)
    if isinstance(value, FunctionType) and _is_known(value):
        for variables, names in _globals(value):
            read = partial(_some_of, variables, names)
            yield partial(_put_back_names, read, variables.__setitem__, variables.__delitem__, read())
        yield from (partial(setattr, cell, "cell_contents", cell.cell_contents) for _, cell in _cells(value))


@cache
def _state(cls):
    return next((STATES[base] for base in cls.__mro__ if base in STATES), None)


def _put_back_names(read, write, remove, before):
    """read() is what the names are now; what was not there before goes."""
    now = read()
    for name in now.keys() | before.keys():
        if name not in before:
            remove(name)
        elif name not in now or now[name] is not before[name]:
            write(name, before[name])


def _refill(container, before):
    same = len(container) == len(before) and all(map(is_, container, before))
    if same and isinstance(container, dict):
        same = all(map(is_, container.values(), before.values()))
    if not same:
        container.clear()
        container.extend(before) if isinstance(container, (list, deque)) else container.update(before)
