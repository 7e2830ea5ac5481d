"""What is wrong with the parameters: what does not learn, and why."""

from torch import nn

from ..hooks import tensors_in
from ..losses import computed_from, leaves
from . import layers
from .look import some_of

NORMALISING = {f"{kind}{n}" for kind in ("BatchNorm", "Dropout") for n in ("", "1d", "2d", "3d")}


def outside(look):
    """What the output depends on, and what is no parameter."""
    network, functions = look.network, look.functions
    used = [t for t, _ in functions.uses.values() if t.requires_grad and not t.is_leaf]
    made_of = [t for t in used if id(t) in network.tensors and not any(id(p) in network.tensors for p in leaves([t]))]
    if made_of:
        some, it, _ = some_of([network.tensor_name(t, "") for t in made_of])
        text = f"{some}: computed from a tensor that nothing holds, so no step changes {it}"
        yield f"{text}; make the numbers first, then .requires_grad_() or nn.Parameter(…)"
    ours = {id(p) for p in look.tensors.values()}
    ours |= {id(leaf) for t in made_of for leaf in leaves([t])}  # torch.randn(…, requires_grad=True) * 0.1
    others = [t for t in computed_from(tensors_in(look.output), look.inputs, functions.made) if id(t) not in ours]
    some, it, _ = some_of([network.tensor_name(t, f"a tensor {tuple(t.shape)}") for t in others])
    text = f"{some}: not among the model's parameters, though the output depends on {it}, so no optimizer over those"
    remedy = "use nn.Parameter, nn.ModuleList or nn.ModuleDict in place of a plain tensor or list"
    if network.is_given:
        remedy = f"give {it} with parameters=, too, to train {it}"
    elif not isinstance(network.root, nn.Module):
        remedy = f"add {it} to what parameters() returns"
    elif not any(id(t) in network.tensors for t in others):
        remedy = "a layer that is made inside the call is new each time: make it in __init__"
    if others:
        yield f"{text} trains {it}; {remedy}"


def none_to_learn(look):
    if look.loss is None or look.trainable or look.has_said(outside):
        return
    text = "no parameter needs a gradient, so nothing learns: call requires_grad_(True) on what is to learn"
    none = "no parameters were found, so nothing learns: make them outside of the call, with requires_grad=True"
    yield text if look.tensors else f"{none}, or give parameters="


def not_held(look):
    if look.optimizer is None:
        return
    held = {id(p) for group in look.optimizer.param_groups for p in group["params"]}
    missing = [name for name, p in look.trainable.items() if id(p) not in held]
    some, it, _ = some_of(missing)
    if missing and len(missing) == len(look.trainable):
        remedy = "make it anew from model.parameters(), after the model was made (or moved, or its cell run again)"
        yield f"the optimizer holds none of the model's parameters: {remedy}"
    elif missing:
        remedy = f"give the optimizer all parameters, or freeze {it} with requires_grad_(False)"
        yield f"{some}: not held by the optimizer, so no step changes {it}; {remedy}"


def left_out(look):
    """Of plain tensors: what is multiplied with like weights, but was left out when they got their requires_grad."""
    if isinstance(look.network.root, nn.Module) or not look.trainable:
        return
    products = [t for t, kind in look.functions.uses.values() if kind and t.dim() > 1 and t.is_floating_point()]
    names = [look.network.tensor_name(t, "") for t in products if t.is_leaf and not t.requires_grad]
    some, it, _ = some_of(names)
    if names:
        text = f"{some}: multiplied with like a weight, but needs no gradient, so no step changes {it}"
        yield f"{text}; call requires_grad_(), if {it} should learn"


def eval_mode(look):
    if not look.is_step:
        return
    layers = [layer for _, layer in look.network.layers.values()]
    modes = [layer for layer in layers if type(layer).__name__ in NORMALISING and hasattr(layer, "training")]
    if modes and not any(getattr(layer, "training", False) for layer in layers):
        text = "the model is in eval mode, where dropout is off and BatchNorm does not look at the batch"
        yield f"{text}: call model.train() to see a step of training"


def without_gradient(look):
    if all(p.grad_std is None for p in look.parameters):  # no gradients were asked for
        return
    names = [p.name for p in look.parameters if p.trainable and p.grad_mean is None and not p.grad_nonfinite]
    called = {row.name.partition(" (call ")[0] for row in look.activations}
    for is_called in False, True:
        those = [n for n in names if n not in look.learn and (n.rpartition(".")[0] in called) == is_called]
        some, it, they = some_of(those)
        why = f"the loss does not depend on {it}, so {they} will not learn"
        if is_called:
            why = f"what comes of {it} is cut off (no_grad, detach, .data, .numpy()), or not used"
        if those:
            yield f"{some}: no gradient; {why}"


def all_the_same(look):
    """Weights that can't learn apart from each other."""
    same = [p.name for p in look.weights if p.trainable and p.std == 0 and p.mean and min(p.shape[:2]) > 1]
    if same:
        some, it, _ = some_of(same)
        yield f"{some}: the same number everywhere, so the units of a layer stay equal; draw {it} at random"


def gradient_is_zero(look):
    """Weights that can't learn at all, though the loss depends on them."""
    is_stuck = look.has_said(layers.saturated, layers.dead, layers.constant)
    if is_stuck or look.begins_at_zero or any(p.nonfinite for p in look.weights):
        return
    with_gradient = [p for p in look.weights if p.trainable and p.grad_std is not None]
    zero = [p for p in with_gradient if p.grad_std == 0 and p.grad_mean == 0 and p.name not in look.learn]
    zero = [p.name for p in zero if p.lr is not None or not p.update_std]  # a rule of the user's own has cleared it
    if not zero:
        return
    some, it, _ = ("all weights", "them", "") if len(zero) == len(with_gradient) else some_of(zero)
    cause = f"look for sign, round, floor or dead units after {it}"
    if any(row.shape[-1:] == (1,) and row.std == 0 == row.mean for row in look.gradients[-2:]):
        cause = "look for softmax or cross-entropy over one output (take binary_cross_entropy_with_logits), or sign"
    if all(p.std == 0 == p.mean for p in with_gradient if p.name in zero):
        cause = "all are 0, and each learns through another: draw some of them at random"
    if all("weight_hh" in name for name in zero):
        cause = "the state before it is 0: one step only (is batch_first right?), or a reverse direction read at its start (take h_n)"
    yield f"{some}: the gradient is exactly 0 everywhere; {cause}"
