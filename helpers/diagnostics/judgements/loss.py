"""What is wrong with the loss: with its number, and with what it is given."""

import re
from math import inf, isnan, log

import torch

from ..hooks import tensors_in
from ..losses import is_plain, loss_number, numbers
from . import data

FAR = 1.0  # the loss above ln(classes); healthy: up to 0.7 (logits of std 1.2); the lecture's first network: 24


def not_finite(look):
    """NaN that is there only after the last layer."""
    if look.loss is None or look.loss.isfinite().all() or look.has_said(data.nan_in_the_data):
        return
    if all(t.isfinite().all() for t in tensors_in(look.output)):
        remedy = "look for targets that are all ignore_index, for log(0) and 0/0 in the loss_fn"
        yield f"the loss is {look.loss.item():.3g}, though the model's output is finite: {remedy}"


def compares_all_pairs(look):
    """(N, 1) against (N,), where each is compared with all."""
    output, targets = look.output, look.targets
    if look.loss is None or not numbers(output, targets) or output.shape == targets.shape:
        return
    try:
        one_by_one = loss_number(look.loss_fn(output.view_as(targets), targets))
    except Exception:  # noqa: BLE001  it may want the shapes that it got
        return
    if not torch.isclose(one_by_one, look.loss.detach(), equal_nan=True).all():
        shapes = f"{tuple(output.shape)} and the targets {tuple(targets.shape)}"
        yield f"the output has shape {shapes}, so each is compared with all: give targets.view_as(output)"


def wants_probabilities(look):
    """Losses between probabilities that get something else; they may fall below 0."""
    name = getattr(look.loss_fn, "__name__", type(look.loss_fn).__name__)
    kind = re.search("(?i)bce|binary_cross_entropy|kl_?div", name)
    if not kind or not (pair := numbers(look.output, look.targets)):
        return
    (low, high), is_kl = pair[1].aminmax(), "kl" in kind[0].lower()
    if high > 1.01 or (low < -0.01 and not is_kl):  # kl_div may take logarithms as targets
        remedy = "divide pictures by 255, or take F.mse_loss"
        yield f"{name} wants targets from 0 to 1, and gets {low:.3g} to {high:.3g}: {remedy}"
    elif is_kl and pair[0].min() >= 0 and pair[0].any():
        yield f"{name} gets probabilities, and wants their logarithms: give it F.log_softmax of the logits"


def unfit_for_cross_entropy(look):
    if not (calls := look.cross_entropies) or look.has_said(data.mixed_by_a_view, data.mixed_by_softmax):
        return
    unlogged = [call for call in calls if call.of_logs is False and call.classes > 1 and not isnan(call.loss)]
    call = next((call for call in [*unlogged, *calls] if call.is_softmaxed or call in unlogged), calls[0])
    guess = log(call.classes)
    # The logits of a contrastive loss are similarities, as large as its temperature wants them. What has learned is
    # sure, and wrong where it has learned by heart.
    is_far = call.is_mean and inf > call.loss > guess + FAR and not (call.is_matching or call.has_learned)
    if unlogged:
        kind = "probabilities" if call.is_softmaxed else "logits"
        yield f"nll_loss gets {kind}, and wants their logarithms: give it F.log_softmax of the logits"
    elif call.classes == 1:
        remedy = "for one logit an example use F.binary_cross_entropy_with_logits"
        yield f"cross-entropy over one class is always 0, and nothing learns: {remedy}"
    elif call.is_softmaxed:
        remedy = f"leave the model's {call.own} out, or learning is slow and the loss never comes near 0"
        yield f"cross-entropy gets probabilities, but it has a {call.own} of its own: {remedy}"
    elif is_far:
        text = f"the loss is {call.loss:.3g}, and a guess that all {call.classes} classes are equally likely would have"
        yield f"{text} ln({call.classes}) = {guess:.3g}: {_why_far(look)}"


def _why_far(look):
    size = max((t.std().item() for t in tensors_in(look.inputs) if t.numel() > 1 and is_plain(t)), default=0)
    hidden = next((row.readings.get("std") or 0 for row in reversed(look.seen) if row.activation), 0)
    if size > data.LARGE:
        return f"the inputs are large (std {size:.2g}); scale them to a std of about 1"
    if hidden > data.LARGE:
        return f"what reaches the last layer is large (std {hidden:.2g}); the gain of the layers before is too high"
    return "the logits are too large; make the last layer's weights smaller at init"
