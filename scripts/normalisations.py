"""Train networks with six normalisations and with none, each at four learning rates, for X04; and four sick ones.

Writes data/results/normalisations.json after every run: an interrupted one goes on where it stopped (about ten minutes
in all). The rates and seeds of a run train as one stack; a seed decides init and minibatches.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import torch
import torch.nn.functional as F
from torch import nn

from common import RESULTS
from helpers.data import build_dataset, load_splits
from helpers.layers import BatchNorm1d, Linear, Sequential
from helpers.models import deep_mlp, seeded
from helpers.train import evaluate, train
from sweep import sweep
from sweep_parts import by_seed, need_lecture_names, recalibrate, some_of

KINDS = ("none", "BatchNorm", "LayerNorm", "GroupNorm", "RMSNorm", "WeightNorm")
RATES = (0.03, 0.1, 0.3, 1.0)
SEEDS = (0, 1, 2)
PARTS = {  # how deep, with which nonlinearity, how many steps, on which minibatches, where the norm stands
    "tanh, 6": dict(depth=6, steps=1500),
    "relu, 6": dict(depth=6, steps=1500, nonlinearity="relu", gain=2**0.5),
    "tanh, 20": dict(depth=20, steps=800),
    "batch of 4": dict(depth=6, steps=2000, batch_size=4),
    "batch of 2": dict(depth=6, steps=2000, batch_size=2),
    "relu, 6, after": dict(depth=6, steps=1500, nonlinearity="relu", gain=2**0.5, after=True),
}
AFTER = ("BatchNorm", "LayerNorm", "RMSNorm")  # the kinds of the last part
NAMES_PER_BATCH = (1, 2, 4, 8, 16)
REPORTS = ("A", "B", "C", "D")  # exercise X04.2: their faults stand in the lesson's check
GROUPS, DECAY, EXAMPLES = 10, 0.7, 8192  # the last 30 % of the steps take a tenth of the rate


class Norm(nn.Module):
    """torch.nn's LayerNorm, GroupNorm or RMSNorm of 100 features, a gamma and a beta for each network of a stack."""

    def __init__(self, kind, num_models):
        super().__init__()
        self.kind, self.gamma = kind, nn.Parameter(torch.ones(num_models, 1, 100))
        self.beta = nn.Parameter(torch.zeros(num_models, 1, 100)) if kind != "RMSNorm" else 0

    def forward(self, x):
        if self.kind == "GroupNorm":  # a LayerNorm of each group
            x = F.layer_norm(x.unflatten(-1, (GROUPS, -1)), (100 // GROUPS,)).flatten(-2)
        else:
            x = F.layer_norm(x, (100,)) if self.kind == "LayerNorm" else F.rms_norm(x, (100,), eps=1e-5)
        return self.gamma * x + self.beta


class WeightNormed(nn.Module):
    """A Linear whose columns have two parameters: a direction, and a length."""

    def __init__(self, linear):
        super().__init__()
        self.direction, self.bias = linear.weight, linear.bias
        self.length = nn.Parameter(linear.weight.detach().norm(dim=-2, keepdim=True))

    def forward(self, x):
        return x @ (self.length * F.normalize(self.direction, dim=-2)) + self.bias.unsqueeze(-2)


def network(kind, *, depth, seeds, nonlinearity="tanh", gain=5 / 3, after=False):
    """A stack of deep_mlps, one for each seed; after every hidden Linear, or after its nonlinearity, stands a norm."""
    how = dict(depth=depth, nonlinearity=nonlinearity, gain=gain, generator=[seeded(seed) for seed in seeds])
    layers = []
    for layer in (net := deep_mlp(**how, num_models=len(seeds))):
        hidden = isinstance(layer, Linear) and layer is not net[-1]
        layers.append(WeightNormed(layer) if kind == "WeightNorm" and hidden else layer)
        if kind not in ("none", "WeightNorm") and (isinstance(layer, nn.Tanh | nn.ReLU) if after else hidden):
            batch_norm = kind == "BatchNorm"
            layers.append(BatchNorm1d(100, num_models=len(seeds)) if batch_norm else Norm(kind, len(seeds)))
    return Sequential(*layers)


def run(name, *, steps=None):
    """The results of the run of that name. steps: fewer than usual, for a test."""
    torch.set_num_threads(1)
    part, kind = name.rsplit(", ", 1)
    if part == "names per batch":
        return by_names(int(kind), steps=steps or 3000)
    return report(kind, steps=steps) if part == "report" else losses(part, kind, steps=steps)


def losses(part, kind, *, steps=None):
    """Losses on validation examples: a list of the seeds' for each rate. BatchNorm's with three kinds of statistics."""
    setting = PARTS[part] if steps is None else PARTS[part] | {"steps": steps}
    steps, batch_size = setting["steps"], setting.get("batch_size", 32)
    seeds = [seed for _ in RATES for seed in SEEDS]
    stack = network(kind, seeds=seeds, **{k: v for k, v in setting.items() if k not in ("steps", "batch_size")})
    splits, rates = load_splits(), torch.tensor(RATES).repeat_interleave(len(SEEDS))
    how = dict(generator=[seeded(100 + seed) for seed in seeds], batch_size=batch_size, progress=False)
    train(stack, *splits.train, steps=steps, lr=lambda step: rates if step < DECAY * steps else rates / 10, **how)
    X, Y = some_of(splits.val, EXAMPLES)
    found = {"val": evaluate(stack, X, Y)}
    if kind == "BatchNorm":
        found["batch"] = torch.stack([train_mode_loss(stack, x, y) for x, y in batches(X, Y, batch_size)]).mean(0)
        recalibrate(stack, some_of(splits.train, EXAMPLES)[0])
        found["precise"] = evaluate(stack, X, Y)
    return {which: by_seed(loss, SEEDS, most=100) for which, loss in found.items()}


def batches(X, Y, size, most=64):
    return list(zip(X.split(size), Y.split(size), strict=True))[:most]


@torch.no_grad()
def train_mode_loss(stack, x, y):
    """With the statistics of these examples; the running ones are moved by it."""
    logits = stack.train()(x)
    return torch.stack([F.cross_entropy(each, y) for each in logits])


def by_names(n, *, steps, words=None, seeds=SEEDS):
    """BatchNorm, two Linears, minibatches of the windows of n names: last losses, unseen names alike, validation."""
    splits, found = load_splits(), {"train": [], "alike": [], "val": []}
    for seed in seeds:
        net, g = network("BatchNorm", depth=2, seeds=[seed]), seeded(100 + seed)
        kept = descend(net, name_batches(splits.words["train"], splits, n, steps, g), steps)
        alike = [train_mode_loss(net, x, y).item() for x, y in name_batches(splits.words["val"], splits, n, 300, g)]
        recalibrate(net, some_of(splits.train, EXAMPLES)[0])
        each = kept, sum(alike) / len(alike), evaluate(net, *some_of(splits.val, EXAMPLES)).item()
        for part, loss in zip(found, each, strict=True):
            found[part].append(round(loss, 4))
    return found


def name_batches(words, splits, n, steps, generator):
    for ix in torch.randint(0, len(words), (steps, n), generator=generator).tolist():
        yield build_dataset([words[i] for i in ix], splits.stoi)


def shuffled(x, y, steps, generator):
    for ix in torch.randint(0, len(x), (steps, 32), generator=generator):
        yield x[ix], y[ix]


def descend(net, minibatches, steps, lr=0.3):
    """Plain SGD on them, the last 30 % at a tenth of the rate; returns the mean of the last tenth's losses."""
    last = []
    for step, (x, y) in enumerate(minibatches):
        loss = F.cross_entropy(net.train()(x)[0], y)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for p, gradient in zip(net.parameters(), gradients, strict=True):
                p -= (lr if step < DECAY * steps else lr / 10) * gradient
        if step >= 0.9 * steps:
            last.append(loss.item())
    return sum(last) / len(last)


def report(letter, *, steps=None):
    """Five losses of a network with BatchNorm that is sick in one way, as a doctor would ask for them."""
    splits, g = load_splits(), seeded(7)
    words = {"train": splits.words["train"][: 150 if letter == "B" else None], "val": splits.words["val"]}
    if letter == "D":
        words["val"] = [word[::-1] for word in words["val"]]
    sets = {part: build_dataset(chosen, splits.stoi) for part, chosen in words.items()}

    def drawn(part, count):
        by_name = name_batches(words[part], splits, 1, count, g)
        return by_name if letter == "A" else shuffled(*sets[part], count, g)

    steps, net = steps or (6000 if letter == "B" else 2000), network("BatchNorm", depth=2, seeds=[0])
    found = {"training minibatches, train mode": descend(net, drawn("train", steps), steps)}
    if letter == "C":  # somebody looks at a few odd minibatches, and forgets eval mode
        for _ in range(20):
            train_mode_loss(net, torch.zeros(32, 3, dtype=torch.int64), torch.zeros(32, dtype=torch.int64))
    found["training examples, eval mode"] = evaluate(net, *some_of(sets["train"], EXAMPLES)).item()
    eval_mode = evaluate(net, *some_of(sets["val"], EXAMPLES)).item()
    alike = [train_mode_loss(net, x, y).item() for x, y in drawn("val", 300)]
    found["validation, minibatches made as in training, train mode"] = sum(alike) / len(alike)
    recalibrate(net, some_of(sets["train"], EXAMPLES)[0])
    found |= {
        "validation, eval mode": eval_mode,
        "the same, statistics taken afresh": evaluate(net, *some_of(sets["val"], EXAMPLES)).item(),
    }
    return {part: round(loss, 2) for part, loss in found.items()}


def main():
    log = {"names": need_lecture_names(), "parts": PARTS, "rates": RATES, "seeds": SEEDS, "decay": DECAY}
    log |= {"examples": EXAMPLES, "groups": GROUPS, "runs": {}}
    names = [f"report, {letter}" for letter in REPORTS] + [f"names per batch, {n}" for n in NAMES_PER_BATCH]
    names += [f"{part}, {kind}" for part in PARTS for kind in (AFTER if "after" in part else KINDS)]
    sweep(RESULTS / "normalisations.json", log, run, names, jobs=1)


if __name__ == "__main__":
    main()
