"""The loss of any output, and what keeps a network from learning though its layers look well."""

import re
from math import inf, isnan, log

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_leaves

from .functions import CrossEntropy, is_softmaxed
from .given import OF_TARGETS
from .hooks import tensors_in
from .outputs import has_learned, is_matching, line_for, mixed
from .rates import NORMS
from .trial import not_held
from .warnings import CLEAN, same_for_all, some_of

FAR = 1.0  # the loss above ln(classes); healthy: up to 0.7 (logits of std 1.2); the lecture's first network: 24
LARGE = 10  # the std of inputs that nobody has scaled; pixels from 0 to 255: 60 to 80
SMALL = 1e-3  # pixels that were divided by 255 twice: 1e-5
NORMALISING = {f"{kind}{n}" for kind in ("BatchNorm", "Dropout") for n in ("", "1d", "2d", "3d")}


def fitting(loss_fn, output, targets):
    """The loss function's arguments; for cross_entropy's default, classes last and targets (B, T) are understood."""
    if loss_fn is cross_entropy and not isinstance(output, torch.Tensor):
        raise ValueError(f"the model puts out a {type(output).__name__}, not logits: {line_for(output)}")
    if loss_fn is not cross_entropy or not isinstance(targets, torch.Tensor):
        return (output,) if targets is None else (output, targets)
    are_classes = not targets.is_floating_point()
    classes = output.shape[1] if output.dim() == 2 else inf
    if are_classes and targets.shape != output.shape and (targets >= classes).any():
        raise ValueError(OF_TARGETS["out of bounds"])  # before an accelerator does, which would end the session
    are_shares = targets.dim() < 2 or ((targets >= 0).all() and ((targets.sum(1) - 1).abs() < 0.01).all())
    if not are_classes and (targets.dim() < output.dim() or not are_shares):
        others = "loss_fn=F.mse_loss, for several labels an example F.binary_cross_entropy_with_logits"
        raise ValueError(f"targets are no probabilities: give targets.long() for classes, for a regression {others}")
    if not (are_classes and output.dim() > 2 and output.shape[:-1] == targets.shape):
        return output, targets
    if output.shape[:1] + output.shape[2:] == targets.shape:
        flat = "loss_fn=lambda out, y: F.cross_entropy(out.flatten(0, -2), y.flatten())"
        raise ValueError(f"logits {tuple(output.shape)} may have classes last or in dimension 1: if last, give {flat}")
    return output.flatten(0, -2), targets.flatten()


def loss_number(loss):
    """The loss, as a tensor of one number."""
    if isinstance(loss, (int, float)):
        return torch.tensor(float(loss))
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        kind = f"has shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"is a {type(loss).__name__}"
        raise ValueError(f"the loss {kind}: give a loss_fn that returns one number, a mean")
    return loss


def computed_from(results, inputs, made):
    """The leaves with requires_grad that tensors were computed from; but inputs, and what the call made."""
    strange = {id(t) for t in (*_leaves(tensors_in(inputs)), *made)}
    return list({id(t): t for t in _leaves(results) if id(t) not in strange}.values())


def _leaves(tensors):
    tensors = [t for t in tensors if t is not None and t.requires_grad]
    leaves = [t for t in tensors if t.grad_fn is None]
    nodes, done = [t.grad_fn for t in tensors], {None}
    while nodes:
        node = nodes.pop()
        if node not in done:
            done.add(node)
            if type(node).__name__ == "CheckpointFunctionBackward":
                raise ValueError("a reentrant checkpoint hides its layers: call checkpoint(…, use_reentrant=False)")
            leaves += [node.variable] if hasattr(node, "variable") else []
            nodes += [n for n, _ in node.next_functions]
    return leaves


def not_finite(inputs, targets, output, loss):
    """NaN that is there before the first layer, or only after the last one."""
    for name, value in ("inputs", inputs), ("targets", targets):
        for t in tensors_in(value):
            if n := int(t.isnan().sum()):
                return [f"the {name} hold NaN in {n:,} of {t.numel():,} places: {CLEAN}"]
    if loss is None or loss.isfinite().all() or not all(t.isfinite().all() for t in tensors_in(output)):
        return []
    remedy = "look for targets that are all ignore_index, for log(0) and 0/0 in the loss_fn"
    return [f"the loss is {loss.item():.3g}, though the model's output is finite: {remedy}"]


