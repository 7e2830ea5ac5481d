"""Chapter 04: the std of a layer's weights, gains, a weight that torch reads the other way round, four networks."""

import torch
from torch.nn import functional as F

from helpers.checks.kinds import DENSITY, GRID, check, choices, conditions
from helpers.checks.readings import numbers


def lecun_tanh(z):
    """LeCun's scaled tanh (Efficient BackProp, 1998): 1 goes to 1, -1 to -1."""
    return 1.7159 * torch.tanh(2 * z / 3)


def _rms(f, std=1.0):
    return (f(std * GRID) ** 2 @ DENSITY).item() ** 0.5


GAINS = [(f, std) for f in (torch.tanh, lecun_tanh, F.gelu, torch.sigmoid) for std in (1.0, 0.5, 2.0)]


@check("chapter 04, exercise 4.1", 1673, GAINS, tolerance=1e-2)  # wide enough for 100,000 samples
def check_gain(f, std):
    """g(f, std) -> the gain of the next layer that brings pre-activations of this std back to it."""
    return std / _rms(f, std)


check_gain.mistakes = {
    "That undoes f alone, down to an rms of 1: what should come back is the std that went in.": (
        lambda f, std: 1 / _rms(f, std)),
    "std is not used on the way in: what enters f is std times a standard normal z.": (
        lambda f, std: 1 / _rms(f), lambda f, std: std / _rms(f)),
    "The root is missing: a gain multiplies stds, not mean squares.": (
        lambda f, std: std / _rms(f, std) ** 2, lambda f, std: std**2 / _rms(f, std) ** 2),
    "That is made of the std of the outputs: it is their mean square that the next layer hands on.": (
        lambda f, std: std / (_rms(f, std) ** 2 - (f(std * GRID) @ DENSITY).item() ** 2) ** 0.5),
    "That is made of the mean of |f|: square first, then take the mean, then the root.": (
        lambda f, std: std / (f(std * GRID).abs() @ DENSITY).item()),
}  # fmt: skip

FAN_IN, FAN_OUT, TANH_GAIN = 30, 200, 5 / 3
_SHAPE = "`x @ W1` needs one row per input and one column per unit: shape (30, 200)."
_FAN = "That is gain / sqrt(200): torch keeps weights as (out, in), and took your 200 for fan_in."
_RELU = "That is ReLU's gain over sqrt(30): name the nonlinearity, or torch takes a leaky ReLU's."
_NO_GAIN = "That is 1 / sqrt(30): the gain of the tanh, 5/3, is missing."
_TRIED = "That is chapter 03's 0.2, found by trying: here it should be gain / sqrt(fan_in)."
_SCALE = "Print gain / sqrt(fan_in) for tanh's gain and 30 inputs, and then `W1.std()`."
_CENTRE = "Its mean is 0: torch.rand gives numbers from 0 to 1, torch.randn normal ones around 0."
_EQUAL = "Draw the weights at random: units that start the same stay the same."


@conditions("W1", "chapter 04, exercise 4.2", 1673)
def check_first_weight(W1):
    """W1, (30, 200), for x @ W1: random, mean 0, std gain / sqrt(fan_in) with tanh's gain."""
    W1 = numbers(W1, f"W1 is of type {type(W1).__name__}", "Make it a tensor of shape (30, 200).")
    W1 = torch.from_numpy(W1).double()
    yield W1.shape == (FAN_IN, FAN_OUT), f"W1 has shape {tuple(W1.shape)}", _SHAPE
    yield W1.isfinite().all(), "W1 has a NaN or an infinity in it", "torch.empty holds anything: fill it with numbers."
    yield len(W1.unique()) > 3_000, "many entries of W1 are equal", _EQUAL
    yield W1.mean().abs() < 0.1 * W1.std(), f"W1 has mean {W1.mean():.3f}", _CENTRE
    std, wanted = W1.std().item(), TANH_GAIN / FAN_IN**0.5
    hints = {TANH_GAIN / FAN_OUT**0.5: _FAN, (2 / FAN_IN) ** 0.5: _RELU, FAN_IN**-0.5: _NO_GAIN, 0.2: _TRIED}
    for value, hint in hints.items():
        yield abs(std / value - 1) > 0.04, f"W1 has std {std:.3f}", hint
    yield abs(std / wanted - 1) < 0.05, f"W1 has std {std:.3f}", _SCALE


def four_networks():
    """{letter: (forward, backward)}: rms by layer of outputs and of gradients (over the last layer's), 50 layers."""
    kinds = {"a": (torch.relu, 2**0.5), "b": (torch.tanh, 5 / 3), "c": (torch.relu, 1.71), "d": (torch.tanh, 1.0)}
    return {letter: _through(*kind) for letter, kind in kinds.items()}


def _through(f, gain, layers=50, width=200):
    generator, inputs, outputs = torch.Generator().manual_seed(0), [], []
    h = torch.randn(64, width, generator=generator).requires_grad_()
    for _ in range(layers):
        inputs.append(h @ (torch.randn(width, width, generator=generator) * gain / width**0.5))
        h = f(inputs[-1])
        outputs.append(h)
    gradients = torch.autograd.grad((h * torch.randn(h.shape, generator=generator)).sum(), inputs)
    forward, backward = ([t.detach().square().mean().sqrt().item() for t in part] for part in (outputs, gradients))
    return forward, [size / backward[-1] for size in backward]


_FLAT = "Its signal finds one size within a few layers and keeps it exactly. Which nonlinearity pulls it there?"
_FADES = "It loses signal and gradient, ever more slowly. A ReLU would lose or gain a constant factor per layer."
_WANDERS = "Both of its curves wander about 1, and nothing pulls them back: the gain is right, f has no fixed point."
_RUNS = "Both of its curves run off by a constant factor per layer. A tanh cannot do that: its outputs stay below 1."

check_four_networks = choices("the four networks", "chapter 04, exercise 4.3", 1673, {
    "a": ("ReLU 1.41", _WANDERS), "b": ("tanh 5/3", _FLAT), "c": ("ReLU 1.71", _RUNS), "d": ("tanh 1", _FADES),
}, noun="nonlinearity")  # fmt: skip
