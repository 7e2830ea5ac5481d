"""Fold each BatchNorm into the layer in front of it: fewer layers, the same answers in eval mode.

In eval mode a BatchNorm scales and shifts every feature by constants, and a Linear (or a convolution) in front of it
can do that itself, with other weights. For z = x @ W + b, with W of shape (fan_in, fan_out),

    (z - running_mean) * s + beta = x @ (W * s) + (b - running_mean) * s + beta, s = gamma / sqrt(running_var + eps).

In train mode no constants can do that: what is folded is for use. This is the lecture's second exercise.
"""

import copy
import inspect
import traceback
from operator import attrgetter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from helpers.layers import BatchNorm1d, Linear

__all__ = ["fold_batch_norms", "fold_conv", "fold_linear"]

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, BatchNorm1d)
FUNCTIONS = {"batch_norm", "native_batch_norm", "cudnn_batch_norm"}
# Which BatchNorms have their features where the layer puts them. Ours has them last, a convolution does not.
LINEARS = dict.fromkeys((nn.Linear, Linear), (nn.BatchNorm1d, nn.SyncBatchNorm, BatchNorm1d))
CONVOLUTIONS = dict.fromkeys((nn.Conv1d, nn.ConvTranspose1d), (nn.BatchNorm1d, nn.SyncBatchNorm))
CONVOLUTIONS |= dict.fromkeys((nn.Conv2d, nn.ConvTranspose2d), (nn.BatchNorm2d, nn.SyncBatchNorm))
CONVOLUTIONS |= dict.fromkeys((nn.Conv3d, nn.ConvTranspose3d), (nn.BatchNorm3d, nn.SyncBatchNorm))
OURS = (__file__, torch.__path__[0])  # code that is not the model's
REMEDY = "change the model, or fold layer by layer with fold_linear and fold_conv"


def fold_linear(linear, batch_norm):
    """A new Linear that computes ``batch_norm(linear(x))`` as in eval mode; both stay as they are.

    linear: nn.Linear, or helpers.layers.Linear, a stack too. batch_norm: nn.BatchNorm1d, helpers.layers.BatchNorm1d, or
    a class of your own that proves to compute the same. Inputs are (N, fan_in), for a stack ([num_models,] N, fan_in).
    Raises ValueError where there are no running statistics, where the two do not fit together, and where something would
    be lost: a hook, a parametrization, a forward of the layer's own.
    """
    return _fold(linear, batch_norm, LINEARS)


def fold_conv(conv, batch_norm):
    """The same for nn.Conv1d, 2d, 3d and their ConvTranspose, with any options; batch_norm has as many dimensions."""
    return _fold(conv, batch_norm, CONVOLUTIONS)


def fold_batch_norms(model):
    """A copy of the model in eval mode, without BatchNorms: each is folded into the layer that it follows.

    Every BatchNorm must directly follow a Linear or a convolution (what fold_linear and fold_conv take) whose output
    goes nowhere else. A layer may be called several times, if the same BatchNorm follows each call, and a BatchNorm
    may follow several layers. All modules keep their names; where a BatchNorm was, an identity stands. The model is not
    touched, nor torch's random state.

    Raises ValueError with the name, the reason and the remedy for whatever normalises by running statistics and can't
    be folded (no copy comes back half folded), for a model that torch.fx can't follow, and for forward hooks.
    """
    pairs = _find_pairs(model)
    folded, folds = _copy_for_eval(model), []
    for layer_name, name in pairs.items():
        layer, batch_norm = folded.get_submodule(layer_name), folded.get_submodule(name)
        try:
            folds.append((layer, batch_norm, _fold(layer, batch_norm, LINEARS | CONVOLUTIONS)))
        except ValueError as error:
            raise ValueError(f"{name} can't be folded into {layer_name}: {error}") from None
    for layer, batch_norm, new in folds:  # in place: forward may come to them by another name, or by a list of its own
        layer.weight, layer.bias = new.weight, new.bias
        vars(batch_norm).clear()
        batch_norm.__class__ = Folded
        batch_norm.__init__()
        batch_norm.dims = layer.weight.dim()
    return folded.eval()


