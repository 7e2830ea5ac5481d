"""Fold each BatchNorm into the layer in front of it: fewer layers, the same answers in eval mode.

In eval mode a BatchNorm scales and shifts every feature by constants, and a Linear (or a convolution) in front of it
can do that itself, with other weights. For z = x @ W + b, with W of shape (fan_in, fan_out),

    (z - running_mean) * s + beta = x @ (W * s) + (b - running_mean) * s + beta, s = gamma / sqrt(running_var + eps).

In train mode no constants can do that: what is folded is for use. This is the lecture's second exercise.
(torch.nn.utils.fusion folds torch's own layers. Here the formula stands to be read, for the course's layers too.)
"""

from contextlib import suppress

import torch
from torch import nn

from helpers.folding.tracing import REMEDY, Folded, altered, class_name, copy_for_eval, find_pairs, same_calls
from helpers.layers import BatchNorm1d, Linear

__all__ = ["fold_batch_norms", "fold_conv", "fold_linear"]


def _folded(layer, batch_norm):
    """A copy of the layer with the weights of the formula above."""

    def constant(*names, default=0.0):
        found = (value for name in names if (value := getattr(batch_norm, name, None)) is not None)
        value = next(found, torch.tensor(default))
        return value if isinstance(batch_norm, BatchNorm1d) else value.flatten()  # in a class of your own often (1, C)

    gamma, beta = constant("gamma", "weight", default=1.0), constant("beta", "bias")
    s = gamma / torch.sqrt(constant("running_var", default=1.0) + getattr(batch_norm, "eps", 0))
    bias = ((0 if layer.bias is None else layer.bias) - constant("running_mean")) * s + beta
    if isinstance(layer, Linear):
        s = s.unsqueeze(-2)  # a weight ([num_models,] fan_in, fan_out)
    elif getattr(layer, "transposed", False):  # (in, out / groups, ...): each group of inputs has its own outputs
        s = s.view(layer.groups, -1).repeat_interleave(layer.in_channels // layer.groups, dim=0)
    weight = layer.weight * s.view(*s.shape, *[1] * (layer.weight.dim() - s.dim()))  # else (out, ...)
    folded, kept = copy_for_eval(layer), layer.weight
    folded.weight, folded.bias = (nn.Parameter(t.to(kept.dtype), kept.requires_grad) for t in (weight, bias))
    return folded


def fold_linear(linear, batch_norm):
    """A new Linear that computes ``batch_norm(linear(x))`` as in eval mode; both stay as they are.

    linear: nn.Linear or helpers.layers.Linear, a stack too, for inputs (N, fan_in) or (num_models, N, fan_in).
    batch_norm: nn.BatchNorm1d, helpers.layers.BatchNorm1d, or a class of your own: the pair is tried out.
    Raises ValueError where the two don't fit, and where something would be lost, such as a hook.
    """
    return _fold(linear, batch_norm)[0]


def fold_conv(conv, batch_norm):
    """The same for nn.Conv1d, 2d, 3d and their ConvTranspose, with any options; batch_norm has as many dimensions."""
    return _fold(conv, batch_norm)[0]


def fold_batch_norms(model):
    """A copy of the model in eval mode, without BatchNorms: each is folded into the layer that it follows.

    Every BatchNorm must directly follow a Linear or a convolution whose output goes nowhere else. A layer may be called
    several times, if the same BatchNorm follows each call, and a BatchNorm may follow several layers. Names stay; an
    identity stands where a BatchNorm was, followed by the activation of a BatchNorm that has one. The model is not
    touched. What forward keeps, and another method than forward, give folded numbers; a way that forward chooses at
    random may not be seen.
    Raises ValueError with name, reason and remedy for what can't be folded: no copy comes back half folded.
    """
    folds, stands = {}, {}
    for layer_name, name in find_pairs(model).items():
        layer, batch_norm = model.get_submodule(layer_name), model.get_submodule(name)
        try:
            folds[layer_name], dims, inside = _fold(layer, batch_norm, [*batch_norm.named_children()])
        except ValueError as error:
            raise ValueError(f"{name} can't be folded into {layer_name}: {error}") from None
        earlier = getattr(stands.get(id(batch_norm)), "dims", ())
        stands[id(batch_norm)] = Folded({*dims, *earlier}, inside)
    folded = copy_for_eval(model, stands)
    for name, new in folds.items():  # forward may come to a layer by another name, or by a list of its own
        layer = folded.get_submodule(name)
        layer.weight, layer.bias = new.weight, new.bias
    if folds and not same_calls(model, folded):
        raise ValueError(f"{class_name(model)} reads weights, or goes another way without a BatchNorm: {REMEDY}")
    return folded


@torch.no_grad()
def _fold(layer, batch_norm, inside=()):
    """What _folded makes of the pair, for which numbers of dimensions, and what remains: it is tried out in float64.

    inside: modules by name that the BatchNorm may call on what it has normalised.
    """
    for module in layer, batch_norm:
        if fault := altered(module):
            raise ValueError(f"{class_name(module)} {fault}")

    def try_out(*batch):
        shape = [layer.weight.shape[-2 if isinstance(layer, Linear) else -1]]
        if hasattr(layer, "kernel_size"):  # about as small as the kernel and its padding allow
            shape = layer.in_channels, *(n * d + 3 for n, d in zip(layer.kernel_size, layer.dilation, strict=True))
        x = torch.randn((*batch, *shape), generator=torch.Generator().manual_seed(0))
        x = torch.cat([10 * x, 1e6 * x]).to(pair[0].weight)  # one that clamps, say, shows at the large ones
        torch.testing.assert_close(folded(x), pair(x), rtol=1e-7, atol=1e-7, equal_nan=True)

    try:
        pair = copy_for_eval(nn.Sequential(layer, batch_norm)).double()
        folded = nn.Sequential(_folded(*pair), *[getattr(pair[1], name) for name, _ in inside])
        try_out(1)
    except Exception as error:  # whatever a forward may raise
        if inside:  # but not called in eval mode
            return _fold(layer, batch_norm)
        fault = f"{class_name(batch_norm)} does not normalise what {class_name(layer)} puts out by running statistics"
        reason = str(error).partition("!")[0]
        raise ValueError(f"{fault}, or does more ({reason}): give two that fit, or track_running_stats=True") from error
    dims = {layer.weight.dim()}
    with suppress(Exception):  # a class of your own may take (N, T, C), too; torch's takes T for the features then
        try_out(2, 1 + (batch_norm.running_mean.numel() == 1))
        dims.add(3)
    return _folded(layer, batch_norm), dims, inside
