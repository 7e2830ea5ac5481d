"""watch around a user's own loop: the true readings, nothing changed, nothing left behind."""

import contextlib
import copy
import gc
import io
import subprocess
import sys
import types
import weakref

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from helpers.diagnostics import diagnose, watch
from helpers.diagnostics.over_time import over_time
from helpers.folding import fold_batch_norms
from helpers.models import deep_mlp
from test_diagnose_findings import lambda_layer
from test_diagnose_networks import GPT, NEXT, WORDS, X, Y, conv_net, everything, module, plain_layers, same


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")
    assert not modes()  # nor is any test left with a mode of ours


def loop(model, optimizer, steps=7, watched=None, data=(X, Y), at_end=lambda step: None):
    losses = []
    with watched or contextlib.nullcontext() as seen:
        for step in range(steps):
            loss = F.cross_entropy(model(data[0]), data[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            at_end(step)
    return losses, seen


def network(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(12, 20), nn.BatchNorm1d(20), nn.Tanh(), nn.Dropout(0.1), nn.Linear(20, 5))
    return net, torch.optim.Adam(net.parameters(), lr=1e-2)


def hooks(model):
    return [len(getattr(m, kind)) for m in model.modules() for kind in ("_forward_hooks", "_forward_pre_hooks")]


def modes():
    return torch.overrides._get_current_function_mode_stack()


def test_two_watches_of_one_loop_leave_nothing_in_torch():
    nets = [nn.Linear(3, 2) for _ in range(2)]
    adams = [torch.optim.Adam(net.parameters()) for net in nets]
    with watch(nets[0], adams[0], every=2), watch(nets[1], adams[1], every=2):
        for _ in range(3):
            for net, adam in zip(nets, adams, strict=True):  # the first one's pass begins first, and ends first
                net(torch.ones(4, 3)).sum().backward()
                adam.step()
    assert torch.backends.mha.get_fastpath_enabled()
    assert not hasattr(nn.Module, "__prepare_scriptable__")


def test_the_readings_are_those_of_the_very_step_and_the_training_is_untouched():
    (net, adam), (twin, other) = network(), network()
    torch.manual_seed(1)
    losses, _ = loop(twin, other)
    torch.manual_seed(1)
    watched, seen = loop(net, adam, watched=watch(net, adam, every=3))
    assert watched == losses and all(map(torch.equal, net.state_dict().values(), twin.state_dict().values()))
    assert [step for step, _ in seen.records] == [0, 3, 6]
    assert (
        not any(hooks(net))
        and not modes()
        and not adam._optimizer_step_post_hooks
        and not adam._optimizer_step_pre_hooks
    )

    # Against diagnose of the same step, on a third twin.
    net, adam = network()
    torch.manual_seed(1)
    expected = {}
    for step in range(7):
        expected[step] = diagnose(net, X, Y, optimizer=adam, histograms=False)
        loop(net, adam, steps=1)
    for step, diagnosis in seen.records:
        for kind in "activations", "gradients", "parameters":
            rows, others = getattr(diagnosis, kind), getattr(expected[step], kind)
            assert [row.name for row in rows] == [row.name for row in others]
            for row, other in zip(rows, others, strict=True):
                for field in "mean", "std", "saturated", "grad_std", "update_to_data", "adam_to_data":
                    a, b = getattr(row, field, None), getattr(other, field, None)
                    assert a is b or a == pytest.approx(b, rel=1e-3, abs=1e-9), (row.name, field)


def test_functions_and_several_passes_in_a_step():
    net = conv_net()
    images = torch.randn(64, 3, 16, 16)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, sgd, every=2) as seen:
        for _ in range(3):
            for part in images.chunk(2):  # accumulated gradients
                F.cross_entropy(net(part), Y[:32]).backward()
            with torch.no_grad():
                net.eval()(images)
                net.train()
            sgd.step()
            sgd.zero_grad()
    assert [step for step, _ in seen.records] == [0, 2]
    rows = seen.records[1][1]
    names = [row.name for row in rows.activations]
    assert any(name.startswith("Net.relu:") for name in names) and names.count("conv1") == 1
    assert all(row.shape[0] == 32 for row in rows.activations) and all(row.std for row in rows.gradients)


def test_a_network_that_returns_its_loss_and_one_whose_layers_are_frozen():
    gpt = GPT()
    gpt.tok.weight.requires_grad_(False)
    adam = torch.optim.AdamW([p for p in gpt.parameters() if p.requires_grad], lr=1e-3)
    with watch(gpt, adam, every=1) as seen:
        for _ in range(3):
            gpt(WORDS, NEXT)[1].backward()
            adam.step()
            adam.zero_grad()
    rows = {row.name: row for row in seen.records[-1][1].parameters}
    assert rows["tok.weight"].update_std is None and rows["head.weight"].update_to_data > 0 and not seen.warnings


@pytest.mark.parametrize("kind", ["tensors", "layers"])
def test_plain_tensors_need_a_call_of_step(kind):
    torch.manual_seed(0)
    if kind == "layers":
        model = plain_layers()
        parameters = [p for layer in model for p in layer.parameters()]

        def forward(x):
            for layer in model:
                x = layer(x)
            return x
    else:
        W1, W2 = (torch.randn(shape).mul_(0.2).requires_grad_() for shape in ((12, 20), (20, 5)))
        parameters = [W1, W2]

        def forward(x):
            return torch.tanh(x @ W1) @ W2

        model = forward
    with watch(model, every=2) as seen:
        for _ in range(5):
            loss = F.cross_entropy(forward(X), Y)
            for p in parameters:
                p.grad = None
            loss.backward()
            old, gradients = [p.detach().clone() for p in parameters], [p.grad for p in parameters]
            for p in parameters:
                p.data += -0.1 * p.grad
            seen.step()
            with torch.no_grad():
                forward(X[:2])
    assert [step for step, _ in seen.records] == [0, 2, 4] and not modes()
    diagnosis = seen.records[-1][1]
    assert len(diagnosis.parameters) == len(parameters)
    assert seen.records[0][1].parameters[0].update_std > 0
    for row, p, before, g in zip(diagnosis.parameters, parameters, old, gradients, strict=True):
        assert row.grad_std == pytest.approx(g.double().std().item(), rel=1e-5)
        assert row.update_std == pytest.approx((p.detach() - before).double().std().item(), rel=1e-4)
    tanh = [row for row in diagnosis.activations if row.is_activation]
    assert len(tanh) == (2 if kind == "layers" else 1) and all(row.shape == (64, 20) for row in tanh)
    assert all(row.std for row in diagnosis.gradients)


def test_interrupted_raising_left_early_and_used_twice():
    for error in KeyboardInterrupt, RuntimeError:
        net, adam = network()
        before = everything(net)[:-3]

        def stop(step, error=error):
            if step == 4:
                raise error

        seen = watch(net, adam, every=2)
        with pytest.raises(error):
            loop(net, adam, watched=seen, at_end=stop)
        assert [step for step, _ in seen.records] == [0, 2, 4] and not any(hooks(net)) and not modes()
        assert [row[:2] for row in before if isinstance(row, tuple)] == [
            r[:2] for r in everything(net)[:-3] if isinstance(r, tuple)
        ]

    class Fails(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    net, adam = network()
    failing = nn.Sequential(net, Fails())
    with pytest.raises(KeyboardInterrupt), watch(failing, adam):
        failing(X)
    assert not any(hooks(failing)) and not modes()
    with watch(failing, adam, every=1) as seen:  # the loop goes on after its own except
        for _ in range(2):
            with contextlib.suppress(KeyboardInterrupt):
                failing(X)
            F.cross_entropy(net(X), Y).backward()
            adam.step()
    assert len(seen.records) == 2 and not any(hooks(failing)) and not modes()

    net, adam = network()
    seen = watch(net, adam, every=2)
    loop(net, adam, steps=3, watched=seen)
    loop(net, adam, steps=3, watched=seen)
    assert [step for step, _ in seen.records] == [0, 2, 4] and not any(hooks(net))
    with seen, pytest.raises(RuntimeError, match="second"):
        seen.__enter__()
    with watch(net, adam, every=1) as outer:  # two at once
        _, inner = loop(net, adam, steps=2, watched=watch(net, adam, every=1))
    assert len(outer.records) == len(inner.records) == 2 and not any(hooks(net)) and not modes()


def test_a_mode_of_the_loops_own_is_left_alone():
    net, adam = network()
    with watch(net, adam, every=2) as seen:
        for _ in range(4):
            with torch.device("cpu"):
                F.cross_entropy(net(X), Y).backward()
                adam.step()
            assert not modes()
    assert len(seen.records) == 2


def test_what_turned_unhealthy_and_when():
    net = deep_mlp(generator=torch.Generator().manual_seed(1))
    words = torch.randint(0, 27, (64, 3), generator=torch.Generator().manual_seed(1))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)

    def spoil(step):
        if step == 9:
            with torch.no_grad():
                net.linear2.weight *= 5

    _, seen = loop(net, sgd, steps=20, watched=watch(net, sgd, every=5), data=(words, words[:, 0]), at_end=spoil)
    assert any(w.startswith("from step 10 on: tanh2: ") and "saturated" in w for w in seen.warnings)
    assert not any("step 0" in w or "tanh1" in w for w in seen.warnings)
    fig = seen.plot()
    assert (
        len(fig.axes) == 4 and len(fig.axes[0].lines) == 5 and list(fig.axes[0].lines[0].get_xdata()) == [0, 5, 10, 15]
    )
    assert "1e-3" in fig.axes[3].get_legend().get_texts()[-1].get_text()
    net, adam = network()
    _, seen = loop(net, adam, watched=watch(net, adam, every=1))
    assert "1e-3" not in str([t.get_text() for t in seen.plot().axes[3].get_legend().get_texts()])


def test_a_warning_says_what_it_was_and_what_it_is_now():
    net = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 5))
    sgd = torch.optim.SGD(net.parameters(), lr=1e-3)

    def kill(step):
        with torch.no_grad():
            net[0].bias[: 24 + 2 * step] = -100

    _, seen = loop(net, sgd, steps=6, watched=watch(net, sgd, every=1), at_end=kill)
    (warning,) = seen.warnings
    assert warning.startswith("from step 2 on: 1 (ReLU): 65% → 80% of its units are dead")


