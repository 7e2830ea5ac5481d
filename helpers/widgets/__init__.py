"""Slider panels, one line each in a notebook; each stands on ordinary functions that need no widget.

00: first_look. 02: logit_explorer. 03: saturation_explorer. 04, 08 to 10, 13: gain_explorer. 05: batch_norm_explorer.
07: layer_list_explorer. 08: patients. 10: bend_explorer. 12: update_ratio_explorer. 12 to 14: training_lab. X03:
valley_explorer. X05: clinic_explorer. panel.py says how to add one.
"""

from helpers.widgets.batch_norm import batch_norm_explorer
from helpers.widgets.bend import bend_explorer
from helpers.widgets.clinic import clinic_explorer
from helpers.widgets.first_look import first_look
from helpers.widgets.layer_list import layer_list_explorer
from helpers.widgets.logits import logit_explorer
from helpers.widgets.network import gain_explorer, update_ratio_explorer
from helpers.widgets.patients import patients
from helpers.widgets.saturation import saturation_explorer
from helpers.widgets.training_lab import training_lab
from helpers.widgets.valley import valley_explorer

__all__ = ["batch_norm_explorer", "bend_explorer", "clinic_explorer", "first_look", "gain_explorer"]
__all__ += ["layer_list_explorer", "logit_explorer", "patients", "saturation_explorer", "training_lab"]
__all__ += ["update_ratio_explorer", "valley_explorer"]
