"""Read any network's health: what its layers put out, what gradients reach them, how fast its weights learn.

One forward and one backward pass, watched by hooks; afterwards the network is exactly as it was. What the
readings mean stands with LayerRow and ParameterRow, what counts as unhealthy in helpers.health.
"""

import copy
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.functional import cross_entropy

from helpers.readings import Diagnosis, Histogram, LayerRow, ParameterRow, class_name

__all__ = ["Diagnosis", "Histogram", "LayerRow", "ParameterRow", "diagnose"]

SATURATED = 0.97  # the lecture's threshold for |tanh|, where a gradient keeps 6 % of its size
# Activations are known by their class's name, so that a Tanh that you wrote yourself counts too.
BOUNDS = {"Tanh": (-1, 1), "Softsign": (-1, 1), "Sigmoid": (0, 1), "Hardsigmoid": (0, 1), "Hardtanh": None}
DYING = {"ReLU", "ReLU6"}
CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


def diagnose(model, inputs, targets=None, *, loss_fn=cross_entropy, lr=None, optimizer=None):
    """One forward and backward pass of any nn.Module, measured layer by layer and parameter by parameter.

    inputs: a tensor, a tuple (positional arguments) or a dict (keyword arguments). The loss is
    ``loss_fn(output, targets)``, or ``loss_fn(output)`` without targets; with loss_fn=None there is none, and
    no gradients. lr: judges ``lr * gradient``, plain SGD's update. optimizer: judges the step it would take
    (tried on copies; with lr, if that is given too, as in train).

    The mode, train or eval, is the one that the model is in. The model, its buffers and .grad, the optimizer,
    the inputs and torch's random state stay exactly as they are, even when the model raises.

    A container that only hands on what its last layer returned has no row; one that computes something itself
    (a residual sum) has. Raises ValueError for a loss that is not one number.
    Source: the lecture, 1:26:51 to 1:46:04.
    """
    if targets is None and loss_fn is cross_entropy:
        raise ValueError(
            "targets is None, but cross_entropy needs them: give targets, or loss_fn=None for no gradients"
        )
    if not isinstance(inputs, Mapping):
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    grad_mode = torch.no_grad() if loss_fn is None else torch.enable_grad()
    with _left_as_it_was(model, inputs), torch.inference_mode(False), grad_mode:
        rows, edges, output = _watched_call(model, inputs)
        loss = None
        if loss_fn is not None:
            loss = loss_fn(output) if targets is None else loss_fn(output, targets)
        parameters = list(model.parameters())
        gradients = _gradients(loss, [*edges, *(p if p.requires_grad else None for p in parameters)])
        at_layers, at_parameters = gradients[: len(rows)], gradients[len(rows) :]
        updates = _updates(parameters, at_parameters, lr, optimizer)
    if loss is None:
        gradient_rows = []
    else:
        at_rows = zip(rows, at_layers, strict=True)
        gradient_rows = [LayerRow(row.name, row.type, row.shape, **_statistics(g)) for row, g in at_rows]
    parameter_rows = map(_parameter_row, _names_and_types(model), parameters, at_parameters, updates)
    return Diagnosis(rows, gradient_rows, list(parameter_rows), None if loss is None else loss.item())


@contextmanager
def _left_as_it_was(model, inputs):
    """Let the model run on copies of its buffers; then put back what its modules hold, and the random state."""
    saved = [(module, dict(module.__dict__), dict(module._buffers)) for module in model.modules()]
    copies = {id(b): b.clone() for b in model.buffers()}
    tensors = [*model.parameters(), *model.buffers(), *_tensors(inputs)]
    gpus = {t.device.index for t in tensors if t.device.type == "cuda"}
    try:
        for module, _, buffers in saved:
            module._buffers.update({name: copies.get(id(b)) for name, b in buffers.items()})
        with torch.random.fork_rng(gpus):
            yield
    finally:
        for module, attributes, buffers in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)  # .training is among them, and a learner's own .out
            module._buffers.clear()
            module._buffers.update(buffers)


