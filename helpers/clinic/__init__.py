"""X05's clinic: training scripts that run without an error, in most of which something is wrong.

rounds.py: sixteen patients in a drawn order, treatments, points. patients.py: how they are made, and what they have.
"""

from helpers.clinic.patients import CHOICES, FAULTS, HEALTHY, ORGANS, Patient, make_patient, recipe_of, treated
from helpers.clinic.rounds import (
    Clinic,
    Treatment,
    diagnose_alone,
    in_letters,
    open_clinic,
    step_length,
    validation_loss,
)

__all__ = ["CHOICES", "FAULTS", "HEALTHY", "ORGANS", "Clinic", "Patient", "Treatment", "diagnose_alone", "make_patient"]
__all__ += ["in_letters", "open_clinic", "recipe_of", "step_length", "treated", "validation_loss"]
