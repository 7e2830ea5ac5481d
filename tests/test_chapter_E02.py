"""What E02 defines, against helpers.folding."""

import torch

from helpers.folding import fold_batch_norms, fold_linear
from helpers.layers import BatchNorm1d
from helpers.models import deep_mlp


def worn(model, seed=0):
    """The model in eval mode and float64, its BatchNorms as after some training."""
    g = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, BatchNorm1d):
            for tensor in (layer.gamma.data, layer.beta.data, layer.running_mean):
                tensor.normal_(generator=g)
            layer.running_var.uniform_(0.1, 4, generator=g)
    return model.double().eval()


def test_what_is_read_off_is_what_the_helper_computes(chapter):
    net = worn(deep_mlp(depth=3, batch_norm=True))
    for i, fan_in in enumerate((30, 100, 100), start=1):
        linear, norm = net.get_submodule(f"linear{i}"), net.get_submodule(f"batch_norm{i}")
        W2, b2 = chapter["read_off"](torch.nn.Sequential(linear, norm), fan_in)
        folded = fold_linear(linear, norm)
        torch.testing.assert_close(W2, folded.weight.detach(), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(b2, folded.bias.detach(), rtol=1e-11, atol=1e-11)


def test_the_network_without_batch_norms_equals_the_helpers(chapter):
    net = worn(deep_mlp(depth=3, batch_norm=True))
    x = torch.randint(0, 27, (50, 3), generator=torch.Generator().manual_seed(2))
    plain = chapter["erase_batch_norms"](net)
    assert not any(isinstance(layer, BatchNorm1d) for layer in plain.modules())
    torch.testing.assert_close(plain(x), fold_batch_norms(net)(x), rtol=1e-11, atol=1e-11)


def test_each_of_the_five_mistakes_and_no_other_fold_changes_the_logits(chapter):
    net = worn(deep_mlp(depth=3, batch_norm=True))
    x = torch.randint(0, 27, (50, 3), generator=torch.Generator().manual_seed(2))
    chapter["X"] = x
    logits = net(x)
    changes = {name: (fold(x) - logits).abs().max() for name, fold in chapter["fold_in_six_ways"](net).items()}
    assert changes.pop("the right fold") < 1e-10
    assert len(changes) == 5 and min(changes.values()) > 1e-7
    torch.testing.assert_close(net(x), logits, rtol=0, atol=0)  # and the network is left alone
