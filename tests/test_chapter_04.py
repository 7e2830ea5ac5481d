"""Chapter 04: its checks, its exercises' solutions, and what it writes inline against the helpers used later."""

import pytest
import torch
from torch.nn import functional as F

from helpers.checks.chapter_04 import four_networks
from helpers.widgets.network import expected_std


def test_the_four_networks_can_be_told_apart():
    (a, a_back), (b, b_back), (c, c_back), (d, d_back) = four_networks().values()
    assert 0.1 < a[-1] < 10 and 0.1 < a_back[0] < 10
    assert max(b[10:]) - min(b[10:]) < 0.03 and b_back[0] > 30
    assert c[-1] > 1_000 and c_back[0] > 1_000
    assert d[-1] < 0.2 and d_back[0] < 0.3


def test_the_chapters_map_is_the_panels_curve(chapter):
    s, by_chapter = 1.0, []
    for _ in range(5):
        s = chapter["next_rms"](s, 5 / 3).item()
        by_chapter.append(s)
    assert by_chapter == pytest.approx(expected_std(5 / 3, 5), abs=1e-4)
    assert abs(chapter["settle"](5 / 3) - 0.6513) < 1e-3 and chapter["settle"](0.9) == 0
    x = F.gelu(torch.randn(1000, generator=torch.Generator().manual_seed(0)))
    assert abs(chapter["rms"](x) - (x.var(correction=0) + x.mean() ** 2).sqrt()) < 1e-5
