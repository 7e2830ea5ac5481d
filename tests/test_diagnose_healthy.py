"""What trains well is left alone, and what does not is said: rates, schedules, groups, momentum, what begins at zero."""

import sys
from functools import cache
from itertools import pairwise
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.diagnostics import diagnose, watch
from test_diagnose_faults import Net, X, Y, mlp, says, seed, sgd, usual, watched  # noqa: F401  seed: of each test

CENTRES = torch.randn(10, 20, generator=torch.Generator().manual_seed(7))


def clusters(step, n=64):
    """Ten clusters in 20 dimensions: a task that is learnt."""
    g = torch.Generator().manual_seed(step + 100)
    y = torch.randint(0, 10, (n,), generator=g)
    return CENTRES[y] + torch.randn(n, 20, generator=g), y


def training(model, optimizer, data=clusters, loss_fn=F.cross_entropy, steps=100, every=20, after=lambda step: None):
    """(warnings, the first loss, the last)."""
    losses = []
    with watch(model, optimizer, every=every) as seen:
        for step in range(steps):
            x, y = data(step)
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            after(step)
            losses.append(loss.item())
    return seen.warnings, losses[0], sum(losses[-10:]) / 10


def deep(depth=2, init=None, activation=nn.ReLU):
    widths = [20] + [64] * depth
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), activation())]
    net = nn.Sequential(*layers, nn.Linear(64, 10))
    for layer in net if init else ():
        if isinstance(layer, nn.Linear):
            init(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


# Rates


HEALTHY = {
    "six ReLU layers": (lambda: deep(6, nn.init.kaiming_normal_), 0.05, 0),
    "tanh, Xavier": (lambda: deep(2, nn.init.xavier_uniform_, nn.Tanh), 0.1, 0),
    "three times that": (lambda: deep(2, nn.init.xavier_uniform_, nn.Tanh), 0.3, 0),
    "momentum": (deep, 0.05, 0.9),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_rates_that_train_well_are_not_too_high(name):
    make, lr, momentum = HEALTHY[name]
    net = make()
    optimizer = torch.optim.SGD(net.parameters(), lr, momentum=momentum)
    x, y = clusters(0)
    first = diagnose(net, x, y, optimizer=optimizer)
    assert not says(first.warnings, "rate") and (
        first.rises is False or max(p.update_to_data or 0 for p in first.parameters) < 0.1
    )
    said, start, end = training(net, optimizer)
    assert not says(said, "rate") and end < start / 3


@pytest.mark.parametrize("how", ["lr", "optimizer"])
def test_a_rate_at_which_the_loss_rises_is_too_high_and_the_trial_leaves_nothing(how):
    net, (x, y) = deep(2, nn.init.xavier_uniform_, nn.Tanh), clusters(0)
    optimizer = torch.optim.SGD(net.parameters(), 20.0)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    before, state = [p.detach().clone() for p in net.parameters()], torch.get_rng_state()
    result = diagnose(net, x, y, **({"lr": 20.0} if how == "lr" else {"optimizer": optimizer}))
    assert result.rises and says(result.warnings, "rate is probably too high")
    assert all(map(torch.equal, before, net.parameters())) and torch.equal(torch.get_rng_state(), state)
    assert net[0].weight.grad.eq(1).all() and net[2].weight.grad is None and not optimizer.state


def test_a_rate_too_high_by_less_is_found_by_the_mean_of_the_steps_on_trial():
    """A regression at rate 0.5: loss 1.7, then 1.6, 3.8, 2.6, 1.7, 1.3. It ends at 1.5, and with 0.05 at 0.2."""
    torch.manual_seed(1)
    net, (x, _) = nn.Sequential(*deep()[:-1], nn.Linear(64, 1)), clusters(0)
    y = torch.sin(x[:, :1]) + x[:, 1:2]
    for lr, rises in (0.2, False), (0.5, True):
        look = diagnose(net, x, y, loss_fn=F.mse_loss, lr=lr)
        assert look.rises == rises == says(look.warnings, "rate is probably too high")
    tanh = diagnose(deep(2, nn.init.xavier_uniform_, nn.Tanh), *clusters(0), lr=1.0)  # it learns as well as with 0.3
    assert sorted(p.update_to_data or 0 for p in tanh.parameters)[3] > 0.1 and tanh.rises is False and not tanh.warnings


def test_weights_that_nothing_holds_are_put_back_after_a_trial():
    secret = iter([(torch.randn(20, 10) * 0.1).requires_grad_() for _ in range(2)])  # an iterator is not looked into
    W, V = secret
    kept = W.detach().clone()

    class Odd:
        __slots__ = ()

        def __call__(self, x):
            return torch.tanh(x @ W) @ V[:10]

    assert diagnose(Odd(), *clusters(0), lr=100.0).rises and torch.equal(W, kept)


def test_a_model_that_can_be_called_once_is_not_tried():
    net, calls = deep(2, nn.init.xavier_uniform_, nn.Tanh), []

    def once(x):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError
        return net(x)

    assert diagnose(once, *clusters(0), lr=20.0).rises is None and not calls


def test_momentum_makes_steps_longer_later():
    net = deep()
    for lr, is_low in (3e-3, False), (1e-5, True):
        optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9)
        result = diagnose(net, *clusters(0), optimizer=optimizer)
        assert says(result.warnings, "probably too low") == is_low
        assert result.parameters[0].growth == pytest.approx(10) and result.parameters[0].lr == lr


WARM = {
    "from 0": lambda t: min(1, t / 40),
    "from little": lambda t: min(1, (t + 1) / 1e6),
    "to 0": lambda t: max(0, 1 - t / 90),
}


@pytest.mark.parametrize("name", WARM)
@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD])
def test_a_schedule_may_begin_or_end_at_a_rate_of_zero(name, make):
    net = deep()
    optimizer = make(net.parameters(), 3e-3 if make is torch.optim.AdamW else 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, WARM[name])
    assert not diagnose(net, *clusters(0), optimizer=optimizer).warnings
    assert not training(net, optimizer, after=lambda step: schedule.step())[0]