class Folded(nn.Identity):
    """What stands where a BatchNorm was, for inputs of as many dimensions: elsewhere its features were others."""

    dims = None  # of those inputs

    def forward(self, input):
        torch._assert(input.dim() == self.dims, f"folded for inputs of {self.dims} dimensions")  # can be traced again
        return input


def _fold(layer, batch_norm, table):
    """A copy of the layer with other weights, which torch's fusion computes once they have the outputs first."""
    _check(layer, batch_norm, table)
    is_linear, turned = isinstance(layer, (Linear, nn.Linear)), lambda weight: weight
    if isinstance(layer, Linear):
        turned = lambda weight: weight.mT
    elif getattr(layer, "transposed", False):  # (in, out / groups, ...): each group of inputs has its own outputs
        turned = lambda weight: weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)  # and back
    weight, constants = turned(layer.weight), _constants(batch_norm)
    outputs, features = tuple(weight.shape[: -1 if is_linear else 1]), tuple(constants[0].shape)
    if outputs != features:
        raise ValueError(f"{_class_name(batch_norm)} has features {features}, but the layer puts out {outputs}")
    with torch.no_grad():
        weight, bias = (fuse_linear_bn_weights if is_linear else fuse_conv_bn_weights)(weight, layer.bias, *constants)
        folded = copy.deepcopy(layer).eval()
        for name, value in ("weight", turned(weight)), ("bias", bias):
            setattr(folded, name, nn.Parameter(value.detach().contiguous(), layer.weight.requires_grad))
    return folded


def _constants(batch_norm):
    """running_mean, running_var, eps, gamma and beta, each of shape (C,), or for a stack of ours (num_models, C)."""
    mean, var = batch_norm.running_mean, batch_norm.running_var
    named = {name: getattr(batch_norm, name, None) for name in ("gamma", "weight", "beta", "bias")}
    given = {name: value for name, value in named.items() if value is not None}
    gamma = given.get("gamma", given.get("weight", torch.ones_like(mean)))
    beta = given.get("beta", given.get("bias", torch.zeros_like(mean)))
    if not isinstance(batch_norm, BATCH_NORMS):  # but of your own, where (1, C) is usual too
        mean, var, gamma, beta = (tensor.flatten() for tensor in (mean, var, gamma, beta))
    return mean, var, getattr(batch_norm, "eps", 0), gamma, beta


def _check(layer, batch_norm, table):
    """Raise ValueError unless the layer's class and the BatchNorm's can be folded."""
    this, that = _class_name(layer), _class_name(batch_norm)
    kind = next((kind for kind in table if _works_as(layer, kind)), None)
    if kind is None:
        raise ValueError(f"{this} is not one of {', '.join(map(_class_name, table))}, or has a forward of its own")
    for name, module in (this, layer), (that, batch_norm):
        if what := _altered(module):
            raise ValueError(f"{name} {what}")
    remedy = f"give one of {', '.join(map(_class_name, table[kind]))}"
    your_own = _is_batch_norm(batch_norm) and not isinstance(batch_norm, BATCH_NORMS)
    if not your_own and not any(_works_as(batch_norm, one) for one in table[kind]):
        raise ValueError(f"{that} does not normalise what {this} puts out, or has a forward of its own: {remedy}")
    if batch_norm.running_mean is None or batch_norm.running_var is None:
        raise ValueError(f"{that} has no running statistics: train it with track_running_stats=True")
    if your_own and not _computes_a_batch_norm(batch_norm, layer.weight.dim()):
        raise ValueError(f"{that} keeps running statistics, but computes something else from them: {remedy}")


