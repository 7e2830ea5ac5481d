"""The lecture's own training loop, written plainly: what the helpers are compared with."""

import torch
import torch.nn.functional as F


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