def test_a_schedule_by_hand_too_and_a_rate_of_zero_is_still_said():
    net = deep()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)

    def warm(step):
        optimizer.param_groups[0]["lr"] = 0.1 * min(1, step / 40)

    assert not training(net, optimizer, after=warm)[0]
    optimizer.param_groups[0]["lr"] = 0.0
    assert says(training(net, optimizer, steps=30)[0], "learning rate is 0")
    assert says(diagnose(net, *clusters(0), optimizer=optimizer).warnings, "learning rate is 0")


def test_a_schedule_by_epoch_that_is_stepped_per_batch_is_said():
    net = deep()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    said, start, end = training(net, optimizer, every=5, after=lambda step: schedule.step())
    assert says(said, "scheduler", "per epoch") and end > 0.9 * start


def test_what_has_learned_may_be_tuned_in_small_steps():
    net = deep()
    tune = lambda: torch.optim.AdamW(net.parameters(), 1e-6)
    assert says(diagnose(net, *clusters(0), optimizer=tune()).warnings, "probably too low")
    training(net, torch.optim.Adam(net.parameters(), 3e-3))
    assert not diagnose(net, *clusters(1), optimizer=tune()).warnings and not training(net, tune(), steps=30)[0]
    net[0].requires_grad_(False)
    frozen = deep()
    frozen[0].requires_grad_(False)
    rest = torch.optim.AdamW([p for p in frozen.parameters() if p.requires_grad], 1e-6)
    assert not diagnose(frozen, *clusters(0), optimizer=rest).warnings


def test_groups_with_rates_of_their_own():
    net = deep()
    groups = [dict(params=net[:4].parameters(), lr=1e-6), dict(params=net[4].parameters(), lr=1e-3)]
    for optimizer in torch.optim.AdamW(groups), torch.optim.SGD([dict(g) for g in groups], 0.1):
        optimizer.param_groups[1]["lr"] = 1e-3 if isinstance(optimizer, torch.optim.AdamW) else 0.1
        assert not diagnose(net, *clusters(0), optimizer=optimizer).warnings
    low = torch.optim.SGD(net.parameters(), 1e-6)
    assert says(diagnose(net, *clusters(0), optimizer=low).warnings, "probably too low")
    for group in optimizer.param_groups:  # made with 0.1: a loop warms it up by hand
        group["lr"] = 1e-6
    assert not diagnose(net, *clusters(0), optimizer=optimizer).warnings


