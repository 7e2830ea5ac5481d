"""What keeps a network from learning is said, what can't be read is refused by name, and what is healthy is left alone."""

import ast
import copy
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import helpers.diagnostics
from helpers.diagnostics import diagnose
from helpers.models import deep_mlp, lecture_mlp
from test_diagnose_networks import (
    GPT,
    IMAGES,
    NEXT,
    WORDS,
    HuggingFace,
    X,
    Y,
    conv_net,
    module,
    parameter,
    plain_function,
)


def mlp(*tail, outputs=5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, outputs), *tail)


def said(*args, **how):
    return "\n".join(diagnose(*args, **how).warnings)


def refusal(*args, **how):
    with pytest.raises(ValueError) as refused:
        diagnose(*args, **how)
    return str(refused.value)


# Nothing learns


def one_hot_argmax(out, y):
    return F.mse_loss(F.one_hot(out.argmax(1), 5).float(), F.one_hot(y, 5).float())


@pytest.mark.parametrize(
    "loss_fn",
    [
        one_hot_argmax,
        lambda out, y: F.cross_entropy(out.detach(), y),
        lambda out, y: F.cross_entropy(out, y).item(),
        lambda out, y: F.cross_entropy(torch.tensor(out.tolist()), y),
        torch.no_grad()(F.cross_entropy),
    ],
)
def test_a_loss_without_a_gradient(loss_fn):
    result = diagnose(mlp(), X, Y, loss_fn=loss_fn)
    assert "no gradient" in result.warnings[0] and "nothing learns" in result.warnings[0]
    assert "loss_fn" in result.warnings[0] and result.loss > 0 and result.parameters[0].grad_std is None


def test_a_model_whose_output_has_no_gradient_is_told_after_which_layer():
    net = module(lambda self, x: self.b(self.a(x)).detach(), a=nn.Linear(12, 9), b=nn.Linear(9, 5))
    assert "after b, the last layer that has one" in said(net, X, Y)
    net = module(lambda self, x: torch.no_grad()(self.b)(self.a(x)), a=nn.Linear(12, 9), b=nn.Linear(9, 5))
    assert "after a, the last layer" in said(net, X, Y)
    assert "nothing learns" in said(mlp().requires_grad_(False), X, Y)
    assert not said(mlp().requires_grad_(False), X, loss_fn=None)


def test_layers_in_a_list_and_plain_tensors_are_not_the_models():
    net = module(
        lambda self, x: self.head(torch.tanh(self.layers[0](x) + self.extra)),
        layers=[nn.Linear(12, 9)],
        head=nn.Linear(9, 5),
    )
    net.extra = torch.zeros(9, requires_grad=True)
    text = said(net, X, Y)
    assert all(name in text for name in ("layers.0.weight", "layers.0.bias", "extra", "nn.ModuleList", "nn.Parameter"))
    assert "head" not in text
    assert not said(mlp(), X.clone().requires_grad_(), Y)  # an input is no parameter


def test_weights_that_are_made_anew_in_each_call():
    text = said(lambda x: x @ torch.randn(12, 5, requires_grad=True), X, Y)
    assert "no parameters" in text and "outside" in text and "parameters=" in text
    assert "ln(5)" not in said(lambda x: x, torch.zeros(64, 5), Y)


def test_the_optimizer_holds_none_or_not_all():
    net, old = mlp(), mlp()
    text = said(net, X, Y, optimizer=torch.optim.SGD(old.parameters(), lr=0.1))
    assert "none of the model's parameters" in text and "anew" in text
    text = said(net, X, Y, optimizer=torch.optim.SGD(net[0].parameters(), lr=0.1))
    assert "2.weight, 2.bias" in text and "requires_grad_(False)" in text
    net[2].requires_grad_(False)
    assert "not held" not in said(net, X, Y, optimizer=torch.optim.SGD(net[0].parameters(), lr=0.1))


