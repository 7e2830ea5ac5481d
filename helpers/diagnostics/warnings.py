"""What counts as unhealthy: the warnings of a Diagnosis, in words, with the usual cause.

The thresholds lie between what was measured on the course's healthy networks, at step 0 and after 1,000 steps at
learning rate 0.1, and on its unhealthy ones. Each comment gives both.
"""

import re
from collections import Counter
from math import inf, prod

from torch import Tensor, strided

from .rates import NORMS, is_weight, update_ratios

HARD = 0.5  # of a Hardtanh, beyond whose bends N(0, 1) has 0.32
SATURATED = 0.3  # healthy: up to 0.22, in a first layer; gain 3: 0.40 to 0.50
DEAD = 0.5  # healthy: up to 0.12 of the units, on 32 examples; after a step that kills: nearly all
DEAD_EXAMPLES = 32  # with fewer, many a healthy unit happens to be zero for all of them
TOTAL_CHANGE = 7  # healthy: 2.8, and 6.1 with torch's own init in three layers; gain 0.5: 17; linear at gain 5/3: 8
CHANGE_A_LAYER = 1.25  # healthy: 1.29, in few layers; gain 0.5: 2; linear at gain 5/3: 1.7
# A small change a layer adds up. Healthy: activations 4 at 20 layers, 7 in ResNet-50; gradients 10 and 250.
MOST_CHANGE = {"activations": 100, "gradients": 1000}
# Loss at the last step only. Weights of std 1 / sqrt(n): 200 over 12 steps, 3e4 over 30; half of that: 4e4 and 1e12.
THROUGH_TIME = 1e6
DIGITS = re.compile(r"\d+")
CLEAN = "clean the data"  # ends the finding that explains every NaN after it


def warnings_for(diagnosis, learn=(), from_zero=()):
    """The warnings, most urgent first, as a list of strings; empty where nothing looks wrong.

    learn: names of parameters that have a gradient in other steps, such as those of an expert that had no example.
    from_zero: of those that were 0 at the first step; they grow from nothing, and those behind them learn slowly at first.
    """
    activations, gradients, parameters = diagnosis.activations, diagnosis.gradients, diagnosis.parameters
    weights = [p for p in parameters if is_weight(p)]
    # What began at 0 inside, and not as the output layer, lets gradients through as it grows.
    zero, inner = begin_at_zero(parameters), {*from_zero} - {p.name for p in weights[-1:]}
    weights = [p for p in weights if p.name not in from_zero]
    by_depth = list(_by_depth(activations, gradients, inner))
    # What gets no gradient, though others do, is computed beside the loss: weights that are clamped to be rounded.
    has_gradient = [row.std is not None for row in gradients]
    trained = {row.name for row, has in zip(gradients, has_gradient, strict=True) if has or not any(has_gradient)}
    stuck = _stuck(activations, zero, by_depth, trained)
    # What is zero on purpose gets a gradient, and the weights around it are drawn at random.
    begins = not stuck and bool(zero) and any(p.std for p in weights)
    is_of_one = any(row.shape[-1:] == (1,) and row.std == 0 == row.mean for row in gradients[-2:])
    blocked = list(_blocked(weights, stuck or begins, learn, is_of_one))
    return [
        *_not_finite(activations, gradients, parameters),
        *stuck,
        *by_depth,
        *_through_time(gradients, {p.name.rpartition(".")[0] for p in parameters}),
        *_unused(parameters, activations, learn),
        *blocked,
        *update_ratios(weights, diagnosis, stuck, by_depth, begins or blocked),
    ]


def _not_finite(activations, gradients, parameters):
    """Only the first in the order in which a step computes them: all others follow from it."""
    before = "no layer before it has any: look for far too high a gain or learning rate, 0/0 or log(0)"
    after = "no layer after it has any: look for 0/0, the square root of 0 or a loss that overflows"
    found = [(f"{p.name}:", p, "a step was too large, probably: lower the learning rate") for p in parameters]
    found += [(f"{_label(row)}:", row, before) for row in activations]
    found += [(f"{_label(row)}: gradient", row, after) for row in reversed(gradients)]  # the last layer's comes first
    for label, row, cause in found:
        if row.nonfinite:
            return [f"{label} NaN or infinite in {row.nonfinite:,} of {prod(row.shape):,} places; {cause}"]
    return []


