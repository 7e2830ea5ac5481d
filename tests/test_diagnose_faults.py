"""What once went wrong on networks that nobody here had seen: each with its smallest example."""

import copy
import io
import math
from argparse import Namespace
from types import SimpleNamespace
from typing import NamedTuple

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from helpers.diagnostics import diagnose, watch


def generator():
    return torch.Generator().manual_seed(0)


X = torch.randn(64, 12, generator=generator())
Y = torch.randint(0, 5, (64,), generator=generator())


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    yield
    plt.close("all")


class Net(nn.Module):
    """Net(forward, **parts): forward(self, *args)."""

    def __init__(self, f, **parts):
        super().__init__()
        self.__dict__["f"] = f
        for key, value in parts.items():
            setattr(self, key, value)

    def forward(self, *args):
        return self.f(self, *args)


def mlp(*end, activation=nn.ReLU):
    return nn.Sequential(nn.Linear(12, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 5), *end)


def watched(model, optimizer, body, n=6, every=1):
    with watch(model, optimizer, every=every) as seen:
        for step in range(n):
            body(step)
    return seen


def usual(model, optimizer):
    def body(step):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()

    return body


def sgd(model):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)


def says(warnings, *words):
    return any(all(word in text for word in words) for text in warnings)


def test_a_model_that_is_copied_or_saved_while_it_is_watched():
    model = mlp()
    with watch(model, sgd(model), every=1) as seen:
        F.cross_entropy(model(X), Y).backward()
        best, file = copy.deepcopy(model), io.BytesIO()
        torch.save(model, file)
        with torch.no_grad():
            best(X)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(again(X), best(X)) and not torch.overrides._get_current_function_mode_stack()
    assert b"helpers" not in file.getvalue() and seen.records == []
    assert diagnose(best, X, Y).warnings == diagnose(model, X, Y).warnings


@pytest.mark.parametrize("how", ["submodule", "call", "forward"])
def test_a_compiled_part_is_refused_by_name_before_the_training_starts(how):
    model = Net(lambda self, x: self.out(torch.relu(self.body(x))), body=mlp(), out=nn.Linear(5, 5))
    if how == "submodule":
        model.body = torch.compile(model.body, backend="eager")
    elif how == "call":
        model.body.compile(backend="eager")
    else:
        model.body.forward = torch.compile(model.body.forward, backend="eager")
    with pytest.raises(ValueError, match=r"body.*torch\.compile"):
        watch(model, sgd(model))


def test_a_list_that_can_be_called_is_called():
    class Chain(list):
        def __call__(self, x):
            for layer in self[:-1]:
                x = x + torch.tanh(layer(x))
            return self[-1](x)

    class Two(NamedTuple):
        W: torch.Tensor
        V: torch.Tensor

        def __call__(self, x):
            return torch.tanh(x @ self.W) @ self.V

    chain = Chain([nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 5)])
    two = Two(torch.randn(12, 9).requires_grad_(), torch.randn(9, 5).requires_grad_())
    for net in chain, two:
        assert diagnose(net, X, Y).loss == pytest.approx(F.cross_entropy(net(X), Y).item())


def test_a_constant_from_the_left_mixes_examples_and_is_no_layer():
    def forward(self, x):
        return self.b(F.relu(self.A @ self.a(x)))

    gcn = Net(forward, a=nn.Linear(12, 20), b=nn.Linear(20, 5))
    gcn.register_buffer("A", torch.eye(64) * (torch.arange(64) < 20)[:, None])
    look = diagnose(gcn, X, Y)
    assert look.warnings == [] and len(look.activations) == 3
    assert all(row.dead in (None, 0) for row in look.activations)


def test_weights_made_from_others_that_nothing_holds():
    W1 = torch.randn(12, 30, requires_grad=True) * 0.1
    W2 = (torch.randn(30, 5) * 0.1).requires_grad_()
    assert says(diagnose(lambda x: torch.tanh(x @ W1) @ W2, X, Y).warnings, "W1", "requires_grad_()")
    net = Net(lambda self, x: x @ self.W)
    net.W = nn.Parameter(torch.randn(12, 5)) * 0.1
    (warning,) = (text for text in diagnose(net, X, Y).warnings if "optimizer" in text or "no step" in text)
    assert warning.startswith("W:") and "ModuleList" not in warning


def test_a_rule_by_autograd_grad_has_its_changes_recorded():
    W1, W2 = (torch.randn(12, 30) * 0.1).requires_grad_(), (torch.randn(30, 5) * 0.1).requires_grad_()

    def forward(x):
        return torch.tanh(x @ W1) @ W2

    with watch(forward, every=1) as seen:
        for _ in range(2):
            gradients = torch.autograd.grad(F.cross_entropy(forward(X), Y), [W1, W2])
            for p, gradient in zip([W1, W2], gradients, strict=True):
                p.data -= 0.1 * gradient
            seen.step()
    rows = seen.records[-1][1].parameters
    assert [row.update_std for row in rows] == pytest.approx([0.1 * g.std().item() for g in gradients], rel=1e-3)


