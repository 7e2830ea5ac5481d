"""Claims are judged, shown and kept as data."""

import pytest

from helpers import claims as module
from helpers.claims import MIME, claim, claims, saved_claims, table
from helpers.data import Names

LECTURE, OTHER = (Names(words=["ada"], source=source, sha256="") for source in ("lecture", "bundled"))


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(module, "display", lambda data, raw: outputs.append(data))
    return outputs


def test_a_claim_that_holds_is_shown_and_kept(shown):
    claim("the first loss <27>", chapter="4:<19>", measured=27.8817, stated=27.88, tolerance=0.01)
    (output,) = shown
    row = {"text": "the first loss <27>", "chapter": "4:<19>", "measured": 27.8817, "stated": 27.88}
    assert output[MIME] == [row | {"tolerance": 0.01, "verdict": "holds"}]
    assert output["text/plain"] == "4:<19>  the first loss <27>: stated 27.88, measured 27.88 -> holds"
    assert "the first loss &lt;27&gt;" in output["text/html"] and "4:&lt;19&gt;" in output["text/html"]


def test_counts_are_shown_whole(shown):
    claim("parameters", chapter="1:22", measured=11_897, stated=11_897, tolerance=0)
    assert shown[0]["text/plain"] == "1:22  parameters: stated 11,897, measured 11,897 -> holds"


@pytest.mark.parametrize(
    ("measured", "tolerance", "verdict", "right"),
    [(1.05, 0.1, "holds", True), (1.2, 0.1, "holds", False)]
    + [(1.05, 0.1, "approximately", True), (1.2, 0.1, "approximately", False)]
    + [(1.05, 0.1, "slip", False), (1.2, 0.1, "slip", True), (0.577, 0.1, "slip", True)]
    + [(5, 10, "order of magnitude", True), (0.2, 10, "order of magnitude", True), (0, 10, "order of magnitude", False)]
    + [(11, 10, "order of magnitude", False), (0.09, 10, "order of magnitude", False)]
    + [(-5, 10, "order of magnitude", False), (4, 3, "order of magnitude", False)],
)
def test_the_verdict_is_asserted(shown, measured, tolerance, verdict, right):
    arguments = dict(chapter="1:00", measured=measured, stated=1, tolerance=tolerance, verdict=verdict)
    if right:
        claim("gain", **arguments)
        claims([dict(text="gain", **arguments)])
        assert shown[0][MIME][0]["verdict"] == verdict and shown[1] == shown[0]
    else:
        with pytest.raises(AssertionError, match=f"gain .1:00.: measured {measured}, stated 1, .*{verdict!r}"):
            claim("gain", **arguments)
        with pytest.raises(AssertionError, match=f"gain .1:00.: measured {measured}, stated 1, .*{verdict!r}"):
            claims([dict(text="gain", **arguments)])
        assert not shown


def test_the_lectures_own_figures_are_judged_only_on_its_names(shown):
    arguments = dict(chapter="1:00", measured=2.19, stated=2.1, tolerance=0.001)
    claim("val loss", **arguments, names=OTHER)
    assert shown[0][MIME][0]["verdict"] == "not judged"
    assert shown[0]["text/plain"] == "1:00  val loss: stated 2.1, measured 2.190 -> not judged"
    with pytest.raises(AssertionError):
        claim("val loss", **arguments, names=LECTURE)


@pytest.mark.parametrize(("measured", "number"), [(None, ""), (0.12345, "0.123"), (11_897, "11,897")])
def test_a_remark_judges_nothing(shown, measured, number):
    for names in None, LECTURE, OTHER:
        claim("it may be", chapter="2:00", measured=measured, verdict="remark", names=names)
        assert shown[-1][MIME][0]["verdict"] == "remark" and shown[-1][MIME][0]["measured"] == measured
        assert number in shown[-1]["text/plain"] and "stated" not in shown[-1]["text/plain"]


def rows():
    held = dict(chapter="1:00", measured=1, stated=1, tolerance=0)
    return [
        dict(text="a", **held),
        dict(text="b", chapter="2:00", measured=0.0024, stated=0.001, tolerance=10, verdict="order of magnitude"),
        dict(text="c", chapter="3:00", verdict="remark"),
        dict(text="d", chapter="4:00", measured=2, stated=1, tolerance=0.5, verdict="slip", names=OTHER),
        dict(text="e", chapter="5:00", measured=2, stated=1, tolerance=0.5, verdict="slip"),
        dict(text="f", **held, verdict="approximately"),
    ]


def test_a_table_has_slips_and_remarks_first_whatever_the_names(shown):
    claims(iter(rows()))
    (output,) = shown
    assert [row["text"] for row in output[MIME]] == ["d", "e", "c", "a", "b", "f"]
    assert [line.split("  ")[1][0] for line in output["text/plain"].splitlines()] == ["d", "e", "c", "a", "b", "f"]
    assert output["text/html"].count("<tr>") == 7 and output["text/html"] == table(output[MIME])
    assert "0.0024" in output["text/html"] and "factor" in output[MIME][4]


def test_a_table_names_every_row_that_does_not_come_out_and_shows_nothing(shown):
    wrong = [dict(text=text, chapter="1:00", measured=2, stated=1, tolerance=0.5) for text in ("first", "second")]
    with pytest.raises(AssertionError, match=r"first (?s:.)*second") as failed:
        claims([*rows(), *wrong])
    assert len(str(failed.value).splitlines()) == 2 and not shown


def test_saved_claims_are_one_row_for_each_claim(shown):
    claim("alone", chapter="1:00", measured=1, stated=1, tolerance=0)
    claims(rows())
    outputs = [{"output_type": "display_data", "data": data} for data in shown]
    printed = {"output_type": "stream", "text": ["1"]}
    cells = [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": [printed, *outputs]}]
    assert [row["text"] for row in saved_claims({"cells": cells})] == ["alone", "d", "e", "c", "a", "b", "f"]


@pytest.mark.parametrize(
    "arguments",
    [
        dict(measured=1, stated=1, tolerance=0, verdict="maybe"),
        dict(measured=float("nan"), stated=1, tolerance=0, verdict="slip"),
        dict(measured=1, stated=1),
        dict(stated=1, tolerance=0, verdict="slip"),
        dict(stated=1, verdict="remark"),
        dict(measured=float("inf"), verdict="remark"),
        dict(measured=1, stated=1, tolerance=11, verdict="order of magnitude"),
        dict(measured=1, stated=1, tolerance=0.5, verdict="order of magnitude"),
        dict(measured=1, stated=0, tolerance=2, verdict="order of magnitude"),
    ],
)
def test_unusable_claims_are_refused(shown, arguments):
    with pytest.raises(ValueError, match="'maybe'.*choose|'x'.*(give|leave)"):
        claim("x", chapter="0:00", **arguments)
    with pytest.raises(TypeError):
        claims([dict(text="x", chapter="0:00", mesured=1)])
    assert not shown
