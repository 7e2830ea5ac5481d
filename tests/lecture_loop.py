"""The lecture's own training loop, written plainly: what the helpers are compared with."""

from itertools import pairwise

import torch
import torch.nn.functional as F

from benchmark import BatchNorm1d, Linear, Tanh  # the lecture's classes, as its cells have them


def lecture_loop(stage, X, Y, steps, lr=0.1):
    """Train part 1's network as the lecture's cells do; returns (losses, parameters by the lecture's names)."""
    n_embd, n_hidden, block_size, vocab_size = 10, 200, 3, 27
    g = torch.Generator().manual_seed(2147483647)
    C = torch.randn((vocab_size, n_embd), generator=g)
    W1 = torch.randn((n_embd * block_size, n_hidden), generator=g)
    if stage in ("kaiming", "batchnorm"):
        W1 = W1 * (5 / 3) / ((n_embd * block_size) ** 0.5)
    if stage == "tanh":
        W1 = W1 * 0.2
    if stage != "batchnorm":
        b1 = torch.randn(n_hidden, generator=g)
        if stage in ("tanh", "kaiming"):
            b1 = b1 * 0.01
    W2 = torch.randn((n_hidden, vocab_size), generator=g)
    b2 = torch.randn(vocab_size, generator=g)
    if stage != "original":
        W2, b2 = W2 * 0.01, b2 * 0

    parameters = {"C": C, "W1": W1, "W2": W2, "b2": b2}
    if stage == "batchnorm":
        bngain, bnbias = torch.ones((1, n_hidden)), torch.zeros((1, n_hidden))
        bnmean_running, bnstd_running = torch.zeros((1, n_hidden)), torch.ones((1, n_hidden))
        parameters |= {"bngain": bngain, "bnbias": bnbias}
    else:
        parameters["b1"] = b1
    for p in parameters.values():
        p.requires_grad = True

    losses = []
    for _ in range(steps):
        ix = torch.randint(0, X.shape[0], (32,), generator=g)
        Xb, Yb = X[ix], Y[ix]
        emb = C[Xb]
        embcat = emb.view(emb.shape[0], -1)
        if stage == "batchnorm":
            hpreact = embcat @ W1
            bnmeani = hpreact.mean(0, keepdim=True)
            bnstdi = hpreact.std(0, keepdim=True)
            hpreact = bngain * (hpreact - bnmeani) / bnstdi + bnbias
            with torch.no_grad():
                bnmean_running = 0.999 * bnmean_running + 0.001 * bnmeani
                bnstd_running = 0.999 * bnstd_running + 0.001 * bnstdi
        else:
            hpreact = embcat @ W1 + b1
        h = torch.tanh(hpreact)
        logits = h @ W2 + b2
        loss = F.cross_entropy(logits, Yb)
        for p in parameters.values():
            p.grad = None
        loss.backward()
        for p in parameters.values():
            p.data += -lr * p.grad
        losses.append(loss.item())
    if stage == "batchnorm":
        parameters |= {"bnmean_running": bnmean_running, "bnstd_running": bnstd_running}
    return torch.tensor(losses), {name: p.detach() for name, p in parameters.items()}


# Printed by the lecture with BatchNorm and gain 1 after its 1,001 steps: the std of the gradient at each Tanh,
# and the grad:data ratio of each weight, the embedding's first.
GRADIENT_STD = [2.640702e-03, 2.245584e-03, 2.045742e-03, 1.983134e-03, 1.952382e-03]
GRAD_TO_DATA = [8.012630e-03, 4.881091e-02, 6.964619e-02, 6.073741e-02, 5.631483e-02, 5.570125e-02, 1.160106e-01]


def deep_lecture_loop(batch_norm, gain, X, Y, steps, lr=0.1):
    """Train part 2's six-layer network as the lecture's cells do; returns (losses, C, the list of layers)."""
    n_embd, n_hidden, block_size, vocab_size = 10, 100, 3, 27
    g = torch.Generator().manual_seed(2147483647)
    C = torch.randn((vocab_size, n_embd), generator=g)
    sizes = [n_embd * block_size, *[n_hidden] * 5, vocab_size]
    layers = []
    for fan_in, fan_out in pairwise(sizes):
        layers.append(Linear(fan_in, fan_out, g, bias=not batch_norm))
        if batch_norm:
            layers.append(BatchNorm1d(fan_out))
        layers.append(Tanh())
    layers.pop()  # the logits are not squashed
    if batch_norm:
        layers[-1].gamma *= 0.1
    else:
        layers[-1].weight *= 0.1
    for layer in layers[:-1]:
        if isinstance(layer, Linear):
            layer.weight *= gain

    parameters = [C] + [p for layer in layers for p in layer.parameters()]
    for p in parameters:
        p.requires_grad = True
    losses = []
    for _ in range(steps):
        ix = torch.randint(0, X.shape[0], (32,), generator=g)
        x = C[X[ix]].view(32, -1)
        for layer in layers:
            x = layer(x)
        loss = F.cross_entropy(x, Y[ix])
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            p.data += -lr * p.grad
        losses.append(loss.item())
    return torch.tensor(losses), C, layers
