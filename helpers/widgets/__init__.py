"""Slider panels, one line each in a notebook; each stands on ordinary functions that need no widget.

gain_explorer (chapters 04, 08, 09, 10, 13) and update_ratio_explorer (12) are in network.py, logit_explorer (02),
batch_norm_explorer (05), bend_explorer (10), first_look (00), saturation_explorer (03) and training_lab (12, 13, 14)
in files of their own; panel.py says how to add one.
"""

from helpers.widgets.batch_norm import batch_norm_explorer
from helpers.widgets.bend import bend_explorer
from helpers.widgets.first_look import first_look
from helpers.widgets.logits import logit_explorer
from helpers.widgets.network import gain_explorer, update_ratio_explorer
from helpers.widgets.saturation import saturation_explorer
from helpers.widgets.training_lab import training_lab

__all__ = [
    "batch_norm_explorer",
    "bend_explorer",
    "first_look",
    "gain_explorer",
    "logit_explorer",
    "saturation_explorer",
    "training_lab",
    "update_ratio_explorer",
]
