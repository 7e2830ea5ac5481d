"""How fast training is, against the lecture's own loops: `make bench`.

One process, one thread. Each contender's turn alternates with the lecture's loop, the work per CPU second of each
turn is divided by the loop's beside it, and the median of these ratios counts, so that other load on the machine
touches both alike. Before its time counts, each contender has to arrive where the lecture's loop arrives: losses,
every parameter after one step (so every gradient) and after many, BatchNorm's running statistics.
Writes data/results/bench.json and bench.md.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import numpy
import torch
import torch.nn.functional as F

from helpers.data import load_splits
from helpers.diagnostics import diagnose
from helpers.models import deep_mlp, lecture_mlp
from helpers.train import train
from refresh import write_atomically

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results"
STEPS = 400  # of one turn
SAME = 1e-5  # how far losses and parameters may be from the lecture loop's


# The lecture's two training loops, as its cells have them.


class PlainShallow:
    """Part 1's network, the Kaiming or the BatchNorm stage."""

    def __init__(self, batch_norm, seed):
        g = self.g = torch.Generator().manual_seed(seed)
        self.C = torch.randn((27, 10), generator=g)
        self.W1 = torch.randn((30, 200), generator=g) * (5 / 3) / (30**0.5)
        self.batch_norm = batch_norm
        if not batch_norm:
            self.b1 = torch.randn(200, generator=g) * 0.01
        self.W2 = torch.randn((200, 27), generator=g) * 0.01
        self.b2 = torch.randn(27, generator=g) * 0
        if batch_norm:
            self.bngain, self.bnbias = torch.ones((1, 200)), torch.zeros((1, 200))
            self.bnmean_running, self.bnvar_running = torch.zeros((1, 200)), torch.ones((1, 200))
        between = [self.bngain, self.bnbias] if batch_norm else [self.b1]
        self.parameters = [self.C, self.W1, *between, self.W2, self.b2]
        for p in self.parameters:
            p.requires_grad = True

    def buffers(self):
        return [self.bnmean_running, self.bnvar_running] if self.batch_norm else []

    def train(self, X, Y, steps):
        losses = []
        for _ in range(steps):
            ix = torch.randint(0, X.shape[0], (32,), generator=self.g)
            Xb, Yb = X[ix], Y[ix]
            emb = self.C[Xb]
            embcat = emb.view(emb.shape[0], -1)
            if self.batch_norm:
                hpreact = embcat @ self.W1
                bnmeani = hpreact.mean(0, keepdim=True)
                bnstdi = hpreact.std(0, keepdim=True)
                hpreact = self.bngain * (hpreact - bnmeani) / bnstdi + self.bnbias
                with torch.no_grad():
                    self.bnmean_running = 0.999 * self.bnmean_running + 0.001 * bnmeani
                    # The lecture keeps the std; its variance is what the course's layer keeps.
                    self.bnvar_running = 0.999 * self.bnvar_running + 0.001 * bnstdi**2
            else:
                hpreact = embcat @ self.W1 + self.b1
            h = torch.tanh(hpreact)
            logits = h @ self.W2 + self.b2
            loss = F.cross_entropy(logits, Yb)
            for p in self.parameters:
                p.grad = None
            loss.backward()
            for p in self.parameters:
                p.data += -0.1 * p.grad
            losses.append(loss.item())
        return torch.tensor(losses)


class Linear:
    def __init__(self, fan_in, fan_out, generator, bias):
        self.weight = torch.randn((fan_in, fan_out), generator=generator) / fan_in**0.5
        self.bias = torch.zeros(fan_out) if bias else None

    def __call__(self, x):
        self.out = x @ self.weight
        if self.bias is not None:
            self.out = self.out + self.bias
        return self.out

    def parameters(self):
        return [self.weight] if self.bias is None else [self.weight, self.bias]


