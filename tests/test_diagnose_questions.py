"""Networks of public questions: what was silent is named, and what was accused and is healthy no longer is."""

import math
from inspect import isgeneratorfunction, signature
from itertools import pairwise
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.diagnostics import diagnose, judgements, watch
from helpers.diagnostics.judgements import FIRST, READINGS, STEP

torch.manual_seed(0)
X = torch.randn(64, 16)
Y = (X @ torch.randn(16, 4)).argmax(1)
NUMBERS = X[:, 0].sin()
BCE = F.binary_cross_entropy_with_logits


def mlp(*tail, outputs=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, outputs), *tail)


class Net(nn.Module):
    def __init__(self, forward, **parts):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs):
        return self.run(self, *inputs)


def says(warnings, *words):
    return any(all(word in text for word in words) for text in warnings)


def adam(model, lr=1e-3):
    return torch.optim.Adam(model.parameters(), lr)


def train(net, optimizer, steps, loss_fn=F.cross_entropy, targets=Y):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(net(X), targets).backward()
        optimizer.step()


def learned(*layers):
    """A network that has learned its 64 examples by heart."""
    net = nn.Sequential(*layers)
    train(net, adam(net, 1e-2), 400)
    return net


# The loss is seen where it is called


def test_a_relu_before_the_loss():
    assert says(diagnose(mlp(nn.ReLU()), X, Y).warnings, "ReLU puts out (3)", "below 0")
    binary = mlp(nn.ReLU(), outputs=1)
    assert says(diagnose(binary, X, (Y > 1).float(), lambda out, y: BCE(out.squeeze(1), y)).warnings, "ReLU puts out")
    pooled = Net(lambda self, x: self.body(x).relu().view(-1, 4, 4).mean(2), body=nn.Linear(16, 16))
    assert not diagnose(pooled, X, Y).warnings and not diagnose(mlp(), X, Y).warnings


def test_a_relu_before_the_softmax_that_ends_a_network():
    end = Net(lambda self, x: F.log_softmax(F.relu(x), dim=-1))

    def reinforce(logs, actions):
        return -logs.gather(1, actions.view(-1, 1)).mean()

    for loss_fn in reinforce, F.nll_loss:
        assert says(diagnose(mlp(end), X, Y, loss_fn).warnings, "last softmax", "ReLU", "gets no gradient")
    assert not diagnose(mlp(nn.LogSoftmax(-1)), X, Y, reinforce).warnings
    both = Net(lambda self, x: (F.log_softmax(F.relu(self.a(x)), -1), x.mean()), a=nn.Linear(16, 4))
    in_part = diagnose(both, X, Y, lambda out, y: reinforce(out[0], y)), "relu"
    in_the_loss = diagnose(mlp(nn.ReLU()), X, Y, lambda out, y: F.nll_loss(F.log_softmax(out, -1), y)), "(3)"
    assert all(says(found.warnings, "last softmax", name) for found, name in (in_part, in_the_loss))


SIGNS = {
    "soft margin": (nn.SoftMarginLoss(), lambda out: (out[:, :1],)),
    "hinge": (F.hinge_embedding_loss, lambda out: (out[:, :1],)),
    "cosine": (nn.CosineEmbeddingLoss(), lambda out: (out, out.flip(0))),
    "ranking": (nn.MarginRankingLoss(), lambda out: (out[:, 0], out[:, 1])),
}


@pytest.mark.parametrize("name", SIGNS)
def test_losses_that_want_signs(name):
    criterion, read = SIGNS[name]
    ones = (Y > 1).float()[:, None] if name in ("soft margin", "hinge") else (Y > 1).float()
    with_a_tie = torch.where(torch.arange(64).view(ones.shape) == 0, 0.0, 2 * ones - 1)  # of one pair that is equal
    for targets, is_told in (ones, True), (2 * ones - 1, False), (torch.ones_like(ones), False), (with_a_tie, False):
        warnings = diagnose(mlp(), X, targets, lambda out, y: criterion(*read(out), y)).warnings
        assert says(warnings, "-1 and 1", "2 * targets - 1") == is_told


@pytest.mark.parametrize("end, words", [(nn.Sigmoid(), "between 0 and 1"), (nn.Tanh(), "between -1 and 1")])
def test_a_bounded_layer_before_cross_entropy(end, words):
    assert says(diagnose(mlp(end), X, Y).warnings, words, "leave it out")
    assert not says(diagnose(Net(lambda self, x: 3 * self.body(x), body=mlp(end)), X, Y).warnings, "leave it out")


