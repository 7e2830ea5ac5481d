"""scripts/comparison.py: what rounding may change in an output, and that anything else is noticed.

The last tests change the committed outputs of every notebook by means that know nothing of the comparison's way of
reading numbers: a mistake in it cannot make everything pass.
"""

import copy
import math
import re
from collections import Counter
from decimal import Decimal

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import find_notebooks
from comparison import Tolerance, compare_outputs, compare_texts, why_ignored
from helpers import claims
from refresh import without_widgets


def allowing(**margins):
    return Tolerance.of({"tolerance": {**margins, "reason": "a test"}}) if margins else Tolerance()


def agree(committed, fresh, **margins):
    return not compare_texts(committed, fresh, allowing(**margins))


@pytest.mark.parametrize(
    ("committed", "fresh"),
    [
        ("1,234.56 and 99.9", "1,234.58 and 100.1"),
        ("999.9", "1,000.1"),
        ("14%", "15%"),
        ("14 %", "13 %"),
        ("12.5%", "12.7%"),
        ("-0.000", " 0.000"),
        ("[-0.00, 0.00]", "[ 0.00, -0.00]"),
        ("+0.0001", "-0.0001"),
        ("\N{MINUS SIGN}0.5", "-0.5"),
        ("9e-06", "1e-05"),
        ("1.24e+03", "1.25E+03"),
        ("-3e-06", "-4e-06"),
        ("2.1188 ± 0.0067 [2.11, 2.13]", "2.1187 ± 0.0066 [2.12, 2.12]"),
        ("2.0 and 2.01", "1.99 and 2.0"),
        ("tensor([-0.2500,  1.0000])", "tensor([-0.2501,  0.9999])"),
        ("array([1.e-05, 2.e-05])", "array([1.1e-05, 2.e-05])"),
        ("a    b\n  c  0.5   d", "a b\n c   0.50 d  "),
        ("from .97 on", "from .98 on"),
        ("loss:0.50,", "loss:0.51,"),
        ("x = 0.50.", "x = 0.51."),
        ("0.3-0.5", "0.4-0.4"),
        ("1.5x", "1.4x"),
        ("3 * 0.5/0.25", "3 * 0.5/0.26"),
    ],
)
def test_rounding_is_no_difference(committed, fresh):
    assert agree(committed, fresh) and agree(fresh, committed)


@pytest.mark.parametrize(
    ("committed", "fresh"),
    [
        ("0.25", "-0.25"),
        ("+0.25", "0.25"),
        ("3/27", "4/27"),
        ("torch.Size([32, 200])", "torch.Size([32, 100])"),
        ("tensor([1., 2.])", "tensor([1., 3.])"),
        ("14%", "16%"),
        ("14%", "14"),
        ("12.5%", "12.8%"),
        ("14", "14.0"),
        ("0e+00", "1e-05"),
        ("0e+00", "1e+00"),
        ("1.2e+03", "1.5e+03"),
        ("1:04:50", "1:04:51"),
        ("torch 2.13.0", "torch 2.14.0"),
        ("0.0.weight", "0.1.weight"),
        ("(0.5)", "(0.5]"),
        ("W1", "W2"),
        ("W 1", "W1"),
        ("tanh3 0.5", "tanh2 0.5"),
        ("layers.0.5.weight", "layers.0.6.weight"),
        ("float32", "float64"),
        ("1000x420", "1000x430"),
        ("10⁻³", "10⁻⁴"),
        ("2 3", "23"),
        ("0.5 0.6", "0.50.6"),
        ("0.50 0.50", "0.50"),
        ("0.50\n0.50", "0.50 0.50"),
        ("0.5", "nan"),
        ("inf", "-inf"),
        ("0.5 holds", "0.5 slips"),
        ("a 0.5", "a: 0.5"),
        ("a\nb 0.5", "a\nb 0.5\nb 0.5"),
        ("", "0.5"),
    ],
)
def test_what_rounding_cannot_explain_is_a_difference(committed, fresh):
    assert not agree(committed, fresh) and not agree(fresh, committed)


def test_a_difference_says_what_it_was_what_it_is_and_where():
    committed, fresh = "the loss\nof tanh3   0.0793 and 12%\nend", "the loss\nof tanh3  0.0799 and 14%\nend"
    first, second = compare_texts(committed, fresh, Tolerance())
    assert first.startswith("0.0793 is now 0.0799 (0.0002") and first.endswith("of tanh3 0.0793 and 12%")
    assert second.startswith("12% is now 14%")
    (words,) = compare_texts("a\nb 1\nit holds\nc", "a\nb 1\nit slips\nc", Tolerance())
    assert words.split() == ["it", "holds", "is", "now", "it", "slips"]