@pytest.mark.parametrize("others", [torch.optim.Adam, torch.optim.SGD, None])
def test_adam_of_a_part_of_the_model_does_not_stop_the_loop(others):
    net = deep()
    head, rest = torch.optim.Adam(net[4].parameters(), 1e-3), others and others(net[:4].parameters(), 1e-3)
    with watch(net, head, every=2) as seen:
        for step in range(6):
            net.zero_grad()
            x, y = clusters(step)
            F.cross_entropy(net(x), y).backward()
            if rest:
                rest.step()
            head.step()
    rows = {row.name: row for row in seen.records[1][1].parameters}
    assert rows["4.weight"].adam_to_data > 0 and rows["0.weight"].adam_to_data is rows["0.weight"].update_rule is None
    assert rows["0.weight"].update_std is None
    assert says(seen.warnings, "not held") == (others is None) and len(seen.warnings) == (others is None)


DECAYS = {
    "Adam": (lambda p: torch.optim.Adam(p, 1e-3, weight_decay=1.0), True),
    "SGD": (lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.5), True),
    "AdamW": (lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=100.0), True),
    "AdamW, usual": (lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1), False),
    "SGD, usual": (lambda p: torch.optim.SGD(p, 0.1, weight_decay=1e-3), False),
}


@pytest.mark.parametrize("name", DECAYS)
def test_weight_decay_that_eats_the_weights(name):
    make, is_fault = DECAYS[name]
    net = deep()
    assert says(diagnose(net, *clusters(0), optimizer=make(net.parameters())).warnings, "weight_decay") == is_fault
    said, start, end = training(net, make(net.parameters()), steps=200)
    assert says(said, "weight_decay") == is_fault == (end > 0.9 * start)


def test_a_usual_decay_of_what_has_converged_is_no_fault():
    net, (x, _) = deep(), clusters(0)
    optimizer, y = torch.optim.SGD(net.parameters(), 0.1, weight_decay=1e-4), 0.5 * x[:, :10]
    training(net, optimizer, lambda step: (x, y), F.mse_loss, steps=400)
    assert not says(diagnose(net, x, y, loss_fn=F.mse_loss, optimizer=optimizer).warnings, "decay")


BCE = F.binary_cross_entropy_with_logits
CONVERGED = {
    "regression": (lambda x, y: 0.5 * x[:, :1], F.mse_loss, 1500, []),
    "two classes": (lambda x, y: (y < 5).float()[:, None], BCE, 600, []),
    "two classes, probabilities": (lambda x, y: (y < 5).float()[:, None], F.binary_cross_entropy, 600, [nn.Sigmoid()]),
}


@pytest.mark.parametrize("name", CONVERGED)
def test_what_has_converged_is_not_accused_of_its_small_steps(name):
    targets, loss_fn, steps, end = CONVERGED[name]
    x, y = clusters(0)
    net, y = nn.Sequential(*deep()[:-1], nn.Linear(64, 1), *end), targets(x, y)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, weight_decay=1e-4)
    assert not diagnose(net, x, y, loss_fn=loss_fn).has_learned
    training(net, optimizer, lambda step: (x, y), loss_fn, steps=steps)
    found = diagnose(net, x, y, loss_fn=loss_fn, optimizer=optimizer)
    assert found.has_learned and not found.warnings
    assert not training(net, optimizer, lambda step: (x, y), loss_fn, steps=60)[0]  # watched from there on
    slow = diagnose(net, x, y[torch.randperm(len(y))], loss_fn=loss_fn, lr=1e-7)
    assert not slow.has_learned and says(slow.warnings, "too low")


# Begun at zero


def rezero():
    alpha = nn.Parameter(torch.zeros(()))
    return Net(lambda self, x: x + self.alpha * F.relu(self.linear(x)), linear=nn.Linear(12, 12), alpha=alpha)


@pytest.mark.parametrize("start", range(8))
def test_rezero_is_healthy_whatever_the_seed(start):
    torch.manual_seed(start)
    net = nn.Sequential(rezero(), rezero(), rezero(), nn.Linear(12, 5))
    optimizer = sgd(net)
    assert not watched(net, optimizer, usual(net, optimizer), 60, 5).warnings


class Coupling(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 6)
        for p in self.b.parameters():
            nn.init.zeros_(p)

    def forward(self, x):
        scale = torch.tanh(self.b(torch.relu(self.a(x[:, :6])))).exp()
        return torch.cat([x[:, :6], x[:, 6:] * scale], 1)