@pytest.mark.parametrize("loss_fn", [F.mse_loss, F.smooth_l1_loss, lambda q, r: (q - r).pow(2).mean()])
def test_all_pairs_inside_the_loss_fn(loss_fn):
    """As in deep Q learning: the network's output has another shape than what is compared."""
    actions = torch.zeros(64, 1).long()
    wrong = diagnose(mlp(), X, actions, lambda out, a: loss_fn(out.gather(1, a), NUMBERS)).warnings
    assert says(wrong, "(64, 1)", "(64,)", "compared with all")
    assert not diagnose(mlp(), X, actions, lambda out, a: loss_fn(out.gather(1, a)[:, 0], NUMBERS)).warnings


@pytest.mark.parametrize("loss_fn", [F.mse_loss, lambda out, y: ((out - y) ** 2).mean(), BCE, F.l1_loss])
def test_watch_sees_the_loss_of_the_loop(loss_fn):
    is_sigmoid = loss_fn is BCE
    net = mlp(*[nn.Sigmoid()] * is_sigmoid, outputs=1)
    optimizer, targets = adam(net), (NUMBERS > 0).float()[:, None] if is_sigmoid else NUMBERS
    with watch(net, optimizer, every=2) as seen:
        train(net, optimizer, 4, loss_fn, targets)
    assert says(seen.warnings, "sigmoid of its own" if is_sigmoid else "compared with all")


def test_targets_out_of_reach_of_one_part_of_a_tuple():
    net = Net(lambda self, x: (self.body(x), x), body=mlp(nn.Sigmoid(), outputs=16))
    loss_fn = lambda out, x: F.mse_loss(out[0], x)
    assert says(diagnose(net, X, X, loss_fn).warnings, "Sigmoid", "puts out 0 to 1")
    assert not says(diagnose(net, X, X.sigmoid(), loss_fn).warnings, "puts out")


@pytest.mark.parametrize("how", ["binary", "none"])
def test_a_softmax_before_other_losses(how):
    binary = lambda out, y: BCE(out, F.one_hot(y, 4).float())
    loss_fn = binary if how == "binary" else lambda out, y: F.cross_entropy(out, y, reduction="none").mean()
    assert says(diagnose(mlp(nn.Softmax(1)), X, Y, loss_fn).warnings, "model's softmax out")
    assert not diagnose(mlp(), X, Y, loss_fn).warnings


def test_binary_targets_beyond_0_and_1_are_said_once():
    warnings = diagnose(mlp(nn.Sigmoid(), outputs=1), X, 3 * X[:, :1], BCE).warnings
    assert len([text for text in warnings if "targets" in text]) == 1


# What is silent


def test_an_output_far_beyond_its_targets():
    net = mlp(outputs=1)
    for p in net.parameters():
        p.data.uniform_(-1000, 1000)
    warnings = diagnose(net, X, NUMBERS[:, None], F.mse_loss, lr=0.01).warnings
    assert says(warnings, "the output is about", "far too large") and not says(warnings, "weights are too small")


def test_inputs_divided_by_255_twice():
    assert says(diagnose(mlp(), torch.rand(64, 16) / 255, Y).warnings, "the inputs are tiny")
    assert not says(diagnose(mlp(), torch.rand(64, 16), Y).warnings, "the inputs")


def test_inputs_far_from_0_and_inputs_of_what_bounds_them():
    years = diagnose(mlp(outputs=1), 2015 + 5 * X, NUMBERS[:, None], F.mse_loss).warnings
    assert says(years, "inputs are all near 2.0", "mean of about 0")
    lstm = Net(
        lambda self, x: self.out(self.lstm(x)[0][:, -1]), lstm=nn.LSTM(1, 32, batch_first=True), out=nn.Linear(32, 4)
    )
    assert says(diagnose(lstm, X[:, :, None] * 1000, Y).warnings, "inputs are large")
    assert not diagnose(lstm, X[:, :, None], Y).warnings
    scaled = nn.Sequential(nn.BatchNorm1d(16), mlp())
    assert not says(diagnose(scaled, 2015 + 5 * X, Y).warnings, "inputs")


