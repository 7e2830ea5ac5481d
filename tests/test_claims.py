"""Claims are judged, shown and kept as data."""

import pytest

from helpers import claims
from helpers.claims import claim
from helpers.data import Names

OTHER = Names(words=["ada"], source="bundled", sha256="")


@pytest.fixture
def shown(monkeypatch):
    rows = []
    monkeypatch.setattr(claims, "display", lambda data, raw: rows.append(data))
    return rows


def test_a_claim_that_holds_is_shown_and_kept(shown):
    claim("the first loss <27>", chapter="4:19", measured=27.8817, stated=27.88, tolerance=0.01)
    (row,) = shown
    assert row[claims.MIME] == {
        "text": "the first loss <27>",
        "chapter": "4:19",
        "measured": 27.8817,
        "stated": 27.88,
        "tolerance": 0.01,
        "verdict": "holds",
    }
    assert row["text/plain"] == "4:19  the first loss <27>: stated 27.88, measured 27.88 -> holds"
    assert "the first loss &lt;27&gt;" in row["text/html"]


def test_counts_are_shown_whole(shown):
    claim("parameters", chapter="1:22", measured=11_897, stated=11_897, tolerance=0)
    assert shown[0]["text/plain"] == "1:22  parameters: stated 11,897, measured 11,897 -> holds"


@pytest.mark.parametrize(
    ("measured", "verdict", "right"),
    [(1.05, "holds", True), (1.2, "holds", False), (1.05, "approximately", True), (1.2, "approximately", False)]
    + [(1.05, "slip", False), (1.2, "slip", True), (0.577, "slip", True)],
)
def test_the_verdict_is_asserted(shown, measured, verdict, right):
    arguments = dict(chapter="1:00", measured=measured, stated=1, tolerance=0.1, verdict=verdict)
    if right:
        claim("gain", **arguments)
        assert shown[0][claims.MIME]["verdict"] == verdict
    else:
        with pytest.raises(AssertionError, match=f"gain .1:00.: measured {measured}, stated 1, .*{verdict!r}"):
            claim("gain", **arguments)
        assert not shown


def test_the_lectures_own_figures_are_judged_only_on_its_names(shown):
    claim("val loss", chapter="1:00", measured=2.19, stated=2.1, tolerance=0.001, names=OTHER)
    assert shown[0][claims.MIME]["verdict"] == "not judged"
    assert shown[0]["text/plain"] == "1:00  val loss: stated 2.1, measured 2.190 -> not judged"
    lecture = Names(words=["emma"], source="lecture", sha256="")
    with pytest.raises(AssertionError):
        claim("val loss", chapter="1:00", measured=2.19, stated=2.1, tolerance=0.001, names=lecture)


def test_unusable_claims_are_refused(shown):
    with pytest.raises(ValueError, match="unknown verdict 'maybe': choose one of holds"):
        claim("x", chapter="0:00", measured=1, stated=1, tolerance=0, verdict="maybe")
    with pytest.raises(ValueError, match="measured nan"):
        claim("x", chapter="0:00", measured=float("nan"), stated=1, tolerance=0, verdict="slip")