def test_what_vanishes_in_the_middle_of_a_training_is_said():
    torch.manual_seed(0)
    net = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(12, 12), nn.Tanh())))
    for layer in net[::2]:
        nn.init.normal_(layer.weight, std=0.3)
    sgd = torch.optim.SGD(net.parameters(), lr=1e-2)

    def shrink(step):
        with torch.no_grad():
            for layer in net[::2] if step == 2 else ():
                layer.weight *= 0.2

    _, seen = loop(net, sgd, steps=6, watched=watch(net, sgd, every=1), at_end=shrink)
    assert any(w.startswith("from step 3 on: gradients vanish") for w in seen.warnings), seen.warnings
    assert not any("step 0" in w for w in seen.warnings)


def unused(self, x):
    h = self.a(x)
    F.relu(h)
    return self.b(h)


def detached(self, x):
    h = torch.zeros(64, 8)
    for part in x.split(3, 1):
        h = self.a(part, h.detach())
    return self.b(h)


def attends(self, x):
    h = self.a(x.view(64, 4, 3))
    return self.b((torch.softmax(h @ h.mT, 1) @ h).mean(1))


SAID = {
    "softmax": (lambda: nn.Sequential(nn.Linear(12, 5), nn.Softmax(-1)), "softmax of its own"),
    "first loss": (lambda: nn.Sequential(nn.Linear(12, 5), lambda_layer(lambda x: 300 * x)), "ln(5)"),
    "list": (lambda: module(lambda self, x: self.b(self.a[0](x)), a=[nn.Linear(12, 9)], b=nn.Linear(9, 5)), "a.0.weight, a.0.bias"),
    "eval": (lambda: nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Dropout(0.1), nn.Linear(9, 5)).eval(), "eval mode"),
    "optimizer": (lambda: nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5)), "2.weight, 2.bias: not held"),
    "over examples": (lambda: nn.Sequential(nn.Linear(12, 5), nn.Softmax(0)), "1.softmax sums to 1 over dimension 0"),
    "dropout": (lambda: nn.Sequential(nn.Linear(12, 9), nn.Dropout(0.9), nn.Linear(9, 5)), "drops 90%"),
    "time": (lambda: module(lambda self, x: self.b(self.a(x.view(64, 4, 3))[0][:, -1]), a=nn.LSTM(3, 8), b=nn.Linear(8, 5)), "64 steps of time"),
    "one value": (lambda: nn.Sequential(nn.Linear(12, 8), nn.GroupNorm(8, 8), nn.Linear(8, 5)), "one value at a time"),
    "not used": (lambda: module(unused, a=nn.Linear(12, 9), b=nn.Linear(9, 5)), "is not used"),
    "detached": (lambda: module(detached, a=nn.RNNCell(3, 8), b=nn.Linear(8, 5)), "3 of its 4 calls"),
    "two linear": (lambda: nn.Sequential(nn.Linear(12, 9), nn.Linear(9, 5)), "two linear layers"),
    "queries": (lambda: module(attends, a=nn.Linear(3, 8), b=nn.Linear(8, 5)), "dimension 1, the queries"),
    "nothing": (lambda: nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5)), None),
}  # fmt: skip