def test_the_pass_that_counts_is_the_one_with_gradients():
    model = mlp()
    optimizer = sgd(model)

    def body(step):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        model(X[:8])  # the batch's accuracy
        optimizer.step()

    look = watched(model, optimizer, body).records[0][1]
    assert look.activations[0].shape == (64, 16) and all(row.std for row in look.gradients)


def test_layers_that_sit_out_at_times():
    def forward(self, x):
        for i, layer in enumerate(self.blocks):
            if (i + self.turn) % 3:
                x = x + 0.5 * F.relu(layer(x))
        self.turn += 1
        return self.out(x)

    model = Net(forward, blocks=nn.ModuleList(nn.Linear(12, 12) for _ in range(6)), out=nn.Linear(12, 5), turn=0)
    seen = watched(model, optimizer := sgd(model), usual(model, optimizer))
    assert not says(seen.warnings, "no gradient")
    model.blocks.append(nn.Linear(12, 12))
    model.f = lambda self, x: forward(self, x) + 0 * X[:, :5]
    model.__dict__["f"] = lambda self, x: self.out(self.blocks[0](x))
    seen = watched(model, optimizer := sgd(model), usual(model, optimizer))
    assert says(seen.warnings, "blocks.1.weight", "no gradient")


def no_backward(model, optimizer):
    F.cross_entropy(model(X), Y)
    optimizer.step()


def zeroed_too_late(model, optimizer):
    F.cross_entropy(model(X), Y).backward()
    optimizer.zero_grad()
    optimizer.step()


def step_first(model, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(X), Y)
    optimizer.step()
    loss.backward()


def detached(model, optimizer):
    optimizer.zero_grad()
    F.cross_entropy(model(X).detach(), Y).requires_grad_().backward()
    optimizer.step()


@pytest.mark.parametrize("body", [no_backward, zeroed_too_late, step_first, detached])
def test_a_step_without_gradients(body):
    model = mlp()
    optimizer = sgd(model)
    assert says(watched(model, optimizer, lambda step: body(model, optimizer)).warnings, "from step 0 on", "zero_grad")


def test_another_model_is_trained_than_the_one_that_is_watched():
    model, other = mlp(), mlp()
    optimizer = sgd(model)
    assert says(watched(model, optimizer, usual(other, optimizer)).warnings, "not called")


def test_eval_mode_that_stays_on_after_a_validation():
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))
    optimizer = sgd(model)
    step = usual(model, optimizer)

    def body(i):
        step(i)
        if i == 2:
            model.eval()

    assert says(watched(model, optimizer, body).warnings, "from step 3 on", "model.train()")


def test_a_checkpoint_that_computes_its_layers_again():
    def forward(self, x):
        return self.b(checkpoint(lambda t: torch.tanh(self.a(t)), x, use_reentrant=False))

    model = Net(forward, a=nn.Linear(12, 9), b=nn.Linear(9, 5))
    seen = watched(model, optimizer := sgd(model), usual(model, optimizer), n=2)
    names = [[row.name for row in look.activations] for look in (seen.records[0][1], diagnose(model, X, Y))]
    assert names[0] == names[1] and all("call 2" not in name for name in names[0])


def test_nan_before_the_first_layer_and_after_the_last():
    bad, y = X.clone(), X[:, :1].clone()
    bad[3, 4], y[0] = math.nan, math.nan
    regression = nn.Linear(12, 1)
    assert diagnose(mlp(), bad, Y).warnings == ["the inputs hold NaN in 1 of 768 places: clean the data"]
    (warning,) = diagnose(regression, X, y, loss_fn=F.mse_loss).warnings
    assert warning.startswith("the targets hold NaN")
    assert says(diagnose(mlp(), X, torch.full((64,), -100)).warnings, "the loss is nan", "ignore_index")
    mask = torch.zeros(64, 12).masked_fill(X > 0, -math.inf)  # is none
    assert not says(diagnose(lambda x, m: x + m.softmax(1), (X, mask), loss_fn=None).warnings, "inputs")


def test_the_picture_of_a_network_full_of_nan():
    figure = diagnose(mlp(), X * math.nan, Y, lr=0.1).plot()
    figure.canvas.draw()
    assert any("NaN" in text.get_text() for ax in figure.axes for text in ax.texts)


def test_numbers_for_the_default_cross_entropy():
    net = nn.Linear(12, 3)
    with pytest.raises(ValueError, match="mse_loss"):
        diagnose(net, X, torch.randn(64, 3))
    assert diagnose(net, X, torch.randn(64, 3).softmax(1)).loss > 0
    classes = Y % 3
    for targets, remedy in (classes.int(), r"long\(\)"), (classes[:, None], r"squeeze\(1\)"), (X[:, 0], "mse_loss"):
        with pytest.raises(ValueError, match=remedy):
            diagnose(net, X, targets)


def test_a_gradient_of_exactly_zero():
    net = Net(
        lambda s, x: s.c(torch.tanh(s.b(torch.sign(s.a(x))))), a=nn.Linear(12, 9), b=nn.Linear(9, 9), c=nn.Linear(9, 5)
    )
    assert says(diagnose(net, X, Y, lr=0.1).warnings, "a.weight", "exactly 0")


