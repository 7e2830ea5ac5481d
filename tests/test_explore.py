"""What the slider panels show, without a panel: the readings against plain torch, and the live training."""

import copy
import math
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.diagnostics import diagnose
from helpers.layers import Linear
from helpers.models import SEED, STAGES, deep_mlp, lecture_mlp
from helpers.train import train
from helpers.widgets.batch_norm import read_batch_norm
from helpers.widgets.logits import CHARACTERS, read_logits
from helpers.widgets.network import default_splits, read_network, read_update_ratios
from helpers.widgets.training_lab import MOST_RATIOS, NETWORKS, STEPS, TrainingRun


def generator(seed=SEED):
    return torch.Generator().manual_seed(seed)


def first(n=200):
    return tuple(part[:n] for part in default_splits().train)


def plain(rows):
    """Rows as dicts of numbers and lists, for ==."""
    return [
        {name: [list(t) for t in value] if name.endswith("histogram") else value for name, value in vars(row).items()}
        for row in rows
    ]


class TestReadNetwork:
    def test_reads_what_diagnose_reads_of_the_same_deep_mlp(self):
        model = deep_mlp(gain=1.3, depth=4, n_hidden=50, nonlinearity="relu", batch_norm=True, generator=generator(7))
        expected = diagnose(model, *first(), lr=0.2)
        reading = read_network(init_gain=1.3, depth=4, width=50, nonlinearity="relu", batch_norm=True, seed=7, lr=0.2)
        names = ["relu1", "relu2", "relu3"]
        assert [row.name for row in reading.activations] == names
        assert [row.name for row in reading.gradients] == names
        assert plain(reading.activations) == plain(row for row in expected.activations if row.name in names)
        assert plain(reading.gradients) == plain(row for row in expected.gradients if row.name in names)
        weights = [row for row in expected.parameters if row.name.endswith("weight")]
        assert len(weights) == 5  # with the embedding, without gammas and betas
        assert plain(reading.parameters) == plain(weights)
        assert reading.diagnosis.warnings == expected.warnings

    def test_its_numbers_are_plain_torchs(self):
        X, Y = first()
        model = deep_mlp(generator=generator())
        outputs, x = [], X
        for layer in model:
            x = layer(x)
            if isinstance(layer, nn.Tanh):
                x.retain_grad()
                outputs.append(x)
        F.cross_entropy(x, Y).backward()
        reading = read_network()
        for row, gradient, out in zip(reading.activations, reading.gradients, outputs, strict=True):
            assert row.std == pytest.approx(out.std().item(), rel=1e-5)
            assert row.saturated == pytest.approx((out.abs() > 0.97).double().mean().item())
            assert gradient.std == pytest.approx(out.grad.std().item(), rel=1e-5)
        for row, (name, p) in zip(
            reading.parameters, [(n, p) for n, p in model.named_parameters() if p.dim() > 1], strict=True
        ):
            assert row.name == name
            assert row.update_to_data == pytest.approx((0.1 * p.grad.std() / p.std()).item(), rel=1e-5)

    def test_a_linear_network_has_its_rows_before_the_next_linear(self):
        plain_rows = read_network(nonlinearity="linear", depth=3).activations
        assert [row.name for row in plain_rows] == ["linear1", "linear2"]
        normalised = read_network(nonlinearity="linear", depth=3, batch_norm=True).activations
        assert [row.name for row in normalised] == ["batch_norm1", "batch_norm2"]

    def test_only_the_knob_changes_the_draws(self):
        low, high = read_network(init_gain=0.5), read_network(init_gain=2)
        for a, b in zip(low.parameters[1:-1], high.parameters[1:-1], strict=True):
            assert b.std == pytest.approx(4 * a.std, rel=1e-5)
        assert low.parameters[0].std == high.parameters[0].std  # the embedding has no gain
        assert read_network(seed=1).parameters[0].std != low.parameters[0].std

    def test_the_curve_starts_from_the_networks_own_input(self):
        model = deep_mlp(generator=generator())
        square = model.embedding(first()[0]).square().mean().item()
        reading = read_network(nonlinearity="linear", depth=6, init_gain=1.5)
        assert reading.expected_std == pytest.approx([1.5**k * math.sqrt(square) for k in range(1, 6)], rel=1e-5)


class TestReadUpdateRatios:
    def test_is_what_train_records(self):
        model = deep_mlp(gain=1.2, batch_norm=True, generator=(g := generator(5)))
        history = train(
            model, *default_splits().train, steps=12, lr=0.3, generator=g, record_ratios_every=1, progress=False
        )
        reading = read_update_ratios(learning_rate=0.3, init_gain=1.2, batch_norm=True, steps=12, seed=5)
        assert reading.losses == history.loss.tolist()
        assert reading.update_ratio == {name: values.tolist() for name, values in history.update_ratio.items()}
        assert set(reading.update_ratio) == {row.name for row in reading.parameters}

    @pytest.mark.parametrize("batch_norm", [False, True])
    def test_its_rows_are_those_of_step_0(self, batch_norm):
        reading = read_update_ratios(steps=3, batch_norm=batch_norm)
        assert len(reading.parameters) == 7
        for row in reading.parameters:
            assert row.update_to_data == pytest.approx(reading.update_ratio[row.name][0], rel=1e-4)

    def test_without_fan_in_the_weights_are_randn_times_the_gain(self):
        rows = read_update_ratios(fan_in=False, init_gain=1.0, steps=1).parameters
        assert all(row.std == pytest.approx(1, abs=0.03) for row in rows[1:-1])
        assert rows[-1].std == pytest.approx(0.1, abs=0.01)  # the output layer's own tenth stays


