"""Slider panels, one line each in a notebook. panel.py says how to add one; here it gets one import.

Beside each: the chapters that show it.
"""

# ruff: noqa: F401 - what is imported here is handed on
from types import FunctionType

from helpers.widgets.batch_norm import batch_norm_explorer  # 05
from helpers.widgets.bend import bend_explorer  # 10
from helpers.widgets.clinic import clinic_explorer  # X05
from helpers.widgets.first_look import first_look  # 00
from helpers.widgets.layer_list import layer_list_explorer  # 07
from helpers.widgets.logits import logit_explorer  # 02
from helpers.widgets.network import gain_explorer, update_ratio_explorer  # gain: 04, 08 to 10, 13; ratio: 12
from helpers.widgets.patients import patients  # 08
from helpers.widgets.saturation import saturation_explorer  # 03
from helpers.widgets.training_lab import training_lab  # 12 to 14
from helpers.widgets.valley import valley_explorer  # X03

__all__ = [name for name, value in list(globals().items()) if isinstance(value, FunctionType)]
