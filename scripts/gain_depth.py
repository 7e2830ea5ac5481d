"""Train tanh networks of many gains and depths, for chapter 09's map of their losses.

Writes data/results/gain_depth.json after every rate and depth, so an interrupted run goes on where it stopped (about
six minutes in all). The networks of one depth train as one stack, all on the same minibatches.
"""

import os
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import torch

from common import RESULTS
from helpers.data import load_splits
from helpers.models import deep_mlp, seeded
from helpers.train import train
from sweep import sweep
from sweep_parts import need_lecture_names

GAINS = [round(2 ** (k / 6), 4) for k in range(-6, 11)]  # 0.5 to 3.17, evenly on a log axis
DEPTHS = (2, 3, 5, 8, 12, 20, 30, 50)  # hidden layers
SEEDS = (0, 1, 2, 3)
RATES = (0.1, 0.03)


def run(name, *, steps, last, n_hidden):
    """Mean loss of the last steps: for each gain a list, one number per seed. name: the rate and the hidden layers."""
    torch.set_num_threads(1)
    lr, depth = float(name.split(", ")[0]), int(name.split(", ")[1])
    stack = deep_mlp(
        depth=depth + 1,
        n_hidden=n_hidden,
        gain=torch.tensor(GAINS).repeat_interleave(len(SEEDS)),
        generator=[seeded(seed) for _ in GAINS for seed in SEEDS],
        num_models=len(GAINS) * len(SEEDS),
    )
    how = dict(generator=seeded(0), backward="by_hand", progress=False)
    loss = train(stack, *load_splits().train, steps=steps, lr=lr, **how).loss
    return [[round(x, 4) for x in row] for row in loss[-last:].mean(0).view(-1, len(SEEDS)).tolist()]


def main():
    setting, source = dict(steps=500, last=100, n_hidden=50), need_lecture_names()
    splits = load_splits()
    shares = torch.bincount(splits.train[1]).double() / len(splits.train[1])
    entropy = -torch.special.xlogy(shares, shares).sum().item()  # the loss of whoever knows the letters' frequencies
    log = setting | {"names": source, "letter_entropy": round(entropy, 4)}
    log |= {"gains": GAINS, "depths": DEPTHS, "seeds": SEEDS, "runs": {}}
    names = [f"{rate}, {depth}" for rate in RATES for depth in DEPTHS]
    sweep(RESULTS / "gain_depth.json", log, partial(run, **setting), names, jobs=1)


if __name__ == "__main__":
    main()
