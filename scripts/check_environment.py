"""Compare the three lists of packages: `python scripts/check_environment.py`, as `make check` does.

environment.yml must name the packages and ranges of pyproject.toml, no more and no fewer, and constraints.txt must
pin each of them inside its range. It only reads the files: it does not know whether conda can solve them.
"""

import sys
import tomllib

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from common import ROOT

CONDA_NAMES = {
    "torch": "pytorch",
    "matplotlib": "matplotlib-base",  # without a desktop toolkit
    "playwright": "playwright-python",
}


def compare(pyproject, environment, constraints):
    """The texts of the three files; returns a list of what does not agree, one sentence each."""
    project = tomllib.loads(pyproject)["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    needed = {canonicalize_name(r.name): r.specifier for r in map(Requirement, needed)}
    return [
        *compare_conda(needed, project["requires-python"], yaml.safe_load(environment)["dependencies"]),
        *compare_pins(needed, constraints),
    ]


def compare_conda(needed, requires_python, entries):
    faults, found = [], {}
    pip = [entry for entry in entries if isinstance(entry, dict)]
    if pip != [{"pip": ["-e ."]}]:
        faults.append(f"environment.yml: its pip part should be '-e .' alone, for helpers; it is {pip}")
    specs = [entry for entry in entries if isinstance(entry, str) and entry != "pip"]
    # One "=" is conda's own; every other entry is written so that conda and pip read it alike.
    versions = [spec.removeprefix("python=") for spec in specs if spec.startswith("python=")]
    if len(versions) != 1 or versions[0] not in SpecifierSet(requires_python):
        faults.append(f"environment.yml: python should be one version within {requires_python}: {versions}")

    for spec in (spec for spec in specs if not spec.startswith("python=")):
        try:
            requirement = Requirement(spec)
        except InvalidRequirement:
            faults.append(f"environment.yml: write {spec!r} as name and range, such as numpy>=2,<3")
            continue
        if requirement.name in found:
            faults.append(f"environment.yml: {requirement.name} stands there twice")
        found[requirement.name] = requirement.specifier
    wanted = {CONDA_NAMES.get(name, name): specifier for name, specifier in needed.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            faults.append(f"environment.yml: {name}{wanted[name]} is missing, pyproject.toml has it")
        elif name not in wanted:
            faults.append(f"pyproject.toml: {name} is missing, environment.yml has it")
        elif found[name] != wanted[name]:
            faults.append(f"{name}: pyproject.toml says {wanted[name]}, environment.yml says {found[name]}")
    return faults


def compare_pins(needed, constraints):
    lines = [line for line in constraints.splitlines() if line and not line.startswith("#")]
    pins = {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}
    faults = []
    for name, specifier in needed.items():
        versions = [s.version for s in pins.get(name, ()) if s.operator == "=="]
        if len(versions) != 1:
            faults.append(f"constraints.txt: {name} is not pinned to one version")
        elif versions[0] not in specifier:
            faults.append(f"constraints.txt: {name}=={versions[0]} is outside of pyproject.toml's {specifier}")
    return faults


def main():
    names = ("pyproject.toml", "environment.yml", "constraints.txt")
    faults = compare(*((ROOT / name).read_text(encoding="utf-8") for name in names))
    sys.exit("\n".join(faults) or None)


if __name__ == "__main__":
    main()
