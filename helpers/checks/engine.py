"""How every check judges: run the answer, read what it gives, compare, name the mistake.

A check is data, all of it in the file of its chapter. To add one, with kinds.py:

- A number or a function: `@check("chapter 04, …", 1673, [(30, 1.5), (64, 0.5)])`, the place in the course, the second
  in the lecture and the inputs, above the right function `check_it`. Below it, sentences with a wrong answer each, or
  with a tuple of them: `check_it.mistakes = {"…": lambda fan_in, gain: …}`.
- A choice: `check_it = choice("the layer at fault", "chapter 03, …", 779, "layer 2", {"layer 1": "why not", …})`;
  several at once: `choices(…, 779, {"question": (right, {wrong: "why not"})})`.
- A network or a loop to mend: a generator under `@conditions("the network", "chapter 07, …", 4715)` looks at the answer
  and yields (whether it is so, what is the matter if not, what helps). Its answers are rows of tests/later_answers.py.
- A class: a `Check` with several `Look`s, each a function of the class and its inputs: see chapter_07.py.

Its import in `__init__.py` makes it public, and the tests try all that stands there. An answer is compared part by
part. Where its first wrong part is like that of a known mistake on all inputs, its sentence is told; else what can be
observed (mistakes.py); else to work out by hand the smallest input that differs. No learner's mistake ends in a
traceback of ours.
"""

import dis
import html
import inspect
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch

from helpers.checks import mistakes as usual
from helpers.checks.readings import as_array, difference_in_words, first_difference, input_in_words, same, size
from helpers.checks.sandbox import Verdict, attempt, require, was_given

BY_HAND = "None of the usual mistakes: work this input out by hand, step by step, beside your code."
SHAPE = "Print what your code returns for this input, and its shape: it is not the one that is asked for."


@dataclass(frozen=True, repr=False)
class CheckResult:
    """The verdict on an answer: truthy when right, and its own display in Jupyter or a terminal.

    status is "right", "wrong" or "not attempted"; the other fields are text, empty where nothing is to be said.
    """

    status: str
    tried: str
    difference: str = ""
    misconception: str = ""
    look: str = ""
    note: str = ""

    def __bool__(self):
        return self.status == "right"

    def _rows(self):
        rows = [(self.status.capitalize(), self.tried), ("Difference", self.difference)]
        rows += [("Likely", self.misconception), ("Look at", self.look), ("Note", self.note)]
        return [(label, text) for label, text in rows if text]

    def __repr__(self):
        return "\n  ".join(f"{label}: {text}" for label, text in self._rows())

    def _repr_html_(self):
        def marked(text):
            text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
            return re.sub(r"https://[\w./?=-]+\w", r'<a href="\g<0>">\g<0></a>', text)

        # Safe for colour-blind eyes.
        colour = {"right": "#0072b2", "wrong": "#d55e00"}.get(self.status, "#888888")
        rows = "<br>".join(f"<b>{html.escape(label)}:</b> {marked(text)}" for label, text in self._rows())
        return f'<div style="border-left: 4px solid {colour}; padding-left: 0.8em">{rows}</div>'


def is_empty(function):
    """Whether a function's body does nothing but pass, or return None or `...`."""
    code = getattr(function, "__code__", None)
    steps = list(dis.get_instructions(code)) if code else []
    idle = {"RESUME", "NOP", "COPY_FREE_VARS", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}
    returned = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    does_nothing = {step.opname for step in steps} <= idle and all(c is None or c is ... for c in returned)
    return bool(steps) and does_nothing


def is_a_function(answer):
    """A Verdict for what cannot be called, or does nothing yet."""
    is_given(answer)
    require(callable(answer), was_given(answer), "Pass its name alone, without calling it.")


def is_given(answer):
    """A Verdict for what is still to be filled in."""
    if answer is None or answer is ... or is_empty(answer):
        raise Verdict("it is still empty" if is_empty(answer) else "there is no answer yet")


@dataclass(frozen=True, eq=False)
class Look:
    """One experiment on an answer: `trial(answer, *args)` for each of the cases, tuples of args.

    call: how it is displayed, {} for the answer's name; without it, as a call of the answer. read: see readings.py.
    tolerance: relative, with a tenth of it absolute; or a pair (relative, absolute). parameters: the names of args.
    hint: what helps where an answer differs here, in place of what looks likely.
    """

    trial: Callable
    cases: Sequence[tuple] = ((),)
    call: str = ""
    read: Callable = as_array
    tolerance: float | tuple[float, float] = 1e-5
    parameters: Sequence[str] = ()
    hint: str = ""

    @property
    def names(self):
        return self.parameters or tuple(inspect.signature(self.trial).parameters)[1:]