def test_a_tolerance_is_for_its_kind_of_number():
    assert agree("0.500", "0.549", relative=0.1) and not agree("0.500", "0.551", relative=0.1)
    assert agree("50% 3e-06", "55% 3.3e-06", relative=0.1) and not agree("50%", "56%", relative=0.1)
    assert agree("0.5 7%", "0.9 7%", absolute=0.4) and not agree("0.50", "0.91", absolute=0.4)
    assert agree("1e-09", "-2e-09", absolute=1e-8) and not agree("1e-09", "-2e-09", factor=10)
    assert agree("0e+00", "3e-12", absolute=1e-8)
    assert agree("2e-09 5.0", "2e-10 50.0", factor=10) and not agree("2e-09", "1e-10", factor=10)
    assert not agree("5.0", "50.1", factor=10) and not agree("5.0", "-6.0", factor=10)
    assert not agree("2e-09", "0e+00", factor=10) and not agree("0.50", "0.00", factor=10)
    assert agree("[2, 5] of 10", "[1, 5] of 10", counts=1) and not agree("[2, 5]", "[4, 5]", counts=1)
    assert not agree("[2, 5]", "[1, 5]", relative=0.9, absolute=3) and not agree("0.50", "0.60", counts=1)
    assert not agree("12:58 of W1", "12:59 of W1", counts=1) and not agree("W1", "W2", counts=1)


REASON = {"reason": "a test"}
MARGINS = [{"relativ": 0.1}, {"relative": "0.1"}, {"absolute": -1}, {"relative": 1}, {"factor": 0.5}, {"counts": 0.5}]


@pytest.mark.parametrize(
    "tolerance",
    [0.1, {}, {"relative": 0.1}, {"relative": 0.1, "reason": " "}, {"reason": "none"}]
    + [margin | REASON for margin in [*MARGINS, {"counts": True}]],
)
def test_an_unusable_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        Tolerance.of({"tolerance": tolerance})


numbers = st.decimals(-10_000, 10_000, places=4)


@given(numbers, st.integers(-2, 2), st.sampled_from(["{:.4f}", "{:+,.4f}", "x {:9.4f} [1.0]", "tanh3:{:.4f}, 7"]))
def test_two_units_of_the_last_digit_agree(number, units, form):
    assert agree(form.format(number), form.format(number + units * Decimal("0.0001")))


@given(numbers, st.integers(3, 10**9), st.sampled_from([-1, 1]), st.sampled_from(["{:.4f}", "({:+,.4f})", "W1 = {:f}"]))
def test_three_units_or_more_do_not(number, units, way, form):
    other = number + way * units * Decimal("0.0001")
    assert not agree(form.format(number), form.format(other))


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**9), st.sampled_from(["{}", "{:,} names", "f({})", "[0, {}]"]))
def test_a_count_is_that_count(count, more, form):
    assert agree(form.format(count), form.format(count)) and not agree(form.format(count), form.format(count + more))


@given(st.floats(1e-30, 1e30), st.sampled_from([10, 100, 1e9, 0.1, -1]))
def test_an_exponent_and_a_sign_count(number, factor):
    assert not agree(f"{number:.1e}", f"{number * factor:.1e}")


@given(st.text(alphabet="abW1 0.25,-+e%\n[]:", max_size=30))
def test_any_text_agrees_with_itself_however_it_is_spaced(text):
    assert agree(text, text) and agree(text, text.replace(" ", "   ") + "  ")


# A whole cell's outputs


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def shown(content, kind="text/plain", **metadata):
    return {"output_type": "display_data", "data": {kind: content}, "metadata": metadata}


HTML, PNG, CLAIM = "text/html", "image/png", claims.MIME
ROW = {"text": "loss", "measured": 2.1027, "stated": 2.1, "tolerance": 0.01, "verdict": "holds"}
COUNT = ROW | {"measured": 27, "tolerance": 0}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "3 names", "traceback": []}


@pytest.mark.parametrize(
    ("committed", "fresh"),
    [
        ([stream("a\nb\n")], [stream("a\n"), stream("b\n")]),
        ([shown("<td>&minus;0.5</td>\n <td>1</td>", HTML)], [shown("<td>-0.5</td> <td>1</td>", HTML)]),
        ([shown(ROW, CLAIM)], [shown(ROW | {"measured": 2.1031}, CLAIM)]),
        ([shown([ROW, ROW], CLAIM)], [shown([ROW, ROW | {"measured": 2.1021}], CLAIM)]),
        ([shown("one", PNG)], [shown("other", PNG)]),
    ],
)
def test_outputs_that_agree(committed, fresh):
    assert compare_outputs(committed, fresh, Tolerance()) == []


