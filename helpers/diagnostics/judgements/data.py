"""What is wrong with the inputs and the targets."""

from math import inf

import torch
from torch.utils._pytree import tree_leaves

from ..hooks import tensors_in
from ..losses import is_plain, numbers
from .look import NORMS

LARGE = 10  # the std of inputs that nobody has scaled; pixels from 0 to 255: 60 to 80
SMALL = 1e-3  # pixels that were divided by 255 twice: 1e-5
CLEAN = "clean the data"  # ends the finding that explains every NaN after it


def hold_nan(look):
    for name, value in ("inputs", look.inputs), ("targets", look.targets):
        for t in tensors_in(value):
            if n := int(t.isnan().sum()):
                yield f"the {name} hold NaN in {n:,} of {t.numel():,} places: {CLEAN}"
                return


def targets_out_of_reach(look):
    """What numbers as targets ask for, and the output cannot or does not reach."""
    pair = numbers(look.output, look.targets)
    if look.loss is None or not pair:
        return
    (low, high), last = pair[1].aminmax(), look.seen[-1] if look.seen and look.seen[-1].is_output else None
    least, most = (0, inf) if last and last.bounds == "dies" else (last and last.bounds) or (-inf, inf)
    here, there = (max(t.mean().abs().item(), t.std().item()) for t in pair)
    if low < least - 0.01 or high > most + 0.01:
        text = f"the targets reach from {low:.3g} to {high:.3g}, and {last.name} ({last.activation}) puts out {least} to {most}"
        yield f"{text}: leave it out, or scale the targets"
    # What the loss_fn scales itself gives no such loss.
    elif there > LARGE * max(here, 1) and look.loss > there / 2:
        text = f"the targets are about {there:.1e} in size, and the output {here:.1e}"
        yield f"{text}: standardise the targets, (y - mean) / std"


def inputs_unscaled(look):
    """Of what has numbers and no words (whole numbers), unless the network begins by scaling them itself."""
    tensors = [t for t in tensors_in(look.inputs) if t.dim() > 1 and len(t) > 1 and t.numel() and is_plain(t)]
    words = any(isinstance(t, torch.Tensor) and not t.is_floating_point() for t in tree_leaves(look.inputs))
    is_said = any("the inputs" in text for texts in look.said.values() for text in texts)
    if not tensors or words or is_said:
        return
    size, first = max(t.std(0).max().item() for t in tensors), look.seen[0] if look.seen else None
    if size > 3 * LARGE and first and (first.readings.get("std") or 0) > LARGE:
        yield f"the inputs are large (std {size:.1e}): scale them to a std of about 1"
    elif size <= SMALL and not (first and NORMS.match(first.type.__name__)):
        yield f"the inputs are tiny, or the same in all examples (std {size:.1e}): scale them to a std of about 1"
