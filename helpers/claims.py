"""What the lecture says beside what was measured: asserted, shown, and kept for chapter 14 to collect."""

from html import escape
from math import isfinite

from IPython.display import display

MIME = "application/vnd.makemore.claim+json"  # the rows as data, beside what is shown of them

COLORS = {"slip": "#b04a00", "remark": "#5a4fa0", "order of magnitude": "#8a6100", "approximately": "#8a6100"}
COLORS |= {"holds": "#00795a", "not judged": "#666"}
VERDICTS = [*COLORS][:-1]
WIDTHS = {"chapter": 5, "claim": 26, "the lecture": 10, "measured": 12, "verdict": 9}  # of the columns, in em


def claim(text, *, chapter, measured=None, stated=None, tolerance=None, verdict="holds", names=None):
    """Show one claim of the lecture with its verdict, and assert that verdict.

    text: the claim in one phrase. chapter: the time in the lecture where it stands, such as "4:19". measured, stated:
    numbers in the same unit. tolerance: how far apart they may be. names: the Names in use, for a number that depends
    on the lecture's file; with other names it is shown and not judged. Verdicts:
    "holds", "approximately": within the tolerance; the second is for a number that is stated loosely.
    "order of magnitude": the tolerance is a factor, at most 10; measured / stated lies between 1 / factor and factor.
    "slip": further apart than the tolerance.
    "remark": worth knowing, but no judgement of a number; it has no stated and no tolerance, and may have measured.
    Raises AssertionError if the verdict does not come out, ValueError for what can't be judged.
    """
    given = dict(measured=measured, stated=stated, tolerance=tolerance, verdict=verdict, names=names)
    claims([dict(text=text, chapter=chapter, **given)])


def claims(rows):
    """Show several claims as one table, slips first, then remarks, and assert each.

    rows: for each claim the arguments of ``claim``, as a dict. An AssertionError names every row whose verdict does
    not come out. The output holds the list of rows as JSON, too, under the MIME type ``MIME``.
    """
    first = {"slip": 0, "remark": 1}
    judged = [_judge(**row) for row in sorted(rows, key=lambda row: first.get(row.get("verdict"), 2))]
    faults = [fault for _, fault in judged if fault]
    assert not faults, "\n".join(faults)
    rows = [row for row, _ in judged]
    display({MIME: rows, "text/html": table(rows), "text/plain": "\n".join(map(_line, rows))}, raw=True)


def saved_claims(notebook):
    """The rows of every claim in a notebook's saved outputs, in order. notebook: the JSON of its file."""
    outputs = [output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    kept = [data.get(MIME, []) for data in outputs]
    return [row for rows in kept for row in (rows if isinstance(rows, list) else [rows])]


def table(rows):
    """Rows as they are kept under ``MIME``, as HTML."""
    lines = [[f"<b>{name}</b>" for name in WIDTHS]]
    for row in rows:
        (measured, stated), verdict = _numbers(row), row["verdict"]
        figures = [stated, measured and f"<b>{measured}</b>", f'<b style="color:{COLORS[verdict]}">{verdict}</b>']
        lines.append([escape(row["chapter"]), escape(row["text"]), *figures])
    # GitHub drops styles: in a table the cells stand apart all the same. The widths are fixed, so that the columns of
    # several tables line up.
    cell = '<td style="width:{}em; text-align:left">{}</td>'.format
    body = "".join(f"<tr>{''.join(map(cell, WIDTHS.values(), line))}</tr>" for line in lines)
    return f'<table style="table-layout:fixed; width:62em; margin:0">{body}</table>'


def _judge(text, chapter, measured=None, stated=None, tolerance=None, verdict="holds", names=None):
    """(the row as it is kept, what is wrong with its verdict: "" for nothing)."""
    if verdict not in VERDICTS:
        raise ValueError(f"unknown verdict {verdict!r}: choose one of {', '.join(VERDICTS)}")
    figures = {"measured": measured, "stated": stated, "tolerance": tolerance}
    given = {name: float(figure) for name, figure in figures.items() if figure is not None}
    row = {"text": text, "chapter": chapter, **dict.fromkeys(figures), **given, "verdict": verdict}
    wanted, is_given = "measured, stated and tolerance", len(given) == 3
    if verdict == "remark":
        wanted, is_given = "measured alone, or nothing", given.keys() <= {"measured"}
    elif verdict == "order of magnitude":
        wanted, is_given = "a factor from 1 to 10, and stated not 0", is_given and 1 <= tolerance <= 10 and stated
        row |= {"tolerance": None, "factor": given.get("tolerance")}
    numbers = ", ".join(f"{name} {figure:.6g}" for name, figure in given.items()) or "no figures"
    if not is_given or not all(map(isfinite, given.values())):
        raise ValueError(f"claim {text!r}: {numbers}: give {wanted}, finite")
    if names is not None and names.source != "lecture":
        return row | {"verdict": "remark" if verdict == "remark" else "not judged"}, ""
    fault = f"{text} ({chapter}): {numbers}: this does not come out as {verdict!r}"
    return row, "" if _comes_out(verdict, measured, stated, tolerance) else fault


def _comes_out(verdict, measured, stated, tolerance):
    if verdict == "remark":
        return True
    if verdict == "order of magnitude":
        return 1 / tolerance <= measured / stated <= tolerance
    is_within = abs(measured - stated) <= tolerance
    return not is_within if verdict == "slip" else is_within


def _numbers(row):
    """Measured and stated as text, "" for none. Both are rounded to the digits that the tolerance makes meaningful."""
    measured, stated, tolerance = row["measured"], row["stated"], row["tolerance"]
    if tolerance is None:
        return tuple("" if x is None else f"{x:,.0f}" if x.is_integer() else f"{x:.3g}" for x in (measured, stated))
    digits = next(d for d in range(11) if 10.0**-d <= max(tolerance, 1e-10))  # 2 for a tolerance of 0.02
    if tolerance == 0 and measured.is_integer() and stated.is_integer():
        digits = 0
    rounded = f"{stated:,.{digits}f}"
    exact = f"{stated:,g}" if abs(stated) < 1e6 else rounded  # as the lecture says it, if that is no other number
    return f"{measured:,.{digits}f}", exact if float(exact.replace(",", "")) == stated else rounded


def _line(row):
    measured, stated = _numbers(row)
    figures = [f"{name} {x}" for name, x in (("stated", stated), ("measured", measured)) if x]
    return f"{row['chapter']}  {row['text']}: {', '.join(figures)}{' ' if figures else ''}-> {row['verdict']}"