@pytest.mark.parametrize(
    ("committed", "fresh"),
    [
        ([stream("a\nb\n")], [stream("a\n")]),
        ([stream("a")], [stream("a", "stderr")]),
        ([stream("a")], [stream("a"), stream("careful", "stderr")]),
        ([stream("a")], []),
        ([], [shown("1")]),
        ([shown("1")], [shown("1")] * 2),
        ([shown("a"), shown("b")], [shown("b"), shown("a")]),
        ([shown("1") | {"data": {"text/plain": "1", HTML: "1"}}], [shown("1")]),
        ([shown("<td>0.57</td>", HTML)], [shown("<td>0.75</td>", HTML)]),
        ([shown("one", PNG)], [shown("one")]),
        ([shown("one", PNG)], [shown("one", PNG, **{PNG: {"alt": "a line"}})]),
        ([shown("one", PNG)], [shown("one", "image/svg+xml")]),
        *(
            ([shown(ROW, CLAIM)], [shown(ROW | change, CLAIM)])
            for change in ({"measured": 2.104}, {"measured": math.nan}, {"verdict": "slip"}, {"stated": 2.101})
        ),
        ([shown(COUNT, CLAIM)], [shown(COUNT | {"measured": 28}, CLAIM)]),
        ([shown(ROW, CLAIM)], [shown("holds", CLAIM)]),
        ([shown([ROW], CLAIM)], [shown([ROW, ROW], CLAIM)]),
        ([ERROR], [ERROR | {"evalue": "4 names"}]),
    ],
)
def test_outputs_that_differ(committed, fresh):
    assert compare_outputs(committed, fresh, Tolerance())


# The committed notebooks


def code_cells(path):
    nb = nbformat.read(path, as_version=4)
    return [(f"{path.stem}, cell {index}", cell) for index, cell in enumerate(nb.cells) if cell.cell_type == "code"]


def is_ignored(cell):
    return "nbval-ignore-output" in cell.metadata.get("tags", [])


def test_few_outputs_are_not_compared_and_each_says_why():
    ignored = [cell for path in find_notebooks([]) for _, cell in code_cells(path) if is_ignored(cell)]
    assert len(ignored) < 10
    for cell in ignored:
        assert len(why_ignored(cell.metadata)) > 10


# What is changed, and to what: of every text the first match, one in the middle, the last.
CHANGES = {
    # Nines before a number's first digit: a hundred times as much at least, and an integer is another one.
    "far off": (r"(?<![\d.,])(?<!\de[+-])\d", lambda digit: "999" + digit),
    # The first digit that is not zero, five away or four; where a cell has no tolerance of its own.
    "early digit": (r"(?<![\d.,])[0.,]*[1-9]", lambda head: head[:-1] + str((int(head[-1]) + 4) % 9 + 1)),
    "other word": (r"[^\W\d_]{2,}", lambda word: word[:-1] + ("q" if word[-1] != "q" else "k")),
    # Five orders of magnitude away.
    "other exponent": (r"[1-9][\d.]*e[+-]\d\d", lambda number: number[:-1] + str((int(number[-1]) + 5) % 10)),
    "missing line": (r"(?<=\n)[^\n]*\w[^\n]*\n", lambda line: ""),
}


def changed(name, text):
    pattern, change = CHANGES[name]
    matches = list(re.finditer(pattern, text))
    for match in dict.fromkeys(matches[:1] + matches[len(matches) // 2 :][:1] + matches[-1:]):
        yield text[: match.start()] + change(match[0]) + text[match.end() :]


def texts_of(output):
    """Every text in an output, as (the dictionary that holds it, its key)."""
    if output.output_type == "stream":
        yield output, "text"
    for mime, content in output.get("data", {}).items():
        if mime.startswith("image/") and output.metadata.get(mime, {}).get("alt"):
            yield output.metadata[mime], "alt"
        elif isinstance(content, str) and not mime.startswith("image/"):
            yield output.data, mime


def test_a_change_in_a_committed_output_is_noticed():
    made = Counter()  # so that it cannot pass for want of anything to change
    for at, cell in (pair for path in find_notebooks([]) for pair in code_cells(path) if not is_ignored(pair[1])):
        tolerance = Tolerance.of(cell.metadata)
        names = [name for name in CHANGES if name != "early digit" or "tolerance" not in cell.metadata]
        for committed in without_widgets(cell.outputs):
            fresh = copy.deepcopy(committed)
            assert compare_outputs([committed], [fresh], tolerance) == []
            for holder, key in texts_of(fresh):
                text = holder[key]
                for name in names:
                    for holder[key] in changed(name, text):
                        made.update([name, key])
                        noticed = compare_outputs([committed], [fresh], tolerance)
                        assert noticed, f"{at}: {name} is not noticed in\n{holder[key]}"
                holder[key] = text
            rows = fresh.get("data", {}).get(claims.MIME, [])
            for row in (row for row in rows if row["measured"] is not None):  # else a remark without a number
                measured = row["measured"]
                row["measured"] += max(2 * (row["tolerance"] or 0), abs(measured), 1e-9)
                assert compare_outputs([committed], [fresh], tolerance), f"{at}: a claim's number is not noticed, {row}"
                row["measured"] = measured
    assert all(made[what] > 20 for what in [*CHANGES, "text", "alt", "text/plain", "text/html"]), made