def test_a_flow_that_begins_as_the_identity():
    net = nn.Sequential(Coupling(), Coupling(), Coupling())
    adam, size = torch.optim.Adam(net.parameters(), 1e-3), lambda z: z.square().mean()
    for how in dict(lr=0.1), dict(optimizer=adam):
        assert not diagnose(net, X, loss_fn=size, **how).warnings
    assert not training(net, adam, lambda step: (X, None), lambda z, _: size(z))[0]
    for p in net.parameters():
        nn.init.zeros_(p)
    assert says(diagnose(net, X, loss_fn=size, lr=0.1).warnings, "same number everywhere")


# Depth and width


class Block(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(12), nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 12))
        self.scale = scale

    def forward(self, x):
        return self.scale * x + self.mlp(self.norm(x))


def test_the_branches_of_residual_blocks_are_no_chain():
    for scale, words in (8.0, None), (1e4, "explode"):
        net = nn.Sequential(*(Block(scale) for _ in range(3)), nn.Linear(12, 5))
        assert says(diagnose(net, X, Y).warnings, "gradients explode") == bool(words)


class ResidualBlock(nn.Module):
    """As in the first ResNet: what follows the sum is an activation, a function or the layer that was called before."""

    def __init__(self, relu):
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(12, 12), nn.Linear(12, 12), relu

    def forward(self, x):
        return self.relu(8 * x + self.b(self.relu(self.a(x))))


@pytest.mark.parametrize("relu", [F.relu, nn.ReLU()])
def test_blocks_that_end_with_an_activation_are_no_chain(relu):
    blocks = [ResidualBlock(relu if relu is F.relu else nn.ReLU()) for _ in range(3)]
    assert not says(diagnose(nn.Sequential(*blocks, nn.Linear(12, 5)), X, Y).warnings, "explode")


def test_an_output_layer_is_not_compared_with_gates_or_queries():
    class Highway(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Linear(20, 32), nn.Linear(32, 10)
            self.h, self.t = (nn.ModuleList([nn.Linear(32, 32) for _ in range(8)]) for _ in "ht")
            for gate in self.t:
                nn.init.constant_(gate.bias, -2)

        def forward(self, x):
            x = self.first(x)
            for h, t in zip(self.h, self.t, strict=True):
                gate = torch.sigmoid(t(x))
                x = gate * F.relu(h(x)) + (1 - gate) * x
            return self.out(x)

    net = Highway()
    assert not diagnose(net, *clusters(0)).warnings and not training(net, sgd(net), steps=60)[0]


def test_dead_units_need_examples_and_another_cause_where_the_signal_has_faded():
    conv = nn.Conv2d(3, 16, 3)
    with torch.no_grad():
        conv.bias[:12] = -100  # 11 would be a coin's luck
    for n, is_said in (1, False), (4, False), (16, True):  # the places of one image are alike
        found = diagnose(nn.Sequential(conv, nn.ReLU()), torch.randn(n, 3, 8, 8), loss_fn=None)
        assert found.activations[1].dead == 0.75 and says(found.warnings, "dead") == is_said
    torch.manual_seed(1)
    net = deep(10)  # torch's own init: about half are off by their biases
    said = diagnose(net, *clusters(0)).warnings
    assert says(said, "shrink") and not says(said, "dead")
    for layer in net[::2]:
        layer.bias.data -= 0.05
    said = diagnose(net, *clusters(0)).warnings
    assert says(said, "dead", "too small") and not says(said, "dead", "learning rate")


def test_two_heads_in_any_order():
    for order in (0, 1), (1, 0):
        net = Net(lambda self, x: self.both(torch.relu(self.body(x))), body=nn.Linear(12, 16), obj=nn.Linear(16, 3),
                  box=nn.Linear(16, 4))  # fmt: skip
        heads = lambda h, net=net: torch.sigmoid(100 * net.obj(h)), lambda h, net=net: net.box(h)
        net.both = lambda h, heads=heads, order=order: tuple(heads[i](h) for i in order)
        optimizer, loss = sgd(net), lambda out: sum(t.square().mean() for t in out)
        assert not says(diagnose(net, X, loss_fn=loss).warnings, "saturated")

        def body(step, net=net, optimizer=optimizer, loss=loss):
            optimizer.zero_grad()
            loss(net(X)).backward()
            optimizer.step()

        assert not says(watched(net, optimizer, body).warnings, "saturated")


@pytest.mark.parametrize(
    "clamp", [lambda h: h.clamp(-1, 1), lambda h: torch.clamp(h, min=-1.0, max=1.0), lambda h: torch.clip(h, -1, 1)]
)
def test_a_clamp_to_one_is_a_hardtanh(clamp):
    net = Net(lambda self, x: self.b(clamp(self.a(clamp(x)))), a=nn.Linear(12, 9), b=nn.Linear(9, 5))
    with torch.no_grad():
        net.a.weight *= 100
    names = [row.name for row in diagnose(net, X, Y).activations if row.saturated is not None]
    assert len(names) == 1 and says(diagnose(net, X, Y).warnings, names[0], "saturated")  # not that of the inputs
    limited = Net(lambda self, x: self.b(self.a(x).clamp(-20, 2)), a=nn.Linear(12, 9), b=nn.Linear(9, 5))
    assert len(diagnose(limited, X, Y).activations) == 2


# The loss, the data


def test_a_loss_that_was_cut_off_and_given_requires_grad():
    net = mlp()
    cuts = (
        lambda out, y: F.cross_entropy(out, y).detach().requires_grad_(),
        lambda out, y: torch.tensor(F.cross_entropy(out, y).item(), requires_grad=True),
        lambda out, y: F.cross_entropy(out.detach().requires_grad_(), y),
    )
    for cut in cuts:
        for how in {}, dict(optimizer=sgd(net)):
            assert says(diagnose(net, X, Y, loss_fn=cut, **how).warnings, "cut off", "requires_grad")


def test_a_large_loss_of_what_has_learned_is_no_fault_of_the_init():
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters(), 3e-2)
    with torch.no_grad():
        net[4].weight *= 30
    assert says(diagnose(net, X, Y).warnings, "ln(5)", "last layer")
    watched(net, optimizer, usual(net, optimizer), 300, 100)
    noisy = diagnose(net, X + 0.7 * torch.randn_like(X), Y)
    assert noisy.loss > 2.7 and noisy.has_learned and not noisy.warnings


