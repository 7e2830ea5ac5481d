"""Chapter 09: what sigmoids leave of a gradient, a faulty layer to find, gains that keep a gradient even."""

import torch
from torch import nn

from helpers.checks.kinds import DENSITY, GRID, check, choices, conditions
from helpers.checks.readings import numbers

CASES = [(1.0, 2), (2.0, 3), (0.5, 1), (6.0, 4), (4.0, 5), (1.0, 20)]


@check("chapter 09, exercise 9.1", 5454, CASES, tolerance=(1e-6, 0.0))
def check_most_left(gain, layers):
    """f(gain, layers) -> the largest share of a gradient's rms that `layers` sigmoid layers can leave, going back."""
    return (gain / 4) ** layers


check_most_left.mistakes = {
    "A sigmoid's slope is 1/4 at most; 1 is the tanh's.": lambda g, n: g**n,
    "The gain counts in every layer, and so does the quarter.": (lambda g, n: g * 0.25**n, lambda g, n: g**n / 4),
    "Layers multiply: a factor per layer, to the power of their number.": (
        lambda g, n: n * g / 4, lambda g, n: g / 4 / n, lambda g, n: g / 4),
    "There are `layers` steps back, not one less and not one more.": (
        lambda g, n: (g / 4) ** (n - 1), lambda g, n: (g / 4) ** (n + 1)),
    "Going back, weights of gain g multiply the rms by g, without a root, a square or a bound.": (
        lambda g, n: (g**0.5 / 4) ** n, lambda g, n: (1 / (4 * g)) ** n, lambda g, n: min(1.0, (g / 4) ** n)),
}  # fmt: skip


def eight_layers():
    """(net, x, y): a network of eight tanh layers of which one is at fault, and examples with their classes."""
    g, layers = torch.Generator().manual_seed(1), []
    with torch.random.fork_rng(devices=[]):  # nn.Linear draws too, from a generator that is not ours
        *linears, head = (nn.Linear(100, 10 if k == 9 else 100) for k in range(1, 10))
    for k, linear in enumerate(linears, 1):
        nn.init.normal_(linear.weight, std=0.13, generator=g)
        nn.init.normal_(linear.bias, std=4.0 * (k == 5), generator=g)
        layers += [linear, nn.Tanh()]
    nn.init.normal_(head.weight, std=0.1, generator=g)
    nn.init.zeros_(head.bias)
    x = torch.randn(200, 100, generator=g)
    return nn.Sequential(*layers, head), x, torch.randint(0, 10, (200,), generator=g)


_STEP = "Between the gradients at h4 and h5 the way back passes a tanh and a weight matrix. Which layer's are they?"
_ELSEWHERE = "Take the ratio of each layer's gradient to the next one's. One of the seven is unlike all others."
_OUTPUTS = "That would shrink the gradient as well. But look at what this layer puts out: is it small, or at the ends?"

check_faulty_layer = choices("the faulty layer", "chapter 09, one step back", 5454, {
    "layer": (5, {4: _STEP, 6: _STEP, 1: _ELSEWHERE, 2: _ELSEWHERE, 3: _ELSEWHERE, 7: _ELSEWHERE, 8: _ELSEWHERE}),
    "fault": ("biases too large", {
        "weights too small": _OUTPUTS,
        "weights too large": "Large weights make a gradient grow on its way back. This one loses."}),
}, otherwise=_ELSEWHERE)  # fmt: skip


def _after(gains):
    """(factors on the gradient's mean square from layer 2 on, rms of the last output) of tanh layers of these gains."""
    s, factors = 1.0, []
    for gain in gains:
        t = torch.tanh(gain * s * GRID)
        factors.append(gain**2 * ((1 - t**2) ** 2 @ DENSITY).item())
        s = (t**2 @ DENSITY).item() ** 0.5
    return factors[1:], s


_TWENTY = "Give a list of 20 positive numbers of everyday size, one per layer."
_EVERY = "For each layer take the gain for which chi is 1. It depends on the rms that the layers below have left."
_SIGNAL = "So small a signal meets a tanh that is a straight line. Begin with a larger first gain."


@conditions("the 20 gains", "chapter 09, exercise 9.3", 5454)
def check_even_gains(gains):
    """20 gains: the gradient's mean square within 3 % over each step back, and a signal of 0.2 or more at the end."""
    gains = numbers(gains, "these are not 20 numbers", _TWENTY).ravel()
    yield gains.size == 20, f"gains has {gains.size} numbers", _TWENTY
    everyday = ((gains > 0) & (gains < 1e6)).all()
    yield everyday, f"one of the gains, from {gains.min():g} to {gains.max():g}, is no gain", _TWENTY
    factors, signal = _after(gains.tolist())
    k = max(range(19), key=lambda k: abs(factors[k] - 1))
    off = f"back through layer {k + 2} the mean square is multiplied by {factors[k]:.2f}"
    yield abs(factors[k] - 1) <= 0.03, off, _EVERY
    yield signal >= 0.2, f"the last layer's outputs have an rms of {signal:.3f}", _SIGNAL