def no_probabilities(loss_fn, output, targets):
    """A sentence, in a list, of losses between probabilities that get something else, and may fall below 0; or []."""
    name = getattr(loss_fn, "__name__", type(loss_fn).__name__)
    kind = re.search("(?i)bce|binary_cross_entropy|kl_?div", name)
    if not kind or not (pair := _numbers(output, targets)):
        return []
    (low, high), is_kl = pair[1].aminmax(), "kl" in kind[0].lower()
    if high > 1.01 or (low < -0.01 and not is_kl):  # kl_div may take logarithms as targets
        remedy = "divide pictures by 255, or take F.mse_loss"
        return [f"{name} wants targets from 0 to 1, and gets {low:.3g} to {high:.3g}: {remedy}"]
    if is_kl and pair[0].min() >= 0 and pair[0].any():
        return [f"{name} gets probabilities, and wants their logarithms: give it F.log_softmax of the logits"]
    return []


def all_pairs(loss_fn, output, targets, loss):
    """A sentence, in a list, of (N, 1) against (N,), where each is compared with all; or []."""
    if not _numbers(output, targets) or output.shape == targets.shape:
        return []
    try:
        if torch.isclose(loss_number(loss_fn(output.view_as(targets), targets)), loss.detach(), equal_nan=True).all():
            return []  # it compares them one by one
    except Exception:  # noqa: BLE001  it may want the shapes that it got
        return []
    shapes = f"{tuple(output.shape)} and the targets {tuple(targets.shape)}"
    return [f"the output has shape {shapes}, so each is compared with all: give targets.view_as(output)"]


def findings_for(network, watcher, parameters, gradients, inputs, targets, output, loss_fn, loss, lr, optimizer):
    """Sentences: what is wrong with the loss, the parameters, the mode. gradients: in the order of the parameters."""
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    others, found = outside(network, watcher, parameters, inputs, output), not_finite(inputs, targets, output, loss)
    if loss is not None and not loss.requires_grad and (trainable or others):
        found += _no_gradient(watcher, output)
    elif loss is not None and trainable and not others and all(gradient is None for gradient in gradients):
        text = "the loss has a gradient, but it reaches no parameter: it was cut off (detach, .item(), .data, torch.tensor)"
        found.append(f"{text} and got requires_grad=True afterwards; leave both out")
    if loss is not None and not trainable and not others:
        text = "no parameter needs a gradient, so nothing learns: call requires_grad_(True) on what is to learn"
        none = "no parameters were found, so nothing learns: make them outside of the call, with requires_grad=True"
        found.append(text if parameters else f"{none}, or give parameters=")
    found += others + (not_held(optimizer, trainable) if optimizer is not None else [])
    found += _forgotten(network, watcher) if trainable else []
    found += all_pairs(loss_fn, output, targets, loss) if loss is not None else []
    found += no_probabilities(loss_fn, output, targets)
    calls, seen = watcher.functions.cross_entropies, watcher.seen
    said = mixed(watcher.functions, network, seen, targets) or said_of_cross_entropy(calls, inputs, seen)
    found += said or _unlike(seen, output, targets, loss)
    found += same_for_all(tensors_in(output), tree_leaves(inputs), [p for p in trainable.values() if p.dim() > 1])
    found += [] if any("the inputs" in text for text in found) else _inputs_unscaled(inputs, seen)
    return found + (eval_mode(network) if lr is not None or optimizer is not None else [])


