"""What people's networks and loops do that no lesson of the course does: it is named, and what is healthy is not."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.diagnostics import diagnose, watch
from test_diagnose_faults import Net, X, Y, mlp, sgd, usual, watched  # seed: of each test, by itself

# What begins at zero on purpose


def lora(linear):
    linear.requires_grad_(False)
    A, B = nn.Parameter(torch.randn(4, linear.in_features)), nn.Parameter(torch.zeros(linear.out_features, 4))
    return Net(lambda self, x: self.linear(x) + x @ self.A.T @ self.B.T, linear=linear, A=A, B=B)


def zero_gamma():
    norm = nn.BatchNorm1d(12)
    nn.init.zeros_(norm.weight)
    return Net(lambda self, x: x + self.norm(F.relu(self.linear(x))), linear=nn.Linear(12, 12), norm=norm)


def rezero():
    alpha = nn.Parameter(torch.zeros(()))
    return Net(lambda self, x: x + self.alpha * F.relu(self.linear(x)), linear=nn.Linear(12, 12), alpha=alpha)


STARTS = {
    "LoRA": lambda: nn.Sequential(*(lora(layer) if isinstance(layer, nn.Linear) else layer for layer in mlp())),
    "zero gamma": lambda: nn.Sequential(zero_gamma(), zero_gamma(), zero_gamma(), nn.Linear(12, 5)),
    "ReZero": lambda: nn.Sequential(rezero(), rezero(), rezero(), nn.Linear(12, 5)),
}


@pytest.mark.parametrize("name", STARTS)
def test_what_begins_at_zero_on_purpose_is_no_fault(name):
    torch.manual_seed(1)  # not for every seed: where ReZero's scales grow apart, gradients are said to vanish
    model = STARTS[name]()
    for optimizer in sgd(model), torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3):
        assert not diagnose(model, X, Y, optimizer=optimizer).warnings
    optimizer = sgd(model)
    assert not watched(model, optimizer, usual(model, optimizer), 30, 5).warnings


def test_all_zeros_are_still_a_fault():
    model = mlp(activation=nn.Tanh)
    for p in model.parameters():
        nn.init.zeros_(p)
    said = diagnose(model, X, Y, lr=0.1).warnings
    assert any("puts out the same number everywhere" in text for text in said)


# Weights that all are the same number


def test_constant_weights_are_named_and_constant_scales_are_not():
    model = mlp(activation=nn.Tanh)
    nn.init.constant_(model[0].weight, 0.1)
    (text,) = [text for text in diagnose(model, X, Y, lr=0.1).warnings if "which begin equal" in text]
    assert text.startswith("0.weight: ") and "random" in text
    gain = torch.ones(1, 16, requires_grad=True)
    weight = (torch.randn(12, 16) / 4).requires_grad_()
    assert not diagnose(lambda x: gain * torch.tanh(x @ weight), X, torch.randint(0, 16, (64,)), lr=0.1).warnings


# The loss


@pytest.mark.parametrize(
    ("targets", "remedy"),
    [
        (torch.randn(64, 5) * 4, "mse_loss"),
        ((torch.randn(64, 5) > 0).float(), "binary_cross_entropy_with_logits"),
        (X[:, 0], "mse_loss"),
        (Y.int(), "long()"),
        (Y[:, None], "squeeze"),
    ],
)
def test_targets_that_cross_entropy_does_not_take_get_their_remedy(targets, remedy):
    with pytest.raises(ValueError, match="targets") as error:
        diagnose(mlp(), X, targets)
    assert remedy in str(error.value)


def test_targets_that_are_probabilities_are_taken():
    diagnose(mlp(), X, F.one_hot(Y, 5) * 0.9 + 0.02)


def test_losses_that_get_what_they_do_not_want():
    binary = nn.Sequential(nn.Linear(12, 1), nn.Sigmoid())
    (text,) = diagnose(binary, X, (Y > 2).float()[:, None], loss_fn=F.binary_cross_entropy_with_logits).warnings
    assert "sigmoid of its own" in text
    zero_logits = lambda out, y: F.binary_cross_entropy_with_logits(0 * out, y)
    assert not [w for w in diagnose(binary[0], X, (Y > 2).float()[:, None], loss_fn=zero_logits).warnings if "own" in w]
    assert "log_softmax" in diagnose(mlp(), X, Y, loss_fn=F.nll_loss).warnings[0]
    assert "log_softmax" in diagnose(mlp(nn.Softmax(1)), X, Y, loss_fn=F.nll_loss).warnings[0]
    assert not diagnose(mlp(nn.LogSoftmax(1)), X, Y, loss_fn=F.nll_loss).warnings
    (over_examples,) = diagnose(mlp(nn.Softmax(0)), X, Y).warnings
    assert "dimension 0" in over_examples


def test_a_difference_of_all_pairs_is_named():
    model, y = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 1)), X[:, 0]
    (text,) = diagnose(model, X, y, loss_fn=lambda out, y: ((out - y) ** 2).mean()).warnings
    assert "(64, 1)" in text and "view_as" in text
    assert not diagnose(model, X, y, loss_fn=lambda out, y: ((out.squeeze(1) - y) ** 2).mean()).warnings
    assert not diagnose(model, X, y, loss_fn=lambda out, y: ((out.flatten() - y) ** 2).mean()).warnings
    assert not diagnose(model, X, y[:, None], loss_fn=F.mse_loss).warnings


def test_large_inputs_are_the_cause_of_large_logits():
    (text,) = diagnose(mlp(), (X.abs() * 100).clamp(max=255), Y).warnings
    assert "scale them" in text and "last layer" not in text


def test_the_temperature_of_a_contrastive_loss_is_no_fault():
    tower = lambda: nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 32))
    scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    similarities = lambda self, a, b: F.normalize(self.a(a)) @ F.normalize(self.b(b)).T * self.scale.exp()
    model = Net(similarities, a=tower(), b=tower(), scale=scale)
    found = diagnose(model, (X, X + torch.randn_like(X)), torch.arange(64))
    assert found.loss > math.log(64) + 1 and not found.warnings


def test_a_layer_made_in_the_call_is_told_from_one_in_a_list():
    model = Net(lambda self, x: nn.Linear(9, 5)(torch.relu(self.a(x))), a=nn.Linear(12, 9))
    (text,) = diagnose(model, X, Y).warnings
    assert "__init__" in text and "ModuleList" not in text


def test_a_kept_output_is_no_weight():
    def forward(self, x):
        self.out = torch.tanh(self.linear(x))
        return self.out

    model = Net(forward, linear=nn.Linear(12, 5))
    model(X)
    assert not diagnose(model, X, X[:, :5].tanh(), loss_fn=F.mse_loss).warnings


def test_the_remedy_fits_the_kind_of_network():
    class Linear:
        def __init__(self, fan_in, fan_out):
            self.weight = (torch.randn(fan_in, fan_out) / fan_in**0.5).requires_grad_()
            self.bias, self.training = torch.zeros(fan_out).requires_grad_(), True

        def __call__(self, x):
            return x @ self.weight + self.bias

        def parameters(self):
            return [self.weight]

    (text,) = diagnose([Linear(12, 9), nn.Tanh(), Linear(9, 5)], X, Y).warnings
    assert "bias" in text and "parameters() returns" in text and "ModuleList" not in text
    model = mlp()
    assert "parameters=" in diagnose(model, X, Y, parameters=[model[0].weight]).warnings[0]


# Rates


def test_a_linear_model_has_no_usual_ratio():
    model = nn.Linear(12, 1)
    assert not diagnose(model, X, 9 * X[:, :1], loss_fn=F.mse_loss, optimizer=sgd(model)).warnings


# Loops


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.LBFGS])
def test_a_closure_is_watched(make):
    model = mlp()
    optimizer = make(model.parameters(), lr=0.01)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    seen = watched(model, optimizer, lambda _: optimizer.step(closure), 6, 5)
    for _, diagnosis in seen.records:
        assert [row.name for row in diagnosis.activations] == ["0", "1", "2", "3", "4"]
        assert all(row.std > 0 for row in diagnosis.gradients)
        assert all(row.grad_std > 0 and row.update_std > 0 for row in diagnosis.parameters)
    assert not seen.warnings


def test_a_compiled_step_is_said_and_goes_on():
    model = mlp()
    loss, optimizer = torch.compile(lambda: F.cross_entropy(model(X), Y), backend="eager"), sgd(model)

    def step(_):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    (text,) = watched(model, optimizer, step, 4, 3).warnings
    assert "torch.compile" in text


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_those_of_the_loss_and_not_of_a_grad_scalers(fused):
    readings = []
    for scale in 1.0, 2.0**16:
        torch.manual_seed(0)
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)

        def step(_, model=model, optimizer=optimizer, scaler=scaler):
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(model(X), Y)).backward()
            scaler.step(optimizer)
            scaler.update()

        ((_, found),) = watched(model, optimizer, step, 1).records
        readings.append([r.std for r in found.gradients] + [p.grad_std for p in found.parameters])
    assert readings[1] == pytest.approx(readings[0], rel=1e-3)


def test_names_in_a_warning_are_no_numbers_that_change():
    model = nn.Sequential(*(nn.Linear(12, 12) for _ in range(9)), nn.Linear(12, 5))
    model.forward = lambda x: model[9](model[0](x))
    optimizer = sgd(model)
    said = watched(model, optimizer, usual(model, optimizer)).warnings
    assert "from step 0 on: 1.weight, 1.bias, 2.weight and 13 more: no gradient" in said[1], said


def test_a_layer_of_many_calls_is_told_once():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.tanh, self.out = nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 5)
            nn.init.normal_(self.inner.weight, std=2)

        def forward(self, x):
            for _ in range(6):
                x = self.tanh(self.inner(x))
            return self.out(x)

    said = [text for text in diagnose(Recurrent(), X, Y).warnings if "saturated" in text]
    assert len(said) == 1 and "5 more of its calls" in said[0]


class Letters(nn.Module):
    """A plain recurrent network whose weights have this std, times sqrt(n)."""

    def __init__(self, std, is_last=True):
        super().__init__()
        self.table, self.inner, self.out = nn.Embedding(11, 32), nn.Linear(32, 32), nn.Linear(32, 11)
        self.is_last = is_last
        nn.init.normal_(self.inner.weight, std=std / 32**0.5)

    def forward(self, x):
        h, outputs = torch.zeros(len(x), 32), []
        for letter in x.T:
            h = torch.tanh(self.table(letter) / 4 + self.inner(h))
            outputs.append(self.out(h))
        return outputs[-1] if self.is_last else torch.stack(outputs, 1)


@pytest.mark.parametrize(("std", "is_last", "verb"), [(0.4, True, "vanish"), (0.4, False, None), (1.3, True, None)])
def test_what_happens_to_gradients_through_time(std, is_last, verb):
    torch.manual_seed(0)
    letters = torch.randint(0, 11, (16, 30))
    said = diagnose(Letters(std, is_last), letters, letters[:, 0] if is_last else letters).warnings
    found = [text for text in said if "through time" in text]
    assert [text.split()[1] for text in found] == ([verb] if verb else []), said


def test_gradients_that_explode_through_time():
    class Doubles(Letters):
        def forward(self, x):
            h = self.table(x[:, 0])
            for _ in range(30):
                h = self.inner(h)
            return self.out(h * 1e-9)

    (text,) = [text for text in diagnose(Doubles(3), Y[:, None], Y).warnings if "through time" in text]
    assert "explode" in text and "clip" in text


# Arguments


def test_a_rate_of_numpys_is_a_number():
    assert diagnose(mlp(), X, Y, lr=np.float32(0.1)).parameters[0].update_to_data > 0


def test_what_watch_refuses():
    model = mlp()
    with pytest.raises(ValueError, match="SGD"):
        watch(model, torch.optim.SGD)
    with pytest.raises(ValueError, match="every is '10'"):
        watch(model, sgd(model), every="10")
