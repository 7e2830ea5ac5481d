"""What is given to diagnose: what can't be it, and what helps where the model or the loss_fn refuses it."""

import re
from contextlib import contextmanager
from inspect import isclass

import torch
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_leaves

BATCH = "from a loader: inputs, targets = next(iter(loader))"
CLASSES_LAST = "loss_fn=lambda out, y: F.cross_entropy(out.flatten(0, -2), y.flatten())"
OF_TARGETS = {  # what torch says of them, and what helps
    "Target size": "targets have another shape than the output: give targets.view_as(output)",
    "target tensor expected": "targets have a dimension too many: give targets.squeeze(1)",
    "Expected target size": f"cross-entropy takes dimension 1 for the classes: if they come last, give {CLASSES_LAST}",
    "batch_size": "output and targets differ in their number of examples: flatten each by itself, x.flatten(1)",
    "class probabilities": "targets are one-hot whole numbers: give targets.argmax(1)",
    "negative entry": "the variance is below 0: give F.softplus of that output",
    "out of bounds": "targets reach too far: count classes from 0; for one output take F.binary_cross_entropy_with_logits",
}

OF_BACKWARD = {
    "second time": "backward reaches an earlier step: detach what is kept from one batch to the next, h = h.detach(), "
    "and what weights were computed by, W = W.detach().requires_grad_()",
    "by an inplace": "backward needs what was changed in place: write x = x + 1 for x += 1, x.clone() before x[:, 0] = 0",
}


def check_given(targets, loss_fn, lr):
    if targets is None and loss_fn is cross_entropy:
        raise ValueError(f"targets is None: give targets, or loss_fn=None for no loss ({BATCH})")
    if isinstance(targets, torch.Tensor) and not targets.numel():
        raise ValueError("targets hold no example: the batch is empty (a mask that keeps nothing?)")
    if isclass(loss_fn) or not (loss_fn is None or callable(loss_fn)):
        raise ValueError(f"loss_fn is {kind_of(loss_fn)}: give F.cross_entropy, nn.CrossEntropyLoss() or the like")
    if lr is not None and not (hasattr(lr, "__float__") and lr >= 0):
        raise ValueError(f"lr is {lr!r}: give one number, 0 or above")


def kind_of(value):
    return f"the class {value.__name__}" if isclass(value) else f"a {type(value).__name__}"


@contextmanager
def with_remedy(name, value, network):
    """Say what helps where the inputs, the targets or the loss are refused; the error stays the cause."""
    try:
        yield
    except Exception as error:
        for remedy in _remedies(name, value, str(error), network):
            raise ValueError(remedy) from error
        raise


def _remedies(name, value, said, network):
    """Sentences; none where the error tells of something else."""
    is_of_types = re.search("dtype|(scalar|result|[Ii]nput) type", said)
    if isinstance(value, tuple) and "positional argument" in said:
        text = f"{name} is a tuple, of which each part is one argument: give the targets beside it ({BATCH})"
        yield f"{text}; if forward takes it as one, inputs=(({', '.join('abcdefgh'[: len(value)])}),)"
    if isinstance(value, dict) and "unexpected keyword argument" in said:
        yield f"{name} is a dict, of which each part is one argument by its name: if forward takes it as one, inputs=(batch,)"
    is_refused = re.search(rf"\b{type(value).__name__}\b|argument|not callable", said)
    if is_refused and not isinstance(value, (torch.Tensor, tuple, dict)):
        yield f"{name} is {value if value is None else kind_of(value)}: give a tensor (torch.as_tensor makes one; {BATCH})"
    if name == "inputs" and "index out of range in self" in said:
        yield "inputs hold a number for which an Embedding has no row: make its num_embeddings larger"
    known = {"targets": OF_TARGETS, "loss": OF_BACKWARD}.get(name, {})
    yield from (remedy for text, remedy in known.items() if text in said)
    types = {t.dtype for _, t in network.tensors.values() if t.is_floating_point()}
    for t in (t for t in tree_leaves(value) if isinstance(t, torch.Tensor) and is_of_types):
        written = t.type().rpartition(".")[2].removesuffix("Tensor").lower()
        needed = torch.int64 if "Long" in said and t.dtype != torch.int64 else min(types, key=str, default=t.dtype)
        call = {torch.int64: "long()", torch.float32: "float()"}.get(needed, f"to({needed})")
        if needed != t.dtype and written in said.lower().replace("unsigned char", "byte"):
            yield f"{name} are {t.dtype}: give {name}.{call}, or convert what is made of them"