def test_the_first_loss_the_softmax_and_the_single_class():
    net = mlp()
    with torch.no_grad():
        net[2].weight *= 30
    text = said(net, X, Y)
    assert "ln(5) = 1.61" in text and "last layer" in text
    for how in dict(loss_fn=nn.CrossEntropyLoss()), dict(loss_fn=lambda out, y: 0.5 * F.cross_entropy(out, y)):
        assert "ln(5)" in said(net, X, Y, **how)
    assert "softmax of its own" in said(mlp(nn.Softmax(1)), X, Y)
    assert "softmax" not in said(mlp(nn.LogSoftmax(1)), X, Y, loss_fn=F.nll_loss)
    assert "binary_cross_entropy_with_logits" in said(mlp(outputs=1), X, torch.zeros(64, dtype=torch.int64))
    assert not said(mlp(), X, Y) and not said(mlp(), X, F.one_hot(Y, 5).float())
    assert "binary_cross_entropy_with_logits" in refusal(mlp(outputs=1), X, Y % 2)


def test_eval_mode_where_a_step_is_judged():
    net = nn.Sequential(nn.Dropout(0.1), *mlp()).eval()
    assert "eval mode" in said(net, X, Y, lr=0.01) and "train()" in said(net, X, Y, lr=0.01)
    assert not said(net, X, Y) and not said(net.train(), X, Y, lr=0.01) and not said(mlp().eval(), X, Y, lr=0.01)


# Any output


def test_an_output_that_is_no_tensor_is_answered_by_the_line_to_write():
    text = refusal(GPT(), WORDS, NEXT)
    assert "inputs=(x, targets)" in text and "lambda out: out[1]" in text
    assert "F.cross_entropy(out.logits, y)" in refusal(HuggingFace(), X, Y)
    assert "out.loss" in refusal(HuggingFace(), (X, Y), Y)
    both = module(lambda self, x: (self.a(x), self.a(x)), a=nn.Linear(12, 5))
    assert "F.cross_entropy(out[0], y)" in refusal(both, X, Y)
    square = nn.Embedding(7, 7)  # 7 words in, 7 classes out: which dimension counts the classes?
    assert "out.flatten(0, -2)" in refusal(square, WORDS[:7] % 7, NEXT[:7] % 7)
    assert "is a str" in refusal(mlp(), X, Y, loss_fn=lambda out, y: "1.2")


# Never a false alarm, never a wrong number


def shifted(share):
    """A Linear of 20 units, of which this share is negative for every input, and a ReLU would kill them."""
    layer = nn.Linear(12, 20)
    with torch.no_grad():
        layer.weight[: round(20 * share)] = 0
        layer.bias[: round(20 * share)] = -1
        layer.bias[round(20 * share) :] = 1
    return layer


def lambda_layer(function):
    return module(lambda self, x: function(x))


SEQUENCES = torch.randn(16, 6, 12, generator=torch.Generator().manual_seed(5))
DEAD = {
    "Linear, features last": ([shifted(0.75), nn.ReLU()], 0.75),
    "Linear, a function": ([shifted(0.75), lambda_layer(lambda x: F.relu(x) * 1.0)], 0.75),
    "after BatchNorm1d, channels first": (
        [shifted(0.75), lambda_layer(lambda x: x.permute(0, 2, 1)), nn.BatchNorm1d(20), nn.ReLU()], 0.75),
    "after a permute: unknown": ([shifted(0.75), lambda_layer(lambda x: x.permute(0, 2, 1)), nn.ReLU()], None),
    "after InstanceNorm1d": ([shifted(0.5), lambda_layer(lambda x: x.mT), nn.InstanceNorm1d(20), nn.ReLU()], 0.5),
    "after LayerNorm": ([nn.LayerNorm(12), nn.ReLU()], 0.0),
    "after dropout": ([shifted(0.75), nn.Dropout(0.1), nn.ReLU6()], 0.75),
    "Conv1d": ([lambda_layer(lambda x: x.mT), nn.Conv1d(12, 8, 1), nn.ReLU()], 0.0),
    "Linear, flattened": ([shifted(0.75), nn.Flatten(), nn.ReLU()], None),
}  # fmt: skip


@pytest.mark.parametrize("name", DEAD)
def test_dead_is_known_only_where_the_units_are(name):
    layers, share = DEAD[name]
    rows = diagnose(nn.Sequential(*layers), SEQUENCES, loss_fn=None).activations
    (row,) = [row for row in rows if row.is_activation or row.dead is not None]
    assert row.dead == share


