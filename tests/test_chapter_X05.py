"""Lesson X05: its own step_length and letters, what its round gives away, and its exercises."""

import pytest
import torch
from torch import nn

from helpers.checks import check_softmax_floor
from helpers.clinic import FAULTS, HEALTHY, make_patient, recipe_of
from notebook_cells import read

NAME = "X05_clinic"


def test_a_step_of_a_healthy_script_is_one_long(chapter):
    for k, kind in enumerate(FAULTS[HEALTHY].kinds):
        made = make_patient(recipe_of(HEALTHY, k, kind), k, chapter["splits"])
        assert [chapter["step_length"](made) for _ in range(3)] == pytest.approx([1] * 3, rel=1e-3)


def test_steps_that_add_up_are_longer(chapter):
    made = make_patient(recipe_of("the gradients are never set to zero", 3), 3, chapter["splits"])
    lengths = [chapter["step_length"](made) for _ in range(8)]
    assert lengths[0] == pytest.approx(1, rel=1e-3) and max(lengths) > 1.2


def test_the_letters_are_those_of_the_examples(chapter):
    healthy = make_patient(recipe_of(HEALTHY, 0), 0, chapter["splits"])
    first = "".join(chapter["in_letters"](healthy, k)[-1] for k in range(30)).partition(".")[0]
    assert first == chapter["splits"].words["train"][0]
    assert chapter["in_letters"](healthy, 1) == f"..{first[0]} → {first[1]}"


def test_the_notebook_does_not_tell_the_learners_round():
    """Of the second round's patients no cell says a word; the three of the core path are from the first."""
    sources = [cell.source for cell in read(NAME).cells]
    assert not any("ward.treat" in source and "None" not in source for source in sources)
    assert "open_clinic(seed=2" in "".join(sources)


def test_the_floor_is_the_loss_of_sure_and_right_probabilities():
    best = nn.functional.cross_entropy(torch.eye(27), torch.arange(27)).item()
    assert check_softmax_floor.right(27) == pytest.approx(best, abs=1e-5)
