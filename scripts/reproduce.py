"""Train part 1's five stages as the lecture does, 200,000 steps each, from eight seeds, and write its loss log.

Writes data/results/loss_log.json after every stage, so an interrupted run goes on where it stopped, and the
figure data/results/loss_log.png at the end. The first seed is the lecture's. A stage's networks train as one
stack, with the backward pass by hand; two stages run at a time, on one thread each.
"""

import argparse
import io
import os
import platform
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import matplotlib
import numpy
import torch

from common import RESULTS, write_atomically
from helpers.compare import loss_log_steps
from helpers.data import load_names, load_splits
from helpers.models import SEED, STAGES, lecture_mlp
from helpers.train import evaluate, train
from sweep import sweep

CURVE_EVERY = 1000  # steps averaged to a point of the curve
SEEDS = 8
MINIBATCH_SEEDS = 1_000_000  # added to a seed: the generator of its minibatches
SLOWEST_FIRST = STAGES[::-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000, help="steps a stage (the lecture: 200,000)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"networks a stage (default: {SEEDS})")
    parser.add_argument("--jobs", type=int, default=2, help="stages trained at a time")
    parser.add_argument("--out", type=Path, help="where to write (default: data/results/loss_log.json)")
    args = parser.parse_args()
    if args.steps < CURVE_EVERY or args.steps % CURVE_EVERY:
        parser.error(f"--steps {args.steps}: give a multiple of {CURVE_EVERY:,}")
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds}: give 1 or more")

    sys.stdout.reconfigure(errors="replace")  # a terminal that has no ± may show another sign
    names = load_names()
    out = args.out or default_path(names, args.steps, args.seeds)
    print(f"{len(names.words):,} names ({names.source}); writing {os.path.relpath(out)}", flush=True)
    log = new_log(names, args.steps, args.seeds)
    run = partial(run_stage, steps=args.steps, seeds=log["seeds"])
    whole = partial(is_whole, steps=args.steps, seeds=args.seeds)
    log = sweep(out, log, run, STAGES, results="stages", jobs=args.jobs, first=SLOWEST_FIRST, whole=whole)
    draw(log, out.with_suffix(".png"))
    report(log)


def default_path(names, steps, seeds):
    """loss_log.json for the full run on the lecture's names alone, so that no other ever replaces it."""
    parts = ["loss_log"]
    if names.source != "lecture":
        parts.append("bundled" if names.source == "bundled" else names.sha256[:8])
    if steps != 200_000:
        parts.append(f"{steps}_steps")
    if seeds != SEEDS:
        parts.append(f"{seeds}_seeds")
    return RESULTS / ("-".join(parts) + ".json")


def new_log(names, steps, seeds):
    return {
        "steps": steps,
        "lr": f"0.1, then 0.01 from step {steps // 2:,}",
        "batch_size": 32,
        "seeds": [SEED, *range(1, seeds)],
        "backward": "by hand",
        "names": {
            "source": names.source if names.source in ("lecture", "bundled") else Path(names.source).name,
            "count": len(names.words),
            "sha256": names.sha256,
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "curve_every": CURVE_EVERY,
        "stages": {},
    }


def run_stage(stage, steps, seeds):
    """Train one stage's networks; returns what they come out at, as lists with one entry per seed.

    The lecture draws minibatches on from the generator that drew the network. So does its seed here; every
    other seed has a second generator, the same for all stages, so that a seed's five networks see the same
    minibatches and their losses can be compared as pairs. (The lecture's own BatchNorm network sees others
    than its first four: it draws no b1.)
    """
    torch.set_num_threads(1)
    splits = load_splits()
    networks = [torch.Generator().manual_seed(seed) for seed in seeds]
    model = lecture_mlp(stage, generator=networks, num_models=len(seeds))
    minibatches = [networks[0], *(torch.Generator().manual_seed(MINIBATCH_SEEDS + s) for s in seeds[1:])]
    losses, tenth = [], steps // 10
    for start in range(0, steps, tenth):
        lr = partial(schedule, start=start, steps=steps)
        history = train(
            model, *splits.train, steps=tenth, lr=lr, generator=minibatches, backward="by_hand", progress=False
        )
        losses.append(history.loss)
        mean = losses[-1][-1000:].mean()
        print(f"{stage:>9} {start + tenth:>8,} of {steps:,} steps, mean loss {mean:.4f}", flush=True)
    losses = torch.cat(losses)  # (steps, seeds)
    curves = losses.view(-1, CURVE_EVERY, len(seeds)).mean(1).T
    return {
        "step0": rounded(losses[0], 6),
        "train": rounded(evaluate(model, *splits.train), 6),
        "val": rounded(evaluate(model, *splits.val), 6),
        "curve": [rounded(curve, 4) for curve in curves],
    }


def is_whole(result, steps, seeds):
    """Whether a stage that was read from a file is one that run_stage returned."""
    try:
        points = [len(curve) for curve in result["curve"]]
        return points == [steps // CURVE_EVERY] * seeds and all(
            len(result[key]) == seeds for key in ("step0", "train", "val")
        )
    except (KeyError, TypeError):
        return False


def rounded(values, digits):
    return [round(value, digits) for value in values.tolist()]


def schedule(step, *, start, steps):
    return 0.1 if start + step < steps // 2 else 0.01


def draw(log, path):
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # only now: the backend has to be chosen first

    from helpers import plots

    plots.use_style()
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    plots.plot_loss_log_curves(log, ax=left)
    plots.plot_loss_log(log, ax=right)
    left.set(title="The first two repairs gain the most", ylim=(2, 2.6))
    right.set_title(f"After {log['steps']:,} steps")
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


def report(log):
    seeds = len(log["seeds"])
    print(f"\n{'':>9}  the lecture's seed       {seeds} seeds: mean and standard deviation")
    print(f"{'stage':>9}  step 0   train   val     train           val")
    for stage, result in log["stages"].items():
        first = f"{result['step0'][0]:7.4f}  {result['train'][0]:.4f}  {result['val'][0]:.4f}"
        print(f"{stage:>9}  {first}  {spread(result['train'])}  {spread(result['val'])}")
    print("\nFrom stage to stage, paired by seed, with intervals that hold together at 95 %: train, validation")
    on_train, on_val = (loss_log_steps(log, part) for part in ("train", "val"))
    for before, after in pairwise(log["stages"]):
        verdict = "real" if on_val[after].is_real else "within noise"
        print(f"{after:>9} - {before:<9} {on_train[after]}   {on_val[after]}  {verdict}")


def spread(losses):
    return f"{fmean(losses):.4f} ± {stdev(losses) if len(losses) > 1 else 0:.4f}"


if __name__ == "__main__":
    main()
