"""Train the lecture's networks with SGD and with Adam over a grid of rates, for X03's comparison.

Writes data/results/adam_sgd.json after every optimizer, rate and kind of network, so an interrupted run goes on where it
stopped (about six minutes in all). The networks of one kind train as one stack; a seed has the same draws and
minibatches with both optimizers.
"""

import os
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import torch

from common import RESULTS
from helpers.data import load_splits
from helpers.layers import BatchNorm1d, Tanh
from helpers.models import STAGES, deep_mlp, lecture_mlp, seeded
from helpers.train import evaluate, train
from sweep import by_seed, need_lecture_names, sweep

SEEDS = (0, 1, 2, 3)
GAINS = (0.2, 0.5, 1.0, 1.6667, 3.0, 5.0)
KINDS = {"stages": STAGES[:4], "batchnorm": STAGES[4:], "gains": GAINS, "deep with BatchNorm": (1.6667,)}
RATES = {"SGD": (0.03, 0.1, 0.3, 1.0, 3.0), "Adam": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)}
DECAY = 0.8  # of the steps; the rest takes a tenth of the rate


def networks(kind):
    """One stack: of every stage or gain in turn the networks of all seeds."""
    seeds = [seeded(seed) for _ in KINDS[kind] for seed in SEEDS]
    together = dict(generator=seeds, num_models=len(seeds))
    if kind == "gains":
        return deep_mlp(gain=torch.tensor(GAINS).repeat_interleave(len(SEEDS)), **together)
    if kind == "deep with BatchNorm":
        return deep_mlp(gain=5 / 3, batch_norm=True, **together)
    stack = lecture_mlp(KINDS[kind][-1], **together)
    each = [lecture_mlp(stage, generator=[seeded(s) for s in SEEDS], num_models=len(SEEDS)) for stage in KINDS[kind]]
    with torch.no_grad():
        for p, *parts in zip(stack.parameters(), *(part.parameters() for part in each), strict=True):
            p.copy_(torch.cat(parts))
    return stack


def run(name, *, steps, examples):
    """Losses on `examples` training examples and on the validation set, and saturation: a row of seeds per network."""
    torch.set_num_threads(1)
    kind, optimizer, rate = name.split(", ")
    stack, rate, splits = networks(kind), float(rate), load_splits()
    X, Y = splits.train
    adam = torch.optim.Adam(stack.parameters(), fused=True) if optimizer == "Adam" else None
    batches = [seeded(100 + seed) for _ in KINDS[kind] for seed in SEEDS]
    how = dict(optimizer=adam, generator=batches, backward="by_hand", progress=False)
    train(stack, X, Y, steps=steps, lr=lambda step: rate if step < DECAY * steps else rate / 10, **how)
    some = torch.randperm(len(X), generator=seeded(9))[:examples]
    for layer in stack.modules():  # running statistics lag behind after so few steps: taken afresh
        if isinstance(layer, BatchNorm1d):
            layer.momentum = 1.0
    with torch.no_grad():
        stack(X[some])
    losses = {"train": evaluate(stack, X[some], Y[some]), "val": evaluate(stack, *splits.val)}
    return {part: rows(loss) for part, loss in losses.items()} | {"saturated": rows(saturation(stack, X[some]))}


@torch.no_grad()
def saturation(stack, X):
    """Share of all tanh outputs beyond 0.97, the mean over the layers, (networks,)."""
    x, shares = X, []
    for layer in stack.eval():
        x = layer(x)
        if isinstance(layer, Tanh):
            shares.append((x.abs() > 0.97).float().mean((1, 2)))
    return torch.stack(shares).mean(0)


def rows(numbers):
    return by_seed(numbers, SEEDS, most=1e6)


def main():
    setting = dict(steps=3000, examples=8192)
    log = setting | {"names": need_lecture_names(), "seeds": SEEDS, "kinds": KINDS}
    log |= {"rates": RATES, "decay": DECAY, "runs": {}}
    names = [f"{kind}, {each}, {rate}" for kind in KINDS for each in RATES for rate in RATES[each]]
    sweep(RESULTS / "adam_sgd.json", log, partial(run, **setting), names, jobs=1)


if __name__ == "__main__":
    main()
