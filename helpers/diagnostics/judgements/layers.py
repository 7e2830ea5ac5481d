"""What is wrong in layers, and from one layer to the next."""

import re
from collections import Counter
from math import prod

from ..losses import graph_behind
from .look import is_weight

MOST = 5  # layers that are named one by one
HARD = 0.5  # of a Hardtanh, beyond whose bends N(0, 1) has 0.32
SATURATED = 0.3  # healthy: up to 0.22, in a first layer; gain 3: 0.40 to 0.50
DEAD = 0.5  # healthy: up to 0.12 of the units, on 32 examples; after a step that kills: nearly all
DEAD_EXAMPLES = 32  # with fewer, many a healthy unit happens to be zero for all of them
TOTAL_CHANGE = 7  # healthy: 2.8, and 6.1 with torch's own init in three layers; gain 0.5: 17; linear at gain 5/3: 8
FADED = 10  # healthy gradients: 6.0 to 8.6 in a small convolutional network with torch's own init, 30 seeds
CHANGE_A_LAYER = 1.25  # healthy: 1.29, in few layers; gain 0.5: 2; linear at gain 5/3: 1.7
# A small change a layer adds up. Healthy: activations 4 at 20 layers, 7 in ResNet-50; gradients 10 and 250.
MOST_CHANGE = {"activations": 100, "gradients": 1000}
# Loss at the last step only. Weights of std 1 / sqrt(n): 200 over 12 steps, 3e4 over 30; half of that: 4e4 and 1e12.
THROUGH_TIME = 1e6
SETTLED = 1e-5
# What the gain is, probably.
CAUSES = {"grow": "high", "shrink": "low", "explode": "high", "vanish": "low, or the layers are saturated"}
DIGITS = re.compile(r"\d+")


def not_finite(look):
    """Only the first in the order in which a step computes them: all others follow from it."""
    before = "no layer before it has any: look for far too high a gain or learning rate, 0/0 or log(0)"
    before += ", NaN in the inputs, or a softmax over a row that is masked everywhere"
    after = "no layer after it has any: look for 0/0, the square root of 0 or a loss that overflows"
    step = "a step was too large, probably: lower the learning rate"
    if look.first is None:  # a watch knows when it was
        step = "a step was too large (lower the learning rate), or a gradient was NaN: look before the first step"
    found = [(f"{p.name}:", p, step) for p in look.parameters]
    # A mask does no harm where all gradients are finite.
    is_harmless = any(row.std for row in look.gradients) and not any(row.nonfinite for row in look.gradients)
    found += [(f"{_label(row)}:", row, before) for row in look.activations if not (row.is_masked and is_harmless)]
    found += [(f"{_label(row)}: gradient", row, after) for row in reversed(look.gradients)]  # the last one comes first
    is_explained = any("clean the data" in text for text in look.findings)
    for label, row, cause in [] if is_explained else found:
        if row.nonfinite:
            yield f"{label} NaN or infinite in {row.nonfinite:,} of {prod(row.shape):,} places; {cause}"
            return


def once_a_layer(judge_row):
    """A judgement of one row, with those before and after it, as one of all: a layer's first call speaks for all."""

    def judgement(look):
        # What gets no gradient, though others do, is computed beside the loss: weights that are clamped to be rounded.
        trained = {row.name for row in look.gradients if row.std is not None}
        calls = {}
        for i, row in enumerate(look.activations):
            text = judge_row(look, look.activations[:i], row, look.activations[i + 1 :])
            if text and (not trained or row.name in trained):
                calls.setdefault(row.name.partition(" (call ")[0], []).append(text)
        for n, (text, *more) in enumerate(calls.values()):
            text += f"; {len(more)} more of its calls are like it" if more else ""
            text += f"; {len(calls) - MOST} more layers are like it" if n == MOST - 1 < len(calls) - 1 else ""
            if n < MOST:
                yield text

    return judgement


@once_a_layer
def saturated(look, before, row, after):
    if row.saturated is None or look.has_learned:  # what has learned is sure of it, by units that are on or off
        return None
    # What ends the network may be meant to come near 0 or 1, and so may a gate, which is no activation here.
    is_inside = row.is_activation and any(r.std != row.std for r in after)
    is_alone = not (before or after)
    if row.saturated > (HARD if "Hard" in row.type.__name__ else SATURATED) and (is_inside or is_alone):
        cause = "the steps were probably too long" if look.is_later(saturated) else "the gain is probably too high"
        return f"{_label(row)}: {row.saturated:.0%} saturated; {cause}"