def test_a_rate_that_is_0_in_every_step():
    net = mlp()
    optimizer = adam(net)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / 50))
    with watch(net, optimizer, every=5) as seen:
        train(net, optimizer, 20)
    assert says(seen.warnings, "rate is 0", "scheduler.step()")


def test_the_rate_of_a_linear_model():
    net, x = nn.Linear(1, 1), torch.rand(500, 1) * 100
    assert says(diagnose(net, x, 5 * x + 3, F.mse_loss, lr=0.01).warnings, "raise the loss", "too high")
    assert not says(diagnose(net, x, 5 * x + 3, F.mse_loss, lr=1e-5).warnings, "too high")


def test_a_dropout_of_the_share_to_keep():
    net = lambda p: nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 4))
    warnings = diagnose(net(0.9), X, Y).warnings
    assert says(warnings, "2 (Dropout)", "90%") and not says(warnings, "last layer")
    assert not says(diagnose(net(0.5), X, Y).warnings, "drops")


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_state_that_is_detached_at_every_step(is_cut):
    def forward(self, x):
        h, outs = torch.zeros(len(x), 32), []
        for t in range(8):
            h = self.cell(x[:, 2 * t : 2 * t + 2], h.detach() if is_cut else h)
            outs.append(self.out(h))
        return outs[-1]

    net = Net(forward, cell=nn.GRUCell(2, 32), out=nn.Linear(32, 4))
    assert says(diagnose(net, X, Y).warnings, "cell: 7 of its 8 calls", "detach") == is_cut


@pytest.mark.parametrize("is_used", [True, False])
def test_an_activation_whose_result_is_thrown_away(is_used):
    def forward(self, x):
        x = self.a(x)
        y = F.relu(x)
        return self.b(y if is_used else x)

    warnings = diagnose(Net(forward, a=nn.Linear(16, 32), b=nn.Linear(32, 4)), X, Y).warnings
    assert says(warnings, "relu", "is not used") != is_used


PAIRS = {
    "two linear layers": (lambda: [nn.Linear(16, 32), nn.Linear(32, 4)], True),
    "a bottleneck": (lambda: [nn.Linear(16, 2), nn.Linear(2, 4)], False),
    "a nonlinearity": (lambda: [nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)], False),
    "a view": (lambda: [nn.Linear(16, 32), nn.Unflatten(1, (8, 4)), nn.Flatten(), nn.Linear(32, 4)], True),
    "a dropout": (lambda: [nn.Linear(16, 32), nn.Dropout(), nn.Linear(32, 4)], False),
    "plain tensors": (lambda: [weights(16, 32), weights(32, 4)], True),
}


def weights(n_in, n_out):
    w, b = torch.randn(n_in, n_out) / n_in**0.5, torch.zeros(n_out)
    w.requires_grad_(), b.requires_grad_()
    return lambda x: x @ w + b


@pytest.mark.parametrize("name", PAIRS)
def test_linear_layers_with_nothing_between(name):
    torch.manual_seed(0)
    make, is_told = PAIRS[name]
    layers = make()

    def forward(x):
        for layer in layers:
            x = layer(x)
        return x

    model = forward if name == "plain tensors" else nn.Sequential(*layers)
    for x, y in (X, Y), (X.view(8, 8, 16), Y.view(8, 8)):
        if name != "a view" or x is X:
            assert says(diagnose(model, x, y).warnings, "two linear layers", "nonlinearity meant") == is_told


def test_nan_is_more_urgent_than_a_missing_nonlinearity():
    net = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 4))
    net[1].weight.data.fill_(torch.inf)
    warnings = diagnose(net, X, Y).warnings
    assert says(warnings, "NaN or infinite") and not says(warnings, "two linear layers")


def test_a_projection_whose_result_is_added_again():
    """As before a transformer's first block: what it puts out goes on beside the next linear layer, too."""
    net = Net(lambda self, x: self.out((h := self.a(x)) + torch.tanh(self.b(h))), a=nn.Linear(16, 16),
              b=nn.Linear(16, 16), out=nn.Linear(16, 4))  # fmt: skip
    assert not diagnose(net, X, Y).warnings
    added = Net(lambda self, x: self.out(x + self.a(torch.tanh(self.b(x)))), **dict(net.named_children()))
    assert not diagnose(added, X, Y).warnings


