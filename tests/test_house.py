"""The house: who may import whom, how long a room may be, and that the map in helpers/__init__.py shows all of it.

A learner reads the flat files; what only serves a panel, a check or the diagnostics lies in a room of its own.
"""

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import pytest

import helpers

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
FLAT = {"data", "layers", "models", "resnet", "train", "by_hand", "compare", "claims", "plots"}
ROOMS = {"drawing", "folding", "diagnostics", "widgets", "checks", "clinic"}
MAY_IMPORT = {
    **{room: set() for room in ("data", "layers", "resnet", "compare", "claims", "diagnostics", "checks")},
    "models": {"layers"},
    "folding": {"layers"},
    "by_hand": {"layers", "models"},
    "train": {"by_hand"},
    "plots": {"compare", "diagnostics"},
    "drawing": {"plots"},
    "clinic": {"data", "layers", "models", "train", "diagnostics"},
    "widgets": (FLAT | ROOMS) - {"checks"},
}
LINES = {"__init__": 20, "drawing": 250, "folding": 380, "clinic": 400}
# Any network, function or list is read, a training watched, and all of it left as it was; the judgements are a room of
# their own in it: what is looked for, a function for each.
LINES |= {"diagnostics": 2970, "judgements": 1410}
PANEL, PANELS = 120, 250  # lines of a panel, and of what all of them share
# Most lines of a check are sentences for wrong answers. Shared: what an answer may be, what puts everything back after
# it has run, what can be told of any wrong answer.
CHECK, CHECKS = 30, 950
LONGEST = 300  # of any file


def files_of(room):
    return sorted((HELPERS / room).rglob("*.py")) if (HELPERS / room).is_dir() else [HELPERS / f"{room}.py"]


def lines(*paths):
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def imports(path):
    """(level, module) of every import in a file, level being the number of dots; inside functions, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "helpers":
            yield from ((node.level, f"helpers.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def budget(room):
    """Lines at most."""
    if room == "diagnostics":
        return LINES["diagnostics"] + LINES["judgements"]
    if room == "widgets":
        return PANEL * len(importlib.import_module("helpers.widgets").__all__) + PANELS
    if room == "checks":
        checks = [name for name in dir(importlib.import_module("helpers.checks")) if name.startswith("check_")]
        return CHECK * len(checks) + CHECKS
    return LINES.get(room, LONGEST)


def rooms_there():
    return {path.stem for path in HELPERS.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}


def faults():
    """{room: what is wrong with it}."""
    rooms = sorted(rooms_there())
    found = {room: [] for room in [*rooms, "flat"]}
    for room in rooms:
        if room not in FLAT | ROOMS | {"__init__"}:
            found[room].append("is not in the house")
        for path in files_of(room):
            for level, module in imports(path):
                if not level and module.split(".")[0] == "helpers":
                    other = module.split(".")[1]
                    if other != room and other not in MAY_IMPORT.get(room, ()):
                        found[room].append(f"{path.name} imports {other}")
            if "sys.path" in path.read_text(encoding="utf-8"):
                found[room].append(f"{path.name} changes the path")
            if lines(path) > LONGEST:
                found[room].append(f"{path.name} has {lines(path)} lines, more than {LONGEST}")
        if lines(*files_of(room)) > budget(room):
            found[room].append(f"{lines(*files_of(room))} lines, more than {budget(room)}")
    total = lines(*(file for room in rooms if room in FLAT for file in files_of(room)))
    if total > 1700:
        found["flat"].append(f"{total} lines in all, more than 1,700")
    return {room: what for room, what in found.items() if what}


def test_every_room_keeps_to_its_imports_and_its_lines():
    assert faults() == {}


def test_the_judgements_keep_to_their_lines():
    assert lines(*(HELPERS / "diagnostics/judgements").glob("*.py")) <= LINES["judgements"]


def test_the_diagnostics_can_be_taken_along():
    """Relative imports, torch, and matplotlib with the numpy that it brings; IPython only inside what draws live."""
    for path in files_of("diagnostics"):
        outside = {module.split(".")[0] for level, module in imports(path) if not level}
        outside -= {*sys.stdlib_module_names, "torch", "matplotlib", "numpy"}
        assert outside <= {"IPython"}, f"{path.name} imports {outside}"
        assert not re.search(r"^(import|from) IPython", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_map_shows_every_room():
    shown = {line.split()[0] for line in helpers.__doc__.splitlines()[2:] if line}
    assert shown == FLAT | ROOMS == rooms_there() - {"__init__"}


def test_every_text_file_is_read_and_written_in_a_named_encoding():
    """Windows' own is not UTF-8."""
    root = HELPERS.parent
    for path in (
        p for places in ("*.py", "helpers/**/*.py", "scripts/*.py", "tests/**/*.py") for p in root.glob(places)
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            modes = [a.value for a in node.args[1:] if isinstance(a, ast.Constant)]
            if name in ("read_text", "write_text") or (name == "open" and isinstance(node.func, ast.Name)):
                binary = name == "open" and any("b" in str(mode) for mode in modes)
                named = any(k.arg in ("encoding", None) for k in node.keywords) or (name == "read_text" and node.args)
                assert binary or named, f"{path}, line {node.lineno}"


def test_every_page_stands_in_the_readme_and_in_00_under_its_own_title():
    paths = sorted((HELPERS.parent / "notebooks").glob("*.ipynb"))
    pages = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert [page["metadata"].get("form") for page in pages] == [None, *["lesson"] * (len(pages) - 1)]  # 00 is a guide
    titles = [page["cells"][0]["source"][0].strip("# \n") for page in pages]
    readme = (HELPERS.parent / "README.md").read_text(encoding="utf-8")
    map_of_pages = "".join(next(cell for cell in pages[0]["cells"] if cell["id"] == "map")["source"])
    for path, title in zip(paths, titles, strict=True):
        number, name = title.split(" · ")
        assert f"| [{number}](notebooks/{path.name}) | {name} |" in readme
        assert path == paths[0] or f"| [{title}]({path.name}) |" in map_of_pages


@pytest.mark.parametrize("page", sorted(HELPERS.parent.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_names_files_headings_and_commands_that_are_there(page):
    course, text = page.parent, page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        there = course / file if file else page
        assert there.exists(), target
        headings = re.findall(r"^#+ (.+)", there.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in anchors, target
    code = "\n".join(re.findall(r"```.+?```|`[^`]+`", text, re.DOTALL))
    targets = re.findall(r"^([a-z-]+):", (course / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {*re.findall(r"\bmake ([a-z-]+)", code)} <= {*targets}
    for script in re.findall(r"\bscripts[\\/](\w+\.\w+)", code):
        assert (course / "scripts" / script).exists(), script
