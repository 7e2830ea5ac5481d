"""What does not learn, and why."""

from torch import nn

from ..calls import GATES
from ..hooks import tensors_in
from ..losses import computed_from, graph_behind, leaves
from ..trial import held_by
from . import layers
from .look import some_of

DROPPED = 0.8  # usual: 0.1 to 0.5, at most 0.7; the share to keep, taken for it: 0.9
NORMALISING = {f"{kind}{n}" for kind in ("BatchNorm", "Dropout") for n in ("", "1d", "2d", "3d")}


def not_among_the_parameters(look):
    """What the output depends on, though no optimizer can know it."""
    network, functions = look.network, look.functions
    used = [t for t, _ in functions.uses.values() if t.requires_grad and not t.is_leaf]
    made_of = [t for t in used if id(t) in network.tensors and not any(id(p) in network.tensors for p in leaves([t]))]
    if made_of:  # torch.randn(…, requires_grad=True) * 0.1
        some, it, _ = some_of([network.tensor_name(t, "") for t in made_of])
        text = f"{some}: computed from a tensor that nothing holds, so no step changes {it}"
        yield f"{text}; make the numbers first, then .requires_grad_() or nn.Parameter(…)"
    ours = {id(t) for t in (*look.tensors.values(), *leaves(made_of))}
    others = [t for t in computed_from(tensors_in(look.output), look.inputs, functions.made) if id(t) not in ours]
    some, it, _ = some_of([network.tensor_name(t, f"a tensor {tuple(t.shape)}") for t in others])
    remedy = "use nn.Parameter, nn.ModuleList or nn.ModuleDict in place of a plain tensor or list"
    if network.is_given:
        remedy = f"give {it} with parameters=, too, to train {it}"
    elif not isinstance(network.root, nn.Module):
        remedy = f"add {it} to what parameters() returns"
    elif not any(id(t) in network.tensors for t in others):
        remedy = "a layer that is made inside the call is new each time: make it in __init__"
    if others:
        text = f"{some}: not among the model's parameters, though the output depends on {it}"
        yield f"{text}, so no optimizer over those trains {it}; {remedy}"


def no_gradient(look):
    if look.loss is None or look.loss.requires_grad or not (look.trainable or look.has_said(not_among_the_parameters)):
        return
    text, where = "the loss has no gradient, though the model's output has one", "in the loss_fn"
    if not any(t.requires_grad for t in tensors_in(look.output)):
        reached = [seen.name for seen in look.seen if seen.node is not None]
        text = "the loss has no gradient, and the model's output has none"
        where = f"after {reached[-1]}, the last layer that has one" if reached else "in the model"
    remedy = "look for argmax, a comparison, detach, .item(), .data, no_grad or a new tensor made from numbers"
    yield f"{text}: nothing learns: {remedy}, {where}"


def gradient_cut_off(look):
    is_there = look.loss is not None and look.loss.requires_grad and look.trainable
    arrives = any(p.grad_mean is not None or p.grad_nonfinite for p in look.parameters)
    if is_there and not arrives and not look.has_said(not_among_the_parameters):
        text = "the loss has a gradient, but it reaches no parameter: it was cut off"
        yield f"{text} (detach, .item(), .data, torch.tensor) and got requires_grad=True afterwards; leave both out"


def no_parameters(look):
    if look.loss is None or look.trainable or look.has_said(not_among_the_parameters):
        return
    text = "no parameter needs a gradient, so nothing learns: call requires_grad_(True) on what is to learn"
    none = "no parameters were found, so nothing learns: make them outside of the call, with requires_grad=True"
    yield text if look.tensors else f"{none}, or give parameters="


def not_in_the_optimizer(look):
    held = held_by(look.optimizers)
    without = {p.name for p in look.parameters if p.grad_mean is None}  # a target network, which is copied
    missing = [
        name for name, p in look.trainable.items() if look.optimizers and id(p) not in held and name not in without
    ]
    some, it, _ = some_of(missing)
    if missing and len(missing) == len(look.trainable):
        remedy = "make it anew from model.parameters(), after the model was made (or moved, or its cell run again)"
        yield f"the optimizer holds none of the model's parameters: {remedy}"
    elif missing:
        several = ", or give all optimizers in a list" if look.is_step else ""
        remedy = f"give the optimizer all parameters, or freeze {it} with requires_grad_(False){several}"
        yield f"{some}: not held by the optimizer, so no step changes {it}; {remedy}"


def frozen_in_vain(look):
    """A name that torch does not know is set in its place, and nothing is frozen."""
    modules = look.network.layers.values() if isinstance(look.network.root, nn.Module) else ()
    for name, layer in modules:
        is_set = {"requires_grad", "require_grad"} & vars(layer).keys() if isinstance(layer, nn.Module) else ()
        if is_set and any(p.requires_grad for p in layer.parameters()):
            yield f"{name}: an attribute requires_grad of a layer freezes nothing: call requires_grad_(False)"
            return
    for name in [name for name, p in look.trainable.items() if vars(p).get("require_grad") is False][:1]:
        yield f"{name}: require_grad freezes nothing, it is written requires_grad: call requires_grad_(False)"


def left_without_requires_grad(look):
    """Of plain tensors: what is multiplied with like weights, but was forgotten when they got their requires_grad."""
    if isinstance(look.network.root, nn.Module) or not look.trainable or look.network.is_given:
        return
    products = [t for t, kind in look.functions.uses.values() if kind and t.dim() > 1 and t.is_floating_point()]
    names = [look.network.tensor_name(t, "") for t in products if t.is_leaf and not t.requires_grad]
    some, it, _ = some_of(names)
    if names:
        text = f"{some}: multiplied with like a weight, but needs no gradient, so no step changes {it}"
        yield f"{text}; call requires_grad_(), if {it} should learn"


