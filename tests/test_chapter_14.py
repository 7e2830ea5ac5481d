"""Chapter 14: claims are collected from the committed notebooks, wherever the copy runs; the quiz can be lost."""

import json
from collections import Counter

import pytest

from helpers.checks import check_mystery, check_which_patient
from helpers.checks.chapter_14 import KINDS, fault_of
from helpers.claims import MIME, saved_claims
from helpers.models import deep_mlp, seeded
from notebook_cells import read


def notebook(*texts):
    """A saved notebook with one claim an output, beside outputs of other kinds."""
    claims = [
        {"output_type": "display_data", "data": {MIME: {"text": text, "verdict": "holds"}, "text/html": [text]}}
        for text in texts
    ]
    printed = {"output_type": "stream", "text": ["1"]}
    cells = [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": [printed, *claims]}]
    return json.dumps({"cells": cells})


@pytest.mark.parametrize("runs_in", ["notebooks", "study"])
def test_claims_come_from_the_committed_notebooks_but_not_from_14s_own(tmp_path, monkeypatch, runs_in):
    (source,) = (cell.source for cell in read("14_summary").cells if cell.id == "collect")
    files = {
        "notebooks/05_batch_norm.ipynb": notebook("five"),
        "notebooks/06_not_run.ipynb": notebook(),
        "notebooks/14_summary.ipynb": notebook("an old table"),
        "notebooks/E02_fold.ipynb": notebook("folded", "twice"),
        "notebooks/.ipynb_checkpoints/05_batch_norm-checkpoint.ipynb": notebook("a copy"),
        "study/05_batch_norm.ipynb": notebook("half run"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / runs_in)
    namespace = {"json": json, "course_file": lambda name: tmp_path / name}
    namespace |= {"Counter": Counter, "saved_claims": saved_claims}
    exec(source, namespace)  # noqa: S102  notebook_cells.execute would go to the real notebooks
    found = [(stem, row["text"]) for stem, row in namespace["checked"]]
    assert found == [("05_batch_norm", "five"), ("E02_fold", "folded"), ("E02_fold", "twice")]


def test_the_quiz_has_four_different_faults_and_rejects_every_other_answer():
    right = {number: fault_of(number) for number in range(1, 5)}
    assert sorted(kind for kind, _ in right.values()) == sorted(KINDS)
    assert check_mystery(right)
    for number, (kind, layer) in right.items():
        for wrong in ((kind, 7 - layer), (right[number % 4 + 1][0], layer), kind, None, ("", "", ""), layer):
            assert not check_mystery(right | {number: wrong})


def test_the_unnamed_patients_are_four_of_the_seven_and_every_other_suspect_is_refused(chapter):
    right = check_which_patient.right
    assert check_which_patient(right) and len({*right.values()}) == 4
    for letter, label in right.items():
        for other in chapter["PATIENTS"].keys() - {label}:
            refused = check_which_patient(right | {letter: other})
            assert refused.status == "wrong" and "not one of the options" not in str(refused)


def test_a_mystery_is_one_healthy_network_with_one_layer_changed(chapter):
    for number in range(1, 5):
        kind, layer = fault_of(number)
        broken = chapter["mystery"](number)
        whole = deep_mlp(batch_norm=kind == "weights too large", gain=1.5, generator=seeded(number))
        changed = {name for name, p in broken.named_parameters() if not p.equal(whole.get_parameter(name))}
        wanted = {"no nonlinearity": set(), "a shifted bias": {f"linear{layer}.bias"}}
        assert changed == wanted.get(kind, {f"linear{layer}.weight"})
