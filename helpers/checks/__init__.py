"""Checks for the exercises: an answer in, a CheckResult out. How to add one: see `engine.py`.

The exercises stand in a file per chapter. Every `check_…` of theirs can be imported from here.
"""

import importlib
import pkgutil

from helpers.checks.engine import CheckResult as CheckResult

for _file in pkgutil.iter_modules(__path__):
    _names = vars(importlib.import_module(f"{__name__}.{_file.name}")).items()
    globals().update({name: value for name, value in _names if name.startswith("check_")})
