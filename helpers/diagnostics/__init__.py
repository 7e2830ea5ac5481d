"""Read any network's health: what its layers put out, what gradients reach them, how fast its weights learn.

One forward and one backward pass, watched by hooks; afterwards the network is exactly as it was. What the
readings mean stands with LayerRow and ParameterRow, what counts as unhealthy in helpers.diagnostics.warnings.
"""

import copy
import math
from collections.abc import Mapping

import torch
from torch.nn.functional import cross_entropy

from .hooks import left_as_it_was, map_tensors, watched_call
from .rows import Diagnosis, Histogram, LayerRow, ParameterRow, class_name
from .statistics import as_rows, statistics

__all__ = ["Diagnosis", "Histogram", "LayerRow", "ParameterRow", "diagnose"]

SATURATED = 0.97  # the lecture's threshold for |tanh|, where a gradient keeps 6 % of its size
# Activations are known by their class's name, so that a Tanh that you wrote yourself counts too.
BOUNDS = {"Tanh": (-1, 1), "Softsign": (-1, 1), "Sigmoid": (0, 1), "Hardsigmoid": (0, 1), "Hardtanh": None}
DYING = {"ReLU", "ReLU6"}
BOUNDED_OR_DYING = {*BOUNDS, *DYING}


def diagnose(
    model, inputs, targets=None, *, loss_fn=cross_entropy, lr=None, optimizer=None, histograms=True, num_models=None
):
    """One forward and backward pass of any nn.Module, measured layer by layer and parameter by parameter.

    inputs: a tensor, a tuple (positional arguments) or a dict (keyword arguments). The loss is
    ``loss_fn(output, targets)``, or ``loss_fn(output)`` without targets; with loss_fn=None there is none, and
    no gradients. lr: judges ``lr * gradient``, plain SGD's update. optimizer: judges the step it would take
    (tried on copies; with lr, if that is given too, as in train). histograms=False leaves the histograms out:
    a look for every few steps of a training, at half the price.

    num_models=R reads a stack of R networks, whose parameters and layers' outputs all have the networks as
    dimension 0, and returns R Diagnoses in a list, each what diagnose says of that network alone: loss_fn is
    called with one network's output at a time. Every network is shown the same targets, unless they are a list
    of one for each; lr may be a tensor of one value a network.

    The mode, train or eval, is the one that the model is in. The model, its buffers and .grad, the optimizer,
    the inputs and torch's random state stay exactly as they are, even when the model raises.

    A container that only hands on what its last layer returned has no row; one that computes something itself
    (a residual sum) has. Raises ValueError for a loss that is not one number, and for num_models with a network
    that is no such stack.
    Source: the lecture, 1:26:51 to 1:46:04.
    """
    if targets is None and loss_fn is cross_entropy:
        raise ValueError(
            "targets is None, but cross_entropy needs them: give targets, or loss_fn=None for no gradients"
        )
    rates = _rates(lr, optimizer, num_models)
    if not isinstance(inputs, Mapping):
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    grad_mode = torch.no_grad() if loss_fn is None else torch.enable_grad()

    def see(name, module, output, channels_first):
        networks = _each(output.detach(), num_models, name)
        return [_layer_row(name, module, values, channels_first, histograms) for values in networks]

    with left_as_it_was(model, inputs), torch.inference_mode(False), grad_mode:
        rows, edges, output = watched_call(model, inputs, see)
        losses = [] if loss_fn is None else _losses(loss_fn, output, targets, num_models)
        parameters = list(model.parameters())
        gradients = _gradients(losses, [*edges, *(p if p.requires_grad else None for p in parameters)])
        at_layers, at_parameters = gradients[: len(rows)], gradients[len(rows) :]
        changes = [None] * len(parameters)
        if optimizer is not None:
            changes = _changes(parameters, at_parameters, lr, optimizer)

    def gradient_row(row, gradient):
        return LayerRow(row.name, row.type, row.shape, **_statistics(gradient, histograms))

    # From here on everything is listed by network, of which there may be one.
    each = [_each(gradient, num_models) for gradient in (at_layers if losses else ())]
    gradient_rows = [list(map(gradient_row, *pair)) for pair in zip(rows, each, strict=bool(losses))]
    parameter_rows = []
    for name, kind, *tensors in zip(*_names_and_types(model), parameters, at_parameters, changes, strict=True):
        trainable = tensors[0].requires_grad
        each = zip(*(_each(tensor, num_models, name) for tensor in tensors), rates, strict=True)
        parameter_rows.append([_parameter_row(name, kind, trainable, *one, histograms) for one in each])
    diagnoses = [
        Diagnosis(
            *([row[r] for row in table] for table in (rows, gradient_rows, parameter_rows)),
            losses[r].item() if losses else None,
        )
        for r in range(num_models or 1)
    ]
    return diagnoses[0] if num_models is None else diagnoses


