"""Slider panels, one line each in a notebook. Each stands on ordinary functions that need no widget.

gain_explorer (chapters 04, 08, 09, 13), logit_explorer (02), batch_norm_explorer (05), update_ratio_explorer (12),
training_lab (12, 13, 14). helpers.widgets.explore has the functions, helpers.widgets.pictures the pictures, helpers.widgets.panel the rest.
"""

import ipywidgets as widgets

from helpers.models import NONLINEARITIES, SEED
from helpers.widgets.chapter_pictures import LossByScale, Normalised, Probabilities, RunningStatistics
from helpers.widgets.explore import read_batch_norm, read_logits, read_network, read_update_ratios
from helpers.widgets.knobs import by_name, choice, control, gain_knob, learning_rate_knob, new_seed, seed_knob, switch
from helpers.widgets.panel import MARGINS, Board, Panel
from helpers.widgets.pictures import (
    ActivationsByLayer,
    GradientsByLayer,
    StdByDepth,
    UpdateRatiosByLayer,
    UpdateRatiosByStep,
)
from helpers.widgets.training_lab import training_lab

__all__ = ["batch_norm_explorer", "gain_explorer", "logit_explorer", "training_lab", "update_ratio_explorer"]

PICTURES = {p.name: p for p in (ActivationsByLayer, GradientsByLayer, StdByDepth, UpdateRatiosByLayer)}


def gain_explorer(
    *,
    gain=5 / 3,
    depth=6,
    width=100,
    nonlinearity="tanh",
    batch_norm=False,
    seed=SEED,
    pictures=("activations by layer", "std by depth"),
    splits=None,
):
    """Turn the init gain, and see what a fresh network makes of it: two pictures at a time, of four.

    The arguments are where the knobs stand at first; depth counts the Linears, the output one included. While a
    slider moves, all random draws stay the same. "pin" keeps the present setting as a faint line to compare with.
    Without a widget: `read_network(...)` in helpers.widgets.explore, and `draw(StdByDepth(), reading)` in helpers.widgets.pictures.
    """
    unknown = [name for name in pictures if name not in PICTURES]
    if unknown or len(pictures) != 2:
        raise ValueError(f"pictures is {pictures!r}: choose two of {', '.join(PICTURES)}")
    controls = by_name(
        gain_knob(gain),
        control(widgets.IntSlider, "depth", "How many Linears, the output one included.", value=depth, min=2, max=30),
        control(widgets.IntSlider, "width", "Units in a hidden layer.", value=width, min=10, max=300, step=10),
        choice("nonlinearity", "What follows each hidden Linear (linear: nothing).", NONLINEARITIES, nonlinearity),
        switch("batch norm", "A BatchNorm after every Linear, and no biases.", batch_norm),
        seed_knob(seed),
        choice("left picture", "What the left half shows.", PICTURES, pictures[0]),
        choice("right picture", "What the right half shows.", PICTURES, pictures[1]),
    )
    board = Board([PICTURES[name]() for name in pictures])

    def read(left_picture, right_picture, **setting):
        for i, name in enumerate((left_picture, right_picture)):
            if board.pictures[i].name != name:
                board.pictures[i] = PICTURES[name]()
        return read_network(splits=splits, **setting)

    alt = (
        f"{pictures[0].capitalize()} and {pictures[1]} of a fresh network: {depth} Linears, {nonlinearity}, gain "
        f"{gain:.2f}, batch norm {'on' if batch_norm else 'off'}. Live, sliders change the setting."
    )
    return Panel(controls, read, board, alt=alt, buttons=[new_seed(controls["seed"])])