@pytest.mark.parametrize("fault", SAID)
def test_watch_says_what_diagnose_says_of_the_loss_and_the_parameters(fault):
    torch.manual_seed(0)
    make, words = SAID[fault]
    net = make()
    sgd = torch.optim.SGD((net[0] if fault == "optimizer" else net).parameters(), lr=0.01)
    _, seen = loop(net, sgd, watched=watch(net, sgd, every=2), steps=5)
    assert any(words in text for text in seen.warnings) if words else not seen.warnings, seen.warnings
    assert not any("zero_grad" in w for w in seen.warnings)  # nor where the optimizer's leaves out what it lacks


def test_a_reentrant_checkpoint_is_said_and_does_not_stop_the_training():
    net = module(
        lambda self, x: self.b(checkpoint(self.a, x, use_reentrant=True)), a=nn.Linear(12, 9), b=nn.Linear(9, 5)
    )
    sgd = torch.optim.SGD(net.parameters(), lr=0.01)
    _, seen = loop(net, sgd, watched=watch(net, sgd, every=2), data=(X.clone().requires_grad_(), Y))
    assert len(seen.records) == 4 and "use_reentrant=False" in seen.warnings[0]


def test_layers_that_are_unfrozen_and_not_held_by_the_optimizer():
    net = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5))
    net[0].requires_grad_(False)
    sgd = torch.optim.SGD(net[2].parameters(), lr=0.1)
    watched = watch(net, sgd, every=2)
    _, seen = loop(net, sgd, watched=watched)
    assert not seen.warnings
    _, seen = loop(net, sgd, steps=9, watched=watched, at_end=lambda step: net[0].requires_grad_(step > 2))
    assert any("0.weight, 0.bias: not held by the optimizer" in text for text in seen.warnings), seen.warnings


def test_nan_in_the_data_is_the_one_cause_from_then_on():
    net, adam = network()
    bad = X.clone()
    bad[3, 4] = float("nan")
    with watch(net, adam, every=1) as seen:
        for step in range(6):
            net.zero_grad()
            F.cross_entropy(net(bad if step == 2 else X), Y).backward()
            adam.step()
    assert seen.warnings == ["step 2: the inputs hold NaN in 1 of 768 places: clean the data"]


def test_a_model_may_fill_what_is_missing_itself():
    class Filling(nn.Linear):
        def forward(self, x):
            return super().forward(x.nan_to_num())

    net, gaps = Filling(12, 5), X.clone()
    gaps[3, 4] = float("nan")
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    _, seen = loop(net, sgd, watched=watch(net, sgd, every=1), data=(gaps, Y))
    assert seen.records and not seen.warnings


def test_a_gradient_that_is_zeroed_before_the_step_is_told_once():
    net, adam = network()
    with watch(net, adam, every=1) as seen:
        for _ in range(4):
            F.cross_entropy(net(X), Y).backward()
            adam.zero_grad(set_to_none=False)
            adam.step()
    (said,) = seen.warnings
    assert said.startswith("from step 0 on") and "call zero_grad() before backward()" in said


def test_two_optimizers_and_other_losses_are_no_fault():
    net = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5), nn.Softmax(-1))
    body, head = (torch.optim.SGD(net[i].parameters(), lr=0.1) for i in (0, 2))
    with watch(net, body, every=2) as seen:
        for _ in range(5):
            net.zero_grad()
            F.nll_loss(net(X).log(), Y).backward()
            body.step()
            head.step()
    assert not seen.warnings


