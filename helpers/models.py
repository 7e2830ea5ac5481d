"""The lecture's networks, drawn from their seed in the lecture's own order: C first."""

import copy
from collections import OrderedDict
from functools import partial
from itertools import pairwise
from math import sqrt

import torch
from torch import nn

from helpers.layers import BatchNorm1d, Embedding, Flatten, Linear, Residual, Sequential, Tanh, stack_shape

SEED = 2147483647  # the lecture's, for the networks of both its parts
STAGES = ("original", "softmax", "tanh", "kaiming", "batchnorm")  # each on top of the one before

NONLINEARITIES = dict(tanh=Tanh, relu=nn.ReLU, leaky_relu=nn.LeakyReLU, elu=nn.ELU, gelu=nn.GELU, sigmoid=nn.Sigmoid)
NONLINEARITIES["linear"] = None  # no layer at all

VOCAB_SIZE, BLOCK_SIZE, N_EMBD, N_HIDDEN = 27, 3, 10, 200
FAN_IN = BLOCK_SIZE * N_EMBD


def seeded(seed=SEED):
    """A generator of its own for every seed: ``lecture_mlp(stage, generator=seeded())`` is the lecture's network."""
    return torch.Generator().manual_seed(seed)


def lecture_mlp(stage, *, generator=None, num_models=None):
    """Part 1's network, 3 characters -> 30 numbers -> 200 tanh units -> 27 logits, at one of its five stages.

    stage: "original" (everything randn), "softmax" (then W2 * 0.01, b2 * 0), "tanh" (then W1 * 0.2, b1 * 0.01),
    "kaiming" (then W1 * (5/3) / sqrt(30) instead) or "batchnorm" (then no b1, but a BatchNorm1d as in the lecture).
    generator: C, W1, b1, W2, b2 are drawn from it in this order; None means torch's global one. A stack
    (``num_models=R``) draws its networks one after the other. With a list of R generators each network of the stack
    equals the one that its generator draws alone.
    Returns a Sequential of the layers embedding, flatten, hidden, (batch_norm,) tanh, output: characters ([R,] N, 3)
    in, logits ([R,] N, 27) out; 11,897 parameters per network, 12,097 with BatchNorm.
    Raises ValueError for an unknown stage. Source: the lecture, 1:22 to 1:03:07.
    """
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES)}")

    def network(_, generator):
        C, W1, b1, W2, b2 = _draw(stage, generator)
        unused = torch.Generator()  # for the layers' own draws, which the lecture's replace below
        layers = _first_layers(unused) | {"hidden": Linear(FAN_IN, N_HIDDEN, bias=b1 is not None, generator=unused)}
        if stage == "batchnorm":
            layers["batch_norm"] = BatchNorm1d(N_HIDDEN, 0.0, 0.001, correction=1)
        model = Sequential(layers | {"tanh": Tanh(), "output": Linear(N_HIDDEN, VOCAB_SIZE, generator=unused)})
        drawn = {"embedding.weight": C, "hidden.weight": W1, "hidden.bias": b1, "output.weight": W2, "output.bias": b2}
        model.load_state_dict({name: tensor for name, tensor in drawn.items() if tensor is not None}, strict=False)
        return model

    return _alone_or_stacked(network, generator, num_models)


def _first_layers(generator):
    return OrderedDict(embedding=Embedding(VOCAB_SIZE, N_EMBD, generator=generator), flatten=Flatten())


def _draw(stage, generator):
    """C, W1, b1, W2, b2 of one network, drawn and scaled as the lecture does it, operation by operation."""
    C = torch.randn((VOCAB_SIZE, N_EMBD), generator=generator)
    W1 = torch.randn((FAN_IN, N_HIDDEN), generator=generator)
    # With BatchNorm there is no b1, and no draw for it: W2 then comes out different from the other stages'.
    b1 = None if stage == "batchnorm" else torch.randn(N_HIDDEN, generator=generator)
    W2 = torch.randn((N_HIDDEN, VOCAB_SIZE), generator=generator)
    b2 = torch.randn(VOCAB_SIZE, generator=generator)
    if stage != "original":
        W2, b2 = W2 * 0.01, b2 * 0
    if stage in ("tanh", "kaiming"):
        b1 = b1 * 0.01
    if stage == "tanh":
        W1 = W1 * 0.2
    if stage in ("kaiming", "batchnorm"):
        W1 = W1 * (5 / 3) / sqrt(FAN_IN)
    return C, W1, b1, W2, b2