def test_two_small_matrices_beside_a_frozen_one():
    """LoRA: they are a bottleneck of their own making, however few the outputs."""
    net = Net(lambda self, x: self.whole(x) + self.b(self.a(x)), whole=nn.Linear(16, 4), a=nn.Linear(16, 8),
              b=nn.Linear(8, 4))  # fmt: skip
    assert says(diagnose(net, X, Y).warnings, "two linear layers")
    net.whole.requires_grad_(False)
    assert not says(diagnose(net, X, Y).warnings, "two linear layers")


NORMED = {
    "each value": (nn.GroupNorm(16, 16), "one value"),
    "instance": (nn.InstanceNorm2d(16), None),
    "instance of two features": (nn.InstanceNorm2d(16), "two values"),
    "pairs of values": (nn.GroupNorm(8, 16), "two values"),
    "four values": (nn.GroupNorm(4, 16), None),
    "two features": (nn.LayerNorm(2), "two values"),
    "a batch of two": (nn.BatchNorm2d(16), "two values"),
}


@pytest.mark.parametrize("name", NORMED)
def test_normalisation_over_few_values(name):
    norm, words = NORMED[name]
    n, side, features = (2 if "batch" in name else 32), (4 if name == "instance" else 1), 2 if "features" in name else 1
    net = nn.Sequential(nn.Conv2d(3, 16, 1), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    warnings = diagnose(net, torch.randn(n, 3, side, side * features), torch.arange(n) % 4).warnings
    assert says(warnings, "1 (", words) if words else not says(warnings, "normalises")


@pytest.mark.parametrize("words", ["detach", "in place"])
def test_errors_of_backward_come_with_a_remedy(words):
    kept = []

    def forward(self, x):
        h = torch.sigmoid(self.a(x) + sum(kept))
        kept[:] = [h] if words == "detach" else []
        if words == "in place":
            h[:, 0] = 0
        return self.out(h)

    net = Net(forward, a=nn.Linear(16, 8), out=nn.Linear(8, 4))
    if words == "detach":
        F.cross_entropy(net(X), Y).backward()
    with pytest.raises(ValueError, match=words):
        diagnose(net, X, Y)


def test_an_embedding_without_a_row_for_an_input():
    with pytest.raises(ValueError, match="num_embeddings larger"):
        diagnose(nn.Sequential(nn.Embedding(10, 4)), torch.full((8,), 10), torch.zeros(8).long())


# What is healthy


def test_layers_behind_a_normalisation_are_not_compared_with_others():
    """The discriminator of DCGAN: weights of std 0.02, no BatchNorm behind the first convolution."""
    torch.manual_seed(0)
    layer = lambda i, o: [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]
    first, last = nn.Conv2d(3, 16, 4, 2, 1, bias=False), nn.Conv2d(64, 1, 4, 1, 0, bias=False)
    net = nn.Sequential(first, nn.LeakyReLU(0.2), *layer(16, 32), *layer(32, 64), last, nn.Sigmoid(), nn.Flatten(0))
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.normal_(m.weight, 0, 0.02)
    images, real = torch.rand(32, 3, 32, 32) * 2 - 1, (torch.arange(32) < 16).float()
    assert not diagnose(net, images, real, F.binary_cross_entropy, optimizer=adam(net, 2e-4)).warnings


def test_a_loss_that_has_come_to_0():
    loss_fn = lambda z: F.triplet_margin_loss(z[:32], z[:32] + 0.01, z[32:] + 50)
    warnings = diagnose(mlp(), X, loss_fn=loss_fn).warnings
    assert says(warnings, "the loss is 0") and not says(warnings, "sign")


def test_saturation_of_what_has_learned():
    torch.manual_seed(0)
    found = diagnose(learned(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)), X, Y)
    assert found.has_learned and max(row.saturated or 0 for row in found.activations) > 0.3
    assert not says(found.warnings, "saturated")


def test_a_clipped_relu_is_not_saturated():
    net = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Hardtanh(0, 20), nn.Linear(32, 4))
    result = diagnose(net, X, Y)
    assert not result.warnings and result.activations[2].saturated is None and result.activations[2].dead == 0


def test_a_context_table_that_begins_at_0():
    """word2vec with negative sampling."""

    def forward(self, v, c, n):
        e = self.v(v)
        near = F.logsigmoid((e * self.c(c)).sum(1))
        return -(near + F.logsigmoid(-(self.c(n) @ e[:, :, None]).squeeze(2)).sum(1)).mean()

    net = Net(forward, v=nn.Embedding(200, 32), c=nn.Embedding(200, 32))
    nn.init.zeros_(net.c.weight)
    words = torch.arange(128)
    assert not diagnose(net, (words, words + 1, words[:, None] + torch.arange(5)), loss_fn=lambda loss: loss).warnings


