"""How fast training is, against the lecture's own loops and what else a user would take: `make bench`.

One process, one thread. The contenders take turns with the lecture's loop; in each turn the loop's CPU time for a step
is divided by the contender's, and the median of these ratios counts, so that other load on the machine touches both
alike. First each contender has to arrive where the lecture's loop arrives: losses, every parameter after one step (so
every gradient) and after many, BatchNorm's running statistics. Writes data/results/bench.json and bench.md.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import numpy
import torch
import torch.nn.functional as F
from torch import nn

from common import RESULTS, write_atomically
from helpers.by_hand import ByHand
from helpers.data import load_splits
from helpers.diagnostics import diagnose, watch
from helpers.layers import BatchNorm1d
from helpers.models import deep_mlp, lecture_mlp, seeded
from helpers.train import train
from lecture import PlainDeep, PlainShallow

SECONDS = 0.15  # of CPU time for one turn
WARM_UP, CHECKED = 20, 60  # steps
SAME = 1e-5  # how far losses and parameters may be from the lecture loop's


# The contenders: networks that train(X, Y, steps) -> losses, and show tensors() to be compared.


class Lecture:
    """The lecture's own loop."""

    networks = 1

    def __init__(self, plain):
        self.plain = plain

    def train(self, X, Y, steps):
        return self.plain.train(X, Y, steps)

    def tensors(self):
        return [t.detach() for t in (*self.plain.parameters, *self.plain.buffers())]


class Course:
    """A network of the course, or a stack of them, and a way to train it; with a look at it every 20th step."""

    def __init__(self, make, networks=1, seed=1, look=None, **how):
        generators = [seeded(seed + r) for r in range(networks)]
        stacked = networks > 1
        self.generator = generators if stacked else generators[0]
        self.model = make(generator=self.generator, num_models=networks if stacked else None)
        self.networks, self.look, self.how = networks, look, how

    def train(self, X, Y, steps):
        settings = dict(lr=0.1, generator=self.generator, progress=False, **self.how)
        if not self.look:
            return train(self.model, X, Y, steps=steps, **settings).loss
        losses = []
        for start in range(0, steps, 20):
            self.look(self.model, X[:32], Y[:32])
            losses.append(train(self.model, X, Y, steps=min(20, steps - start), **settings).loss)
        return torch.cat(losses)

    def tensors(self):
        return [t.detach() for t in (*self.model.parameters(), *self.model.buffers())]


class Usual:
    """What a torch user would write: torch.nn's layers, an optimizer, loss.backward(); around it, what watches."""

    networks = 1

    def __init__(self, course, seed=1, around=lambda network: nullcontext()):
        self.around = around
        self.generator = seeded(seed)
        self.model = torch_twin(course(generator=self.generator))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def train(self, X, Y, steps):
        losses = []
        with self.around(self):
            for _ in range(steps):
                ix = torch.randint(0, len(X), (32,), generator=self.generator)
                loss = F.cross_entropy(self.model(X[ix]), Y[ix])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                losses.append(loss.item())
        return torch.tensor(losses)

    def tensors(self):
        return as_the_courses(self.model, dict(self.model.named_parameters()), dict(self.model.named_buffers()))


class Vmapped:
    """What a torch user would write for a stack: one step as a function of the parameters, and torch.func.vmap."""

    def __init__(self, course, networks):
        self.generators, self.networks = [seeded(seed) for seed in range(1, networks + 1)], networks
        models = [torch_twin(course(generator=g)) for g in self.generators]
        self.parameters, self.buffers = torch.func.stack_module_state(models)
        self.model = models[0]

        def loss_of(parameters, buffers, X, Y):
            return F.cross_entropy(torch.func.functional_call(self.model, (parameters, buffers), (X,)), Y)

        self.gradients_of = torch.func.vmap(torch.func.grad_and_value(loss_of))

    def train(self, X, Y, steps):
        losses = []
        for _ in range(steps):
            ix = torch.stack([torch.randint(0, len(X), (32,), generator=g) for g in self.generators])
            gradients, loss = self.gradients_of(self.parameters, self.buffers, X[ix], Y[ix])
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p -= 0.1 * gradients[name]
            losses.append(loss.detach())
        return torch.stack(losses)

    def tensors(self):
        return as_the_courses(self.model, self.parameters, self.buffers)


class Products:
    """The matrix products of a step by hand and nothing else: no step can be faster on this machine."""

    def __init__(self, networks, *sizes):
        def array(*shape):
            return numpy.ones((networks, *shape), numpy.float32)

        pairs = []
        for fan_in, fan_out in pairwise(sizes):
            x, W, out = array(32, fan_in), array(fan_in, fan_out), array(32, fan_out)
            pairs += [(x, W), (x.swapaxes(1, 2), out), (out, W.swapaxes(1, 2))]
        self.products = [(a, b, a @ b) for a, b in pairs]
        self.networks = networks

    def train(self, X, Y, steps):
        for _ in range(steps):
            for a, b, out in self.products:
                numpy.matmul(a, b, out=out)