class TestReadLogits:
    @pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 15.0])
    @pytest.mark.parametrize("label", [0, 3])
    def test_agrees_with_cross_entropy(self, scale, label):
        logits = [1.0, -2.5, 5.0, 0.0]
        reading = read_logits(logits, label, scale=scale)
        x = torch.tensor([logits]) * scale
        assert reading.loss == pytest.approx(F.cross_entropy(x, torch.tensor([label])).item(), abs=1e-6)
        assert reading.probabilities == pytest.approx(x.softmax(1)[0].tolist(), abs=1e-7)
        assert reading.logits == pytest.approx(x[0].tolist())
        for s, loss in zip(reading.scales, reading.losses, strict=True):
            expected = F.cross_entropy(torch.tensor([logits]) * float(s), torch.tensor([label])).item()
            assert loss == pytest.approx(expected, abs=1e-5)

    def test_draws_27_one_a_character(self):
        reading = read_logits(None, 26, seed=3)
        assert reading.logits == torch.randn(27, generator=generator(3)).tolist()
        itos = default_splits().itos
        assert list(CHARACTERS) == [itos[i] for i in range(27)]

    def test_extreme_logits_do_not_overflow(self):
        assert read_logits([1000.0, 0.0, 0.0, 0.0], 1).loss == pytest.approx(1000)

    @pytest.mark.parametrize("label", [-1, 4])
    def test_a_label_outside_is_refused_by_name(self, label):
        with pytest.raises(ValueError, match=f"label is {label}.*from 0 to 3"):
            read_logits([0.0] * 4, label)


class TestReadBatchNorm:
    @pytest.mark.parametrize("size", [2, 5, 32])
    def test_agrees_with_torchs_batch_norm(self, size):
        reading = read_batch_norm(moved_number=-7.5, batch_size=size, gamma=1.7, beta=-0.4)
        theirs = nn.BatchNorm1d(1)
        with torch.no_grad():
            theirs.weight.fill_(1.7)
            theirs.bias.fill_(-0.4)
            x = torch.from_numpy(reading.x)
            out = theirs(x[:, None])[:, 0]
        assert len(reading.x) == size
        assert reading.x[0] == -7.5
        assert reading.out == pytest.approx(out.numpy(), abs=1e-5)

    def test_the_first_five_numbers_are_the_widgets_own(self):
        assert read_batch_norm().x.tolist() == [10, -4, -2, 1, 5]

    def test_the_running_statistics_are_torchs(self):
        reading = read_batch_norm(batch_size=4, momentum=0.2, batches_seen=30)
        g = generator()
        torch.randn(32, generator=g)
        theirs = nn.BatchNorm1d(1, momentum=0.2)
        for i in range(30):
            theirs(4 * torch.randn(4, 1, generator=g) + 1)
            assert reading.running_mean[i + 1] == pytest.approx(theirs.running_mean.item(), abs=1e-5)
            assert reading.running_std[i + 1] == pytest.approx(theirs.running_var.sqrt().item(), rel=1e-5)
        assert (reading.running_mean[0], reading.running_std[0]) == (0, 1)

    def test_a_long_run_comes_to_the_true_statistics(self):
        reading = read_batch_norm(batch_size=32, momentum=0.01, batches_seen=1000)
        assert reading.running_mean[-1] == pytest.approx(1, abs=0.3)
        assert reading.running_std[-1] == pytest.approx(4, rel=0.05)


