"""Fold each BatchNorm into the layer in front of it: fewer layers, the same answers in eval mode.

In eval mode a BatchNorm scales and shifts every feature by constants, and a Linear (or a convolution) in front
of it can do that itself, with other weights. For z = x @ W + b, with W of shape (fan_in, fan_out),

    (z - running_mean) * s + beta = x @ (W * s) + (b - running_mean) * s + beta,
    where s = gamma / sqrt(running_var + eps).

In train mode the statistics are the batch's own, so no constants can stand for them: what is folded is for use,
not for further training. This is the lecture's second exercise.
"""

import copy

import torch
from torch import nn

from helpers.layers import BatchNorm1d, Linear
from helpers.tracing import altered, class_name, copy_for_eval, find_batch_norms

__all__ = ["fold_batch_norms", "fold_conv", "fold_linear"]

# Which BatchNorms have their features where the layer puts them. Ours has them last, a convolution does not.
AFTER_LINEAR = (nn.BatchNorm1d, nn.SyncBatchNorm, BatchNorm1d)
LINEARS = {nn.Linear: AFTER_LINEAR, Linear: AFTER_LINEAR}
CONVOLUTIONS = {
    nn.Conv1d: (nn.BatchNorm1d, nn.SyncBatchNorm),
    nn.Conv2d: (nn.BatchNorm2d, nn.SyncBatchNorm),
    nn.Conv3d: (nn.BatchNorm3d, nn.SyncBatchNorm),
    nn.ConvTranspose1d: (nn.BatchNorm1d, nn.SyncBatchNorm),
    nn.ConvTranspose2d: (nn.BatchNorm2d, nn.SyncBatchNorm),
    nn.ConvTranspose3d: (nn.BatchNorm3d, nn.SyncBatchNorm),
}


def fold_linear(linear, batch_norm):
    """A new Linear that computes ``batch_norm(linear(x))`` as in eval mode; both stay as they are.

    linear: nn.Linear, or helpers.layers.Linear, a stack too. batch_norm: nn.BatchNorm1d or
    helpers.layers.BatchNorm1d, in either mode; affine=False counts as gamma 1 and beta 0. Inputs are (N, fan_in),
    for a stack ([num_models,] N, fan_in). The result is of the linear's class and has a bias in any case.

    Raises ValueError where no constants can do it (no running statistics), where the two do not fit together,
    and where something would be lost: a hook, a parametrization, a forward of the layer's own.
    """
    _check(linear, batch_norm, LINEARS)
    scale = _scale(batch_norm)
    return _fold(linear, batch_norm, scale.unsqueeze(-2 if isinstance(linear, Linear) else -1))