def test_what_begins_at_zero_on_purpose_is_healthy():
    class Lora(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer.requires_grad_(False)
            self.A = nn.Parameter(torch.randn(4, layer.in_features) / layer.in_features**0.5)
            self.B = nn.Parameter(torch.zeros(layer.out_features, 4))

        def forward(self, x):
            return self.layer(x) + x @ self.A.T @ self.B.T

    net = nn.Sequential(*(Lora(layer) if isinstance(layer, nn.Linear) else layer for layer in mlp()))
    parameters = [p for p in net.parameters() if p.requires_grad]
    for optimizer in torch.optim.SGD(parameters, 0.1), torch.optim.AdamW(parameters, 1e-3):
        assert diagnose(net, X, Y, optimizer=optimizer).warnings == []
    block = Net(lambda self, x: torch.tanh(x + self.norm(self.a(x))), a=nn.Linear(12, 12), norm=nn.BatchNorm1d(12))
    nn.init.zeros_(block.norm.weight)
    assert diagnose(nn.Sequential(block, nn.Linear(12, 5)), X, Y, lr=0.1).warnings == []
    plain = mlp()
    for p in plain[4].parameters():  # an output layer, as in many a diffusion model
        nn.init.zeros_(p)
    for optimizer in sgd(plain), torch.optim.AdamW(plain.parameters(), 1e-3):
        assert diagnose(plain, X, Y, optimizer=optimizer).warnings == []
        assert watched(plain, optimizer, usual(plain, optimizer)).warnings == []


def test_adam_has_converged():
    """Its steps are small, as the first gradients are in its average still: no fault of eps."""
    net = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def body(step):
        optimizer.zero_grad()
        (F.mse_loss(net(X), X[:, :1]) * (1e4 if step < 3 else 1)).backward()
        optimizer.step()

    seen = watched(net, optimizer, body, n=61, every=20)
    last = seen.records[-1][1].parameters[2]
    assert last.update_to_data < 0.1 * last.adam_to_data and not says(seen.warnings, "eps")


@pytest.mark.parametrize("relu", [lambda h: torch.clip(h, 0), lambda h: h.clip(min=0), lambda h: F.threshold(h, 0, 0)])
def test_relu_by_its_other_names(relu):
    W1, W2 = torch.randn(12, 30, requires_grad=True), (torch.randn(30, 5) * 0.1).requires_grad_()
    assert says(diagnose(lambda x: relu(x @ W1 - 60) @ W2, X, Y).warnings, "dead")
    assert not says(diagnose(lambda x: torch.clip(x @ W1, 0, 6) @ W2 + 0, X, Y).warnings, "dead")


def test_what_has_no_values_is_refused_and_leaves_no_second_error():
    with torch.device("meta"):
        model = mlp()
    with pytest.raises(ValueError, match="meta"):
        diagnose(model, X, Y)
    states, _ = torch.func.stack_module_state([mlp() for _ in range(3)])
    base = copy.deepcopy(mlp()).to("meta")
    calls = {
        "stack": lambda x: torch.vmap(lambda p: torch.func.functional_call(base, p, (x,)))(states),
        "grad": lambda x: torch.vmap(torch.func.grad(lambda row: net(row).sum()))(x) @ torch.ones(12, 5),
    }
    net = mlp()
    for call in calls.values():
        with pytest.raises(ValueError, match="vmap"):
            diagnose(call, X, loss_fn=lambda out: out.square().mean())


def test_parameters_in_any_form_of_a_learners_own():
    class Plain:
        def __init__(self):
            self.W = (torch.randn(12, 5) * 0.1).requires_grad_()

        def __call__(self, x):
            return x @ self.W

    forms = {
        "property": property(lambda self: [self.W]),
        "dict": lambda self: {"W": self.W},
        "pairs": lambda self: [("W", self.W)],
        "nested": lambda self: [[self.W]],
    }
    for form in forms.values():
        cls = type("Own", (Plain,), {"parameters": form})
        assert [row.name for row in diagnose(cls(), X, Y).parameters] == ["W"]


def test_defaults_and_pythons_own_holders_are_put_back():
    W = (torch.randn(12, 5) * 0.1).requires_grad_()

    def by_default(x, W=W, cache=[], *, kept={}):  # noqa: B006
        cache.append(1)
        kept["x"] = x
        return torch.tanh(x @ W)

    assert [row.name for row in diagnose(by_default, X, Y).parameters] == ["W"]
    assert by_default.__defaults__[1] == [] and by_default.__kwdefaults__["kept"] == {}
    for kind in SimpleNamespace, Namespace:
        space = kind(W=W, n=0, log=[])

        def forward(x, space=space):
            space.n += 1
            space.log.append(1)
            return torch.tanh(x @ space.W)

        assert [row.name for row in diagnose(forward, X, Y).parameters] == ["space.W"]
        assert (space.n, space.log) == (0, [])


def test_weights_that_are_all_the_same():
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5), nn.LayerNorm([5]))
    assert not says(diagnose(model, X, Y).warnings, "at random")
    nn.init.constant_(model[0].weight, 0.1)
    assert says(diagnose(model, X, Y).warnings, "0.weight", "at random")


