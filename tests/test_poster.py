"""The poster: the same bytes in every run, one page, and nothing on it over another or over the edge."""

import os
import subprocess
import sys
from itertools import combinations

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import poster
from common import RESULTS, ROOT


@pytest.mark.slow
def test_another_process_writes_the_same_bytes_which_hold_no_date():
    code = "import sys, poster; [sys.stdout.buffer.write(content) for content in poster.poster_bytes().values()]"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}", "PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    with mpl.rc_context():
        assert other == b"".join(poster.poster_bytes().values()) and other.startswith(b"%PDF")
    assert b"CreationDate" not in other and other.count(b"/Type /Page ") == 1


def test_the_committed_files_are_there_and_of_their_kind():
    assert (RESULTS / "poster.pdf").read_bytes().startswith(b"%PDF")
    assert (RESULTS / "poster.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def boxes():
    with mpl.rc_context():
        fig = poster.draw_poster()
        renderer = FigureCanvasAgg(fig).get_renderer()
        yield fig.bbox, [(text.get_text(), text.get_window_extent(renderer)) for text in fig.texts]


def test_no_text_leaves_the_page_or_covers_another(boxes):
    page, texts = boxes
    for text, box in texts:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, text
    for (one, first), (other, second) in combinations(texts, 2):
        assert not first.overlaps(second), (one, other)
