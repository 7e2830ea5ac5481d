"""What is wrong with the loss: with its number, and with what it is given."""

import re
from math import exp, inf, log

from torch import Tensor, broadcast_shapes
from torch.utils._pytree import tree_leaves

from ..hooks import tensors_in
from ..losses import CROSS_ENTROPY, graph_behind, has_learned, is_plain, numbers
from . import data, learning
from .look import behind_views

COMPARING = "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "the loss"
AWAY = 20  # times the size of the output, or of 1; logarithms of prices, which are learned: 12; prices: 1e5
WIDE = 5  # bounds of logits that a loss can come near 0 with: clamps at 10 to 30 are common
SIGNS = "soft_margin_loss", "hinge_embedding_loss", "cosine_embedding_loss", "margin_ranking_loss"
PRODUCT = re.compile("(Add|B|Badd)?mm", re.IGNORECASE)  # nodes of the graph
FAR = 1.0  # the loss above ln(classes); healthy: up to 0.7 (logits of std 1.2); the lecture's first network: 24


def not_finite(look):
    """NaN that is there only after the last layer."""
    if look.loss is None or look.loss.isfinite().all() or look.has_said(data.nan_in_the_data):
        return
    if all(t.isfinite().all() for t in tensors_in(look.output)):
        remedy = "look for targets that are all ignore_index, for log(0) and 0/0 in the loss_fn"
        remedy += ", in ctc_loss for targets longer than the input"
        if any(call.name == "kl_div" and (call.target < 0).any() for call in look.losses):
            remedy = "kl_div gets logarithms as targets, so give it log_target=True"
        yield f"the loss is {look.loss.item():.3g}, though the model's output is finite: {remedy}"


def compares_all_pairs(look):
    """(N, 1) against (N,), where each is compared with all."""
    for call in look.losses:
        if call.name not in COMPARING or not numbers(call.input, call.target):
            continue
        if broadcast_shapes(call.input.shape, call.target.shape).numel() > call.input.numel():
            shapes = f"an output {tuple(call.input.shape)} and targets {tuple(call.target.shape)}"
            yield f"{call.name} gets {shapes}, so each is compared with all: give targets.view_as(output)"
            return


def wants_probabilities(look):
    """Losses between probabilities that get something else; they may fall below 0."""
    for call in look.losses:
        is_kl = call.name == "kl_div"
        if not (is_kl or call.name.startswith("binary")) or not (pair := numbers(call.input, call.target)):
            continue
        low, high = pair[1].aminmax()
        if high > 1.01 or (low < -0.01 and not is_kl):  # kl_div may take logarithms as targets
            remedy = "divide pictures by 255, or take F.mse_loss"
            yield f"{call.name} wants targets from 0 to 1, and gets {low:.3g} to {high:.3g}: {remedy}"
            return
        if is_kl and pair[0].min() >= 0 and pair[0].any():
            yield f"{call.name} gets probabilities, and wants their logarithms: give it F.log_softmax of the logits"
            return


def targets_out_of_reach(look):
    """Of numbers as targets: the last layer's range does not hold them, or they are far away."""
    for call in [] if look.has_said(wants_probabilities) else look.losses:
        pair, row = numbers(call.input, call.target), look.activation_at(call.node)
        if not pair or call.loss is None:
            continue
        loss = call.loss.abs().mean()
        least, most = (0, inf) if row and row.bounds == "dies" else (row and row.bounds) or (-inf, inf)
        low, high = pair[1].aminmax()
        here, there = (max(t.mean().abs().item(), t.std().item()) for t in pair)
        if low < least - 0.01 or high > most + 0.01:
            text = f"the targets reach from {low:.3g} to {high:.3g}, and {row.name} ({row.activation})"
            yield f"{text} puts out {least} to {most}: leave it out, or scale the targets"
            return
        if not there or not look.is_of_output(call):  # 0, or a derivative: an equation's residual
            continue
        if there > AWAY * max(here, 1) and loss > there / 2:  # no such loss where the loss_fn scales them itself
            text = f"the targets are about {there:.1e} in size, and the output {here:.1e}"
            yield f"{text}: standardise the targets, (y - mean) / std"
            return
        if here > AWAY * max(there, 1) and loss > here and not look.says(data.inputs_unscaled):
            text = f"the output is about {here:.1e} in size, and the targets {there:.1e}"
            yield f"{text}: the weights are far too large (divide them by sqrt(fan_in)), or the steps were too long"
            return


