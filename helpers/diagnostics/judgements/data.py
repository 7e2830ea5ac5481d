"""What is wrong with the data, and with the examples of a batch on their way through the network."""

import re
from math import prod

import torch
from torch.utils._pytree import tree_leaves

from ..hooks import tensors_in
from ..losses import is_plain
from . import layers
from .look import NORMS, some_of

LARGE = 10  # the std of inputs that nobody has scaled; pixels from 0 to 255: 60 to 80
AWAY = 5  # times as far from 0 as they differ; ages: 3
TIMED = re.compile(r"torch\..*\.(LSTM$|GRU$|RNN$|MultiheadAttention|Transformer)")
HIDING = re.compile("LSTM|GRU")  # bound what comes out
HIDDEN = 0.35  # the std of a state that came of large inputs: 0.39 and more; of inputs of std 1, at init: 0.1 to 0.25
SMALL = 3e-3  # pixels that were divided by 255 twice: 1e-3


def nan_in_the_data(look):
    """Where it does harm: what is missing may be masked, or filled, by the model or the loss."""
    if look.loss is not None and look.loss.isfinite().all() and not any(p.grad_nonfinite for p in look.parameters):
        return
    for name, value in ("inputs", look.inputs), ("targets", look.targets):
        for n, t in [(int(t.isnan().sum()), t) for t in tensors_in(value)]:
            if n:
                yield f"the {name} hold NaN in {n:,} of {t.numel():,} places: clean the data"
                return


def mixed_by_a_view(look):
    n = _examples(look)
    for name, old, new in look.functions.mixing:
        if old != new and not _is_skewed(old, new) and (sorted(old) == sorted(new) or old[0] != n == new[0]):
            text = f"{name} reads {tuple(old)} as {tuple(new)}, which mixes what they count: use transpose or permute"
            neighbours, rest = divmod(old[-2], new[-2]) if len(old) == len(new) > 2 else (0, 1)
            yield text + ("" if rest or neighbours < 2 else f", unless {neighbours} neighbours are to become one")
            return


def _is_skewed(old, new):
    """Relative positions: (T, T + 1) is read as (T + 1, T) to move each row by one; (n * T, n) as (n, T * n)."""
    differ = [pair for pair in zip(old, new, strict=False) if pair[0] != pair[1]]
    is_one_off = len(old) == len(new) and all(abs(a - b) == 1 for a, b in differ)
    return is_one_off or (len(old) == 2 and old[0] > new[0] and old[0] % new[0] == 0)


def mixed_by_softmax(look):
    n = _examples(look)
    for name in [name for name, old, new in look.functions.mixing if old == new and old[0] == n != old[1]][:1]:
        yield f"{name} sums to 1 over dimension 0, the {n} examples: give dim=-1"


def examples_taken_for_time(look):
    n, shapes = _examples(look), {row.name: row.shape for row in look.seen if len(row.shape) == 3}
    late = [path for path, layer in look.network.layers.values() if getattr(layer, "batch_first", None) is False]
    late = [path for path in late if path in shapes and shapes[path][0] == n and shapes[path][1] not in (1, n)]
    some, it, _ = some_of(late)  # (n, 1, …) may be one sentence
    tables = [t for t in tensors_in(look.inputs) if t.dim() == 2]
    timed = [row for row in look.seen if TIMED.match(f"{row.type.__module__}.{row.type.__name__}")]
    timed = [row for row in timed if row.shape[0] == n == prod(row.shape[:-1])] if tables and not late else []
    for row in timed[:1]:
        text = f"{row.name} ({row.type.__name__}): takes the {n} examples for {n} steps of one sequence"
        yield f"{text}; if they are not, give it (N, T, features) and batch_first=True"
    if late:
        text = f"{some}: takes the {n} examples for {n} steps of time, as dimension 0 is the time's"
        yield f"{text}; give {it} batch_first=True"


def _examples(look):
    """Their number, where each has one target."""
    t = look.targets
    return len(t) if isinstance(t, torch.Tensor) and t.dim() and len(t) == t.numel() else None


