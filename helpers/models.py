"""The lecture's networks, drawn from their seed in the lecture's own order: C first."""

from collections import OrderedDict
from math import sqrt

import torch

from helpers.layers import BatchNorm1d, Embedding, Flatten, Linear, Sequential, Tanh

__all__ = ["SEED", "STAGES", "lecture_mlp"]

SEED = 2147483647  # the lecture's, for the networks of both its parts
STAGES = ("original", "softmax", "tanh", "kaiming", "batchnorm")  # each on top of the one before

VOCAB_SIZE, BLOCK_SIZE, N_EMBD, N_HIDDEN = 27, 3, 10, 200
FAN_IN = BLOCK_SIZE * N_EMBD


def lecture_mlp(stage, *, generator=None, num_models=None):
    """Part 1's network, 3 characters -> 30 numbers -> 200 tanh units -> 27 logits, at one of its five stages.

    stage: "original" (everything randn), "softmax" (then W2 * 0.01, b2 * 0), "tanh" (then W1 * 0.2,
    b1 * 0.01), "kaiming" (then W1 * (5/3) / sqrt(30) instead) or "batchnorm" (then no b1, but a BatchNorm1d
    with correction=1, momentum=0.001 and no eps).
    generator: C, W1, b1, W2, b2 are drawn from it in this order; ``torch.Generator().manual_seed(SEED)`` gives
    the lecture's network, None draws from torch's global generator. A stack (``num_models=R``) draws its
    networks one after the other from one generator; with a list of R generators each equals its solo twin.

    Returns a Sequential of the layers embedding, flatten, hidden, (batch_norm,) tanh, output: characters
    ([R,] N, 3) in, logits ([R,] N, 27) out; 11,897 parameters a network, 12,097 with BatchNorm.
    Raises ValueError for an unknown stage. Source: the lecture, 1:22 to 1:03:07.
    """
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES)}")
    networks = [_draw(stage, g) for g in _generators(generator, num_models)]
    C, W1, b1, W2, b2 = (t[0] if num_models is None else torch.stack(t) for t in zip(*networks, strict=True))

    batch_norm = stage == "batchnorm"
    # The layers' own draws are replaced below: let them not disturb the global generator.
    unused = {"num_models": num_models, "generator": torch.Generator()}
    layers = OrderedDict(embedding=Embedding(VOCAB_SIZE, N_EMBD, **unused), flatten=Flatten())
    layers["hidden"] = Linear(FAN_IN, N_HIDDEN, bias=not batch_norm, **unused)
    if batch_norm:
        layers["batch_norm"] = BatchNorm1d(N_HIDDEN, 0.0, 0.001, correction=1, num_models=num_models)
    layers["tanh"] = Tanh()
    layers["output"] = Linear(N_HIDDEN, VOCAB_SIZE, **unused)
    model = Sequential(layers)
    with torch.no_grad():
        model.embedding.weight.copy_(C)
        model.hidden.weight.copy_(W1)
        if not batch_norm:
            model.hidden.bias.copy_(b1)
        model.output.weight.copy_(W2)
        model.output.bias.copy_(b2)
    return model


def _draw(stage, generator):
    """C, W1, b1, W2, b2 of one network, drawn and scaled as the lecture does it, operation by operation."""
    level = STAGES.index(stage)
    C = torch.randn((VOCAB_SIZE, N_EMBD), generator=generator)
    W1 = torch.randn((FAN_IN, N_HIDDEN), generator=generator)
    # With BatchNorm there is no b1, and no draw for it: W2 then comes out different from the other stages'.
    b1 = torch.zeros(N_HIDDEN) if stage == "batchnorm" else torch.randn(N_HIDDEN, generator=generator)
    W2 = torch.randn((N_HIDDEN, VOCAB_SIZE), generator=generator)
    b2 = torch.randn(VOCAB_SIZE, generator=generator)
    if level >= STAGES.index("softmax"):
        W2, b2 = W2 * 0.01, b2 * 0
    if level >= STAGES.index("tanh"):
        b1 = b1 * 0.01
    if stage == "tanh":
        W1 = W1 * 0.2
    if level >= STAGES.index("kaiming"):
        W1 = W1 * (5 / 3) / sqrt(FAN_IN)
    return C, W1, b1, W2, b2


def _generators(generator, num_models):
    """One generator a network: the same one again and again, or those of a list."""
    networks = 1 if num_models is None else num_models
    if not isinstance(generator, (list, tuple)):
        return [generator] * networks
    if len(generator) != networks:
        raise ValueError(f"{len(generator)} generators for {networks} networks: give one, or one a network")
    return list(generator)
