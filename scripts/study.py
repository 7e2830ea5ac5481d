"""The learner's own copies of the notebooks: `python scripts/study.py`, as `make lab` does.

Copies each notebook to study/ once and never overwrites a copy; says which of the course's notebooks have changed
since, and which copies no longer fit because they import what helpers no longer has. With --reset NB ("03", "E01",
a name) the copy moves to study/old/ and a fresh one takes its place.
"""

import argparse
import ast
import json
import os
import re
from datetime import datetime
from functools import cache

from common import NOTEBOOKS, ROOT, find_notebook, number, write_atomically

STUDY = ROOT / "study"
RESET = "python scripts/study.py --reset " if os.name == "nt" else "make reset NB="


def update(notebooks, study, helpers=ROOT / "helpers"):
    """Copy what is missing, report what has changed in the course since; returns the lines to say."""
    lines, made = [], 0
    for notebook in sorted(notebooks.glob("*.ipynb")):
        own = study / notebook.name
        if not own.exists():
            write_atomically(own, notebook.read_bytes())
            made += 1
            continue
        if gone := imports_gone(own, helpers):
            fault = f"no longer fits: your copy imports {', '.join(gone)}, which the course does not have any more"
        elif source_hash(own) != source_hash(notebook):
            fault = "has changed in the course since your copy was made"
        else:
            continue
        remedy = f"`{RESET}{number(notebook.stem)}` gives you a fresh one and keeps yours."
        lines.append(f"{notebook.stem} {fault}; {remedy}")
    if made:
        lines.insert(0, f"{made} notebooks copied to study/; these are yours to change.")
    return lines


def source_hash(path):
    """The fingerprint of a notebook's code, which JupyterLab keeps when the learner saves; None if unreadable."""
    try:
        return json.loads(path.read_bytes())["metadata"].get("source_hash")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def imports_gone(path, helpers):
    """What a notebook's code imports from helpers that is not there: ["helpers.judge", "helpers.plots.plot_old"]."""
    try:
        cells = json.loads(path.read_bytes())["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, TypeError, KeyError):
        return []
    wanted = {}  # (module, name) in the notebook's order; name is None for `import module`
    for source in sources:
        for node in ast.walk(parse(re.sub(r"^(\s*)[%!?].*", r"\1pass", source, flags=re.MULTILINE))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                wanted |= {(node.module, alias.name): 0 for alias in node.names}
            elif isinstance(node, ast.Import):
                wanted |= {(alias.name, None): 0 for alias in node.names}
    gone = {}
    for module, name in wanted:
        if module.split(".")[0] == "helpers":
            known = names_in(helpers.parent.joinpath(*module.split(".")))
            if known is None:
                gone[module] = 0
            elif name not in (None, "*") and name not in known:
                gone[f"{module}.{name}"] = 0
    return [*gone]


@cache
def names_in(module):
    """What can be imported from a module or a package, given by its path without .py; None if there is neither."""
    package = module.is_dir()
    file = module / "__init__.py" if package else module.with_suffix(".py")
    if not file.is_file():
        return None
    names = {path.stem for path in module.iterdir()} if package else set()
    for node in ast.walk(parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def parse(source):
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def reset(notebook, study):
    """Move the learner's copy to study/old/ and put a fresh one in its place; returns the line to say."""
    own = study / notebook.name
    if not own.exists():
        write_atomically(own, notebook.read_bytes())
        return f"study/{own.name} is a fresh copy."
    # A time to the microsecond: two resets in a row must not share a name.
    aside = study / "old" / f"{own.stem}-{datetime.now():%Y-%m-%d-%H%M%S-%f}.ipynb"
    aside.parent.mkdir(exist_ok=True)
    fresh = own.with_name(f".{own.name}.fresh.tmp")
    write_atomically(fresh, notebook.read_bytes())  # before the learner's is touched: the disk may be full
    os.replace(own, aside)
    os.replace(fresh, own)
    return f"study/{own.name} is fresh; yours is kept as study/old/{aside.name}."


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reset", metavar="NB", help="a fresh copy of one notebook: its number or its name")
    wanted = parser.parse_args(arguments).reset
    lines = update(NOTEBOOKS, STUDY) if wanted is None else [reset(find_notebook(wanted), STUDY)]
    print("".join(f"{line}\n" for line in lines), end="")


if __name__ == "__main__":
    main()
