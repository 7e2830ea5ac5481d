"""The warnings of a training: each kind once, from when to when."""

import re

NUMBER = re.compile(r"[-+]?\d(?:[\d.,]*\d)?(?:e[-+]?\d+)?%?")


def over_time(records):
    """The warnings of (step, warnings) by step, each kind once: from when to when, and what it was at first and last."""
    said = {}
    for step, warnings in records:
        for warning in warnings:
            said.setdefault(_kind(warning), []).append((step, warning))
    first, last = records[0][0], records[-1][0]
    # A network that has learned moves less: a rate is too low from the start, or not at all.
    said = [hits for hits in said.values() if "rate is probably too low" not in hits[0][1] or hits[0][0] == first]
    return [f"{_when([step for step, _ in hits], last)}: {_merged(hits[0][1], hits[-1][1])}" for hits in said]


def _kind(warning):
    """A warning without its numbers, but those of a layer's name, and without a second cause, which may come and go."""
    label, colon, rest = warning.partition(": ")
    if not re.fullmatch(r"\S+( \(.*\))?", label):
        label, rest = "", warning
    return label + colon + NUMBER.sub("", rest).partition(", or ")[0]


def _merged(first, last):
    """The first of two sentences of one kind, with those numbers of the last that are others."""
    numbers = iter(NUMBER.findall(last))
    return NUMBER.sub(lambda old: _changed(old[0], next(numbers, old[0])), first)


def _changed(old, new):
    return old if old == new else f"{old} → {new}"


def _when(steps, last):
    if len(steps) == 1:
        return f"step {steps[0]:,}"
    return f"from step {steps[0]:,} on" if steps[-1] == last else f"steps {steps[0]:,} to {steps[-1]:,}"