def _rates(lr, optimizer, num_models):
    """The rate of each network's plain SGD; None without lr, and with an optimizer, which takes other steps."""
    if num_models is not None and num_models < 1:
        raise ValueError(f"num_models is {num_models}: give the number of networks in the stack, or None for one")
    networks = num_models or 1
    several = isinstance(lr, torch.Tensor) and lr.dim()
    if several and optimizer is not None:
        raise ValueError("lr is a tensor of several: an optimizer takes one number for all networks")
    if lr is None or optimizer is not None:
        return [None] * networks
    if not several:
        return [float(lr)] * networks
    if lr.shape != (networks,):
        raise ValueError(f"lr has shape {tuple(lr.shape)} for {networks} network(s): give one value each")
    return lr.tolist()


def _each(tensor, num_models, name=None):
    """The part of each network in a stack's tensor; all of it for a network alone; None for None."""
    if num_models is None:
        return [tensor]
    if tensor is None:
        return [None] * num_models
    if tensor.shape[:1] != (num_models,):
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, whose first dimension does not count num_models={num_models} "
            "networks: leave num_models out, unless the model is a stack"
        )
    return tensor.unbind()


def _losses(loss_fn, output, targets, num_models):
    """The loss of each network."""
    if num_models is None:
        pairs = [(output, targets)]
    else:
        outputs = [map_tensors(lambda t: t[r], output) for r in range(num_models)]  # noqa: B023, called at once
        targets = targets if isinstance(targets, (list, tuple)) else [targets] * num_models
        if len(targets) != num_models:
            raise ValueError(f"{len(targets)} targets for {num_models} networks: give one, or a list of one each")
        pairs = zip(outputs, targets, strict=True)
    losses = [loss_fn(out) if target is None else loss_fn(out, target) for out, target in pairs]
    for loss in losses:
        if loss.numel() != 1:
            raise ValueError(f"the loss has shape {tuple(loss.shape)}: give a loss_fn that returns one number, a mean")
    return losses


def _gradients(losses, at):
    """Each network's loss's gradients at tensors or places in the graph; None where there is none."""
    wanted = [place for place in at if place is not None]
    total = sum(loss.sum() for loss in losses)  # whose gradient for one network is that of its own loss
    found = iter(())
    if losses and total.requires_grad and wanted:
        found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
    return [None if place is None else next(found, None) for place in at]


def _changes(parameters, gradients, lr, optimizer):
    """How the optimizer would change each parameter in the next step; None where it would not."""
    copies = {}  # deepcopy notes here what it copied, by id
    trial = copy.deepcopy(optimizer, copies)
    for p, gradient in zip(parameters, gradients, strict=True):
        if id(p) in copies and gradient is not None:
            copies[id(p)].grad = gradient.clone()
    for group in trial.param_groups if lr is not None else ():
        group["lr"] = lr
    trial.step()
    return [
        None if g is None or id(p) not in copies else copies[id(p)].detach() - p.detach()
        for p, g in zip(parameters, gradients, strict=True)
    ]


def _names_and_types(model):
    """The name of every parameter, and its layer's class."""
    types = {f"{name}.{p}".lstrip("."): type(m) for name, m in model.named_modules() for p in m._parameters}
    names = [name for name, _ in model.named_parameters()]
    return names, [types[name] for name in names]


def _layer_row(name, module, values, channels_first, histograms):
    """What one network's layer put out."""
    readings = _statistics(values, histograms)
    # Nothing compares with NaN: it would count as neither.
    if not readings.get("nonfinite") or not values.isnan().any():
        readings["saturated"] = _saturated(module, values)
        readings["dead"] = _dead(module, values, channels_first)
    return LayerRow(name, type(module), tuple(values.shape), **readings)


def _parameter_row(name, kind, trainable, parameter, gradient, change, lr, histograms):
    """What one network's parameter is like. change: what an optimizer would do, or None for lr * gradient."""
    data = _statistics(parameter, histograms)
    grad = {f"grad_{key}": value for key, value in _statistics(gradient, histograms).items()}
    update_std = _statistics(change, False).get("std")
    if change is None and lr is not None and grad.get("grad_std") is not None:
        update_std = abs(lr) * grad["grad_std"]
    return ParameterRow(
        name,
        kind,
        tuple(parameter.shape),
        trainable,
        **data,
        **grad,
        grad_to_data=_ratio(grad.get("grad_std"), data.get("std")),
        update_std=update_std,
        update_to_data=_ratio(update_std, data.get("std")),
    )


def _statistics(tensor, histograms):
    return {} if tensor is None else statistics(as_rows(tensor)[0], histograms)


def _ratio(part, whole):
    ratio = part / whole if part is not None and whole else None
    return ratio if ratio is not None and math.isfinite(ratio) else None


def _saturated(module, t):
    name = class_name(type(module), BOUNDED_OR_DYING)
    if name not in BOUNDS or not t.numel():
        return None
    low, high = BOUNDS[name] or (module.min_val, module.max_val)
    return torch.count_nonzero((2 * t - low - high).abs() > SATURATED * (high - low)).item() / t.numel()


def _dead(module, t, channels_first):
    if class_name(type(module), DYING) is None or t.dim() < 2 or not t.numel():
        return None
    unit = 1 if channels_first or t.dim() > 3 else -1
    return (t == 0).movedim(unit, 0).flatten(1).all(1).double().mean().item()