def test_nll_loss_wants_log_probabilities():
    for end, word in (nn.Softmax(1), "probabilities"), (nn.Identity(), "logits"):
        assert says(diagnose(nn.Sequential(mlp(), end), X, Y, loss_fn=F.nll_loss).warnings, word, "log_softmax")
    assert diagnose(nn.Sequential(mlp(), nn.LogSoftmax(1)), X, Y, loss_fn=F.nll_loss).warnings == []
    two = Net(lambda self, x: (self.a(x), self.b(x).softmax(1)), a=nn.Linear(12, 5), b=nn.Linear(12, 5))
    both = diagnose(two, X, Y, loss_fn=lambda out, y: F.cross_entropy(out[0], y) + F.cross_entropy(out[1], y))
    assert says(both.warnings, "softmax of its own")


def test_a_step_that_rounding_takes_away():
    model = mlp().bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), 1e-5)
    assert says(diagnose(model, X.bfloat16(), Y, optimizer=optimizer).warnings, "rounding", "float32")


def test_a_remedy_for_what_the_model_is():
    model = mlp()
    assert says(diagnose(model, X, Y, parameters=[model[0].weight]).warnings, "parameters=")
    made = Net(lambda self, x: nn.Linear(9, 5)(torch.relu(self.a(x))), a=nn.Linear(12, 9))
    assert says(diagnose(made, X, Y).warnings, "inside the call", "__init__")

    class Linear:
        def __init__(self):
            self.weight = torch.randn(12, 5).mul(0.3).requires_grad_()
            self.bias = torch.zeros(5).requires_grad_()

        def __call__(self, x):
            return x @ self.weight + self.bias

        def parameters(self):
            return [self.weight]

    assert says(diagnose([Linear()], X, Y).warnings, "bias", "parameters()")


def test_all_frozen():
    model = mlp().requires_grad_(False)
    assert says(diagnose(model, X, Y, lr=0.1).warnings, "nothing learns", "requires_grad_")
    assert says(diagnose(model, X, Y).warnings, "nothing learns") and not diagnose(model, X, loss_fn=None).warnings


@pytest.mark.parametrize(
    ("how", "word"),
    [
        (dict(loss_fn=nn.CrossEntropyLoss), "CrossEntropyLoss()"),
        (dict(optimizer=torch.optim.SGD), "Optimizer"),
        (dict(lr=[0.1]), "lr"),
        (dict(lr=-1), "lr"),
        (dict(lr="0.1"), "lr"),
    ],
)
def test_arguments_of_another_kind(how, word):
    with pytest.raises(ValueError) as error:
        diagnose(mlp(), X, Y, **how)
    assert word in str(error.value)


def test_two_functions_are_watched_at_once_in_modes_of_the_loops_own():
    P1, P2 = ((torch.randn(12, 5) * 0.1).requires_grad_() for _ in range(2))

    def generator(x):
        return torch.tanh(x @ P1)

    def critic(x):
        return torch.sigmoid(x @ P2)

    def kinds_of_modes():
        return [type(mode).__name__ for mode in torch.overrides._get_current_function_mode_stack()]

    with watch(generator, every=1) as a, watch(critic, every=1) as b:
        for _ in range(3):
            for p, f, seen in (P1, generator, a), (P2, critic, b):
                p.grad = None
                with torch.device("cpu"):
                    (F.cross_entropy(f(X), Y) + 0 * (P1 @ P2.T).relu().sum()).backward()
                    p.data -= 0.1 * p.grad
                    seen.step()
                    assert "DeviceContext" in kinds_of_modes()
                assert "DeviceContext" not in kinds_of_modes()
    assert not torch.overrides._get_current_function_mode_stack()
    for seen, name in (a, "generator"), (b, "critic"):
        assert [len(look.activations) for _, look in seen.records] == [2, 2, 2]
        assert all(row.name.startswith(name) for _, look in seen.records for row in look.activations)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_sparse_tensors_are_left_alone(layout):
    def forward(self, x):
        if self.spoils:
            self.A.mul_(2)
        return torch.sparse.mm(self.A, self.b(F.relu(self.norm(torch.sparse.mm(self.A, self.a(x))))))

    net = Net(forward, a=nn.Linear(12, 16), norm=nn.BatchNorm1d(16), b=nn.Linear(16, 5), spoils=layout == "to_sparse")
    dense = (torch.rand(64, 64) < 0.1).float() + torch.eye(64)
    net.register_buffer("A", getattr(dense, layout)())
    look = diagnose(net, X, Y)
    assert len(look.activations) == 5 and net.norm.num_batches_tracked == 0
    assert torch.equal(net.A.to_dense(), dense)
    W = nn.Parameter(torch.randn(12, 5))
    sparse = getattr(X, layout)()
    assert diagnose(lambda x: torch.sparse.mm(x, W), sparse, Y).loss == pytest.approx(
        F.cross_entropy(torch.sparse.mm(sparse, W), Y).item()
    )


def test_gradients_of_frozen_parameters_are_not_those_of_before():
    model = mlp()
    F.cross_entropy(model(X), Y).backward()
    model[:4].requires_grad_(False)
    optimizer = torch.optim.SGD(model[4].parameters(), 0.1)
    seen = watched(model, optimizer, usual(model, optimizer))
    rows = seen.records[-1][1].parameters
    assert [row.grad_std is None for row in rows] == [True] * 4 + [False] * 2 and seen.warnings == []