def torch_twin(model):
    """A network of the course in torch.nn's own layers."""

    def twin(layer):
        if hasattr(layer, "gamma"):
            return nn.BatchNorm1d(len(layer.gamma), layer.eps, layer.momentum)
        if not hasattr(layer, "weight"):
            return nn.Flatten() if type(layer).__name__ == "Flatten" else layer
        embedding = type(layer).__name__ == "Embedding"
        new = nn.Embedding(*layer.weight.shape) if embedding else nn.Linear(*layer.weight.shape, layer.bias is not None)
        new.weight.data = (layer.weight if embedding else layer.weight.T).detach().clone()
        if getattr(layer, "bias", None) is not None:
            new.bias.data = layer.bias.detach().clone()
        return new

    twins = nn.Sequential(*map(twin, model))
    for layer, new in zip(model, twins, strict=True):
        if hasattr(layer, "gamma"):
            new.weight.data = layer.gamma.detach().clone()
    return twins


def as_the_courses(model, parameters, buffers):
    """The tensors in the course's layout, its BatchNorm's two buffers too."""
    linears = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    turned = [p.mT if name in linears else p for name, p in parameters.items()]
    return [t.detach() for t in turned] + [b for name, b in buffers.items() if not name.endswith("num_batches_tracked")]


def with_torchs_batch_norm(make):
    """The course's network with the variance and the eps of nn.BatchNorm1d, to compare torch's own layers with."""

    def made(**how):
        model = make(**how)
        for layer in model:
            if isinstance(layer, BatchNorm1d):
                layer.correction, layer.eps = 0, 1e-5
        return model

    return made


def check(name, reference, make, X, Y, steps=CHECKED):
    """Exit unless the contender arrives where each seed's reference(seed, steps) does, by reached()."""
    for length in (1, steps):
        contender = make()
        losses = contender.train(X, Y, length).view(length, -1)
        stacked = contender.networks > 1
        for r in range(contender.networks):
            expected_losses, expected = reference(r + 1, length)
            ours = [t[r] if stacked else t for t in contender.tensors()]
            parts = {"losses": (losses[:, r], expected_losses)}
            parts |= {f"tensor {i}": pair for i, pair in enumerate(zip(ours, expected, strict=True))}
            for part, (a, b) in parts.items():
                # After one step parameters differ by 0.1 x the error of the gradient.
                tolerance, off = SAME / 10 if length == 1 else SAME, (a - b.view_as(a)).abs().max()
                if not off <= tolerance:
                    sys.exit(
                        f"{name}: {part} of network {r} after {length} steps differ by {off:.1e}, more than "
                        f"{tolerance:.0e}, from the reference's: a faster wrong answer does not count"
                    )


def check_all(group, plain, contenders, X, Y):
    """Each contender against the lecture's loop, `plain`; torch's layers against the course's twin, by autograd."""
    lectures = reached(plain, X, Y)
    twins = cache(lambda course: reached(lambda seed: Course(course, seed=seed), X, Y))
    for name, make, _ in contenders:
        if make.func is not Products:
            reference = twins(make.args[0]) if make.func in (Usual, Vmapped) else lectures
            check(f"{group}, {name}", reference, make, X, Y)


def reached(make, X, Y):
    """reference(seed, steps): the losses and the tensors of a network that make(seed) gives, computed once."""

    @cache
    def reference(seed, steps):
        contender = make(seed)
        return contender.train(X, Y, steps), contender.tensors()

    return reference


def cpu_seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(contenders, X, Y, turns):
    """CPU seconds per step and network, one row for each turn."""
    lengths = []
    for contender in contenders:
        contender.train(X, Y, WARM_UP)
        seconds = cpu_seconds(lambda c=contender: c.train(X, Y, WARM_UP)) / WARM_UP
        lengths.append(max(WARM_UP, round(SECONDS / (seconds + 1e-9))))
    pairs = list(zip(contenders, lengths, strict=True))
    return [[cpu_seconds(lambda c=c, n=n: c.train(X, Y, n)) / n / c.networks for c, n in pairs] for _ in range(turns)]


# What is measured: (group, loop, [(name, how to make it, goal)]), with the goals for an AVX2 machine.

PART_1 = {False: partial(lecture_mlp, "kaiming"), True: partial(lecture_mlp, "batchnorm")}
PART_2 = {False: partial(deep_mlp, gain=5 / 3), True: partial(deep_mlp, gain=1.0, batch_norm=True)}
SIZES = {1: (30, 200, 27), 2: (30, 100, 100, 100, 100, 100, 27)}