def test_targets_that_the_output_does_not_reach():
    x = X[:, :1]
    tail = lambda *end: nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 1), *end)
    prices = diagnose(tail(), X, 1e5 + 1e4 * x, loss_fn=F.mse_loss).warnings
    assert says(prices, "targets", "standardise")
    assert says(diagnose(tail(nn.Sigmoid()), X, 20 + 10 * x.abs(), loss_fn=F.mse_loss).warnings, "Sigmoid", "0 to 1")
    assert says(diagnose(tail(nn.ReLU()), X, -x.abs(), loss_fn=F.mse_loss).warnings, "ReLU", "targets")
    scaled = Net(lambda self, x: 60 * self.body(x), body=tail(nn.Sigmoid()))
    assert not diagnose(scaled, X, 20 + 10 * x.abs(), loss_fn=F.mse_loss).warnings
    own = lambda out, y: F.mse_loss(out, y.log())
    assert not diagnose(tail(), X, 1e5 + 1e4 * x.abs(), loss_fn=own).warnings
    assert not diagnose(tail(nn.Sigmoid()), X, (x > 0).float(), loss_fn=F.binary_cross_entropy).warnings


PULLS = {
    "prices": (lambda x: 1e5 + 1e4 * x, F.mse_loss, 1e-3, True),
    "prices that spread": (lambda x: 2e5 + 1e5 * x, F.mse_loss, 1e-3, True),
    "scaled": (lambda x: x, F.mse_loss, 1e-3, False),
    "a large weight": (lambda x: x.sin(), lambda out, y: 1e4 * F.mse_loss(out, y), 1e-3, False),
    "a sum": (lambda x: x, lambda out, y: F.mse_loss(out, y, reduction="sum"), 1e-3, False),
    "far, but reached": (lambda x: 50 + 10 * x, F.mse_loss, 3e-2, False),
    "one class": (lambda x: torch.ones_like(x), lambda out, y: BCE(out, y, reduction="sum"), 1e-4, False),
    "a critic": (lambda x: x, lambda out, y: 50 * out.mean(), 1e-4, False),
}


@pytest.mark.parametrize("name", PULLS)
def test_targets_that_are_far_from_the_output_all_the_way(name):
    targets, loss_fn, rate, is_far = PULLS[name]
    net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))

    def data(step):
        x, _ = clusters(step)
        return x, targets(x[:, :1])

    said, *_ = training(net, torch.optim.Adam(net.parameters(), rate), data, loss_fn, steps=200)
    assert says(said, "the loss pulls", "standardise") == is_far and len(said) == is_far


