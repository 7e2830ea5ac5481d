"""Slider panels, one line each in a notebook; each stands on ordinary functions that need no widget.

gain_explorer (chapters 04, 08, 09, 10, 13) and update_ratio_explorer (12) are in network.py. In files of their own:
first_look (00), logit_explorer (02), saturation_explorer (03), batch_norm_explorer (05), layer_list_explorer (07),
patients (08), bend_explorer (10), training_lab (12, 13, 14), valley_explorer (X03) and clinic_explorer (X05). panel.py
says how to add one.
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
