"""What chapter 08 writes inline against the helpers that it then uses; its game; its network with a fault."""

import numpy as np
import pytest
import torch

from helpers.checks.chapter_08 import alternating_network, tanh_std
from helpers.diagnostics import diagnose
from helpers.models import deep_mlp
from helpers.widgets import patients
from helpers.widgets.network import read_network
from helpers.widgets.patients import read_patient


@pytest.fixture
def case():
    """A network whose layers differ, and a batch: the third layer wider, the fourth off-centre."""
    model = deep_mlp(gain=5 / 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.linear3.weight.mul_(3)
        model.linear4.bias.add_(1)
    return model, torch.randint(0, 27, (64, 3), generator=torch.Generator().manual_seed(1))


def test_the_chapters_outputs_are_those_that_diagnose_measures(chapter, case):
    outputs = chapter["tanh_outputs"](*case)
    rows = [row for row in diagnose(*case, loss_fn=None).activations if row.is_activation]
    for row, t in zip(rows, outputs, strict=True):
        assert row.shape == t.shape and not t.requires_grad
        assert t.std().item() == pytest.approx(row.std, abs=1e-6)
        assert (t.abs() > 0.97).float().mean().item() == pytest.approx(row.saturated, abs=1e-6)


def test_the_measured_map_follows_the_integral(chapter):
    for gain in (0.5, 1, 5 / 3, 3):
        for std in (0.1, 0.5, 1.0):
            assert chapter["std_after"](std, gain) == pytest.approx(tanh_std(std * gain), rel=0.04)
            assert chapter["tanh_std"](std * gain).item() == pytest.approx(tanh_std(std * gain), rel=1e-6)


def test_what_the_chapter_says_of_its_panel():
    stds = [row.std for row in read_network(depth=21, init_gain=1.2).activations]
    assert all(std == pytest.approx(0.42, abs=0.03) for std in stds[9:])
    stds = [row.std for row in read_network(depth=21, init_gain=3).activations]
    assert all(std == pytest.approx(0.84, abs=0.02) for std in stds[2:])
    for seed in range(4):
        narrow = read_network(depth=21, init_gain=1.2, width=10, seed=seed)
        assert narrow.activations[-1].std < 0.9 * narrow.expected_std[-1]


def test_the_network_with_a_fault_has_just_this_one():
    net, x = alternating_network()
    linears = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
    assert abs(x.std() - 1) < 0.02 and all(layer.bias is None for layer in linears)
    for layer in linears:
        assert layer.weight.std().item() * layer.out_features**0.5 == pytest.approx(5 / 3, rel=0.02)


def test_relus_change_every_std_by_the_same_factor():
    for gain, low, high in (1.3, 0.1, 0.35), (1.5, 2.2, 6):
        curve = read_network(depth=21, init_gain=gain, nonlinearity="relu").expected_std
        assert low < curve[-1] / curve[0] < high
        ratios = np.array(curve[1:]) / curve[:-1]
        assert ratios == pytest.approx(ratios[0], rel=0.01)


class TestGame:
    def test_the_condition_is_one_of_four_diagnoses_and_not_always_at_the_same_place(self):
        seen = [read_patient(patient=n) for n in range(1, 9)]
        for reading in seen:
            assert len(set(reading.options)) == 4 and reading.condition in reading.options
        assert len({reading.options.index(reading.condition) for reading in seen}) == 4

    def test_the_first_answer_to_a_patient_counts(self):
        panel = patients(patient=9)
        right = panel.reading.options.index(panel.reading.condition)
        wrong = (right + 1) % 4
        assert panel.reading.condition not in panel.message.value
        panel.answers[wrong].click()
        panel.answers[right].click()
        assert (panel.right, panel.seen) == (0, 1) and "Score: 0 of 1" in panel.message.value
        panel.pin()  # draws again, and opens no second chance
        panel.answers[right].click()
        assert panel.seen == 1
        panel.next()
        assert "Choose one" in panel.message.value
        assert [made.description for made in panel.answers] == panel.reading.options
        panel.answers[panel.reading.options.index(panel.reading.condition)].click()
        assert (panel.right, panel.seen) == (1, 2) and "Right" in panel.message.value
        panel.close()
        panel.answer(0)  # on its way when the panel closed
