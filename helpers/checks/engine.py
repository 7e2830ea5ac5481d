"""How every check judges: run the answer, read what it gives, compare, name the mistake.

A check is data, in the file of its chapter, and one import in `helpers/checks/__init__.py`. Its `right` is an answer,
its `mistakes` are wrong answers, a dict {sentence: answer or tuple of answers}: they give the hint, the audit of the
inputs, and the tests. To add one:

- A number or a function: write the right answer under `@check("chapter 04, …", 1673, [(30, 1.5), (64, 0.5)])`, the
  place in the course, the second in the lecture, and the inputs; then `check_it.mistakes = {"…": lambda fan_in, gain: …}`.
- A choice: `check_it = choice("what it is about", right="layer 2", wrong={"layer 1": "why not", …}, …)`; several at
  once: `choices(…, {"question": (right, {wrong: "why not"})})`. A wrong answer is never shown the right one.
- A network or a loop to mend: a generator under `@conditions(…)` that looks at the answer and yields triples
  (whether it is so, what is the matter if not, what helps); then `check_it.right` and `check_it.mistakes`.
- A class: a `Check` with several `Look`s, each a function of the class and its inputs: see chapter_05.py.

An answer that is like a known mistake on all inputs is told its sentence; else what can be observed (mistakes.py); else
to work out by hand the smallest input that differs. No learner's mistake ends in a traceback of ours.
"""

import dis
import html
import inspect
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from helpers.checks import mistakes as usual
from helpers.checks.readings import as_number, difference_in_words, first_difference, input_in_words, same, size
from helpers.checks.sandbox import Verdict, attempt

BY_HAND = "None of the usual mistakes: work this input out by hand, step by step, beside your code."


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
        rows = "<br>".join(f"<b>{label}:</b> {marked(text)}" for label, text in self._rows())
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
    if answer is None or answer is ... or is_empty(answer):
        raise Verdict("it is still empty", status="not attempted")
    if not callable(answer):
        given = f"the check was given an object of type {type(answer).__name__}"
        raise Verdict(given, "Pass its name alone, without calling it.")


def is_given(answer):
    """A Verdict for what is still to be filled in."""
    if answer is None or answer is ... or is_empty(answer):
        raise Verdict("there is no answer yet", status="not attempted")


@dataclass(frozen=True)
class Look:
    """One experiment on an answer: `trial(answer, *args)` for each of the cases, tuples of args.

    call: how it is displayed, {} for the answer's name; without it, as a call of the answer. read: a reader
    (readings.py). tolerance: relative, with a tenth of it absolute; or a pair (relative, absolute). hint: what helps
    where an answer differs here, in place of what looks likely.
    """

    trial: Callable
    cases: Sequence[tuple] = ((),)
    call: str = ""
    read: Callable = as_number
    tolerance: float | tuple[float, float] = 1e-5
    parameters: tuple[str, ...] | None = None
    hint: str = ""

    def __post_init__(self):
        if self.parameters is None:
            object.__setattr__(self, "parameters", tuple(inspect.signature(self.trial).parameters)[1:])


