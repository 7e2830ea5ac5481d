"""What an output tells: its kind, whether examples of the batch are mixed, what its numbers have learned."""

import numpy as np

MIXING = {"view", "reshape", "softmax", "logsoftmax"}


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
