"""What diagnose returns: its readings, what each of them means, and how they are shown."""

from dataclasses import dataclass, field, fields
from functools import cached_property
from html import escape
from itertools import zip_longest

import torch
from torch import nn

from .pictures import plot_diagnosis
from .statistics import Histogram, ratio, tensor_statistics
from .warnings import CLEAN, warnings_for

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
        return name, (layer.min_val, layer.max_val)
    return name, ACTIVATIONS.get(name)


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
    is_activation: whether it is a nonlinearity. A sigmoid that only scales something else (a gate) is none.
    """

    name: str
    type: type  # the layer's class
    shape: tuple
    mean: float | None = None
    std: float | None = None
    histogram: Histogram | None = None
    nonfinite: int = 0
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
    update_to_data: float | None = None
    adam_to_data: float | None = None
    update_rule: str | None = None
    adam_eps: float | None = None
    decay: float | None = None
    lr: float | None = None
    growth: float = 1.0


@dataclass(frozen=True)
class Diagnosis:
    """What diagnose saw: a table in Jupyter, plain dicts by to_dicts(), and what the plots draw.

    activations and gradients hold a LayerRow a call, in the order of the forward pass and in step with each
    other; gradients is empty with loss_fn=None. parameters: a ParameterRow a tensor. warnings: what looks
    unhealthy, in words, with the usual cause; an empty list is no proof of health. loss: the number, or None.
    findings: those of the warnings that rows do not show, such as a loss without a gradient. rises: where steps
    look too long, whether a few of them, on these examples, raise the loss; None where that was not tried.
    has_learned: whether more examples are right than one class has, or numbers are met to a tenth of their variance.
    """

    activations: list[LayerRow]
    gradients: list[LayerRow]
    parameters: list[ParameterRow]
    loss: float | None = None
    findings: list[str] = field(default_factory=list, repr=False)
    rises: bool | None = None
    has_learned: bool = False

    @cached_property
    def warnings(self):
        return self.all_warnings()

    def all_warnings(self, learn=(), from_zero=()):
        """The same; learn: names of parameters that have a gradient in other steps, from_zero: of those that began at 0."""
        found = warnings_for(self, learn, from_zero)
        is_explained = any(text.endswith(CLEAN) for text in self.findings)
        return [*self.findings, *(text for text in found if not (is_explained and "NaN or infinite" in text))]

    def plot(self):
        """The lecture's four pictures in one figure: activations, gradients, weights' gradients, update:data."""
        return plot_diagnosis(self)

    def to_dicts(self):
        """The same as dicts, lists, strings and numbers only (json.dumps takes them), classes by their names."""
        rows = {name: getattr(self, name) for name in ("activations", "gradients", "parameters")}
        plain = {name: [_plain(row) for row in rows] for name, rows in rows.items()}
        return {**plain, "loss": self.loss, "warnings": list(self.warnings)}

    def __repr__(self):
        counts = f"{len(self.activations)} layer calls, {len(self.parameters)} parameters"
        return "\n".join([f"Diagnosis({counts}, {len(self.warnings)} warnings)", *self.warnings])

    def _repr_html_(self):
        warnings = "".join(f"<li>{escape(text)}</li>" for text in self.warnings)
        pairs = zip_longest(self.activations, self.gradients)
        layers = [(*_start(a), _share(a), g and g.mean, g and g.std) for a, g in pairs]
        parameters = [(*_start(p), p.grad_std, p.grad_to_data, p.update_to_data) for p in self.parameters]
        tables = _table("layer type shape mean std saturated&nbsp;/&nbsp;dead grad&nbsp;mean grad&nbsp;std", layers)
        tables += _table("parameter type shape mean std grad&nbsp;std grad:data update:data", parameters)
        return (f"<b>Warnings</b><ul>{warnings}</ul>" if warnings else "<p>No warnings.</p>") + tables


def layer_rows(all_seen):
    """(what the layers put out, the gradients there), a LayerRow each."""
    activations, gradients = [], []
    for seen in all_seen:
        is_activation = seen.activation is not None and not seen.is_gate
        for rows, values in (activations, seen.readings), (gradients, seen.gradient or {}):
            rows.append(LayerRow(seen.name, seen.type, seen.shape, **values, is_activation=is_activation))
    return activations, gradients


def parameter_rows(network, uses, parameters, values, gradients, changes, optimizer, lr, histograms):
    """A ParameterRow each. parameters: by name; values before the step, gradients, changes: in the same order."""
    kinds = {"SGD"} if optimizer is None else {base.__name__ for base in type(optimizer).__mro__}
    rule = next((name for names, name in RULES.items() if kinds & names), None)
    groups, rows = [] if optimizer is None else optimizer.param_groups, []
    groups = {id(p): group for group in groups for p in group["params"]}
    for (name, p), value, gradient, change in zip(parameters.items(), values, gradients, changes, strict=True):
        row = tensor_statistics(value, histograms)
        row |= {f"grad_{key}": value for key, value in tensor_statistics(gradient, histograms).items()}
        std, update_std = row.get("std"), tensor_statistics(change, False).get("std")
        if optimizer is None and change is None and lr is not None and row.get("grad_std") is not None:
            update_std = abs(float(lr)) * row["grad_std"]  # plain SGD's
        row |= dict(grad_to_data=ratio(row.get("grad_std"), std), update_to_data=ratio(update_std, std))
        if update_std is not None and (optimizer is None or id(p) in groups):  # else another optimizer moved it
            group = groups.get(id(p), dict(lr=lr))
            pull = 1 if kinds & {"AdamW"} or group.get("decoupled_weight_decay") else row.get("grad_std")
            decay = group.get("weight_decay", 0)
            row |= dict(update_rule=rule, decay=ratio(decay * (std or 0), pull) if decay > USUAL_DECAY else None)
            row |= _rates(group, lr)
            if rule == "Adam":
                is_fresh = optimizer.state.get(p, {}).get("step", 0) <= 1
                eps = group.get("eps") if is_fresh else None
                row |= dict(adam_to_data=ratio(0.25 * row["lr"], std), adam_eps=eps)
        kind = network.owners.get(id(p)) or uses.get(id(p), (p, None))[1]
        kind = getattr(nn, kind) if isinstance(kind, str) else kind or torch.Tensor
        rows.append(ParameterRow(name, kind, tuple(p.shape), p.requires_grad, **row, update_std=update_std))
    return rows


def _rates(group, lr):
    """lr and growth, for a ParameterRow."""
    rate = group["lr"] if lr is None else lr
    if rate is None:
        return {}  # a rule of the user's own
    rate = float(rate)
    full = max(rate, float(group.get("initial_lr", 0)) if lr is None else 0)
    growth = full / max(rate, full / 1e9) if full else 1
    return dict(lr=rate, growth=growth / (1 - min(group.get("momentum", 0), 0.999)))


def _plain(row):
    plain = {f.name: getattr(row, f.name) for f in fields(row)}
    plain["type"] = row.type.__name__
    for name, value in plain.items():
        if isinstance(value, Histogram):
            plain[name] = {"density": value.density.tolist(), "edges": value.edges.tolist()}
    return {**plain, "shape": list(row.shape)}


def _start(row):
    return row.name, row.type.__name__, row.shape, row.mean, row.std


def _share(row):
    if row.saturated is not None:
        return f"{row.saturated:.1%} saturated"
    return None if row.dead is None else f"{row.dead:.1%} dead"


def _table(head, rows):
    def cell(value):
        if isinstance(value, tuple):
            value = " × ".join(map(str, value))
        text = "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
        side = "left" if isinstance(value, str) else "right"
        return f'<td style="text-align: {side}">{escape(text)}</td>'

    head = "".join(f'<th style="text-align: left">{name}</th>' for name in head.split())
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
