"""The clinic: every patient is worse than its cured self, is told by evidence, and does not tell by its names."""

import copy
import re
import traceback
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.clinic import (
    CHOICES,
    FAULTS,
    HEALTHY,
    Clinic,
    diagnose_alone,
    make_patient,
    open_clinic,
    recipe_of,
    treated,
    validation_loss,
)
from helpers.clinic.rounds import _chosen
from helpers.layers import BatchNorm1d, Linear
from helpers.widgets.clinic import PICTURES, SHOWS, first_answer

CASES = [(fault, kind) for fault, about in FAULTS.items() for kind in about.kinds]
NAMES = [f"{fault}: {kind[0]}{', normed' * kind[1]}" for fault, kind in CASES]
every_case = pytest.mark.parametrize(("fault", "kind"), CASES, ids=NAMES)
# Where the fault shows: in the loss on new names, or also in what its own loss claims.
CLAIMS_TOO_MUCH = {"the labels are one place late", "the names are sorted and not shuffled"}


@lru_cache  # shared by the tests that only look at it
def patient(fault, kind, splits):
    return make_patient(recipe_of(fault, 5, kind), 5, splits)


def run(recipe, seed, splits, steps=500):
    made = make_patient(recipe, seed, splits)
    for _ in range(steps):
        made.step()
    return sum(made.losses[-50:]) / 50, validation_loss(made, splits)


@pytest.mark.slow
@every_case
def test_the_remedy_helps_and_the_fault_is_one(fault, kind, splits):
    recipe = recipe_of(fault, 11, kind)
    own, validation = run(recipe, 11, splits)
    cured_own, cured = run(treated(recipe, FAULTS[fault].remedy), 11, splits)
    assert cured < 2.85
    if fault == HEALTHY:
        assert (own, validation) == (cured_own, cured)
    else:
        assert validation > cured + 0.04
    assert (own < validation - 0.5) == (fault in CLAIMS_TOO_MUCH) or own > 3  # its own loss hides it
    assert abs(cured_own - cured) < 0.15


@every_case
def test_no_other_remedy_changes_a_healthy_or_a_sick_setting(fault, kind):
    recipe = recipe_of(fault, 5, kind)
    for remedy in CHOICES["remedy"]:
        also = fault == "the network is in eval mode" and "gain" in remedy  # a scale that BatchNorm would forgive
        assert (treated(recipe, remedy) != recipe) == (remedy == FAULTS[fault].remedy != "leave it as it is" or also)


# What a person can find by a few lines: question -> whether the answer is alarming. One for each fault, all asked of
# one patient: at step 0 first, and then those that take steps.
def letters_do_not_follow(p):
    return (p.Y[:200] == p.X[:200, -1]).all()  # the letter that is shown, not the one that comes


def batches_are_alike(p):
    rows = torch.cat([p.batch()[0] for _ in range(8)])
    first = rows[(rows[:, :2] == 0).all(1) & (rows[:, 2] != 0), 2]  # first letters of names
    return len(first) > 3 and first.unique().numel() == 1


def normed_values_are_two(p):
    x, _ = p.batch()
    layers = [layer for layer in p.model.path if isinstance(layer, (Linear, BatchNorm1d))]
    return p.model.training and isinstance(layers[1], BatchNorm1d) and len(x) == 2


def embedding_stands_out(p):
    return p.model.path[0].weight.std() > 10


def activations_shrink(p):
    x, stds, model = p.batch()[0], [], copy.deepcopy(p.model).train()  # where a BatchNorm mends it, it is not this
    for layer in model.path:
        x = layer(x)
        stds += [x.std().item()] if isinstance(layer, (nn.Tanh, nn.ReLU)) else []
    return stds[0] > 3 * stds[-1] and min(p.model.path[2].weight.std(), 1) < 0.15 and stds[-1] > 0


def relus_are_zero(p):
    x = p.model.path[2](p.model.path[1](p.model.path[0](p.X[:200])))
    return isinstance(p.model.path[3], nn.ReLU) and (x <= 0).all(0).float().mean() > 0.5


def weights_are_missing(p):
    held = {id(q) for q in p.model.parameters()}
    return any(id(layer.weight) not in held for layer in p.model.path if isinstance(layer, Linear))


def gradients_are_not_wanted(p):
    return not all(layer.weight.requires_grad for layer in p.model.path if isinstance(layer, Linear))


def outputs_add_up_to_one(p):
    return torch.allclose(p.model(p.batch()[0]).sum(1), torch.ones(()), atol=1e-3)


def rate_is_tiny(p):
    return p.optimizer.param_groups[0]["lr"] < 0.02


