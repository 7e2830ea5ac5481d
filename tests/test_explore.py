"""What the slider panels show, without a panel: readings, what theory expects of wide layers, live training."""

import copy
import math
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.data import ALPHABET
from helpers.diagnostics import diagnose
from helpers.layers import Linear
from helpers.models import NONLINEARITIES, STAGES, deep_mlp, lecture_mlp, seeded
from helpers.train import train
from helpers.widgets.batch_norm import read_batch_norm
from helpers.widgets.logits import read_logits
from helpers.widgets.network import default_splits, expected_std, read_network, read_update_ratios
from helpers.widgets.training_lab import NETWORKS, STEPS, TrainingRun


def trained(model, g, **options):
    return train(model, *default_splits().train, generator=g, progress=False, **options)


def same(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


class TestReadNetwork:
    def test_reads_what_diagnose_reads_of_the_same_deep_mlp(self):
        setting = dict(depth=4, nonlinearity="relu", batch_norm=True)
        model = deep_mlp(gain=1.3, n_hidden=50, generator=seeded(7), **setting)
        expected = diagnose(model, *(part[:200] for part in default_splits().train), lr=0.2)
        reading = read_network(init_gain=1.3, width=50, seed=7, lr=0.2, **setting)
        for rows, all_rows in (reading.activations, expected.activations), (reading.gradients, expected.gradients):
            assert [row.name for row in rows] == ["relu1", "relu2", "relu3"]
            for row, other in zip(rows, (row for row in all_rows if row.name.startswith("relu")), strict=True):
                assert (row.std, row.dead, list(row.histogram[0])) == (other.std, other.dead, list(other.histogram[0]))
        weights = [row for row in expected.parameters if row.name.endswith("weight")]
        assert len(weights) == 5  # with the embedding, without gammas and betas
        for row, other in zip(reading.parameters, weights, strict=True):
            assert (row.name, row.grad_std, row.update_to_data) == (other.name, other.grad_std, other.update_to_data)
        assert reading.warnings == expected.warnings

    def test_a_linear_network_has_its_rows_before_the_next_linear(self):
        for batch_norm, name in (False, "linear"), (True, "batch_norm"):
            rows = read_network(nonlinearity="linear", depth=3, batch_norm=batch_norm).activations
            assert [row.name for row in rows] == [f"{name}1", f"{name}2"]

    def test_only_the_knob_changes_the_draws(self):
        low, high = read_network(init_gain=0.5), read_network(init_gain=2)
        for a, b in zip(low.parameters[1:-1], high.parameters[1:-1], strict=True):
            assert b.std == pytest.approx(4 * a.std, rel=1e-5)
        assert low.parameters[0].std == high.parameters[0].std  # the embedding has no gain
        assert read_network(seed=1).parameters[0].std != low.parameters[0].std

    def test_the_curve_starts_from_the_networks_own_input(self):
        model = deep_mlp(generator=seeded())
        square = model.embedding(default_splits().train[0][:200]).square().mean().item()
        reading = read_network(nonlinearity="linear", depth=6, init_gain=1.5)
        assert reading.expected_std == pytest.approx([1.5**k * math.sqrt(square) for k in range(1, 6)], rel=1e-5)

    def test_update_ratios_are_what_train_records_and_the_rows_those_of_step_0(self):
        model = deep_mlp(gain=1.2, batch_norm=True, generator=(g := seeded(5)))
        history = trained(model, g, steps=12, lr=0.3, record_ratios_every=1)
        reading = read_update_ratios(learning_rate=0.3, init_gain=1.2, batch_norm=True, steps=12, seed=5)
        assert reading.losses == history.loss.tolist()
        assert reading.update_ratio == {name: values.tolist() for name, values in history.update_ratio.items()}
        for row in reading.parameters:
            assert row.update_to_data == pytest.approx(reading.update_ratio[row.name][0], rel=1e-4)

    def test_without_fan_in_the_weights_are_randn_times_the_gain(self):
        rows = read_update_ratios(fan_in=False, init_gain=1.0, steps=1).parameters
        assert all(row.std == pytest.approx(1, abs=0.03) for row in rows[1:-1])
        assert rows[-1].std == pytest.approx(0.1, abs=0.01)  # the output layer's own tenth stays


class TestExpectedStd:
    def test_relu_keeps_the_mean_square_at_root_2_and_halves_it_at_1(self):
        # A rectified Gaussian N(0, s²) has mean square s²/2 and mean s/sqrt(2 pi).
        factor = math.sqrt(1 / 2 - 1 / (2 * math.pi))
        for gain, first, ratio in (math.sqrt(2), math.sqrt(6), 1), (1.0, math.sqrt(3), math.sqrt(0.5)):
            expected = [first * factor * ratio**k for k in range(5)]
            assert expected_std(gain, 5, "relu", input_square=3.0) == pytest.approx(expected, rel=1e-5)

    def test_batch_norm_makes_the_gain_irrelevant(self):
        for gain in 0.2, 1.0, 5.0:
            stds = expected_std(gain, 3, "tanh", batch_norm=True, input_square=9.0)
            assert stds == pytest.approx([0.6279] * 3, abs=1e-4)  # sqrt(E[tanh(z)²]) for a standard normal z

    @pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
    @pytest.mark.parametrize("gain", [0.5, 5 / 3, 4.0])
    def test_wide_layers_come_close(self, nonlinearity, gain):
        width, square, g = 1000, 2.0, seeded()
        x = torch.randn(100, width, generator=g) * math.sqrt(square)
        x *= math.sqrt(square) / x.square().mean(1, keepdim=True).sqrt()
        f = (NONLINEARITIES[nonlinearity] or nn.Identity)()
        for std in expected_std(gain, 4, nonlinearity, input_square=square):
            x = f(x @ (torch.randn(width, width, generator=g) * gain / math.sqrt(width)))
            # Over a layer's units, example by example: all examples of a layer share its weights.
            assert x.std(1).square().mean().sqrt().item() == pytest.approx(std, rel=0.04)


class TestReadLogits:
    @pytest.mark.parametrize("scale", [0.0, 0.5, 15.0])
    @pytest.mark.parametrize("label", [0, 3])
    def test_agrees_with_cross_entropy(self, scale, label):
        logits = torch.tensor([[1.0, -2.5, 5.0, 0.0]])
        reading = read_logits(logits[0], label, scale=scale)
        assert reading.probabilities == pytest.approx((scale * logits).softmax(1)[0].tolist(), abs=1e-7)
        for s, loss in [(scale, reading.loss), *zip(reading.scales, reading.losses, strict=True)]:
            assert loss == pytest.approx(F.cross_entropy(logits * float(s), torch.tensor([label])).item(), abs=1e-5)

    def test_draws_27_one_per_character(self):
        assert read_logits(None, 26, seed=3).logits == torch.randn(27, generator=seeded(3)).tolist()
        assert list(ALPHABET) == [default_splits().itos[i] for i in range(27)]

    def test_extreme_logits_do_not_overflow_and_a_label_outside_is_refused(self):
        assert read_logits([1000.0, 0.0, 0.0, 0.0], 1).loss == pytest.approx(1000)
        for label in -1, 4:
            with pytest.raises(ValueError, match=f"label is {label}.*from 0 to 3"):
                read_logits([0.0] * 4, label)


class TestReadBatchNorm:
    @pytest.mark.parametrize("size", [2, 5, 32])
    def test_agrees_with_torchs_batch_norm(self, size):
        reading = read_batch_norm(moved_number=-7.5, batch_size=size, gamma=1.7, beta=-0.4)
        assert (len(reading.x), reading.x[0]) == (size, -7.5)
        normalised = F.batch_norm(torch.from_numpy(reading.x)[:, None], None, None, training=True)[:, 0]
        assert reading.out == pytest.approx((1.7 * normalised - 0.4).numpy(), abs=1e-5)

    def test_the_first_five_numbers_are_the_lectures_own(self):
        assert read_batch_norm().x.tolist() == [10, -4, -2, 1, 5]

    def test_the_running_statistics_are_torchs_and_come_to_the_true_ones(self):
        reading = read_batch_norm(batch_size=32, momentum=0.02, batches_seen=500)
        torch.randn(32, generator=(g := seeded()))
        theirs = nn.BatchNorm1d(1, momentum=0.02)
        assert (reading.running_mean[0], reading.running_std[0]) == (0, 1)
        for mean, std in zip(reading.running_mean[1:], reading.running_std[1:], strict=True):
            theirs(4 * torch.randn(32, 1, generator=g) + 1)
            assert mean == pytest.approx(theirs.running_mean.item(), abs=1e-5)
            assert std == pytest.approx(theirs.running_var.sqrt().item(), rel=1e-5)
        assert (mean, std) == (pytest.approx(1, abs=0.3), pytest.approx(4, rel=0.05))


class TestTrainingRun:
    def test_a_stage_is_the_lectures_network(self):
        assert same(TrainingRun("one hidden layer, softmax").model, lecture_mlp("softmax", generator=seeded()))
        assert {f"one hidden layer, {stage}" for stage in STAGES} < set(NETWORKS)
        with pytest.raises(ValueError, match="unknown network 'resnet'.*deep, batch norm"):
            TrainingRun("resnet")

    @pytest.mark.parametrize("name", ["deep", "deep, batch norm", "one hidden layer, original"])
    def test_chunks_are_what_train_does_in_one_go(self, name):
        run = TrainingRun(name, learning_rate=0.05)
        for _ in range(4):
            run.advance()
        run.read()  # a look changes nothing
        run.learning_rate = 0.01  # on the fly
        run.advance()
        model = NETWORKS[name][0](generator=(g := seeded()))
        history = trained(model, g, steps=5 * STEPS, lr=lambda step: 0.05 if step < 4 * STEPS else 0.01)
        assert run.losses == history.loss.tolist() and same(run.model, model)

    def test_reset_gives_the_same_weights_and_minibatches(self):
        run, twin = TrainingRun("deep, batch norm"), TrainingRun("deep, batch norm")
        run.advance(20)
        run.set_gain(0.7)
        run.reset()
        assert same(run.model, twin.model) and (run.losses, run.ratios, run.gain) == ([], {}, 1.0)
        run.advance(20)
        twin.advance(20)
        assert run.losses == twin.losses and same(run.model, twin.model)

    @pytest.mark.parametrize("name", ["deep", "deep, linear", "deep, batch norm"])
    def test_a_gain_turned_at_step_0_is_the_gain_it_is_drawn_at(self, name):
        turned, reset = TrainingRun(name), TrainingRun(name, gain=0.6)
        turned.set_gain(3.0)
        turned.set_gain(0.6)
        setting = dict(batch_norm=name == "deep, batch norm", nonlinearity="linear" if "linear" in name else "tanh")
        drawn = deep_mlp(gain=0.6, generator=seeded(), **setting)
        for run in turned, reset:
            for a, b in zip(drawn.parameters(), run.model.parameters(), strict=True):
                torch.testing.assert_close(a, b)

    def test_a_gain_turned_while_training_scales_the_hidden_weights_only(self):
        run = TrainingRun("deep")
        run.advance(5)
        before = copy.deepcopy(run.model)
        run.set_gain(1.0)
        linears, old = ([layer.weight for layer in m if isinstance(layer, Linear)] for m in (run.model, before))
        for a, b in zip(linears[:-1], old[:-1], strict=True):
            torch.testing.assert_close(a, b * 3 / 5)
        assert torch.equal(linears[-1], old[-1]) and torch.equal(run.model.embedding.weight, before.embedding.weight)

    def test_ratios_are_thinned_but_stay_in_step(self, monkeypatch):
        monkeypatch.setattr(import_module("helpers.widgets.training_lab"), "MOST_RATIOS", 8)
        run, model = TrainingRun("one hidden layer, kaiming"), lecture_mlp("kaiming", generator=(g := seeded()))
        every_step = trained(model, g, steps=40 * STEPS, lr=0.1, record_ratios_every=1).update_ratio
        for _ in range(40):
            run.advance()
            assert all(len(values) <= 8 for values in run.read().update_ratio.values())
        reading = run.read()
        for name, values in reading.update_ratio.items():
            assert values == every_step[name][:: reading.ratios_every].tolist()  # from the first to the newest

    def test_its_reading_says_the_step_and_the_recent_loss(self):
        run = TrainingRun("deep")
        assert "step 0" in run.read().headline
        run.advance(10)
        assert "step 10" in run.read().headline and f"{sum(run.losses) / 10:.3f}" in run.read().headline
