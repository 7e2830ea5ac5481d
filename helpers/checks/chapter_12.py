"""Chapter 12: the update:data ratio of any optimizer's step, and what to read off its lines."""

import torch

from helpers.checks.kinds import check, choices, conditions, seeded_randn
from helpers.checks.readings import numbers
from helpers.checks.sandbox import has_gap, require


@check("chapter 12, exercise 12.1", 5995, [(6e-4, 0.02, 1e-3), (1e-3, 0.1, 0.05), (3e-4, 1.0, 2.0)])
def check_adam_ratio(lr, weight_std, grad_std):
    """f(lr, weight_std, grad_std) -> the update:data ratio of Adam's first step."""
    return lr / weight_std


check_adam_ratio.mistakes = {
    "That is plain SGD's: Adam divides every entry of the gradient by its own size.": lambda lr, w, g: lr * g / w,
    "A small gradient does not make the step larger: all that is left of it is its sign.": lambda lr, w, g: lr / (g * w),
    "That multiplies by the weight's std: divide, with brackets where a product stands below.": lambda lr, w, g: lr * w,
}  # fmt: skip


def _tried(answer, weight, change):
    weight, after, calls = weight.clone(), weight + change, []

    def step():  # gives nothing back, as an optimizer's
        calls.append(weight.add_(change))

    ratio = answer(weight, step)
    if ratio is None or has_gap(ratio):
        return ratio  # not written yet
    hint = "Call it once: each call is a step of the training."
    require(len(calls) == 1, f"step() was called {len(calls)} times", hint)
    hint = "Measuring changes nothing: work on copies of it."
    require(torch.equal(weight, after), "the weight is not where step() left it", hint)
    return ratio


SIZES = (0, 0.4, 0.3), (1, 1.4, 0.1)
STEPS = [(a * seeded_randn(6, 4, seed=i) + i, b * seeded_randn(6, 4, seed=9 + i) + 0.2) for i, a, b in SIZES]


@check("chapter 12, exercise 12.2", 5995, STEPS, trial=_tried, call="{}(weight, step)", parameters=("weight", "change"))
def check_ratio_of_step(weight, step):
    """f(weight, step) -> std(change) / std(weight before), where step() changes the weight in place."""
    before = weight.clone()
    step()
    return (weight - before).std() / before.std()


def _before(ratio):
    """The answer that keeps a copy of the weight, and makes `ratio` of the copy and of the weight as it is after."""
    return lambda weight, step: ratio(weight.detach().clone(), (step(), weight)[1])


check_ratio_of_step.mistakes = {
    "The weight that you kept is the same tensor, which step() changes too: keep a clone.": (
        lambda weight, step: (step(), torch.tensor(0.0))[1]),
    "Entry by entry, some divide by nearly 0: take the two stds first, then divide.": (
        _before(lambda old, new: ((new - old) / old).std()), _before(lambda old, new: ((new - old) / old).abs().mean())),
    "That is the change alone: divide it by the std of the weight before.": _before(lambda old, new: (new - old).std()),
    "Divide by the weight as it was before the step.": _before(lambda old, new: (new - old).std() / new.std()),
    "That compares the two weights: take the std of their difference.": (
        _before(lambda old, new: new.std() / old.std()), _before(lambda old, new: (new.std() - old.std()) / old.std())),
    "These are norms or mean sizes: take stds, which leave the means out.": (
        _before(lambda old, new: (new - old).norm() / old.norm()), _before(lambda old, new: (new - old).mean() / old.mean()),
        _before(lambda old, new: (new - old).abs().mean() / old.abs().mean())),
}  # fmt: skip

_ALL = "There all lines move, and together. Here look for a line that stands apart from its neighbours."
_LOSS = "Look at the loss below it: does it rise or fall while the lines go down?"
_FAN = "Here the hidden lines lie in the order of their depth, from the first step on."
_ONE = "Here one hidden line lies far below the other four, and keeps its distance."

check_four_runs = choices("the four pictures", "chapter 12, exercise 12.3", 5995, {
    "A": ("exploded", _LOSS),
    "B": ("own rate", _ONE),
    "C": ("lowered", {"exploded": _LOSS, "own rate": _ALL, "scale": _LOSS}),
    "D": ("scale", _FAN),
}, noun="cause")  # fmt: skip


@conditions("the factor", "chapter 12, exercise 12.4", 5995)
def check_new_rate(factor):
    """By which factor to change the learning rate of exercise 12.4: a number."""
    refusal = "it is not a positive number", "Give one, such as 3."
    value = numbers(factor, *refusal)
    yield value.size == 1 and value.dtype != bool and (value > 0).all(), *refusal
    number = value.item()
    low = "The hidden lines lie near 1e-4. Read off by which factor they have to rise."
    yield number > 5, f"with {number:g} the hidden lines stay far below the best ratio of a short run", low
    yield number > 15, f"{number:g} brings them near 1e-3", "That is safe. Where was the best ratio in a short run?"
    yield number < 150, f"{number:g} takes them beyond 1e-2", "On the other side of the valley stands a cliff."
