"""The learner's own copies of the notebooks: `python scripts/study.py`, as `make lab` does.

Copies each notebook once and never overwrites a copy; says which of the course's notebooks have changed since, which
copies no longer fit because they import what helpers no longer has, and which are damaged. With --reset NB ("03",
"E01", a name) the copy moves to old/ and a fresh one takes its place; with --restore NB the last whole version that
JupyterLab kept of a damaged copy does. The copies lie in study/; elsewhere by --to or MAKEMORE_STUDY, and in the home
directory where the course is not the user's own.
"""

import argparse
import ast
import json
import os
import re
import sys
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path

from common import NOTEBOOKS, ROOT, find_notebook, number, write_atomically

AT_HOME = Path(os.path.expanduser("~")).absolute() / "makemore"  # the copies of somebody whose course is not their own


def choose_folder(wanted=None, course=ROOT):
    """(where the copies lie: as asked, by MAKEMORE_STUDY, or by who owns the course; why, if nobody asked for it)."""
    if wanted := wanted or os.environ.get("MAKEMORE_STUDY", "").strip():
        return Path(wanted).expanduser().absolute(), None
    user = os.getuid() if hasattr(os, "getuid") else 0  # Windows has no such number, and root owns everything
    if os.access(course, os.W_OK) and user in (0, course.stat().st_uid):
        return course / "study", None
    return AT_HOME, f"This course is not your own: your copies lie in {AT_HOME} (MAKEMORE_STUDY names another folder)."


def update(notebooks, study, helpers=ROOT / "helpers"):
    """Copy what is missing, report what has changed in the course since; returns the lines to say."""
    lines, made, failure = [], 0, None
    if study == AT_HOME:
        with suppress(OSError):  # said below, where a copy can't be written
            study.mkdir(mode=0o700, exist_ok=True)  # a home may be open to others; notes are not for them
    for notebook in sorted(notebooks.glob("*.ipynb")):
        own = study / notebook.name
        if not own.exists():
            try:
                write_atomically(own, notebook.read_bytes())
                made += 1
            except OSError as error:
                failure = failure or cannot_write(own, error)
            continue
        if cells(own) is None:
            fault = f"is damaged: your copy, {own}, is no notebook any more"
            if backup := last_whole(own):
                remedy = (
                    f"`{command('restore')}{number(own.stem)}` brings back what JupyterLab kept of it in {backup.name}"
                )
                lines.append(f"{notebook.stem} {fault}; {remedy}, and keeps the damaged one.")
                continue
        elif gone := imports_gone(own, helpers):
            fault = f"no longer fits: your copy imports {', '.join(gone)}, which the course does not have any more"
        elif source_hash(own) != source_hash(notebook):
            fault = "has changed in the course since your copy was made"
        else:
            continue
        remedy = f"`{command('reset')}{number(notebook.stem)}` gives you a fresh one and keeps yours."
        lines.append(f"{notebook.stem} {fault}; {remedy}")
    if made:
        lines.insert(0, f"{made} notebooks copied to {shown(study)}/; these are yours to change.")
    return lines + [failure] * bool(failure)


def prepare(wanted=None):
    """The folder of the learner's copies, with each notebook in it, and the lines to say."""
    study, why = choose_folder(wanted)
    return study, [why] * bool(why) + update(NOTEBOOKS, study)


def command(verb):
    return f"python scripts/study.py --{verb} " if os.name == "nt" else f"make {verb} NB="


def shown(path):
    """study/ of the course itself by its short name."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def cannot_write(path, error):
    return (
        f"{path} cannot be written: {error.strerror or error}. Make room there, or let MAKEMORE_STUDY name a folder "
        "that is yours; nothing of yours was changed."
    )


def cells(path):
    """A notebook's cells; None for a file that is no notebook."""
    try:
        found = json.loads(path.read_bytes())["cells"]
        return found if isinstance(found, list) and all("source" in cell for cell in found) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def last_whole(own):
    """The newest whole notebook that JupyterLab keeps of this one: from before a failed save, or a checkpoint."""
    kept = [own.with_name(f".~{own.name}"), own.parent / ".ipynb_checkpoints" / f"{own.stem}-checkpoint.ipynb"]
    return max((path for path in kept if cells(path)), key=lambda path: path.stat().st_mtime, default=None)


def source_hash(path):
    """The fingerprint of a notebook's code, which JupyterLab keeps when the learner saves; None if unreadable."""
    try:
        return json.loads(path.read_bytes())["metadata"].get("source_hash")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def imports_gone(path, helpers):
    """What a notebook's code imports from helpers that is not there: ["helpers.judge", "helpers.plots.plot_old"]."""
    sources = ["".join(cell["source"]) for cell in cells(path) or [] if cell.get("cell_type") == "code"]
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


def replace(own, content, says):
    """Move the learner's copy to old/, if there is one, and put this content in its place; returns the line to say."""
    if not own.exists():
        write_atomically(own, content)
        return f"{shown(own)} {says}."
    # A time to the microsecond: two resets in a row must not share a name.
    aside = own.parent / "old" / f"{own.stem}-{datetime.now():%Y-%m-%d-%H%M%S-%f}.ipynb"
    aside.parent.mkdir(exist_ok=True)
    fresh = own.with_name(f".{own.name}.fresh.tmp")
    write_atomically(fresh, content)  # before the learner's is touched: the disk may be full
    os.replace(own, aside)
    os.replace(fresh, own)
    return f"{shown(own)} {says}; yours is kept as {shown(aside)}."


def reset(notebook, study):
    return replace(study / notebook.name, notebook.read_bytes(), "is fresh")


def restore(notebook, study):
    own = study / notebook.name
    if backup := last_whole(own):
        return replace(own, backup.read_bytes(), f"is again what {backup.name} kept of it")
    raise SystemExit(f"JupyterLab kept nothing of {own}; `{command('reset')}{number(own.stem)}` gives you a fresh one.")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--to", metavar="FOLDER", help="where your copies lie (default: study/, or MAKEMORE_STUDY)")
    parser.add_argument("--reset", metavar="NB", help="a fresh copy of one notebook: its number or its name")
    parser.add_argument("--restore", metavar="NB", help="what JupyterLab kept of a damaged copy")
    wanted = parser.parse_args(arguments)
    study, _ = choose_folder(wanted.to)
    try:
        if wanted.reset is not None:
            lines = [reset(find_notebook(wanted.reset), study)]
        elif wanted.restore is not None:
            lines = [restore(find_notebook(wanted.restore), study)]
        else:
            lines = prepare(wanted.to)[1]
    except OSError as error:
        sys.exit(cannot_write(error.filename or study, error))
    print("".join(f"{line}\n" for line in lines), end="")


if __name__ == "__main__":
    main()
