"""helpers as a wheel: built, installed into a folder of its own, and used from there, outside of the course."""

import os
import shutil
import subprocess
import sys

import pytest

from common import ROOT

USE = """
import importlib, math, pkgutil, sys
import torch
import helpers

assert helpers.__file__.startswith(sys.argv[1]), helpers.__file__
rooms = {module.name for module in pkgutil.walk_packages(helpers.__path__, "helpers.")}
for room in rooms:
    importlib.import_module(room)

from helpers import checks, claims, plots, widgets
from helpers.compare import mean_interval
from helpers.data import course_file, load_names, load_splits
from helpers.diagnostics import diagnose
from helpers.folding import fold_batch_norms
from helpers.models import deep_mlp
from helpers.train import train

assert load_names().source == "bundled" and course_file("data/results/loss_log.json").is_file()
try:
    course_file("notebooks")
except FileNotFoundError as error:
    assert "git" in str(error), error
else:
    raise SystemExit("there should be no course here")
splits = load_splits()
X, Y = splits.train
model = deep_mlp(depth=3, batch_norm=True)
history = train(model, X, Y, steps=20, lr=0.1, progress=False)
found = diagnose(model, X[:64], Y[:64], lr=0.1)
folded = fold_batch_norms(model)
assert torch.allclose(folded(X[:64]), model.eval()(X[:64]), atol=1e-4)
assert mean_interval([1, 2, 3]).n == 3
plots.use_style()
plots.plot_activations(found)
claims.claims([dict(text="names", chapter="0:00", measured=1, stated=1, tolerance=0)])
assert checks.check_logit_std(lambda loss, n: (2 * (loss - math.log(n))) ** 0.5)
assert set(widgets.__all__) <= set(dir(widgets))
print(*sorted(rooms))
"""


@pytest.mark.slow
def test_every_room_works_from_a_wheel(tmp_path):
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(ROOT / "helpers", source / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", source / "data", ignore=shutil.ignore_patterns("names.txt"))
    for name in "pyproject.toml", "README.md", "LICENSE":
        shutil.copy(ROOT / name, source)
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *install, "--target", target, source], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "MAKEMORE_NAMES"}
    environment |= {
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(target),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
    }
    command = [sys.executable, "-c", USE, str(target)]
    used = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert used.returncode == 0, used.stderr
    installed = {path.relative_to(target).with_suffix("") for path in (target / "helpers").rglob("*.py")}
    here = {path.relative_to(ROOT).with_suffix("") for path in (ROOT / "helpers").rglob("*.py")}
    assert installed == here and len(used.stdout.split()) >= 10
