"""A round through the clinic: sixteen patients in an order that the seed draws, hints, treatments, points."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from helpers.clinic.patients import CHOICES, FAULTS, make_patient, recipe_of, treated
from helpers.data import load_splits
from helpers.diagnostics import diagnose
from helpers.models import seeded
from helpers.train import evaluate

PATIENTS, WELL, STEPS = 16, 4, 400  # in a round; healthy ones among them; steps of a treatment
POINTS, WRONG, HINT = 5, 2, 1  # for a right answer; what a wrong one and a hint cost
_clinics = {}  # seed -> Clinic: a cell that is run again finds its round as it was


def open_clinic(seed=1, splits=None):
    """The round of this seed: a new one, or the one that this kernel has begun, with its points."""
    _clinics[seed] = _clinics.get(seed) or Clinic(seed, splits)
    return _clinics[seed]


def validation_loss(patient, splits, examples=4_000):
    """The loss on names that the patient never saw, with the right labels."""
    X, Y = splits.val
    ix = torch.randperm(len(X), generator=seeded(0))[:examples]
    return evaluate(patient.model, X[ix], Y[ix])


def step_length(patient):
    """Take a step. Returns its length in the embedding / (lr * the gradient of its own batch): 1 if all is well."""
    table, twin = patient.model.path[0].weight, copy.deepcopy(patient.model)
    before = table.detach().clone()
    patient.step()
    x, y = patient.last_batch
    (gradient,) = torch.autograd.grad(F.cross_entropy(twin(x), y), twin.path[0].weight)
    due = patient.optimizer.param_groups[0]["lr"] * gradient.norm()
    return ((table - before).norm() / due).item() if due else 0.0


def in_letters(X, Y, itos, rows=6):
    """The first windows and their labels, written in letters: a list of texts."""
    return ["".join(itos[i] for i in x) + f"  →  {itos[Y[k].item()]}" for k, x in enumerate(X[:rows].tolist())]


@dataclass(repr=False)
class Treatment:
    """What became of a patient that was trained twice: as it came, and with the remedy.

    right: {part of the answer: whether it was right}. Pairs, (without, with the remedy): losses, by step; own, the mean
    of the last 100; validation, on new names.
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

    patient(n): patient n at step 0, as it came or with a remedy. hint(n): where to look; what to try; the answer.
    treat(n, organ, fault, remedy): an answer, judged and tried. start_again(): all points away.
    """

    def __init__(self, seed, splits=None):
        self.seed, self.splits = seed, splits or load_splits()
        self.start_again()

    def start_again(self):
        self.hints, self.wrong, self.closed = {}, {}, {}

    def patient(self, number, remedy=None):
        fault, seed = self._fault(number), 1_000 * self.seed + number
        recipe = recipe_of(fault, seed)
        return make_patient(treated(recipe, remedy) if remedy else recipe, seed, self.splits, f"patient {number}")

    def hint(self, number):
        """A hint costs a point, once; the third one is the answer, and closes the patient without points."""
        truth = self._truth(number)
        self.hints[number] = taken = min(self.hints.get(number, 0) + (number not in self.closed), 3)
        if taken < 3:
            return FAULTS[truth["fault"]].hints[max(taken, 1) - 1]
        self.closed.setdefault(number, 0)
        return "; ".join(f"{what}: {answer}" for what, answer in truth.items())

    def treat(self, number, organ=None, fault=None, remedy=None):
        """Judge an answer, each part one of CHOICES or a piece of it; train the patient without and with the remedy."""
        truth, given = self._truth(number), dict(organ=organ, fault=fault, remedy=remedy)
        if not any(given.values()):
            return Treatment(number)
        given = {what: _chosen(what, text) for what, text in given.items()}
        right = {what: given[what] == truth[what] for what in truth}
        if not all(right.values()):
            self.wrong.setdefault(number, set()).add(tuple(given.values()))  # said twice, it costs once
        elif number not in self.closed:
            cost = WRONG * len(self.wrong.get(number, ())) + HINT * self.hints.get(number, 0)
            self.closed[number] = max(POINTS - cost, 0)
        runs = [self.patient(number), self.patient(number, given["remedy"])]
        for run in STEPS * runs:  # in turn
            run.step()
        validation = tuple(validation_loss(run, self.splits) for run in runs)
        return Treatment(number, right, tuple(run.losses for run in runs), validation, self.closed.get(number))

    @property
    def points(self):
        return sum(self.closed.values())

    def __repr__(self):
        left = [str(n) for n in range(1, PATIENTS + 1) if n not in self.closed]
        head = f"Round {self.seed}: {self.points} points of {POINTS * len(self.closed)} so far"
        closed = (f"  patient {n}: {points}" for n, points in sorted(self.closed.items()))
        return "\n".join([head, *closed, f"still to come: {', '.join(left) or 'nobody'}"])

    def _fault(self, number):
        if number not in range(1, PATIENTS + 1):
            raise ValueError(f"there is no patient {number!r}: give a number from 1 to {PATIENTS}")
        order = seeded(self.seed)
        *sick, healthy = FAULTS
        drawn = [sick[i] for i in torch.randperm(len(sick), generator=order)[: PATIENTS - WELL]] + [healthy] * WELL
        return drawn[torch.randperm(PATIENTS, generator=order)[number - 1]]

    def _truth(self, number):
        fault = self._fault(number)
        return dict(organ=FAULTS[fault].organ, fault=fault, remedy=FAULTS[fault].remedy)


def _chosen(what, text):
    """The one of CHOICES[what] that contains the text."""
    texts = [text if isinstance(text, str) else "", *CHOICES[what]]  # of which initialization is spelt in two ways
    said, *plain = (text.strip().lower().replace("isa", "iza").replace("ise", "ize") for text in texts)
    found = [choice for choice, here in zip(CHOICES[what], plain, strict=True) if said and said in here]
    if len(found) != 1:
        kind = "fits several of them" if len(found) > 1 else "is none of them"
        raise ValueError(f"{what} is {text!r}, which {kind}: choose one of {'; '.join(CHOICES[what])}")
    return found[0]


def diagnose_alone(splits, seed=0):
    """What diagnose alone says of every fault in every kind of network: {(fault, kind): verdict}.

    verdict: "named" by a warning, "elsewhere" where only others speak, "silent", which is right for the healthy.
    """
    found = {}
    for fault, kind in [(fault, kind) for fault, about in FAULTS.items() for kind in about.kinds]:
        patient = make_patient(recipe_of(fault, seed, kind), seed, splits)
        report = diagnose(patient.model, *patient.batch(), optimizer=patient.optimizer, histograms=False)
        named = any(FAULTS[fault].sign in str(warning) for warning in report.warnings) and FAULTS[fault].sign
        found[fault, kind] = "named" if named else "elsewhere" if report.warnings else "silent"
    return found