def _stuck(activations, zero, by_depth, trained):
    """Of the calls of one layer only the first one that is stuck speaks. zero: names of weights that begin at 0."""
    calls, is_faint = {}, any(" vanish " in text or " shrink " in text for text in by_depth)
    for name, text in _stuck_calls(activations, zero, is_faint):
        if trained and name not in trained:
            continue
        calls.setdefault(name.partition(" (call ")[0], []).append(text)
    return [f"{text}; {len(more)} more of its calls are like it" if more else text for text, *more in calls.values()]


def _stuck_calls(activations, zero, is_faint):
    for i, row in enumerate(activations):
        # What ends the network may be meant to come near 0 or 1, and so may a gate, which is no activation here.
        inside = row.is_activation and any(r.std != row.std for r in activations[i + 1 :])
        most = HARD if "Hard" in row.type.__name__ else SATURATED
        if row.saturated is not None and row.saturated > most and (inside or len(activations) == 1):
            yield row.name, f"{_label(row)}: {row.saturated:.0%} saturated; the gain is probably too high"
        units = row.shape[1 if len(row.shape) > 3 else -1] if row.shape else 1
        # Units that are on or off by their biases alone: of 16 up to 11 are a coin's luck.
        is_dead = row.dead is not None and row.dead > min(DEAD + 0.75 / units**0.5, 0.99)
        if is_dead and _examples(row) >= DEAD_EXAMPLES:
            cause = "a learning rate that was too high once, or biases too negative"
            if i and activations[i - 1].std == 0:
                cause = "are the weights before it all zero?"
            elif is_faint:
                cause = "what reaches it is too small against its biases"
            yield row.name, f"{_label(row)}: {row.dead:.0%} of its units are dead (zero for every example); {cause}"
        elif row.is_activation and row.std == 0 and not (any(f"{r.name}.weight" in zero for r in activations[:i])
                                                         and _leads_past(activations, i)):  # fmt: skip
            yield row.name, f"{_label(row)}: puts out the same number everywhere; are the weights before it all zero?"


def _leads_past(activations, i):
    """Whether the network says something beside this row, or ends with it, as with an output layer that begins at 0."""
    return bool(activations[-1].std) or all(row.is_activation or row.std is None for row in activations[i + 1 :])


def same_for_all(outputs, inputs, weights):
    """A sentence, in a list, where differing inputs get one answer; an output layer that begins at 0 may do that."""
    outputs, inputs = map(_of_several_examples, (outputs, inputs))
    if not outputs or not weights or not weights[-1].any() or any(map(_differs, outputs)):
        return []
    if not any(map(_differs, inputs)) or not all(w.isfinite().all() for w in weights):
        return []
    text = f"the output is the same for all {len(outputs[0])} examples: nothing of the inputs reaches it"
    one = "a softmax over one output, " if all(t.shape[-1] == 1 for t in outputs) else ""
    return [f"{text}; look for {one}weights that are all zero, dead units, or an input that forward does not use"]


def _of_several_examples(values):
    tensors = [t for t in values if isinstance(t, Tensor) and t.layout is strided]
    return [t for t in tensors if t.dim() and len(t) > 1 and t.numel()]


def _differs(t):
    """Whether its examples differ, by more than the roundings of one product."""
    if not (t.is_floating_point() or t.is_complex()):
        return bool((t != t[:1]).any())
    return not bool((t - t[:1]).abs().max() <= 1e-6 * t.abs().max())  # NaN differs


def _by_depth(activations, gradients, inner):
    """Whether a std grows or shrinks from the first to the last layer of one role.

    Beside a way that leads past them (their block puts out something of its own, or calls them again at its end) it may
    do so within wide limits; inner: names of weights that began at 0, with which gradients may do anything at first.
    """
    compared = [i for i, row in enumerate(activations) if row.is_activation]
    layers = _one_role(compared, activations)
    if len(layers) < 3:
        compared = [i for i, row in enumerate(activations) if "Linear" in row.type.__name__]
        layers = _one_role(compared[:-1], activations)  # the output layer has a scale of its own
    if len(layers) < 3:
        return
    steps = compared.index(layers[-1]) - compared.index(layers[0])  # layers of other roles count as depth
    own = [activations[i].name for i in layers]
    if any(row.name == f"{name} (call 2)" or name.startswith(f"{row.name}.") for name in own for row in activations):
        steps = inf
    first, last = activations[layers[0]], activations[layers[-1]]
    change = _change(first.std, last.std, steps, MOST_CHANGE["activations"])
    if change:
        verb, cause = ("grow", "high") if change > 1 else ("shrink", "low")
        stds = f"std {first.std:.2g} in {first.name}, {last.std:.2g} in {last.name}"
        yield f"activations {verb} with depth: {stds}; the gain is probably too {cause}"
    if not gradients or inner:
        return
    first, last = gradients[layers[0]], gradients[layers[-1]]
    # The norm rather than the std: in a larger feature map the same gradient is spread over more entries.
    change = _change(_norm(last), _norm(first), steps, MOST_CHANGE["gradients"])
    if change:
        verb, cause = ("explode", "high") if change > 1 else ("vanish", "low, or the layers are saturated")
        stds = f"std {last.std:.2g} at {last.name}, {first.std:.2g} at {first.name}"
        yield f"gradients {verb} on their way back: {stds}; the gain is probably too {cause}"


