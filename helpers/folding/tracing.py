"""Which BatchNorm directly follows which layer, in a model of any kind: its forward is traced by torch.fx."""

import copy
import inspect
import os
import traceback
from operator import attrgetter
from unittest import mock

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from helpers.layers import BatchNorm1d, Linear

LAYERS = (nn.Linear, Linear, nn.modules.conv._ConvNd)
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, BatchNorm1d)
# Functions that make a tensor, and take no symbol for its size.
MAKERS = torch.zeros, torch.ones, torch.empty, torch.full, torch.rand, torch.randn, torch.eye, torch.tensor
FUNCTIONS = {"batch_norm", "native_batch_norm", "cudnn_batch_norm"}
SAME = {"contiguous", "float"}  # methods that may stand between a layer and its BatchNorm
OF_THE_SHAPE = {".shape", ".ndim", ".device", ".dtype", "size", "dim", "numel"}  # what folding leaves as it is
WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
OURS = (os.path.dirname(__file__), torch.__path__[0])  # code that is not the model's
REMEDY = "change the model, or fold layer by layer with fold_linear and fold_conv"


def find_pairs(model):
    """{name of a layer: name of the BatchNorm that follows each of its calls}, with every BatchNorm in it."""
    for name, module in model.named_modules() if isinstance(model, nn.Module) else [("", model)]:
        if fault := _fault(module):
            raise ValueError(f"{name or class_name(model)} {fault}")
    if is_batch_norm(model) and not list(model.children()):  # with layers in it, it calls F.batch_norm, say
        raise ValueError(f"the model is a {class_name(model)} alone: give one that has the layer before it, too")
    kept = [value for module in model.modules() for value in tree_leaves(vars(module))]
    if plain := [v for v in kept if {"running_mean", "running_var"} <= getattr(v, "__dict__", {}).keys()]:
        raise ValueError(f"{class_name(model)} keeps a {class_name(plain[0])} that is no nn.Module: let it be one")
    kept = [model, *(value for value in kept if isinstance(value, nn.Module))]  # in lists of your own, too
    has_batch_norm = any(is_batch_norm(inner) for module in kept for inner in module.modules())
    try:
        traced = _trace(model)
    except ValueError:
        if has_batch_norm:
            raise
        return {}
    pairs = _pairs(*traced)  # none, or a function is named
    if not has_batch_norm:
        return pairs
    # A symbol is neither None nor a flag nor a list: the other ways that forward may go are looked at separately.
    forward = inspect.signature(model.forward).parameters
    defaults = {name: p.default for name, p in forward.items() if isinstance(p.default, bool | int | str | None)}
    flipped = {name: not value if isinstance(value, bool) else value for name, value in defaults.items()}
    with torch.no_grad():  # a forward may ask torch.is_grad_enabled(), too
        same = all(_pairs(*_trace(model, way)) == pairs for way in (defaults, flipped))
    names = getattr(getattr(inspect.unwrap(type(model).forward), "__code__", None), "co_names", ())
    if not same or ("isinstance" in names and {"list", "tuple"} & {*names}):
        ways = ", ".join([*defaults, "gradients", "a list of inputs"])
        raise ValueError(f"{class_name(model)} may connect its layers in several ways, by {ways}: {REMEDY}")
    return pairs


def _pairs(root, graph):
    """The pairs of one way through the model: every BatchNorm and the layer whose output goes to it alone."""
    modules = dict(root.named_modules())
    for node in graph.nodes:
        if node.op == "call_method" and node.target in SAME:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    called = {node: modules[node.target] for node in graph.nodes if node.op == "call_module"}
    inside = [(inner, node) for node, module in called.items() for inner in module.modules()]  # seen as one call
    calls = {module: [node for inner, node in inside if inner is module] for module in modules.values()}
    words = {"placeholder": "the input {}", "output": "the model's output"}
    names = {n: words.get(n.op, "{}").format(getattr(n.target, "__name__", n.target)) for n in graph.nodes}
    names |= {node: f".{node.args[1]}" for node in graph.nodes if node.target is getattr}
    names |= {node: f"{node.target} ({class_name(module)})" for node, module in called.items()}
    if functions := FUNCTIONS & {*names.values()}:
        raise ValueError(f"{class_name(root)} calls {functions.pop()} as a function: let it have a layer")
    pairs = {}
    for name, module in ((name, module) for name, module in modules.items() if is_batch_norm(module)):
        if not calls[module] or any(called[call] is not module for call in calls[module]):
            remedy = "let forward call it, or set the part that only training needs to None (model.aux1, say)"
            what = f"{name or class_name(root)} is not called as a layer in eval mode, whichever way forward goes"
            raise ValueError(f"{what} (flags, None, no_grad): {remedy}")
        if module.training:
            raise ValueError(
                f"{name} stays in train mode, whatever eval() says: let {class_name(root)}.train pass it on"
            )
        for call in calls[module]:
            layer = called.get(before := next(iter(call.all_input_nodes), None))
            if not any(isinstance(layer, kind) for kind in LAYERS):
                raise ValueError(f"{name} follows {names.get(before)}, not directly a Linear or convolution: {REMEDY}")
            users = [user for call in calls[layer] for user in call.users if called.get(user) is not module]
            if others := [names[user] for user in users if names[user] not in OF_THE_SHAPE]:
                raise ValueError(f"{name} follows {before.target}, whose output also goes to {others[0]}: {REMEDY}")
            pairs[before.target] = name
    return pairs