class Check:
    """An exercise's check: call it with an answer, it gives a CheckResult.

    doc: what is asked; right: a right answer; looks: the experiments, in the order of a lesson; where: the place to
    look at, from lecture_at; agreed: what a right answer is told; refuse(answer): raises a Verdict on a stub;
    note(answer): what a right answer is told besides, or "".
    """

    def __init__(
        self, doc, right, looks, where, *, call="{}", agreed="", refuse=is_a_function, note=None, mistakes=None
    ):
        self.__doc__, self.right, self.looks, self.where = doc, right, looks, where
        self.call, self.agreed, self.refuse, self.note = call, agreed, refuse, note
        self.mistakes = mistakes or {}

    def __call__(self, answer):
        result = self._judged(answer, torch.float32)
        if result.status == "wrong" and torch.get_default_dtype() != torch.float32:  # the notebook's may be another
            return self._judged(answer, torch.get_default_dtype()) or result
        return result

    def _judged(self, answer, dtype):
        printed = io.StringIO()
        run = partial(self._run, answer, printed=printed, dtype=dtype)
        name = str(run(Look(_name, read=lambda text: text), (), "f"))
        call = self.call.format(name)
        refused = run(Look(lambda a: self.refuse(a) or 0.0), (), call)
        if isinstance(refused, Verdict):
            return self._verdict(refused, call)
        outcomes = [[run(look, args, call) for args in look.cases] for look in self.looks]
        result = CheckResult("right", self.agreed or f"{call} gives what it should on every input tried")
        for k, (look, given, wanted) in enumerate(zip(self.looks, outcomes, self._wanted, strict=True)):
            stubs = [o for o in given if isinstance(o, Verdict) and o.status == "not attempted"]
            if stubs:
                return self._verdict(stubs[0], call)
            off = [
                i
                for i, (a, b) in enumerate(zip(wanted, given, strict=True))
                if isinstance(b, Verdict) or not same(a, b, look.tolerance)
            ]
            if off:
                result = self._wrong(answer, k, min(off, key=lambda i: size(look.cases[i])), outcomes, name, run)
                break
        if result and self.note:
            extra = run(Look(self.note, read=str), (), call)
            return replace(result, note=extra if isinstance(extra, str) else "")
        note = " / ".join(printed.getvalue().split("\n")).strip(" /")[:200]
        return replace(result, note=f"your code printed {note}" if note else "")

    def _run(self, answer, look, args, signature="", **options):
        return attempt(look.trial, answer, args, look.read, signature=signature, **options)

    def _verdict(self, verdict, call):
        if verdict.status == "not attempted":
            return CheckResult(verdict.status, _to_be_filled_in(call, verdict.difference))
        return CheckResult("wrong", call, verdict.difference, verdict.misconception, self.where)

    def _wrong(self, answer, k, i, outcomes, name, run):
        """The CheckResult for an answer that differs on the i-th case of the k-th look."""
        look, want, have = self.looks[k], self._wanted[k][i], outcomes[k][i]
        words = partial(input_in_words, name, look.parameters, look.cases[i], call=look.call.format(name))
        if isinstance(have, Verdict):
            tried, text = words(), have.difference
            if have.kind == have.difference:
                return CheckResult("wrong", tried, text, have.misconception, self.where)
            hint = self._known(outcomes, look.tolerance, [k]) or have.misconception
            return CheckResult("wrong", tried, text, hint, self.where)
        label, index = first_difference(want, have, look.tolerance)
        column = (index[-1], want[label].shape[-1]) if index else None
        tried = words(column)
        hint = self._known(outcomes, look.tolerance, range(len(self.looks))) or self._known(
            outcomes, look.tolerance, [k]
        )
        hint = look.hint or hint or self._observed(answer, look, self._wanted[k], outcomes[k], have[label], run)
        return CheckResult("wrong", tried, difference_in_words(want, have, label, index), hint or BY_HAND, self.where)

    def _known(self, outcomes, tolerance, looks):
        """The sentence of the known mistake that is like the answer in these looks; "" for none, or for several."""
        fits = set()
        for sentence, trace in self._traces:
            # Where the answer raised there is nothing to compare; what is left must show the mistake.
            pairs = [(t, o, w) for j in looks for t, o, w in zip(trace[j], outcomes[j], self._wanted[j], strict=True)]
            left = [(t, o, w) for t, o, w in pairs if not isinstance(o, Verdict)]
            alike = all(same(t, o, tolerance) for t, o, _ in left)
            if alike and any(not same(t, w, tolerance) for t, _, w in left):
                fits.add(sentence)
        return fits.pop() if len(fits) == 1 else ""

    def _observed(self, answer, look, wanted, given, numbers, run):
        """What can be said of any answer by comparing it with the right one; numbers: what it gave in this place."""
        readings = [reading for reading in given if not isinstance(reading, Verdict)]
        if not look.call:
            ask = partial(self._run, self.right, look, printed=io.StringIO())
            idle = usual.never_used(look.parameters, look.cases, partial(run, look), ask, look.tolerance)
            found = idle or usual.exchanged(look.parameters, look.cases, given, ask, look.tolerance)
            if not found and len(readings) == len(given):
                found = usual.relation(wanted, given, look.tolerance)
            if found:
                return found
        numbers = numbers if numbers.dtype.kind == "f" else np.zeros(1)
        if np.isnan(numbers).any():
            return (
                "A NaN comes from 0/0, inf - inf, or the log or root of a negative number: print each step to find it."
            )
        if np.isinf(numbers).any():
            return "An infinity comes from a division by zero, log(0) or an overflow: print each step to find it."
        return ""

    def _trace(self, answer):
        return [[self._run(answer, look, args, printed=io.StringIO()) for args in look.cases] for look in self.looks]

    @cached_property
    def _wanted(self):
        return [[{}] * len(look.cases) for look in self.looks] if self.right is None else self._trace(self.right)

    @cached_property
    def _traces(self):
        return [(sentence, self._trace(wrong)) for sentence, wrong in self.wrong_answers()]

    def wrong_answers(self):
        """Every known mistake as a pair (sentence, wrong answer)."""
        for sentence, answers in self.mistakes.items():
            for answer in answers if isinstance(answers, tuple) else (answers,):
                yield sentence, answer

    def audit(self):
        """Complaints about the inputs: known mistakes that pass on all of them, or that two sentences fit."""
        names, complaints = [sentence for sentence, _ in self._traces], []
        traces = [("the right answer", self._wanted), *self._traces]
        for i, (sentence, trace) in enumerate(traces):
            for other, earlier in traces[:i]:
                looks = zip(self.looks, trace, earlier, strict=True)
                if other != sentence and all(
                    same(a, b, k.tolerance) for k, x, y in looks for a, b in zip(x, y, strict=True)
                ):
                    complaints.append(f"{sentence!r} and {other!r} look the same")
        return complaints if names else ["no known mistakes"]


def _name(answer):
    return str(getattr(answer, "__name__", "f")).replace("<lambda>", "f")


def _to_be_filled_in(call, reason):
    return f"`{call}`: {reason}. Fill it in, run its cell, then run this one again."