def _watched_call(model, inputs):
    """Call the model: a LayerRow for each layer call, the place of its gradient in the graph, the output."""
    names = {module: name or type(model).__name__ for name, module in model.named_modules()}
    rows, edges, calls = [], [], Counter()
    returned = [[]]  # by the layers called so far: a list for each call that is still open
    last = None  # the last layer with parameters

    def before(module, args):
        returned.append([])

    def after(module, args, output):
        nonlocal last
        if torch.is_grad_enabled():
            # A view that is changed in place afterwards loses its place in the graph; a copy keeps it.
            output = _map(lambda t: t.clone() if t.requires_grad and t._is_view() else t, output)
        tensors, from_inside = list(_tensors(output)), returned.pop()
        # The version counts changes in place: a container may add to what its last layer returned.
        returned[-1] += [(t, t._version) for t in tensors]
        if all(any(t is other and t._version == version for other, version in from_inside) for t in tensors):
            return output  # a container that only hands on
        calls[module] += 1
        last = module if module._parameters else last
        name = names[module] + (f" (call {calls[module]})" if calls[module] > 1 else "")
        for i, t in enumerate(tensors):
            values = t.detach()
            readings = _statistics(values)
            if not values.isnan().any():  # nothing compares with NaN: it would count as neither
                readings["saturated"] = _saturated(module, values)
                readings["dead"] = _dead(module, values, isinstance(last, CHANNELS_FIRST))
            rows.append(LayerRow(name + (f"[{i}]" if i else ""), type(module), tuple(t.shape), **readings))
            edges.append(get_gradient_edge(t) if t.requires_grad else None)
        return output

    handles = [module.register_forward_pre_hook(before) for module in names]
    handles += [module.register_forward_hook(after) for module in names]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would go past a transformer's layers in eval mode
    try:
        # Copies, as the first layer may work in place.
        if isinstance(inputs, Mapping):
            output = model(**_map(torch.clone, dict(inputs)))
        else:
            output = model(*_map(torch.clone, inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for handle in handles:
            handle.remove()
    return rows, edges, output


def _map(function, value):
    """function of every tensor in a tensor, tuple, list or dict; whatever else is there stays."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if type(value) in (tuple, list):
        return type(value)(_map(function, v) for v in value)
    return {k: _map(function, v) for k, v in value.items()} if type(value) is dict else value


def _tensors(value):
    """The floating-point tensors in a layer's output, however nested."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (tuple, list, Mapping)):
        for v in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(v)


def _gradients(loss, at):
    """The loss's gradients at tensors or places in the graph; None at a None, and where it does not depend on it."""
    wanted = [place for place in at if place is not None]
    if loss is None:
        return [None] * len(at)
    if loss.numel() != 1:
        raise ValueError(
            f"the loss has shape {tuple(loss.shape)}: give a loss_fn that returns one number, a mean"
        )
    found = iter(())
    if loss.requires_grad and wanted:
        found = iter(torch.autograd.grad(loss.sum(), wanted, allow_unused=True))
    return [None if place is None else next(found, None) for place in at]


def _updates(parameters, gradients, lr, optimizer):
    """How each parameter would change in the next step; None without a gradient, lr or optimizer."""
    if optimizer is None:
        return [None if lr is None or g is None else lr * g for g in gradients]
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
    """(name, its layer's class) of every parameter."""
    types = {f"{name}.{p}".lstrip("."): type(m) for name, m in model.named_modules() for p in m._parameters}
    return [(name, types[name]) for name, _ in model.named_parameters()]


def _parameter_row(name_and_type, parameter, gradient, update):
    data = _statistics(parameter)
    grad = {f"grad_{key}": value for key, value in _statistics(gradient).items()}
    update_std = _statistics(update).get("std")
    return ParameterRow(
        *name_and_type,
        tuple(parameter.shape),
        parameter.requires_grad,
        **data,
        **grad,
        grad_to_data=_ratio(grad.get("grad_std"), data.get("std")),
        update_std=update_std,
        update_to_data=_ratio(update_std, data.get("std")),
    )


def _statistics(tensor):
    if tensor is None:
        return {}
    x = tensor.detach().to_dense().to("cpu").double().flatten()  # some accelerators have no float64
    if not len(x):
        return {}
    low, high = x.aminmax()
    if not (low.isfinite() and high.isfinite()):
        return {"nonfinite": int((~x.isfinite()).sum())}
    # A constant's computed std may be 1e-17, and a ratio to it anything.
    std = None if len(x) < 2 else 0.0 if low == high else x.std().item()
    return {
        "mean": x.mean().item(),
        "std": std,
        "histogram": Histogram(*torch.histogram(x, 100, density=True)),
    }


def _ratio(part, whole):
    ratio = part / whole if part is not None and whole else None
    return ratio if ratio is not None and math.isfinite(ratio) else None


def _saturated(module, t):
    name = class_name(type(module), {*BOUNDS, *DYING})
    if name not in BOUNDS or not t.numel():
        return None
    low, high = BOUNDS[name] or (module.min_val, module.max_val)
    return ((2 * t - low - high).abs() > SATURATED * (high - low)).double().mean().item()


def _dead(module, t, channels_first):
    if class_name(type(module), DYING) is None or t.dim() < 2 or not t.numel():
        return None
    unit = 1 if channels_first or t.dim() > 3 else -1
    return (t == 0).movedim(unit, 0).flatten(1).all(1).double().mean().item()
