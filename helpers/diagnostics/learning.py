"""The loss of any output, and what keeps a network from learning though its layers look well."""

from math import log

import torch
from torch.nn.functional import cross_entropy

from .functions import CrossEntropy, is_softmaxed
from .hooks import tensors_in
from .warnings import some_of

__all__ = ["computed_from", "eval_mode", "findings_for", "fitting", "loss_number", "not_held", "outside"]
__all__ += ["read_from_gradient", "said_of_cross_entropy"]

FAR = 1.0  # the loss above ln(classes); healthy: up to 0.7 (logits of std 1.2); the lecture's first network: 24
NORMALISING = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d")


def fitting(loss_fn, output, targets):
    """The loss function's arguments; for cross_entropy's default, classes last and targets (B, T) are understood."""
    if loss_fn is not cross_entropy:
        return (output,) if targets is None else (output, targets)
    tensor, whole = (
        isinstance(output, torch.Tensor),
        isinstance(targets, torch.Tensor) and not targets.is_floating_point(),
    )
    if not tensor:
        raise ValueError(f"the model puts out a {type(output).__name__}, not logits: {_line_for(output)}")
    if whole and output.dim() > 2 and output.shape[:-1] == targets.shape:
        if output.shape[:1] + output.shape[2:] == targets.shape:
            flat = "loss_fn=lambda out, y: F.cross_entropy(out.flatten(0, -2), y.flatten())"
            raise ValueError(
                f"logits {tuple(output.shape)} may have their classes last or in dimension 1: if last, give {flat}"
            )
        return output.flatten(0, -2), targets.flatten()
    return output, targets


def _line_for(output):
    """The line to write for an output that is no tensor."""
    if getattr(output, "loss", None) is not None:
        return "give loss_fn=lambda out: out.loss, with the targets among the inputs, and no targets="
    values = list(output.values()) if isinstance(output, dict) else list(output) if isinstance(output, tuple) else []
    place = [f"[{key!r}]" for key in output] if isinstance(output, dict) else [f"[{i}]" for i in range(len(values))]
    for where, value in zip(place, values, strict=True):
        if value is None or (isinstance(value, torch.Tensor) and value.dim() == 0):
            return f"give inputs=(x, targets), no targets=, and loss_fn=lambda out: out{where}, if that is the loss"
    if not place and not hasattr(output, "logits"):
        return "let it return a tensor, or give a loss_fn that makes a loss of this"
    where = ".logits" if hasattr(output, "logits") else place[0]
    return f"give loss_fn=lambda out, y: F.cross_entropy(out{where}, y)"


def loss_number(loss_fn, *arguments):
    """The loss, as a tensor of one number."""
    loss = loss_fn(*arguments)
    if isinstance(loss, (int, float)):
        return torch.tensor(float(loss))
    kind = f"has shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"is a {type(loss).__name__}"
    if kind != "has shape ()" and getattr(loss, "numel", int)() != 1:
        raise ValueError(f"the loss {kind}: give a loss_fn that returns one number, a mean")
    return loss


def computed_from(results, inputs, made):
    """The leaves with requires_grad that tensors were computed from, by id; but inputs, and what the call made."""
    outside = {id(t) for t in (*_leaves(tensors_in(inputs)), *made)}
    return {id(t): t for t in _leaves(results) if id(t) not in outside}


def _leaves(tensors):
    tensors = [t for t in tensors if t is not None and t.requires_grad]
    leaves = [t for t in tensors if t.grad_fn is None]
    nodes, done = [t.grad_fn for t in tensors if t.grad_fn is not None], set()
    while nodes:
        node = nodes.pop()
        if node not in done:
            done.add(node)
            if type(node).__name__ == "CheckpointFunctionBackward":
                raise ValueError("a reentrant checkpoint hides its layers: call checkpoint(…, use_reentrant=False)")
            leaves += [node.variable] if hasattr(node, "variable") else []
            nodes += [n for n, _ in node.next_functions if n is not None]
    return leaves


def findings_for(network, watcher, parameters, inputs, output, loss, lr, optimizer):
    """Sentences: what is wrong with the loss, the parameters, the mode."""
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    others = outside(network, watcher, parameters, inputs, output)
    found = []
    if loss is not None and not loss.requires_grad and (trainable or others):
        found.append(_no_gradient(watcher, output))
    if loss is not None and not parameters and not others:
        found.append(
            "no parameters were found, so nothing learns: weights that are made inside the call are new ones each time; "
            "make them outside, with requires_grad=True, or give parameters="
        )
    found += others
    if optimizer is not None:
        found += not_held(optimizer, trainable)
    found += said_of_cross_entropy(watcher.functions.cross_entropies)
    return found + (eval_mode(network) if lr is not None or optimizer is not None else [])