def logit_explorer(*, how_many=4, logits=(0.0, 0.0, 5.0, 0.0), label=2, scale=1.0, seed=SEED):
    """Turn logits, their scale and the label, and see the probabilities and the loss.

    how_many: 4, the ones on the sliders, or 27, one a character, drawn from randn with `seed`.
    Without a widget: `read_logits(...)` in helpers.widgets.explore.
    """
    controls = by_name(
        choice("how many", "Four by hand, or 27 at random, one a character.", [4, 27], how_many),
        control(widgets.FloatSlider, "scale", "Multiplies all the logits.", value=scale, min=0, max=15, step=0.1),
        control(widgets.IntSlider, "label", "The right answer, counted from 0.", value=label, min=0, max=how_many - 1),
        seed_knob(seed),
        *(
            control(
                widgets.FloatSlider,
                f"logit {i}",
                f"What the network says for class {i}.",
                value=z,
                min=-10,
                max=10,
                step=0.1,
            )
            for i, z in enumerate(logits)
        ),
    )

    def adapt(_=None):
        n = controls["how many"].value
        controls["label"].max = n - 1
        controls["seed"].disabled = n == 4
        for i in range(4):
            controls[f"logit {i}"].disabled = n == 27

    controls["how many"].observe(adapt, "value")
    adapt()

    def read(how_many, scale, label, seed, **four):
        chosen = list(four.values()) if how_many == 4 else None
        return read_logits(chosen, min(label, how_many - 1), scale=scale, seed=seed)

    alt = "Bars of softmax probabilities, the label's in orange, and the loss against the scale of the logits."
    board = Board([Probabilities(), LossByScale()])
    return Panel(controls, read, board, alt=alt, buttons=[new_seed(controls["seed"])])


def batch_norm_explorer(*, moved=10.0, gamma=1.0, beta=0.0, batch_size=5, momentum=0.1, batches=50):
    """Move one number of a batch, and see what BatchNorm makes of all of them; then its running statistics.

    Left, the lecture's own bonus widget: 5 numbers, one on a slider from -30 to 30, with gamma, beta and more
    numbers beside. Right, what momentum makes of the running mean and std of batches drawn from one Gaussian.
    Without a widget: `read_batch_norm(...)` in helpers.widgets.explore.
    """
    controls = by_name(
        control(
            widgets.FloatSlider,
            "moved number",
            "The orange one among the inputs.",
            value=moved,
            min=-30,
            max=30,
            step=0.5,
        ),
        control(
            widgets.IntSlider,
            "batch size",
            "How many numbers are normalised together.",
            value=batch_size,
            min=2,
            max=32,
        ),
        control(widgets.FloatSlider, "gamma", "Scales what is normalised.", value=gamma, min=-2, max=3, step=0.1),
        control(widgets.FloatSlider, "beta", "Shifts it afterwards.", value=beta, min=-3, max=3, step=0.1),
        control(
            widgets.FloatLogSlider,
            "momentum",
            "The weight of the newest batch in the running statistics.",
            value=momentum,
            base=10,
            min=-3,
            max=0,
            step=0.1,
            readout_format=".3g",
        ),
        control(
            widgets.IntSlider,
            "batches seen",
            "How many the running statistics have seen.",
            value=batches,
            min=1,
            max=200,
        ),
    )
    alt = (
        f"{batch_size} numbers joined to their normalised values, both as Gaussians; and the running statistics by batch, "
        f"at momentum {momentum:g}."
    )
    board = Board([Normalised(), RunningStatistics()], margins=MARGINS | {"left": 0.02, "top": 0.84})
    return Panel(controls, read_batch_norm, board, alt=alt)


def update_ratio_explorer(*, lr=0.1, gain=5 / 3, batch_norm=False, fan_in=True, steps=50, seed=SEED, splits=None):
    """Turn the learning rate and the gain, and see update:data: of every weight at step 0, and by step.

    Each move trains the lecture's deep network anew for `steps` steps, from the same weights, on the same
    minibatches. Without a widget: `read_update_ratios(...)` in helpers.widgets.explore.
    """
    controls = by_name(
        learning_rate_knob(lr, "What each gradient is multiplied by."),
        gain_knob(gain),
        switch("batch norm", "A BatchNorm after every Linear, and no biases.", batch_norm),
        switch("1/sqrt(fan_in)", "Switched off, the weights are plain randn times the gain.", fan_in),
        control(widgets.IntSlider, "steps", "How long it trains at each move.", value=steps, min=10, max=200, step=10),
        seed_knob(seed),
    )

    def read(**setting):
        setting["fan_in"] = setting.pop("1/sqrt(fan_in)")
        return read_update_ratios(splits=splits, **setting)

    alt = (
        "The update:data ratio of every weight at step 0, and by step, on log axes with the line at 1e-3; here at "
        f"learning rate {lr:g}, gain {gain:.2f}."
    )
    board = Board([UpdateRatiosByLayer(), UpdateRatiosByStep()])
    return Panel(controls, read, board, alt=alt, buttons=[new_seed(controls["seed"])])
