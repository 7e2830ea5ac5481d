"""What the scripts share: the course's folders, finding a notebook, and writing a file whole or not at all."""

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
RESULTS = ROOT / "data" / "results"
LAB_SETTINGS = ROOT / "scripts" / "lab_settings"  # JupyterLab's, where the course's differ from its own


def write_atomically(path, content):
    """Write bytes to a neighbouring file and move it into place, so that an interruption leaves the old file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def number(stem):
    """03 of 03_saturated_tanh."""
    return stem.split("_")[0]


def find_notebook(wanted, folder=None):
    """The one notebook that is meant by its number ("03", "3", "e01") or its name; SystemExit if there is not one."""

    def plain(text):  # E1 and e01 are the same, and so are 3 and 03
        return re.sub(r"\d+", lambda digits: str(int(digits[0])), text.lower())

    every = sorted((folder or NOTEBOOKS).glob("*.ipynb"))
    asked = plain(Path(wanted).name.removesuffix(".ipynb"))
    matches = [path for path in every if asked in (plain(path.stem), plain(number(path.stem)))]
    if len(matches) != 1:
        fault = f"{wanted!r} is not one notebook." if wanted else "Which notebook?"
        choices = ", ".join(path.stem for path in matches or every) or "none yet"
        raise SystemExit(f"{fault} Give its number or name: {choices}")
    return matches[0]


def find_notebooks(wanted):
    """Paths of the notebooks given by path, number or name; of all the course's when `wanted` is empty."""
    if not wanted:
        return sorted(NOTEBOOKS.glob("*.ipynb"))
    return [
        Path(name).resolve() if name.endswith(".ipynb") and Path(name).is_file() else find_notebook(name)
        for name in wanted
    ]