class BatchNorm1d:
    def __init__(self, dim, eps=1e-5, momentum=0.1):
        self.eps, self.momentum = eps, momentum
        self.gamma, self.beta = torch.ones(dim), torch.zeros(dim)
        self.running_mean, self.running_var = torch.zeros(dim), torch.ones(dim)

    def __call__(self, x):
        xmean, xvar = x.mean(0, keepdim=True), x.var(0, keepdim=True)
        xhat = (x - xmean) / torch.sqrt(xvar + self.eps)
        self.out = self.gamma * xhat + self.beta
        with torch.no_grad():
            self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * xmean
            self.running_var = (1 - self.momentum) * self.running_var + self.momentum * xvar
        return self.out

    def parameters(self):
        return [self.gamma, self.beta]


class Tanh:
    def __call__(self, x):
        self.out = torch.tanh(x)
        return self.out

    def parameters(self):
        return []


class PlainDeep:
    """Part 2's six layers, gain 5/3 without BatchNorm and 1 with it."""

    def __init__(self, batch_norm, seed, statistics=False):
        g = self.g = torch.Generator().manual_seed(seed)
        self.statistics = statistics
        self.C = torch.randn((27, 10), generator=g)
        self.layers = []
        for fan_in, fan_out in pairwise([30, 100, 100, 100, 100, 100, 27]):
            self.layers.append(Linear(fan_in, fan_out, g, bias=not batch_norm))
            if batch_norm:
                self.layers.append(BatchNorm1d(fan_out))
            self.layers.append(Tanh())
        self.layers.pop()  # the logits are not squashed
        if batch_norm:
            self.layers[-1].gamma *= 0.1
        else:
            self.layers[-1].weight *= 0.1
            for layer in self.layers[:-1]:
                if isinstance(layer, Linear):
                    layer.weight *= 5 / 3
        self.parameters = [self.C, *(p for layer in self.layers for p in layer.parameters())]
        for p in self.parameters:
            p.requires_grad = True
        self.ud = []

    def buffers(self):
        norms = [layer for layer in self.layers if isinstance(layer, BatchNorm1d)]
        return [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]

    def train(self, X, Y, steps):
        losses = []
        for _ in range(steps):
            ix = torch.randint(0, X.shape[0], (32,), generator=self.g)
            Xb, Yb = X[ix], Y[ix]
            emb = self.C[Xb]
            x = emb.view(emb.shape[0], -1)
            for layer in self.layers:
                x = layer(x)
            loss = F.cross_entropy(x, Yb)
            if self.statistics:
                for layer in self.layers:
                    layer.out.retain_grad()
            for p in self.parameters:
                p.grad = None
            loss.backward()
            for p in self.parameters:
                p.data += -0.1 * p.grad
            losses.append(loss.item())
            if self.statistics:
                with torch.no_grad():
                    self.ud.append([(0.1 * p.grad.std() / p.data.std()).log10().item() for p in self.parameters])
        return torch.tensor(losses)


# What is compared with them: a network of the course and a way to train it.


class Course:
    def __init__(self, model, generators, **how):
        self.model, self.how = model, how
        self.generator = generators if len(generators) > 1 else generators[0]
        self.networks = len(generators)

    def train(self, X, Y, steps):
        settings = dict(steps=steps, lr=0.1, generator=self.generator, progress=False)
        return train(self.model, X, Y, **settings, **self.how).loss


class Products:
    """The six matrix products of a step by hand, and nothing else: no such step can be faster on this machine."""

    def __init__(self, networks):
        def array(*shape):
            return numpy.ones((networks, *shape), numpy.float32)

        def turned(a):
            return a.swapaxes(1, 2)

        x, W1, h, W2, logits = array(32, 30), array(30, 200), array(32, 200), array(200, 27), array(32, 27)
        pairs = [(x, W1), (h, W2), (turned(h), logits), (logits, turned(W2)), (turned(x), h), (h, turned(W1))]
        self.products = [(a, b, a @ b) for a, b in pairs]
        self.networks = networks

    def train(self, X, Y, steps):
        for _ in range(steps):
            for a, b, out in self.products:
                numpy.matmul(a, b, out=out)


class InParts(Course):
    """Trained 20 steps at a time, with or without a look at the whole network before each part."""

    def __init__(self, *args, look=None):
        super().__init__(*args)
        self.look = look

    def train(self, X, Y, steps):
        losses = []
        for start in range(0, steps, 20):
            if self.look:
                diagnose(self.model, X[:32], Y[:32], lr=0.1, **self.look)
            losses.append(super().train(X, Y, min(20, steps - start)))
        return torch.cat(losses)


