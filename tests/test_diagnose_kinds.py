"""Kinds of networks that people train today: what is healthy in them, and what is wrong and was not seen."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.diagnostics import diagnose

torch.manual_seed(0)
X = torch.randn(64, 16)
Y = (X @ torch.randn(16, 4)).argmax(1)
SERIES = torch.randn(64, 12, 16)
WORDS = (torch.arange(13) * torch.randint(1, 5, (32, 1))) % 40
LM = dict(inputs=WORDS[:, :-1], targets=WORDS[:, 1:])
BCE = F.binary_cross_entropy_with_logits


def says(warnings, *words):
    return any(all(word in text for word in words) for text in warnings)


def mlp(*tail, n_in=16, n_out=4, width=32):
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, n_out), *tail)


class Net(nn.Module):
    """forward(self, x), and parts: modules, or tensors as parameters."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, torch.Tensor) else part)

    def forward(self, *inputs):
        return self.run(self, *inputs)


def adam(model, lr=1e-3, **how):
    return torch.optim.Adam(model.parameters(), lr, **how)


# Healthy: each is told nothing


def gains_of_several_heads():
    """QK norm: a gain of ones for each head is no weight whose units are equal."""

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (4, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        q, k = (F.rms_norm(t, (4,)) * gain[:, None] for t, gain in ((q, self.q_gain), (k, self.k_gain)))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(F.gelu(self.o(y)).mean(1))

    gains = dict(q_gain=torch.ones(4, 4), k_gain=torch.ones(4, 4))
    return Net(forward, qkv=nn.Linear(16, 48), o=nn.Linear(16, 16), head=nn.Linear(16, 4), **gains), SERIES, Y


def relative_positions():
    """Transformer-XL's view of (T, T + 1) as (T + 1, T) moves each row by one."""

    def forward(self, words):
        q, k, v = self.qkv(self.e(words)).chunk(3, -1)
        n, steps, size = q.shape
        relative = F.pad(q @ self.places.T, (1, 0)).view(n, steps + 1, steps)[:, 1:]
        scores = (q @ k.mT + relative) / size**0.5 + torch.full((steps, steps), -torch.inf).triu(1)
        return self.o(scores.softmax(-1) @ v)

    parts = dict(e=nn.Embedding(40, 16), qkv=nn.Linear(16, 48), o=nn.Linear(16, 40))
    return Net(forward, places=0.02 * torch.randn(12, 16), **parts), *LM.values()


def gates_that_begin_at_zero():
    """LayerScale, or ReZero, with a number for each feature."""

    def block():
        f = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        return Net(lambda self, x: x + self.gamma * self.f(x), f=f, gamma=torch.zeros(32))

    return nn.Sequential(nn.Linear(16, 32), block(), block(), nn.LayerNorm(32), nn.Linear(32, 4)), X, Y


def over_time_and_over_channels():
    net = Net(lambda self, x: self.channel(self.time(x.mT).mT), time=nn.Linear(12, 24), channel=nn.Linear(16, 16))
    return net, SERIES, torch.randn(64, 24, 16), nn.MSELoss()


def implicit_gradient():
    def forward(self, x):
        h, e = torch.zeros(len(x), 32), self.e(x)
        for _ in range(5):
            h = self.g(e, h)
        return self.o(self.g(e, h.detach()))

    return Net(forward, e=nn.Linear(16, 32), g=nn.GRUCell(32, 32), o=nn.Linear(32, 4)), X, Y


def heads_whose_losses_weigh_less():
    """Branches are no depth: no gradient gets from one to the other."""
    heads = nn.ModuleList([mlp(n_in=32, n_out=1, width=16) for _ in range(3)])
    net = Net(
        lambda self, x: torch.cat([f(self.body(x)) for f in self.heads], 1), body=mlp(nn.ReLU(), n_out=32), heads=heads
    )
    return net, X, X[:, :3], lambda o, y: ((o - y).square().mean(0) * torch.tensor([1, 0.1, 0.001])).sum()


def u_net():
    """The first layer's gradient comes by a skip connection, the deepest one's through all of them."""

    def twice(a, b):
        return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU())

    def forward(self, x):
        a = self.d1(x)
        b = self.d2(F.max_pool2d(a, 2))
        c = self.t1(self.d3(F.max_pool2d(b, 2)))
        d = self.t2(self.u1(torch.cat([c, b], 1)))
        return self.out(self.u2(torch.cat([d, a], 1)))

    ups = dict(t1=nn.ConvTranspose2d(64, 32, 2, 2), t2=nn.ConvTranspose2d(32, 16, 2, 2), out=nn.Conv2d(16, 4, 1))
    ups |= dict(u1=twice(64, 32), u2=twice(32, 16))
    net = Net(forward, d1=twice(3, 16), d2=twice(16, 32), d3=twice(32, 64), **ups)
    pictures = torch.rand(4, 3, 32, 32)
    return net, pictures, (4 * pictures.mean(1)).long().clamp(0, 3)


