"""Finds what tells a result before a learner runs it: its numbers and its verdicts, standing open above or below it.

A result is a folded output: what it prints, its alt texts, and the titles in its folded source. Its numbers and
verdicts may not stand in the open text above it in its step, nor in the open text that follows it; its numbers in no
heading. Not counted are numbers that a learner has met before the step, that the step's code works with or that its
question names, and verdicts about which the question asks.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache

from notebook_parts import (
    DETAILS,
    Lesson,
    Problem,
    Section,
    first_line,
    given_to,
    headings,
    is_hidden,
    is_visible_code,
    open_prose,
    paragraphs,
    plain,
    printed,
    sentences,
    told_by,
)

# A verdict and the forms in which it may be said. Not here: words of every question ("large", "first", "right").
VERDICTS = {
    name: re.compile(rf"(?<![\w-])(?:{forms})(?![\w-])", re.IGNORECASE)
    for name, forms in {
        "none": r"none|not one|not a single|nobody|nowhere",
        "little": r"hardly any|next to nothing",
        "never": r"never",
        "always": r"always|without exception|every one of|all or nothing",
        "dead": r"dead|dies?|died|dying",
        "vanish": r"vanish\w*",
        "explode": r"explod\w*|blows? up|runs? away",
        "nan": r"nan|no number any more",
        "grow": r"grows?|grew|growing|piles? up|climbs?|rises?|rose|increases?",
        "shrink": r"shrinks?|shrank|fades?|falls?|fell|drops?|decreases?|decays?|halves",
        "stay": r"stays?|stayed|stands? still|unchanged|steady",
        "recover": r"recovers?|comes? back to",
        "widen": r"widens?|wider|drifts? apart",
        "narrow": r"narrower|narrows?|levels? off",
        "twice": r"twice|doubles?|doubled|twofold",
        "half": r"half|halved",
        "equal": r"equal|identical|bit for bit|to the last bit|indistinguishable|on top of each other",
        "noise": r"within noise|is noise|pure chance|nothing but luck",
        "shape": r"straight lines?|parabola|plateau|bell|spikes?|humps?|cliff",
        "cancel": r"cancels?",
        "win": r"wins?|beats?|ahead|best|behind|loses? to",
        "harm": r"harmless|harms?|hurts?|helps?|useless|costs? nothing|gains? nothing|does nothing",
        "fail": r"fails?|failed|breaks?|wrecks?",
    }.items()
}
NUMBER = re.compile(
    r"(?<![\w.,:/])[±+−-]?(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?P<power>e[+−-]?\d+)?"
    r"(?P<percent> ?(?:%|per ?cent))?(?![\w:/]|[.,]\d)",
    re.IGNORECASE,
)
SPOKEN = re.compile(r"\b(one|two|three|four|five|six|seven|eight|nine) in ten\b", re.IGNORECASE)
TENTHS = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
RANGE = re.compile(
    r"\bbetween\b|\bfrom\b.*\bto\b|\bone of\b|\bchoose\b|\bpick\b|\bor\b|\blist\b|\border\b", re.IGNORECASE
)
PRESUPPOSES = re.compile(r"\W*(why|how come|what makes|since when)\b", re.IGNORECASE)  # such a question tells


def numbers(text: str) -> dict[Decimal, str]:
    """Numbers that can be results: their value, with its last digit, and how they stand in the text.

    Decimals, percentages, powers of ten, "six in ten", and counts such as 11,897. Round counts (200 units) and small
    ones (32 examples) belong to set-ups.
    """
    found = {}
    for match in NUMBER.finditer(text):
        power, percent = match["power"] or "", match["percent"]
        count = match["number"].replace(",", "")
        if percent or power or "." in count or len(count.strip("0")) >= 3:
            value = Decimal(count + power.replace("−", "-"))
            found[value.scaleb(-2 if percent else 0)] = match[0].strip()
    for match in SPOKEN.finditer(text):
        found[Decimal(TENTHS.index(match[1].lower())).scaleb(-1)] = match[0]
    return found


def agree(one: Decimal, other: Decimal, spoken: bool = False) -> bool:
    """Whether two numbers are one, rounded to different digits; a single digit agrees with itself alone."""
    coarse, fine = sorted((one, other), key=lambda number: -number.as_tuple().exponent)
    if one == other:
        return True
    if len(str(abs(int(coarse.scaleb(-coarse.as_tuple().exponent))))) < (1 if spoken else 2):
        return False
    return abs(coarse - fine) <= Decimal(5).scaleb(coarse.as_tuple().exponent - 1)


def verdicts(text: str) -> dict[str, str]:
    return {name: found[0] for name, forms in VERDICTS.items() if (found := forms.search(text))}


def is_question(sentence: str) -> bool:
    return sentence.rstrip("*_ )").endswith("?") and not PRESUPPOSES.match(sentence)


@cache
def split(source: str) -> tuple[str, str]:
    """Markdown's open text: (what it states, what it asks or offers as an answer)."""
    stated, asked = [], []
    for paragraph in paragraphs(open_prose(source)):
        said = sentences(paragraph)
        offers = any(map(is_question, said))  # such a paragraph says what may be answered, too
        for sentence in said:
            (asked if is_question(sentence) or (offers and RANGE.search(sentence)) else stated).append(sentence)
    return "\n".join(stated), "\n".join(asked)