def _works_as(module, kind):
    """Whether it computes what this class computes: a subclass with another forward may do anything."""
    forward = attrgetter("forward", *["_conv_forward"] * hasattr(kind, "_conv_forward"))
    return isinstance(module, kind) and forward(type(module)) == forward(kind)


@torch.no_grad()
def _computes_a_batch_norm(module, dims):
    """Whether a class of your own computes BatchNorm's formula from its running statistics: it is tried out."""
    try:
        module = _copy_for_eval(module).double()
        mean, var, eps, gamma, beta = _constants(module)
        x = torch.randn(64, len(mean), *[3] * (dims - 2), generator=torch.Generator().manual_seed(0)).double() * 10
        mean, var, gamma, beta = (constant.view(-1, *[1] * (dims - 2)) for constant in (mean, var, gamma, beta))
        return torch.allclose(module(x.clone()), (x - mean) / (var + eps).sqrt() * gamma + beta, 1e-7, 1e-9)
    except Exception:  # noqa: BLE001  a forward may fail in any way
        return False


def _find_pairs(model):
    """{name of a layer: name of the BatchNorm that follows each of its calls}, with every BatchNorm in it."""
    for name, module in model.named_modules():
        if fault := _fault(module):
            raise ValueError(f"{name or _class_name(model)} {fault}")
    if not _has_batch_norm(model):
        return {}
    pairs = _pairs(*_trace(model))
    # A symbol is never None, so the other branch of an `if mask is None` is looked at separately.
    absent = {name: None for name, p in inspect.signature(model.forward).parameters.items() if p.default is None}
    if absent and _pairs(*_trace(model, absent)) != pairs:
        raise ValueError(f"{_class_name(model)} connects its layers otherwise without {', '.join(absent)}: {REMEDY}")
    return pairs


def _fault(module):
    """Why no model with this module in it can be folded, however its layers are connected; None if it may be."""
    if isinstance(module, torch.jit.ScriptModule) and _has_batch_norm(module):
        return "is compiled by torch.jit: fold the model before it is compiled"
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return f"is a {_class_name(module)}: fold its .module"
    if isinstance(module, torch._dynamo.OptimizedModule):
        return "is compiled by torch.compile: fold its ._orig_mod"
    # A method of its class may name F.batch_norm or the like, though no layer in it has that name.
    codes = [getattr(value, "__code__", None) for kind in type(module).__mro__ for value in vars(kind).values()]
    called = {name for code in codes if code for name in code.co_names if name in FUNCTIONS}
    if not _is_batch_norm(module) and any(not any(hasattr(m, name) for m in module.modules()) for name in called):
        return "calls batch_norm as a function: let it have a layer, nn.BatchNorm1d or its like"
    # A copy's hooks would go on writing into the original's lists, and reading from them.
    hooked = module._forward_hooks or module._forward_pre_hooks
    return _altered(module) if hooked or _has_batch_norm(module) else None


def _pairs(root, graph):
    modules = dict(root.named_modules())
    used = {id(attrgetter(node.target)(root)) for node in graph.nodes if node.op == "get_attr"}
    calls = {module: [] for module in modules.values()}
    for node in graph.nodes:
        if node.op == "call_module":
            for module in modules[node.target].modules():  # a module not looked into calls what it contains
                calls[module].append(node)
        if node.op == "call_function" and getattr(node.target, "__name__", "") in FUNCTIONS:
            raise ValueError(f"{_class_name(root)} calls {node.target.__name__} as a function: let it have a layer")
    pairs = {}
    for name, module in modules.items():
        if _is_batch_norm(module) and not calls[module]:
            raise ValueError(f"{name or _class_name(root)} is not called as a layer in eval mode: let forward call it")
        for call in calls[module] if _is_batch_norm(module) else ():
            before = call.args[0] if call.args else call.kwargs.get("input")
            called = before.target if isinstance(before, fx.Node) and before.op == "call_module" else None
            if called is None or not isinstance(modules[called], (*LINEARS, *CONVOLUTIONS)):
                what = _describe(before, modules)
                raise ValueError(f"{name} follows {what}, not directly a Linear or a convolution: {REMEDY}")
            users = [user for call in calls[modules[called]] for user in call.users if user not in calls[module]]
            if users:
                what = _describe(users[0], modules)
                raise ValueError(f"{name} follows {called}, whose output also goes to {what}: {REMEDY}")
            pairs[called] = name
    for name in {*pairs, *pairs.values()}:
        if used & {id(tensor) for tensor in modules[name].state_dict(keep_vars=True).values()}:
            raise ValueError(f"{name}'s tensors are also used by others, or without calling it: {REMEDY}")
    return pairs