def outside(network, watcher, parameters, inputs, output):
    """A sentence, in a list, of the tensors that the output depends on and that are no parameters; or []."""
    ours = {id(p) for p in parameters.values()}
    others = computed_from(tensors_in(output), inputs, watcher.functions.made)
    used = [t for t, _ in watcher.functions.uses.values() if t.requires_grad and not t.is_leaf]
    made_of = [t for t in used if id(t) in network.tensors and not any(id(p) in network.tensors for p in _leaves([t]))]
    some, it, _ = some_of([network.tensor_name(t, "") for t in made_of])
    text = f"{some}: computed from a tensor that nothing holds, so no step changes {it}"
    found = [f"{text}; make the numbers first, then .requires_grad_() or nn.Parameter(…)"] if made_of else []
    ours |= {id(leaf) for t in made_of for leaf in _leaves([t])}  # torch.randn(…, requires_grad=True) * 0.1
    others = [t for t in others if id(t) not in ours]
    names = [network.tensor_name(t, f"a tensor {tuple(t.shape)}") for t in others]
    some, it, _ = some_of(names)
    text = f"{some}: not among the model's parameters, though the output depends on {it}, so no optimizer over those"
    remedy = "use nn.Parameter, nn.ModuleList or nn.ModuleDict in place of a plain tensor or list"
    if network.is_given:
        remedy = f"give {it} with parameters=, too, to train {it}"
    elif not isinstance(network.root, nn.Module):
        remedy = f"add {it} to what parameters() returns"
    elif not any(id(t) in network.tensors for t in others):
        remedy = "a layer that is made inside the call is new each time: make it in __init__"
    return found + ([f"{text} trains {it}; {remedy}"] if others else [])


def _forgotten(network, watcher):
    """Of plain tensors: what is multiplied with like weights, but was left out when they got their requires_grad."""
    if isinstance(network.root, nn.Module):
        return []
    products = [t for t, kind in watcher.functions.uses.values() if kind and t.dim() > 1 and t.is_floating_point()]
    names = [network.tensor_name(t, "") for t in products if t.is_leaf and not t.requires_grad]
    some, it, _ = some_of(names)
    text = f"{some}: multiplied with like a weight, but needs no gradient, so no step changes {it}"
    return [f"{text}; call requires_grad_(), if {it} should learn"] if names else []


def _unlike(seen, output, targets, loss):
    """What numbers as targets ask for, and the output cannot or does not reach; in a list."""
    if loss is None or not (pair := _numbers(output, targets)):
        return []
    (low, high), last = pair[1].aminmax(), seen[-1] if seen and seen[-1].is_output else None
    least, most = (0, inf) if last and last.bounds == "dies" else (last and last.bounds) or (-inf, inf)
    if low < least - 0.01 or high > most + 0.01:
        text = f"the targets reach from {low:.3g} to {high:.3g}, and {last.name} ({last.activation}) puts out {least} to {most}"
        return [f"{text}: leave it out, or scale the targets"]
    here, there = (max(t.mean().abs().item(), t.std().item()) for t in pair)
    # What the loss_fn scales itself gives no such loss.
    if there > LARGE * max(here, 1) and loss > there / 2:
        text = f"the targets are about {there:.1e} in size, and the output {here:.1e}"
        return [f"{text}: standardise the targets, (y - mean) / std"]
    return []


