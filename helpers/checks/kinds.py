"""The kinds of checks that take a few lines: of a function, of a choice, of a thing to be mended."""

import contextlib
import copy
import inspect
import re
from collections.abc import Mapping

import torch

from helpers.checks.engine import Check, Look, is_given
from helpers.checks.readings import to_array
from helpers.checks.sandbox import require, was_given


def check(place, seconds, cases=((),), **options):
    """Make a Check of the right function that follows; cases: tuples of arguments; options: those of a Look."""

    def make(right):
        parameters = tuple(inspect.signature(right).parameters)
        usual = {"trial": lambda answer, *args: answer(*args), "parameters": parameters}
        look = Look(cases=cases, **usual | options)
        call = "{}(" + ", ".join(parameters) + ")"
        return Check(right.__doc__, right, [look], lecture_at(place, seconds), call=call)

    return make


def conditions(tried, place, seconds):
    """Make a Check of the generator that follows: it looks at an answer, and yields what must be so.

    It yields whether it is so, what is the matter where it is not, what helps; without help, where nothing is attempted
    yet. The first that is not so is told. tried: what the answer is, in words. An nn.Module is looked at as a copy.
    """

    def make(look_at):
        def trial(answer):
            if isinstance(answer, torch.nn.Module):
                with contextlib.suppress(RuntimeError):  # a tensor that it keeps may have a graph, and no copy
                    answer = copy.deepcopy(answer)
            for condition in look_at(answer):
                require(*condition)
            return 0.0

        looks, where = [Look(trial, call=tried, read=lambda value: {})], lecture_at(place, seconds)
        agreed = f"{tried}: all that is asked for is so"
        return Check(look_at.__doc__, None, looks, where, call=tried, agreed=agreed, refuse=is_given)

    return make


def choice(tried, place, seconds, right, wrong):
    """A Check of one question: right, the right option; wrong: a dict {option: why not}. Options: text or numbers."""
    result = choices(tried, place, seconds, {tried: (right, wrong)})
    result.right = right
    return result


def choices(tried, place, seconds, questions, *, noun="answer", otherwise="Work it out, or try it."):
    """A Check of a dict {question: option}, for questions {question: (right option, {wrong option: why not})}.

    One text in place of the dict: the wrong options are the other questions' right ones, and all are told it. One
    dict may serve several questions: what it says of the right option is not told. An only question needs no dict.
    No result shows a right option. otherwise: what helps where a number is not among the options.
    """
    right, keys = {key: pair[0] for key, pair in questions.items()}, ", ".join(map(repr, questions))
    tables = {key: wrong for key, (_, wrong) in questions.items()}
    tables |= {key: dict.fromkeys(right.values(), why) for key, why in tables.items() if isinstance(why, str)}

    @conditions(tried, place, seconds)
    def result(answer):
        answer = {tried: answer} if tried in questions and not isinstance(answer, Mapping) else answer
        yield isinstance(answer, Mapping), was_given(answer), f"Pass a dict of {len(questions)} entries: {keys}."
        faults = [f"{key!r} is not asked for" for key in answer if key not in questions]
        faults += [f"{key!r} is missing" for key in questions if key not in answer]
        yield not (answer and faults), ", ".join(faults), f"The keys are: {keys}."
        for key in questions:
            yield not (answer.get(key) is None or answer[key] is ...), f"{key!r} has no {noun} yet"
        for key, wrong in tables.items():
            (kind, value), (wanted, _) = option(answer[key]), option(right[key])
            shown = f"{value:g}" if kind == "number" else kind if value is None else repr(answer[key])
            shown = f"{'it' if key == tried else repr(key)} is {shown}"
            hint = "Give a number." if wanted == "number" else f"Choose one of {_in_order({right[key], *wrong})}."
            yield kind == wanted, shown, hint
            why = next((why for other, why in wrong.items() if alike(answer[key], other)), "")
            is_right = alike(answer[key], right[key])
            yield is_right or why or kind != "text", f"{shown}, which is not one of the options", hint
            yield is_right, f"{shown}, which is not right", why or otherwise

    result.right, result.__doc__ = right, f"{tried}, {place}: an answer for each of {keys}."
    for key, wrong in tables.items():
        for other, why in wrong.items():
            if other != right[key]:
                result.mistakes[why] = (*result.mistakes.get(why, ()), {**right, key: other})
    return result


def _in_order(options):
    return ", ".join(map(repr, sorted(options, key=str)))


def option(value):
    """An option as it is compared, (kind, value): a number, or text without case, article, quotes, spelling."""
    if isinstance(value, str):
        text = re.sub(r"[\s_]+|(?<=[^\W\d])-(?=\w)", " ", str(value).casefold().replace("\u2212", "-"))
        text = re.sub("is(?=e|a)", "iz", text.strip(" .,:;!*\"'`()[]"))  # initialisation, optimiser
        parts = re.sub(r"^(the|an?) (?=\w{3})", "", text).split(" and ")
        return "text", " and ".join(sorted(part.replace(" ", "") for part in parts))
    try:
        array = to_array(value)
    except Exception:  # noqa: BLE001 - whatever it may be
        return f"of type {type(value).__name__}", None
    if array.size != 1:
        return f"of shape {array.shape}", None
    return ("a truth value" if array.dtype == bool else "number"), array.item()


def alike(given, wanted):
    """Whether an option is the one wanted. One that is written with a point, 10.0, may be read off: 5 % are allowed."""
    a, b = option(given), option(wanted)
    if a[0] == b[0] == "number":
        return abs(a[1] - b[1]) <= 0.05 * (abs(wanted) if isinstance(wanted, float) else 1)
    return a == b and a[1] is not None


def lecture_at(hint, seconds):
    """Where to look: a place in the notebooks, and the second in the lecture."""
    minutes, time = seconds // 60, f"{seconds // 60 % 60}:{seconds % 60:02}"
    time = f"{minutes // 60}:{time:0>5}" if minutes >= 60 else time
    return f"{hint}; the lecture at {time}, https://youtu.be/P6sfmUTpUmc?t={seconds}"


GRID = torch.linspace(-8, 8, 401, dtype=torch.float64)
DENSITY = torch.softmax(-(GRID**2) / 2, 0)  # E[f(z)] over standard normal z is f(GRID) @ DENSITY


def seeded_randn(*shape, seed, dtype=torch.float32):
    """Normal numbers to try a function on: always the same, and short enough to be worked with by hand."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).round(decimals=2)