def outside(network, watcher, parameters, inputs, output):
    """A sentence, in a list, of the tensors that the output depends on and that are no parameters; or []."""
    ours = {id(p) for p in parameters.values()}
    others = computed_from(tensors_in(output), inputs, watcher.functions.made)
    others = [network.tensor_name(t, f"a tensor {tuple(t.shape)}") for i, t in others.items() if i not in ours]
    some, it, _ = some_of(others)
    where = "nn.Parameter, nn.ModuleList or nn.ModuleDict in place of a plain tensor or list"
    text = f"{some}: not among the model's parameters, though the output depends on {it}, so no optimizer over those trains"
    return [f"{text} {it}; use {where}"] if others else []


def eval_mode(network):
    layers = [layer for _, layer in network.layers.values()]
    modes = [layer for layer in layers if type(layer).__name__ in NORMALISING and hasattr(layer, "training")]
    wrong = modes and not any(getattr(layer, "training", False) for layer in layers)
    text = (
        "the model is in eval mode, where dropout is off and BatchNorm does not look at the batch: call model.train() "
    )
    return [f"{text}to see a step of training"] if wrong else []


def _no_gradient(watcher, output):
    remedy = "nothing learns: look for argmax, detach, .item(), .data, no_grad or a new tensor made from numbers"
    if any(t.requires_grad for t in tensors_in(output)):
        return f"the loss has no gradient, though the model's output has one: {remedy}, in the loss_fn"
    reached = [seen.name for seen in watcher.seen if seen.gradient is not None]
    after = f"after {reached[-1]}, the last layer that has one" if reached else "in the model"
    return f"the loss has no gradient, and the model's output has none: {remedy}, {after}"


def not_held(optimizer, trainable):
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, p in trainable.items() if id(p) not in held]
    if missing and len(missing) == len(trainable):
        yield ("the optimizer holds none of the model's parameters: make it anew from model.parameters(), after the "
               "model was made (or moved, or its cell run again)")  # fmt: skip
    elif missing:
        some, it, _ = some_of(missing)
        yield (f"{some}: not held by the optimizer, so no step changes {it}; give the optimizer all parameters, or "
               f"freeze {it} with requires_grad_(False)")  # fmt: skip


def said_of_cross_entropy(calls):
    for call in calls[:1]:
        uniform = log(call.classes)
        if call.classes == 1:
            yield ("cross-entropy over one class is always 0, and nothing learns: for one logit an example use "
                   "F.binary_cross_entropy_with_logits")  # fmt: skip
        elif call.is_softmaxed:
            yield ("cross-entropy gets probabilities, but it has a softmax of its own: leave the model's softmax out, "
                   "or learning is slow and the loss never comes near 0")  # fmt: skip
        elif call.is_mean and call.loss > uniform + FAR:
            yield (f"the loss is {call.loss:.3g}, and a guess that all {call.classes} classes are equally likely would "
                   f"have ln({call.classes}) = {uniform:.3g}: the logits are too large; make the last layer's weights "
                   "smaller at init")  # fmt: skip


def read_from_gradient(logits, gradient):
    """The CrossEntropy that a gradient at the network's output comes from, in a list; [] if it is another loss's.

    Of cross-entropy's mean the gradient is (softmax - one-hot) / n, and of no other loss.
    """
    logits, gradient = (t.detach().reshape(-1, t.shape[-1]).double() for t in (logits, gradient))
    softmax = logits.softmax(1)
    targets = (gradient - softmax / len(logits)).argmin(1, keepdim=True)  # the gradient alone is 0 where p is 1
    expected = softmax.scatter_add(1, targets, torch.full_like(softmax[:, :1], -1)) / len(logits)
    if logits.shape[1] < 2 or not torch.allclose(gradient, expected, rtol=1e-2, atol=1e-4 / len(logits)):
        return []
    loss = -logits.log_softmax(1).gather(1, targets).mean().item()
    return [CrossEntropy(loss, logits.shape[1], True, is_softmaxed(logits))]
