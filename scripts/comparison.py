"""Compare a cell's outputs with the committed ones as text with numbers in it: conftest.py does so for every cell.

Another processor rounds otherwise, so the numbers in a text are held to what they claim:

- words are the same; a run of spaces counts as one, and spaces beside a number do not count;
- a count (an integer: 32,033) is the same, and so is what only looks like a number: W1, 12:59, 2.13.0, 0.weight;
- a decimal (0.25, -1.5, 3e-06) is within two units of its last printed digit, a whole percentage (12%) within one;
  -0.000 is 0.000; written with an exponent, a number keeps its sign, and 0e+00 is nothing but zero;
- of a picture it counts that it is there, and its alt text;
- a claim's JSON is the same, and its measured value within a tenth of the tolerance that the claim itself states.

Where rounding is amplified, a cell's metadata may allow more, and must say why:
    "tolerance": {"relative": 0.02, "reason": "trained for 1,000 steps"}
relative: a share of the committed number; absolute: in the unit that is printed (points, for percentages); factor: so
many times as much, or as little, for what is known by its order of magnitude; these three are for decimals and
percentages. counts: so many more or fewer, for integers. Of several the widest holds.
"""

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from html import unescape

UNITS = 2  # units of the last printed digit
OF_A_CLAIM = 0.1  # of a claim's own tolerance
OF_A_REMARK = 0.01  # of the measured number
USABLE = {  # what a tolerance may name: it lies between these, and is of this type
    "relative": (0, 1, (int, float)),  # beyond 1 a number could vanish unnoticed
    "absolute": (0, float("inf"), (int, float)),
    "factor": (1, float("inf"), (int, float)),
    "counts": (0, float("inf"), int),
}

NUMBERS_AND_NAMES = re.compile(
    r"""
    (?P<sign> (?<![\w)\].+-]) [+-] )?  # after a word, a digit or a bracket it is an operator or a dash
    (?: (?P<scientific> (?<![\w.]) (?:[0-9]+\.?[0-9]*|\.[0-9]+) [eE][+-]?[0-9]+ (?!\w) )
      | (?P<name> [^\W\d]\w* (?:\.\w+)*                    # W1, float32, linear6.weight
                | [0-9]+ (?:\.[0-9]+)* \. [^\W\d][\w.]*    # 0.weight
                | [0-9]+ (?:\.[0-9]+){2,}                  # 2.13.0
                | [0-9]+ (?::[0-9][0-9])+ (?![0-9.]) )     # 12:59
      | (?P<number> (?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+) (?:\.[0-9]+)? | (?<![\w.])\.[0-9]+ )
        (?P<percent> [ ]?%(?!\w) )?
    )""",
    re.VERBOSE,
)
SAME_CHARACTER = str.maketrans({"\N{MINUS SIGN}": "-"} | dict.fromkeys("\t\N{NO-BREAK SPACE}\u2009\u202f", " "))


@dataclass(frozen=True)
class Tolerance:
    """What one cell's metadata allow beyond the rule."""

    relative: Decimal = Decimal(0)
    absolute: Decimal = Decimal(0)
    factor: Decimal = Decimal(1)
    counts: int = 0
    reason: str = ""

    @classmethod
    def of(cls, metadata):
        """The tolerance in a cell's metadata; ValueError if something is wrong with it."""
        given = metadata.get("tolerance", {})
        given = given if isinstance(given, dict) else {str(given): None}
        margins = {key: value for key, value in given.items() if key != "reason"}
        if unknown := margins.keys() - USABLE.keys():
            raise ValueError(f"tolerance: unknown {', '.join(sorted(unknown))}; give one of {', '.join(USABLE)}")
        for key, value in margins.items():
            low, high, kinds = USABLE[key]
            if isinstance(value, bool) or not isinstance(value, kinds) or not low < value < high:
                whole = "a whole number" if kinds is int else "a number"
                raise ValueError(f"tolerance: {key} must be {whole} between {low} and {high}, not {value!r}")
        if "tolerance" in metadata and (not margins or not str(given.get("reason", "")).strip()):
            raise ValueError('tolerance: give a margin and its "reason"')
        exact = {key: value if key == "counts" else Decimal(str(value)) for key, value in margins.items()}
        return cls(**exact, reason=given.get("reason", ""))


def why_ignored(metadata):
    """Why a cell tagged nbval-ignore-output is not compared; ValueError if its metadata don't say."""
    reason = metadata.get("ignored_because", "")
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError('tagged nbval-ignore-output: its metadata must say why, "ignored_because": "…"')
    return reason


@dataclass(frozen=True)
class Number:
    text: str
    value: Decimal
    kind: str  # "count", "percentage" or "decimal"
    sign: str  # "+", "-" or "", as written
    scientific: bool
    start: int  # where it stands in its text

    @classmethod
    def of(cls, match):
        sign, digits = match["sign"] or "", match["scientific"] or match["number"].replace(",", "")
        kind = "percentage" if match["percent"] else "count" if digits.isdigit() else "decimal"
        return cls(match[0], Decimal(sign + digits), kind, sign, bool(match["scientific"]), match.start())

    @property
    def unit(self):
        """What a step of the last printed digit is worth."""
        return Decimal(1).scaleb(self.value.as_tuple().exponent)

    @property
    def direction(self):
        return (self.value > 0) - (self.value < 0)