def _numbers(output, targets):
    """Both, where they are as many numbers, two or more; else []."""
    pair = [t.detach() for t in (output, targets) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    fits = len(pair) == 2 and pair[0].numel() == pair[1].numel() > 1 and all(map(_is_plain, pair))
    return pair if fits else []


def reaches(output, targets):
    """Whether numbers as targets are met: nine tenths of their variance, and of 0 and 1 as many as has_learned asks."""
    if not (pair := _numbers(output, targets)):
        return False
    out, wanted = (t.reshape(-1) for t in pair)
    if ((wanted == 0) | (wanted == 1)).all():
        margin = out - (0.5 if out.aminmax() == out.clamp(0, 1).aminmax() else 0)  # probabilities, or logits
        return has_learned(torch.stack([-margin, margin], 1), wanted.long())
    return bool((out - wanted).square().mean() < 0.1 * wanted.var())


def _inputs_unscaled(inputs, seen):
    """Of what has numbers and no words (whole numbers), unless the network begins by scaling them itself."""
    tensors = [t for t in tensors_in(inputs) if t.dim() > 1 and len(t) > 1 and t.numel() and _is_plain(t)]
    words = any(isinstance(t, torch.Tensor) and not t.is_floating_point() for t in tree_leaves(inputs))
    if not tensors or words:
        return []
    size, first = max(t.std(0).max().item() for t in tensors), seen[0].readings.get("std") or 0 if seen else 0
    kind = "large" if size > 3 * LARGE and first > LARGE else None
    if size <= SMALL and not (seen and NORMS.match(seen[0].type.__name__)):
        kind = "tiny, or the same in all examples"
    return [f"the inputs are {kind} (std {size:.1e}): scale them to a std of about 1"] if kind else []


def eval_mode(network):
    layers = [layer for _, layer in network.layers.values()]
    modes = [layer for layer in layers if type(layer).__name__ in NORMALISING and hasattr(layer, "training")]
    wrong = modes and not any(getattr(layer, "training", False) for layer in layers)
    text = "the model is in eval mode, where dropout is off and BatchNorm does not look at the batch"
    return [f"{text}: call model.train() to see a step of training"] if wrong else []


def _no_gradient(watcher, output):
    remedy = "nothing learns: look for argmax, detach, .item(), .data, no_grad or a new tensor made from numbers"
    if any(t.requires_grad for t in tensors_in(output)):
        return [f"the loss has no gradient, though the model's output has one: {remedy}, in the loss_fn"]
    reached = [seen.name for seen in watcher.seen if seen.gradient is not None]
    after = f"after {reached[-1]}, the last layer that has one" if reached else "in the model"
    return [f"the loss has no gradient, and the model's output has none: {remedy}, {after}"]


def said_of_cross_entropy(calls, inputs=(), seen=()):
    if not calls:
        return []
    for call in calls:
        if call.of_logs is False and call.classes > 1 and not isnan(call.loss):
            kind = "probabilities" if call.is_softmaxed else "logits"
            return [f"nll_loss gets {kind}, and wants their logarithms: give it F.log_softmax of the logits"]
    call = next((call for call in calls if call.is_softmaxed), calls[0])
    uniform = log(call.classes)
    if call.classes == 1:
        remedy = "for one logit an example use F.binary_cross_entropy_with_logits"
        return [f"cross-entropy over one class is always 0, and nothing learns: {remedy}"]
    if call.is_softmaxed:
        remedy = f"leave the model's {call.own} out, or learning is slow and the loss never comes near 0"
        return [f"cross-entropy gets probabilities, but it has a {call.own} of its own: {remedy}"]
    text = f"the loss is {call.loss:.3g}, and a guess that all {call.classes} classes are equally likely would have"
    remedy = "the logits are too large; make the last layer's weights smaller at init"
    size = max((t.std().item() for t in tensors_in(inputs) if t.numel() > 1 and _is_plain(t)), default=0)
    hidden = next((row.readings.get("std") or 0 for row in reversed(seen) if row.activation), 0)
    if size > LARGE:
        remedy = f"the inputs are large (std {size:.2g}); scale them to a std of about 1"
    elif hidden > LARGE:
        remedy = f"what reaches the last layer is large (std {hidden:.2g}); the gain of the layers before is too high"
    # The logits of a contrastive loss are similarities, as large as its temperature wants them. What has learned is
    # sure, and wrong where it has learned by heart.
    far = call.is_mean and inf > call.loss > uniform + FAR and not (call.is_matching or call.has_learned)
    return [f"{text} ln({call.classes}) = {uniform:.3g}: {remedy}"] if far else []


def _is_plain(t):
    return t.layout is torch.strided and not t.is_complex()


def read_from_gradient(logits, gradient):
    """The CrossEntropy that a gradient at the network's output comes from, in a list; [] if it is another loss's.

    Of cross-entropy's mean the gradient is (softmax - one-hot) / n, and of no other loss.
    """
    if not (_is_plain(logits) and _is_plain(gradient)):
        return []
    logits, gradient = (t.detach().reshape(-1, t.shape[-1]).double() for t in (logits, gradient))
    softmax = logits.softmax(1)
    targets = (gradient - softmax / len(logits)).argmin(1, keepdim=True)  # the gradient alone is 0 where p is 1
    expected = softmax.scatter_add(1, targets, torch.full_like(softmax[:, :1], -1)) / len(logits)
    if logits.shape[1] < 2 or not torch.allclose(gradient, expected, rtol=1e-2, atol=1e-4 / len(logits)):
        return []
    loss, targets = -logits.log_softmax(1).gather(1, targets).mean().item(), targets.flatten()
    found = is_softmaxed(logits), None, is_matching(logits, targets), has_learned(logits, targets)
    return [CrossEntropy(loss, logits.shape[1], True, *found)]