def shallow(batch_norm, networks, **how):
    generators = [torch.Generator().manual_seed(seed) for seed in range(1, networks + 1)]
    stage = "batchnorm" if batch_norm else "kaiming"
    num_models = networks if networks > 1 else None
    drawn = generators if networks > 1 else generators[0]
    return Course(lecture_mlp(stage, generator=drawn, num_models=num_models), generators, **how)


def deep(batch_norm, kind=Course, **how):
    g = torch.Generator().manual_seed(1)
    gain = 1.0 if batch_norm else 5 / 3
    return kind(deep_mlp(batch_norm=batch_norm, gain=gain, generator=g), [g], **how)


def check(name, make_plain, make, X, Y, steps):
    """Exit unless the contender's losses, parameters and running statistics are the lecture loop's."""
    for length in (1, steps):
        contender = make()
        losses = contender.train(X, Y, length)
        losses = losses if losses.dim() == 2 else losses[:, None]
        for r in range(contender.networks):
            plain = make_plain(r + 1)
            pairs = {"losses": (losses[:, r], plain.train(X, Y, length))}
            stacked = contender.networks > 1
            ours = [*contender.model.named_parameters(), *contender.model.named_buffers()]
            for (part, tensor), expected in zip(ours, [*plain.parameters, *plain.buffers()], strict=True):
                tensor = tensor[r] if stacked else tensor
                pairs[part] = tensor.detach(), expected.detach().view_as(tensor)
            for part, (a, b) in pairs.items():
                # After one step parameters differ by 0.1 x the error of the gradient.
                tolerance = SAME / 10 if length == 1 else SAME
                if not (a - b).abs().max() <= tolerance:
                    sys.exit(
                        f"{name}: {part} of network {r} after {length} steps differ from the lecture loop's by "
                        f"{(a - b).abs().max():.1e}, more than {tolerance:.0e}: a faster wrong answer does not count"
                    )


def cpu_seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(plain, contenders, X, Y, turns):
    """CPU seconds a step and network, one row a turn: the plain loop's first, then each contender's."""
    times = []
    for _ in range(turns + 1):
        row = [cpu_seconds(lambda: plain.train(X, Y, STEPS)) / STEPS]
        for contender in contenders:
            seconds = cpu_seconds(lambda c=contender: c.train(X, Y, STEPS))
            row.append(seconds / STEPS / contender.networks)
        times.append(row)
    return times[1:]  # the first warms up


def faster():
    """(what, lecture's loop, contenders as (name, how to make it, goal)): how many times as fast."""
    for goals, batch_norm in ((1.2, 2.8, 5, 5), False), ((1.5, 3.3, 7, 7.5), True):
        one, hand, sixteen, thirty_two = goals
        make = partial(shallow, batch_norm)
        yield (
            f"part 1's network, {'with' if batch_norm else 'without'} BatchNorm",
            partial(PlainShallow, batch_norm),
            [
                ("train, autograd", partial(make, 1), one),
                ("train, by hand", partial(make, 1, backward="by_hand"), hand),
                ("a stack of 16, by hand", partial(make, 16, backward="by_hand"), sixteen),
                ("a stack of 32, by hand", partial(make, 32, backward="by_hand"), thirty_two),
                ("the matrix products of these alone", partial(Products, 16), None),
                ("a stack of 16, autograd", partial(make, 16), None),
            ],
        )
    for batch_norm in False, True:
        yield (
            f"part 2's network, {'with' if batch_norm else 'without'} BatchNorm",
            partial(PlainDeep, batch_norm),
            [("train, autograd", partial(deep, batch_norm), 2)],
        )
    yield (
        "part 2's network, with BatchNorm and the lecture's statistics",
        partial(PlainDeep, True, statistics=True),
        [("train, ratios every 10th step", partial(deep, True, record_ratios_every=10), 2.3)],
    )