def weights_decay(p):
    layer, before = p.model.path[2], p.model.path[2].weight.std().item()
    for _ in range(60):
        p.step()
    return layer.weight.std() < 0.7 * before


def nothing_moves(p):
    before = [q.detach().clone() for q in p.model.parameters()]
    for _ in range(10):
        p.step()
    return all(torch.equal(a, b) for a, b in zip(before, p.model.parameters(), strict=True))


def steps_add_up(p):
    """Of the embedding: its first step is lr times the gradient that its batch gives, later ones are not."""
    fits = []
    for _ in range(4):
        twin, before = copy.deepcopy(p.model), p.model.path[0].weight.detach().clone()
        p.step()
        x, y = p.last_batch
        (gradient,) = torch.autograd.grad(F.cross_entropy(twin(x), y), twin.path[0].weight)
        change = before - p.model.path[0].weight
        fits.append(torch.allclose(change, p.optimizer.param_groups[0]["lr"] * gradient, rtol=0.02, atol=1e-6))
    return fits[0] and not any(fits[1:])


def mode_is_eval(p):
    return not p.model.training


EVIDENCE = {
    "the labels are one place late": letters_do_not_follow,
    "the names are sorted and not shuffled": batches_are_alike,
    "the batch is too small for BatchNorm": normed_values_are_two,
    "the embedding is far too large": embedding_stands_out,
    "the gain is far too low": activations_shrink,
    "the ReLUs are dead": relus_are_zero,
    "layers are not registered": weights_are_missing,
    "layers are frozen": gradients_are_not_wanted,
    "a softmax stands before the cross-entropy": outputs_add_up_to_one,
    "the learning rate is far too low": rate_is_tiny,
    "the network is in eval mode": mode_is_eval,
    "the gradients are never set to zero": steps_add_up,
    "the optimizer holds another model's parameters": nothing_moves,
    "the weight decay is too strong": weights_decay,
}


@every_case
def test_it_is_told_by_its_own_evidence_and_by_no_other(fault, kind, splits):
    asked = make_patient(recipe_of(fault, 5, kind), 5, splits)
    alarming = {name for name, question in EVIDENCE.items() if question(asked)}
    assert alarming == {fault} - {HEALTHY}


# What it may not tell by: names, what is shown of it, errors.
TELLING = {"late", "sort", "shuffle", "small", "large", "low", "dead", "frozen", "froz", "register", "softmax", "decay"}
TELLING |= {"other", "another", "zero", "clean", "eval", "sick", "fault", "healthy", "lag", "probab", "gain", "remedy"}


@every_case
def test_nothing_that_it_shows_names_the_fault(fault, kind, splits):
    sick = patient(fault, kind, splits)
    shown = [repr(sick), repr(sick.model), *vars(sick), *vars(sick.model)]
    shown += [type(part).__name__ for part in (sick, sick.model, *sick.model.modules())]
    for named in sick.model.named_modules, sick.model.named_parameters, sick.model.named_buffers:
        shown += [name for name, _ in named()]
    words = set(re.findall("[a-z]+", re.sub(r"BatchNorm1d\(.*?\)|Linear\(.*?\)", "", " ".join(shown)).lower()))
    assert not {word for word in words for telling in TELLING if word.startswith(telling)}
    assert error_of(sick) == error_of(patient(HEALTHY, kind, splits))


def error_of(made):
    try:
        made.model(torch.zeros(1, 27, dtype=torch.long))
    except (TypeError, RuntimeError) as error:
        return re.sub(r"0x\w+|line \d+", "", "".join(traceback.format_exception(error)))


def test_diagnose_alone_is_silent_on_the_healthy_and_names_what_one_look_can_show(splits):
    found = diagnose_alone(splits)
    assert {found[HEALTHY, kind] for kind in FAULTS[HEALTHY].kinds} == {"silent"}
    for fault in ("a softmax stands before the cross-entropy", "the ReLUs are dead", "layers are not registered"):
        assert {found[fault, kind] for kind in FAULTS[fault].kinds} == {"named"}
    assert found["the network is in eval mode", ("tanh", True)] == "named"


# A round


@pytest.fixture
def clinic(splits):
    return Clinic(3, splits)


def answer(clinic, number):
    fault = clinic._fault(number)
    return FAULTS[fault].organ, fault, FAULTS[fault].remedy


def test_a_round_has_twelve_sick_and_four_healthy_ones(splits):
    rounds = [[Clinic(seed, splits)._fault(n) for n in range(1, 17)] for seed in range(12)]
    for faults in rounds:
        assert faults.count(HEALTHY) == 4 and len(set(faults)) == 13
    assert {fault for faults in rounds for fault in faults} == set(FAULTS)
    assert len({tuple(faults) for faults in rounds}) == 12