class TestTrainingRun:
    def weights(self, run):
        return [p.detach().clone() for p in run.model.parameters()]

    @pytest.mark.parametrize("name", NETWORKS)
    def test_its_networks_are_the_courses(self, name):
        expected = {
            "deep": lambda g: deep_mlp(generator=g),
            "deep, linear": lambda g: deep_mlp(nonlinearity="linear", generator=g),
            "deep, batch norm": lambda g: deep_mlp(gain=1, batch_norm=True, generator=g),
        }
        for stage in STAGES:
            expected[f"one hidden layer, {stage}"] = lambda g, stage=stage: lecture_mlp(stage, generator=g)
        model, mine = expected[name](generator()), TrainingRun(name).model
        for a, b in zip(model.parameters(), mine.parameters(), strict=True):
            assert torch.equal(a, b)

    @pytest.mark.parametrize("name", ["deep", "deep, batch norm", "one hidden layer, original"])
    def test_chunks_are_what_train_does_in_one_go(self, name):
        run = TrainingRun(name, learning_rate=0.05)
        for _ in range(4):
            run.advance()
        run.read()  # a look changes nothing
        run.advance()
        build, _ = NETWORKS[name]
        model = build(g := generator())
        history = train(model, *default_splits().train, steps=5 * STEPS, lr=0.05, generator=g, progress=False)
        assert run.losses == history.loss.tolist()
        for a, b in zip(model.parameters(), run.model.parameters(), strict=True):
            assert torch.equal(a, b)
        for a, b in zip(model.buffers(), run.model.buffers(), strict=True):
            assert torch.equal(a, b)

    def test_reset_gives_the_same_weights_and_minibatches(self):
        run = TrainingRun("deep, batch norm")
        fresh = self.weights(run)
        run.advance(20)
        losses, trained = run.losses, self.weights(run)
        run.set_gain(0.7)
        run.reset()
        assert all(map(torch.equal, self.weights(run), fresh))
        assert (run.losses, run.ratios, run.gain) == ([], {}, 1.0)
        run.advance(20)
        assert run.losses == losses
        assert all(map(torch.equal, self.weights(run), trained))

    @pytest.mark.parametrize("name", ["deep", "deep, linear", "deep, batch norm"])
    def test_a_gain_turned_at_step_0_is_the_gain_it_is_drawn_at(self, name):
        run = TrainingRun(name)
        run.set_gain(3.0)
        run.set_gain(0.6)
        drawn = deep_mlp(
            gain=0.6,
            batch_norm=name == "deep, batch norm",
            nonlinearity="linear" if name == "deep, linear" else "tanh",
            generator=generator(),
        )
        for a, b in zip(drawn.parameters(), run.model.parameters(), strict=True):
            torch.testing.assert_close(a, b)
        reset = TrainingRun(name, gain=0.6)
        for a, b in zip(drawn.parameters(), reset.model.parameters(), strict=True):
            torch.testing.assert_close(a, b)

    def test_a_gain_turned_while_training_scales_the_hidden_weights_only(self):
        run = TrainingRun("deep")
        run.advance(5)
        before = copy.deepcopy(run.model)
        run.set_gain(1.0)
        linears = [layer for layer in run.model if isinstance(layer, Linear)]
        old = [layer for layer in before if isinstance(layer, Linear)]
        for a, b in zip(linears[:-1], old[:-1], strict=True):
            torch.testing.assert_close(a.weight, b.weight * 3 / 5)
        assert torch.equal(linears[-1].weight, old[-1].weight)
        assert torch.equal(run.model.embedding.weight, before.embedding.weight)

    def test_the_learning_rate_changes_on_the_fly(self):
        run = TrainingRun("deep", learning_rate=0.1)
        run.advance(5)
        run.learning_rate = 0.01
        run.advance(5)
        model = deep_mlp(generator=(g := generator()))
        history = train(
            model,
            *default_splits().train,
            steps=10,
            lr=lambda step: 0.1 if step < 5 else 0.01,
            generator=g,
            progress=False,
        )
        assert run.losses == history.loss.tolist()

    def test_ratios_are_thinned_but_stay_in_step(self, monkeypatch):
        monkeypatch.setattr(import_module("helpers.widgets.training_lab"), "MOST_RATIOS", 8)
        run = TrainingRun("one hidden layer, kaiming")
        every_step = train(
            lecture_mlp("kaiming", generator=(g := generator())),
            *default_splits().train,
            steps=40 * STEPS,
            lr=0.1,
            generator=g,
            record_ratios_every=1,
            progress=False,
        ).update_ratio
        for _ in range(40):
            run.advance()
            assert all(len(values) <= 8 for values in run.ratios.values())
        assert run.ratios_every % STEPS == 0
        for name, values in run.ratios.items():
            assert values == every_step[name][:: run.ratios_every].tolist()  # the newest are there

    def test_not_thinned_before_there_are_too_many(self):
        run = TrainingRun("one hidden layer, kaiming")
        for _ in range(10):
            run.advance()
        assert run.ratios_every == STEPS and all(len(values) == 10 for values in run.ratios.values())
        assert MOST_RATIOS >= 100

    def test_a_blown_up_loss_is_noticed_and_can_be_read(self):
        run = TrainingRun("deep, linear", learning_rate=10.0)
        assert not run.failed
        run.advance(20)
        assert run.failed
        assert run.read().diagnosis.warnings
        run.learning_rate = 0.01
        run.reset()
        run.advance()
        assert not run.failed

    def test_its_reading_says_the_step_and_the_recent_loss(self):
        run = TrainingRun("deep")
        assert run.read().headline == "step 0: not trained yet"
        run.advance(10)
        mean = sum(run.losses) / 10
        assert run.read().headline == f"step 10: loss {mean:.3f}, the mean of the last 10"

    def test_an_unknown_network_is_refused_by_name(self):
        with pytest.raises(ValueError, match="unknown network 'resnet'.*deep, batch norm"):
            TrainingRun("resnet")
