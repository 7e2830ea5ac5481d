"""What is wrong in how layers are put together."""

import re
from collections import Counter
from itertools import pairwise
from math import inf, prod

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ..losses import graph_behind
from .look import behind_views

KERAS = 0.9  # a momentum of BatchNorm that is used there, where it is the share to keep
MOVES = re.compile("Transpose|Permute")


def normalises_few(look):
    """Layers that normalise so few values together that hardly anything of them is left."""
    shapes = {row.name: row.shape for row in look.seen}
    for name, layer in look.network.layers.values():
        shape, n = shapes.get(name), inf
        if isinstance(layer, nn.LayerNorm):
            n = prod(layer.normalized_shape)
        elif isinstance(layer, nn.GroupNorm) and shape:
            n = prod(shape[1:]) // layer.num_groups
        elif isinstance(layer, _InstanceNorm) and shape:
            n = prod(shape[2:])
        elif isinstance(layer, _BatchNorm) and shape and layer.training:
            n = prod(shape) // shape[1]
        if n <= 2:
            left = "one value at a time, and nothing of it is", "two values at a time: which is larger is"
            yield f"{name} ({type(layer).__name__}): normalises {left[n - 1]} left; let it normalise over more, or leave it out"


def forgets_at_once(look):
    for name, layer in look.network.layers.values():
        if isinstance(layer, _BatchNorm) and (layer.momentum or 0) >= KERAS:
            text = f"{name} ({type(layer).__name__}): momentum {layer.momentum} takes that share from the newest batch"
            yield f"{text}, so evaluation follows the last one alone; Keras's 0.99 is 0.01 here"
            return


def nothing_between(look):
    """Two linear layers in a row, unless few numbers lead from one to the other: a bottleneck is meant."""
    if look.loss is None or not look.loss.isfinite() or len(look.trainable) < len(look.tensors):
        return  # NaN is more urgent; and beside frozen weights two small matrices are trained on purpose
    linear = [row for row in look.seen if "Linear" in row.type.__name__ and row.node]
    for a, b in pairwise(linear):
        product_a, product_b = (_down_to_product(row.node)[-1:] for row in (a, b))
        between = [n for product in product_b for source in _computed(product) for n in _down_to_product(source)]
        is_turned = any(MOVES.match(type(n).__name__) for n in between)  # one over time, one over channels
        follows = between and between[-1:] == product_a and a.shape[-1] >= b.shape[-1] and not is_turned
        ends = [look.loss.grad_fn] if look.loss.requires_grad else [call.node for call in look.losses]
        if follows and _are_used_once(between, ends):
            text = f"{a.name} and {b.name}: two linear layers with nothing between them can do no more than one"
            yield f"{text}; was a nonlinearity meant there?"
            return


def _down_to_product(node):
    """The nodes of the graph down to a product with a weight, through views and an added bias; [] without one."""
    *nodes, last = behind_views(node)
    kind, sources = type(last).__name__, _computed(last)
    has_bias = kind == "AddBackward0" and len(sources) == 1 and all(n for n, _ in last.next_functions)
    below = _down_to_product(sources[0]) if has_bias else []
    is_product = kind in ("AddmmBackward0", "MmBackward0") and len(sources) < 2
    return [*nodes, last, *below] if below or is_product else []


def _computed(node):
    """Where a node's numbers come from, but for weights."""
    sources = [n for n, _ in node.next_functions if n is not None]
    return [n for n in sources if not hasattr(behind_views(n)[-1], "variable")]


def _are_used_once(nodes, ends):
    uses = Counter(source for node in graph_behind(ends) for source, _ in node.next_functions)
    return all(uses[n] == 1 for n in nodes)
