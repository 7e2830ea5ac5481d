"""The warnings of a training: each kind once, from when to when."""

import re
from itertools import pairwise, takewhile

from .judgements import READINGS

# From the start on, or not at all; and up to the end, or not at all.
EARLY = re.compile("activations grow|gradients explode on|the loss pulls|weight decay pulls|rate is probably too low")
ALWAYS = re.compile("the loss pulls|rate is probably too low|the learning rate is 0, or")
NUMBER = re.compile(r"[-+]?\d(?:[\d.,]*\d)?(?:e[-+]?\d+)?%?")


def judged(records, were_far):
    """(step, warnings) of the (step, Diagnosis) given, each judged by what the others tell."""
    learn, values = set(), {}
    for row in (row for _, diagnosis in records for row in diagnosis.parameters):
        is_new = values.setdefault(row.name, (row.mean, row.std)) != (row.mean, row.std)  # it moved between records
        learn |= {row.name} if is_new or row.grad_std or row.grad_mean or row.grad_nonfinite else set()
    (step, first), *others = records
    first = first.look(learn=learn)
    known = dict(learn=learn, first=first, were_far=were_far)
    looks = [(step, first), *((later, diagnosis.look(**known)) for later, diagnosis in others)]
    return [(step, [*look.findings, *look.judge(READINGS)]) for step, look in looks]


def over_time(records):
    """The warnings of (step, warnings) by step, each kind once: from when to when, and what it was at first and last."""
    said = {}
    for step, warnings in records:
        for warning in warnings:
            said.setdefault(_kind(warning), []).append((step, warning))
    first, last = records[0][0], records[-1][0]
    whole = [step for step, warnings in records if not any("NaN" in text for text in warnings)]
    after = {later for (step, _), (later, _) in pairwise(records) if step not in whole}  # right after one with NaN
    # What has learned has small gradients and large logits; a rate that is warmed up is low, or 0, at first.
    said = [hits for hits in said.values() if hits[0][0] == first or not EARLY.search(hits[0][1])]
    said = [hits for hits in said if hits[0][0] not in after or "NaN or infinite" not in hits[0][1]]
    said = [hits for hits in said if hits[-1][0] in (last, *whole[-1:]) or not ALWAYS.search(hits[0][1])]
    # One record just above the limit is no fault.
    said = [hits for hits in said if len(hits) > 1 or "saturated;" not in hits[0][1] or hits[0][0] in (first, last)]
    steps = [step for step, _ in records]
    is_known = any("rate is probably too high" in hits[0][1] for hits in said)
    merged = [_merged(hits[0][1], hits[-1][1]) + ("" if is_known else _unseen(hits[0], steps)) for hits in said]
    return [f"{_when(_lasting(hits, steps, whole), last)}: {text}" for hits, text in zip(said, merged, strict=True)]


def _unseen(hit, steps):
    """What else may have made weights NaN, in steps that were not recorded."""
    step, text = hit
    before = max((s for s in steps if s < step), default=step)
    is_told = "a step was too large" not in text or step <= before + 1
    return "" if is_told else f"; or the data or the loss was NaN after step {before:,}: every=1 shows which"


def _lasting(hits, steps, whole):
    """The steps of a warning; of NaN up to the last step that has any, though there it is told of other layers."""
    found = [step for step, _ in hits]
    later = steps[steps.index(found[-1]) + 1 :] if "NaN or infinite" in hits[0][1] else []
    return found + list(takewhile(lambda step: step not in whole, later))


def _kind(warning):
    """A warning without its numbers, but those of a layer's name, and without a second cause, which may come and go."""
    label, colon, rest = warning.partition(": ")
    if not re.fullmatch(r"\S+( \(.*\))?", label):
        label, rest = "", warning
    return label + colon + NUMBER.sub("", rest).partition(", or ")[0]


def _merged(first, last):
    """The first of two sentences of one kind, with those numbers of the last that are others."""
    numbers = iter(NUMBER.findall(last))
    return NUMBER.sub(lambda old: old[0] if (new := next(numbers, old[0])) == old[0] else f"{old[0]} → {new}", first)


def _when(steps, last):
    if len(steps) == 1:
        return f"step {steps[0]:,}"
    return f"from step {steps[0]:,} on" if steps[-1] == last else f"steps {steps[0]:,} to {steps[-1]:,}"
