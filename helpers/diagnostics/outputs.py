"""What an output tells: its kind, whether examples of the batch are mixed, what its numbers have learned."""

import numpy as np
import torch

from .warnings import some_of

MIXING = {"view", "reshape", "softmax", "logsoftmax"}


def line_for(output):
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


def is_matching(values, targets):
    """Whether the classes of square logits are the examples themselves, one after the other."""
    return targets.dim() == 1 and values.shape == (len(targets),) * 2 and bool((targets.diff() == 1).all())


def has_learned(values, targets):
    """Whether more examples are right than there are of any one class, by more than luck."""
    targets = targets.argmax(1) if targets.is_floating_point() else targets
    targets, guessed = (t.numpy(force=True).ravel() for t in (targets, values.argmax(1)))
    n, most = len(targets), np.bincount(targets[targets >= 0], minlength=1).max()
    return bool(n and np.count_nonzero(guessed == targets) > most + 3 * (most * (1 - most / n)) ** 0.5)


def is_mixing(key, output, x, dim=None, *_, **others):
    """Whether a view reads the sizes in another order, or a softmax sums over dimension 0."""
    if x.is_nested:
        return False
    if key.endswith("softmax"):
        dim = dim if dim is not None else 0 if x.dim() in (1, 3) else 1  # as torch guesses
        return x.dim() > 1 and dim in (0, -x.dim())
    sizes = [[n for n in t.shape if n > 1] for t in (x, output)]
    return sizes[0] != sizes[1] and sorted(sizes[0]) == sorted(sizes[1])


def mixed(functions, network, seen, targets):
    """Sentences; the number of examples is known where each has one target."""
    is_one_each = isinstance(targets, torch.Tensor) and targets.dim() and len(targets) == targets.numel()
    n = len(targets) if is_one_each else None
    views = [f"{name} reads {tuple(old)} as {tuple(new)}" for name, old, new in functions.mixing if old != new]
    found = [f"{text}, which mixes what they count: use transpose or permute" for text in views[:1]]
    over = [name for name, old, new in functions.mixing if old == new and old[0] == n != old[1]]
    found += [f"{name} sums to 1 over dimension 0, the {n} examples: give dim=-1" for name in over[:1]]
    shapes = {row.name: row.shape for row in seen if len(row.shape) == 3}  # (n, 1, …) may be one sentence
    late = [path for path, layer in network.layers.values() if getattr(layer, "batch_first", None) is False]
    late = [path for path in late if path in shapes and shapes[path][0] == n and shapes[path][1] not in (1, n)]
    some, it, _ = some_of(late)
    text = f"{some}: takes the {n} examples for {n} steps of time, as dimension 0 is the time's"
    return found + ([f"{text}; give {it} batch_first=True"] if late else [])