def same_calls(model, folded):
    """Whether the folded model calls what the model calls, with the same weights where they are read, and no BatchNorm."""
    return _calls(model) == _calls(folded) and not any(map(is_batch_norm, folded.modules()))


def _calls(model):
    """What forward calls, in order, and with what; of a tensor that it reads itself the values."""
    root, graph = _trace(model)
    read = {node: attrgetter(node.target)(root).tolist() for node in graph.nodes if node.op == "get_attr"}
    return [(node.op, str(node.target), str(node.args), str(node.kwargs), read.get(node)) for node in graph.nodes]


def _trace(model, arguments=None):
    """(a copy of the model, perhaps with symbols left in it; the graph of calls that torch.fx sees in its forward)."""
    for look_into_all in True, False:
        root, tracer = copy_for_eval(model), _Tracer(autowrap_functions=MAKERS)
        getattr(tracer, "_autowrap_search", []).append(torch)  # "torch.zeros", not only "from torch import zeros"
        tracer.look_into_all, settings = look_into_all, _settings(root)
        try:
            devices, questions = range(torch.cuda.device_count()), dict(isinstance=_isinstance, len=_len)
            with torch.random.fork_rng(devices), mock.patch.multiple("builtins", **questions):
                graph = tracer.trace(root, arguments)
            if tracer.asked:
                raise ValueError("it catches the error that a symbol has no value")
            if changed := [name for name, now in _settings(root).items() if settings.get(name, now) != now]:
                raise ValueError(f"it changes {', '.join(changed)}, and may go another way at the next call")
            return root, graph
        except Exception as error:  # noqa: BLE001  a forward may fail at a symbol in any way
            reason = error
    remedy = "keep layers in nn.ModuleList, not in a plain list" if "as a submodule" in str(reason) else REMEDY
    frames = [f for f in traceback.extract_tb(reason.__traceback__) if not f.filename.startswith(OURS)]
    line = f" at line {frames[-1].lineno}, `{frames[-1].line}`" if frames else ""
    forward = f"{class_name(model)}'s forward{inspect.signature(model.forward)}"
    raise ValueError(f"torch.fx can't follow {forward}{line}: {remedy} ({type(reason).__name__}: {reason})") from reason


def _settings(root):
    """Flags, counters, modes and the states of buffers, by name: what a forward may choose its way by."""
    kept = {f"{name}.{key}".lstrip("."): v for name, module in root.named_modules() for key, v in vars(module).items()}
    kept = {name: str(value) for name, value in kept.items() if isinstance(value, bool | int | float | str)}
    return kept | {name: (id(buffer), buffer._version) for name, buffer in root.named_buffers()}


class _Symbol(fx.Proxy):
    """What stands for a tensor in a traced forward: it passes for one, and refuses to tell a value, as it has none.

    It has the __class__, the __len__ and the __index__ of a Proxy: torch's C code asks for them, too, and would read the
    memory of a tensor that is none, or catch the error. Forward's own questions come to _isinstance and _len.
    """

    _is_param, _is_buffer = False, False

    def __bool__(self):
        self.tracer.asked = True  # for a forward that catches the error
        raise ValueError("it asks for a value")

    __hash__ = __int__ = __float__ = __bool__  # hash: in a dict of modes, say


def _isinstance(value, kind, isinstance=isinstance):
    return isinstance(value, kind) or (type(value) is _Symbol and issubclass(torch.Tensor, kind))


def _len(value, len=len):
    return bool(value) if type(value) is _Symbol else len(value)


