"""What is wrong with the examples of a batch: they are mixed, or all get one answer."""

import torch
from torch.utils._pytree import tree_leaves

from ..hooks import tensors_in
from .look import some_of


def _examples(look):
    """Their number, where each has one target."""
    t = look.targets
    return len(t) if isinstance(t, torch.Tensor) and t.dim() and len(t) == t.numel() else None


def mixed_by_view(look):
    views = [f"{name} reads {tuple(old)} as {tuple(new)}" for name, old, new in look.functions.mixing if old != new]
    for text in views[:1]:
        yield f"{text}, which mixes what they count: use transpose or permute"


def mixed_by_softmax(look):
    n, mixing = _examples(look), look.functions.mixing
    for name in [name for name, old, new in mixing if old == new and old[0] == n != old[1]][:1]:
        yield f"{name} sums to 1 over dimension 0, the {n} examples: give dim=-1"


def mixed_by_time(look):
    n, shapes = _examples(look), {row.name: row.shape for row in look.seen if len(row.shape) == 3}
    late = [path for path, layer in look.network.layers.values() if getattr(layer, "batch_first", None) is False]
    late = [path for path in late if path in shapes and shapes[path][0] == n and shapes[path][1] not in (1, n)]
    some, it, _ = some_of(late)  # (n, 1, …) may be one sentence
    if late:
        yield f"{some}: takes the {n} examples for {n} steps of time, as dimension 0 is the time's; give {it} batch_first=True"


def one_answer_for_all(look):
    """Differing inputs get one answer; an output layer that begins at 0 may do that."""
    outputs, inputs = map(_of_several_examples, (tensors_in(look.output), tree_leaves(look.inputs)))
    weights = [p for p in look.trainable.values() if p.dim() > 1]
    if not outputs or not weights or not weights[-1].any() or any(map(_differs, outputs)):
        return
    if any(map(_differs, inputs)) and all(w.isfinite().all() for w in weights):
        text = f"the output is the same for all {len(outputs[0])} examples: nothing of the inputs reaches it"
        one = "a softmax over one output, " if all(t.shape[-1] == 1 for t in outputs) else ""
        yield f"{text}; look for {one}weights that are all zero, dead units, or an input that forward does not use"


def _of_several_examples(values):
    tensors = [t for t in values if isinstance(t, torch.Tensor) and t.layout is torch.strided]
    return [t for t in tensors if t.dim() and len(t) > 1 and t.numel()]


def _differs(t):
    """Whether its examples differ, by more than the roundings of one product."""
    if not (t.is_floating_point() or t.is_complex()):
        return bool((t != t[:1]).any())
    return not bool((t - t[:1]).abs().max() <= 1e-6 * t.abs().max())  # NaN differs