@once_a_layer
def dead(look, before, row, after):
    """Most units are zero for every example, or all of them are the same number."""
    fades = _is_small(before) and any(" shrink " in text or " vanish " in text for text in look.says(change_with_depth))
    if fades and row.std == 0:
        return None  # nothing_left says it, after its cause
    cause = "are the weights before it all zero?"
    if row.is_activation and (row.dead or 0) > DEAD and _is_no_chance(row, before):
        if fades:
            cause = "what reaches it is too small against its biases"
        elif not before or before[-1].std != 0:
            cause = "a learning rate that was too high once, or biases too negative"
        return f"{_label(row)}: {row.dead:.0%} of its units are dead (zero for every example); {cause}"
    # Behind weights that begin at 0, where something leads past this row, or the network ends with it.
    begin = [name.removesuffix(".weight") for name in look.zero]
    others = [r for r in after if not (r.is_activation or r.std is None or r.name.partition(" (call ")[0] in begin)]
    begins = any(r.name in begin for r in before) and (look.activations[-1].std or not others)
    if row.is_activation and row.std == 0 and not begins:
        return f"{_label(row)}: puts out the same number everywhere; {cause}"


@once_a_layer
def nothing_left(look, before, row, after):
    if row.is_activation and row.std == 0 and look.has_said(change_with_depth) and _is_small(before):
        return f"{_label(row)}: puts out the same number everywhere; what reaches it is too small"


def _is_small(before):
    """Whether what reaches a row is below 1 in size; after steps that were too long: up to 1e8."""
    return not before or max(abs(before[-1].mean or 0), before[-1].std or 0) < 1


def _is_no_chance(row, before):
    """Whether so many dead units are more than luck: a unit may be zero for few examples, or by its bias alone."""
    channels = 1 if len(row.shape) > 3 else -1
    values = prod(row.shape) // max(row.shape[1], row.shape[-1])  # of each unit, at least
    values = min(values, 4 * row.shape[0]) if channels == 1 else values  # the places of one image are alike
    # Of 16 units on or off by their biases up to 11 are a coin's luck, also where all come from 16 (a bottleneck). The
    # channels of images come from several places each.
    sources = [row] if channels == 1 else [*before, row]
    units = min(r.shape[channels] for r in sources if r.is_activation and len(r.shape) == len(row.shape))
    return values >= DEAD_EXAMPLES and row.dead > min(DEAD + 0.75 / units**0.5, 0.99)


def are_stuck(look):
    return look.has_said(saturated, dead)


def _label(row):
    type_name = row.type.__name__
    return row.name if type_name.lower() in row.name.lower() else f"{row.name} ({type_name})"


def change_with_depth(look):
    """Of a training only what was so at its first step: what came later is no matter of the gain at init."""
    if not look.is_later(change_with_depth):
        for text in look.says(changes):
            verb = next(verb for verb in CAUSES if f" {verb} " in text)
            yield f"{text}; the gain is probably too {CAUSES[verb]}"


def changes(look):
    """Whether a std grows or shrinks from the first to the last layer of one role; others say what that comes of.

    Beside a way that leads past them (their block puts out something of its own, or calls them again at its end) it may
    do so within wide limits.
    """
    rows, gradients = look.activations, look.gradients
    layers, compared = _compared(rows)
    if len(layers) < 3 or look.are_beside:
        return
    names = [rows[k].name for k in layers]
    is_led_past = look.is_led_past or any(
        r.name == f"{name} (call 2)" or name.startswith(f"{r.name}.") for name in names for r in rows
    )
    place = {k: n * (1e9 if is_led_past else 1) for n, k in enumerate(compared)}  # layers of other roles count as depth
    # Up to the last one that is not exactly 0, where so little arrives that rounding has taken it.
    i, j = layers[0], max((k for k in layers if rows[k].std != 0), default=layers[0])
    change = _change(rows[i].std, rows[j].std, place[j] - place[i], MOST_CHANGE["activations"])
    # Learning makes the last weights large: what has learned may grow, on both ways.
    may_grow = look.has_learned or look.is_trained
    if change and not (change > 1 and may_grow):
        verb = "grow" if change > 1 else "shrink"
        stds = f"std {rows[i].std:.2g} in {rows[i].name}, {rows[j].std:.2g} in {rows[j].name}"
        yield f"activations {verb} with depth: {stds}"
    # Behind weights that began at 0, but for the output layer's, gradients may do anything at first.
    last_weight = [p.name for p in look.parameters if is_weight(p)][-1:]
    if not gradients or not {*look.from_zero} <= {*last_weight}:
        return
    i, j = min((k for k in layers if gradients[k].std != 0), default=layers[-1]), layers[-1]
    # In a larger feature map the same gradient may be spread over more entries: by norm and by std it must have changed.
    change = _change(_norm(gradients[j]), _norm(gradients[i]), place[j] - place[i], MOST_CHANGE["gradients"])
    by_std = _change(gradients[j].std, gradients[i].std, place[j] - place[i], MOST_CHANGE["gradients"])
    # In a training that has come so far gradients are small, and may fade, too.
    is_no_fault = may_grow if change and change > 1 else look.has_learned and look.first
    if change and by_std and not (1 / FADED < change < 1 or is_no_fault):
        verb = "explode" if change > 1 else "vanish"
        stds = f"std {gradients[j].std:.2g} at {rows[j].name}, {gradients[i].std:.2g} at {rows[i].name}"
        yield f"gradients {verb} on their way back: {stds}"