class Check:
    """An exercise's check: call it with an answer, it gives a CheckResult.

    doc: what is asked; right: a right answer; looks: the experiments, in the order of a lesson; where: the place to
    look at, from lecture_at; agreed: what a right answer is told; refuse(answer): raises a Verdict on a stub.
    """

    def __init__(self, doc, right, looks, where, *, call, agreed="", refuse=is_a_function, mistakes=None):
        self.__doc__, self.right, self.looks, self.where = doc, right, looks, where
        self.call, self.agreed, self.refuse, self.mistakes = call, agreed, refuse, mistakes or {}

    def __call__(self, *answer):
        answer = answer[0] if len(answer) == 1 else answer  # the parts of an answer, given one by one
        result = self._judged(answer, torch.float32)
        if result.status == "wrong" and torch.get_default_dtype() != torch.float32:  # the notebook's may be another
            return self._judged(answer, torch.get_default_dtype()) or result
        return result

    def _judged(self, answer, dtype):
        printed = io.StringIO()
        run = partial(attempt, answer, printed=printed, dtype=dtype)
        name = run(Look(lambda a: str(getattr(a, "__name__", "f")).replace("<lambda>", "f"), read=str))
        name = name if isinstance(name, str) else "f"
        call = self.call.format(name)
        refused = run(Look(lambda a: self.refuse(a) or 0.0), signature=call)
        trials = [] if isinstance(refused, Verdict) else self._trials
        found = [run(look, args, signature=call) for look, args in trials] or [refused]
        for (look, _), want, have in zip(self._trials, self._wanted, found, strict=False):
            if isinstance(have, Verdict) and have.status == "not attempted":
                text = f"`{call}`: {have.difference}. Fill it in, run its cell, then run this one again."
                return CheckResult("not attempted", text)
            if have is refused:
                return CheckResult("wrong", call, have.difference, have.misconception, self.where)
            if isinstance(have, Verdict) or not same(want, have, look.tolerance):
                result = self._wrong(look, found, name, run)
                break
        else:
            result = CheckResult("right", self.agreed or f"{call} gives what it should on every input tried")
        said = " / ".join(printed.getvalue().split("\n")).strip(" /")[:200]
        return replace(result, note=f"your code printed {said}") if said else result

    def _wrong(self, look, given, name, run):
        """The CheckResult for an answer that differs in this look: its smallest input, and the likely cause."""
        rows = [row for row in zip(self._trials, self._wanted, given, strict=True) if row[0][0] is look]
        off = [row for row in rows if isinstance(row[2], Verdict) or not same(row[1], row[2], look.tolerance)]
        (_, args), want, have = min(off, key=lambda row: (isinstance(row[2], Verdict), size(row[0][1])))
        tried = input_in_words(name, look.names, args, call=look.call.format(name))
        if isinstance(have, Verdict):
            return CheckResult("wrong", tried, have.difference, have.misconception, self.where)
        label, index = first_difference(want, have, look.tolerance)
        hint = self._known(given) or look.hint or self._known(given, look, label)
        if not hint and not any(isinstance(outcome, Verdict) for _, _, outcome in rows):
            ask = partial(attempt, self.right, look, printed=io.StringIO())
            rows = [(args, w[label], h[label]) for (_, args), w, h in rows]
            hint = usual.observed(look, label, rows, partial(run, look), ask)
        hint = hint or usual.not_a_number(have[label] if index is None else have[label][index])
        hint = hint or (SHAPE if index is None else BY_HAND)
        return CheckResult("wrong", tried, difference_in_words(want, have, label, index), hint, self.where)

    def _known(self, given, only=None, label=None):
        """The sentence of the known mistake that is like the answer in all, or in one part of one look; else ""."""
        fits = set()
        for sentence, trace in self._traces:
            # Where the answer raised there is nothing to compare; what is left must show the mistake.
            rows = zip(self._trials, trace, self._wanted, given, strict=True)
            rows = [(k, m, w, h) for (k, _), m, w, h in rows if k is (only or k) and not isinstance(h, Verdict)]
            like_it = all(same(m, h, look.tolerance, label) for look, m, _, h in rows)
            if like_it and not all(same(w, h, look.tolerance, label) for look, _, w, h in rows):
                fits.add(sentence)
        return fits.pop() if len(fits) == 1 else ""

    def wrong_answers(self):
        """Every known mistake as a pair (sentence, wrong answer)."""
        for sentence, answers in self.mistakes.items():
            for answer in answers if isinstance(answers, tuple) else (answers,):
                yield sentence, answer

    def _trace(self, answer):
        return [attempt(answer, look, args, printed=io.StringIO()) for look, args in self._trials]

    @cached_property
    def _trials(self):
        return [(look, args) for look in self.looks for args in look.cases]

    @cached_property
    def _wanted(self):
        return self._trace(self.right) if self.right is not None else [{} for _ in self._trials]

    @cached_property
    def _traces(self):
        return [(sentence, self._trace(wrong)) for sentence, wrong in self.wrong_answers()]
