"""What the checks of classes have in common: stubs, tensors that two layers share, gradients through a layer."""

import torch

from helpers.checks.engine import CheckResult, Verdict, is_empty, judge, not_attempted


def class_refused(cls, call, attribute, trial, look):
    """The CheckResult where there is no class to put to the test: a stub, a layer, something else; None for a class.

    attribute: one that a layer has from __init__ on; trial: makes a layer and calls it. Nothing is blamed before
    there is something to call: a stub's __init__ need not be complete.
    """
    if not isinstance(cls, type) and hasattr(cls, attribute):
        hint = "Pass the name of its class alone, without calling it."
        return CheckResult("wrong", call, "the check was given a layer", hint, look)
    bases = getattr(cls, "__mro__", ())
    methods = [vars(base)[name] for base in bases for name in ("forward", "__call__") if name in vars(base)]
    if isinstance(cls, type) and (not methods or is_empty(methods[0])):
        return not_attempted(call, "the layer does nothing yet when it is called")
    result = judge(trial if callable(cls) else cls, "", [()], list, [], look, call=call)
    return result if result.status == "not attempted" or not callable(cls) else None


def refuse_shared(first, second, names):
    """A Verdict where two layers of a class have one tensor in common."""
    for name in names:
        if getattr(first, name).data_ptr() == getattr(second, name).data_ptr():
            hint = "Make it in __init__, not in the class body or as a default: every layer has its own."
            raise Verdict(f"two layers share one tensor as their layer.{name}", hint)


def gradients(out, **tensors):
    """The gradients, at the named tensors, of a sum that weighs every entry of the output differently.

    A Verdict where one is cut off from the output.
    """
    cut = "Something cuts it off: look for .data, .detach(), .item() or no_grad."
    if not out.requires_grad:
        raise Verdict("the output has no gradient", cut)
    weighted = (out * torch.arange(out.numel()).view_as(out).sin()).sum()
    found = torch.autograd.grad(weighted, list(tensors.values()), allow_unused=True)
    for name, gradient in zip(tensors, found, strict=True):
        if gradient is None:
            raise Verdict(f"{name} receives no gradient", cut)
    return found