def the_larger_of_two():
    """A maximum with what happens to be 0 is no ReLU: its zeros need no gradient."""
    net = Net(
        lambda self, x: self.o(torch.maximum(self.a(x), self.k(x))),
        k=nn.Linear(16, 32),
        a=nn.Linear(16, 32),
        o=nn.Linear(32, 4),
    )
    nn.init.zeros_(net.k.weight), nn.init.zeros_(net.k.bias)
    return net, X, Y


def attention_over_the_nodes():
    """Linear attention: softmax over dimension 0, which the product with its transpose sums over."""
    parts = {name: nn.Linear(16, 16) for name in "qkv"}
    net = Net(lambda self, x: x + self.q(x).softmax(-1) @ (self.k(x).softmax(0).T @ self.v(x)), **parts)
    return nn.Sequential(net, nn.ReLU(), nn.Linear(16, 4)), X, Y


def one_seed_for_all():
    """A neural cellular automaton grows one picture from one seed."""

    def forward(self, x):
        for _ in range(4):
            x = x + self.u(F.relu(self.p(x))) * (torch.rand_like(x[:, :1]) < 0.5)
        return x[:, :4]

    net = Net(forward, p=nn.Conv2d(8, 16, 3, padding=1), u=nn.Conv2d(16, 8, 1))
    nn.init.zeros_(net.u.weight)
    seed = torch.zeros(8, 8, 8, 8)
    seed[:, :, 4, 4] = 1
    return net, seed, torch.rand(1, 4, 8, 8).expand(8, -1, -1, -1), F.mse_loss


def scales_of_a_flow():
    """Glow's sigmoid(s + 2): a gate, though its logarithm is used, too."""

    def forward(self, x):
        total = 0
        for net in self.nets:
            a, b = x.chunk(2, 1)
            s, t = net(a).chunk(2, 1)
            s = torch.sigmoid(s + 2)
            x, total = torch.cat([(b + t) * s, a], 1), total + s.log().sum(1)
        return x, total

    nets = nn.ModuleList([mlp(n_in=8, n_out=16) for _ in range(4)])
    for net in nets:
        nn.init.zeros_(net[2].weight), nn.init.zeros_(net[2].bias)
    return Net(forward, nets=nets), X, None, lambda o: (0.5 * o[0].square().sum(1) - o[1]).mean()


def fixed_point():
    def forward(self, x):
        z, u = torch.zeros(len(x), 32), self.U(x)
        for _ in range(60):
            z = torch.tanh(self.W(z) + u)
        return self.o(z)

    net = Net(forward, W=nn.Linear(32, 32), U=nn.Linear(16, 32), o=nn.Linear(32, 4))
    nn.init.orthogonal_(net.W.weight, 0.6)
    return net, X, Y