def watching():
    """What watching adds, in per cent, to part 2's network with BatchNorm: (without it, [(name, with it, goal)])."""
    recording = partial(deep, True)
    yield (
        recording,
        [
            ("update:data ratios every 10th step", partial(recording, record_ratios_every=10), 4),
            ("update:data ratios every step", partial(recording, record_ratios_every=1), 13),
        ],
    )
    looking = partial(deep, True, InParts)
    yield (
        looking,
        [
            ("diagnose every 20th step, no histograms", partial(looking, look=dict(histograms=False)), 15),
            ("diagnose every 20th step", partial(looking, look=dict(histograms=True)), None),
        ],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=11, help="turns of 200 steps that each median is over")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench.json", help="where to write")
    args = parser.parse_args()
    if args.turns < 1:
        parser.error(f"--turns {args.turns}: give 1 or more")
    torch.set_num_threads(1)
    X, Y = load_splits().train
    rows = []

    def add(group, name, microseconds, value, unit, goal):
        rows.append(dict(group=group, name=name, microseconds=microseconds, value=value, unit=unit, goal=goal))
        print(as_line(rows[-1]), flush=True)

    for group, plain, contenders in faster():
        for name, make, _ in contenders:
            if isinstance(make(), Course):
                check(f"{group}, {name}", plain, make, X, Y, steps=100)
        times = measure(plain(1), [make() for _, make, _ in contenders], X, Y, args.turns)
        own = [round(median(column) * 1e6, 1) for column in zip(*times, strict=True)]
        add(group, "the lecture's loop", own[0], 1.0, "x", None)
        for i, (name, _, goal) in enumerate(contenders, 1):
            ratio = median(row[0] / row[i] for row in times)
            add(group, name, own[i], round(ratio, 2), "x", goal)
    group = "what watching adds (part 2's network, with BatchNorm)"
    for unwatched, contenders in watching():
        for name, make, _ in contenders:
            check(f"{group}, {name}", partial(PlainDeep, True), make, X, Y, steps=100)
        times = measure(unwatched(), [make() for _, make, _ in contenders], X, Y, args.turns)
        for i, (name, _, goal) in enumerate(contenders, 1):
            added = median(row[i] / row[0] for row in times) - 1
            own = median(row[i] for row in times)
            add(group, name, round(own * 1e6, 1), round(100 * added, 1), "%", goal)

    on = machine()
    results = json.dumps({"machine": on, "rows": rows}, indent=1) + "\n"
    write_atomically(args.out, results.encode())
    write_atomically(args.out.with_suffix(".md"), as_table(rows, on).encode())


def machine():
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "blas": blas(),
    }


def blas():
    """For which processor NumPy's OpenBLAS has kernels here: where it does not know the machine's, they are slow."""
    says = subprocess.run(
        [sys.executable, "-c", "import numpy"],
        check=True,
        env={**os.environ, "OPENBLAS_VERBOSE": "2"},
        capture_output=True,
        text=True,
    )
    core = re.search(r"Core: (\w+)", says.stdout + says.stderr)
    return f"OpenBLAS for {core[1]}" if core else "unknown"


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_line(row):
    goal = f"   (goal {row['goal']:g})" if row["goal"] else ""
    return (
        f"{row['group'][:32]:32}  {row['name']:34} {row['microseconds']:7.0f} us a step"
        f" {row['value']:7.2f} {row['unit']}{goal}"
    )


def as_table(rows, m):
    where = f"{m['processor']}, {m['cores']} cores, one thread; Python {m['python']}, torch {m['torch']}"
    lines = [
        f"Made by `make bench`: {where}, NumPy {m['numpy']} ({m['blas']}). In µs of CPU time a step and network;",
        "× the work of the lecture's loop in the same time.",
    ]
    group = None
    for row in rows:
        if row["group"] != group:
            group = row["group"]
            lines += ["", f"| {group} | µs | | goal |", "|---|---|---|---|"]
        measured = f"{row['value']:.2f} ×" if row["unit"] == "x" else f"+{row['value']:.0f} %"
        goal = "" if row["goal"] is None else f"{row['goal']:g} {'×' if row['unit'] == 'x' else '%'}"
        lines.append(f"| {row['name']} | {row['microseconds']:.0f} | {measured} | {goal} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