def deep_mlp(
    *,
    depth=6,
    n_hidden=100,
    gain=5 / 3,
    batch_norm=False,
    correction=1,
    nonlinearity="tanh",
    generator=None,
    num_models=None,
):
    """Part 2's network: 3 characters -> 30 numbers -> depth - 1 hidden layers of n_hidden units -> 27 logits.

    depth counts the Linears, with the output one. gain: every weight is ``randn / sqrt(fan_in) * gain``; that of the
    output Linear has 0.1 in place of the gain. batch_norm: no biases, and a BatchNorm1d (momentum 0.1, ``correction``)
    after every Linear. Then the output Linear has the gain, and the last gamma is 0.1. nonlinearity: one of
    NONLINEARITIES. generator, num_models: as in lecture_mlp; C is drawn first, then the weight of each Linear; biases
    are zero. A stack may have one gain for each network: a tensor (num_models,).
    Returns a Sequential of the layers embedding, flatten, linear1, (batch_norm1,) tanh1, linear2, ... linear6
    (, batch_norm6), with the shapes of lecture_mlp. The lecture's has 46,497 parameters, 47,024 with BatchNorm.
    Raises ValueError for an argument that makes no network. Source: the lecture, 1:18:35 to 1:51:34.
    """
    _check(depth, n_hidden, nonlinearity)

    @torch.no_grad()
    def network(gain, generator):
        layers, sizes = _first_layers(generator), [FAN_IN, *[n_hidden] * (depth - 1), VOCAB_SIZE]
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
            linear = layers[f"linear{i}"] = Linear(fan_in, fan_out, bias=not batch_norm, generator=generator)
            if batch_norm:
                norm = layers[f"batch_norm{i}"] = BatchNorm1d(fan_out, momentum=0.1, correction=correction)
            if i < depth or batch_norm:
                linear.weight *= gain
            if i < depth and NONLINEARITIES[nonlinearity]:
                layers[f"{nonlinearity}{i}"] = NONLINEARITIES[nonlinearity]()
        last = norm.gamma if batch_norm else linear.weight
        last *= 0.1  # make the logits less confident
        return Sequential(layers)

    return _alone_or_stacked(network, generator, num_models, gain)


def residual_mlp(
    *,
    depth=20,
    n_hidden=100,
    gain=5 / 3,
    scale=1,
    norm=None,
    last=None,
    nonlinearity="tanh",
    generator=None,
    num_models=None,
):
    """deep_mlp with depth - 2 residual blocks in place of its inner layers: ``h = h + scale * tanh(linear(h))``.

    depth, n_hidden, gain, nonlinearity, generator, num_models: as in deep_mlp; with last=None its weights are the same.
    scale: what every branch is multiplied by; 1 / sqrt(depth - 2) keeps the stream's size. norm: a LayerNorm without
    gain and bias, "before" every branch and the output Linear, or "after" every sum. last: the gain of a second Linear
    at the end of every branch; 0 makes every block the identity at the start.
    Returns a Sequential of the layers embedding, flatten, linear1, tanh1, block1, (norm1,) ... (norm,) output, with
    the shapes of lecture_mlp. Raises ValueError for an argument that makes no network.
    Source: He et al. 2015, "Deep Residual Learning for Image Recognition".
    """
    if norm not in (None, "before", "after"):
        raise ValueError(f'norm is {norm!r}: choose "before", "after" or None')
    _check(depth, n_hidden, nonlinearity, least=2)
    activation, normalize = NONLINEARITIES[nonlinearity], partial(nn.LayerNorm, n_hidden, elementwise_affine=False)

    def network(gain, generator):
        linear, layers = partial(Linear, generator=generator), _first_layers(generator)
        layers["linear1"] = linear(FAN_IN, n_hidden, gain=gain)
        if activation:
            layers[f"{nonlinearity}1"] = activation()
        for i in range(1, depth - 1):
            branch = [normalize()] if norm == "before" else []
            branch += [linear(n_hidden, n_hidden, gain=gain)]
            branch += [activation()] if activation else []
            branch += [] if last is None else [linear(n_hidden, n_hidden, gain=last)]
            layers[f"block{i}"] = Residual(*branch, scale=scale)
            if norm == "after":
                layers[f"norm{i}"] = normalize()
        if norm == "before":
            layers["norm"] = normalize()
        return Sequential(layers | {"output": linear(n_hidden, VOCAB_SIZE, gain=0.1)})

    return _alone_or_stacked(network, generator, num_models, gain)


def alone(stack, r):
    """Network r of a stack, by itself: a copy of its parameters and buffers, in the same layers with the same modes.

    Raises IndexError where the stack has no network r, and ValueError for a single network.
    """
    if not any(isinstance(layer, (Embedding, Linear)) and layer.weight.dim() == 3 for layer in stack.modules()):
        raise ValueError("this network is no stack: alone takes one that was made with num_models")
    return _with_tensors(stack, lambda tensor: tensor[r].clone())


def _check(depth, n_hidden, nonlinearity, least=1):
    if depth < least or n_hidden < 1:
        raise ValueError(f"n_hidden is {n_hidden}, depth is {depth}: give {least} layers or more, of 1 unit or more")
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(f"unknown nonlinearity {nonlinearity!r}: choose one of {', '.join(NONLINEARITIES)}")


def _alone_or_stacked(network, generator, num_models, gain=1.0):
    """One network(gain, generator); or a stack of num_models of them: dimension 0 of every parameter counts them."""
    count = 1 if num_models is None else stack_shape(num_models)[0]
    gains = torch.as_tensor(gain)
    generators = generator if isinstance(generator, (list, tuple)) else [generator] * count
    if len(generators) != count or gains.shape not in ((), (count,)):
        got = f"{len(generators)} generators, and gain has shape {tuple(gains.shape)}, for {count} network(s)"
        raise ValueError(f"{got}: give one, or one for each network")
    networks = [network(*pair) for pair in zip(gains.expand(count), generators, strict=True)]
    if num_models is None:
        return networks[0]
    return _with_tensors(networks[0], lambda *twins: torch.stack(twins), networks[1:])


@torch.no_grad()
def _with_tensors(model, made, others=()):
    """A copy of the model. Each of its parameters and buffers is made(its own, those of the others in its place)."""
    copied = copy.deepcopy(model)
    for old, *tensors in zip(*map(_tensors_of, (copied, model, *others)), strict=True):
        old.data = made(*tensors)
    return copied


def _tensors_of(model):
    return [*model.parameters(), *model.buffers()]
