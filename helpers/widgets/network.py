"""A network at a setting: what diagnose says of it, and two panels that turn the setting.

Without a widget: `draw_std_by_depth(read_network(init_gain=1.0), ax)`, and so on, with pictures of network_pictures.
"""

import math
from functools import partial
from types import SimpleNamespace

import torch

from helpers.diagnostics import diagnose
from helpers.layers import Linear
from helpers.models import NONLINEARITIES, SEED, deep_mlp, seeded
from helpers.train import train
from helpers.widgets.network_pictures import FIRST, PICTURES, draw_update_ratios_by_layer, draw_update_ratios_by_step
from helpers.widgets.panel import Panel, choice, default_splits, log_slider, seed_control, slider, switch

BATCH = 32  # train's own
EXAMPLES = 200  # diagnosed at a time: enough for a smooth histogram, few enough for a quick one


def network_reading(model, X, Y, *, label, **more):
    """Diagnose a network: its rows that the pictures show, and its warnings. `helpers.plots` draws the reading as well.

    activations, gradients: rows of the hidden layers' outputs, from the first to the last; parameters: rows of what has
    two dimensions. label: the setting, for titles. more: as for diagnose.
    """
    found = diagnose(model, X, Y, **more)
    at = [i for i, row in enumerate(found.activations) if row.is_activation]
    if not at:  # fully linear: what comes before the next Linear
        at = [i - 1 for i, row in enumerate(found.activations) if row.type.__name__ == "Linear"][1:]
    activations, gradients = ([rows[i] for i in at] for rows in (found.activations, found.gradients))
    reading = SimpleNamespace(label=label, activations=activations, gradients=gradients, warnings=found.warnings)
    reading.parameters = [row for row in found.parameters if len(row.shape) > 1]
    return reading


def read_network(
    *, init_gain=5 / 3, depth=6, width=100, nonlinearity="tanh", batch_norm=False, seed=SEED, lr=0.1, splits=None
):
    """A fresh deep_mlp at a setting, diagnosed on the first 200 training examples: a network_reading, and expected_std.

    The weights come from `seed` in deep_mlp's order, so two settings of the same shape share all their draws
    and only the setting tells them apart. depth counts the Linears, the output one included.
    """
    X, Y = (part[:EXAMPLES] for part in (splits or default_splits()).train)
    setting = dict(gain=init_gain, batch_norm=batch_norm, nonlinearity=nonlinearity)
    model = deep_mlp(depth=depth, n_hidden=width, generator=seeded(seed), **setting)
    reading = network_reading(model, X, Y, label=f"gain {init_gain:.2f}", lr=lr)
    given = dict(layers=len(reading.activations), input_square=model.embedding(X).square().mean().item())
    reading.expected_std = expected_std(**setting, **given)
    return reading


def read_update_ratios(
    *, learning_rate=0.1, init_gain=5 / 3, batch_norm=False, fan_in=True, steps=50, seed=SEED, splits=None
):
    """Train part 2's network for some steps and keep its losses, and as update_ratio every weight's update:data.

    This network_reading's rows are those of step 0, on the first minibatch. fan_in=False draws the weights without
    1/sqrt(fan_in), as the lecture tries at 1:43. The same seed gives the same weights and minibatches at every setting.
    """
    (X, Y), generator = (splits or default_splits()).train, seeded(seed)
    model = deep_mlp(gain=init_gain, batch_norm=batch_norm, generator=generator)
    for layer in model if not fan_in else ():
        if isinstance(layer, Linear):
            layer.weight.data *= math.sqrt(layer.weight.shape[-2])
    label = f"gain {init_gain:.2f}" + ("" if fan_in else ", no fan_in")
    ix = torch.randint(0, len(X), (BATCH,), generator=generator.clone_state())  # the first step's minibatch
    reading = network_reading(model, X[ix], Y[ix], label=label, lr=learning_rate)
    options = dict(batch_size=BATCH, generator=generator, record_ratios_every=1, progress=False)
    history = train(model, X, Y, steps=steps, lr=learning_rate, **options)
    reading.losses, reading.ratios_every = history.loss.tolist(), 1
    reading.update_ratio = {name: ratio.tolist() for name, ratio in history.update_ratio.items()}
    return reading