def test_dead_in_images_channels_first_and_last():
    conv = nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        conv.bias[:3] = -100
    assert diagnose(nn.Sequential(conv, nn.ReLU()), IMAGES, loss_fn=None).activations[1].dead == 0.75
    last = nn.Sequential(conv, lambda_layer(lambda x: x.permute(0, 2, 3, 1)), nn.ReLU())
    assert diagnose(last, IMAGES, loss_fn=None).activations[2].dead is None
    patches = nn.Sequential(conv, nn.Flatten(2), lambda_layer(lambda x: x.mT), nn.ReLU())
    assert diagnose(patches, IMAGES, loss_fn=None).activations[3].dead is None


def bert(layers):
    torch.manual_seed(0)
    body = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, activation="gelu"), layers
    )
    return nn.Sequential(nn.Embedding(11, 16), body, nn.Linear(16, 11))


@pytest.mark.parametrize("blocks", [2, 4])
def test_healthy_transformers_are_not_accused(blocks):
    torch.manual_seed(0)
    gpt = GPT(blocks)
    adam = torch.optim.AdamW(gpt.parameters(), lr=1e-3)
    for step in range(60):
        if step % 20 == 0:
            assert not said(gpt, (WORDS, NEXT), loss_fn=lambda out: out[1], optimizer=adam, histograms=False)
        adam.zero_grad()
        gpt(WORDS, NEXT)[1].backward()
        adam.step()
    assert not said(bert(blocks), WORDS, NEXT) and not said(
        GPT(blocks, tied=True), (WORDS, NEXT), loss_fn=lambda out: out[1]
    )
    assert not said(conv_net(), IMAGES, Y)


def test_the_same_role_is_still_compared():
    f, _ = plain_function(scale=3)
    assert "saturated" in said(f, X, Y) and "tanh:" in said(f, X, Y)
    weights = [parameter(12, 12, scale=0.1, seed=i) for i in range(8)]

    def deep(x):
        for W in weights:
            x = torch.tanh(x @ W)
        return x

    assert "shrink with depth" in said(deep, X, loss_fn=lambda out: out.exp().mean())
    deep_gpt = module(lambda self, x: self.z(self.a3(torch.tanh(self.a2(torch.tanh(self.a1(torch.tanh(self.a0(x)))))))),
                      z=nn.Linear(9, 5), **{f"a{i}": nn.Linear(12 if i == 0 else 9, 9) for i in range(4)})  # fmt: skip
    with torch.no_grad():
        for p in deep_gpt.parameters():
            p *= 0.3
    assert "vanish" in said(deep_gpt, X, Y)


class Stack(nn.Module):
    """Five blocks, or layers, under names as people give them; each makes its input three times smaller or not."""

    def __init__(self, scheme, scale, depth=5):
        super().__init__()
        self.order = []
        for i in range(depth):
            for part in scheme.split():
                *path, name = part.format(i=i, j=2 * i, k=2 * i + 1, n=i + 1, s=i // 2 + 1, r=i % 2).split(".")
                module = self
                for piece in path:
                    if not hasattr(module, piece):
                        module.add_module(piece, nn.Module())
                    module = getattr(module, piece)
                layer = nn.Tanh() if "act" in part or part.endswith("{k}") else nn.Linear(12, 12)
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=scale / 12**0.5)
                module.add_module(name, layer)
                self.order.append(layer)

    def forward(self, x):
        for layer in self.order:
            x = layer(x)
        return 2 * x