class _Tracer(fx.Tracer):
    """Looks into containers, or where that fails only into those that hold a BatchNorm; never into a layer."""

    asked = False  # for the value of a symbol

    def is_leaf_module(self, module, name):
        whole = is_batch_norm(module) or isinstance(module, Folded) or not list(module.children())
        if whole or super().is_leaf_module(module, name):
            return True
        plain = self.look_into_all and altered(module) is None
        return not plain and not any(is_batch_norm(m) or isinstance(m, Folded) for m in module.modules())

    def proxy(self, node):
        return _Symbol(node, self)

    def create_arg(self, a):
        return a.node if isinstance(a, fx.Proxy) else super().create_arg(a)  # it would ask for a tensor first


class Folded(nn.Identity):
    """What stands where a BatchNorm was, for inputs of as many dimensions: elsewhere its features were others.

    What a BatchNorm has inside, such as an activation that it calls on what it has normalised, keeps its name in here.
    """

    def __init__(self, dims, inside):
        super().__init__()
        self.dims, words = sorted(dims), " or ".join(map(str, sorted(dims)))
        self.fault = f"folded for inputs of {words} dimensions: flatten (N, T, C) to (N * T, C)"
        for name, module in inside:
            self.add_module(name, copy_for_eval(module))

    def forward(self, input):  # "input.dim() in self.dims", as torch.fx, torch.compile and torch.jit.script take it
        difference = 1
        for dim in self.dims:
            difference = difference * (input.dim() - dim)
        torch._assert(difference == 0, self.fault)
        for module in self.children():
            input = module(input)
        return input


def is_batch_norm(module):
    """By its class, or by what it keeps: torchvision's frozen one, one of your own."""
    kept = [getattr(module, name, None) for name in ("running_mean", "running_var")]
    return isinstance(module, BATCH_NORMS) or all(isinstance(value, torch.Tensor) for value in kept)


def copy_for_eval(model, instead=()):
    """A copy in eval mode, other things `instead` of those with these ids; tensors that it keeps have no graph."""
    kept = [v for m in model.modules() for v in tree_leaves(vars(m)) if isinstance(v, torch.Tensor) and not v.is_leaf]
    try:
        return copy.deepcopy(model, dict(instead) | {id(tensor): tensor.detach().clone() for tensor in kept}).eval()
    except Exception as error:
        raise ValueError(f"{class_name(model)} can't be copied: clear what it keeps, as {error}") from error


def _fault(module):
    """Why no model with this module in it can be folded, however its layers are connected; None if it may be."""
    if not isinstance(module, nn.Module) or is_batch_norm(module):
        return altered(module)
    if inside := WRAPPERS.get(type(module).__name__):
        return f"is a {type(module).__name__}: fold its .{inside}"
    sizes = {p.numel() for p in module.parameters(recurse=False) if not nn.parameter.is_lazy(p)}  # gamma's, say
    kept = [*vars(module).items(), *module.named_buffers(recurse=False)]
    kept = ", ".join(name for name, value in kept if isinstance(value, torch.Tensor) and value.numel() in sizes)
    if "mean" in kept and ("var" in kept or "std" in kept):
        return f"keeps {kept}, a BatchNorm's by other names: call them running_mean and running_var"
    # A method, or a function that it calls, may name F.batch_norm or the like, though no layer has that name.
    methods = [value for kind in type(module).__mro__ for value in vars(kind).values() if inspect.isfunction(value)]
    functions = methods + [f.__globals__.get(name) for f in methods for name in f.__code__.co_names]
    names = {name for f in functions if inspect.isfunction(f) for name in f.__code__.co_names}
    layers = {name for name in FUNCTIONS if any(hasattr(inner, name) for inner in module.modules())}
    if FUNCTIONS & names - layers:
        return "calls batch_norm as a function: let it have a layer, nn.BatchNorm1d or its like"
    # A copy's hooks would go on writing into the original's lists, and reading from them.
    matters = module._forward_hooks or module._forward_pre_hooks or any(map(is_batch_norm, module.modules()))
    return altered(module) if matters else None


def altered(module):
    """What makes a module compute something else than its class and its parameters say; None if nothing does."""
    if not isinstance(module, nn.Module):
        return "is no module: give a module, such as nn.Sequential(*layers)"
    if any(nn.parameter.is_lazy(p) or p.is_meta for p in module.parameters(recurse=False)):
        return "has no shape yet, or no numbers: call the model once, or load it"
    if nn.utils.parametrize.is_parametrized(module):
        return "is parametrized: call torch.nn.utils.parametrize.remove_parametrizations on it first"
    if "forward" in vars(module):
        return "has had its forward replaced, or compiled by torch.jit: put the one of its class back first"
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return "has hooks, which folding may make wrong: remove them first" if any(hooks) else None


def class_name(module):
    return ("helpers.layers." if type(module) in (BatchNorm1d, Linear) else "") + type(module).__name__