def eval_mode(look):
    all_layers = [layer for _, layer in look.network.layers.values()] if look.is_step else []
    modes = [layer for layer in all_layers if type(layer).__name__ in NORMALISING and hasattr(layer, "training")]
    if modes and not any(getattr(layer, "training", False) for layer in all_layers):
        text = "the model is in eval mode, where dropout is off and BatchNorm does not look at the batch"
        yield f"{text}: call model.train() to see a step of training"


def not_used(look):
    """Activations whose result is thrown away, as by ``F.relu(x)`` alone on its line, beside rows that learn."""
    for before, row, after in zip(look.seen, look.seen[1:], look.seen[2:]):  # noqa: B905  triples
        is_alone = row.node is not None and not row.gradient and before.gradient and after.gradient
        # A sigmoid may be for the eye only, and what is clamped are weights.
        if is_alone and row.activation and row.activation not in GATES and "clamp" not in row.name:
            yield f"{row.name}: what it puts out is not used; write x = F.relu(x)"
            return


def detached_in_a_loop(look):
    """Of many calls of one layer only the last one learns, and nothing between. (What runs under no_grad may do so.)"""
    calls = {}
    for i, row in enumerate(look.seen):
        calls.setdefault(row.name.partition(" (call ")[0], []).append(i)
    for name, (first, *others) in calls.items():
        loop = look.seen[first : others[-1]] if len(others) > 2 else []  # fewer: targets by the same network
        is_cut = loop and look.seen[others[-1]].gradient and not any(row.gradient or row.node is None for row in loop)
        # An implicit gradient has one detach, before the last call.
        if is_cut and look.seen[first].node not in graph_behind([look.seen[others[-2]].node]):
            text = f"{name}: {len(others)} of its {len(others) + 1} calls get no gradient"
            yield f"{text}, so nothing is learned across them; is there a detach in the loop?"
            return


def drops_nearly_all(look):
    for name, layer in look.network.layers.values():
        if type(layer).__name__.startswith("Dropout") and getattr(layer, "p", 0) > DROPPED:
            yield f"{name} (Dropout): drops {layer.p:.0%} of what it gets; p is the share to drop, not the one to keep"
            return


def no_gradient_at_some(look):
    if all(p.grad_std is None for p in look.parameters):  # no gradients were asked for
        return
    learn = [p for p in look.parameters if p.trainable and p.is_held]
    names = [p.name for p in learn if p.grad_mean is None and not p.grad_nonfinite]
    called = {row.name.partition(" (call ")[0] for row in look.activations}
    for is_called in False, True:
        those = [n for n in names if n not in look.moved and (n.rpartition(".")[0] in called) == is_called]
        some, it, they = some_of(those)
        why = f"the loss does not depend on {it}: in this step, or never, and then {they} will not learn"
        if is_called:
            why = f"what comes of {it} is cut off (no_grad, detach, .data, .numpy(), argmax, a comparison, round), or not used"
        if those:
            yield f"{some}: no gradient; {why}"


def equal_weights(look):
    """Units that can't learn apart from each other, or begin so: outputs have targets of their own."""
    is_hidden = any(row.is_activation for row in look.activations)
    weights = [p for p in look.weights if p.trainable]
    for verb, those in ("stay", weights), ("begin", weights[:-1] if is_hidden else []):
        names = [p.name for p in those if p.copies == verb]
        some, it, _ = some_of(names)
        if names:
            yield f"{some}: the same weights in all units, which {verb} equal; draw {it} at random"


def zero_gradient(look):
    """Weights that can't learn at all, though the loss depends on them."""
    is_known = any("nothing learns" in text for text in look.findings)
    is_explained = is_known or layers.are_stuck(look) or look.says(layers.changes)
    if is_explained or begins_at_zero(look) or any(p.nonfinite for p in look.weights):
        return
    with_gradient = [p for p in look.weights if p.trainable and p.grad_std is not None]
    zero = [p for p in with_gradient if p.grad_std == 0 and p.grad_mean == 0 and p.name not in look.learn]
    zero = [p for p in zero if p.lr is not None or not p.update_std]  # a rule of the user's own has cleared it
    some, it, _ = ("all weights", "them", "") if len(zero) == len(with_gradient) else some_of([p.name for p in zero])
    cause = f"look for clamp, sign, round, floor or dead units after {it}, or a loss that multiplies {it} by 0"
    if look.gradients and look.gradients[-1].std == 0 == look.gradients[-1].mean:
        cause = "the last layer gets none from the loss: look there for clamp, sign, round, a factor of 0"
        cause += ", or two equal terms that cancel each other (one wants detach())"
    if look.loss == 0:
        cause = "the loss is 0, so these examples teach nothing more"
    elif any(row.shape[-1:] == (1,) and row.std == 0 == row.mean for row in look.gradients[-2:]):
        cause = "look for softmax or cross-entropy over one output (take binary_cross_entropy_with_logits), or sign"
    if all(p.std == 0 == p.mean for p in zero):
        cause = "all are 0, and each learns through another: draw some of them at random"
    if all("weight_hh" in p.name for p in zero):
        cause = "the state before it is 0: one step only (is batch_first right?)"
        cause += ", or a reverse direction read at its start (take h_n)"
    if zero:
        yield f"{some}: the gradient is exactly 0 everywhere; {cause}"


def begins_at_zero(look):
    """Whether weights are zero on purpose: they get a gradient, and those around them are drawn at random."""
    return bool(look.zero) and not layers.are_stuck(look) and any(p.std for p in look.weights)