@pytest.mark.parametrize("seed", range(8))
def test_a_bottleneck_kills_no_units(seed):
    """Behind three units of ReLU most of the next ones are on or off for all examples, by their biases."""
    torch.manual_seed(seed)
    sizes = [64, 32, 16, 3, 16, 32, 64]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())][:-1]
    x = torch.randn(64, 64)
    assert not says(diagnose(nn.Sequential(*layers), x, x, F.mse_loss).warnings, "dead")


# The cause comes first


@pytest.mark.parametrize("kind", [nn.ReLU, nn.Tanh, nn.Sigmoid])
@pytest.mark.parametrize("depth", [30, 100])
def test_in_a_very_deep_network_the_cause_comes_first(kind, depth):
    torch.manual_seed(0)
    net = nn.Sequential(*[part for _ in range(depth) for part in (nn.Linear(16, 16), kind())], nn.Linear(16, 4))
    for p in net.parameters():
        nn.init.normal_(p, 0, 0.01) if p.dim() > 1 else nn.init.zeros_(p)
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    assert not says(diagnose(net, X, Y, optimizer=sgd).warnings, "rounding")
    warnings = diagnose(net, X, Y, lr=0.1).warnings
    assert says(warnings[:1], "shrink with depth", "gain") or says(warnings[:1], "vanish", "gain")
    if depth == 100 and kind is not nn.Sigmoid:  # at once 0, by rounding
        assert says(warnings, "the same number everywhere; what reaches it is too small")
    assert len(warnings) < 10 and not any(says(warnings, word) for word in ("all zero", "sign, round", "rounding"))


@pytest.mark.parametrize(
    "shape", [lambda p: p.squeeze(1), lambda p: p.view(-1), lambda p: p[:, 0], lambda p: p.flatten()]
)
def test_a_sigmoid_before_its_loss_behind_a_view(shape):
    net = Net(lambda self, x: shape(self.body(x).sigmoid()), body=mlp(outputs=1))
    assert says(diagnose(net, X, (NUMBERS > 0).float(), BCE).warnings, "sigmoid of its own")
    logits = Net(lambda self, x: shape(2 * self.body(x).tanh()), body=mlp(outputs=1))
    assert not says(diagnose(logits, X, (NUMBERS > 0).float(), BCE).warnings, "leave")


def test_all_pairs_in_a_product_by_hand():
    loss_fn = lambda p, y: -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    net, labels = mlp(nn.Sigmoid(), outputs=1), (NUMBERS > 0).float()
    assert says(diagnose(net, X, labels, loss_fn).warnings, "output (64, 1) and targets (64,)", "compared with all")
    assert not diagnose(net, X, labels[:, None], loss_fn).warnings


def test_one_example_against_targets_without_a_batch_is_no_pair():
    assert not diagnose(mlp(), X[:1], X[0, :4], F.mse_loss).warnings


def test_targets_given_first():
    assert says(diagnose(mlp(outputs=1), X, 3000 + X[:, :1], lambda out, y: F.mse_loss(y, out)).warnings, "standardise")


@pytest.mark.parametrize("is_apart", [False, True])
def test_an_equation_of_large_numbers(is_apart):
    """Its residual is no output: neither is it too large, nor what it should be."""
    net, time, torch_grad = (
        nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1)),
        NUMBERS[:, None],
        torch.autograd.grad,
    )

    def loss_fn(_):
        t = time.clone().requires_grad_()
        speed = torch_grad(net(t).sum(), t, create_graph=True)[0]
        force = 400 * time
        return F.mse_loss(speed, force) if is_apart else F.mse_loss(speed - force, torch.zeros_like(force))

    assert not says(diagnose(net, time, loss_fn=loss_fn).warnings, "in size")


def test_series_that_are_scaled_inside_of_forward():
    lstm, head = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 4)
    series, scaled = 120 * X[:, :, None], lambda x: (x - x.mean(1, True)) / x.std(1, keepdim=True)
    for forward, is_raw in [(lambda self, x: x, True), (lambda self, x: scaled(x), False)]:
        net = Net(
            lambda self, x, forward=forward: self.head(self.lstm(forward(self, x))[0][:, -1]), lstm=lstm, head=head
        )
        assert says(diagnose(net, series, Y).warnings, "the inputs are") == is_raw