def margin(committed, fresh, tolerance):
    """How far apart two numbers may be; None if they are not of a kind."""
    if committed.kind != fresh.kind or {committed.sign, fresh.sign} == {"+", ""}:
        return None
    if committed.kind == "count":
        return tolerance.counts
    if (committed.scientific or fresh.scientific) and committed.direction != fresh.direction:
        return tolerance.absolute
    units = 1 if committed.kind == "percentage" and committed.unit == fresh.unit == 1 else UNITS
    grown, same_sign = abs(fresh.value) > abs(committed.value), committed.direction == fresh.direction
    times = (tolerance.factor - 1 if grown else 1 - 1 / tolerance.factor) * same_sign
    share = max(tolerance.relative, times) * abs(committed.value)
    return max(units * min(committed.unit, fresh.unit), tolerance.absolute, share)


@dataclass(frozen=True)
class Text:
    """A text, its numbers, and the words before, between and after them: one string more than there are numbers."""

    text: str
    words: list[str]
    numbers: list[Number]

    @classmethod
    def of(cls, text):
        text = re.sub(r" *\n *", "\n", re.sub(" +", " ", text.translate(SAME_CHARACTER))).strip(" ")
        words, numbers, end = [""], [], 0
        for match in NUMBERS_AND_NAMES.finditer(text):
            words[-1] += text[end : match.start()]
            end = match.end()
            if match["name"]:
                words[-1] += match[0]
            else:
                numbers.append(Number.of(match))
                words.append("")
        words[-1] += text[end:]
        return cls(text, [word.strip(" ") for word in words], numbers)

    def near(self, position):
        """The line at a position, or as much of it as helps to find it."""
        line = self.text.rfind("\n", 0, position) + 1
        return self.text[max(line, position - 80) :].split("\n")[0][:160]

    def near_word(self, place, length):
        """The line where the word at this place has gone on for so many letters."""
        if place == 0:
            return self.near(length)
        number = self.numbers[place - 1]
        return self.near(number.start + len(number.text) + length)


def compare_texts(committed, fresh, tolerance):
    """What differs between two texts, one string per difference; nothing if they agree."""
    if committed == fresh:
        return []
    committed, fresh = Text.of(committed), Text.of(fresh)
    if committed.words != fresh.words:  # from here on the numbers have no partners
        pairs = list(zip(committed.words, fresh.words, strict=False))
        place = next((i for i, (old, new) in enumerate(pairs) if old != new), len(pairs) - 1)
        length = len(os.path.commonprefix(pairs[place]))
        return [f"    {committed.near_word(place, length)}\nis now\n    {fresh.near_word(place, length)}"]
    found = []
    for old, new in zip(committed.numbers, fresh.numbers, strict=True):
        allowed = margin(old, new, tolerance)
        if allowed is None or abs(old.value - new.value) > allowed:
            rule = "another kind of number" if allowed is None else f"{allowed} apart at most"
            found.append(f"{old.text} is now {new.text} ({rule}):\n    {committed.near(old.start)}")
    return found


def compare_rows(committed, fresh, tolerance):
    """What differs between two values of JSON: nothing may but what a claim measured, by a part of its tolerance."""
    if isinstance(committed, list) and isinstance(fresh, list) and len(committed) == len(fresh):
        return [found for pair in zip(committed, fresh, strict=True) for found in compare_rows(*pair, tolerance)]
    if not isinstance(committed, dict) or not isinstance(fresh, dict) or committed.keys() != fresh.keys():
        return [] if committed == fresh else [f"{committed!r} is now {fresh!r}"]
    found = []
    for key, old in committed.items():
        new = fresh[key]
        if key != "measured" or not all(isinstance(number, (int, float)) for number in (old, new)):
            found += [f"{key}: {difference}" for difference in compare_rows(old, new, tolerance)]
            continue
        # A remark and an order of magnitude have no tolerance: they are shown with three digits.
        stated = committed.get("tolerance")
        own = OF_A_CLAIM * stated if stated is not None else OF_A_REMARK * abs(old)
        cell = max(tolerance.absolute, tolerance.counts * (old % 1 == 0))
        allowed = max(own, float(cell), float(tolerance.relative) * abs(old))
        if not abs(old - new) <= allowed:  # NaN is near nothing
            found.append(f"measured: {old!r} is now {new!r} ({allowed:g} apart at most):\n    {committed}")
    return found


def by_kind(outputs):
    """{kind: [content, …]} of a cell's outputs: a stream's name or a MIME type, "error", "picture", "alt text"."""
    kinds = defaultdict(list)
    for output in outputs:
        if output["output_type"] == "stream":
            kinds[output["name"]] = ["".join(kinds[output["name"]]) + output["text"]]  # where it was cut is chance
        elif output["output_type"] == "error":
            kinds["error"].append(f"{output['ename']}: {output['evalue']}")
        else:
            for mime, content in output["data"].items():
                if mime.startswith("image/"):
                    kinds["picture"].append(mime)
                    kinds["alt text"].append(output.get("metadata", {}).get(mime, {}).get("alt", ""))
                elif mime == "text/html":
                    kinds[mime].append(" ".join(unescape(content).split()))
                else:
                    kinds[mime].append(content)
    return dict(kinds)


def compare_outputs(committed, fresh, tolerance):
    """What differs between a cell's committed and fresh outputs, one string per difference; nothing if they agree."""
    committed, fresh = by_kind(committed), by_kind(fresh)
    found = []
    for kind in sorted(committed.keys() | fresh.keys()):
        old, new = committed.get(kind, []), fresh.get(kind, [])
        if len(old) != len(new):
            found.append(f"{kind}: committed {len(old)}, now {len(new)}")
            continue
        for pair in zip(old, new, strict=True):
            compare = compare_texts if all(isinstance(content, str) for content in pair) else compare_rows
            found += [f"{kind}: {difference}" for difference in compare(*pair, tolerance)]
    return found