def train_without(zeroing, steps=7, parts=1):
    """zeroing: when gradients are taken away."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5))
    sgd = torch.optim.SGD(net.parameters(), lr=1e-3)
    with watch(net, sgd, every=3) as seen:
        for _ in range(steps):
            if zeroing == "first":
                sgd.zero_grad(set_to_none=False)
            for x, y in zip(X.chunk(parts), Y.chunk(parts), strict=True):
                (F.cross_entropy(net(x), y) / parts).backward()
            sgd.step()
            if zeroing == "last":
                sgd.zero_grad()
            if zeroing == "as in a GAN":  # another loss leaves gradients, which are taken away afterwards
                net(X).mean().backward()
                sgd.zero_grad()
    return [w for w in seen.warnings if "zero_grad" in w]


@pytest.mark.parametrize("parts", [1, 4])
def test_a_forgotten_zero_grad_is_named_and_accumulation_is_not(parts):
    (warning,) = train_without("never", parts=parts)
    assert warning.startswith("from step 3 on: the gradients of earlier steps")
    assert not any(train_without(zeroing, parts=parts) for zeroing in ("first", "last", "as in a GAN"))


def test_gradients_that_are_assigned_are_not_added_up():
    torch.manual_seed(0)
    W = torch.randn(12, 5).mul_(0.2).requires_grad_()
    with watch(lambda x: x @ W, every=2) as seen:
        for _ in range(5):
            (W.grad,) = torch.autograd.grad(F.cross_entropy(X @ W, Y), [W])
            W.data -= 0.1 * W.grad
            seen.step()
    assert not any("zero_grad" in w for w in seen.warnings)


@pytest.mark.parametrize("how", ["zero_", "None", "autograd.grad"])
def test_a_gradient_that_the_loop_clears_before_step_is_recorded(how):
    W, expected = (torch.randn(12, 5) / 4).requires_grad_(), []
    with watch(lambda x: x @ W, every=2) as seen:
        for _ in range(5):
            loss = F.cross_entropy(X @ W, Y)
            if how == "autograd.grad":
                (gradient,) = torch.autograd.grad(loss, [W])
            else:
                loss.backward()
                gradient = W.grad.clone()
            W.data -= 0.1 * gradient
            if how == "zero_":
                W.grad.zero_()
            elif how == "None":
                W.grad = None
            seen.step()
            expected.append(gradient.std().item())
    assert [d.parameters[0].grad_std for _, d in seen.records] == pytest.approx(expected[::2], rel=1e-4)


def test_the_change_of_a_tensor_that_is_made_anew_is_not_said_to_be_zero():
    W = (torch.randn(12, 5) / 4).requires_grad_()
    with watch(lambda x: x @ W, every=1) as seen:
        for _ in range(2):
            F.cross_entropy(X @ W, Y).backward()
            W = (W - 0.1 * W.grad).detach().requires_grad_()
            seen.step()
    assert [d.parameters[0].update_std for _, d in seen.records] == [None, None]


def test_sparse_gradients_of_a_loop_by_hand():
    W = (torch.randn(11, 5) / 4).requires_grad_()
    with watch(lambda x: F.embedding(x, W, sparse=True).mean(1), every=1) as seen:
        for _ in range(2):
            F.cross_entropy(F.embedding(WORDS, W, sparse=True).mean(1), Y[:8]).backward()
            F.cross_entropy(F.embedding(WORDS, W, sparse=True).mean(1), Y[:8]).backward()
            expected = W.grad.to_dense().std().item()
            W.data -= 0.1 * W.grad.to_dense()
            W.grad = None
            seen.step()
    assert seen.records[-1][1].parameters[0].grad_std == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_that_which_the_step_found():
    class Decays(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad.add_(p.detach())
            super().step()

    net = nn.Linear(12, 5)
    optimizer = Decays(net.parameters(), lr=0.1)
    expected = diagnose(net, X, Y).parameters[0].grad_std
    _, seen = loop(net, optimizer, steps=2, watched=watch(net, optimizer, every=1))
    assert seen.records[0][1].parameters[0].grad_std == pytest.approx(expected)
    assert seen.steps == 2 and not seen.warnings  # though torch calls the hooks of step for super().step(), too


@pytest.mark.parametrize("is_new", [True, False])
def test_an_optimizer_that_is_made_anew_in_the_middle_is_said(is_new):
    net, adam = network()
    head = torch.optim.SGD(net[-1].parameters(), lr=0.1)  # beside it, is no fault
    with watch(net, adam, every=5) as seen:
        for step in range(40):
            if step == 12 and is_new:
                adam = torch.optim.Adam(net.parameters(), lr=1e-3)
            net.zero_grad()
            F.cross_entropy(net(X), Y).backward()
            adam.step()
            head.step()
    said = [text for text in seen.warnings if "another one trains" in text]
    assert len(said) == is_new and all(text.startswith("from step 12 on") for text in said)


def test_what_was_not_recorded_and_what_cannot_be_watched():
    with watch(lambda x: x) as seen:
        pass
    assert "step()" in seen.warnings[0]
    with pytest.raises(ValueError, match="step"):
        seen.plot()
    with pytest.raises(ValueError, match="every"):
        watch(nn.Tanh(), every=0)
    with pytest.raises(ValueError, match="Optimizer"):
        watch(nn.Tanh(), 0.1)
    wrapped = types.SimpleNamespace(optimizer=torch.optim.SGD(nn.Linear(3, 2).parameters()))
    with pytest.raises(ValueError, match="give its .optimizer"):
        watch(nn.Tanh(), wrapped)
    compiled = nn.Linear(12, 5)
    compiled.compile(backend="eager")
    with pytest.raises(ValueError, match="before torch.compile"):
        watch(compiled)


@pytest.mark.filterwarnings("error:This figure was using a layout engine")
def test_live_needs_ipython_and_takes_a_tenth_of_the_time(monkeypatch):
    displays = pytest.importorskip("IPython.display")
    monkeypatch.setitem(matplotlib.rcParams, "figure.constrained_layout.use", True)  # the user's own style
    shown = []

    class Handle:
        update = shown.append

    monkeypatch.setattr(displays, "display", lambda picture, display_id: shown.append(picture) or Handle)
    net, adam = network()
    _, seen = loop(net, adam, steps=60, watched=watch(net, adam, every=1, live=True))
    assert len(seen.records) == 60 and 1 <= len(shown) < 20  # the last one is always drawn
    assert shown[-1].data.startswith(b"\x89PNG")
    code = "import sys; sys.modules['IPython'] = None; sys.modules['IPython.display'] = None\nimport helpers.diagnostics as d, torch\ntry: d.watch(torch.nn.Tanh(), live=True)\nexcept ImportError as e: print(e)"  # fmt: skip
    assert "ipython" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_inputs_that_change_in_place_do_not_change_what_was_seen():
    net = module(lambda self, x: self.b(self.a(x[:, None]).squeeze(1).relu_()), a=nn.Linear(12, 9), b=nn.Linear(9, 5))
    sgd = torch.optim.SGD(net.parameters(), lr=0.0)
    _, seen = loop(net, sgd, steps=1, watched=watch(net, sgd))
    expected = diagnose(net, X, Y)
    for kind in "activations", "gradients":
        rows, others = getattr(seen.records[0][1], kind), getattr(expected, kind)
        assert [row.std for row in rows] == pytest.approx([row.std for row in others]) and same(len(rows), 3)


def test_a_layer_that_is_replaced_is_seen_though_it_has_no_parameters():
    net, adam = network()

    def replace(step):
        if step == 0:
            net[2] = nn.ReLU()

    _, seen = loop(net, adam, steps=5, watched=watch(net, adam, every=2), at_end=replace)
    kinds = [
        [(row.name, row.type) for row in diagnosis.activations if row.is_activation] for _, diagnosis in seen.records
    ]
    assert kinds == [[("2", nn.Tanh)], [("2", nn.ReLU)], [("2", nn.ReLU)]] and not any(hooks(net))


@pytest.mark.parametrize("function", [torch.sigmoid, F.relu])
def test_a_look_inside_sees_no_hooks(function):
    layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(3))

    def forward(self, x):
        for layer in self.layers:
            x = function(layer(x))
        return self.out(x)

    net = module(forward, layers=layers, out=nn.Linear(12, 5))
    outside = diagnose(net, X, Y)
    with watch(net, torch.optim.SGD(net.parameters(), lr=0.1), every=1):
        inside = diagnose(net, X, Y)
    assert [row.name for row in inside.activations] == [row.name for row in outside.activations]
    assert inside.warnings == outside.warnings and not any(hooks(net))


@pytest.mark.parametrize("kind", ["functional_call", "an input"])
def test_an_optimizer_of_other_tensors_is_told_of_once(kind):
    net = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5))
    x, parameters = X, {}
    if kind == "an input":
        x = X.clone().requires_grad_()
        net.requires_grad_(False)
    else:
        parameters = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    optimizer = torch.optim.SGD([*parameters.values()] or [x], lr=0.1)
    with watch(net, optimizer, every=2) as seen:
        for _ in range(8):
            optimizer.zero_grad()
            F.cross_entropy(torch.func.functional_call(net, parameters, x), Y).backward()
            optimizer.step()
    assert len(seen.records) == 4 and len(seen.warnings) == 1, seen.warnings
    assert "the optimizer trains other tensors" in seen.warnings[0]


def test_weights_that_are_nan_after_their_gradient_was_follow_from_it():
    net = module(lambda self, x: torch.where((h := self.a(x)) > 0, h.sqrt(), 0.0), a=nn.Linear(12, 5))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    _, seen = loop(net, sgd, watched=watch(net, sgd, every=1))
    (said,) = [text for text in seen.warnings if "NaN" in text]
    assert said.startswith("from step 0 on: a (Linear): gradient NaN")


def relus(**settings):
    torch.manual_seed(0)
    net = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(12, 12), nn.ReLU())), nn.Linear(12, 5))
    for layer in net[:-1:2]:
        nn.init.kaiming_normal_(layer.weight)
    return net, torch.optim.Adam(net.parameters(), lr=1e-3, **settings)


def test_what_weight_decay_has_made_small_is_no_matter_of_the_gain():
    torch.manual_seed(0)
    hidden = nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()
    net = nn.Sequential(*hidden, nn.Linear(64, 5))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1.0)
    _, seen = loop(net, adam, 100, watch(net, adam, every=20))
    (said,) = seen.warnings
    assert said.startswith("from step 0 on: weight decay pulls")


def test_units_that_steps_have_saturated_are_no_matter_of_the_gain():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 5))
    sgd = torch.optim.SGD(net.parameters(), lr=0.01)

    def spoil(step):
        with torch.no_grad():
            net[0].weight *= 20 if step == 2 else 1

    _, seen = loop(net, sgd, 6, watch(net, sgd, every=1), at_end=spoil)
    assert any(w.startswith("from step 3 on: 1 (Tanh)") and "steps were probably too long" in w for w in seen.warnings)
    assert not any("gain" in w for w in seen.warnings), seen.warnings


@pytest.mark.parametrize("every", [1, 10])
def test_steps_between_two_records_may_have_met_nan(every):
    net, adam = relus()

    def spoil(step):
        with torch.no_grad():
            net[0].weight[0, 0] += torch.nan if step == 32 else 0

    _, seen = loop(net, adam, 41, watch(net, adam, every=every), at_end=spoil)
    (said,) = seen.warnings
    assert "step was too large" in said and said.startswith("from step 33 on" if every == 1 else "step 40")
    assert said.endswith("the data or the loss was NaN after step 30: every=1 shows which") == (every == 10)
    assert ("every=1" in said) == (every == 10)


def test_where_the_rate_is_too_high_nan_has_its_cause():
    net, _ = relus()
    sgd = torch.optim.SGD(net.parameters(), lr=300.0)
    _, seen = loop(net, sgd, 41, watch(net, sgd, every=10))
    assert any("rate is probably too high" in w for w in seen.warnings), seen.warnings
    assert any("NaN" in w for w in seen.warnings) and not any("every=1 shows" in w for w in seen.warnings)


def test_one_record_at_rate_0_may_be_a_schedules_begin():
    net, adam = relus()
    adam.param_groups[0]["lr"] = 0.0
    _, seen = loop(net, adam, 5, watch(net, adam, every=10))
    assert not any("in all recorded steps" in w for w in seen.warnings)


@pytest.mark.parametrize("targets", [3 * X[:, :1], 200 + 20 * X[:, :1]])
def test_targets_that_the_last_layer_cannot_put_out(targets):
    net = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 1), nn.Sigmoid())
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    with watch(net, adam, every=10) as seen:
        for _ in range(30):
            adam.zero_grad()
            F.mse_loss(net(X), targets).backward()
            adam.step()
    (said,) = seen.warnings
    assert "3 (Sigmoid) puts out 0 to 1" in said


def test_a_rate_that_fell_is_said_after_three_records():
    net, adam = relus()
    schedule = torch.optim.lr_scheduler.StepLR(adam, 3, 0.1)
    _, seen = loop(net, adam, 100, watch(net, adam, every=37), at_end=lambda step: schedule.step())
    assert any("scheduler stepped per batch" in w for w in seen.warnings), seen.warnings


def test_a_step_that_is_forgotten_is_the_first_thing_to_look_for():
    net, adam = relus()
    with watch(net, adam) as seen:
        net(X).sum().backward()
    assert "was not called" in seen.warnings[0]


def test_a_small_convolutional_network_with_torchs_own_init_has_no_gain_that_is_too_low():
    torch.manual_seed(16)  # the one of 30 whose gradients differ most
    parts = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
    net = nn.Sequential(*parts, nn.Flatten(), nn.Linear(1152, 64), nn.ReLU(), nn.Linear(64, 4))
    assert not diagnose(net, torch.randn(32, 3, 12, 12), torch.randint(0, 4, (32,))).warnings


def identical(make, *data, every=1, steps=4):
    """Train twice, without and with a watch: whether all weights are the same; and the watch."""
    found = []
    for watched in False, True:
        torch.manual_seed(0)
        net = make()
        sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        _, seen = loop(net, sgd, steps, watch(net, sgd, every=every) if watched else None, data)
        found.append([p.detach() for p in net.parameters()])
    return all(map(torch.equal, *found)), seen


IMAGES = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(2))
SIGNALS = torch.randn(16, 3, 20, generator=torch.Generator().manual_seed(2))


def changed_in_place():
    def forward(self, x):
        h = self.conv(x)
        return self.out(self.relu(self.flat(h))) + h.mean((2, 3)).sum(1, keepdim=True) * torch.arange(5)

    parts = dict(conv=nn.Conv2d(1, 4, 3), flat=nn.Flatten(), relu=nn.ReLU(inplace=True), out=nn.Linear(144, 5))
    return module(forward, **parts)


def sliced():
    chomp = lambda_layer(lambda x: x[:, :, :-2])
    convs = nn.Conv1d(3, 8, 3, padding=2), chomp, nn.BatchNorm1d(8), nn.Conv1d(8, 8, 3, padding=2), chomp
    return nn.Sequential(*convs, nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(160, 5))


@pytest.mark.parametrize("make, data", [(changed_in_place, IMAGES), (sliced, SIGNALS)])
def test_a_layers_view_is_handed_on_as_it_is(make, data):
    is_same, seen = identical(make, data, Y[: len(data)], steps=30)
    assert is_same and len(seen.records) == 30


def two_tasks():
    def forward(self, x, task):
        return (self.a if task else self.b)(F.relu(self.body(x)))

    return module(forward, body=nn.Linear(12, 16), a=nn.Linear(16, 5), b=nn.Linear(16, 5))


def test_tasks_in_turn_and_a_moving_average_learn():
    net = two_tasks()
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    with watch(net, adam, every=4) as seen:
        for step in range(20):
            adam.zero_grad()
            F.cross_entropy(net(X, step % 2), Y).backward()
            adam.step()
    assert not seen.warnings

    net = module(lambda self, x: self.online(x), online=nn.Linear(12, 5), target=nn.Linear(12, 5))
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)

    def average(step):
        for t, p in zip(net.target.parameters(), net.online.parameters(), strict=True):
            t.data.lerp_(p.data, 0.1)

    _, seen = loop(net, adam, 9, watch(net, adam, every=4), at_end=average)
    assert not seen.warnings


def test_a_loop_that_was_stopped_inside_forward_goes_on():
    class Stops(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 5:
                raise KeyboardInterrupt
            return super().forward(x)

    net = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), Stops(8, 5))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, sgd, every=2) as seen:
        for _ in range(2):
            with contextlib.suppress(KeyboardInterrupt):
                loop(net, sgd, 6)
    assert [[row.name for row in d.activations] for _, d in seen.records] == [["0", "1", "2"]] * len(seen.records)
    assert len(seen.records) == 5 and all(row.std for _, d in seen.records for row in d.gradients)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit.script
def test_a_copy_that_is_made_at_a_recorded_step_has_no_hooks():
    net = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
    sgd, copies = torch.optim.SGD(net.parameters(), lr=0.1), []

    def copied(step):
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        copies.extend([copy.deepcopy(net), torch.load(file, weights_only=False)])

    loop(net, sgd, 2, watch(net, sgd, every=1), at_end=copied)
    for best in copies:
        assert not any(hooks(best.eval()))
        torch.jit.script(best)
        fold_batch_norms(best)


def test_plain_tensors_are_saved_without_a_warning(recwarn):
    W = (torch.randn(12, 5) / 4).requires_grad_()
    with watch(lambda x: x @ W, every=1) as seen:
        for _ in range(3):
            loss = F.cross_entropy(X @ W, Y)
            torch.save([W], io.BytesIO())
            loss.backward()
            W.data -= 0.1 * W.grad
            W.grad = None
            seen.step()
            torch.save([W], io.BytesIO())
    assert len(seen.records) == 3 and not [w for w in recwarn if "serialized" in str(w.message)]


def test_a_default_device_may_be_set_inside_the_loop():
    W = (torch.randn(12, 5) / 4).requires_grad_()
    try:
        torch.set_default_device("cpu")
        with watch(lambda x: x @ W, every=1) as seen:  # a function is listened to all the time
            for _ in range(2):
                F.cross_entropy(X @ W, Y).backward()
                torch.set_default_device("cpu")  # torch wants its mode beneath all others
                W.data -= 0.1 * W.grad
                seen.step()
    finally:
        torch.set_default_device(None)
    assert len(seen.records) == 2


def test_a_parameter_that_a_layer_hands_on_keeps_no_hook():
    tokens = module(lambda self: self.p, p=nn.Parameter(torch.randn(4, 16)))
    net = module(lambda self, x: self.out(self.fc(x) @ self.tokens().T), tokens=tokens, fc=nn.Linear(12, 16), out=nn.Linear(4, 5))  # fmt: skip
    adam = torch.optim.Adam(net.parameters())
    _, seen = loop(net, adam, 4, watch(net, adam, every=1))
    assert not tokens.p._backward_hooks
    assert all(row.std for row in seen.records[-1][1].gradients)


@pytest.mark.parametrize("other", ["evaluation", "targets"])
def test_another_forward_pass_before_the_backward_pass_has_no_gradients(other):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 5))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    with watch(net, adam, every=2) as seen:
        for _ in range(6):
            out = net(X)
            if other == "evaluation":
                net.eval()(X[:9]).sum().item()
                net.train()
                loss = F.cross_entropy(out, Y)
            else:
                loss = F.mse_loss(out, 0.9 * net(X[:9]).detach().mean(0).expand(64, 5))
            adam.zero_grad()
            loss.backward()
            adam.step()
    assert not seen.warnings
    for _, diagnosis in seen.records:
        assert [row.shape[0] for row in diagnosis.activations] == [64] * 4
        assert all(row.std for row in diagnosis.gradients)


@pytest.mark.parametrize("steps", [3, 2])
def test_nothing_of_a_recorded_step_is_kept(steps):
    """Of three forward passes, the last of which has no step of the optimizer, perhaps."""
    kept = []

    def train():
        net, adam = network()
        parts = nn.Sequential(nn.Flatten(), net)
        with watch(parts, adam, every=1):
            for step in range(3):
                x = X.clone()
                kept.append(weakref.ref(x))
                F.cross_entropy(parts(x), Y).backward()
                if step < steps:
                    adam.step()

    train()
    gc.collect()
    assert [reference() for reference in kept] == [None] * 3


@pytest.mark.parametrize("depth, lr", [(3, 3e-3), (5, 3e-2)])
def test_units_and_gradients_of_what_has_learned_are_as_they_must_be(depth, lr):
    torch.manual_seed(0)
    centers, classes = torch.randn(3, 10), torch.randint(0, 3, (512,))
    points = centers[classes] + 0.3 * torch.randn(512, 10)
    layers = [(nn.Linear(64 if k else 10, 64), nn.Tanh()) for k in range(depth)]
    net = nn.Sequential(*(layer for pair in layers for layer in pair), nn.Linear(64, 3))
    adam = torch.optim.Adam(net.parameters(), lr)
    with watch(net, adam) as seen:
        for _ in range(400):
            i = torch.randint(0, 512, (32,))
            adam.zero_grad()
            F.cross_entropy(net(points[i]), classes[i]).backward()
            adam.step()
    _, last = seen.records[-1]
    assert max(row.saturated or 0 for row in last.activations) > 0.3
    assert not any("saturated;" in text for text in seen.warnings), seen.warnings
    vanish = [text for text in seen.warnings if "vanish" in text]
    assert len(vanish) == (depth == 5) and all(text.startswith("step 0:") for text in vanish)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_transformer_that_teaches_takes_its_fast_path(order):
    """In eval mode, where torch fills padded places with 0; it is not watched."""
    layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
    teacher, padding = nn.TransformerEncoder(layer, 2).eval(), torch.arange(4) >= torch.tensor([[4], [2], [3], [1]])

    def teach():
        with torch.no_grad():
            return teacher(X[:16].view(4, 4, 12), src_key_padding_mask=padding).mean(1)

    found = []
    for watched in True, False:
        net, adam = network()
        losses = []
        with watch(net, adam, every=1) if watched else contextlib.nullcontext():
            for _ in range(3):
                targets = teach() if order == "before" else None
                out = net(X[:4])
                losses.append(F.mse_loss(out, (teach() if targets is None else targets)[:, :5]).item())
                out.sum().backward()
                adam.step()
        found.append(losses)
    assert found[0] == found[1] and not hooks(teacher)[0]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_watched_transformer_takes_its_fast_path_where_it_is_evaluated():
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 16, batch_first=True, dropout=0), 2)
    sgd = torch.optim.SGD(net.parameters(), lr=0.0)
    words, padding, found = X[:16].view(4, 4, 12), torch.arange(4) >= torch.tensor([[4], [2], [3], [1]]), []
    for watched in True, False:
        with watch(net, sgd, every=1) if watched else contextlib.nullcontext() as seen:
            for _ in range(2):
                net.train()(words).sum().backward()
                with torch.no_grad():
                    found.append(net.eval()(words, src_key_padding_mask=padding))
                sgd.step()
        assert not watched or len(seen.records[1][1].activations) > 4
    assert all(torch.equal(found[-1], other) for other in found) and not any(hooks(net))


@pytest.mark.parametrize("where", ["root", "part", "inside"])
def test_a_loop_that_was_stopped_in_its_evaluation_goes_on(where):
    class Stops(nn.Linear):
        def forward(self, x):
            if where == "inside" and now == 1:
                with torch.no_grad():
                    hidden(x)
            if now == 1:
                raise KeyboardInterrupt
            return super().forward(x)

    def interrupts(*_):
        if where == "inside":
            raise KeyboardInterrupt

    now, hidden = 0, nn.ReLU()
    hidden.register_forward_hook(interrupts)
    net = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), Stops(8, 5))
    net[2].hidden = hidden
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, sgd, every=1) as seen:
        for _ in range(2):
            now = 1
            with contextlib.suppress(KeyboardInterrupt), torch.set_grad_enabled(where == "inside"):
                net[2](X[:, :8]) if where == "part" else net(X)
            now = 0
            loop(net, sgd, 2)
    assert [[row.name for row in d.activations] for _, d in seen.records] == [["0", "1", "2"]] * 4
    assert not net[0]._forward_hooks and not seen.warnings


def test_a_step_that_was_interrupted_is_not_recorded():
    net, adam = network()

    def stop(*_):
        if stops.pop():
            raise KeyboardInterrupt

    stops = [False, False, False, False, True, False]
    with watch(net, adam, every=1) as seen:
        handle = adam.register_step_pre_hook(stop)
        for _ in range(6):
            net.zero_grad()
            loss = F.cross_entropy(net(X), Y)
            loss.backward()
            with contextlib.suppress(KeyboardInterrupt):
                adam.step()
    assert [step for step, _ in seen.records] == [0, 2, 3, 4] and not seen.warnings
    handle.remove()
    with contextlib.suppress(KeyboardInterrupt), seen:  # interrupted, and then used again
        stops, handle = [True], adam.register_step_pre_hook(stop)
        loop(net, adam, 1)
    handle.remove()
    loop(net, adam, 2, seen)
    assert [step for step, _ in seen.records] == [0, 2, 3, 4, 5, 6] and not seen.warnings


@pytest.mark.parametrize("trains", [True, False])
def test_gradients_that_are_given_by_hand_are_no_cell_that_was_run_again(trains):
    net = nn.Linear(12, 5)
    other = nn.Linear(12, 5)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, sgd, every=1) as seen:
        for _ in range(2):
            with torch.no_grad():
                net(X)
            for p in net.parameters() if trains else ():
                p.grad = torch.randn_like(p)
            F.cross_entropy(other(X), Y).backward()
            sgd.step()
    (said,) = seen.warnings
    assert "inside torch.no_grad only" in said and ("is it the one" in said) != trains


@pytest.mark.parametrize("steps", [40, 1000])
def test_targets_that_are_far_away_are_named_as_long_as_they_are_not_learned(steps):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 1))
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    years = 2015 + 5 * X[:, :1]
    with watch(net, adam) as seen:
        for _ in range(steps):
            adam.zero_grad()
            F.mse_loss(net(X), years).backward()
            adam.step()
    assert len(seen.warnings) == 1 and "standardise the targets" in seen.warnings[0], seen.warnings


def test_an_output_that_grows_without_end():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 5))
    adam = torch.optim.Adam(net.parameters(), lr=1e-2)
    with watch(net, adam) as seen:
        for _ in range(150):
            adam.zero_grad()
            (-F.cross_entropy(net(X), Y)).backward()
            adam.step()
    assert any("is its sign right" in text for text in seen.warnings), seen.warnings


def test_a_full_backward_hook_of_the_users_adds_no_rows():
    net = nn.Sequential(nn.Linear(12, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 5))
    for part in net.modules():
        part.register_full_backward_hook(lambda *_: None)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    _, seen = loop(net, sgd, 2, watch(net, sgd, every=1))
    assert [row.name for row in seen.records[1][1].activations] == ["0", "1.0", "1.1", "2"]
    assert all(row.std for row in seen.records[1][1].gradients)


def test_units_that_are_saturated_in_one_record_between_others_are_no_fault():
    text = "1 (Tanh): 31% saturated; the steps were probably too long"
    assert not over_time([(0, []), (1, [text]), (2, [])])
    for records in [(0, [text]), (1, [])], [(0, []), (1, [text])], [(0, []), (1, [text]), (2, [text]), (3, [])]:
        assert len(over_time(records)) == 1