def test_what_has_learned_may_grow_with_depth():
    torch.manual_seed(0)
    layers = [layer for i in range(4) for layer in (nn.Linear(64 if i else 16, 64), nn.ReLU())]
    found = diagnose(learned(*layers, nn.Linear(64, 4)), X, Y)
    stds = [row.std for row in found.activations if row.type is nn.ReLU]
    assert found.has_learned and stds[-1] > 7 * stds[0] and not says(found.warnings, "too high")


def test_dead_by_biases_behind_layers_whose_gradients_vanish():
    net = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(16, 16), nn.ReLU())], nn.Linear(16, 4))
    with torch.no_grad():
        net[4].bias.fill_(-9)
        net[6].weight.mul_(0.02)
    warnings = diagnose(net, X, Y).warnings
    assert says(warnings, "vanish")
    assert says(warnings, "100% of its units are dead", "biases too negative") and not says(warnings, "5", "too small")


def test_every_judgement_stands_in_a_list():
    """And only once: the lists say all that is looked for."""
    listed = STEP + READINGS
    two_say_it = {judgements.layers.changes}
    rooms = [value for value in vars(judgements).values() if isinstance(value, ModuleType)]
    functions = {f for room in rooms for f in vars(room).values() if isgeneratorfunction(f)}
    written = {f for f in functions if list(signature(f).parameters) == ["look"]} - two_say_it
    assert len(listed) == len(set(listed)) and written <= set(listed + judgements.TRAINING) and set(FIRST) < set(STEP)


def test_logits_that_are_clamped_far_out_are_healthy():
    for bound in 1, 20:
        model = nn.Sequential(nn.Linear(16, 4), nn.Hardtanh(-bound, bound))
        assert says(diagnose(model, X, Y).warnings, "stays between") == (bound == 1)


# A look changes nothing of what the loop does next


def test_a_graph_that_is_still_needed():
    """A state that is not yet detached, and a penalty that was computed before the look."""
    gru, head = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        out, self.state = self.gru(x, getattr(self, "state", None))
        return self.head(out[:, -1])

    net, series = Net(forward, gru=gru, head=head), torch.randn(64, 3, 4)
    loss = F.cross_entropy(net(series), Y)
    diagnose(net, series, Y)
    loss.backward()
    net.state = net.state.detach()

    model = mlp()
    penalty = 1e-3 * sum(p.square().sum() for p in model.parameters())
    for look in {}, dict(lr=10):  # steps that are tried, too
        diagnose(model, X, Y, lambda out, y: F.cross_entropy(out, y) + penalty, **look)
    assert diagnose(model, X, Y, lambda out, y: F.cross_entropy(out, y) + penalty, lr=10).rises is not None
    penalty.backward()


def test_weights_that_are_computed_outside_the_call():
    weight = torch.randn(16, 4, requires_grad=True) * 0.1
    F.cross_entropy(X @ weight, Y).backward()
    with pytest.raises(ValueError, match=r"W = W.detach\(\).requires_grad_\(\)"):
        diagnose(lambda x: x @ weight, X, Y, lr=0.1)


# Optimizers


def test_several_optimizers_share_a_model():
    model = mlp()
    muon = getattr(torch.optim, "Muon", torch.optim.RMSprop)([p for p in model.parameters() if p.dim() > 1], 0.02)
    rest = torch.optim.AdamW([p for p in model.parameters() if p.dim() < 2], 1e-3)
    alone = diagnose(model, X, Y, optimizer=muon)
    assert says(alone.warnings, "0.bias, 2.bias", "all optimizers in a list") and len(alone.warnings) == 1
    before = [p.clone() for p in model.parameters()]
    both = diagnose(model, X, Y, optimizer=[muon, rest])
    assert not both.warnings and not muon.state and all(map(torch.equal, before, model.parameters()))
    rows = {row.name: row for row in both.parameters}
    assert rows["0.bias"].update_rule == "Adam" and rows["0.weight"].update_rule is None
    F.cross_entropy(model(X), Y).backward()
    muon.step(), rest.step()
    for p, old, row in zip(model.parameters(), before, both.parameters, strict=True):
        assert row.update_std == pytest.approx((p - old).std().item(), rel=1e-4)
    with pytest.raises(ValueError, match="a second watch"):
        watch(model, [muon, rest])
    with pytest.raises(ValueError, match="over the parameters"):
        diagnose(model, X, Y, optimizer=[muon, torch.optim.AdamW])


