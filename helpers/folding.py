"""Fold each BatchNorm into the layer in front of it: fewer layers, the same answers in eval mode.

In eval mode a BatchNorm scales and shifts every feature by constants, and a Linear (or a convolution) in front of it
can do that itself, with other weights. For z = x @ W + b, with W of shape (fan_in, fan_out),

    (z - running_mean) * s + beta = x @ (W * s) + (b - running_mean) * s + beta, s = gamma / sqrt(running_var + eps).

In train mode no constants can do that: what is folded is for use. This is the lecture's second exercise.
(torch.nn.utils.fusion folds torch's own layers. Here the formula stands to be read, for the course's layers too.)
"""

import copy
import inspect
import traceback
from contextlib import suppress
from math import prod
from operator import attrgetter

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from helpers.layers import BatchNorm1d, Linear

LAYERS = (nn.Linear, Linear, nn.modules.conv._ConvNd)
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, BatchNorm1d)
FUNCTIONS = {"batch_norm", "native_batch_norm", "cudnn_batch_norm"}
WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
OURS = (__file__, torch.__path__[0])  # code that is not the model's
REMEDY = "change the model, or fold layer by layer with fold_linear and fold_conv"


def _folded(layer, batch_norm):
    """A copy of the layer with the weights of the formula above."""

    def constant(*names, default=0.0):
        found = (value for name in names if (value := getattr(batch_norm, name, None)) is not None)
        value = next(found, torch.tensor(default))
        return value if isinstance(batch_norm, BatchNorm1d) else value.flatten()  # in a class of your own often (1, C)

    gamma, beta = constant("gamma", "weight", default=1.0), constant("beta", "bias")
    s = gamma / torch.sqrt(constant("running_var", default=1.0) + getattr(batch_norm, "eps", 0))
    bias = ((0 if layer.bias is None else layer.bias) - constant("running_mean")) * s + beta
    if isinstance(layer, Linear):
        s = s.unsqueeze(-2)  # a weight ([num_models,] fan_in, fan_out)
    elif getattr(layer, "transposed", False):  # (in, out / groups, ...): each group of inputs has its own outputs
        s = s.view(layer.groups, -1).repeat_interleave(layer.in_channels // layer.groups, dim=0)
    weight = layer.weight * s.view(*s.shape, *[1] * (layer.weight.dim() - s.dim()))  # else (out, ...)
    folded, kept = _copy_for_eval(layer), layer.weight
    folded.weight, folded.bias = (nn.Parameter(t.to(kept.dtype), kept.requires_grad) for t in (weight, bias))
    return folded


def fold_linear(linear, batch_norm):
    """A new Linear that computes ``batch_norm(linear(x))`` as in eval mode; both stay as they are.

    linear: nn.Linear or helpers.layers.Linear, a stack too, for inputs (N, fan_in) or (num_models, N, fan_in).
    batch_norm: nn.BatchNorm1d, helpers.layers.BatchNorm1d, or a class of your own: the pair is tried out.
    Raises ValueError where the two don't fit, and where something would be lost, such as a hook.
    """
    return _fold(linear, batch_norm)[0]


def fold_conv(conv, batch_norm):
    """The same for nn.Conv1d, 2d, 3d and their ConvTranspose, with any options; batch_norm has as many dimensions."""
    return _fold(conv, batch_norm)[0]


def fold_batch_norms(model):
    """A copy of the model in eval mode, without BatchNorms: each is folded into the layer that it follows.

    Every BatchNorm must directly follow a Linear or a convolution whose output goes nowhere else. A layer may be called
    several times, if the same BatchNorm follows each call, and a BatchNorm may follow several layers. Names stay; an
    identity stands where a BatchNorm was. The model is not touched. Another method than forward gives folded numbers.
    Raises ValueError with name, reason and remedy for what can't be folded: no copy comes back half folded.
    """
    folds, stand_ins = {}, {}
    for layer_name, name in _find_pairs(model).items():
        layer, batch_norm = model.get_submodule(layer_name), model.get_submodule(name)
        try:
            folds[layer_name], dims = _fold(layer, batch_norm)
        except ValueError as error:
            raise ValueError(f"{name} can't be folded into {layer_name}: {error}") from None
        stand_ins.setdefault(id(batch_norm), Folded()).dims |= dims
    folded = _copy_for_eval(model, stand_ins)
    for name, new in folds.items():  # forward may come to a layer by another name, or by a list of its own
        layer = folded.get_submodule(name)
        layer.weight, layer.bias = new.weight, new.bias
    if folds and (_calls(model) != _calls(folded) or any(map(_is_batch_norm, folded.modules()))):
        raise ValueError(f"{_class_name(model)} reads weights, or goes another way without a BatchNorm: {REMEDY}")
    return folded


class Folded(nn.Identity):
    """What stands where a BatchNorm was, for inputs of as many dimensions: elsewhere its features were others."""

    dims = frozenset()

    def forward(self, input):
        fault = f"folded for inputs of {' or '.join(map(str, self.dims))} dimensions: flatten (N, T, C) to (N * T, C)"
        torch._assert(prod(input.dim() - dim for dim in self.dims) == 0, fault)  # this can be traced again
        return input


@torch.no_grad()
def _fold(layer, batch_norm):
    """What _folded makes of the pair, and for which numbers of dimensions: it is tried out in float64."""
    for module in layer, batch_norm:
        if fault := _altered(module):
            raise ValueError(f"{_class_name(module)} {fault}")

    def try_out(*batch):
        shape = [layer.weight.shape[-2 if isinstance(layer, Linear) else -1]]
        if hasattr(layer, "kernel_size"):  # about as small as the kernel and its padding allow
            shape = layer.in_channels, *(n * d + 3 for n, d in zip(layer.kernel_size, layer.dilation, strict=True))
        x = torch.randn((*batch, *shape), generator=torch.Generator().manual_seed(0))
        x = torch.cat([10 * x, 1e6 * x]).to(pair[0].weight)  # one that clamps, say, shows at the large ones
        torch.testing.assert_close(_folded(*pair)(x), pair(x), rtol=1e-7, atol=1e-7, equal_nan=True)

    try:
        pair = _copy_for_eval(nn.Sequential(layer, batch_norm)).double()
        try_out(1)
    except Exception as error:  # whatever a forward may raise
        fault = f"{_class_name(batch_norm)} does not normalise what {_class_name(layer)} puts out by running statistics"
        reason = str(error).partition("!")[0]
        raise ValueError(f"{fault}, or does more ({reason}): give two that fit, or track_running_stats=True") from error
    dims = {layer.weight.dim()}
    with suppress(Exception):  # a class of your own may take (N, T, C), too; torch's takes T for the features then
        try_out(2, 1 + (batch_norm.running_mean.numel() == 1))
        dims.add(3)
    return _folded(layer, batch_norm), dims


def _find_pairs(model):
    """{name of a layer: name of the BatchNorm that follows each of its calls}, with every BatchNorm in it."""
    for name, module in model.named_modules() if isinstance(model, nn.Module) else [("", model)]:
        if fault := _fault(module):
            raise ValueError(f"{name or _class_name(model)} {fault}")
    if not any(map(_is_batch_norm, model.modules())):
        return {}
    pairs = _pairs(*_trace(model))
    # A symbol is neither None nor a flag nor a list: the other ways that forward may go are looked at separately.
    forward = inspect.signature(model.forward).parameters
    defaults = {name: p.default for name, p in forward.items() if isinstance(p.default, bool | int | str | None)}
    flipped = {name: not value if isinstance(value, bool) else value for name, value in defaults.items()}
    with torch.no_grad():  # is another way, too
        same = all(_pairs(*_trace(model, way)) == pairs for way in (defaults, flipped))
    names = getattr(getattr(inspect.unwrap(type(model).forward), "__code__", None), "co_names", ())
    if not same or ("isinstance" in names and {"list", "tuple"} & {*names}):
        ways = ", ".join([*defaults, "gradients", "a list of inputs"])
        raise ValueError(f"{_class_name(model)} may connect its layers in several ways, by {ways}: {REMEDY}")
    return pairs


def _pairs(root, graph):
    """The pairs of one way through the model: every BatchNorm and the layer whose output goes to it alone."""
    modules = dict(root.named_modules())
    called = {node: modules[node.target] for node in graph.nodes if node.op == "call_module"}
    inside = [(inner, node) for node, module in called.items() for inner in module.modules()]  # seen as one call
    calls = {module: [node for inner, node in inside if inner is module] for module in modules.values()}
    words = {"placeholder": "the input {}", "output": "the model's output"}
    names = {n: words.get(n.op, "{}").format(getattr(n.target, "__name__", n.target)) for n in graph.nodes}
    names |= {node: f"{node.target} ({_class_name(module)})" for node, module in called.items()}
    if functions := FUNCTIONS & {*names.values()}:
        raise ValueError(f"{_class_name(root)} calls {functions.pop()} as a function: let it have a layer")
    pairs = {}
    for name, module in ((name, module) for name, module in modules.items() if _is_batch_norm(module)):
        if not calls[module] or any(called[call] is not module for call in calls[module]):
            what = f"{name or _class_name(root)} is not called as a layer in eval mode, whichever way forward goes"
            raise ValueError(f"{what} (flags, None, no_grad): let forward call it")
        for call in calls[module]:
            layer = called.get(before := next(iter(call.all_input_nodes), None))
            if not any(isinstance(layer, kind) for kind in LAYERS):
                raise ValueError(f"{name} follows {names.get(before)}, not directly a Linear or convolution: {REMEDY}")
            others = [names[user] for call in calls[layer] for user in call.users if called.get(user) is not module]
            if others:
                raise ValueError(f"{name} follows {before.target}, whose output also goes to {others[0]}: {REMEDY}")
            pairs[before.target] = name
    return pairs


def _calls(model):
    """What forward calls, in order, and with what; of a tensor that it reads itself the values."""
    root, graph = _trace(model)
    read = {node: attrgetter(node.target)(root).tolist() for node in graph.nodes if node.op == "get_attr"}
    return [(node.op, str(node.target), str(node.args), str(node.kwargs), read.get(node)) for node in graph.nodes]


def _trace(model, arguments=None):
    """(a copy of the model, perhaps with symbols left in it; the graph of calls that torch.fx sees in its forward)."""
    for look_into_all in True, False:
        root, tracer = _copy_for_eval(model), _Tracer()
        tracer.look_into_all, settings = look_into_all, _settings(root)
        try:
            with torch.random.fork_rng(range(torch.cuda.device_count())):
                graph = tracer.trace(root, arguments)
            if tracer.asked:
                raise ValueError("it catches the error that a symbol has no value")
            if changed := [name for name, now in _settings(root).items() if settings.get(name, now) != now]:
                raise ValueError(f"it changes {', '.join(changed)}, and may go another way at the next call")
            return root, graph
        except Exception as error:  # noqa: BLE001  a forward may fail at a symbol in any way
            reason = error
    frames = [f for f in traceback.extract_tb(reason.__traceback__) if not f.filename.startswith(OURS)]
    line = f" at line {frames[-1].lineno}, `{frames[-1].line}`" if frames else ""
    forward = f"{_class_name(model)}'s forward{inspect.signature(model.forward)}"
    raise ValueError(f"torch.fx can't follow {forward}{line}: {REMEDY} ({type(reason).__name__}: {reason})") from reason


def _settings(root):
    """Flags, counters, modes and the states of buffers, by name: what a forward may choose its way by."""
    kept = {f"{name}.{key}".lstrip("."): v for name, module in root.named_modules() for key, v in vars(module).items()}
    kept = {name: str(value) for name, value in kept.items() if isinstance(value, bool | int | float | str)}
    return kept | {name: (id(buffer), buffer._version) for name, buffer in root.named_buffers()}


class _Symbol(fx.Proxy):
    """What stands for a tensor in a traced forward; isinstance takes it for one."""

    __class__, _is_param, _is_buffer = property(lambda self: torch.Tensor), False, False

    def __bool__(self):
        self.tracer.asked = True  # for a forward that catches the error
        raise ValueError("it asks for a value")

    __hash__ = __len__ = __int__ = __float__ = __index__ = __bool__  # hash: in a dict of modes, say


class _Tracer(fx.Tracer):
    """Looks into containers, or where that fails only into those that hold a BatchNorm; never into a layer."""

    asked = False  # for the value of a symbol

    def is_leaf_module(self, module, name):
        if _is_batch_norm(module) or not list(module.children()) or super().is_leaf_module(module, name):
            return True
        plain = self.look_into_all and _altered(module) is None
        return not plain and not any(map(_is_batch_norm, module.modules()))

    def proxy(self, node):
        return _Symbol(node, self)

    def create_arg(self, a):
        return a.node if isinstance(a, fx.Proxy) else super().create_arg(a)  # it would ask for a tensor first


def _is_batch_norm(module):
    """By its class, or by what it keeps: torchvision's frozen one, one of your own."""
    kept = [getattr(module, name, None) for name in ("running_mean", "running_var")]
    return isinstance(module, BATCH_NORMS) or all(isinstance(value, torch.Tensor) for value in kept)


def _copy_for_eval(model, instead=()):
    """A copy in eval mode, other things `instead` of those with these ids; tensors that it keeps have no graph."""
    kept = [v for m in model.modules() for v in tree_leaves(vars(m)) if isinstance(v, torch.Tensor) and not v.is_leaf]
    try:
        return copy.deepcopy(model, dict(instead) | {id(tensor): tensor.detach().clone() for tensor in kept}).eval()
    except Exception as error:
        raise ValueError(f"{_class_name(model)} can't be copied: clear what it keeps, as {error}") from error


def _fault(module):
    """Why no model with this module in it can be folded, however its layers are connected; None if it may be."""
    if not isinstance(module, nn.Module) or _is_batch_norm(module):
        return _altered(module)
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
    matters = module._forward_hooks or module._forward_pre_hooks or any(map(_is_batch_norm, module.modules()))
    return _altered(module) if matters else None


def _altered(module):
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


def _class_name(module):
    return ("helpers.layers." if type(module) in (BatchNorm1d, Linear) else "") + type(module).__name__
