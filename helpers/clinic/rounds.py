"""A round through the clinic: sixteen patients in an order that the seed draws, hints, treatments, points."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from helpers.clinic.patients import CHOICES, FAULTS, HEALTHY, make_patient, recipe_of, treated
from helpers.data import load_splits
from helpers.diagnostics import diagnose
from helpers.models import seeded
from helpers.train import evaluate

__all__ = ["Clinic", "Treatment", "diagnose_alone", "in_letters", "open_clinic", "step_length"]
__all__ += ["validation_loss"]

PATIENTS, WELL = 16, 4
POINTS, WRONG, HINT = 5, 2, 1  # for a right answer; what a wrong one and a hint cost
STEPS = 400  # of a treatment
_clinics = {}  # by their seed: a cell that is run again finds its round as it was


def open_clinic(seed=1, splits=None):
    """The round of this seed: a new one, or the one that this kernel has begun, with its points."""
    if seed not in _clinics:
        _clinics[seed] = Clinic(seed, splits)
    return _clinics[seed]


def validation_loss(patient, splits, examples=4_000):
    """The loss on names that it never saw, each window with the letter that really comes next."""
    X, Y = splits.val
    ix = torch.randperm(len(X), generator=seeded(0))[:examples]
    return evaluate(patient.model, X[ix], Y[ix])


def step_length(patient):
    """Take a step: how long it is in the embedding, over lr times the gradient of its own batch; 1 if all is well."""
    table, twin = patient.model.path[0].weight, copy.deepcopy(patient.model)
    before = table.detach().clone()
    patient.step()
    x, y = patient.last_batch
    (gradient,) = torch.autograd.grad(F.cross_entropy(twin(x), y), twin.path[0].weight)
    due = patient.optimizer.param_groups[0]["lr"] * gradient.norm()
    return ((table - before).norm() / due).item() if due else 0.0


def in_letters(X, Y, itos, rows=6):
    """The first windows and what is asked for, as they are read: a list of texts."""
    windows = ["".join(itos[i] for i in x) for x in X[:rows].tolist()]
    return [f"{window}  →  {itos[y]}" for window, y in zip(windows, Y[:rows].tolist(), strict=True)]


@dataclass(repr=False)
class Treatment:
    """What became of a patient: right, a dict of what was right in the answer; two runs; (before, after) each.

    losses: of every step; own: the mean of its last 100; validation: on new names.
    """

    number: int
    right: dict = None  # None without an answer
    losses: tuple = ()
    validation: tuple = ()
    points: int | None = None  # None while the patient is not closed

    @property
    def own(self):
        return tuple(sum(run[-100:]) / len(run[-100:]) for run in self.losses)

    def __repr__(self):
        if self.right is None:
            return f"Patient {self.number} waits for an organ, a fault and a remedy: one of each list in CHOICES."
        judged = ", ".join(f"{what}: {'right' if right else 'no'}" for what, right in self.right.items())
        lines = [f"Patient {self.number}. {judged}.", f"{STEPS} steps as it came, and {STEPS} with your remedy:"]
        for what, (before, after) in (("its own loss", self.own), ("validation loss", self.validation)):
            lines.append(f"  {what:<15} {before:.2f} → {after:.2f}")
        if not self.right["remedy"] and self.validation[1] < self.validation[0] - 0.05:
            lines.append("It helps against a symptom; the cause is still there.")
        end = "Not closed yet: look again, or take a hint." if self.points is None else f"Closed: {self.points} points."
        return "\n".join([*lines, end])


class Clinic:
    """Sixteen patients, of whom some are healthy. Shown, it is its own score.

    patient(n): patient n, as it came, at step 0. hint(n): where to look; then what to try; then the answer.
    treat(n, organ, fault, remedy): an answer, judged and tried. start_again(): all points away.
    """

    def __init__(self, seed, splits=None):
        self.seed, self.splits = seed, splits or load_splits()
        self.start_again()

    def start_again(self):
        self.hints, self.wrong, self.closed = {}, {}, {}

    def patient(self, number):
        return self._made(number, self._recipe(number))

    def hint(self, number):
        """A hint costs a point, once; the third one is the answer, and closes the patient without points."""
        fault = FAULTS[self._fault(number)]
        taken = self.hints.get(number, 0)
        if number not in self.closed:
            self.hints[number] = taken = min(taken + 1, 3)
        if taken < 3:
            return fault.hints[max(taken, 1) - 1]
        self.closed.setdefault(number, 0)
        return f"organ: {fault.organ}; fault: {self._fault(number)}; remedy: {fault.remedy}"

    def treat(self, number, organ=None, fault=None, remedy=None):
        """Judge an answer, each part one of CHOICES or a piece of it; train the patient without and with the remedy."""
        truth = FAULTS[self._fault(number)]
        given = dict(organ=organ, fault=fault, remedy=remedy)
        if not any(given.values()):
            return Treatment(number)
        given = {what: _chosen(what, text) for what, text in given.items()}
        wanted = dict(organ=truth.organ, fault=self._fault(number), remedy=truth.remedy)
        right = {what: given[what] == wanted[what] for what in wanted}
        if number not in self.closed:
            if all(right.values()):
                cost = WRONG * len(self.wrong.get(number, ())) + HINT * self.hints.get(number, 0)
                self.closed[number] = max(POINTS - cost, 0)
            else:
                self.wrong.setdefault(number, set()).add(tuple(given.values()))  # said twice, it costs once
        recipe = self._recipe(number)
        runs = [self._made(number, recipe), self._made(number, treated(recipe, given["remedy"]))]
        for run in runs:
            for _ in range(STEPS):
                run.step()
        validation = tuple(validation_loss(run, self.splits) for run in runs)
        return Treatment(number, right, tuple(run.losses for run in runs), validation, self.closed.get(number))

    @property
    def points(self):
        return sum(self.closed.values())

    def __repr__(self):
        left = [str(n) for n in range(1, PATIENTS + 1) if n not in self.closed]
        lines = [f"Round {self.seed}: {self.points} points of {POINTS * len(self.closed)} so far"]
        lines += [f"  patient {n}: {points}" for n, points in sorted(self.closed.items())]
        return "\n".join([*lines, f"still to come: {', '.join(left) or 'nobody'}"])

    def _fault(self, number):
        if number not in range(1, PATIENTS + 1):
            raise ValueError(f"there is no patient {number!r}: give a number from 1 to {PATIENTS}")
        order = seeded(self.seed)
        sick = [fault for fault in FAULTS if fault != HEALTHY]
        drawn = [sick[i] for i in torch.randperm(len(sick), generator=order)[: PATIENTS - WELL]] + [HEALTHY] * WELL
        return drawn[torch.randperm(PATIENTS, generator=order)[number - 1]]

    def _recipe(self, number):
        return recipe_of(self._fault(number), 1_000 * self.seed + number)

    def _made(self, number, recipe):
        return make_patient(recipe, 1_000 * self.seed + number, self.splits, f"patient {number}")


def _chosen(what, text):
    """The one choice that the text is a piece of."""
    said = text.strip().lower() if isinstance(text, str) else ""
    found = [choice for choice in CHOICES[what] if said and said in choice.lower()]
    found = [choice for choice in found if choice.lower() == said] or found
    if len(found) != 1:
        kind = "fits several of them" if len(found) > 1 else "is none of them"
        raise ValueError(f"{what} is {text!r}, which {kind}: choose one of {'; '.join(CHOICES[what])}")
    return found[0]


def diagnose_alone(splits, seed=0):
    """One look at every fault in every kind of network, without a human: {(fault, kind): verdict}.

    verdict: "named" where a warning says it, "elsewhere" where others do, "silent" without any. For the healthy,
    "silent" is right.
    """
    found = {}
    for fault, about in FAULTS.items():
        for kind in about.kinds:
            patient = make_patient(recipe_of(fault, seed, kind), seed, splits)
            x, y = patient.batch()
            report = diagnose(
                patient.model, x, y, loss_fn=patient.loss_fn, optimizer=patient.optimizer, histograms=False
            )
            said = [str(warning) for warning in report.warnings]
            named = about.sign and any(about.sign in text for text in said)
            found[fault, kind] = "named" if named else "elsewhere" if said else "silent"
    return found
