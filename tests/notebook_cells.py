"""Takes notebooks apart for tests: what a chapter defines inline, and its exercises with their solutions."""

import ast
import contextlib
from pathlib import Path
from typing import NamedTuple

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

import check_notebooks

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


class Exercise(NamedTuple):
    """Sources of an exercise: what the learner gets, the folded solution, and the cell that checks either."""

    title: str
    stub: str
    solution: str
    check: str


def read(name):
    """A notebook by its path, or by its name in notebooks/, with or without .ipynb."""
    path = NOTEBOOKS / name
    return nbformat.read(path if path.suffix else path.with_suffix(".ipynb"), as_version=4)


def tagged(nb, *tags):
    """Sources of the code cells that carry one of the tags, in the notebook's order."""
    return [cell.source for cell in nb.cells if cell.cell_type == "code" and {*tags} & {*cell.metadata.get("tags", [])}]


def setup_source(nb):
    """Source of the cells tagged `setup`, as one piece."""
    return "\n".join(tagged(nb, "setup"))


def exercises(nb):
    """Yield each Exercise of a notebook. ValueError for one that is not complete."""
    for found in check_notebooks.exercises(nb):
        if found.check is None or len(found.solutions) != 1:
            raise ValueError(f"{found.title}: it needs a check and one solution; see scripts/check_notebooks.py")
        yield Exercise(found.title, found.stub, found.solutions[0], found.check)


def execute(source, namespace):
    """Run a cell's source in a namespace, as a kernel does in the notebooks' folder; return its last line's value.

    Returns None where the last line is no expression. ValueError for IPython's magics, which need a kernel.
    """
    if "get_ipython()" in TransformerManager().transform_cell(source):
        raise ValueError(f"A cell that tests run may not use IPython's magics:\n{source}")
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    namespace.setdefault("__name__", "__main__")
    with contextlib.chdir(NOTEBOOKS):
        exec(compile(tree, "<notebook>", "exec"), namespace)  # noqa: S102  running cells is what this is for
        return last and eval(compile(ast.Expression(last.value), "<notebook>", "eval"), namespace)


def definitions(name):
    """Namespace after the cells tagged `setup` or `definition` of a notebook: what the chapter writes inline."""
    namespace = {}
    for source in tagged(read(name), "setup", "definition"):
        execute(source, namespace)
    return namespace
