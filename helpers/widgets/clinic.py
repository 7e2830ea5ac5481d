"""X05's clinic for those who only want to look: a patient, eight pictures, four answers, a score."""

import copy
from functools import partial

import torch

from helpers.clinic import FAULTS, HEALTHY, in_letters, make_patient, recipe_of, step_length, validation_loss
from helpers.models import seeded
from helpers.plots import BLUE, GRAY, VERMILION, layer_colors, log_scale
from helpers.widgets import network as four
from helpers.widgets.board import legend
from helpers.widgets.panel import default_splits
from helpers.widgets.patients import Patients

STEPS, EVERY = 200, 20  # steps of training; steps between two looks at the weights

# For every fault, the picture that shows it, and what is seen there.
SHOWS = {
    "the labels are one place late": "letters and outputs: the label of a window is its own last letter.",
    "the names are sorted and not shuffled": "letters and outputs: the names follow the order of the alphabet.",
    "the batch is too small for BatchNorm": "letters and outputs: two rows. BatchNorm makes two values of them.",
    "the embedding is far too large": "1 activations: the first tanh is saturated all over, the other two are not.",
    "the gain is far too low": "1 activations: each layer is narrower than the last, and no BatchNorm mends it.",
    "the ReLUs are dead": "1 activations: nearly all outputs are 0, and so are the gradients.",
    "layers are not registered": "size of the weights: two lines, where the network has five weights.",
    "layers are frozen": "3 grad:data and 4 update:data: nothing at the hidden layers.",
    "a softmax stands before the cross-entropy": "letters and outputs: the 27 numbers of an answer add up to 1.",
    "the learning rate is far too low": "4 update:data: far below 1e-3; the gradients in 3 grad:data are as usual.",
    "the weight decay is too strong": "size of the weights: the hidden layers shrink alike, whatever their gradients.",
    "the optimizer holds another model's parameters": "single steps: none; the loss stays where it was.",
    "the gradients are never set to zero": "single steps: the first is right, and later ones are longer.",
    "the network is in eval mode": "1 activations: each layer is narrower; yet letters and outputs names a BatchNorm.",
    HEALTHY: "none of the eight has anything to show: that is health.",
}  # fmt: skip


def read_case(*, patient=1, splits=None):
    """Draw the patient of this number, look at it as a network_reading does, train it for 200 steps.

    The reading also has: losses, of the training; validation, the loss on new names after it; letters, two columns of
    texts, a batch and the training set; answer, what the model first puts out; built, the layers of a hidden block;
    sizes, {weight: its std at every 20th step}; lengths, of the first steps, as step_length gives them.
    """
    splits, generator = splits or default_splits(), seeded(patient)
    names = [list(FAULTS)[i] for i in torch.randperm(len(FAULTS), generator=generator)[:4]]
    made = make_patient(recipe_of(names[0], patient), patient, splits)
    x, y = made.batch()
    reading = four.network_reading(made.model, x, y, label="", optimizer=made.optimizer)
    kept = {name: p for name, p in made.model.named_parameters() if p.dim() == 2}
    reading.answer, reading.built = first_answer(made, x)
    reading.lengths = [step_length(made) for _ in range(EVERY)]
    reading.sizes = {row.name: [row.std, kept[row.name].std().item()] for row in reading.parameters}
    for step in range(EVERY + 1, STEPS + 1):
        made.step()
        for name, stds in reading.sizes.items() if step % EVERY == 0 else ():
            stds.append(kept[name].std().item())
    reading.losses, reading.validation = made.losses, validation_loss(made, splits)
    reading.letters = [in_letters(*some, splits.itos) for some in ((x, y), (made.X, made.Y))]
    reading.condition, reading.options = names[0], [names[i] for i in torch.randperm(4, generator=generator)]
    reading.says, reading.why = next(iter(reading.warnings), "nothing"), f"What shows it: {SHOWS[names[0]]}"
    return reading