def ways(look):
    """A Diagnosis's are_beside and is_led_past: how layers that change lie in the graph; {} where none changes."""
    if not any(changes(look)):
        return {}
    layers, _ = _compared(look.activations)
    first, last, end = (look.seen[place].node for place in (layers[0], layers[-1], -1))
    are_known = None not in (first, last, end)
    are_beside = are_known and first not in graph_behind([last])
    is_led_past = are_known and end is not last and first in graph_behind([end], without=[last])
    return dict(are_beside=are_beside, is_led_past=is_led_past)


def _compared(rows):
    """(the indices of layers of one role, those of all that are of their kind)."""
    compared = [i for i, row in enumerate(rows[:-1]) if row.is_activation]  # what ends the network has its own scale
    layers = _one_role(compared, rows)
    if len(layers) < 3:
        compared = [i for i, row in enumerate(rows) if "Linear" in row.type.__name__]
        layers = _one_role(compared[:-1], rows)  # the output layer has a scale of its own
    return layers, compared


def _one_role(indices, rows):
    """Those of the most common role: a query is not compared with a head, nor mlp.0 with mlp.2 of the same block.

    Blocks that repeat are told by the numbers in front of a name's last part: 0.mlp.2 and 1.mlp.2 have one role. Only
    where nothing repeats, the last part's number counts the layers: fc1 and fc2, 0 and 2. Layers with weights must then
    put out the same shape. Of calls of the same layer only the first counts: a recurrent network's steps share weights.
    """
    indices = [i for i in indices if " (call " not in rows[i].name]
    paths = [rows[i].name.rpartition(".") for i in indices]
    behind_norm = [i > 0 and "Norm" in rows[i - 1].type.__name__ for i in indices]  # which gives them its own size
    roles = [(rows[i].type, rows[i].shape[:1], is_behind, DIGITS.sub("", outer), last)
             for i, is_behind, (outer, _, last) in zip(indices, behind_norm, paths, strict=True)]  # fmt: skip
    if len(set(roles)) == len(roles):
        shapes = [None if rows[i].is_activation else rows[i].shape for i in indices]
        roles = [(*role[:4], DIGITS.sub("", role[4]), shape) for role, shape in zip(roles, shapes, strict=True)]
    common = Counter(roles).most_common(1)
    return [i for i, role in zip(indices, roles, strict=True) if role == common[0][0]]


def _norm(row):
    return row.std and row.std * prod(row.shape) ** 0.5


def _change(start, end, steps, most):
    """end / start if that is a change worth a warning, else None."""
    if not start or not end:
        return None
    total = max(end / start, start / end)
    alarming = steps and total > TOTAL_CHANGE and total ** (1 / steps) > CHANGE_A_LAYER
    return end / start if alarming or total > most else None


def change_through_time(look):
    """Whether weights' first use gets a gradient of another size than the last one: a recurrent network's steps.

    Of a function in a loop over layers each call is another layer's.
    """
    calls, owners = {}, {p.name.rpartition(".")[0] for p in look.parameters}
    for row in look.gradients:
        name = row.name.partition(" (call ")[0]
        if name in owners or "(" in name:  # a product with a weight: matmul(W):3
            calls.setdefault(name, []).append(_norm(row))
    stds = {row.name: row.std for row in look.activations}
    for name, (first, *others, last) in ((name, sizes) for name, sizes in calls.items() if len(sizes) > 2):
        ends = stds.get(f"{name} (call {len(others) + 2})"), stds.get(f"{name} (call {len(others) + 1})")
        if None not in ends and abs(ends[0] - ends[1]) <= SETTLED * ends[0]:
            continue  # it is repeated until it changes no more, and is to forget where it began
        if first and last and max(first / last, last / first) > THROUGH_TIME:
            verb, remedy = "explode", "clip the gradients, or make the recurrent weights smaller"
            if first < last:
                verb, remedy = "vanish", "what came early is not learned; take a GRU or LSTM, or orthogonal weights"
            sizes = f"{name} gets {first:.1e} in its first call and {last:.1e} in its last"
            yield f"gradients {verb} through time: {sizes}; {remedy}"
            return
