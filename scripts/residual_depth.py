"""Train plain and residual networks of several depths, at seven learning rates each, and take some apart, for X02.

Writes data/results/residual_depth.json after every kind and depth, and residual_lesions.json after every kind, so an
interrupted run goes on where it stopped (about half an hour in all). The rates and seeds of a run train as one stack; a
seed decides init and minibatches.
"""

import os
from functools import partial
from math import sqrt

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import torch
import torch.nn.functional as F
from torch import nn

from common import RESULTS
from helpers.data import load_splits
from helpers.layers import BatchNorm1d, Residual, Sequential
from helpers.models import deep_mlp, residual_mlp, seeded
from helpers.train import train
from sweep import sweep
from sweep_parts import by_seed, need_lecture_names

# h = f(h), h + f(h), h + f(h) / sqrt(blocks), h + f(norm(h)), norm(h + f(h)); f is tanh(linear(h))
KINDS = ("plain", "+", "scaled", "pre-norm", "post-norm")
DEPTHS = (6, 20, 40)  # the first and the last layer are as in the plain network
# f is linear(relu(linear(h))); with a BatchNorm after each linear, or times a learned number that starts at 0
RELU_KINDS = ("relu +", "relu scaled", "relu BatchNorm", "relu ReZero")
RELU_DEPTHS = (6, 20)
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SEEDS = (0, 1, 2)
GAINS = (0.5, 1, 3)  # beside 5/3, at depth 20, of the first four kinds
LESIONS = {"plain": 0.03, "scaled": 0.1, "pre-norm": 0.1, "relu BatchNorm": 0.1}  # the rates they are trained at


def networks(kind, depth, seeds, gain=5 / 3):
    """A stack, one network for each seed."""
    how = dict(depth=depth, gain=gain, generator=[seeded(seed) for seed in seeds], num_models=len(seeds))
    if kind == "plain":
        return deep_mlp(**how)
    if kind.startswith("relu"):
        how |= dict(nonlinearity="relu", gain=sqrt(2), last=1.0)
    norm = {"pre-norm": "before", "post-norm": "after"}.get(kind)
    stack = residual_mlp(**how, scale=1 / sqrt(depth - 2) if kind.endswith("scaled") else 1, norm=norm)
    for block in (layer for layer in stack if isinstance(layer, Residual)):
        if kind == "relu BatchNorm":
            first, relu, second = block.branch
            norms = (BatchNorm1d(100, num_models=len(seeds)) for _ in range(2))
            block.branch = Sequential(first, next(norms), relu, second, next(norms))
        if kind == "relu ReZero":
            block.scale = nn.Parameter(torch.zeros(len(seeds), 1, 1))
    return stack


def run(name, *, steps, last):
    """Mean loss of the last steps: for each rate a list, one per seed. name: the kind, the depth (and the gain)."""
    torch.set_num_threads(1)
    kind, depth, *gain = name.split(", ")
    seeds = [seed for _ in RATES for seed in SEEDS]
    stack = networks(kind, int(depth), seeds, float(gain[0]) if gain else 5 / 3)
    lr = torch.tensor(RATES).repeat_interleave(len(SEEDS))
    how = dict(generator=[seeded(seed) for seed in seeds], backward="by_hand" if kind == "plain" else "autograd")
    loss = train(stack, *load_splits().train, steps=steps, lr=lr, progress=False, **how).loss[-last:].mean(0)
    return by_seed(loss, SEEDS, most=100)  # beyond it a network has blown up


def lesions(kind, *, steps, examples, pairs):
    """How much the loss rises, a list of the seeds' for each: block left out, neighbours or two at random swapped, …"""
    torch.set_num_threads(1)
    X, Y = load_splits().train
    stack = networks(kind, 20, SEEDS)
    train(stack, X, Y, steps=steps, lr=LESIONS[kind], generator=[seeded(seed) for seed in SEEDS], progress=False)
    x, y, g = X[:examples], Y[:examples].repeat(len(SEEDS)), seeded(0)
    stack.eval()

    @torch.no_grad()
    def loss(order):
        h = stack[:4](x)
        for k in order:
            h = stack[4 + 2 * k : 6 + 2 * k](h) if kind == "plain" else stack[4 + k](h)
        logits = stack[4 + (36 if kind == "plain" else 18) :](h)
        return F.cross_entropy(logits.flatten(0, 1), y, reduction="none").view(len(SEEDS), -1).mean(1)

    def swapped(i, j):
        order = list(range(18))
        order[i], order[j] = j, i
        return order

    some = [sorted(torch.randperm(18, generator=g)[:2].tolist()) for _ in range(pairs)]
    changes = {
        "left out": [[k for k in range(18) if k != gone] for gone in range(18)],
        "neighbours swapped": [swapped(k, k + 1) for k in range(17)],
        "two swapped": [swapped(*pair) for pair in some],
        "shuffled": [torch.randperm(18, generator=g).tolist() for _ in range(5)],
        "3, 6, … 18 left out": [sorted(torch.randperm(18, generator=g)[n:].tolist()) for n in range(3, 19, 3)],
    }
    whole = loss(range(18))
    rise = {
        what: [by_seed(loss(order) - whole, SEEDS, most=100)[0] for order in orders] for what, orders in changes.items()
    }
    return {"whole": by_seed(whole, SEEDS, most=100)[0], "pairs": some} | rise


def main():
    log = {"steps": 1_000, "names": need_lecture_names(), "seeds": SEEDS, "runs": {}}
    names = [f"{kind}, {depth}" for depth in DEPTHS for kind in KINDS]
    names += [f"{kind}, {depth}" for depth in RELU_DEPTHS for kind in RELU_KINDS]
    names += [f"{kind}, 20, {gain}" for kind in KINDS[:4] for gain in GAINS]
    work = partial(run, steps=log["steps"], last=200)
    sweep(RESULTS / "residual_depth.json", {"last": 200, "rates": RATES} | log, work, names, jobs=1)
    work = partial(lesions, steps=log["steps"], examples=4096, pairs=20)
    sweep(RESULTS / "residual_lesions.json", {"examples": 4096, "rates": LESIONS} | log, work, list(LESIONS), jobs=1)


if __name__ == "__main__":
    main()