def test_inputs_that_say_nothing():
    for x in X / 1e5, torch.zeros(64, 12), X[:1].expand(64, -1):
        assert says(diagnose(mlp(), x, Y).warnings, "inputs")
    assert not diagnose(mlp(), X / 10, Y).warnings
    normed = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 5))  # the scale of its inputs is no matter
    assert not diagnose(normed, X / 1e4, Y).warnings
    net = Net(lambda self, i, mask: self.b(self.a(i) * mask), a=nn.Embedding(5, 8), b=nn.Linear(8, 5))
    assert not says(diagnose(net, (Y, torch.ones(64, 8)), Y).warnings, "inputs")


def test_a_weight_that_was_forgotten_among_the_plain_tensors():
    W1, W2, b = torch.randn(12, 20) * 0.2, torch.randn(20, 5) * 0.2, torch.zeros(5)
    for p in W1, b:
        p.requires_grad_()
    f = lambda x: torch.tanh(x @ W1) @ W2 + b
    (text,) = diagnose(f, X, Y).warnings
    assert text.startswith("W2: ") and "requires_grad_" in text
    W2.requires_grad_()
    assert not diagnose(f, X, Y).warnings


def test_a_gradient_of_zero_in_all_weights_is_said_without_an_optimizer_too():
    step = lambda out, y: F.mse_loss(torch.round(torch.sigmoid(out)), F.one_hot(y, 5).float())
    assert says(diagnose(mlp(), X, Y, loss_fn=step).warnings, "all weights", "round")


@pytest.mark.parametrize("how", ["one step", "reverse"])
def test_recurrent_weights_that_see_only_the_state_before(how):
    rnn = nn.GRU(12, 16, batch_first=True, bidirectional=how == "reverse")
    net = Net(
        lambda self, x: self.out(self.rnn(x)[0][:, -1]), rnn=rnn, out=nn.Linear(32 if how == "reverse" else 16, 5)
    )
    x = X[:, None] if how == "one step" else torch.stack([X, -X], 1)
    (text,) = diagnose(net, x, Y).warnings
    assert text.startswith("rnn.weight_hh") and "batch_first" in text and "h_n" in text


# Left as it was


def test_the_class_of_an_optimizer_is_put_back_after_a_trial():
    class Counting(torch.optim.SGD):
        n, log = 0, []

        def step(self, closure=None):
            Counting.n += 1
            Counting.log.append(1)
            return super().step(closure)

    net = deep()
    assert diagnose(net, *clusters(0), optimizer=Counting(net.parameters(), 50.0)).rises
    assert Counting.n == 0 and Counting.log == []


def test_class_attributes_slots_and_modules_are_put_back(monkeypatch):
    module = ModuleType("settings")
    module.calls = 0
    monkeypatch.setitem(globals(), "settings", module)

    class Plain(nn.Module):
        calls, log, table, mode = 0, [], torch.zeros(3), "new"

        def __init__(self):
            super().__init__()
            self.a = nn.Linear(12, 5)

        def forward(self, x):
            Plain.calls, Plain.new, Plain.mode = Plain.calls + 1, 3, "used"
            self.log.append(1)
            Plain.table += 1
            settings.calls += 1  # noqa: F821  a global variable
            settings.fresh = Plain.table.requires_grad_()  # noqa: F821
            return self.a(x)

    diagnose(Plain(), X, Y)
    assert (
        Plain.calls == 0
        and Plain.mode == "new"
        and not hasattr(Plain, "new")
        and Plain.log == []
        and Plain.table.eq(0).all()
        and not Plain.table.requires_grad
        and not hasattr(module, "fresh")
        and module.calls == 0
    )

    class Slots:
        __slots__ = ("W", "later", "n")

        def __init__(self):
            self.W, self.n = (torch.randn(12, 5) * 0.1).requires_grad_(), 0

        def __call__(self, x):
            self.n, self.later = self.n + 1, 3
            return torch.tanh(x @ self.W)

    slots = Slots()
    assert [p.name for p in diagnose(slots, X, Y).parameters] == ["W"]
    assert slots.n == 0 and not hasattr(slots, "later")


# In the user's loop