def same_answer_for_all(look):
    """Differing inputs get one answer; an output layer that begins at 0 may do that."""
    outputs, inputs = map(_of_several_examples, (tensors_in(look.output), tree_leaves(look.inputs)))
    weights = [p for p, kind in look.functions.uses.values() if kind and p.requires_grad and p.dim() > 1]
    if not outputs or not weights or not weights[-1].any() or any(map(_differs, outputs)):
        return
    fades = look.gradients and look.says(layers.change_with_depth)  # said among the readings, with its cause
    if not fades and any(map(_differs, inputs)) and all(w.isfinite().all() for w in weights):
        text = f"the output is the same for all {len(outputs[0])} examples: nothing of the inputs reaches it"
        one = "a softmax over one output, " if all(t.shape[-1] == 1 for t in outputs) else ""
        yield f"{text}; look for {one}weights that are all zero, dead units, or an input that forward does not use"


def same_at_all_places(look):
    """Differing examples get one answer at all steps of a sequence, whose targets differ."""
    wanted = look.targets
    for t in tensors_in(look.output) if isinstance(wanted, torch.Tensor) and wanted.dim() > 1 else ():
        fits = t.dim() == 3 and t.shape[:2] == wanted.shape[:2] and t.shape[1] > 1
        if fits and _differs(t) and not _differs(t.transpose(0, 1)) and _differs(wanted.transpose(0, 1)):
            text = f"the output is the same at all {t.shape[1]} places of a sequence, and the targets are not"
            yield f"{text}: does the decoder get zeros, in place of the targets shifted by one?"
            return


def _of_several_examples(values):
    tensors = [t for t in values if isinstance(t, torch.Tensor) and t.layout is torch.strided]
    return [t for t in tensors if t.dim() and len(t) > 1 and t.numel()]


def _differs(t):
    """Whether its examples differ, by more than the roundings of one product."""
    if not (t.is_floating_point() or t.is_complex()):
        return bool((t != t[:1]).any())
    rounding = (1e-6 * t.abs().max()).clamp(max=torch.finfo(t.dtype).max)
    return not bool((t - t[:1]).abs().max() <= rounding)  # NaN differs, and so does a mask of -inf


def _scales_them(look, tensors):
    """Whether a norm behind the first layer does it, or pictures of 0 to 255 are wanted, as they are given."""
    wanted = [t for t in _of_several_examples(tensors_in(look.targets)) if t.dim() > 2 and t.is_floating_point()]
    is_normed = len(look.seen) > 1 and NORMS.match(look.seen[1].type.__name__)
    are_pictures = all(t.dim() > 2 for t in tensors)
    stds = [t.std(0).flatten() for t in tensors]
    are_alike = are_pictures or all(std.max() < LARGE * std.median() for std in stds)  # else one of them outweighs all
    return (are_alike and is_normed) or (are_pictures and any(t.std() > LARGE for t in wanted))


def inputs_unscaled(look):
    """Of what has numbers and no words (whole numbers), unless the network begins by scaling them itself."""
    tensors = [t for t in _of_several_examples(tensors_in(look.inputs)) if t.dim() > 1 and is_plain(t)]
    whole = [t for t in tree_leaves(look.inputs) if isinstance(t, torch.Tensor) and not t.is_floating_point()]
    words = whole and any("Embedding" in row.type.__name__ for row in look.seen)
    tensors += [t.float().reshape(len(t), -1) for t in whole if t.dim() and len(t) > 1 and not words]  # steps of time
    is_said = any("the inputs" in text for texts in look.said.values() for text in texts)
    if not tensors or words or is_said or _scales_them(look, tensors):
        return
    size, first = max(t.std(0).max().item() for t in tensors), look.seen[0] if look.seen else None
    mean, hides = max(t.mean().abs().item() for t in tensors), first and HIDING.match(first.type.__name__)
    # What bounds its output: by states near 1 and -1. Where it learns all the same, forward may scale them.
    hides = hides and (first.readings.get("std") or 0) > HIDDEN and not look.has_learned
    is_taken = first and ((first.readings.get("std") or 0) > LARGE or hides)
    kind = "large" if size > 3 * LARGE and is_taken else None
    if mean > max(3 * LARGE, AWAY * size) and is_taken:  # years: 2015 and 5
        kind = f"all near {mean:.3g}"
    if size <= SMALL and not (first and NORMS.match(first.type.__name__)):
        kind = "tiny, or hardly differ"
    if size == 0 and any(t.any() for t in tensors):  # one for all, as is the target, may be meant: what it grows from
        differ = any(map(_differs, _of_several_examples(tree_leaves(look.targets))))
        kind = None
        if differ:
            yield "the inputs are the same in all examples, and the targets are not"
    if kind:
        yield f"the inputs are {kind} (std {size:.1e}): scale them to a mean of about 0 and a std of about 1"
