"""The learner's own copies of the notebooks: `python scripts/study.py`, as `make lab` does.

Copies each notebook to study/ once and never overwrites a copy; says which of the course's notebooks have changed
since. With --reset NB ("03", "E01", a name) the copy moves to study/old/ and a fresh one takes its place.
"""

import argparse
import json
import os
import re
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESET = "python scripts/study.py --reset " if os.name == "nt" else "make reset NB="


def copy(source, target):
    """Write target whole or not at all; its folder is made if need be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(source.read_bytes())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def source_hash(path):
    """The fingerprint of a notebook's code, which JupyterLab keeps when the learner saves; None if unreadable."""
    try:
        return json.loads(path.read_bytes())["metadata"].get("source_hash")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def number(stem):
    return stem.split("_")[0]


def update(notebooks, study):
    """Copy what is missing, report what has changed in the course since; returns the lines to say."""
    lines, made = [], 0
    for notebook in sorted(notebooks.glob("*.ipynb")):
        own = study / notebook.name
        if not own.exists():
            copy(notebook, own)
            made += 1
        elif source_hash(own) != source_hash(notebook):
            lines.append(
                f"{notebook.stem} has changed in the course since your copy was made; "
                f"`{RESET}{number(notebook.stem)}` gives you a fresh one and keeps yours."
            )
    if made:
        lines.insert(0, f"{made} notebooks copied to study/; these are yours to change.")
    return lines


def find(notebooks, wanted):
    """The one notebook that is meant by its number ("03", "3", "e01") or its name; SystemExit if there is not one."""

    def plain(text):  # E1 and e01 are the same, and so are 3 and 03
        return re.sub(r"\d+", lambda digits: str(int(digits[0])), text.lower())

    every = sorted(notebooks.glob("*.ipynb"))
    asked = plain(Path(wanted).name.removesuffix(".ipynb"))
    matches = [path for path in every if asked in (plain(path.stem), plain(number(path.stem)))]
    if len(matches) != 1:
        fault = "which notebook?" if not wanted else f"{wanted!r} is not one notebook."
        choices = ", ".join(path.stem for path in matches or every) or "none yet"
        sys.exit(f"{RESET.strip()}: {fault} Give its number or name: {choices}")
    return matches[0]


def reset(notebook, study):
    """Move the learner's copy to study/old/ and put a fresh one in its place; returns the line to say."""
    own = study / notebook.name
    if not own.exists():
        copy(notebook, own)
        return f"study/{own.name} is a fresh copy."
    # A time to the microsecond: two resets in a row must not share a name.
    aside = study / "old" / f"{own.stem}-{datetime.now():%Y-%m-%d-%H%M%S-%f}.ipynb"
    aside.parent.mkdir(exist_ok=True)
    fresh = own.with_name(f".{own.name}.fresh.tmp")
    copy(notebook, fresh)  # before the learner's is touched: a full disk must not leave them without one
    os.replace(own, aside)
    os.replace(fresh, own)
    return f"study/{own.name} is fresh; yours is kept as study/old/{aside.name}."


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reset", metavar="NB", help="a fresh copy of one notebook: its number or its name")
    args = parser.parse_args(arguments)
    notebooks, study = ROOT / "notebooks", ROOT / "study"
    if args.reset is None:
        lines = update(notebooks, study)
    else:
        lines = [reset(find(notebooks, args.reset), study)]
    print("".join(f"{line}\n" for line in lines), end="")


if __name__ == "__main__":
    main()