SIDE = {
    "vmap": lambda net, x: torch.func.vmap(net)(x),
    "jacrev": lambda net, x: torch.func.jacrev(net)(x[0]),
    "hessian": lambda net, x: torch.func.hessian(lambda t: net(t).sum())(x[0]),
    "trace": lambda net, x: torch.jit.trace(net, x),
    "script": lambda net, x: _scripted(net, x),
    "fake": lambda net, x: _faked(net, x),
    "jacobian": lambda net, x: torch.autograd.functional.jacobian(net, x[:2], vectorize=True),
}


def _scripted(net, x):
    layers, script = list(net), torch.jit.script(net)
    assert all(a is b for a, b in zip(layers, net, strict=True)) and torch.equal(script(x), net(x))
    torch.jit.script(nn.Sequential(script, net[0]))


def _faked(net, x):
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        net(mode.from_tensor(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SIDE)
def test_transforms_of_the_watched_model_do_not_stop_the_loop(name):
    net = mlp()
    optimizer = sgd(net)

    def body(step):
        SIDE[name](net, X)
        usual(net, optimizer)(step)

    seen = watched(net, optimizer, body, 3, 2)
    assert not seen.warnings and all(len(found.activations) == 5 for _, found in seen.records)
    assert all(row.std > 0 for row in seen.records[1][1].gradients)


def test_a_pass_that_cannot_be_read_is_said_once_and_the_loop_goes_on(monkeypatch):
    net = mlp()
    optimizer = sgd(net)

    def of_large_batches(tensor, *args):
        if len(tensor) == len(X):
            raise ValueError("hidden")
        return layer_statistics(tensor, *args)

    layer_statistics = sys.modules["helpers.diagnostics.passes"].layer_statistics
    monkeypatch.setattr(sys.modules["helpers.diagnostics.passes"], "layer_statistics", of_large_batches)
    seen = watched(net, optimizer, usual(net, optimizer), 4, 2)
    (said,) = seen.warnings
    assert seen.steps == 4 and says([said], "step 0 could not be recorded", "hidden")
    assert not seen.records


@pytest.mark.filterwarnings("ignore")
def test_a_layer_that_is_replaced_by_a_script_is_said_and_the_loop_goes_on():
    net = mlp()
    optimizer = sgd(net)

    def body(step):
        if step == 1:
            net[2] = torch.jit.script(nn.Linear(*net[2].weight.shape[::-1]))
        usual(net, optimizer)(step)

    seen = watched(net, optimizer, body, 6, 2)
    assert [step for step, _ in seen.records] == [0]
    assert seen.steps == 6 and says(seen.warnings, "step 2 could not be recorded", "ScriptModule lets nobody look")


def test_what_cannot_be_recorded_is_said_and_the_loop_goes_on(monkeypatch):
    net = mlp()
    optimizer = sgd(net)
    monkeypatch.setattr(sys.modules["helpers.diagnostics.watch"], "parameter_rows", lambda *args: 1 / 0)
    seen = watched(net, optimizer, usual(net, optimizer), 3, 2)
    assert (
        seen.steps == 3
        and len(seen.warnings) == 1
        and says(seen.warnings, "step 0 could not be recorded", "ZeroDivisionError")
    )


@pytest.mark.parametrize("place", ["project", "site-packages"])
def test_a_package_is_not_searched_for_what_the_model_holds(monkeypatch, place):
    """Through a library's module all of it could be reached, and would be put back."""
    module = ModuleType("settings")
    module.__file__, module.table = f"/somewhere/{place}/settings.py", {"seen": 0}
    monkeypatch.setitem(globals(), "settings", module)

    def forward(x):
        settings.table["seen"] += 1  # noqa: F821
        return x @ W

    W = torch.randn(12, 5, requires_grad=True)
    diagnose(forward, X, Y)
    assert module.table["seen"] == (place != "project")


def test_empty_inputs_and_sparse_outputs_are_read():
    net = nn.Linear(12, 5)
    assert diagnose(lambda nothing, x: net(x), (torch.empty(len(X), 0), X), Y).warnings == []
    squares = dict(loss_fn=lambda out: out.to_dense().square().mean())
    assert diagnose(lambda x: net(x).to_sparse(), X, **squares).loss == pytest.approx(net(X).square().mean().item())


def test_what_follows_an_output_layer_of_zeros_is_not_stuck():
    """A policy's last tanh."""
    net = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 5), nn.Tanh())
    nn.init.zeros_(net[2].weight)
    nn.init.zeros_(net[2].bias)
    far = dict(targets=torch.linspace(-0.9, 0.9, len(X) * 5).view(-1, 5), loss_fn=F.mse_loss)
    assert diagnose(net, X, **far).warnings == []
    nn.init.zeros_(net[0].weight)  # and what a hidden one leaves is
    nn.init.zeros_(net[0].bias)
    assert any(text.startswith("1 (Tanh): puts out the same number") for text in diagnose(net, X, **far).warnings)