def fold_conv(conv, batch_norm):
    """A new convolution that computes ``batch_norm(conv(x))`` as in eval mode; both stay as they are.

    conv: nn.Conv1d, 2d, 3d or their ConvTranspose, with any groups, stride, padding and dilation, bias or none.
    batch_norm: torch.nn's of as many dimensions. Otherwise as fold_linear.
    """
    _check(conv, batch_norm, CONVOLUTIONS)
    scale = _scale(batch_norm)
    if conv.transposed:  # weight (in, out / groups, ...): every group of inputs has its own outputs
        scale = scale.view(conv.groups, -1).repeat_interleave(conv.in_channels // conv.groups, dim=0)
    else:  # weight (out, in / groups, ...)
        scale = scale.unsqueeze(-1)
    return _fold(conv, batch_norm, scale[(..., *[None] * len(conv.kernel_size))])


def fold_batch_norms(model):
    """A copy of the model in eval mode, without BatchNorms: each is folded into the layer that it follows.

    Every BatchNorm must directly follow a Linear or a convolution (what fold_linear and fold_conv take) whose
    output goes nowhere else. A layer may be called several times, if the same BatchNorm follows each call, and a
    BatchNorm may follow several layers. All modules keep their names; where a BatchNorm was, an identity stands,
    so that forward runs as before. Other normalisations stay. The model is not touched, nor torch's random state.

    Which BatchNorm follows which layer is found by torch.fx, which runs forward with symbols in place of numbers.
    Raises ValueError with the layer's name, the reason and the remedy for a BatchNorm that can't be folded (no
    copy comes back half folded), and for a model that torch.fx can't follow.
    """
    pairs = find_batch_norms(model, (*LINEARS, *CONVOLUTIONS))
    folded, folds = copy_for_eval(model), []
    for layer_name, name in pairs.items():
        layer, batch_norm = folded.get_submodule(layer_name), folded.get_submodule(name)
        fold = fold_conv if isinstance(layer, tuple(CONVOLUTIONS)) else fold_linear
        try:
            folds.append((layer, batch_norm, fold(layer, batch_norm)))
        except ValueError as error:
            raise ValueError(f"{name} can't be folded into {layer_name}: {error}") from None
    # In place, so that forward meets the new layers on whatever way it came to the old ones: by another name of
    # theirs, or by a list of its own.
    for layer, batch_norm, new in folds:
        layer.weight, layer.bias = new.weight, new.bias
        vars(batch_norm).clear()
        batch_norm.__class__ = Folded
        batch_norm.__init__(layer.weight.dim())
    return folded.eval()


class Folded(nn.Identity):
    """What stands where a BatchNorm was. Its input must have the dimensions for which the fold is right.

    For a batch of sequences nn.BatchNorm1d has its features in dimension 1, while a Linear puts them last.
    """

    def __init__(self, dims):
        super().__init__()
        self.dims = dims

    def forward(self, input):
        # torch's own assert, so that a folded network can still be traced.
        torch._assert(input.dim() == self.dims, f"folded for inputs of {self.dims} dimensions")
        return input

    def extra_repr(self):
        return f"dims={self.dims}"


@torch.no_grad()
def _scale(batch_norm):
    gamma = batch_norm.gamma if isinstance(batch_norm, BatchNorm1d) else batch_norm.weight
    return (1 if gamma is None else gamma) / (batch_norm.running_var + batch_norm.eps).sqrt()


@torch.no_grad()
def _fold(layer, batch_norm, scale):
    """A copy of the layer, its weight multiplied by the scale, which is shaped for it, and with the new bias."""
    beta = batch_norm.beta if isinstance(batch_norm, BatchNorm1d) else batch_norm.bias
    bias = (0 if layer.bias is None else layer.bias) - batch_norm.running_mean
    bias = bias * _scale(batch_norm) + (0 if beta is None else beta)
    folded = copy.deepcopy(layer).eval()
    for name, value in ("weight", layer.weight * scale), ("bias", bias):
        setattr(folded, name, nn.Parameter(value.to(layer.weight.dtype), layer.weight.requires_grad))
    return folded


def _check(layer, batch_norm, table):
    """Raise ValueError unless the BatchNorm can be folded into the layer."""
    kind = next((kind for kind in table if _works_as(layer, kind)), None)
    if kind is None:
        known = ", ".join(kind.__name__ for kind in table)
        raise ValueError(f"{class_name(layer)} is not one of {known}, or has a forward of its own")
    if not any(_works_as(batch_norm, known) for known in table[kind]):
        raise ValueError(
            f"{class_name(batch_norm)} does not normalise the features that {class_name(layer)} puts out, or has a "
            f"forward of its own: give one of {', '.join(class_name(known) for known in table[kind])}"
        )
    for module in layer, batch_norm:
        if what := altered(module):
            raise ValueError(f"{class_name(module)} {what}")
    if batch_norm.running_mean is None or batch_norm.running_var is None:
        raise ValueError(
            f"{class_name(batch_norm)} has no running statistics, so it uses the batch's in eval mode too: "
            "train it with track_running_stats=True"
        )
    if isinstance(layer, Linear):
        outputs = (*layer.weight.shape[:-2], layer.weight.shape[-1])
    else:
        outputs = (layer.out_features if kind is nn.Linear else layer.out_channels,)
    if outputs != batch_norm.running_mean.shape:
        raise ValueError(
            f"{class_name(batch_norm)} has features {tuple(batch_norm.running_mean.shape)}, but {class_name(layer)} puts "
            f"out {outputs}: it must normalise what the layer puts out, feature by feature"
        )


def _works_as(module, kind):
    """Whether it computes what this class computes: a subclass with another forward may do anything."""
    methods = ("forward", "_conv_forward")
    return isinstance(module, kind) and all(
        getattr(type(module), method, None) is getattr(kind, method, None) for method in methods
    )
