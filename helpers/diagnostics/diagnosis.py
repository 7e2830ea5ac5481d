"""What diagnose returns: its readings, what is said of them, and how they are shown."""

from dataclasses import dataclass, field, fields
from functools import cached_property
from html import escape
from itertools import zip_longest

from .judgements import READINGS, Look
from .pictures import plot_diagnosis
from .rows import LayerRow, ParameterRow
from .statistics import Histogram


@dataclass(frozen=True)
class Diagnosis:
    """What diagnose saw: a table in Jupyter, plain dicts by to_dicts(), and what the plots draw.

    activations and gradients hold a LayerRow a call, in the order of the forward pass and in step with each
    other; gradients is empty with loss_fn=None. parameters: a ParameterRow a tensor. warnings: what looks
    unhealthy, in words, with the usual cause; an empty list is no proof of health. loss: the number, or None.
    findings: those of the warnings that rows do not show, such as a loss without a gradient. rises: where steps
    look too long, whether a few of them, on these examples, raise the loss; None where that was not tried.
    has_learned: whether more examples are right than one class has, or numbers are met to a tenth of their variance.
    are_beside, is_led_past: of layers of which the last puts out more, or less, than the first: whether they are
    branches, and whether the first reaches the end by a way past the last (a skip connection).
    """

    activations: list[LayerRow]
    gradients: list[LayerRow]
    parameters: list[ParameterRow]
    loss: float | None = None
    findings: list[str] = field(default_factory=list, repr=False)
    rises: bool | None = None
    has_learned: bool = False
    are_beside: bool = False
    is_led_past: bool = False

    @cached_property
    def warnings(self):
        return [*self.findings, *self.look().judge(READINGS)]

    def look(self, **more):
        """What the judgements read; more: what other steps of a training tell."""
        return Look(**{f.name: getattr(self, f.name) for f in fields(self)}, **more)

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