def test_small_gradients_are_as_small_as_adams_eps_at_the_start_only():
    net, (x, y) = deep().double(), clusters(0)  # in float32 such small steps are lost in rounding
    x = x.double()
    tiny = dict(loss_fn=lambda out, y: 1e-9 * F.cross_entropy(out, y))
    stuck = lambda optimizer: any("Adam's eps" in w for w in diagnose(net, x, y, optimizer=optimizer, **tiny).warnings)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    assert stuck(optimizer)
    for _ in range(3):
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    for state in optimizer.state.values():  # gradients that have cancelled each other, as at the end of a training
        state["exp_avg"].zero_()
    assert not stuck(optimizer)


def test_weights_that_only_the_graph_knows_are_put_back_after_a_trial():
    @cache
    def weights():
        return [torch.randn(shape, requires_grad=True) for shape in ((12, 20), (20, 5))]

    before = [p.detach().clone() for p in weights()]
    assert diagnose(lambda x: (x @ weights()[0]).tanh() @ weights()[1], X, Y, lr=100.0).rises
    assert all(map(torch.equal, weights(), before))


def test_an_output_that_lies_beside_its_targets_is_not_far_from_them():
    """In a sum each gradient is above 1, though the output is right up to two per cent."""
    net = nn.Linear(12, 1)
    nn.init.constant_(net.bias, 100.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
    with watch(net, optimizer, every=1) as seen:
        for _ in range(3):
            loss = (net(X) - 98).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert not any("the loss pulls" in text for text in seen.warnings), seen.warnings


def test_a_function_in_a_loop_over_layers_has_nothing_to_do_with_time():
    def forward(self, x):
        for layer in self.layers:
            x = torch.sigmoid(layer(x))
        return self.out(x)

    net = Net(forward, layers=nn.ModuleList(nn.Linear(12, 12) for _ in range(16)), out=nn.Linear(12, 5))
    said = diagnose(net, X, Y).warnings
    assert says(said, "gradients vanish") and not says(said, "time")


def test_a_network_that_ends_in_its_loss_may_begin_with_an_output_table_of_zeros():
    """Skip-gram with negative samples."""
    net = Net(lambda self, a, b, y: -F.logsigmoid(y * (self.u(a) * self.v(b)).sum(1)).mean(), u=nn.Embedding(9, 8),
              v=nn.Embedding(9, 8))  # fmt: skip
    nn.init.zeros_(net.v.weight)
    pairs = torch.randint(0, 9, (64,)), torch.randint(0, 9, (64,)), torch.randint(0, 2, (64,)) * 2 - 1
    assert not diagnose(net, pairs, loss_fn=lambda out: out, optimizer=torch.optim.SGD(net.parameters(), 1.0)).warnings


def test_weights_that_are_rounded_are_no_activations():
    """Ternary weights, learned through the rounding."""

    class Ternary(nn.Linear):
        def forward(self, x):
            rounded = (self.weight / self.weight.abs().mean()).round().clamp(-1, 1)
            return F.linear(x, self.weight + (rounded * self.weight.abs().mean() - self.weight).detach(), self.bias)

    net = nn.Sequential(Ternary(12, 32), nn.ReLU(), Ternary(32, 5))
    assert any((row.saturated or 0) > 0.5 for row in diagnose(net, X, Y).activations)
    assert not diagnose(net, X, Y).warnings
    optimizer = sgd(net)
    assert not watched(net, optimizer, usual(net, optimizer)).warnings


def test_gradients_that_a_loop_by_hand_has_cleared_are_not_zero():
    W, V = (torch.randn(12, 32) * 0.2).requires_grad_(), (torch.randn(32, 5) * 0.2).requires_grad_()
    f = lambda x: torch.tanh(x @ W) @ V
    with watch(f, every=2) as seen:
        for _ in range(6):
            F.cross_entropy(f(X), Y).backward()
            for p in W, V:
                p.data -= 0.3 * p.grad
                p.grad.zero_()
            seen.step()
    assert not seen.warnings
