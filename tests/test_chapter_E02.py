"""What E02 writes inline, against helpers.folding."""

import torch

from helpers.folding import fold_batch_norms, fold_linear
from helpers.layers import BatchNorm1d, Linear
from helpers.models import deep_mlp
from notebook_cells import definitions


def worn(model, seed=0):
    """The model in eval mode and float64, its BatchNorms as after some training."""
    g = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, BatchNorm1d):
            for tensor in (layer.gamma.data, layer.beta.data, layer.running_mean):
                tensor.normal_(generator=g)
            layer.running_var.uniform_(0.1, 4, generator=g)
    return model.double().eval()


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_chapters_fold_equals_the_helpers():
    fold = definitions("E02_fold_batch_norm")["fold"]
    linear, norm = worn(torch.nn.Sequential(Linear(6, 5), BatchNorm1d(5, eps=1e-3)))
    linear.bias.data.normal_(generator=torch.Generator().manual_seed(1))
    statistics = (norm.gamma, norm.beta, norm.running_mean, norm.running_var, norm.eps)
    folded = fold_linear(linear, norm)
    W2, b2 = fold(linear.weight, linear.bias, *statistics)
    close(W2, folded.weight)
    close(b2, folded.bias)


def test_the_chapters_network_without_batch_norms_equals_the_helpers():
    chapter = definitions("E02_fold_batch_norm")
    stack = worn(deep_mlp(depth=3, batch_norm=True, num_models=2))
    x = torch.randint(0, 27, (50, 3), generator=torch.Generator().manual_seed(2))
    folded = fold_batch_norms(stack)(x)
    for r in range(2):
        net = chapter["alone"](stack, r)
        close(net(x), stack(x)[r])
        close(chapter["erase_batch_norms"](net, chapter["fold"])(x), folded[r])