def pixels_before_a_norm():
    net = nn.Sequential(nn.Linear(16, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    return net, (100 + 60 * X).clamp(0, 255), Y


def output_layer_declared_first():
    net = Net(lambda self, x: self.head(self.body(x)), head=nn.Linear(32, 4), body=mlp(nn.ReLU(), n_out=32))
    nn.init.zeros_(net.head.weight), nn.init.zeros_(net.head.bias)
    return net, X, Y


def missing_labels():
    y = torch.where(torch.rand(64, 4) < 0.6, torch.nan, (X[:, :4] > 0).float())

    def loss_fn(out, y):
        return BCE(out[~y.isnan()], y[~y.isnan()])

    return mlp(), X, y, loss_fn


def sentinels():
    """Where their loss is multiplied by 0, what they are does not matter."""
    y = torch.where(torch.rand(64, 4) < 0.4, -9999, X[:, :4])

    def loss_fn(out, y):
        known = y > -9000
        return (F.l1_loss(out, y, reduction="none") * known).sum() / known.sum()

    return mlp(), X, y, loss_fn


def labels_of_minus_one():
    y = torch.where(torch.rand(64, 4) < 0.4, -1, (X[:, :4] > 0).float())

    def loss_fn(out, y):
        return (BCE(out, y, reduction="none") * (y >= 0)).sum() / (y >= 0).sum()

    return mlp(), X, y, loss_fn


def target_network():
    def forward(self, s):
        with torch.no_grad():
            best = self.target(s + 1).max(1).values
        return self.q(s)[:, 0], best

    q = mlp()
    net = Net(forward, q=q, target=copy.deepcopy(q))
    return net, X, None, lambda o: F.smooth_l1_loss(*o), adam(net.q)


def adaptive_adjacency():
    """Graph WaveNet's softmax(relu(E E')), which the model returns beside its forecast."""

    def forward(self, x):
        weights = F.softmax(F.relu(self.e @ self.e.T), 1)
        return weights @ self.layer(x), weights

    net = Net(forward, e=torch.randn(12, 8), layer=nn.Linear(16, 16))
    return net, SERIES, SERIES, lambda out, y: F.mse_loss(out[0], y)


def sparse_code():
    """It is returned beside the output, and most of it is 0 for these examples."""
    encoder, decoder = nn.Linear(16, 64), nn.Linear(64, 16)
    nn.init.constant_(encoder.bias, -1.6)
    net = Net(lambda self, x: (self.d(code := F.relu(self.e(x))), code), e=encoder, d=decoder)
    return net, X, None, lambda out: F.mse_loss(out[0], X) + 0.1 * out[1].mean()


def masked_moves():
    net = Net(lambda self, x: self.body(x).masked_fill(x[:, :4] > 1, -torch.inf), body=mlp())
    return net, X, X[:, :4].argmin(1)


HEALTHY = [
    gains_of_several_heads, relative_positions, gates_that_begin_at_zero, over_time_and_over_channels, implicit_gradient,
    heads_whose_losses_weigh_less, u_net, the_larger_of_two, attention_over_the_nodes, one_seed_for_all, scales_of_a_flow,
    fixed_point, pixels_before_a_norm, output_layer_declared_first, missing_labels, sentinels, labels_of_minus_one,
    target_network, adaptive_adjacency, sparse_code, masked_moves,
]  # fmt: skip


@pytest.mark.parametrize("make", HEALTHY)
def test_healthy(make):
    torch.manual_seed(0)
    net, *data = make()
    data, optimizer = (data[:3], data[3]) if len(data) > 3 else (data, adam(net))
    assert not diagnose(net, *data, optimizer=optimizer).warnings


def test_random_features_that_are_not_among_the_given_parameters():
    B, W = torch.randn(16, 32), (torch.randn(64, 4) / 8).requires_grad_()

    def net(x):
        return torch.cat([(x @ B).sin(), (x @ B).cos()], 1) @ W

    assert not diagnose(net, X, Y, parameters=[W], lr=0.01).warnings
    assert says(diagnose(net, X, Y, lr=0.01).warnings, "B: multiplied with like a weight")


# What a training shows


def trained(net, loss_fn, steps, lr=3e-3):
    optimizer = adam(net, lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(net(X)).backward()
        optimizer.step()
    return optimizer


def test_what_has_a_state_in_the_optimizer_learns():
    """An expert that got no example, a layer that was left out, another task's head."""
    torch.manual_seed(0)
    net = Net(lambda self, x: self.a(x) if self.is_first else self.b(x), a=nn.Linear(16, 4), b=nn.Linear(16, 4))
    optimizer = adam(net)
    for net.is_first in True, False:
        F.cross_entropy(net(X), Y).backward()
        assert says(diagnose(net, X, Y, optimizer=optimizer).warnings, "in this step, or never") == net.is_first
        optimizer.step()
    assert not diagnose(net, X, Y, optimizer=optimizer).warnings


def test_what_grows_in_a_trained_network_is_no_matter_of_its_init():
    """Of a loss of one's own nobody knows whether it has been learned."""
    torch.manual_seed(0)
    wanted = 5 * torch.sin(2 * X[:, :1]) * X[:, 1:2]
    layers = [layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.ReLU())]
    net = nn.Sequential(nn.Linear(16, 32), *layers, nn.Linear(32, 1))

    def loss_fn(out):
        return ((out - wanted) ** 2).mean()

    optimizer = trained(net, loss_fn, 200)
    rows = [row for row in diagnose(net, X, loss_fn=loss_fn, optimizer=optimizer).activations if row.type is nn.ReLU]
    with torch.no_grad():
        for layer in net[1::2]:
            layer.weight.mul_(2.5)
    assert not says(diagnose(net, X, loss_fn=loss_fn, optimizer=optimizer).warnings, "grow")
    assert says(diagnose(net, X, loss_fn=loss_fn, optimizer=adam(net)).warnings, "grow", "gain") and rows


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_rate_that_is_warmed_up(by_hand):
    """nanoGPT's loop writes it into the groups; OneCycleLR's first rate is its lowest."""
    net = mlp()
    optimizer = torch.optim.AdamW(net.parameters(), 6e-4)
    if by_hand:
        optimizer.param_groups[0]["lr"] = 6e-4 / 2001
    else:
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-4, total_steps=100, div_factor=1e3)
    assert not diagnose(net, X, Y, optimizer=optimizer).warnings
    low = torch.optim.AdamW(net.parameters(), 6e-4 / 2001)
    assert says(diagnose(net, X, Y, optimizer=low).warnings, "too low (if nothing was trained before)")


def test_the_two_losses_of_mixup():
    torch.manual_seed(0)
    net = mlp()
    optimizer = trained(net, lambda out: F.cross_entropy(out, Y), 300, 1e-2)
    others = Y[torch.randperm(64)]

    def loss_fn(out, y):
        return 0.03 * F.cross_entropy(out, others) + 0.97 * F.cross_entropy(out, y)

    net[2].weight.data.mul_(3)
    assert not says(diagnose(net, X, Y, loss_fn, optimizer=optimizer).warnings, "equally likely")


# Faults


def half_precision():
    """Adam's eps is 0 in float16, and 0 / 0 where a gradient is 0."""
    x = X.half()
    x[:, 3] = 0
    return mlp().half(), x, Y


def several_labels():
    return mlp(), X, (X[:, :4] > 0).float(), nn.CrossEntropyLoss()


def terms_that_cancel():
    def loss_fn(out):
        logs = out.log_softmax(1)[:, 0]
        return -((logs - logs).exp() * X[:, 0]).mean()

    return mlp(), X, None, loss_fn


def transformer(mask, **how):
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
    parts = dict(e=nn.Embedding(40, 16), t=nn.TransformerEncoder(layer, 1), o=nn.Linear(16, 40))
    return Net(lambda self, words: self.o(self.t(self.e(words), mask=mask, **how)), **parts), *LM.values()


def table_as_a_sequence():
    net = Net(lambda self, x: self.o(self.l(x)[0]), l=nn.LSTM(16, 32, batch_first=True), o=nn.Linear(32, 4))
    return net, X, Y


def kerass_momentum():
    return nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32, momentum=0.99), nn.ReLU(), nn.Linear(32, 4)), X, Y