def plain_shallow(batch_norm, seed=1):
    return Lecture(PlainShallow("batchnorm" if batch_norm else "kaiming", seed))


def plain_deep(batch_norm, seed=1, **how):
    return Lecture(PlainDeep(batch_norm, seed, **how))


def groups():
    goals = {(1, False): (1, 3, 7), (1, True): (1.4, 4, 10), (2, False): (1, 3, 5), (2, True): (1.4, 5, 9)}
    for (part, batch_norm), (one, hand, stack) in goals.items():
        course = (PART_1 if part == 1 else PART_2)[batch_norm]
        torchs, many = with_torchs_batch_norm(course), 16 if part == 1 else 8
        contenders = [
            ("torch.nn's layers and torch.optim.SGD", partial(Usual, torchs), None),
            ("train, autograd", partial(Course, course), one),
            ("train, by hand", partial(Course, course, backward="by_hand"), hand),
            (f"a stack of {many}, torch.func.vmap", partial(Vmapped, torchs, many), None),
            (f"a stack of {many}, autograd", partial(Course, course, many), None),
            (f"a stack of {many}, by hand", partial(Course, course, many, backward="by_hand"), stack),
        ]
        if part == 1:
            contenders.append(("a stack of 32, by hand", partial(Course, course, 32, backward="by_hand"), stack))
        contenders.append(("its matrix products alone", partial(Products, many, *SIZES[part]), None))
        plain = partial(plain_shallow if part == 1 else plain_deep, batch_norm)
        yield f"part {part}'s network, {'with' if batch_norm else 'without'} BatchNorm", plain, contenders
    yield (
        "part 2's network, with BatchNorm and the lecture's statistics",
        partial(plain_deep, True, statistics=True),
        [("train, ratios every 10th step", partial(Course, PART_2[True], record_ratios_every=10), 2.3)],
    )


def a_pass(model, X, Y):
    """The least that any look costs: one pass. It leaves the running statistics as they were, as diagnose does."""
    before = [buffer.clone() for buffer in model.buffers()]
    torch.autograd.grad(F.cross_entropy(model(X), Y), list(model.parameters()))
    for buffer, old in zip(model.buffers(), before, strict=True):
        buffer.copy_(old)


@contextmanager
def activation_stats(network, every=20):
    """What a course on hooks has its learner write: mean, std and histogram of each layer's output, nothing else."""
    kept = []

    def keep(layer, inputs, output):
        steps[layer] = steps.get(layer, -1) + 1
        if steps[layer] % every == 0:
            out = output.detach().float()
            kept.append((out.mean().item(), out.std().item(), torch.histc(out, 40)))

    steps, handles = {}, [layer.register_forward_hook(keep) for layer in network.model]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def watching():
    """What watching adds to part 2's network with BatchNorm, in per cent: (name, how to make it, goal).

    A look takes (model, X, Y); every 20th step it is given 32 examples. What stands around a loop of torch's own is
    compared with that loop. Others are added as rows here.
    """
    make, own = partial(Course, PART_2[True]), partial(Usual, with_torchs_batch_norm(PART_2[True]))

    def watched(network, every):
        return watch(network.model, network.optimizer, every=every)

    return [
        ("a torch loop, watch every 20th step", partial(own, around=partial(watched, every=20)), 5),
        ("a torch loop, watch every step", partial(own, around=partial(watched, every=1)), None),
        ("a torch loop, plain ActivationStats every 20th step", partial(own, around=activation_stats), None),
        ("update:data ratios every 10th step", partial(make, record_ratios_every=10), 3),
        ("update:data ratios every step", partial(make, record_ratios_every=1), 20),
        ("one forward and backward pass every 20th step", partial(make, look=a_pass), None),
        (
            "diagnose every 20th step, no histograms",
            partial(make, look=partial(diagnose, lr=0.1, histograms=False)),
            20,
        ),
        ("diagnose every 20th step", partial(make, look=partial(diagnose, lr=0.1)), 30),
    ]