def _describe(node, modules):
    if not isinstance(node, fx.Node) or node.op == "get_attr":
        return "something that no layer puts out"
    if node.op == "call_module":
        return f"{node.target} ({_class_name(modules[node.target])})"
    name = getattr(node.target, "__name__", node.target)
    return {"output": "the model's output", "placeholder": f"the input {name}"}.get(node.op, f"{name}()")


def _trace(model, arguments=None):
    """(a copy of the model, perhaps with symbols left in it; the graph of calls that torch.fx sees in its forward)."""
    tracer = _Tracer()
    for tracer.look_into_all in True, False:
        root = _copy_for_eval(model)
        try:
            with torch.random.fork_rng(range(torch.cuda.device_count())):
                return root, tracer.trace(root, arguments)
        except Exception as error:  # noqa: BLE001  a forward may fail at a symbol in any way
            reason = error
    frames = traceback.extract_tb(reason.__traceback__)
    line = next((f" at line {f.lineno}, `{f.line}`" for f in frames[::-1] if not f.filename.startswith(OURS)), "")
    forward = f"{_class_name(model)}'s forward{inspect.signature(model.forward)}"
    raise ValueError(f"torch.fx can't follow {forward}{line}: {REMEDY} ({type(reason).__name__}: {reason})") from reason


class _Tracer(fx.Tracer):
    """Looks into containers, or where that fails only into those that hold a BatchNorm; never into a layer."""

    def is_leaf_module(self, module, name):
        if _is_batch_norm(module) or not list(module.children()) or super().is_leaf_module(module, name):
            return True
        return not _has_batch_norm(module) and (not self.look_into_all or _altered(module) is not None)


def _is_batch_norm(module):
    """By its class, or by what it keeps: torchvision's frozen one, one of your own."""
    kept = [getattr(module, name, None) for name in ("running_mean", "running_var")]
    return isinstance(module, BATCH_NORMS) or all(isinstance(value, torch.Tensor) for value in kept)


def _has_batch_norm(module):
    return any(map(_is_batch_norm, module.modules()))


def _copy_for_eval(model):
    """A copy in eval mode; tensors that its modules keep from a forward pass are cut off from their graphs."""
    seen = set()

    def tensors(value):
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            for inner in value.values() if isinstance(value, dict) else value:
                yield from tensors(inner)

    kept = [tensor for module in model.modules() for tensor in tensors(vars(module)) if not tensor.is_leaf]
    try:
        return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in kept}).eval()
    except Exception as error:
        raise ValueError(f"{_class_name(model)} can't be copied: clear what it keeps, as {error}") from error


def _altered(module):
    """What makes a module compute something else than its class and its parameters say; None if nothing does."""
    if any(map(nn.parameter.is_lazy, module.parameters(recurse=False))):
        return "has no shape yet: call the model once"
    if nn.utils.parametrize.is_parametrized(module):
        return "is parametrized: call torch.nn.utils.parametrize.remove_parametrizations on it first"
    if "forward" in vars(module):
        return "has had its forward replaced: put the one of its class back first"
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return "has hooks, which folding may make wrong: remove them first" if any(hooks) else None


def _class_name(module):
    kind = module if isinstance(module, type) else type(module)
    return f"helpers.layers.{kind.__name__}" if kind in (BatchNorm1d, Linear) else kind.__name__