def steps_of_time_as_numbers():
    net = Net(lambda self, x, t: self.f(torch.cat([x, t.float()[:, None]], 1)), f=mlp(n_in=17))
    return net, (X, torch.randint(0, 1000, (64,))), Y


def frozen_in_vain():
    net = mlp()
    net[0].requires_grad = False
    return net, X, Y


def misspelled():
    net = mlp()
    net[0].weight.require_grad = False
    return net, X, Y


def unscaled_attention():
    def forward(self, x):
        return self.o(((self.q(x) @ self.k(x).mT).softmax(-1) @ self.v(x)).mean(1))

    parts = {name: nn.Linear(16, 256) for name in "qkv"}
    for layer in parts["q"], parts["k"]:
        nn.init.normal_(layer.weight, std=0.25)
    return Net(forward, o=nn.Linear(256, 4), **parts), SERIES, Y


def over_the_queries():
    def forward(self, x):
        scores = self.q(x) @ self.k(x).mT / 4
        return self.o((F.dropout(scores.softmax(1), 0.1) @ self.v(x)).mean(1))

    return Net(forward, o=nn.Linear(16, 4), **{name: nn.Linear(16, 16) for name in "qkv"}), SERIES, Y


def mixed_neighbours():
    net = Net(
        lambda self, x: self.o(self.l(x.reshape(64, 8, 32))[0].mean(1)),
        l=nn.LSTM(32, 16, batch_first=True),
        o=nn.Linear(16, 4),
    )
    return net, torch.randn(64, 32, 8), Y


