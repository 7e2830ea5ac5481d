"""What is wrong with how sizes change from layer to layer, or from step to step of a recurrent network."""

import re
from collections import Counter
from math import inf, prod

from .look import is_weight

TOTAL_CHANGE = 7  # healthy: 2.8, and 6.1 with torch's own init in three layers; gain 0.5: 17; linear at gain 5/3: 8
CHANGE_A_LAYER = 1.25  # healthy: 1.29, in few layers; gain 0.5: 2; linear at gain 5/3: 1.7
# A small change a layer adds up. Healthy: activations 4 at 20 layers, 7 in ResNet-50; gradients 10 and 250.
MOST_CHANGE = {"activations": 100, "gradients": 1000}
# Loss at the last step only. Weights of std 1 / sqrt(n): 200 over 12 steps, 3e4 over 30; half of that: 4e4 and 1e12.
THROUGH_TIME = 1e6
DIGITS = re.compile(r"\d+")


def activations_change(look):
    """Whether a std grows or shrinks from the first to the last layer of one role."""
    if ends := _ends(look.activations):
        first, last, steps = look.activations[ends[0]], look.activations[ends[1]], ends[2]
        change = _change(first.std, last.std, steps, MOST_CHANGE["activations"])
        if change:
            verb, cause = ("grow", "high") if change > 1 else ("shrink", "low")
            stds = f"std {first.std:.2g} in {first.name}, {last.std:.2g} in {last.name}"
            yield f"activations {verb} with depth: {stds}; the gain is probably too {cause}"


def gradients_change(look):
    """The same of the gradients, on their way back; not beside weights that began at 0, but for the output layer's."""
    last_weight = [p.name for p in look.parameters if is_weight(p)][-1:]
    ends = _ends(look.activations)
    if ends and look.gradients and not {*look.from_zero} - {*last_weight}:
        first, last, steps = look.gradients[ends[0]], look.gradients[ends[1]], ends[2]
        # The norm rather than the std: in a larger feature map the same gradient is spread over more entries.
        change = _change(_norm(last), _norm(first), steps, MOST_CHANGE["gradients"])
        if change:
            verb, cause = ("explode", "high") if change > 1 else ("vanish", "low, or the layers are saturated")
            stds = f"std {last.std:.2g} at {last.name}, {first.std:.2g} at {first.name}"
            yield f"gradients {verb} on their way back: {stds}; the gain is probably too {cause}"


def fades(look):
    """Whether what reaches the last layers, or the first ones on the way back, is small."""
    return any(" shrink " in t or " vanish " in t for t in (*activations_change(look), *gradients_change(look)))


def _ends(rows):
    """(the first and the last layer of the most common role, the number of layers between them), or None.

    Beside a way that leads past them (their block puts out something of its own, or calls them again at its end) a std
    may change within wide limits: the number is infinite.
    """
    compared = [i for i, row in enumerate(rows) if row.is_activation]
    layers = _one_role(compared, rows)
    if len(layers) < 3:
        compared = [i for i, row in enumerate(rows) if "Linear" in row.type.__name__]
        layers = _one_role(compared[:-1], rows)  # the output layer has a scale of its own
    if len(layers) < 3:
        return None
    names = [rows[i].name for i in layers]
    if any(row.name == f"{name} (call 2)" or name.startswith(f"{row.name}.") for name in names for row in rows):
        return layers[0], layers[-1], inf
    return layers[0], layers[-1], compared.index(layers[-1]) - compared.index(layers[0])  # others count as depth


def gradients_change_through_time(look):
    """Whether weights' first use gets a gradient of another size than the last one: a recurrent network's steps.

    Of a function in a loop over layers each call is another layer's.
    """
    calls, owners = {}, {p.name.rpartition(".")[0] for p in look.parameters}
    for row in look.gradients:
        name = row.name.partition(" (call ")[0]
        if name in owners or "(" in name:  # a product with a weight: matmul(W):3
            calls.setdefault(name, []).append(_norm(row))
    for name, (first, *_, last) in ((name, sizes) for name, sizes in calls.items() if len(sizes) > 2):
        if first and last and max(first / last, last / first) > THROUGH_TIME:
            verb, remedy = "explode", "clip the gradients, or make the recurrent weights smaller"
            if first < last:
                verb, remedy = "vanish", "what came early is not learned; take a GRU or LSTM, or orthogonal weights"
            sizes = f"{name} gets {first:.1e} in its first call and {last:.1e} in its last"
            yield f"gradients {verb} through time: {sizes}; {remedy}"
            return


def _one_role(indices, rows):
    """Those of the most common role: a query is not compared with a head, nor mlp.0 with mlp.2 of the same block.

    Blocks that repeat are told by the numbers in front of a name's last part: 0.mlp.2 and 1.mlp.2 have one role. Only
    where nothing repeats, the last part's number counts the layers: fc1 and fc2, 0 and 2. Layers with weights must then
    put out the same shape. Of calls of the same layer only the first counts: a recurrent network's steps share weights.
    """
    indices = [i for i in indices if " (call " not in rows[i].name]
    paths = [rows[i].name.rpartition(".") for i in indices]
    roles = [(rows[i].type, rows[i].shape[:1], DIGITS.sub("", outer), last)
             for i, (outer, _, last) in zip(indices, paths, strict=True)]  # fmt: skip
    if len(set(roles)) == len(roles):
        shapes = [None if rows[i].is_activation else rows[i].shape for i in indices]
        roles = [(*role[:3], DIGITS.sub("", role[3]), shape) for role, shape in zip(roles, shapes, strict=True)]
    common = Counter(roles).most_common(1)
    return [i for i, role in zip(indices, roles, strict=True) if role == common[0][0]]


def _norm(row):
    return row.std and row.std * prod(row.shape) ** 0.5


def _change(start, end, steps, most):
    """end / start if that is a change worth a warning, else None."""
    if not start or not end:
        return None
    change = end / start
    total = max(change, 1 / change)
    alarming = total > TOTAL_CHANGE and total ** (1 / steps) > CHANGE_A_LAYER
    return change if alarming or total > most else None
