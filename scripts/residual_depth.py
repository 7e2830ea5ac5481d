"""Train plain and residual networks of three depths, each at five learning rates, for X02.

Writes data/results/residual_depth.json after every kind and depth, so an interrupted run goes on where it stopped
(about ten minutes in all). The rates and seeds of a run train as one stack; a seed decides init and minibatches.
"""

import os
from functools import partial
from math import sqrt

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import torch

from common import RESULTS
from helpers.data import load_splits
from helpers.models import deep_mlp, residual_mlp, seeded
from helpers.train import train
from sweep import by_seed, need_lecture_names, sweep

KINDS = ("plain", "+", "scaled", "pre-norm")  # h = f(h), h + f(h), h + f(h) / sqrt(blocks), h + f(norm(h))
DEPTHS = (6, 20, 40)  # the first and the last layer are as in the plain network
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
SEEDS = (0, 1, 2)
GAINS = (0.5, 1, 3)  # beside 5/3, at depth 20


def run(name, *, steps, last):
    """Mean loss of the last steps, a list of the seeds' for each rate; name: the kind, the depth (and the gain)."""
    torch.set_num_threads(1)
    kind, depth, *gain = name.split(", ")
    depth, gain = int(depth), float(gain[0]) if gain else 5 / 3
    seeds = [seed for _ in RATES for seed in SEEDS]
    how = dict(depth=depth, gain=gain, generator=[seeded(seed) for seed in seeds], num_models=len(seeds))
    if kind == "plain":
        stack = deep_mlp(**how)
    else:
        scale, norm = 1 / sqrt(depth - 2) if kind == "scaled" else 1, "before" if kind == "pre-norm" else None
        stack = residual_mlp(**how, scale=scale, norm=norm)
    lr = torch.tensor(RATES).repeat_interleave(len(SEEDS))
    how = dict(generator=[seeded(seed) for seed in seeds], backward="by_hand" if kind == "plain" else "autograd")
    loss = train(stack, *load_splits().train, steps=steps, lr=lr, progress=False, **how).loss[-last:].mean(0)
    return by_seed(loss, SEEDS, most=100)  # beyond it a network has blown up


def main():
    setting = dict(steps=1_000, last=200)
    log = setting | {"names": need_lecture_names(), "rates": RATES, "seeds": SEEDS, "runs": {}}
    names = [f"{kind}, {depth}" for depth in DEPTHS for kind in KINDS]
    names += [f"{kind}, 20, {gain}" for kind in KINDS for gain in GAINS]
    sweep(RESULTS / "residual_depth.json", log, partial(run, **setting), names, jobs=1)


if __name__ == "__main__":
    main()