def wants_logits(look):
    """Cross-entropy, or the binary one, of what is no logits."""
    for call in [] if look.has_said(data.mixed_by_a_view, data.mixed_by_softmax) else look.losses:
        name = "softmax" if call.name == "cross_entropy" else "sigmoid"
        if call.name not in (*CROSS_ENTROPY, "binary_cross_entropy_with_logits"):
            continue
        row, classes = look.activation_at(call.node), call.input.shape[1] if call.input.dim() > 1 else None
        is_softmaxed = classes is not None and _is_softmaxed(call.input)
        if call.name == "nll_loss":
            if classes and classes > 1 and not call.loss.isnan().any() and not _is_softmaxed(call.input.exp()):
                kind = "probabilities" if is_softmaxed else "logits"
                yield f"nll_loss gets {kind}, and wants their logarithms: give it F.log_softmax of the logits"
                return
        elif is_softmaxed or (name == "sigmoid" and row and "igmoid" in (row.activation or "")):
            own = "softmax" if is_softmaxed else "sigmoid"
            remedy = f"leave the model's {own} out, or learning is slow and the loss never comes near 0"
            yield f"cross-entropy gets probabilities, but it has a {name} of its own: {remedy}"
            return
        elif row and row.bounds and (row.bounds == "dies" or row.bounds[1] < WIDE):
            where = "is never below 0" if row.bounds == "dies" else "stays between {} and {}".format(*row.bounds)
            yield f"cross-entropy gets what a {row.activation} puts out ({row.name}), which {where}: leave it out"
            return
        elif call.name == "cross_entropy" and classes == 1:
            remedy = "for one logit an example use F.binary_cross_entropy_with_logits"
            yield f"cross-entropy over one class is always 0, and nothing learns: {remedy}"
            return


def wants_one_class(look):
    """Cross-entropy gets several labels an example."""
    calls = [call for call in look.losses if call.name == "cross_entropy" and call.target.is_floating_point()]
    for call in [call for call in calls if call.target.dim() > 1 and call.input.shape[1] > 1]:
        low, high = call.target.sum(1).aminmax()
        if max(abs(low - 1), abs(high - 1)) > 0.01:
            text = f"cross_entropy gets targets that sum to {low:.3g} to {high:.3g} an example, and not to 1"
            yield f"{text}: for several labels give F.binary_cross_entropy_with_logits"
            return


def drops_the_logits(look):
    ends = {row.node: row for row in look.seen if row.type.__name__ == "Dropout" and row.node}
    for row in [ends[call.node] for call in look.losses if call.name in CROSS_ENTROPY and call.node in ends][:1]:
        yield f"{row.name} (Dropout): drops some of the logits, which become 0; put it before the last layer"


def cosines_as_logits(look):
    """With no scale one logit at 1, and all others at -1, is the best that they can do."""
    for call in [call for call in look.losses if call.name == "cross_entropy" and call.input.dim() > 1]:
        least = log(1 + (call.input.shape[1] - 1) * exp(-2))
        if least > 0.5 and (product := _cosines(call.node)) and product is behind_views(call.node)[-1]:
            text = f"cross-entropy gets cosines, from -1 to 1, so that it can't fall below {least:.3g}"
            yield f"{text}: multiply them by a scale, 10 to 30"
            return


def _cosines(node):
    """The last matrix product of a network, where it is one of vectors of length 1; else None."""
    product = next((n for n in graph_behind([node]) if PRODUCT.match(type(n).__name__)), None)
    sources = [behind_views(n)[-1] for n, _ in product.next_functions if n] if product else []
    return product if len(sources) == 2 and all(map(_has_length_1, sources)) else None


