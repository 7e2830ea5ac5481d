"""Train part 2's network at ten learning rates, from eight seeds, and write its losses and its update:data ratios.

Writes data/results/learning_rates.json after every rate, so an interrupted run goes on where it stopped. The networks
of a rate train as one stack, each on its own minibatches, with the backward pass by hand. A run is looked at after
1,000 and after 10,000 steps; there a copy trains on, a fifth as many steps at a tenth of the rate. About ten minutes.
"""

import copy
import os
from statistics import fmean

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import torch

from common import RESULTS
from helpers.data import load_splits
from helpers.models import SEED, deep_mlp
from helpers.train import evaluate, train
from sweep import sweep
from sweep_parts import need_lecture_names

RATES = (0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 1.0, 5.0)
HORIZONS = (1_000, 10_000)
SEEDS = 8
RECORDS = 40  # of the ratios, over a horizon
HIDDEN = [f"linear{i}.weight" for i in range(1, 6)]


def main():
    log = {"names": need_lecture_names(), "horizons": HORIZONS, "seeds": [SEED + r for r in range(SEEDS)], "runs": {}}
    log = sweep(RESULTS / "learning_rates.json", log, run_rate, [f"{rate:g}" for rate in RATES])
    for rate, run in log["runs"].items():
        print(rate, *(f"{fmean(run[part][str(at)]):.4f}" for part in ("ratio", "held", "decayed") for at in HORIZONS))


def run_rate(rate):
    """By horizon one number per seed: the hidden weights' ratio, the losses held and decayed, on validation."""
    torch.set_num_threads(1)
    splits, seeds = load_splits(), range(SEEDS)
    generators = [torch.Generator().manual_seed(SEED + r) for r in seeds]
    stack = deep_mlp(generator=generators, num_models=SEEDS)
    draws = [torch.Generator().manual_seed(r) for r in seeds]
    result, done = {"ratio": {}, "held": {}, "decayed": {}}, 0
    for horizon in HORIZONS:
        history = _train(stack, splits, horizon - done, float(rate), draws, horizon // RECORDS)
        done = horizon
        ratios = torch.stack([history.update_ratio[name] for name in HIDDEN])  # (5, records, seeds)
        settled = ratios[:, -(RECORDS // 3) :].flatten(0, 1).median(0).values  # of the last third
        tail, later = copy.deepcopy(stack), [draw.clone_state() for draw in draws]
        _train(tail, splits, horizon // 5, float(rate) / 10, later, 0)
        losses = {"held": evaluate(stack, *splits.val), "decayed": evaluate(tail, *splits.val)}
        for part, values in {"ratio": settled, **losses}.items():
            result[part][str(horizon)] = [float(f"{value:.5g}") for value in values.tolist()]
    return result


def _train(stack, splits, steps, lr, draws, every):
    options = {"generator": draws, "record_ratios_every": every, "backward": "by_hand", "progress": False}
    return train(stack, *splits.train, steps=steps, lr=lr, **options)


if __name__ == "__main__":
    main()