def test_cross_entropy_written_by_hand_is_known_by_its_gradient():
    model = mlp()
    model[4].weight.data *= 100

    def by_hand(logits, y):
        counts = logits.exp()
        return -(counts / counts.sum(1, keepdim=True))[torch.arange(len(y)), y].log().mean()

    for loss_fn in by_hand, lambda out, y: -out.log_softmax(1).gather(1, y[:, None]).mean():
        assert diagnose(model, X, Y, loss_fn=loss_fn).warnings[:1] == diagnose(model, X, Y).warnings[:1]
    assert not says(diagnose(model, X, X[:, :5], loss_fn=F.mse_loss).warnings, "ln(")


def test_a_model_of_which_only_parts_are_called_is_said():
    model = Net(lambda self, x: self.b(torch.tanh(self.a(x))), a=nn.Linear(12, 8), b=nn.Linear(8, 5))
    optimizer = sgd(model)

    def body(step):
        optimizer.zero_grad()
        F.cross_entropy(model.b(torch.tanh(model.a(X))), Y).backward()
        optimizer.step()

    assert says(watched(model, optimizer, body).warnings, "call the model")
    parts = nn.ModuleDict(dict(a=model.a, b=model.b))  # has no forward
    look = watched(parts, optimizer, body).records[0][1]
    assert [row.name for row in look.activations] == ["a", "b"]
    assert not says(watched(model, optimizer, usual(model, optimizer)).warnings, "call the model")


def test_what_is_no_network_or_no_optimizer():
    class Wrapped(torch.optim.Optimizer):
        def __init__(self, inner):
            self.inner = inner

    for model, x, how, word in (
        (nn.ModuleList([nn.Linear(12, 5)]), X, {}, "Sequential"),
        ([nn.Linear(12, 5), None], X, {}, "NoneType"),
        ([nn.Linear(12, 5)], (X, X), {}, "one input"),
        (lambda x: x, X, dict(parameters={"W": 3}), "int"),
    ):
        with pytest.raises(ValueError, match=word):
            diagnose(model, x, Y, **how)
    with pytest.raises(ValueError, match="Wrapped"):
        watch(mlp(), Wrapped(sgd(mlp())))
    W = torch.randn(12, 5, requires_grad=True)
    assert diagnose(lambda x: x @ W, X, Y, parameters={0: W}, lr=0.1).warnings is not None


def test_numbers_that_are_read():
    deep = nn.Sequential(*(layer for _ in range(160) for layer in (nn.Linear(12, 12), nn.Tanh())), nn.Linear(12, 5))
    assert all(len(word) < 20 for text in diagnose(deep, X, Y, lr=0.1).warnings for word in text.split())


def test_a_head_is_an_output_wherever_it_stands():
    for order in 1, -1:
        net = Net(
            lambda self, x, order=order: tuple([torch.sigmoid(self.a(x)), self.b(x)][::order]),
            a=nn.Linear(12, 3),
            b=nn.Linear(12, 4),
        )
        net.a.weight.data *= 100
        assert diagnose(net, X, loss_fn=lambda out: out[0].square().mean() + out[1].square().mean()).warnings == []


def test_a_layer_that_is_replaced_while_it_is_watched():
    model = mlp()
    optimizer = sgd(model)

    def body(step):
        if step == 2:
            model[4] = nn.Linear(16, 5)  # the optimizer is not told
        model.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()

    seen = watched(model, optimizer, body)
    look = seen.records[-1][1]
    assert look.parameters[4].grad_std == pytest.approx(model[4].weight.grad.std().item())
    assert [row.name for row in look.activations] == list("01234")
    assert says(seen.warnings, "4.weight", "not held by the optimizer")


def test_an_optimizer_that_takes_no_step():
    model = mlp()
    given, other = sgd(model), sgd(model)
    assert says(watched(model, given, usual(model, other)).warnings, "another one")


def test_an_expert_that_had_no_example_learns_in_other_steps():
    def forward(self, x):
        rows = torch.arange(64) % 2 == self.turn % 2
        self.turn += 1
        return self.out(torch.tanh(self.a(x[:0] if self.turn % 2 else x[rows]).sum(0) + self.b(x)))

    model = Net(forward, a=nn.Linear(12, 9), b=nn.Linear(12, 9), out=nn.Linear(9, 5), turn=0)
    assert says(diagnose(model, X, Y).warnings, "a.weight", "exactly 0")
    seen = watched(model, optimizer := sgd(model), usual(model, optimizer))
    assert seen.records[0][1].parameters[0].grad_std == 0 and not says(seen.warnings, "exactly 0")