def first_answer(patient, x):
    """(what the model puts out for the first of these examples, the layers of a hidden block in words)."""
    answer = copy.deepcopy(patient.model)(x)[0].detach()  # a copy: BatchNorm would update its statistics
    return answer, ", ".join(dict.fromkeys(type(layer).__name__ for layer in patient.model.path[2:8]))


def draw_loss(reading, ax):
    """The loss that its own loop sees, as means of ten steps, and the loss on new names after the last step."""
    losses = torch.tensor(reading.losses).view(-1, 10).mean(1).clamp(max=6)
    ax.plot(range(10, STEPS + 1, 10), losses, "-", color=VERMILION)
    ax.plot(STEPS, min(reading.validation, 6), "o", color=BLUE, markersize=8, clip_on=False)
    ax.set(xlim=(0, STEPS), ylim=(0, 6), xlabel="step", ylabel="loss (6: or more)")
    ax.set_title(f"its own loss (line), on new names {reading.validation:.1f} (dot)")


def draw_letters(reading, ax):
    """A batch and the beginning of the training set, as they are written; what comes out, and of what it is made."""
    for left, head, texts in zip((0.05, 0.55), ("one batch", "X[:6], Y[:6]"), reading.letters, strict=True):
        for k, text in enumerate([head, *texts]):
            ax.text(left, 0.92 - 0.1 * k, text, family="monospace", color="black" if k else GRAY)
    out = reading.answer
    low, high, total = (f"{value:.2g}".replace("-", "−") for value in (out.min(), out.max(), out.sum()))
    ax.text(0.05, 0.16, f"its first answer: {len(out)} numbers, {low} to {high}, sum {total}", fontsize=9.5)
    ax.text(0.05, 0.05, f"it is made of: 3 × ({reading.built})", fontsize=9.5)
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], title="what it reads → what it is asked for")


def draw_sizes(reading, ax):
    """The std of every weight that parameters() shows, by step, against what it was."""
    steps = range(0, STEPS + 1, EVERY)
    for (name, stds), color in zip(reading.sizes.items(), layer_colors(len(reading.sizes)), strict=True):
        ax.plot(steps, [std / stds[0] for std in stds], color=color, label=name.removesuffix(".weight"))
    ax.set(xlim=(0, STEPS), ylim=(0.1, 100), xlabel="step", ylabel="std, over that at step 0")
    log_scale(ax)
    legend(ax, loc="upper left", ncols=2)
    ax.set_title("std of the weights that parameters() shows")


def draw_steps(reading, ax):
    """The length of single steps of the embedding, divided by lr times the gradient: 1 if all is well."""
    ax.axhline(1, color=GRAY, linestyle="--", linewidth=1.1, zorder=1.5)
    ax.plot(range(EVERY), [min(max(length, 0.011), 90) for length in reading.lengths], "o", color=BLUE)
    ax.set(xlim=(-0.5, EVERY - 0.5), ylim=(0.01, 100), xlabel="step", ylabel="step ÷ (lr × its own gradient)")
    log_scale(ax)
    ax.set_title("single steps of the embedding (bottom: none)")


PICTURES = {
    "loss": draw_loss,
    "letters and outputs": draw_letters,
    "1 activations": four.draw_activations,
    "2 gradients": four.draw_gradients,
    "3 grad:data": four.draw_weight_gradients,
    "4 update:data": four.draw_update_ratios_by_layer,
    "size of the weights": draw_sizes,
    "single steps": draw_steps,
}


def clinic_explorer(*, patient=1, pictures=("loss", "4 update:data"), splits=None):
    """A training script at random: eight pictures, two at a time, four diagnoses to choose from, a score."""
    alt = f"Two pictures of a patient in training: {' and '.join(pictures)}. Live, six others can be chosen."
    return Patients(partial(read_case, splits=splits), PICTURES, patient, alt, shown=pictures)