def _has_length_1(node):
    """Whether it divides by a norm, as F.normalize does."""
    is_quotient = type(node).__name__ == "DivBackward0"
    node = node.next_functions[1][0] if is_quotient else None
    while type(node).__name__ in ("ExpandBackward0", "ClampMinBackward0"):
        node = node.next_functions[0][0]
    return "NormBackward" in type(node).__name__


def softmax_of_a_relu(look):
    """A ReLU before the softmax that ends the network."""
    sizes = {len(t) for t in tree_leaves(look.inputs) if isinstance(t, Tensor) and t.dim()}
    outputs = [t for t in tensors_in(look.output) if t.dim() and len(t) in sizes]  # and no matrix of the network's own
    for node in [*(t.grad_fn for t in outputs), *(call.node for call in look.losses)]:
        if "SoftmaxBackward" in type(node).__name__:
            row = look.activation_at(node.next_functions[0][0])
            if row and row.bounds == "dies":
                text = f"the last softmax gets what a {row.activation} puts out ({row.name}): leave it out"
                yield f"{text}, for logits may be below 0, and what it sets to 0 gets no gradient"
                return


def wants_signs(look):
    for call in look.losses:
        if call.name in SIGNS and (call.target == 0).any() and not (call.target < 0).any():
            yield f"{call.name} wants targets of -1 and 1, and gets 0: give 2 * targets - 1"
            return


def far_from_a_guess(look):
    """A cross-entropy far above ln(classes), which logits near 0 would give."""
    if look.has_said(
        wants_logits, wants_one_class, learning.drops_nearly_all, data.mixed_by_a_view, data.mixed_by_softmax
    ):
        return
    calls = [call for call in look.losses if call.name in CROSS_ENTROPY and call.input.dim() > 1]
    for call in [call for call in calls if call.mean is not None][:1]:
        # Of mixup's two calls one has the labels that were added a little.
        loss = min(other.mean.item() for other in calls if other.node is call.node and other.mean is not None)
        classes = call.input.shape[1]
        # The logits of a contrastive loss are similarities, as large as its temperature wants them; cosines have a scale
        # of their own. What has learned is sure, and wrong where it has learned by heart.
        is_matching = call.input.shape == (len(call.target),) * 2 and (call.target.diff() == 1).all()
        if inf > loss > log(classes) + FAR and not (is_matching or has_learned(call) or _cosines(call.node)):
            it = "the loss" if call.loss.numel() == 1 and call.loss == loss else "the loss of an example"
            text = f"{it} is {loss:.3g}, and a guess that all {classes} classes are equally likely would have"
            yield f"{text} ln({classes}) = {log(classes):.3g}: {_why_far(look)}"


def _is_softmaxed(values):
    """Whether dimension 1 holds probabilities; or 0, by mistake."""
    sums = (values.sum(dim) for dim in (0, 1) if values.shape[dim] > 1)  # a generator: logits have no need of them
    return values.shape[1] > 1 and bool((values >= 0).all() and any(((s - 1).abs() < 1e-3).all() for s in sums))


def _why_far(look):
    inputs = [t for t in tensors_in(look.inputs) if t.numel() > 1 and is_plain(t)]
    size = max((max(t.mean().abs().item(), t.std().item()) for t in inputs), default=0)
    hidden = next((row.readings.get("std") or 0 for row in reversed(look.seen) if row.activation), 0)
    if size > data.LARGE:
        return f"the inputs are large (about {size:.2g}); scale them to a mean of about 0 and a std of about 1"
    if hidden > data.LARGE:
        return f"what reaches the last layer is large (std {hidden:.2g}); the gain of the layers before is too high"
    if look.weights and not look.weights[-1].trainable:
        return "the last layer, which does not learn, was trained for something else"
    return "the logits are too large; make the last layer's weights smaller at init"