SCHEMES = {
    "one Sequential": "{j} {k}",
    "named by number": "fc{n} act{n}",
    "Sequential in blocks": "blocks.{i}.mlp.0 blocks.{i}.mlp.act",
    "residual stages": "layer{s}.{r}.conv1 layer{s}.{r}.act",
    "GPT-2": "transformer.h.{i}.mlp.c_fc transformer.h.{i}.mlp.act",
    "no nonlinearity": "blocks.{i}.attn.0 blocks.{i}.mlp.0",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_of_one_role_are_found_under_many_names(scheme):
    torch.manual_seed(0)
    sick, well = (Stack(SCHEMES[scheme], scale) for scale in (0.3, 1.2 if "no" not in scheme else 1))
    assert "gradients vanish" in said(sick, X, Y % 12)
    text = "blocks.0.attn.0 and blocks.0.mlp.0: two linear layers with nothing between them can do no more than one"
    assert said(well, X, Y % 12) == (f"{text}; was a nonlinearity meant there?" if "no" in scheme else "")


def pre_norm(inner, blocks=2):
    """Pre-norm blocks; inner makes what each adds."""
    torch.manual_seed(0)
    parts = [module(lambda self, x: x + self.mlp(self.ln(x)), ln=nn.LayerNorm(16), mlp=inner()) for _ in range(blocks)]
    return nn.Sequential(nn.Embedding(11, 16), *parts, nn.LayerNorm(16), nn.Linear(16, 11))


def test_the_layers_of_one_block_are_not_compared_with_each_other():
    def mlp():
        inner = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        nn.init.normal_(inner[2].weight, std=0.002)  # a residual branch may begin small
        return inner

    assert not said(pre_norm(mlp), WORDS, NEXT)
    gated = module(lambda self, x: self.w2(F.silu(self.w1(x)) * self.w3(x)), w1=nn.Linear(16, 48), w3=nn.Linear(16, 48),
                   w2=nn.Linear(48, 16))  # fmt: skip
    assert not said(pre_norm(lambda: gated, 1), WORDS, NEXT)


def convolutions():
    layers = [
        layer for a, b in ((3, 16), (16, 32), (32, 32)) for layer in (nn.Conv2d(a, b, 3), nn.BatchNorm2d(b), nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)), IMAGES, Y


def letters(cell):
    body = module(lambda self, x: self.cell(x)[0], cell=cell(16, 32, batch_first=True))
    return nn.Sequential(nn.Embedding(11, 16), body, nn.Linear(32, 11)), WORDS, NEXT


def encoder(norm_first):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
    body = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    return nn.Sequential(nn.Embedding(11, 16), body, nn.Linear(16, 11)), WORDS, NEXT


def critic():
    layers = [layer for n in (12, 32, 32) for layer in (nn.Linear(n, 32), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers, nn.Linear(32, 2)), X, Y % 2


PEOPLES = {
    "RNN": lambda: letters(nn.RNN),
    "LSTM": lambda: letters(nn.LSTM),
    "BatchNorm": convolutions,
    "pre-norm": lambda: encoder(True),
    "post-norm": lambda: encoder(False),
    "critic": critic,
}


@pytest.mark.parametrize("name", PEOPLES)
def test_networks_as_people_write_them_are_healthy_and_a_sickness_is_named(name):
    torch.manual_seed(0)
    net, x, y = PEOPLES[name]()
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(20):
        assert step % 10 or not said(net, x, y, optimizer=adam, histograms=False)
        adam.zero_grad()
        out = net(x)
        F.cross_entropy(out.flatten(0, -2), y.flatten()).backward()
        adam.step()
    assert "ln(" in said(nn.Sequential(net, lambda_layer(lambda x: 100 * x)), x, (y + 1) % out.shape[-1])
    assert "softmax" in said(nn.Sequential(net, nn.Softmax(-1)), x, y)
    assert "too high" in said(net, x, y, optimizer=torch.optim.Adam(net.parameters(), lr=1))


class BasicBlock(nn.Module):
    """ResNet's, as torchvision writes it."""

    def __init__(self, fan_in, fan_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(fan_out), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.bn2, self.downsample = nn.BatchNorm2d(fan_out), None
        if stride > 1:
            down = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(down, nn.BatchNorm2d(fan_out))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


def resnet():
    stem = [nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    blocks = [BasicBlock(8, 8, 1), BasicBlock(8, 16, 2), BasicBlock(16, 16, 1), BasicBlock(16, 32, 2)]
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return net, IMAGES + Y[:, None, None, None] / 2, Y


# A network, momentum, rates at which it learns, one that breaks it.
RATES = {
    "RNN": (lambda: letters(nn.RNN), 0, (0.1, 0.15), 10),
    "GRU": (lambda: letters(nn.GRU), 0, (0.1, 0.3), 30),
    "BatchNorm": (convolutions, 0, (0.05, 0.3), 100),
    "ResNet": (resnet, 0.9, (0.02, 0.1), 50),
}


@pytest.mark.parametrize("name", RATES)
def test_rates_at_which_small_and_normalised_weights_learn_are_not_too_high(name):
    make, momentum, healthy, broken = RATES[name]
    for lr in healthy:
        torch.manual_seed(0)
        net, x, y = make()
        sgd = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
        losses = []
        for step in range(13):
            assert step % 4 or not said(net, x, y, optimizer=sgd, histograms=False)
            sgd.zero_grad()
            loss = F.cross_entropy(net(x).flatten(0, -2), y.flatten())
            loss.backward()
            sgd.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
    torch.manual_seed(0)
    net, x, y = make()
    assert "rate is probably too high" in said(net, x, y, optimizer=torch.optim.SGD(net.parameters(), lr=broken))


def test_gates_and_outputs_may_be_saturated_and_hidden_layers_not():
    def swish(x):
        return x * torch.sigmoid(x)

    big = [nn.Linear(12, 16), lambda_layer(lambda x: 40 * x)]
    for gate in swish, lambda x: 0.5 * x * (1 + torch.tanh(x)), lambda x: torch.sigmoid(x) * torch.tanh(x / 100):
        assert "saturated" not in said(nn.Sequential(*big, lambda_layer(gate), nn.Linear(16, 5)), X, loss_fn=None)
        assert "saturated" not in said(lambda x, gate=gate: gate(40 * x @ PLAIN), X, loss_fn=None)
    squeeze = module(lambda self, x: self.out(self.a(x) * self.gate(40 * self.a(x))[:, None].squeeze(1)), a=nn.Linear(12, 16),
                     gate=nn.Sigmoid(), out=nn.Linear(16, 5))  # fmt: skip
    assert "saturated" not in said(squeeze, X, Y)
    assert "saturated" not in said(nn.Sequential(*big, nn.Sigmoid()), X, loss_fn=None)
    assert "saturated" in said(nn.Sequential(*big, nn.Sigmoid(), nn.Linear(16, 5)), X, loss_fn=None)


PLAIN = parameter(12, 12)


def test_adam_is_judged_by_its_own_measure():
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    words, letters = torch.randint(0, 27, (64, 3), generator=g), torch.randint(0, 27, (64,), generator=g)
    for lr, message in (1e-3, None), (1e-2, None), (1.0, "too high"), (1e-7, "too low"):
        net = deep_mlp(generator=torch.Generator().manual_seed(1))
        adam = torch.optim.Adam(net.parameters(), lr=lr)
        result = diagnose(net, words, letters, optimizer=adam)
        row = result.parameters[3]
        assert row.adam_to_data == pytest.approx(0.25 * lr / row.std)
        assert row.update_to_data == pytest.approx(lr / row.std, rel=0.05)  # its first step is lr * sign
        assert [w for w in result.warnings if "Adam" in w] == ([] if message is None else result.warnings[:1])
        assert message is None or message in result.warnings[0]
    net = deep_mlp(generator=torch.Generator().manual_seed(1))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, eps=10)
    assert "eps" in said(net, words, letters, optimizer=adam)
    assert diagnose(net, words, letters, lr=0.1).parameters[3].adam_to_data is None


def test_small_weights_may_grow_under_adam_as_far_as_fan_in_allows():
    def small(std):
        net = GPT(tied=True)
        for p in net.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=std)
        return net

    for std, lr, high in (0.02, 1e-2, False), (0.02, 1e-1, True), (0.25, 1e-2, False), (0.25, 1e-1, True):
        net = small(std)
        text = said(
            net, (WORDS, NEXT), loss_fn=lambda out: out[1], optimizer=torch.optim.AdamW(net.parameters(), lr=lr)
        )
        assert ("too high" in text) == high, (std, lr, text)


def test_a_bound_is_judged_as_it_is_printed_and_the_cause_contradicts_nothing():
    net = mlp()
    with torch.no_grad():
        for p in net.parameters():
            p *= 2  # at 1 / sqrt(fan_in) or above: nothing to grow into
    ratio = sorted(p.update_to_data for p in diagnose(net, X, Y, lr=1).parameters if len(p.shape) > 1)
    for factor, high in (1.04, False), (1.06, True):  # 1.0e-01 and 1.1e-01; of two weights up to 1e-1 is usual
        result = diagnose(net, X, Y, lr=0.1 * factor / (sum(ratio) / 2))
        assert ("too high" in "".join(replace(result, rises=True).warnings)) == high
    with torch.no_grad():
        sick = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(12, 12), nn.Tanh())))
        for p in sick.parameters():
            p *= 0.2
    text = said(sick, X, Y, lr=0.1)
    assert "gain is probably too low" in text and "rate is probably too low" in text and "too large" not in text


