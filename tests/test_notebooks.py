"""The exercises of every notebook: a stub is not right yet, and its solution is."""

from functools import cache

import pytest

from notebook_cells import NOTEBOOKS, execute, read, setup_source
from notebook_parts import exercises

EXERCISES = [
    pytest.param(path.name, exercise, id=f"{path.stem}-{exercise.title.split(' · ')[0]}")
    for path in sorted(NOTEBOOKS.glob("*.ipynb"))
    for exercise in exercises(read(path))
]


@cache
def begun(notebook):
    """What the names of a notebook stand for after its set-up cells."""
    namespace = {}
    execute(setup_source(read(notebook)), namespace)
    return namespace


@pytest.mark.parametrize(("notebook", "exercise"), EXERCISES)
def test_solution_is_right_and_stub_is_not(notebook, exercise):
    """One session, as a learner has it: set-up, the stub as it stands, then the solution in its place."""
    namespace = dict(begun(notebook))
    execute(exercise.stub, namespace)
    assert not execute(exercise.check, namespace), "the unfilled stub passes its check"
    (solution,) = exercise.solutions
    execute(solution, namespace)
    result = execute(exercise.check, namespace)
    assert result, f"the solution fails its check: {result}"


def test_every_chapter_but_the_first_has_exercises():
    found = {path.stem: len(list(exercises(read(path)))) for path in NOTEBOOKS.glob("*.ipynb")}
    assert [stem for stem, count in found.items() if not count] == ["00_start_here"]
