"""Call any network once, watched by hooks, and leave it exactly as it was."""

from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

__all__ = ["left_as_it_was", "map_tensors", "tensors_in", "watched_call"]

CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


@contextmanager
def left_as_it_was(model, inputs):
    """Let the model run on copies of its buffers; then put back what its modules hold, and the random state."""
    saved = [(module, dict(module.__dict__), dict(module._buffers)) for module in model.modules()]
    copies = {id(b): b.clone() for b in model.buffers()}
    gpus = set()
    if torch.cuda.is_initialized():
        tensors = [*model.parameters(), *model.buffers(), *tensors_in(inputs)]
        gpus = {t.device.index for t in tensors if t.device.type == "cuda"}
    try:
        for module, _, buffers in saved:
            module._buffers.update({name: copies.get(id(b)) for name, b in buffers.items()})
        with torch.random.fork_rng(gpus):
            yield
    finally:
        for module, attributes, buffers in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)  # .training is among them, and a learner's own .out
            module._buffers.clear()
            module._buffers.update(buffers)


def watched_call(model, inputs, see):
    """Call the model: (what was seen of each layer's output, the place of its gradient in the graph, the output).

    ``see(name, module, output, channels_first)`` is called for every tensor that a layer returns, before anything
    can change it in place; channels_first tells whether dimension 1 counts its units, as after a convolution.
    """
    names = {module: name or type(model).__name__ for name, module in model.named_modules()}
    containers = {module for module in names if module._modules}
    seen, edges, calls = [], [], Counter()
    returned = [[]]  # by the layers called so far: a list for each call that is still open
    last = None  # the last layer with parameters

    def before(module, args):
        returned.append([])

    def after(module, args, output):
        nonlocal last
        if torch.is_grad_enabled():
            # A view that is changed in place afterwards loses its place in the graph; a copy keeps it.
            output = map_tensors(lambda t: t.clone() if t.requires_grad and t._is_view() else t, output)
        tensors, from_inside = list(tensors_in(output)), returned.pop() if module in containers else ()
        # The version counts changes in place: a container may add to what its last layer returned.
        returned[-1] += [(t, t._version) for t in tensors]
        if all(any(t is other and t._version == version for other, version in from_inside) for t in tensors):
            return output  # a container that only hands on
        calls[module] += 1
        last = module if module._parameters else last
        name = names[module] + (f" (call {calls[module]})" if calls[module] > 1 else "")
        for i, t in enumerate(tensors):
            label = name + (f"[{i}]" if i else "")
            seen.append(see(label, module, t, isinstance(last, CHANNELS_FIRST)))
            edges.append(get_gradient_edge(t) if t.requires_grad else None)
        return output

    handles = [module.register_forward_pre_hook(before) for module in containers]
    handles += [module.register_forward_hook(after) for module in names]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would go past a transformer's layers in eval mode
    try:
        # Copies, as the first layer may work in place.
        if isinstance(inputs, Mapping):
            output = model(**map_tensors(torch.clone, dict(inputs)))
        else:
            output = model(*map_tensors(torch.clone, inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for handle in handles:
            handle.remove()
    return seen, edges, output


def map_tensors(function, value):
    """function of every tensor in a tensor, tuple, list or dict; whatever else is there stays."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if type(value) in (tuple, list):
        return type(value)(map_tensors(function, v) for v in value)
    return {k: map_tensors(function, v) for k, v in value.items()} if type(value) is dict else value


def tensors_in(value):
    """The floating-point tensors in a layer's output, however nested."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (tuple, list, Mapping)):
        for v in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(v)
