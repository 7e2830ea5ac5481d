"""scripts/check_environment.py: today's three files agree, and a difference in any of them is named."""

import pytest

from check_environment import compare
from common import ROOT

NAMES = ("pyproject.toml", "environment.yml", "constraints.txt")
FILES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}


def compare_with(changed="", old="", new=""):
    """The faults when `old` is `new` in one of the three files."""
    texts = dict(FILES)
    if changed:
        assert texts[changed].count(old) == 1, f"{old!r} should stand once in {changed}"
        texts[changed] = texts[changed].replace(old, new)
    return compare(*texts.values())


def test_the_files_agree():
    assert compare_with() == []


@pytest.mark.parametrize(
    ("changed", "old", "new", "fault"),
    [
        ("environment.yml", "  - tqdm>=4.66,<5\n", "", "environment.yml: tqdm<5,>=4.66 is missing"),
        ("environment.yml", "  - tqdm>", "  - pandas>=2\n  - tqdm>", "pyproject.toml: pandas is missing"),
        ("environment.yml", "numpy>=2,<3", "numpy>=1,<3", "numpy: pyproject.toml says <3,>=2, environment"),
        ("environment.yml", "pytorch>=2.7", "torch>=2.7", "environment.yml: pytorch<3,>=2.7 is missing"),
        ("environment.yml", "numpy>=2,<3", "numpy =>2", "write 'numpy =>2' as name and range"),
        ("environment.yml", "  - numpy", "  - tqdm>=4.66,<5\n  - numpy", "tqdm stands there twice"),
        ("environment.yml", "python=3.12", "python>=3.11,<3.14", "python should be one version"),
        ("environment.yml", "python=3.12", "python=3.10", "python should be one version"),
        ("environment.yml", "      - -e .\n", "      - torch\n", "its pip part should be '-e .' alone"),
        ("pyproject.toml", '    "tqdm>=4.66,<5",\n', "", "pyproject.toml: tqdm is missing"),
        ("pyproject.toml", '"numpy>=2,<3"', '"numpy>=2,<4"', "numpy: pyproject.toml says <4,>=2"),
        ("pyproject.toml", '"pyyaml>=6,<7"', '"pyyaml>=6,<8"', "pyyaml: pyproject.toml says <8,>=6"),
        ("pyproject.toml", '    "tqdm', '    "pandas",\n    "tqdm', "environment.yml: pandas is missing"),
        ("constraints.txt", "\ntorch==", "\n# torch==", "constraints.txt: torch is not pinned"),
        ("constraints.txt", "\ntorch==2.", "\ntorch==3.", "is outside of pyproject.toml's <3,>=2.7"),
        ("constraints.txt", "\nnumpy==2.", "\nnumpy>=2.", "constraints.txt: numpy is not pinned"),
    ],
)
def test_a_difference_is_named(changed, old, new, fault):
    faults = compare_with(changed, old, new)
    assert any(fault in found for found in faults), faults