def test_one_is_it_and_two_are_them():
    net = mlp()
    optimizers = (
        torch.optim.SGD(net[0].parameters(), lr=0.1),
        torch.optim.SGD([*net[0].parameters(), net[2].bias], lr=0.1),
    )
    for optimizer, words in zip(optimizers, ("freeze them", "freeze it"), strict=True):
        assert words in said(net, X, Y, optimizer=optimizer)
    net.extra, net.more = parameter(2, 2), parameter(2, 2)
    assert "extra, more: no gradient" in said(net, X, Y) and "they will not learn" in said(net, X, Y)


def test_other_optimizers_have_a_measure_of_their_own():
    net = mlp(nn.ReLU(), nn.Linear(5, 5))  # of three weights the median is judged; RMSprop's first step is ten times lr
    for kind in torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Rprop, torch.optim.RAdam, torch.optim.Adadelta:
        result = diagnose(net, X, Y, optimizer=kind(net.parameters()))
        assert result.parameters[0].update_to_data > 0 and not result.warnings


@pytest.mark.filterwarnings("error:Casting complex values")
def test_complex_entries_are_measured_whole():
    net = module(
        lambda self, x: x.to(torch.complex64) @ self.W, W=nn.Parameter(torch.randn(12, 5, dtype=torch.complex64))
    )
    result = diagnose(net, X, loss_fn=lambda out: out.abs().square().mean())
    W = torch.view_as_real(net.W.detach())
    assert result.parameters[0].std == pytest.approx(W.double().std().item())
    assert result.activations[0].std > 0 and result.gradients[0].std > 0


