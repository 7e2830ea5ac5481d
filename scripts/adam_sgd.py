"""Train the lecture's networks with SGD, with Adam and with Adam's warm-up over a grid of rates, for X03's comparisons.

Writes data/results/adam_sgd.json after every optimizer, rate and kind of network: an interrupted run goes on where it
stopped (about ten minutes in all). The networks of one kind train as one stack; a seed has the same draws and
minibatches with each optimizer.
"""

import os
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import torch

from common import RESULTS
from helpers.data import load_splits
from helpers.layers import Linear, Tanh
from helpers.models import STAGES, deep_mlp, lecture_mlp, seeded
from helpers.train import evaluate, train
from sweep import sweep
from sweep_parts import by_seed, need_lecture_names, recalibrate, some_of

SEEDS = (0, 1, 2, 3)
GAINS = (0.2, 0.5, 1.0, 1.6667, 3.0, 5.0)
KINDS = {"stages": STAGES[:4], "batchnorm": STAGES[4:], "gains": GAINS, "deep with BatchNorm": (1.6667,)}
RATES = {"SGD": (0.03, 0.1, 0.3, 1.0, 3.0), "Adam": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)}
RATES["Adam with warm-up"] = RATES["Adam"]
WARM, DECAY = 0.1, 0.8  # of the steps: until then the rate climbs; from then on it is a tenth
RARE = 0.01  # of all letters: one that is less frequent is called rare


def networks(kind):
    """One stack: for each stage or gain, one after the other, the networks of all seeds."""
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


def rate_at(step, rate, steps, warm):
    climbed = min(1, (step + 1) / (WARM * steps)) if warm else 1
    return rate * climbed if step < DECAY * steps else rate / 10


def run(name, *, steps, examples):
    """Of every network a row of seeds: losses on `examples` training examples, on the validation set, on those of its
    examples with a rare letter in the context and on those with a rare target; saturation; the std of the last weight.
    """
    torch.set_num_threads(1)
    kind, optimizer, rate = name.split(", ")
    stack, rate, splits = networks(kind), float(rate), load_splits()
    X, Y = splits.train
    warm, adam = optimizer == "Adam with warm-up", None
    if optimizer != "SGD":
        adam = torch.optim.Adam(stack.parameters(), fused=True)
    batches = [seeded(100 + seed) for _ in KINDS[kind] for seed in SEEDS]
    how = dict(optimizer=adam, generator=batches, backward="by_hand", progress=False)
    train(stack, X, Y, steps=steps, lr=lambda step: rate_at(step, rate, steps, warm), **how)
    some = some_of(splits.train, examples)
    recalibrate(stack, some[0])
    rare, (X_val, Y_val) = torch.bincount(Y) < RARE * len(Y), splits.val
    found = {"train": evaluate(stack, *some), "val": evaluate(stack, X_val, Y_val)}
    for part, those in (("rare_context", rare[X_val].any(1)), ("rare_target", rare[Y_val])):
        found[part] = evaluate(stack, X_val[those], Y_val[those])
    found["saturated"] = saturation(stack, some[0])
    found["last_std"] = [layer for layer in stack.modules() if isinstance(layer, Linear)][-1].weight.std((1, 2))
    return {part: rows(numbers) for part, numbers in found.items()}


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
    log |= {"rates": RATES, "warm": WARM, "decay": DECAY, "rare": RARE, "runs": {}}
    names = [f"{kind}, {each}, {rate}" for kind in KINDS for each in RATES for rate in RATES[each]]
    sweep(RESULTS / "adam_sgd.json", log, partial(run, **setting), names, jobs=1)


if __name__ == "__main__":
    main()