def profile(part, batch_norm, networks, X, Y):
    """Where the time of a step by hand of a stack goes: [(name, seconds per step and network)], the largest first."""
    model = (PART_1 if part == 1 else PART_2)[batch_norm](generator=seeded(1), num_models=networks)
    network, times = ByHand(model), {}

    def timed(layer, name, *args):
        start = time.perf_counter()
        result = getattr(layer, name)(*args)
        times.setdefault((layer, name), []).append(time.perf_counter() - start)
        return result

    for step in range(100):
        ix = torch.randint(0, len(X), (32,), generator=seeded(step))
        network.forward(X[ix], Y[ix])  # makes the layers, the first time
        x = X[ix].numpy()
        for layer in network.layers:
            x = timed(layer, "forward", x)
        timed(network.loss, "forward", x, Y[ix].numpy())
        dx = timed(network.loss, "backward")
        for layer in reversed(network.layers):
            dx = timed(layer, "backward", dx)
    spent = {}
    for (layer, name), seconds in times.items():
        kind = f"{type(layer).__name__} {name}"
        spent[kind] = spent.get(kind, 0) + median(seconds) / networks
    return [(kind, seconds) for kind, seconds in sorted(spent.items(), key=lambda row: -row[1]) if seconds > 1e-7]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=11, help="turns that each median is over")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench.json", help="where to write")
    args = parser.parse_args()
    if args.turns < 1:
        parser.error(f"--turns {args.turns}: give 1 or more")
    torch.set_num_threads(1)
    X, Y = load_splits().train
    rows = []

    def add(group, name, seconds, value, unit, goal):
        row = dict(group=group, name=name, microseconds=round(seconds * 1e6, 1), value=value, unit=unit, goal=goal)
        rows.append(row)
        print(as_line(row), flush=True)

    for group, plain, contenders in groups():
        check_all(group, plain, contenders, X, Y)
        times = measure([plain(), *(make() for _, make, _ in contenders)], X, Y, args.turns)
        add(group, "the lecture's loop", median(row[0] for row in times), 1.0, "x", None)
        for i, (name, _, goal) in enumerate(contenders, 1):
            ratio = median(row[0] / row[i] for row in times)
            add(group, name, median(row[i] for row in times), round(ratio, 2), "x", goal)
    group, watched = "what watching adds (part 2's network, with BatchNorm)", watching()
    check_all(group, partial(plain_deep, True), watched, X, Y)
    # Trained 20 steps at a time where there is a look, so is what it is compared with.
    unwatched = [Course(PART_2[True]), Course(PART_2[True], look=lambda *args: None)]
    unwatched.append(Usual(with_torchs_batch_norm(PART_2[True])))
    times = measure([*unwatched, *(make() for _, make, _ in watched)], X, Y, args.turns)
    for i, (name, make, goal) in enumerate(watched, 3):
        base = 2 if "around" in make.keywords else 1 if "look" in make.keywords else 0
        added = median(row[i] / row[base] for row in times) - 1
        add(group, name, median(row[i] for row in times), round(100 * added, 1), "%", goal)
    for part, batch_norm, networks in ((1, True, 16), (2, True, 8)):
        group = f"where a step by hand goes (part {part}'s network, with BatchNorm, a stack of {networks})"
        for name, seconds in profile(part, batch_norm, networks, X, Y):
            add(group, name, seconds, None, "", None)

    on = machine()
    results = json.dumps({"machine": on, "rows": rows}, indent=1) + "\n"
    write_atomically(args.out, results.encode())
    write_atomically(args.out.with_suffix(".md"), as_table(rows, on).encode())


def machine():
    on = dict(processor=processor(), cores=os.cpu_count(), python=platform.python_version(), torch=torch.__version__)
    return on | dict(kernels=torch.backends.cpu.get_cpu_capability(), numpy=numpy.__version__, blas=blas())


def blas():
    """For which processor NumPy's OpenBLAS has kernels here: where it does not know the machine's, they are slow."""
    loud = os.environ | {"OPENBLAS_VERBOSE": "2"}
    says = subprocess.run([sys.executable, "-c", "import numpy"], check=True, env=loud, capture_output=True, text=True)
    core = re.search(r"Core: (\w+)", says.stdout + says.stderr)
    return f"OpenBLAS for {core[1]}" if core else "unknown"


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def measured(row):
    return {"x": "{:.2f} ×", "%": "{:+.0f} %", "": ""}[row["unit"]].format(row["value"])


def as_line(row):
    goal = f"   (goal {row['goal']:g})" if row["goal"] else ""
    return f"{row['group'][:42]:42}  {row['name']:46} {row['microseconds']:7.1f} us {measured(row):>8}{goal}"


def as_table(rows, m):
    where = f"{m['processor']}, {m['cores']} cores, one thread; Python {m['python']}, torch {m['torch']}"
    lines = [
        f"Made by `make bench`: {where} ({m['kernels']}), NumPy {m['numpy']} ({m['blas']}).",
        "In µs of CPU time for a step and network; × the work of the lecture's loop in the same time.",
        "The goals are for a machine with AVX2 and without AVX-512.",
    ]
    group = None
    for row in rows:
        if row["group"] != group:
            group = row["group"]
            lines += ["", f"| {group} | µs | | goal |", "|---|---|---|---|"]
        goal = "" if row["goal"] is None else f"{row['goal']:g} {'×' if row['unit'] == 'x' else '%'}"
        lines.append(f"| {row['name']} | {row['microseconds']:.1f} | {measured(row)} | {goal} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
