"""What the checks of classes have in common: stubs, the tensors of a layer, its parameters and gradients."""

import torch
from torch import nn

from helpers.checks.engine import is_a_function, is_empty
from helpers.checks.sandbox import has_gap, require


def is_a_class(attribute):
    """A Verdict for a stub, a layer in place of its class, and what is no class; attribute: one of a layer's."""

    def refuse(cls):
        is_class = isinstance(cls, type) or not hasattr(cls, attribute)
        require(is_class, "the check was given a layer", "Pass the name of its class alone, without calling it.")
        is_a_function(cls)
        tables = [vars(base) for base in getattr(cls, "__mro__", ())]
        methods = [table[name] for table in tables for name in ("forward", "__call__") if name in table]
        written = methods and not is_empty(methods[0]) and methods[0] is not nn.Module.forward
        require(written or not isinstance(cls, type), "the layer does nothing yet when it is called")

    return refuse


def tensor(layer, name, *shape):
    """layer.name, a tensor of this shape, or (1, n) in place of (n,); a Verdict for anything else."""
    value = getattr(layer, name, None)
    require(value is not ..., f"layer.{name} is still `...`")
    is_tensor, hint = isinstance(value, torch.Tensor), f"Make it a tensor of shape {shape} in __init__."
    kind = f"is of type {type(value).__name__}" if hasattr(layer, name) else "does not exist"
    kind = f"has shape {tuple(value.shape)}" if is_tensor else kind
    if len(shape) == 2 and kind == f"has shape {shape[::-1]}":
        hint = f"That is nn.Linear's layout, (fan_out, fan_in): here it is x @ {name}, so (fan_in, fan_out)."
    require(is_tensor and value.shape in (shape, (1, *shape)), f"layer.{name} {kind}", hint)
    return value


def fill(layer, **values):
    """Put these values into the named tensors of a layer; None is passed over."""
    for name, value in values.items():
        if value is not None:
            tensor(layer, name, *value.shape).data.copy_(value)
    return layer


def not_shared(first, second, names):
    """A Verdict where two layers of a class have one tensor in common."""
    for name in names:
        apart = getattr(first, name).data_ptr() != getattr(second, name).data_ptr()
        hint = "Make it in __init__, not in the class body or as a default: every layer has its own."
        require(apart, f"two layers share one tensor as their layer.{name}", hint)


def trainable(layer, names):
    """The named tensors that are not None; a Verdict where layer.parameters(), if there is one, does not list just them.

    The gradients of a plain class are switched on, as whoever trains it does in the lecture.
    """
    wanted = {name: getattr(layer, name) for name in names if getattr(layer, name) is not None}
    method = getattr(layer, "parameters", None)
    listed = list(method()) if callable(method) else list(wanted.values())
    for name, value in wanted.items():
        is_listed = any(value is parameter for parameter in listed)
        hint = "Nothing would train it: list it there; in an nn.Module make it an nn.Parameter."
        require(is_listed, f"layer.{name} is not among layer.parameters()", hint)
        hint = "Its .grad would stay None. Compute the numbers first, then switch the gradient on."
        require(value.is_leaf, f"layer.{name} is computed from another tensor that requires grad", hint)
        if callable(method) and not isinstance(layer, nn.Module):
            value.requires_grad_()
    hint = f"An optimizer changes all that is listed there: list {' and '.join(wanted)}, each once, and nothing else."
    require(len(listed) == len(wanted), f"layer.parameters() lists {len(listed)} things", hint)
    return wanted


def gradients(out, tensors):
    """The gradients, at the named tensors, of a sum that weighs every entry of the output differently."""
    require(not has_gap(out), "it still returns `...`")
    require(out is not None, "it returned None", "Did you forget `return`?")
    hint = "Only torch tensors carry gradients: return one."
    require(isinstance(out, torch.Tensor), f"the output is of type {type(out).__name__}", hint)
    hint = "Something cuts it off: look for .data, .detach(), .item() or no_grad."
    require(out.requires_grad, "the output has no gradient", hint)
    for name, value in tensors.items():
        hint = "Make it an nn.Parameter, or a tensor with requires_grad=True."
        require(value.requires_grad, f"{name}.requires_grad is False", hint)
    weighted = (out * torch.arange(1, out.numel() + 1).view_as(out).sin()).sum()
    return torch.autograd.grad(weighted, list(tensors.values()), materialize_grads=True)
