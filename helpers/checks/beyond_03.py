"""Lesson X03: Adam's first step without its correction, a loop that forgets, and four walks in a valley."""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F

from helpers.checks.kinds import check, choices, conditions


@check("lesson X03, exercise X03.1", 5995, [(0.9, 0.999), (0.5, 0.75), (0.0, 0.99)])
def check_uncorrected_step(beta1, beta2):
    """f(beta1, beta2) -> the size of Adam's first step without the correction, as a multiple of lr."""
    return (1 - beta1) / (1 - beta2) ** 0.5


check_uncorrected_step.mistakes = {
    "The running square is divided by after a square root.": lambda a, b: (1 - a) / (1 - b),
    "A running mean keeps beta of the old, and takes 1 - beta of the new.": (
        lambda a, b: a / b**0.5, lambda a, b: a / (1 - b) ** 0.5),
    "The root is taken of 1 - beta2, and of that alone.": (
        lambda a, b: (1 - a) / (1 - b**0.5), lambda a, b: ((1 - a) / (1 - b)) ** 0.5),
}  # fmt: skip

_FORGETS = "What makes a step of Adam smaller than lr is its memory of earlier gradients. Where is it made?"
_ADDED = "The gradients of earlier batches are added to the new ones. What takes them away?"
_EACH = "Take one step for each batch: net(x), its loss, backward, then `optimizer.step()`."
_ADAM = "Every step should be torch.optim.Adam's, with the given lr and its usual betas."


@conditions("the training", "lesson X03, exercise X03.2", 5995)
def check_training(answer):
    """train_names(net, batches, lr): takes one step of torch.optim.Adam for each batch."""
    wanted, moved = _moves(_adam), _moves(answer)
    stub = all((move.abs() - 1).abs().max() < 0.01 for move in moved) and len(moved) == len(wanted)
    yield not stub, "every weight still moves by lr, in every step"
    yield len(moved) == len(wanted), f"of five batches {len(moved)} went through net(x)", _EACH
    yield all(m.any() for m in moved), "a batch has no effect on the weights", _EACH
    added = torch.allclose(torch.stack(moved), torch.stack(_moves(partial(_adam, zero=False))), atol=2e-3)
    yield not added, "the steps are not those of each batch's own gradient", _ADDED
    off = [k + 1 for k, (a, b) in enumerate(zip(moved, wanted, strict=True)) if not torch.allclose(a, b, atol=2e-3)]
    fresh = bool(off) and off[0] > 1 and any((m.abs() - 1).abs().max() < 0.01 for m in moved[1:])
    yield not fresh, f"in step {off and off[0]} every weight moves by lr again", _FORGETS
    yield not off, f"step {off and off[0]} is another one than Adam's", _ADAM


def _moves(answer, lr=0.013):
    """What each step changes, in units of lr: from the first look at a batch to that at the next one."""
    g, seen = torch.Generator().manual_seed(5), {}

    class Watched(torch.nn.Linear):
        def forward(self, x):
            if isinstance(x, torch.Tensor):  # else super() says what is wrong with it
                seen.setdefault(x.sum().item(), weights())
            return super().forward(x)

    net = Watched(4, 3)
    net.load_state_dict({"weight": torch.randn(3, 4, generator=g), "bias": torch.zeros(3)})
    batches = [(torch.randn(8, 4, generator=g), torch.randint(0, 3, (8,), generator=g)) for _ in range(5)]

    def weights():
        return torch.nn.utils.parameters_to_vector(net.parameters()).detach().clone()

    answer(net, batches, lr)
    return [(after - before) / lr for before, after in pairwise([*seen.values(), weights()])]


def _adam(net, batches, lr, zero=True):
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for x, y in batches:
        if zero:
            optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()


_FIRST = "Look at the very first step: does it follow the slope, or the diagonal?"
_SWING = "Look at the end of the walk: is the lowest point overrun?"
_ALIKE = {"SGD": _SWING, "momentum": _SWING, "RMSprop": _FIRST, "Adam": _FIRST}
_OTHERS = {"SGD": _FIRST, "momentum": _FIRST, "RMSprop": _SWING, "Adam": _SWING}

check_four_walks = choices("the four walks", "lesson X03, exercise X03.3", 5995, {
    "A": ("momentum", _ALIKE), "B": ("RMSprop", _OTHERS), "C": ("SGD", _ALIKE), "D": ("Adam", _OTHERS),
}, noun="optimizer")  # fmt: skip
