"""What is going on now, read from the stack of calls."""

import sys

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


def _frames():
    """From the one that asks outwards."""
    frame = sys._getframe(2)
    while frame:
        yield frame
        frame = frame.f_back


def calls_of(layer):
    """How many calls of a layer are going on, one that begins among them."""
    calls = [f.f_locals for f in _frames() if f.f_code.co_name in ("_call_impl", "watched")]
    return sum(any(found.get(name) is layer for name in ("self", "layer")) for found in calls)


def steps_already(optimizer):
    """Whether a step that begins is a subclass's super().step()."""
    file = register_optimizer_step_post_hook.__code__.co_filename
    calls = [f.f_locals for f in _frames() if f.f_code.co_filename == file]
    return sum(found.get("self") is optimizer for found in calls) > 1


def loss_scale():
    """By what the GradScaler that takes this step has multiplied the loss; 1 without one."""
    selves = (f.f_locals.get("self") for f in _frames())
    scaler = next((found for found in selves if isinstance(found, torch.amp.GradScaler)), None)
    return scaler.get_scale() if scaler else 1
