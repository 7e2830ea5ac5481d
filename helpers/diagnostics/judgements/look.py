"""What the judgements read, and what they share."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from ..hooks import tensors_in

# How nodes of the graph are called that hand on the same numbers, or some of them.
SAME = "UnsafeView View Reshape ReshapeAlias Squeeze Unsqueeze Alias Clone ToCopy Select Slice Index"
SAME += " Permute Transpose T"
VIEW = re.compile(f"({'|'.join(SAME.split())})Backward")
TRAINED = 100  # steps
NORMS = re.compile("(Sync)?BatchNorm|InstanceNorm|GroupNorm")


@dataclass
class Look:
    """What was seen of one step, as far as it was: ``Look(…).judge([judgements that can do with that])``.

    functions: those that the network called, losses: a LossCall for each loss. seen: a Seen for each row. tensors: the
    parameters by their names. is_step: a step of a training is seen, rather than a network by itself. run: calls the
    network with other inputs.

    activations to is_led_past: as in Diagnosis. learn: the names of parameters that have a gradient in other steps, such
    as those of an expert that had no example.

    Of a training: first: the Look at its first recorded step. adds_up: whether the gradients of earlier steps are in
    this one's. were_far: whether the targets were far from the output at first. without_gradients: whether the network
    was called inside torch.no_grad.
    """

    network: object = None
    functions: object = None
    losses: list = ()
    seen: list = ()
    tensors: dict = field(default_factory=dict)
    inputs: object = None
    targets: object = None
    output: object = None
    loss_fn: object = None
    loss: object = None
    optimizers: list = ()
    is_step: bool = False
    run: object = None

    activations: list = ()
    gradients: list = ()
    parameters: list = ()
    findings: list = ()
    rises: bool | None = None
    has_learned: bool = False
    are_beside: bool = False
    is_led_past: bool = False
    learn: set = ()

    first: object = None
    adds_up: bool = False
    were_far: bool = False
    without_gradients: bool = False

    def __post_init__(self):
        self.said = {}  # judgement -> its sentences

    def judge(self, judgements):
        """What they say, in a list."""
        return [text for judgement in judgements for text in self.says(judgement)]

    def says(self, judgement):
        if judgement not in self.said:
            self.said[judgement] = list(judgement(self))
        return self.said[judgement]

    def has_said(self, *judgements):
        """Whether one of them has spoken before."""
        return any(self.said.get(judgement) for judgement in judgements)

    def is_later(self, judgement):
        """Whether a training has come to it: at its first step there was nothing to say, so the init is not to blame."""
        return self.first is not None and not self.first.says(judgement)

    def activation_at(self, node):
        """The row of the activation that a node of the graph hands on, or None; between them there may be views."""
        activations = {row.node: row for row in self.seen if row.activation and row.node}
        return next((activations[node] for node in behind_views(node) if node in activations), None)

    def is_of_output(self, call):
        """Whether the input of a loss is what the network or a layer puts out, rather than computed from it."""
        ends = {t.grad_fn for t in tensors_in(self.output)} | {row.node for row in self.seen}
        return any(node in ends for node in behind_views(call.node))

    @cached_property
    def trainable(self):
        return {name: t for name, t in self.tensors.items() if t.requires_grad}

    @cached_property
    def moved(self):
        """The names of what learns, or has learned, in other steps."""
        return {*self.learn, *(p.name for p in self.parameters if p.steps)}

    @property
    def is_trained(self):
        """Whether it was trained before: then what is large or grows is no matter of the init."""
        return self.first is None and max((p.steps for p in self.parameters), default=0) >= TRAINED

    @cached_property
    def weights(self):
        """The rows of weights, without those that began at 0."""
        return [p for p in self.parameters if is_weight(p) and p.name not in self.from_zero]

    @property
    def from_zero(self):
        """The names of weights that were 0 at first: they grow from nothing, those behind them learn slowly."""
        return self.first.zero if self.first else []

    @cached_property
    def zero(self):
        """The names of what is 0 and about to move, but for biases: LoRA's B, a block's last gamma, a gate."""
        zero = [p for p in self.parameters if p.trainable and p.mean == 0 and not p.std and (p.grad_std or p.grad_mean)]
        return [p.name for p in zero if not p.name.rpartition(".")[2].startswith("b")]


def behind_views(node):
    """A node of the graph, and those that hand on their numbers to it."""
    nodes = [node]
    while VIEW.match(type(nodes[-1]).__name__):
        nodes.append(nodes[-1].next_functions[0][0])
    return nodes


def is_weight(p):
    """Whether a parameter is a layer's weight; a gain or a bias may have the shape (1, n), as in the lecture."""
    is_layers = p.type.__module__.startswith("torch.nn") or "Linear" in p.type.__name__
    return len(p.shape) > 1 and "Norm" not in p.type.__name__ and (is_layers or prod(p.shape) > max(p.shape))


def some_of(names):
    """(the first names, for a sentence; its pronouns)."""
    text = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return text, *(("it", "it") if len(names) == 1 else ("them", "they"))