def decoder_of_zeros():
    parts = dict(t=nn.Transformer(16, 2, 1, 1, 32, 0.0, batch_first=True), o=nn.Linear(16, 16))
    return Net(lambda self, x: self.o(self.t(x, torch.zeros_like(x))), **parts), SERIES, SERIES.roll(1, 1), nn.MSELoss()


CAUSAL = torch.tril(torch.ones(12, 12))
FAULTS = {
    "half precision": (half_precision, "0.weight: the step makes it NaN", "eps", "float32"),
    "several labels": (several_labels, "targets that sum to", "binary_cross_entropy_with_logits"),
    "terms that cancel": (terms_that_cancel, "gets none from the loss", "detach()"),
    "no mask": (lambda: transformer(None), "changes with the next word", "causal mask"),
    "mask of floats": (lambda: transformer(CAUSAL), "a mask of 0.0 and 1.0", "-inf"),
    "a table as a sequence": (table_as_a_sequence, "l (LSTM)", "64 steps of one sequence"),
    "Keras's momentum": (kerass_momentum, "1 (BatchNorm1d): momentum 0.99", "0.01 here"),
    "dropped logits": (lambda: (mlp(nn.Dropout(0.5)), X, Y), "3 (Dropout): drops some of the logits"),
    "a decoder of zeros": (decoder_of_zeros, "the same at all 12 places", "shifted by one"),
    "all near 40": (lambda: (mlp(n_out=1), 40 + 6 * X, X[:, :1], nn.MSELoss()), "the inputs are all near 40"),
    "steps of time": (steps_of_time_as_numbers, "the inputs are large"),
    "frozen in vain": (frozen_in_vain, "0: an attribute requires_grad", "requires_grad_(False)"),
    "misspelled": (misspelled, "0.weight: require_grad freezes nothing"),
    "unscaled attention": (unscaled_attention, "of 12 attention weights the largest is", "sqrt(size of a key)"),
    "over the queries": (over_the_queries, "sum to 1 over dimension 1, the queries", "dim=-1"),
    "mixed or stacked": (mixed_neighbours, "mixes what they count", "unless 4 neighbours"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name):
    torch.manual_seed(0)
    make, *words = FAULTS[name]
    net, *data = make()
    assert says(diagnose(net, *data, optimizer=adam(net)).warnings, *words)


def test_masks_that_hide():
    for mask, how in (CAUSAL == 0, {}), (torch.full((12, 12), -torch.inf).triu(1), dict(is_causal=True)):
        net, *data = transformer(mask, **how)
        assert not diagnose(net, *data, optimizer=adam(net)).warnings


def test_a_last_layer_that_does_not_learn():
    net = mlp()
    nn.init.normal_(net[2].weight, std=5)
    assert says(diagnose(net, X, Y).warnings, "the logits are too large")
    net[2].requires_grad_(False)
    assert says(diagnose(net, X, Y).warnings, "the last layer, which does not learn")


def test_a_batch_that_is_one_argument():
    named, pair = Net(lambda self, batch: self.l(batch["x"]), l=nn.Linear(16, 4)), nn.Linear(16, 4)
    named.forward = lambda batch: named.run(named, batch)
    with pytest.raises(ValueError, match=r"inputs=\(batch,\)"):
        diagnose(named, {"x": X}, Y)
    assert diagnose(named, ({"x": X},), Y).loss > 0
    two = Net(lambda self, both: self.l(sum(both)), l=pair)
    two.forward = lambda both: two.run(two, both)
    with pytest.raises(ValueError, match=r"inputs=\(\(a, b\),\)"):
        diagnose(two, (X, X), Y)
    assert diagnose(two, ((X, X),), Y).loss > 0
