"""README's "Your own network", followed to the letter in a project that has that folder alone."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

COURSE = Path(__file__).resolve().parents[1]
OWN = """
import sys; sys.modules["helpers"] = None  # not there
import torch; from torch.nn import functional as F
model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 5))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
inputs, targets = torch.randn(64, 20), torch.randint(0, 5, (64,))
loader = [(inputs, targets)] * 25
C, W1, b1, W2, b2 = (torch.randn(shape, requires_grad=True) for shape in ((27, 10), (30, 200), 200, (200, 27), 27))
X, Y = torch.randint(0, 27, (32, 3)), torch.randint(0, 27, (32,))
"""
STEP = "optimizer.zero_grad(); F.cross_entropy(model(inputs), targets).backward(); optimizer.step()"


def test_a_copied_folder_and_readmes_lines_give_the_four_pictures_of_a_network_and_of_its_training(tmp_path):
    section = (
        (COURSE / "README.md").read_text(encoding="utf-8").partition("## Your own network\n")[2].partition("\n## ")[0]
    )
    blocks = re.findall(r"```python\n(.+?)```", section, re.DOTALL)
    shutil.copytree(COURSE / "helpers" / "diagnostics", tmp_path / "diagnostics")
    script = OWN + "\n".join(blocks).replace("        ...", f"        {STEP}")
    ran = subprocess.run(
        [sys.executable, "-"], input=script, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in tmp_path.glob("*.png")} == {"four_pictures.png", "training.png"}
    assert "Diagnosis(3 layer calls, 4 parameters" in ran.stdout