# Refused by name


class SAM(torch.optim.Optimizer):
    """As it is found on the web: two steps, which need the loss again."""

    def __init__(self, params, base, **kwargs):
        super().__init__(params, dict(rho=0.05, **kwargs))
        self.base_optimizer = base(self.param_groups, **kwargs)
        self.param_groups = self.base_optimizer.param_groups

    def step(self, closure=None):
        assert closure is not None, "SAM requires closure"


class Lookahead(torch.optim.SGD):
    """An optimizer with an attribute that a deepcopy loses."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        self.scale = 3

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.data.sub_(self.scale * self.param_groups[0]["lr"] * p.grad)


def test_optimizers_that_a_copy_cannot_be_tried_of():
    net = mlp()
    before = copy.deepcopy(net.state_dict())
    for optimizer in torch.optim.LBFGS(net.parameters()), SAM(net.parameters(), torch.optim.SGD, lr=0.1):
        text = refusal(net, X, Y, optimizer=optimizer)
        assert type(optimizer).__name__ in text and "give lr=" in text
    rows = diagnose(net, X, Y, optimizer=Lookahead(net.parameters(), 0.1)).parameters
    assert rows[0].update_std == pytest.approx(0.3 * rows[0].grad_std, rel=1e-4)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.jit.trace(mlp(), X), "ScriptModule Module TopLevelTracedModule Python"),
        (lambda: nn.Sequential(torch.jit.script(nn.Linear(12, 5))), "Script Python"),
        (lambda: nn.DataParallel(mlp()), "DataParallel model.module"),
        (lambda: nn.Sequential(nn.LazyLinear(5)), "LazyLinear once"),
        (lambda: lambda x: torch.vmap(mlp())(x), "vmap"),
        (lambda: module(lambda self, x: self.b(checkpoint(self.a, x, use_reentrant=True)), a=nn.Linear(12, 9), b=nn.Linear(9, 5)),
         "checkpoint use_reentrant=False"),
        (lambda: 3, "int function"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(make, words):
    text = refusal(make(), X.clone().requires_grad_(), Y)
    assert any(word in text for word in words.split()[:-1] or words.split()) and words.split()[-1] in text


def test_parameters_that_are_none_and_jagged_tensors():
    f, _ = plain_function()
    for wrong in torch.ones(3), [torch.ones(3), 4]:
        assert "parameters" in refusal(f, X, Y, parameters=wrong)
    ragged = torch.nested.nested_tensor([torch.randn(3, 12), torch.randn(5, 12)], layout=torch.jagged)
    assert "pad" in refusal(nn.Linear(12, 5), ragged, loss_fn=None)


@pytest.mark.slow
def test_a_compiled_network_is_read_as_the_original():
    net = conv_net().eval()
    expected = diagnose(net, IMAGES, Y)
    compiled = torch.compile(net, backend="eager")
    for model in compiled, nn.Sequential(compiled):
        result = diagnose(model, IMAGES, Y)
        assert result.loss == expected.loss and len(result.activations) == len(expected.activations)
        assert not any("_orig_mod" in row.name for row in [*result.activations, *result.parameters])
    f, _ = plain_function()
    rows = diagnose(torch.compile(f, backend="eager"), X, Y).activations
    assert [row.std for row in rows] == [row.std for row in diagnose(f, X, Y).activations]
    net.compile(backend="eager")
    assert diagnose(net, IMAGES, Y).loss == expected.loss


def test_the_plain_lecture_is_read_like_its_modules():
    model = lecture_mlp("tanh", generator=torch.Generator().manual_seed(1))
    C, W1, b1, W2, b2 = (p.detach().clone().requires_grad_() for p in model.parameters())

    def forward(x):
        h = torch.tanh(C[x].view(len(x), -1) @ W1 + b1)
        return h @ W2 + b2

    words = torch.randint(0, 27, (32, 3), generator=torch.Generator().manual_seed(1))
    letters = words[:, 0]
    plain, modules = diagnose(forward, words, letters, lr=0.1), diagnose(model, words, letters, lr=0.1)
    assert plain.loss == pytest.approx(modules.loss) and [p.name for p in plain.parameters] == [
        "C",
        "W1",
        "b1",
        "W2",
        "b2",
    ]
    for a, b in zip(plain.parameters, modules.parameters, strict=True):
        assert a.std == pytest.approx(b.std) and a.grad_std == pytest.approx(b.grad_std, rel=1e-5)
        assert a.update_to_data == (b.update_to_data and pytest.approx(b.update_to_data, rel=1e-5))
    tanh = next(row for row in plain.activations if row.type is nn.Tanh)
    assert tanh.saturated == next(row for row in modules.activations if row.name == "tanh").saturated
    assert plain.parameters[0].type is nn.Embedding and not plain.warnings and math.isfinite(plain.loss)


# The room by itself


@pytest.mark.slow
def test_the_room_is_copied_into_another_project(tmp_path):
    """It imports torch, matplotlib, NumPy and Python's own; a project that has a helpers package too takes it along."""
    room = Path(helpers.diagnostics.__file__).parent
    allowed = sys.stdlib_module_names | {"torch", "matplotlib", "numpy"}
    for file in room.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            strange = {name.partition(".")[0] for name in names} - allowed
            assert not strange or (file.name, strange) == ("live.py", {"IPython"})
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("mine = True\n", encoding="utf-8")
    for name in "looking_glass", "helpers/looks":
        shutil.copytree(room, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        code = (
            f"import torch, helpers; from {name.replace('/', '.')} import diagnose, watch; assert helpers.mine\n"
            "net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))\n"
            "fig = diagnose(net, torch.randn(8, 4), torch.arange(8) % 3, lr=0.1).plot(); print(len(fig.axes))"
        )
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"MPLBACKEND": "Agg"}
        run = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"]
        done = subprocess.run(run, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        assert done.stdout == "4\n", done.stderr


@pytest.mark.parametrize("layers", [5, 40])
def test_the_four_pictures_of_any_network(layers):
    weights = [parameter(12, 12, scale=0.4, seed=i) for i in range(layers)]

    def forward(x):
        for W in weights:
            x = torch.tanh(x @ W)
        return x

    for histograms in True, False:
        result = diagnose(forward, X, Y, lr=0.1, histograms=histograms)
        fig = result.plot()
        drawn = [ax for ax in fig.axes if ax.get_subplotspec() is not None and ax.get_ylabel()]
        assert len(drawn) == 4 and drawn[3].get_yscale() == "log"
        assert len(drawn[3].collections[0].get_offsets()) == layers and len(drawn[3].get_xticks()) <= 12
        for ax in drawn[:3] if histograms else ():
            assert len(ax.lines) == layers and (ax.get_legend() is None) == (layers > 12)
        plt.close(fig)
    fig = diagnose(forward, X, loss_fn=None).plot()
    assert "targets" in fig.axes[1].texts[0].get_text() and "lr=" in fig.axes[3].texts[0].get_text()
    plt.close(fig)
