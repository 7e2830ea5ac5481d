"""Runs the cells of notebooks for tests: what a chapter sets up and defines."""

import ast
import contextlib
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


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
