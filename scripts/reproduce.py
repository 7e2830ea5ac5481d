"""Train part 1's five stages as the lecture does, 200,000 steps each, and write its loss log.

Writes data/results/loss_log.json after every stage, so an interrupted run goes on where it stopped, and the
figure data/results/loss_log.png at the end. Two stages run at a time, on one thread each.
"""

import argparse
import io
import json
import os
import platform
import signal
import sys
from functools import partial
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import matplotlib
import torch

from helpers.data import load_names, load_splits
from helpers.models import SEED, STAGES, lecture_mlp
from helpers.train import evaluate, train

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results"
CURVE_EVERY = 1000  # steps averaged to a point of the curve


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200_000, help="steps a stage (the lecture: 200,000)")
    parser.add_argument("--jobs", type=int, default=2, help="stages trained at a time")
    parser.add_argument("--out", type=Path, help="where to write (default: data/results/loss_log.json)")
    args = parser.parse_args()
    if args.steps < CURVE_EVERY or args.steps % CURVE_EVERY:
        parser.error(f"--steps {args.steps}: give a multiple of {CURVE_EVERY:,}")

    names = load_names()
    out = args.out or default_path(names, args.steps)
    print(f"{len(names.words):,} names ({names.source}); writing {os.path.relpath(out)}", flush=True)
    log = resume(out, new_log(names, args.steps))
    missing = [stage for stage in STAGES if stage not in log["stages"]]
    for stage in set(STAGES) - set(missing):
        print(f"{stage}: already there")
    try:
        # Spawned, as forking a process that has threads may hang it. Leaving the pool ends its processes.
        with get_context("spawn").Pool(args.jobs, initializer=ignore_interrupts) as pool:
            for stage, result in pool.imap_unordered(partial(run_stage, steps=args.steps), missing):
                stages = log["stages"] | {stage: result}
                log["stages"] = {stage: stages[stage] for stage in STAGES if stage in stages}
                write(out, json.dumps(log, indent=1).encode() + b"\n")
    except KeyboardInterrupt:
        sys.exit(
            f"interrupted: {len(log['stages'])} of {len(STAGES)} stages are saved, run it again to go on"
        )
    draw(log, out.with_suffix(".png"))
    report(log)


def default_path(names, steps):
    """loss_log.json for the lecture's run alone, so that a run on other names or shorter never replaces it."""
    parts = ["loss_log"]
    if names.source != "lecture":
        parts.append("bundled" if names.source == "bundled" else names.sha256[:8])
    if steps != 200_000:
        parts.append(f"{steps}_steps")
    return RESULTS / ("-".join(parts) + ".json")


def new_log(names, steps):
    return {
        "steps": steps,
        "lr": f"0.1, then 0.01 from step {steps // 2:,}",
        "batch_size": 32,
        "seeds": [SEED],
        "names": {
            "source": names.source if names.source in ("lecture", "bundled") else Path(names.source).name,
            "count": len(names.words),
            "sha256": names.sha256,
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "curve_every": CURVE_EVERY,
        "stages": {},
    }


def resume(out, log):
    """The log at `out` if it was made with the same settings, else the new one."""
    if not out.exists():
        return log
    found = json.loads(out.read_text())
    settings = ("steps", "lr", "batch_size", "seeds", "names", "versions", "curve_every")
    different = [key for key in settings if found.get(key) != log[key]]
    if not different:
        return found
    aside = out.with_suffix(".old.json")
    os.replace(out, aside)
    print(f"made with another {', '.join(different)}: kept as {os.path.relpath(aside)}, starting afresh")
    return log


def ignore_interrupts():
    """Leave Ctrl-C, which all processes get, to the first one: train would stop early and count as done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_stage(stage, steps):
    """Train one stage; returns it and what it comes out at, as lists with one entry a seed."""
    torch.set_num_threads(1)
    splits = load_splits()
    generator = torch.Generator().manual_seed(SEED)
    model = lecture_mlp(stage, generator=generator)
    losses, tenth = [], steps // 10
    for start in range(0, steps, tenth):
        lr = partial(schedule, start=start, steps=steps)
        losses.append(
            train(model, *splits.train, steps=tenth, lr=lr, generator=generator, progress=False).loss
        )
        print(
            f"{stage:>9} {start + tenth:>8,} of {steps:,} steps, loss {losses[-1][-1000:].mean():.4f}",
            flush=True,
        )
    losses = torch.cat(losses)
    curve = losses.view(-1, CURVE_EVERY).mean(1)
    return stage, {
        "step0": [round(losses[0].item(), 6)],
        "train": [round(evaluate(model, *splits.train), 6)],
        "val": [round(evaluate(model, *splits.val), 6)],
        "curve": [[round(value, 4) for value in curve.tolist()]],
    }


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
    write(path, buffer.getvalue())


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def report(log):
    print(f"\n{'stage':>9}  step 0   train     val")
    for stage, result in log["stages"].items():
        print(f"{stage:>9}  {result['step0'][0]:7.4f}  {result['train'][0]:.4f}  {result['val'][0]:.4f}")


if __name__ == "__main__":
    main()
