"""What the checks of classes have in common: stubs, the tensors of a layer, its parameters and gradients."""

import torch
from torch import nn

from helpers.checks.engine import is_empty
from helpers.checks.sandbox import Verdict


def is_a_class(attribute):
    """A Verdict for a stub, for a layer in place of its class, and for what is no class; attribute: one of a layer's."""

    def refuse(cls):
        if cls is None or cls is ...:
            raise Verdict("it is still empty", status="not attempted")
        if not isinstance(cls, type) and hasattr(cls, attribute):
            raise Verdict("the check was given a layer", "Pass the name of its class alone, without calling it.")
        if not callable(cls):
            given = f"the check was given an object of type {type(cls).__name__}"
            raise Verdict(given, "Pass its name alone, without calling it.")
        methods = [vars(base)[name] for base in getattr(cls, "__mro__", ()) for name in ("forward", "__call__")
                   if name in vars(base)]  # fmt: skip
        stub = not methods or is_empty(methods[0]) or methods[0] is nn.Module.forward
        if isinstance(cls, type) and stub or is_empty(cls):
            raise Verdict("the layer does nothing yet when it is called", status="not attempted")

    return refuse


def tensor(layer, name, dim):
    """layer.name, a tensor of dim values in its last dimension; a Verdict for anything else."""
    value = getattr(layer, name, None)
    hint = f"Make it a tensor of one value per feature, of shape ({dim},), in __init__."
    if value is ...:
        raise Verdict(f"layer.{name} is still `...`", status="not attempted")
    if not isinstance(value, torch.Tensor):
        kind = f"is of type {type(value).__name__}" if hasattr(layer, name) else "does not exist"
        raise Verdict(f"layer.{name} {kind}", hint)
    if value.numel() != dim or value.shape[-1] != dim:
        raise Verdict(f"layer.{name} has shape {tuple(value.shape)}", hint)
    return value


def fill(layer, **values):
    """Put these values into the tensors of a layer; None is passed over."""
    for name, value in values.items():
        if value is not None:
            target = getattr(layer, name)
            target.data.copy_(value.view_as(target))
    return layer


def not_shared(first, second, names):
    """A Verdict where two layers of a class have one tensor in common."""
    for name in names:
        if getattr(first, name).data_ptr() == getattr(second, name).data_ptr():
            hint = "Make it in __init__, not in the class body or as a default: every layer has its own."
            raise Verdict(f"two layers share one tensor as their layer.{name}", hint)


def trainable(layer, names):
    """Switch the gradients of these tensors on, as whoever trains the layer does; a Verdict where that is impossible.

    An nn.Module registers them; of a plain class, parameters() lists them, if it has one. Nothing else is listed.
    """
    wanted = {name: getattr(layer, name) for name in names if getattr(layer, name) is not None}
    method = getattr(layer, "parameters", None)
    listed = list(method()) if callable(method) else list(wanted.values())
    for name, value in wanted.items():
        if not any(value is parameter for parameter in listed):
            hint = "Nothing would train it: list it there; in an nn.Module make it an nn.Parameter."
            raise Verdict(f"layer.{name} is not among layer.parameters()", hint)
        if not value.is_leaf:
            hint = "Its .grad would stay None. Compute the numbers first, then switch the gradient on."
            raise Verdict(f"layer.{name} is computed from another tensor that requires grad", hint)
        if callable(method) and not isinstance(layer, nn.Module):
            value.requires_grad_()  # the lecture's way: whoever trains a plain class switches its gradients on
    for parameter in listed:
        if not any(parameter is value for value in wanted.values()):
            others = [name for name, value in vars(layer).items() if value is parameter]
            others += (
                [name for name, value in layer.named_buffers() if value is parameter]
                if hasattr(layer, "named_buffers")
                else []
            )
            found = "None" if parameter is None else f"layer.{others[0]}" if others else "another tensor"
            hint = f"An optimizer changes all that is listed there: list {' and '.join(wanted)}, and nothing else."
            raise Verdict(f"{found} is among layer.parameters()", hint)
    return wanted


def gradients(out, tensors):
    """The gradients, at the named tensors, of a sum that weighs every entry of the output differently."""
    cut = "Something cuts it off: look for .data, .detach(), .item() or no_grad."
    if not isinstance(out, torch.Tensor):
        raise Verdict(f"the output is of type {type(out).__name__}", "Only torch tensors carry gradients: return one.")
    if not out.requires_grad:
        raise Verdict("the output has no gradient", cut)
    weighted = (out * torch.arange(1, out.numel() + 1).view_as(out).sin()).sum()
    found = torch.autograd.grad(weighted, list(tensors.values()), allow_unused=True)
    for name, gradient in zip(tensors, found, strict=True):
        if gradient is None:
            raise Verdict(f"{name} receives no gradient", cut)
    return found
