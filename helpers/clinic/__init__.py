"""X05's clinic: training scripts that run without an error, in most of which something is wrong.

rounds.py: sixteen patients in a drawn order, treatments, points. patients.py: how they are made, and what they have.
"""

# ruff: noqa: F401 - what is imported here is handed on
from helpers.clinic.patients import CHOICES, FAULTS, HEALTHY, ORGANS, Patient, make_patient, recipe_of, treated
from helpers.clinic.rounds import Clinic, diagnose_alone, in_letters, open_clinic, step_length, validation_loss