def test_adam_before_a_norm():
    """fast.ai trains its small convolutional networks at 6e-2; at that rate others are broken."""
    torch.manual_seed(0)

    def block(n_in, n_out, *norm):
        return [nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False), *norm, nn.LeakyReLU(0.1)]

    pictures, labels = torch.randn(64, 1, 28, 28), torch.arange(64) % 10
    for norms, lr, is_high in (True, 6e-2, False), (True, 2, True), (False, 6e-2, True):
        sizes = pairwise([1, 8, 16, 32])
        layers = [layer for a, b in sizes for layer in block(a, b, *([nn.BatchNorm2d(b)] if norms else []))]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
        optimizer = torch.optim.AdamW(net.parameters(), lr)
        assert says(diagnose(net, pictures, labels, optimizer=optimizer).warnings, "too high") == is_high


# Weights that are equal


def test_equal_weights_at_the_output_are_no_fault():
    """Each output has targets of its own. Linear models of time series begin with the mean (DLinear)."""
    series = X.cumsum(1)
    mean = nn.Linear(16, 8)
    nn.init.constant_(mean.weight, 1 / 16)
    assert not diagnose(mean, series, series[:, 8:], nn.MSELoss()).warnings


def test_units_that_are_copies_of_each_other():
    net = mlp()
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[:1].expand(32, -1)), net[0].bias.zero_()
    assert not says(diagnose(net, X, Y).warnings, "equal")  # the next layer's weights tell them apart
    nn.init.constant_(net[2].weight, 0.1)
    net[2].weight.data[0] = -0.1
    warnings = diagnose(net, X, Y).warnings
    assert says(warnings, "0.weight, 2.weight", "in all units, which stay equal", "at random")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with watch(net, optimizer, every=5) as seen:
        train(net, optimizer, 20)
    assert says(seen.warnings, "from step 0 on: 0.weight, 2.weight", "stay equal")
    assert (net[0].weight - net[0].weight[:1]).abs().max() < 1e-5


# Losses


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_the_first_loss_where_its_mean_is_taken_later(reduction):
    def loss_fn(out, y, **more):
        loss = F.cross_entropy(out, y, reduction=reduction, **more)
        return loss.sum() / len(y)

    net = mlp()
    assert not diagnose(net, X, Y, loss_fn).warnings
    nn.init.normal_(net[2].weight, std=10)
    loss = diagnose(net, X, Y).loss
    assert says(diagnose(net, X, Y, loss_fn).warnings, f"the loss of an example is {loss:.3g}", "ln(4) = 1.39")
    weighted = diagnose(net, X, Y, lambda out, y: loss_fn(out, y, weight=torch.full((4,), 1e-3)))
    assert not says(weighted.warnings, "ln(4)")


@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(), lambda out, y: F.cross_entropy(out, y, ignore_index=0)])
def test_classes_last_in_a_loss_of_ones_own(loss_fn):
    letters = torch.randint(0, 9, (8, 33))
    net = nn.Sequential(nn.Embedding(9, 16), nn.Linear(16, 9))
    with pytest.raises(ValueError, match=r"out.flatten\(0, -2\), y.flatten\(\)"):
        diagnose(net, letters[:, :-1], letters[:, 1:], loss_fn)
    assert not diagnose(net, letters[:, :-1], letters[:, 1:]).warnings


def test_a_loss_of_zero_says_so():
    """A hinge loss that is satisfied: of one output, as cross-entropy over one class, which is always 0."""
    net = nn.Sequential(nn.Linear(16, 1))
    with torch.no_grad():
        net[0].weight[0, 0] = 100
    examples = torch.cat([X.abs() + 1, -X.abs() - 1])

    def hinge(out):
        return F.relu(1 - out[:64]).mean() + F.relu(1 + out[64:]).mean()

    warnings = diagnose(net, examples, loss_fn=hinge, lr=0.1).warnings
    assert says(warnings, "the loss is 0", "teach nothing more") and not says(warnings, "softmax")