def result(cell) -> str:
    """What a folded cell tells when it is run: outputs, alt texts, titles."""
    titles = "\n".join(told_by(cell.source).splitlines()[1:]) if is_hidden(cell, "source") else ""
    return f"{printed(cell)}\n{titles}"


def is_result(cell) -> bool:
    return cell.cell_type == "code" and is_hidden(cell, "outputs") and bool(cell.outputs)


def known_before(lesson: Lesson, step: Section) -> set[Decimal]:
    """Numbers that a learner has met before a step."""
    text = []
    for cell in lesson.cells[: step.start]:
        text.append(given_to(cell.source) if cell.cell_type == "code" else plain(cell.source))
        text.append(printed(cell))
    return set(numbers("\n".join(text)))


def asked_until(lesson: Lesson, step: Section) -> str:
    """All questions up to a step's end: verdicts about which they ask are the lesson's words from there on."""
    return "\n".join(split(c.source)[1] for c in lesson.cells[: step.stop] if c.cell_type == "markdown")


def told_early(lesson: Lesson) -> Iterator[Problem]:
    """The rule: nothing that stands open before a result tells it."""
    for step in lesson.all_steps:
        known = known_before(lesson, step)
        cells = list(lesson.within(step))
        asked = asked_until(lesson, step)
        known |= set(numbers(asked))
        known |= set(numbers("\n".join(given_to(cell.source) for _, cell in cells if cell.cell_type == "code")))
        for index, cell in cells:
            if not is_result(cell):
                continue
            told = {number: text for number, text in numbers(result(cell)).items() if not meets(number, known)}
            judged = set(verdicts(result(cell))) - set(verdicts(asked))
            for where, text, both in open_around(lesson, step, index):
                early = [text for number, text in numbers(text).items() if meets(number, told, text)]
                early += [text for name, text in verdicts(text).items() if both and name in judged]
                if early:
                    listed = ", ".join(map(repr, early))
                    remedy = "move it into that step's <details> or into folded source, or ask instead"
                    yield where, f"{listed} tells the result of cell {index} before it is run: {remedy}"


def meets(number: Decimal, others, written: str = "") -> bool:
    return any(agree(number, other, spoken=bool(SPOKEN.search(written))) for other in others)


def open_around(lesson: Lesson, step: Section, index: int) -> Iterator[tuple[int, str, bool]]:
    """Open text that a learner sees before running a result: (its cell, the text, whether verdicts count, too)."""
    earlier = max((k for k in range(step.start, index) if is_result(lesson.cells[k])), default=step.start)
    for above in range(step.start, index + 1):
        cell, close = lesson.cells[above], above == step.start or above > earlier
        if cell.cell_type == "markdown":
            yield above, split(cell.source)[0], close
        else:
            shown = told_by(cell.source) if is_visible_code(cell) else cell.source.split("\n")[0]
            output = first_line(cell) if is_hidden(cell, "outputs") else printed(cell)
            yield above, f"{shown}\n{output}", close
    seen = set(range(step.start, index + 1))
    for below in range(index + 1, len(lesson.cells)):  # up to the first prose that is not folded as a whole
        cell = lesson.cells[below]
        if cell.cell_type == "markdown":
            seen.add(below)
            yield below, split(cell.source)[0], below in step
            if DETAILS.sub("", cell.source).strip():
                break
    for section in (lesson.intro, *lesson.steps):  # the table of contents
        for other, cell in lesson.within(section):
            if cell.cell_type == "markdown" and other not in seen:
                titles = [text for _, text in headings(open_prose(cell.source))]
                yield other, "\n".join(plain(title) for title in titles if not is_question(title)), False