def test_two_networks_of_the_same_plain_classes_are_watched_at_once():
    class Layer:
        def __init__(self, n):
            self.weight = (torch.randn(12, n) / 12**0.5).requires_grad_()

        def __call__(self, x):
            return x @ self.weight

        def parameters(self):
            return [self.weight]

    own = Layer.__call__
    nets = [Layer(12), torch.tanh, Layer(5)], [Layer(12), Layer(5)]
    with watch(nets[0], every=1) as a, watch(nets[1], every=1) as b:
        for _ in range(3):
            for net, seen in zip(nets, (a, b), strict=True):
                x = X
                for layer in net:
                    x = layer(x)
                weights = [layer.weight for layer in net if isinstance(layer, Layer)]
                for weight in weights:
                    weight.grad = None
                F.cross_entropy(x, Y).backward()
                for weight in weights:
                    weight.data -= 0.1 * weight.grad
                seen.step()
    assert Layer.__call__ is own
    for seen, places in (a, ["0", "2"]), (b, ["0", "1"]):
        names = [[row.name for row in look.activations if row.name.isdigit()] for _, look in seen.records]
        assert names == [places] * 3


SEQUENCES = torch.randn(32, 12, 8, generator=generator())
LABELS = torch.randint(0, 5, (32,), generator=generator())


def attention(dim):
    def forward(self, x):
        return self.out((F.softmax(x @ x.transpose(1, 2) / 8, dim) @ self.v(x)).mean(1))

    return Net(forward, v=nn.Linear(8, 16), out=nn.Linear(16, 5))


def recurrent(read, last, batch_first=False, kind=nn.LSTM):
    rnn = kind(8, 16, batch_first=batch_first)
    return Net(lambda self, x: self.out(last(self.rnn(read(x))[0])), rnn=rnn, out=nn.Linear(16, 5))


def encoder(batch_first):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
    return Net(lambda self, x: self.out(self.t(x).mean(1)), t=layer, out=nn.Linear(8, 5))


