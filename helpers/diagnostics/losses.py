"""The loss of any output: how it is called, what it was computed from, what it and its gradient tell."""

from math import inf

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from .given import CLASSES_LAST, OF_TARGETS
from .hooks import tensors_in
from .rows import LossCall

CROSS_ENTROPY = "cross_entropy", "nll_loss"


def fitting(loss_fn, output, targets):
    """The loss function's arguments; for cross_entropy's default, classes last and targets (B, T) are understood."""
    if loss_fn is cross_entropy and not isinstance(output, torch.Tensor):
        raise ValueError(f"the model puts out a {type(output).__name__}, not logits: {_line_for(output)}")
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
        text = f"logits {tuple(output.shape)} may have classes last or in dimension 1"
        raise ValueError(f"{text}: if last, give {CLASSES_LAST}")
    return output.flatten(0, -2), targets.flatten()


def _line_for(output):
    """The line to write for an output that is no tensor."""
    if getattr(output, "loss", None) is not None:
        return "give loss_fn=lambda out: out.loss, with the targets among the inputs, and no targets="
    items = output.items() if isinstance(output, dict) else enumerate(output) if isinstance(output, tuple) else ()
    places = {f"[{key!r}]": value for key, value in items}
    for place, value in places.items():
        if value is None or (isinstance(value, torch.Tensor) and value.dim() == 0):
            return f"give inputs=(x, targets), no targets=, and loss_fn=lambda out: out{place}, if that is the loss"
    if not places and not hasattr(output, "logits"):
        return "let it return a tensor, or give a loss_fn that makes a loss of this"
    place = ".logits" if hasattr(output, "logits") else next(iter(places))
    return f"give loss_fn=lambda out, y: F.cross_entropy(out{place}, y)"


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
    strange = {id(t) for t in (*leaves(tensors_in(inputs)), *made)}
    return list({id(t): t for t in leaves(results) if id(t) not in strange}.values())


def leaves(tensors):
    tensors = [t for t in tensors if t is not None and t.requires_grad]
    found = [t for t in tensors if t.grad_fn is None]
    for node in graph_behind(t.grad_fn for t in tensors):
        if type(node).__name__ == "CheckpointFunctionBackward":
            raise ValueError("a reentrant checkpoint hides its layers: call checkpoint(…, use_reentrant=False)")
        found += [node.variable] if hasattr(node, "variable") else []
    return found


def graph_behind(nodes, without=()):
    """Each node of the graph from these on, once, the last ones of a network first; ways through some are left out."""
    nodes, done = list(nodes), {None, *without}
    while nodes:
        if (node := nodes.pop()) not in done:
            done.add(node)
            yield node
            nodes += [n for n, _ in node.next_functions]


def is_plain(t):
    return t.layout is torch.strided and not t.is_complex()


def numbers(output, targets):
    """Both, where they are as many numbers, two or more; else []."""
    pair = [t.detach() for t in (output, targets) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    fits = len(pair) == 2 and pair[0].numel() == pair[1].numel() > 1 and all(map(is_plain, pair))
    return pair if fits else []


def by_hand(output, targets, loss):
    """What stands for a loss that calls none of torch's: its input may be anything."""
    return LossCall("loss_fn", output, targets, loss, None, getattr(output, "grad_fn", None))


def that_count(call, weights):
    """The call, of numbers, without those whose loss is multiplied by 0 later: a sentinel may stand for what is missing."""
    fits = weights is not None and call.input.shape == call.target.shape == weights.shape
    if not fits or weights.all() or not weights.any():
        return call
    return call._replace(input=call.input[weights != 0], target=call.target[weights != 0], loss=call.loss[weights != 0])


def has_learned(call, share=0):
    """Whether numbers are met to a tenth of their variance, and classes by more than luck: see more_than_luck."""
    if call.name in CROSS_ENTROPY:
        return call.input.dim() > 1 and more_than_luck(call.input, call.target, share)
    if not (pair := numbers(call.input, call.target)):
        return False
    out, wanted = (t.reshape(-1) for t in pair)
    if ((wanted == 0) | (wanted == 1)).all():
        margin = out - (0.5 if out.aminmax() == out.clamp(0, 1).aminmax() else 0)  # probabilities, or logits
        return more_than_luck(torch.stack([-margin, margin], 1), wanted.long(), share)
    return bool((out - wanted).square().mean() < 0.1 * wanted.var())


def more_than_luck(values, classes, share=0):
    """Whether more examples are right than there are of any one class, by three standard deviations, and than a share."""
    classes = classes.argmax(1) if classes.is_floating_point() else classes
    classes, guessed = (t.numpy(force=True).ravel() for t in (classes, values.argmax(1)))
    n, most = len(classes), np.bincount(classes[classes >= 0], minlength=1).max()
    least = max(most + 3 * (most * (1 - most / n)) ** 0.5, share * n) if n else 0
    return np.count_nonzero(guessed == classes) > least


def read_from_gradient(logits, gradient):
    """The call of cross-entropy that a gradient at the network's output comes from, in a list; [] of another loss.

    Of cross-entropy's mean the gradient is (softmax - one-hot) / n, and of no other loss.
    """
    if gradient is None or not (is_plain(logits) and is_plain(gradient)):
        return []
    values, gradient = (t.detach().reshape(-1, t.shape[-1]).double() for t in (logits, gradient))
    softmax = values.softmax(1)
    targets = (gradient - softmax / len(values)).argmin(1, keepdim=True)  # the gradient alone is 0 where p is 1
    expected = softmax.scatter_add(1, targets, torch.full_like(softmax[:, :1], -1)) / len(values)
    if values.shape[1] < 2 or not torch.allclose(gradient, expected, rtol=1e-2, atol=1e-4 / len(values)):
        return []
    loss = -values.log_softmax(1).gather(1, targets).mean()
    return [LossCall("cross_entropy", values, targets.flatten(), loss, loss, logits.grad_fn)]
