"""Which BatchNorm directly follows which layer, in any model whose forward torch.fx can follow.

torch.fx runs forward once, with symbols in place of numbers, and writes down every call: a graph.
"""

import copy
import inspect
from operator import attrgetter

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from helpers.layers import BatchNorm1d, Linear

__all__ = ["BATCH_NORMS", "altered", "class_name", "copy_for_eval", "find_batch_norms"]

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, BatchNorm1d)
REMEDY = "change the model, or fold layer by layer with fold_linear and fold_conv"


def find_batch_norms(model, layers):
    """{name of a layer: name of the BatchNorm that follows each of its calls}, with every BatchNorm in it.

    layers: the classes that a BatchNorm may follow. Raises ValueError, with its name and the reason, for a
    BatchNorm that follows anything else, or follows a layer whose output goes elsewhere too, or whose tensors
    something else uses; for a model that torch.fx can't follow; and where hooks may change what a call gives.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and "BatchNorm" in module.original_name:
            raise ValueError(f"{name} is compiled by torch.jit.script: fold the model before it is compiled")
    if not _has_batch_norm(model):
        return {}
    for name, module in model.named_modules():
        if _has_batch_norm(module) and (what := altered(module)):
            raise ValueError(f"{name or class_name(model)} {what}")
    pairs = _pairs(*_trace(model), layers)
    # A symbol is never None, so the other branch of an `if mask is None` is looked at separately.
    arguments = inspect.signature(model.forward).parameters.values()
    absent = {argument.name: None for argument in arguments if argument.default is None}
    if absent and _pairs(*_trace(model, absent), layers) != pairs:
        raise ValueError(
            f"{class_name(model)} connects its layers in another way without {' and '.join(absent)}: {REMEDY}"
        )
    return pairs


def _pairs(root, graph, layers):
    modules = dict(root.named_modules())
    names = {module: name for name, module in modules.items()}
    used = {id(attrgetter(node.target)(root)) for node in graph.nodes if node.op == "get_attr"}
    calls = {name: [] for name in modules}
    for node in graph.nodes:
        if node.op == "call_module":
            for module in modules[node.target].modules():  # a module not looked into calls what it contains
                calls[names[module]].append(node)

    pairs = {}
    for name in [name for name, module in modules.items() if isinstance(module, BATCH_NORMS)]:
        if not calls[name]:
            raise ValueError(f"{name} is not called as a layer in eval mode: let forward call it, or take it out")
        for call in calls[name]:
            before = call.args[0] if call.args else call.kwargs.get("input")
            is_call = isinstance(before, fx.Node) and before.op == "call_module"
            if not (is_call and isinstance(modules[before.target], layers)):
                what = _describe(before, modules)
                raise ValueError(f"{name} follows {what}, not directly a Linear or a convolution: {REMEDY}")
            layer = before.target
            users = [user for call in calls[layer] for user in call.users if user not in calls[name]]
            if users:
                what = _describe(users[0], modules)
                raise ValueError(f"{name} follows {layer}, whose output also goes to {what}: {REMEDY}")
            pairs[layer] = name
    for name in {*pairs, *pairs.values()}:
        if used & {id(tensor) for tensor in modules[name].state_dict(keep_vars=True).values()}:
            raise ValueError(f"{name}'s tensors are also used by others, or without calling it: {REMEDY}")
    return pairs


def _describe(node, modules):
    if not isinstance(node, fx.Node) or node.op == "get_attr":
        return "something that no layer puts out"
    if node.op == "call_module":
        return f"{node.target} ({class_name(modules[node.target])})"
    if node.op == "output":
        return "the model's output"
    name = getattr(node.target, "__name__", node.target)
    return f"the input {name}" if node.op == "placeholder" else f"{name}()"


def _trace(model, arguments=None):
    """(a copy of the model, the torch.fx graph of its forward); the copy may be left with symbols in it.

    arguments: values for some of forward's arguments, which are then no symbols.
    """
    for look_into_all in True, False:
        try:
            root = copy_for_eval(model)
            with torch.random.fork_rng(range(torch.cuda.device_count())):
                return root, _Tracer(look_into_all).trace(root, arguments)
        except Exception as error:  # noqa: BLE001  a forward may fail at a symbol in any way
            reason = error
    raise ValueError(
        f"torch.fx can't follow {class_name(model)}'s forward ({type(reason).__name__}: {reason}): {REMEDY}"
    ) from reason


class _Tracer(fx.Tracer):
    """Looks into containers, or where that fails only into those that hold a BatchNorm; never into a layer."""

    def __init__(self, look_into_all):
        super().__init__()
        self.look_into_all = look_into_all

    def is_leaf_module(self, module, name):
        if isinstance(module, BATCH_NORMS) or not list(module.children()) or super().is_leaf_module(module, name):
            return True
        return not _has_batch_norm(module) and (not self.look_into_all or altered(module) is not None)


def _has_batch_norm(module):
    return any(isinstance(inner, BATCH_NORMS) for inner in module.modules())


def copy_for_eval(model):
    """A copy in eval mode; tensors that its modules keep from a forward pass are cut off from their graphs."""
    kept = [value for module in model.modules() for value in vars(module).values()]
    inner = [value for value in kept if isinstance(value, torch.Tensor) and not value.is_leaf]
    return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in inner}).eval()


def altered(module):
    """What makes a module compute something else than its class and its parameters say; None if nothing does."""
    if any(map(is_lazy, module.parameters(recurse=False))):
        return "has no shape yet: call the model once"
    if is_parametrized(module):
        return "is parametrized: call torch.nn.utils.parametrize.remove_parametrizations on it first"
    if "forward" in vars(module):
        return "has had its forward replaced: put the one of its class back first"
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return "has hooks, which folding may make wrong: remove them first" if any(hooks) else None


def class_name(module):
    kind = module if isinstance(module, type) else type(module)
    return f"helpers.layers.{kind.__name__}" if kind in (BatchNorm1d, Linear) else kind.__name__