MIXED = {
    "softmax over the examples": (lambda: attention(0), "softmax", "dimension 0"),
    "over keys": (lambda: attention(-1), None),
    "view for transpose": (lambda: recurrent(lambda x: x.view(12, 32, 8), lambda h: h[-1]), "view", "transpose"),
    "transpose": (lambda: recurrent(lambda x: x.transpose(0, 1), lambda h: h[-1]), None),
    "time first, then reshaped": (lambda: Net(lambda self, x: self.out(x.transpose(0, 1).reshape(32, -1)), out=nn.Linear(96, 5)), "reshape", "(12, 32, 8)"),
    "examples and time in one": (lambda: Net(lambda self, x: self.out(x.flatten(0, 1).reshape(32, -1)), out=nn.Linear(96, 5)), None),
    "as many channels as examples": (lambda: Net(lambda self, x: self.out(self.up(x.flatten(0, 1)).reshape(32, 12, 32).tanh().mean(1)), up=nn.Linear(8, 32), out=nn.Linear(32, 5)), None),
    "another size outermost": (lambda: Net(lambda self, x: self.out(x.flatten(1)) + 0 * x.reshape(12, -1).sum(), out=nn.Linear(96, 5)), None),
    "views that keep the order": (
        lambda: recurrent(lambda x: x.view(32, 1, 12, 8).flatten(1, 2).reshape(32, 12, 8), lambda h: h[:, -1], True), None),
    "batch_first forgotten": (lambda: recurrent(lambda x: x, lambda h: h[:, -1]), "rnn:", "batch_first=True"),
    "batch_first": (lambda: recurrent(lambda x: x, lambda h: h[:, -1], True), None),
    "encoder": (lambda: encoder(False), "t.self_attn", "batch_first=True"),
    "encoder, batch_first": (lambda: encoder(True), None),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_examples_that_are_mixed(name):
    make, *words = MIXED[name]
    said = diagnose(make(), SEQUENCES, LABELS).warnings
    assert says(said, *words) if words[0] else not said
    tags = recurrent(lambda x: x, lambda h: h[:, 0]), SEQUENCES[:, :1], LABELS  # one sentence, a tag for each word
    assert not diagnose(*tags).warnings
    by_step = dict(loss_fn=lambda out, y: F.cross_entropy(out, y[:, 0]))  # time first, a target for each step
    if name == "batch_first forgotten":
        assert not says(diagnose(make(), SEQUENCES, LABELS[:, None].expand(32, 12), **by_step).warnings, "batch_first")


def test_arguments_by_name_and_nested_tensors_are_no_mistake():
    def forward(self, x):
        nested = torch.nested.nested_tensor([x[:5], x[5:]], layout=torch.jagged)
        rows = torch.nested.to_padded_tensor(nested.reshape(2, -1, 12), 0.0)
        return F.softmax(input=self.a(x), dim=1) + rows.sum() * 0

    assert diagnose(Net(forward, a=nn.Linear(12, 5)), X, loss_fn=lambda out: out[:, 0].mean()).loss > 0


def test_a_log_softmax_over_the_examples():
    (said,) = diagnose(mlp(nn.LogSoftmax(0)), X, Y, loss_fn=F.nll_loss).warnings
    assert "dimension 0, the 64 examples" in said


def test_what_is_cut_off_inside_is_told_from_what_is_not_called():
    cut = Net(
        lambda self, x: self.b(torch.no_grad()(self.a)(x)), a=nn.Linear(12, 9), b=nn.Linear(9, 5), c=nn.Linear(3, 3)
    )
    said = diagnose(cut, X, Y).warnings
    assert says(said, "a.weight, a.bias", "no_grad") and says(said, "c.weight, c.bias", "does not depend")


def test_two_factors_that_are_both_zero():
    parts = dict(A=nn.Parameter(torch.zeros(12, 4)), B=nn.Parameter(torch.zeros(4, 5)), out=nn.Linear(12, 5))
    lora = Net(lambda self, x: self.out(x) + x @ self.A @ self.B, **parts)
    lora.out.requires_grad_(False)
    (said,) = diagnose(lora, X, Y).warnings
    assert "at random" in said and "sign" not in said


def test_weights_that_are_nan_are_the_only_finding():
    model = Net(
        lambda self, x: self.b(torch.where((h := self.a(x)) > 0, h, 0.0)), a=nn.Linear(12, 9), b=nn.Linear(9, 5)
    )
    nn.init.constant_(model.a.weight, math.nan)
    (said,) = diagnose(model, X, Y).warnings
    assert said.startswith("a.weight: NaN")


def test_a_gain_of_shape_1_n_is_no_weight():
    """As in the lecture: what began constant has no std to be judged by."""
    W1, W2 = (torch.randn(12, 30) * 0.3).requires_grad_(), (torch.randn(30, 5) * 0.1).requires_grad_()
    gain, bias = torch.ones(1, 30, requires_grad=True), torch.zeros(1, 30, requires_grad=True)
    parameters = [W1, gain, bias, W2]

    def forward(x):
        h = x @ W1
        return torch.tanh(gain * (h - h.mean(0, keepdim=True)) / h.std(0, keepdim=True) + bias) @ W2

    with watch(forward, every=2) as seen:
        for _ in range(20):
            gradients = torch.autograd.grad(F.cross_entropy(forward(X), Y), parameters)
            for p, gradient in zip(parameters, gradients, strict=True):
                p.data -= 0.1 * gradient
            seen.step()
    gains = [look.parameters[1] for _, look in seen.records[1:]]
    assert gains[0].shape == (1, 30) and gains[0].update_to_data > 0.1 and not seen.warnings


def test_a_hardtanh_after_a_norm_is_healthy():
    net = nn.Sequential(nn.Linear(12, 64), nn.BatchNorm1d(64), nn.Hardtanh(), nn.Linear(64, 5))
    look = diagnose(net, X, Y)
    assert look.activations[2].saturated > 0.3 and not look.warnings
    nn.init.constant_(net[1].weight, 3.0)
    assert says(diagnose(net, X, Y).warnings, "Hardtanh", "saturated")


def test_what_reaches_the_last_layer_is_large():
    net = mlp()
    for layer in net[0], net[2], net[4]:
        nn.init.normal_(layer.weight)
    assert says(diagnose(net, X * 3, Y).warnings, "ln(5)", "what reaches the last layer", "gain")


def test_weights_that_are_all_zero_have_dead_units_for_that_reason():
    net = mlp()
    for p in net.parameters():
        nn.init.zeros_(p)
    assert says(diagnose(net, X, Y).warnings, "1 (ReLU)", "all zero")


def test_prices_under_sgd_are_the_cause_of_too_long_steps():
    net = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer, prices = torch.optim.SGD(net.parameters(), 1e-3), 1e5 + 1e4 * X[:, :1]

    def body(step):
        optimizer.zero_grad()
        F.mse_loss(net(X), prices).backward()
        optimizer.step()

    for said in (
        diagnose(net, X, prices, loss_fn=F.mse_loss, optimizer=optimizer).warnings,
        watched(net, optimizer, body, 20, 5).warnings,
    ):
        assert says(said[:1], "standardise") and not says(said, "rate is probably") and not says(said, "scheduler")


def test_inputs_that_nobody_has_scaled():
    net, y = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 1)), X[:, :1]
    areas = X * torch.tensor([1e4] + 11 * [1.0])
    assert says(diagnose(net, areas, y, loss_fn=F.mse_loss).warnings, "the inputs are large")
    for healthy in nn.Sequential(nn.BatchNorm1d(12), net), Net(lambda self, x: self.net(x / 1e4), net=net):
        assert not says(diagnose(healthy, areas, y, loss_fn=F.mse_loss).warnings, "the inputs")


def one_output():
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1))


LOADER = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
BINARY = nn.BCEWithLogitsLoss()


@pytest.mark.parametrize("loss_fn", [F.cross_entropy, nn.CrossEntropyLoss()], ids=["default", "CrossEntropyLoss"])
@pytest.mark.parametrize(
    ("model", "targets", "remedy"),
    [
        (mlp, F.one_hot(Y, 5), "argmax(1)"),
        (mlp, Y[:-1], "flatten(1)"),
        (mlp, Y + 1, "from 0"),
        (mlp, Y.numpy(), "as_tensor"),
        (mlp, Y.tolist(), "as_tensor"),
        (mlp, Y.int(), "long()"),
        (mlp, Y[:, None], "squeeze(1)"),
        (one_output, Y % 2, "binary_cross_entropy_with_logits"),
    ],
)
def test_targets_of_another_kind(model, targets, remedy, loss_fn):
    with pytest.raises(ValueError, match="targets") as error:
        diagnose(model(), X, targets, loss_fn)
    assert remedy in str(error.value)