def expected_std(gain, layers, nonlinearity="tanh", *, batch_norm=False, input_square=1.0):
    """The std of what each of `layers` hidden layers puts out, if they were infinitely wide: a list.

    gain: the weights' std times sqrt(fan_in); input_square: the mean square of what the first layer receives.
    With batch_norm every pre-activation has std 1, whatever the gain. Biases are zero.

    An input of mean square q gives pre-activations N(0, gain² q), and they in turn the next layer's q.
    Source: Poole et al. 2016, "Exponential expressivity in deep neural networks", eq. 3.
    """
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.softmax(-(z**2) / 2, 0)  # averages over N(0, 1), to about seven digits
    f = (NONLINEARITIES[nonlinearity] or torch.nn.Identity)()
    square, stds = float(input_square), []
    for _ in range(layers):
        out = f(z if batch_norm else gain * math.sqrt(square) * z)
        mean, square = (density * out).sum().item(), (density * out**2).sum().item()
        stds.append(math.sqrt(max(square - mean**2, 0)))
    return stds


def gain_slider(value, says="Multiplies every hidden weight, on top of 1/sqrt(fan_in)."):
    return slider("init gain", says, value, 0.2, 5, 1 / 30)  # 0.5, 1, 5/3 and 3 are among its values


def gain_explorer(
    *, gain=5 / 3, depth=6, width=100, nonlinearity="tanh", batch_norm=False, seed=SEED, pictures=FIRST, splits=None
):
    """Turn the init gain, and see what a fresh network makes of it: two pictures at a time, of four.

    The arguments are where the knobs stand at first; depth counts the Linears, the output one included. While a
    slider moves, all random draws stay the same. "pin" keeps the present setting as faint lines to compare with.
    """
    controls = [
        gain_slider(gain),
        slider("depth", "How many Linears, the output one included.", depth, 2, 30, 1),
        slider("width", "Units in a hidden layer.", width, 10, 300, 10),
        choice("nonlinearity", "What follows each hidden Linear (linear: nothing).", NONLINEARITIES, nonlinearity),
        switch("batch norm", "A BatchNorm after every Linear, and no biases.", batch_norm),
        seed_control(seed),
    ]
    setting = f"{depth} Linears, {nonlinearity}, gain {gain:.2f}, batch norm {'on' if batch_norm else 'off'}"
    alt = f"{' and '.join(pictures).capitalize()} of a fresh network: {setting}. Live, sliders change the setting."
    return Panel(partial(read_network, splits=splits), PICTURES, controls, alt=alt, shown=pictures)


def update_ratio_explorer(*, lr=0.1, gain=5 / 3, batch_norm=False, fan_in=True, steps=50, seed=SEED, splits=None):
    """Turn the learning rate and the gain, and see update:data of every weight at step 0, and by step.

    Each move trains the lecture's deep network anew for `steps` steps, from the same weights, on the same minibatches.
    """
    controls = [
        log_slider("learning rate", "What each gradient is multiplied by.", lr, -4, 1, 2),
        gain_slider(gain),
        switch("batch norm", "A BatchNorm after every Linear, and no biases.", batch_norm),
        switch("1/sqrt(fan_in)", "Off: the weights are plain randn times the gain.", fan_in, argument="fan_in"),
        slider("steps", "How long it trains at each move.", steps, 10, 200, 10),
        seed_control(seed),
    ]
    what = "The update:data ratio of every weight at step 0, and by step, on log axes with the line at 1e-3"
    alt = f"{what}; here at learning rate {lr:g}, gain {gain:.2f}."
    pictures = [draw_update_ratios_by_layer, draw_update_ratios_by_step]
    return Panel(partial(read_update_ratios, splits=splits), pictures, controls, alt=alt)
