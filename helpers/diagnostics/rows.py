"""What is read of a layer and of a parameter, and what each reading means."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from .statistics import Histogram, ratio, tensor_statistics
from .trial import held_by

# The nonlinearities, known by their class's name, so that a Tanh that you wrote yourself counts too: between which
# two numbers their outputs saturate, or that their units can die.
ACTIVATIONS = {"Tanh": (-1, 1), "Softsign": (-1, 1), "Sigmoid": (0, 1), "Hardsigmoid": (0, 1), "Hardtanh": (-1, 1)}
ACTIVATIONS |= {"ReLU": "dies", "ReLU6": "dies"}
ACTIVATIONS |= dict.fromkeys(["LeakyReLU", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish"])
ACTIVATIONS |= dict.fromkeys(["Hardswish", "Softplus", "LogSigmoid"])
# By whose measure an optimizer is judged. (RAdam's first steps are none of both.)
USUAL_DECAY = 0.01  # at the end of a training the gradient is as small as that pulls, or smaller
RULES = {frozenset({"SGD", "ASGD"}): "SGD", frozenset({"Adam", "AdamW", "NAdam", "Adamax"}): "Adam"}


def activation_of(layer):
    """(the nonlinearity that a layer is, by its class's name or that of a base; its bounds), or (None, None)."""
    name = next((base.__name__ for base in type(layer).__mro__ if base.__name__ in ACTIVATIONS), None)
    if name == "Hardtanh" and hasattr(layer, "min_val"):
        return name, (layer.min_val, layer.max_val) if layer.min_val else "dies"  # from 0 on: a ReLU that is cut
    return name, ACTIVATIONS.get(name)


class LossCall(NamedTuple):
    """A call of a loss: its name, and what it was given."""

    name: str
    input: torch.Tensor
    target: torch.Tensor
    loss: torch.Tensor
    mean: torch.Tensor | None  # of a cross-entropy: of the examples' losses, where each counts by itself
    node: object  # of the graph: where the input comes from
    edge: object = None  # the loss's place in the graph, where it is one number for each place


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer: what it put out, or (in Diagnosis.gradients) the loss's gradient there.

    An activation that is called as a function (torch.tanh, x.relu(), F.gelu) and a product with a weight have rows
    like layers, named by where they stand: "Net.relu:12" is line 12. type is then torch's layer that does the same.
    What ends a layer (``return F.relu(self.conv(x))``) has that layer's row. A layer that is called again, or returns
    several tensors, has a row for each: "act", "act (call 2)", "lstm", "lstm[1]". All values are as the layer left
    them, before anything changes them in place.

    mean, std: over all entries (std divides by n - 1); None where undefined: NaN or infinity among them, or
        fewer than two entries. Healthy: much the same std in every layer, near 1 (tanh: about 0.65).
        Shrinking with depth, or growing: the weights' gain is too low, or too high; mend the init
        (gain / sqrt(fan_in)) or normalise. A gradient's std should not change with depth either, whatever
        its size: the layers would learn at different speeds.
    saturated: tanh, sigmoid and the like only: the share of entries within 1.5 % of the range's ends
        (|tanh| > 0.97), where hardly any gradient gets through. Healthy: a few per cent, up to 25 or so in a
        first layer. Zero everywhere: the gain is so low that the layer is as good as linear.
    dead: ReLU only: the share of units (features, or channels) that are zero for every example given; None where
        it is not certain which dimension counts the units (after a permute, for example). Healthy: few. Many: a
        learning rate once too high, or a bias too negative. Try it on more examples: with few, a unit can be merely
        unlucky. Both shares are None where there is NaN.
    nonfinite: how many entries are NaN or infinite. Healthy: none. The first layer that has any is the culprit.
    is_masked: whether all of those are -inf, which is how a mask marks what is not to be.
    is_activation: whether it is a nonlinearity. A sigmoid that only scales something else (a gate) is none.
    """

    name: str
    type: type  # the layer's class
    shape: tuple
    mean: float | None = None
    std: float | None = None
    histogram: Histogram | None = None
    nonfinite: int = 0
    is_masked: bool = False
    saturated: float | None = None
    dead: float | None = None
    is_activation: bool = False


@dataclass(frozen=True)
class ParameterRow:
    """One parameter tensor, its gradient, and the step that it would take. type: its layer's class.

    grad_to_data: std of the gradient / std of the values. Healthy: similar in all weights. One ten times
        above the others (at the start often the output layer, if it was made small) learns ten times as fast.
    update_to_data: std of the update / std of the values; raw, where the lecture takes log10. Under SGD 1e-3 is
        the rule of thumb, for weights rather than biases, and the best rates are often a few times above. Far
        above: the learning rate is too high. Far below: too low, or the weights are too large.
    adam_to_data: under Adam and its kin only: 0.25 * lr / std, about what update_to_data is after the first
        hundred steps, whatever the gradients; at the first step it is lr / std.
    update_rule: "SGD" or "Adam", by whose measure update_to_data is judged; None for other optimizers.
    adam_eps: under Adam and its kin: the eps below which the size of a gradient makes its first steps smaller.
    decay: how many times as hard a weight decay above 0.01 pulls at it as its gradient does.
    lr: the rate of its group. growth: how many times as long its steps may become with no other setting: by momentum,
        1 / (1 - momentum), and where a scheduler has lowered the rate, or not raised it yet.
    is_held: False where none of the optimizers holds it.
    steps: how many steps the optimizer has moved it by; 1 where it has moved it, but does not count.
    copies: of what is multiplied with like a weight: "stay" where all units have the same values and get the same
        gradient, "begin" where all its values are one number.

    None where undefined: for a constant tensor (a fresh bias, gamma or beta: its std is 0), for a parameter
    that is frozen or that the loss does not depend on, and update_to_data without lr and optimizer.
    """

    name: str
    type: type
    shape: tuple
    trainable: bool
    mean: float | None = None
    std: float | None = None
    histogram: Histogram | None = None
    nonfinite: int = 0
    grad_mean: float | None = None
    grad_std: float | None = None
    grad_histogram: Histogram | None = None
    grad_nonfinite: int = 0
    grad_to_data: float | None = None
    update_std: float | None = None
    update_nonfinite: int = 0
    update_to_data: float | None = None
    adam_to_data: float | None = None
    update_rule: str | None = None
    adam_eps: float | None = None
    decay: float | None = None
    lr: float | None = None
    growth: float = 1.0
    is_held: bool = True
    steps: int = 0
    copies: str | None = None


def layer_rows(all_seen):
    """(what the layers put out, the gradients there), a LayerRow each."""
    activations, gradients = [], []
    for seen in all_seen:
        is_activation = seen.activation is not None and not seen.is_gate
        for rows, values in (activations, seen.readings), (gradients, seen.gradient or {}):
            rows.append(LayerRow(seen.name, seen.type, seen.shape, **values, is_activation=is_activation))
    return activations, gradients


def parameter_rows(network, uses, parameters, values, gradients, changes, optimizers, lr, histograms):
    """A ParameterRow each. parameters: by name; values before the step, gradients, changes: in the same order."""
    held, rows = held_by(optimizers), []
    for (name, p), value, gradient, change in zip(parameters.items(), values, gradients, changes, strict=True):
        row = tensor_statistics(value, histograms)
        row |= {f"grad_{key}": value for key, value in tensor_statistics(gradient, histograms).items()}
        step = tensor_statistics(change, False)
        std, update_std = row.get("std"), step.get("std")
        state = held[id(p)][0].state.get(p) if id(p) in held else None
        row["is_held"] = not optimizers or id(p) in held
        row |= dict(update_nonfinite=step.get("nonfinite", 0), steps=int(state.get("step", 1)) if state else 0)
        if not optimizers and change is None and lr is not None and row.get("grad_std") is not None:
            update_std = abs(float(lr)) * row["grad_std"]  # plain SGD's
        row |= dict(grad_to_data=ratio(row.get("grad_std"), std), update_to_data=ratio(update_std, std))
        use = uses.get(id(p), (p, None))[1]
        row["copies"] = _copies(value, gradient, row) if use or _is_torchs(network.owners.get(id(p))) else None
        if update_std is not None and (not optimizers or id(p) in held):  # else another optimizer moved it
            optimizer, group = held.get(id(p), (None, dict(lr=lr)))
            kinds = {base.__name__ for base in type(optimizer).__mro__} if optimizer else {"SGD"}
            rule = next((name for names, name in RULES.items() if kinds & names), None)
            pull = 1 if kinds & {"AdamW"} or group.get("decoupled_weight_decay") else row.get("grad_std")
            decay = group.get("weight_decay", 0)
            row |= dict(update_rule=rule, decay=ratio(decay * (std or 0), pull) if decay > USUAL_DECAY else None)
            row |= _rates(optimizer, group, lr)
            if rule == "Adam":
                eps = group.get("eps") if row["steps"] <= 1 else None
                row |= dict(adam_to_data=ratio(0.25 * row["lr"], std), adam_eps=eps)
        kind = network.owners.get(id(p)) or use
        kind = getattr(nn, kind) if isinstance(kind, str) else kind or torch.Tensor
        rows.append(ParameterRow(name, kind, tuple(p.shape), p.requires_grad, **row, update_std=update_std))
    return rows


def _copies(value, gradient, row):
    """Whether the rows of both are alike, or the columns of both: hidden units are; outputs have targets of their own."""
    if gradient is None or gradient.layout is not torch.strided or value.dim() < 2 or not value.numel():
        return None
    corner = value[:2, :2].flatten(2)[..., 0] if value.dim() > 2 else value[:2, :2]  # one look, which most do not pass
    rows = corner.tolist()
    dims = [dim for dim, lines in enumerate([rows, [*zip(*rows, strict=True)]]) if len(lines) > 1 and _near(*lines)]
    if any(_are_alike(value, dim) and _are_alike(gradient, dim) for dim in dims):
        return "stay"
    return "begin" if row.get("std") == 0 != row["mean"] and min(value.shape[:2]) > 1 else None


def _near(a, b):
    return all(abs(x - y) <= 1e-4 * abs(x) for x, y in zip(a, b, strict=True))


def _are_alike(t, dim):
    first = t.narrow(dim, 0, 1)  # they may differ by the roundings of a product
    return bool(first.any() and (t - first).abs().max() <= 1e-5 * first.abs().max())


def _is_torchs(layer):
    return layer is not None and layer.__module__.startswith("torch.nn")


def _rates(optimizer, group, lr):
    """lr and growth, for a ParameterRow."""
    rate = group["lr"] if lr is None else lr
    if rate is None:
        return {}  # a rule of the user's own
    rate = float(rate)
    made_with = optimizer.defaults.get("lr", 0) if optimizer else 0  # a loop may warm it up by hand
    full = max(rate, float(group.get("max_lr", group.get("initial_lr", made_with))) if lr is None else 0)
    growth = full / max(rate, full / 1e9) if full else 1
    return dict(lr=rate, growth=growth / (1 - min(group.get("momentum", 0), 0.999)))