def test_the_same_patient_comes_back_the_same(clinic):
    one, other = clinic.patient(5), clinic.patient(5)
    assert [one.step() for _ in range(3)] == [other.step() for _ in range(3)]


def test_points(clinic, monkeypatch):
    monkeypatch.setattr("helpers.clinic.rounds.STEPS", 3)
    cured = clinic.treat(1, *answer(clinic, 1))
    assert cured.points == clinic.points == 5 and all(cured.right.values())
    assert len(cured.losses[1]) == 3
    clinic.hint(2)
    wrong = next(remedy for remedy in CHOICES["remedy"] if remedy != answer(clinic, 2)[2])
    for _ in range(2):  # the cell was run twice
        treatment = clinic.treat(2, *answer(clinic, 2)[:2], wrong)
    assert treatment.points is None and treatment.right == {"organ": True, "fault": True, "remedy": False}
    assert "remedy: no" in repr(treatment)
    assert clinic.treat(2, *answer(clinic, 2)).points == 5 - 1 - 2
    assert clinic.treat(2, *answer(clinic, 2)[:2], wrong).points == 2  # closed
    hints = [clinic.hint(4) for _ in range(4)]
    assert hints[:2] == list(FAULTS[answer(clinic, 4)[1]].hints) and hints[2] == hints[3]
    assert all(part in hints[2] for part in answer(clinic, 4))
    assert clinic.points == 7 and "patient 2: 2" in repr(clinic) and "3, 5, 6" in repr(clinic)
    clinic.start_again()
    assert clinic.points == 0


def test_a_round_is_kept_and_a_piece_of_a_choice_will_do(splits):
    clinic = open_clinic(99, splits)
    assert open_clinic(99) is clinic and open_clinic(98, splits) is not clinic
    assert "waits" in repr(clinic.treat(1))
    for part in ((1, "data", "the labels", "nowhere"), (1, "data", "layers are", "gain"), (1, 3, "softmax", "gain")):
        with pytest.raises(ValueError, match="choose one of"):
            clinic.treat(*part)
    with pytest.raises(ValueError, match="from 1 to 16"):
        clinic.patient(17)
    assert clinic.points == 0 and not clinic.wrong


@pytest.mark.parametrize("what", CHOICES)
def test_every_choice_is_taken_as_it_is_printed_and_in_any_case(what):
    for choice in CHOICES[what]:
        american = choice.replace("isation", "ization")
        assert {_chosen(what, said) for said in (choice, american, f" {choice.upper()} ")} == {choice}
    assert _chosen("organ", "Optimiser") == "optimizer"


def test_every_choice_and_hint_is_a_whole_one():
    assert all(about.organ in CHOICES["organ"] and about.remedy in CHOICES["remedy"] for about in FAULTS.values())
    assert len({about.remedy for about in FAULTS.values()}) == len(FAULTS)
    hints = [hint for about in FAULTS.values() for hint in about.hints]
    assert all(hint.endswith((".", "?")) for hint in hints)
    for fault, about in FAULTS.items():
        assert not any(fault in hint or about.remedy in hint for hint in about.hints)


def test_a_remedy_against_a_symptom_is_told_so(splits, monkeypatch):
    """In eval mode the usual gain helps, because nothing normalises what is too small."""
    monkeypatch.setattr("helpers.clinic.rounds.STEPS", 120)
    clinic = next(c for c in (Clinic(seed, splits) for seed in range(9)) if eval_patient(c))
    treatment = clinic.treat(eval_patient(clinic), "initialisation", "gain is far too low", "usual gain")
    assert treatment.points is None and "symptom" in repr(treatment)


def eval_patient(clinic):
    return next((n for n in range(1, 17) if clinic._fault(n) == "the network is in eval mode"), None)


def test_the_panel_names_one_of_its_pictures_for_every_fault():
    assert list(SHOWS) == list(FAULTS)
    assert {fault for fault, text in SHOWS.items() if not text.startswith(tuple(PICTURES))} == {HEALTHY}


@every_case
def test_the_panel_draws_what_it_says_of_letters_and_outputs(fault, kind, splits):
    """Probabilities add up to 1, and no other answer does; of a BatchNorm it is written."""
    made = patient(fault, kind, splits)
    answer, built = first_answer(made, made.batch()[0])
    assert (abs(answer.sum() - 1) < 1e-3 and answer.min() > 0) == ("softmax" in fault)
    assert ("BatchNorm1d" in built) == kind[1] and ("Tanh" in built) == (kind[0] == "tanh")