def test_cosines_as_logits():
    class Cosines(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.features, self.classes, self.scale = nn.Linear(16, 8), nn.Parameter(torch.randn(50, 8)), scale

        def forward(self, x):
            return self.scale * F.linear(F.normalize(self.features(x)), F.normalize(self.classes))

    labels = torch.arange(64) % 50
    by_hand = Cosines(1)
    by_hand.forward = lambda x: (
        (h := by_hand.features(x)) / h.norm(dim=1, keepdim=True) @ F.normalize(by_hand.classes).T
    )
    least = math.log(1 + 49 * math.exp(-2))
    assert says(diagnose(by_hand, X, labels).warnings, "cosines", f"{least:.3g}", "a scale")
    assert not diagnose(Cosines(20), X, labels).warnings
    few = nn.Sequential(nn.Linear(16, 8), Net(lambda self, x: F.normalize(x) @ F.normalize(by_hand.classes[:4]).T))
    assert not says(diagnose(few, X, Y).warnings, "cosines")
    with watch(by_hand, optimizer := adam(by_hand)) as seen:
        F.cross_entropy(by_hand(X), labels).backward()
        optimizer.step()
    assert says(seen.warnings, "cosines")


def test_logarithms_as_targets():
    logs = torch.randn(64, 4).log_softmax(1)
    for log_target in False, True:
        loss_fn = nn.KLDivLoss(reduction="batchmean", log_target=log_target)
        warnings = diagnose(mlp(nn.LogSoftmax(1)), X, logs, loss_fn).warnings
        assert says(warnings, "log_target=True") != log_target


def test_a_variance_below_0():
    with pytest.raises(ValueError, match="softplus"):
        diagnose(mlp(outputs=2), X, NUMBERS, lambda out, y: nn.GaussianNLLLoss()(out[:, 0], y, out[:, 1]))


# Pictures


def test_pictures_of_0_to_255_that_are_scaled_inside_or_wanted_so():
    pictures = torch.rand(8, 3, 16, 16) * 255
    for norms, targets, is_raw in (
        ((nn.InstanceNorm2d(8),), pictures / 255, 0),
        ((), pictures, 0),
        ((), pictures / 255, 1),
    ):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *norms, nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
        assert says(diagnose(net, pictures, targets, nn.MSELoss()).warnings, "the inputs are large") == is_raw
    table = 255 * torch.rand(64, 16)
    scaled = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    assert says(diagnose(scaled, table * torch.logspace(-3, 1, 16), Y).warnings, "the inputs are large")


# A ReLU of one's own


RELUS = {
    "max": lambda x: torch.max(x, torch.zeros_like(x)),  # d2l's
    "maximum": lambda x: torch.maximum(torch.zeros(()), x),
    "where": lambda x: torch.where(x > 0, x, 0),
    "mul": lambda x: x * (x > 0),
    "rmul": lambda x: (x > 0) * x,
}


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_a_relu_written_by_hand_has_a_row(relu):
    W1, W2 = torch.randn(16, 32) / 4, torch.randn(32, 4) / 8
    b1 = torch.full((32,), -1.0)
    parameters = [p.requires_grad_() for p in (W1, b1, W2)]

    def net(x, relu=relu):
        return relu(x @ W1 + b1) @ W2

    for kill in False, True:
        if kill:
            b1.data[:28] = -50
        found, plain = diagnose(net, X, Y, parameters=parameters), diagnose(lambda x: net(x, torch.relu), X, Y)
        row, expected = (next(row for row in look.activations if row.is_activation) for look in (found, plain))
        assert row.type is nn.ReLU and (row.dead, row.std) == (expected.dead, expected.std)
        assert says(found.warnings, "88% of its units are dead") == kill


def test_what_is_no_relu():
    """A mask, a maximum of two, one that is taken over a dimension, a gate."""
    others = [
        lambda x: x * (x > -1),
        lambda x: torch.max(x, -x),
        lambda x: torch.max(x.view(-1, 16, 2), 2)[0].repeat(1, 2),
        lambda x: torch.where(x > 0, x, x / 2),
        lambda x: x * (torch.rand(64, 1) > 0.1),
    ]
    for other in others:
        net = nn.Sequential(nn.Linear(16, 32), Net(lambda self, x, other=other: other(x)), nn.Linear(32, 4))
        assert not [row for row in diagnose(net, X, Y).activations if row.is_activation]


def test_weights_that_are_nan_may_have_got_nan_gradients():
    net = mlp()
    nn.init.constant_(net[0].weight, float("nan"))
    assert says(diagnose(net, X, Y).warnings, "0.weight", "lower the learning rate", "a gradient was NaN")
