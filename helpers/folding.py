"""Fold each BatchNorm into the layer in front of it: fewer layers, the same answers in eval mode.

In eval mode a BatchNorm scales and shifts every feature by constants, and a Linear (or a convolution) in front of it
can do that itself, with other weights. For z = x @ W + b, with W of shape (fan_in, fan_out),

    (z - running_mean) * s + beta = x @ (W * s) + (b - running_mean) * s + beta, s = gamma / sqrt(running_var + eps).

In train mode no constants can do that: what is folded is for use. This is the lecture's second exercise.
"""

import copy
import inspect
import traceback
from math import prod
from operator import attrgetter

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from helpers.layers import BatchNorm1d, Linear

LINEARS = (nn.Linear, Linear)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, BatchNorm1d)
FUNCTIONS = {"batch_norm", "native_batch_norm", "cudnn_batch_norm"}
WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
OURS = (__file__, torch.__path__[0])  # code that is not the model's
REMEDY = "change the model, or fold layer by layer with fold_linear and fold_conv"


def _folded(layer, batch_norm):
    """A copy of the layer with the weights of the formula above."""

    def constant(*names, default):
        found = (value for name in names if (value := getattr(batch_norm, name, None)) is not None)
        value = next(found, torch.tensor(default))
        return value if isinstance(batch_norm, BatchNorm1d) else value.flatten()  # in a class of your own often (1, C)

    gamma, beta = constant("gamma", "weight", default=1.0), constant("beta", "bias", default=0.0)
    mean, var = constant("running_mean", default=0.0), constant("running_var", default=1.0)
    s = gamma / torch.sqrt(var + getattr(batch_norm, "eps", 0))
    bias = ((0 if layer.bias is None else layer.bias) - mean) * s + beta
    if isinstance(layer, Linear):
        s = s.unsqueeze(-2)  # a weight ([num_models,] fan_in, fan_out)
    elif getattr(layer, "transposed", False):  # (in, out / groups, ...): each group of inputs has its own outputs
        s = s.view(layer.groups, -1).repeat_interleave(layer.in_channels // layer.groups, dim=0)
    weight = layer.weight * s.view(*s.shape, *[1] * (layer.weight.dim() - s.dim()))  # else (out, ...)
    folded = copy.deepcopy(layer).eval()
    for name, value in ("weight", weight), ("bias", bias):
        setattr(folded, name, nn.Parameter(value.to(layer.weight.dtype), layer.weight.requires_grad))
    return folded


def fold_linear(linear, batch_norm):
    """A new Linear that computes ``batch_norm(linear(x))`` as in eval mode; both stay as they are.

    linear: nn.Linear, or helpers.layers.Linear, a stack too. batch_norm: nn.BatchNorm1d, helpers.layers.BatchNorm1d, or
    a class of your own; the pair is tried out. Inputs are (N, fan_in), for a stack ([num_models,] N, fan_in).
    Raises ValueError where the two are no Linear and BatchNorm of its features with running statistics, and where
    something would be lost: a hook, a parametrization, a forward of the layer's own.
    """
    return _fold(linear, batch_norm, LINEARS)


def fold_conv(conv, batch_norm):
    """The same for nn.Conv1d, 2d, 3d and their ConvTranspose, with any options; batch_norm has as many dimensions."""
    return _fold(conv, batch_norm, CONVOLUTIONS)


def fold_batch_norms(model):
    """A copy of the model in eval mode, without BatchNorms: each is folded into the layer that it follows.

    Every BatchNorm must directly follow a Linear or a convolution (what fold_linear and fold_conv take) whose output
    goes nowhere else. A layer may be called several times, if the same BatchNorm follows each call, and a BatchNorm
    may follow several layers. Names stay; an identity stands where a BatchNorm was. The model is not touched.
    Only what forward puts out stays the same: a layer called by another method gives the folded numbers.

    Raises ValueError with the name, the reason and the remedy for whatever normalises by running statistics and can't
    be folded (no copy comes back half folded), for a model that torch.fx can't follow, and for forward hooks.
    """
    pairs = _find_pairs(model)
    folded, folds = _copy_for_eval(model), []
    for layer_name, name in pairs.items():
        layer, batch_norm = folded.get_submodule(layer_name), folded.get_submodule(name)
        try:
            folds.append((layer, batch_norm, _fold(layer, batch_norm, LINEARS + CONVOLUTIONS)))
        except ValueError as error:
            raise ValueError(f"{name} can't be folded into {layer_name}: {error}") from None
    for layer, batch_norm, new in folds:  # in place: forward may come to them by another name, or by a list of its own
        layer.weight, layer.bias = new.weight, new.bias
        dims = getattr(batch_norm, "dims", frozenset()) | {layer.weight.dim()}
        vars(batch_norm).clear()
        batch_norm.__class__ = Folded
        batch_norm.__init__(dims)
    if pairs and _calls(model) != _calls(folded):
        raise ValueError(f"{_class_name(model)} goes another way when a BatchNorm is gone from it: {REMEDY}")
    return folded.eval()


class Folded(nn.Identity):
    """What stands where a BatchNorm was, for inputs of as many dimensions: elsewhere its features were others."""

    def __init__(self, dims):
        super().__init__()
        self.dims = dims

    def forward(self, input):
        is_one = prod(input.dim() - dim for dim in self.dims) == 0  # can be traced again
        torch._assert(is_one, f"folded for inputs of {' or '.join(map(str, self.dims))} dimensions")
        return input


@torch.no_grad()
def _fold(layer, batch_norm, kinds):
    """What _folded makes of the pair, after the fold of such a pair has been tried out in float64."""
    this, that = _class_name(layer), _class_name(batch_norm)
    for name, module in (this, layer), (that, batch_norm):
        if fault := _altered(module):
            raise ValueError(f"{name} {fault}")
    if not any(isinstance(layer, kind) for kind in kinds):
        raise ValueError(f"{this} is not one of {', '.join(map(_class_name, kinds))}")
    if not _is_batch_norm(batch_norm) or batch_norm.running_mean is None:
        raise ValueError(f"{that} keeps no running statistics: give a BatchNorm with track_running_stats=True")
    shape = [layer.weight.shape[-2 if isinstance(layer, Linear) else -1]]
    if isinstance(layer, CONVOLUTIONS):  # about as small as the kernel and its padding allow
        shape = layer.in_channels, *(n * d + 3 for n, d in zip(layer.kernel_size, layer.dilation, strict=True))
    try:
        pair = _copy_for_eval(nn.Sequential(layer, batch_norm)).double()
        x = 10 * torch.randn((1, *shape), generator=torch.Generator().manual_seed(0)).to(pair[0].weight)
        torch.testing.assert_close(_folded(*pair)(x), pair(x), rtol=1e-7, atol=1e-7, equal_nan=True)
    except Exception as error:  # whatever a forward may raise
        fault = f"{that} does not normalise the features that {this} puts out, or one of them has a forward of its own"
        raise ValueError(f"{fault} ({str(error).partition('!')[0]}): give two that fit") from error
    return _folded(layer, batch_norm)


def _find_pairs(model):
    """{name of a layer: name of the BatchNorm that follows each of its calls}, with every BatchNorm in it."""
    for name, module in model.named_modules() if isinstance(model, nn.Module) else [("", model)]:
        if fault := _fault(module):
            raise ValueError(f"{name or _class_name(model)} {fault}")
    if not _has_batch_norm(model):
        return {}
    pairs = _pairs(*_trace(model))
    # A symbol is neither None nor a flag nor a list: the other ways that forward may go are looked at separately.
    forward = inspect.signature(model.forward).parameters
    defaults = {name: p.default for name, p in forward.items() if isinstance(p.default, bool | int | str | None)}
    flipped = {name: not value if isinstance(value, bool) else value for name, value in defaults.items()}
    with torch.no_grad():  # is another way, too
        same = all(_pairs(*_trace(model, way)) == pairs for way in (defaults, flipped)[: 1 + (flipped != defaults)])
    names = getattr(getattr(inspect.unwrap(type(model).forward), "__code__", None), "co_names", ())
    if not same or ("isinstance" in names and {"list", "tuple"} & {*names}):
        ways = ", ".join([*defaults, "gradients", "a list of inputs"])
        raise ValueError(f"{_class_name(model)} may connect its layers in several ways, by {ways}: {REMEDY}")
    return pairs


def _fault(module):
    """Why no model with this module in it can be folded, however its layers are connected; None if it may be."""
    if not isinstance(module, nn.Module):
        return _altered(module)
    if inside := WRAPPERS.get(type(module).__name__):
        return f"is a {type(module).__name__}: fold its .{inside}"
    # A method, or a function that it calls, may name F.batch_norm or the like, though no layer has that name.
    functions = [value for kind in type(module).__mro__ for value in vars(kind).values() if inspect.isfunction(value)]
    functions += [f.__globals__.get(name) for f in functions for name in f.__code__.co_names]
    called = FUNCTIONS & {name for f in functions if inspect.isfunction(f) for name in f.__code__.co_names}
    if not _is_batch_norm(module) and any(not any(hasattr(m, name) for m in module.modules()) for name in called):
        return "calls batch_norm as a function: let it have a layer, nn.BatchNorm1d or its like"
    # A copy's hooks would go on writing into the original's lists, and reading from them.
    hooked = module._forward_hooks or module._forward_pre_hooks
    return _altered(module) if hooked or _has_batch_norm(module) else None


def _calls(model):
    """What forward calls, in order, and with what; and the numbers that it has computed from weights alone."""
    root, graph = _trace(model)
    constants = [tensor.tolist() for name, tensor in vars(root).items() if name.startswith("_tensor_constant")]
    return [(node.op, str(node.target), str(node.args), str(node.kwargs)) for node in graph.nodes], constants


def _pairs(root, graph):
    modules = dict(root.named_modules())
    words = {"placeholder": "the input {}", "output": "the model's output"}
    names = {n: words.get(n.op, "{}").format(getattr(n.target, "__name__", n.target)) for n in graph.nodes}
    names |= {n: f"{n.target} ({_class_name(modules[n.target])})" for n in graph.nodes if n.op == "call_module"}
    calls, used = {module: [] for module in modules.values()}, set()
    for node in graph.nodes:
        if node.op == "call_module":
            for module in modules[node.target].modules():  # a module not looked into calls what it contains
                calls[module].append(node)
        elif node.op == "get_attr":
            used.add(id(attrgetter(node.target)(root)))
        elif names[node] in FUNCTIONS:
            raise ValueError(f"{_class_name(root)} calls {names[node]} as a function: let it have a layer")
    pairs = {}
    for name, module in ((name, module) for name, module in modules.items() if _is_batch_norm(module)):
        if module.training or not calls[module]:
            what = f"{name or _class_name(root)} is not called as a layer in eval mode, whichever way forward goes"
            raise ValueError(f"{what} (flags, None, train mode, no_grad): let forward call it")
        for call in calls[module]:
            before = next(iter(call.all_input_nodes), None)
            layer = modules.get(before.target) if before and before.op == "call_module" else None
            if not any(isinstance(layer, kind) for kind in LINEARS + CONVOLUTIONS):
                raise ValueError(f"{name} follows {names.get(before)}, not directly a Linear or convolution: {REMEDY}")
            others = [names[user] for call in calls[layer] for user in call.users if user not in calls[module]]
            if others:
                raise ValueError(f"{name} follows {before.target}, whose output also goes to {others[0]}: {REMEDY}")
            pairs[before.target] = name
    for name in {*pairs, *pairs.values()}:
        if used & {id(tensor) for tensor in modules[name].state_dict(keep_vars=True).values()}:
            raise ValueError(f"{name}'s tensors are also used by others, or without calling it: {REMEDY}")
    return pairs


def _trace(model, arguments=None):
    """(a copy of the model, perhaps with symbols left in it; the graph of calls that torch.fx sees in its forward)."""
    for look_into_all in True, False:
        root, tracer = _copy_for_eval(model), _Tracer()
        tracer.look_into_all = look_into_all
        try:
            with torch.random.fork_rng(range(torch.cuda.device_count())):
                graph = tracer.trace(root, arguments)
            if tracer.asked:
                raise ValueError("it catches the error that a symbol's value is not known")
            return root, graph
        except Exception as error:  # noqa: BLE001  a forward may fail at a symbol in any way
            reason = error
    frames = [f for f in traceback.extract_tb(reason.__traceback__) if not f.filename.startswith(OURS)]
    line = f" at line {frames[-1].lineno}, `{frames[-1].line}`" if frames else ""
    forward = f"{_class_name(model)}'s forward{inspect.signature(model.forward)}"
    raise ValueError(f"torch.fx can't follow {forward}{line}: {REMEDY} ({type(reason).__name__}: {reason})") from reason


class _Symbol(fx.Proxy):
    """What stands for a tensor in a traced forward; isinstance takes it for one."""

    __class__, _is_param, _is_buffer = property(lambda self: torch.Tensor), False, False


class _Tracer(fx.Tracer):
    """Looks into containers, or where that fails only into those that hold a BatchNorm; never into a layer."""

    asked = False  # for the value of a symbol, in an `if` or the like

    def is_leaf_module(self, module, name):
        if _is_batch_norm(module) or not list(module.children()) or super().is_leaf_module(module, name):
            return True
        return not _has_batch_norm(module) and (not self.look_into_all or _altered(module) is not None)

    def proxy(self, node):
        return _Symbol(node, self)

    def create_arg(self, a):
        return a.node if isinstance(a, fx.Proxy) else super().create_arg(a)  # it would ask for a tensor first

    def to_bool(self, obj):
        self.asked = True
        return super().to_bool(obj)


def _is_batch_norm(module):
    """By its class, or by what it keeps: torchvision's frozen one, one of your own."""
    kept = [getattr(module, name, None) for name in ("running_mean", "running_var")]
    return isinstance(module, BATCH_NORMS) or all(isinstance(value, torch.Tensor) for value in kept)


def _has_batch_norm(module):
    return any(map(_is_batch_norm, module.modules()))


def _copy_for_eval(model):
    """A copy in eval mode; tensors that its modules keep from a forward pass are cut off from their graphs."""
    values = [value for module in model.modules() for value in tree_leaves(vars(module))]
    kept = [value for value in values if isinstance(value, torch.Tensor) and not value.is_leaf]
    try:
        return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in kept}).eval()
    except Exception as error:
        raise ValueError(f"{_class_name(model)} can't be copied: clear what it keeps, as {error}") from error


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
    kind = module if isinstance(module, type) else type(module)
    return f"helpers.layers.{kind.__name__}" if kind in (BatchNorm1d, Linear) else kind.__name__
