"""What the lecture says beside what was measured: one row a claim, asserted, and kept for chapter 14 to collect."""

from html import escape
from math import isfinite

from IPython.display import display

__all__ = ["MIME", "claim"]

MIME = "application/vnd.makemore.claim+json"  # the row as data, in the output beside what is shown of it

VERDICTS = ("holds", "approximately", "slip")
COLORS = {"holds": "#00795a", "approximately": "#8a6100", "slip": "#b04a00", "not judged": "#666"}


def claim(text, *, chapter, measured, stated, tolerance, verdict="holds", names=None):
    """Show one quantitative claim with its verdict, and assert that verdict.

    text: the claim in one phrase. chapter: the time in the lecture where it stands, such as "4:19". measured,
    stated: numbers in the same unit. tolerance: how far apart they may be. verdict: what is asserted, "holds"
    or "approximately" (a loosely stated figure; the tolerance says how loosely) of numbers within the tolerance
    of each other, or "slip" of numbers that are further apart than that.
    names: the Names in use, for a figure that depends on the lecture's file: with other names it is shown but
    not judged. Everything else is always judged.

    Raises AssertionError if the verdict does not come out, ValueError for an unknown verdict or a figure that is
    not a finite number. The output also holds the row as JSON, under the MIME type ``MIME``.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"unknown verdict {verdict!r}: choose one of {', '.join(VERDICTS)}")
    measured, stated, tolerance = float(measured), float(stated), float(tolerance)
    if not all(map(isfinite, (measured, stated, tolerance))):
        raise ValueError(f"claim {text!r}: measured {measured}, stated {stated}, tolerance {tolerance}: give numbers")
    judged = names is None or names.source == "lecture"
    close = abs(measured - stated) <= tolerance
    if judged:
        assert close != (verdict == "slip"), (
            f"{text} ({chapter}): measured {measured:.6g}, stated {stated:.6g}, tolerance {tolerance:.2g}: "
            f"this does not come out as {verdict!r}"
        )
    row = {
        "text": text,
        "chapter": chapter,
        "measured": measured,
        "stated": stated,
        "tolerance": tolerance,
        "verdict": verdict if judged else "not judged",
    }
    display({MIME: row, "text/html": _html(row), "text/plain": _plain(row)}, raw=True)


def _numbers(row):
    """Measured and stated as text, to the digits that the tolerance makes meaningful (the judged ones)."""
    digits = 0
    counts = row["tolerance"] == 0 and row["measured"].is_integer() and row["stated"].is_integer()
    while not counts and digits < 10 and 10.0**-digits > max(row["tolerance"], 1e-10):
        digits += 1
    stated = f"{row['stated']:,.{digits}f}"
    exact = f"{row['stated']:,g}" if abs(row["stated"]) < 1e6 else stated
    return f"{row['measured']:,.{digits}f}", exact if float(exact.replace(",", "")) == row["stated"] else stated


def _plain(row):
    measured, stated = _numbers(row)
    return f"{row['chapter']}  {row['text']}: stated {stated}, measured {measured} -> {row['verdict']}"


def _html(row):
    measured, stated = _numbers(row)
    verdict = f'<b style="color:{COLORS[row["verdict"]]}">{row["verdict"]}</b>'
    cells = [row["chapter"], escape(row["text"]), f"stated {stated}", f"measured <b>{measured}</b>", verdict]
    # A table, since GitHub drops styles: there the cells must stand apart without them. Fixed widths, so that the
    # rows of several claims line up.
    columns = "".join(
        f'<td style="width:{width}em; text-align:left">{cell}</td>'
        for width, cell in zip((5, 26, 10, 12, 9), cells, strict=True)
    )
    return f'<table style="table-layout:fixed; width:62em; margin:0"><tr>{columns}</tr></table>'