def _through_time(gradients, owners):
    """Whether weights' first use gets a gradient of another size than the last one: a recurrent network's steps.

    owners: names of layers that have weights. Of a function in a loop over layers each call is another layer's.
    """
    calls = {}
    for row in gradients:
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


def _unused(parameters, activations, learn):
    if all(p.grad_std is None for p in parameters):  # no gradients were asked for
        return
    names = [p.name for p in parameters if p.trainable and p.grad_mean is None and not p.grad_nonfinite]
    called = {row.name.partition(" (call ")[0] for row in activations}
    for is_called in False, True:
        those = [name for name in names if name not in learn and (name.rpartition(".")[0] in called) == is_called]
        some, it, they = some_of(those)
        why = f"the loss does not depend on {it}, so {they} will not learn"
        if is_called:
            why = f"what comes of {it} is cut off (no_grad, detach, .data, .numpy()), or not used"
        if those:
            yield f"{some}: no gradient; {why}"


def _blocked(weights, is_explained, learn, is_of_one):
    """Weights that can't learn apart from each other, or not at all, though the loss depends on them."""
    same = [p.name for p in weights if p.trainable and p.std == 0 and p.mean and min(p.shape[:2]) > 1]
    if same:
        some, it, _ = some_of(same)
        yield f"{some}: the same number everywhere, so the units of a layer stay equal; draw {it} at random"
    with_gradient = [p for p in weights if p.trainable and p.grad_std is not None]
    zero = [p for p in with_gradient if p.grad_std == 0 and p.grad_mean == 0 and p.name not in learn]
    zero = [p.name for p in zero if p.lr is not None or not p.update_std]  # a rule of the user's own has cleared it
    if zero and not is_explained and not any(p.nonfinite for p in weights):
        some, it, _ = ("all weights", "them", "") if len(zero) == len(with_gradient) else some_of(zero)
        cause = f"look for sign, round, floor or dead units after {it}"
        if is_of_one:
            cause = "look for softmax or cross-entropy over one output (take binary_cross_entropy_with_logits), or sign"
        if all(p.std == 0 == p.mean for p in with_gradient if p.name in zero):
            cause = "all are 0, and each learns through another: draw some of them at random"
        if all("weight_hh" in name for name in zero):
            cause = "the state before it is 0: one step only (is batch_first right?), or a reverse direction read at its start (take h_n)"
        yield f"{some}: the gradient is exactly 0 everywhere; {cause}"


def begin_at_zero(parameters):
    """The names of weights (no biases) that are 0 and about to move: LoRA's B, a block's last gamma."""
    zero = [p for p in parameters if p.trainable and p.mean == 0 and not p.std and (p.grad_std or p.grad_mean)]
    zero = [p for p in zero if is_weight(p) or prod(p.shape) == 1 or NORMS.match(p.type.__name__)]
    return [p.name for p in zero if not p.name.rpartition(".")[2].startswith("b")]


def some_of(names):
    """(the first names, for a sentence; its pronouns)."""
    text = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return text, *(("it", "it") if len(names) == 1 else ("them", "they"))


def _examples(row):
    """How many values each unit of a layer has, at least: features are the last dimension, or dimension 1.

    The places of one image are alike: they count as four.
    """
    values = prod(row.shape) // max(row.shape[1], row.shape[-1])
    return min(values, 4 * row.shape[0]) if len(row.shape) > 3 else values


def _label(row):
    type_name = row.type.__name__
    return row.name if type_name.lower() in row.name.lower() else f"{row.name} ({type_name})"