@pytest.mark.parametrize(
    ("given", "loss_fn", "words"),
    [
        ((X, Y), "cross_entropy", "loss_fn a.str F.cross_entropy"),
        ((X, Y), torch.tensor(2.3), "loss_fn a.Tensor F.cross_entropy"),
        ((X, Y), sgd(mlp()), "loss_fn a.SGD F.cross_entropy"),
        ((LOADER,), F.cross_entropy, "targets None next(iter(loader))"),
        ((next(iter(LOADER)),), F.cross_entropy, "targets None next(iter(loader))"),
        (((X, Y),), F.cross_entropy, "targets None next(iter(loader))"),
        (((X, Y),), nn.CrossEntropyLoss(), "inputs tuple next(iter(loader))"),
        ((LOADER, Y), F.cross_entropy, "inputs DataLoader next(iter(loader))"),
        (([X], Y), F.cross_entropy, "inputs list tensor"),
        ((X.numpy(), Y), F.cross_entropy, "inputs ndarray as_tensor"),
        ((X.double(), Y), F.cross_entropy, "inputs float64 float()"),
        ((X.int(), Y), F.cross_entropy, "inputs int32 float()"),
        ((X,), nn.CrossEntropyLoss(), "targets None"),
    ],
)
def test_what_is_given_first_gets_its_remedy(given, loss_fn, words):
    with pytest.raises(ValueError, match=words.split()[0]) as error:
        diagnose(mlp(), *given, loss_fn=loss_fn)
    assert all(word.replace(".", " ", word.startswith("a.")) in str(error.value) for word in words.split())


@pytest.mark.parametrize(
    ("targets", "loss_fn", "remedy"),
    [
        ((Y % 2)[:, None], BINARY, "float()"),
        ((Y % 2).float(), BINARY, "view_as(output)"),
        ((Y % 2).float().numpy(), F.mse_loss, "as_tensor"),
    ],
)
def test_targets_of_one_output(targets, loss_fn, remedy):
    with pytest.raises(ValueError, match="targets") as error:
        diagnose(one_output(), X, targets, loss_fn)
    assert remedy in str(error.value) and error.value.__cause__ is not None


def test_an_error_of_the_models_own_stays_what_it_is():
    """Where nothing that is given explains it; and what is explained keeps its cause."""
    for model, kind in (nn.Linear(13, 5), RuntimeError), (Net(lambda self, x: {}["dtype"]), KeyError):
        with pytest.raises(kind):
            diagnose(model, X, Y)
    with pytest.raises(ValueError, match=r"long\(\)") as error:
        diagnose(nn.Embedding(20, 5), X[:, 0], Y)
    assert isinstance(error.value.__cause__, RuntimeError) and "indices" in str(error.value.__cause__)


@pytest.mark.parametrize("end", [(), (nn.Softmax(1),)], ids=["cross-entropy", "softmax"])
def test_a_softmax_over_one_output(end):
    loss_fn = F.binary_cross_entropy if end else F.cross_entropy
    model, y = nn.Sequential(one_output(), *end), (Y % 2).float()[:, None]
    warnings = diagnose(model, X, y, lambda out, y: loss_fn(out, y), optimizer=sgd(model)).warnings
    assert says(warnings, "over one", "binary_cross_entropy_with_logits")
    assert bool(end) == says(warnings, "exactly 0")  # of cross-entropy "nothing learns" is said, and why
    assert not says(warnings, "would not move") and not says(warnings, "dead units after")
    model = nn.Sequential(one_output(), *end)
    with watch(model, optimizer := sgd(model), every=5) as seen:
        for _ in range(20):
            optimizer.zero_grad()
            loss_fn(model(X), y).backward()
            optimizer.step()
    assert len(seen.warnings) == (1 if end else 2)  # of cross-entropy its own sentence, too
    assert says(seen.warnings, "over one output", "binary_cross_entropy_with_logits")


P = F.one_hot(Y, 5) * 0.9 + 0.02


@pytest.mark.parametrize(
    ("end", "targets", "loss_fn", "words"),
    [
        (nn.Softmax(1), P, nn.KLDivLoss(reduction="batchmean"), ("log_softmax",)),
        (nn.Identity(), 255 * P, F.binary_cross_entropy_with_logits, ("0 to 1", "255")),
        (nn.Identity(), torch.randn(len(Y), 5), nn.BCEWithLogitsLoss(), ("0 to 1", "mse_loss")),
        (nn.LogSoftmax(1), P, nn.KLDivLoss(reduction="batchmean"), ()),
        (nn.LogSoftmax(1), P.log(), nn.KLDivLoss(reduction="batchmean", log_target=True), ()),
        (nn.Identity(), P, F.binary_cross_entropy_with_logits, ()),
    ],
)
def test_losses_between_probabilities_that_get_none(end, targets, loss_fn, words):
    said = diagnose(nn.Sequential(nn.Linear(12, 5), end), X, targets, loss_fn).warnings
    assert says(said, *words) if words else said == []
