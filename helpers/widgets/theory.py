"""What infinitely wide layers would do: averages over a Gaussian, and the std of every layer's output."""

import math

import torch

from helpers.models import NONLINEARITIES

__all__ = ["average", "expected_std"]

Z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
WEIGHTS = torch.softmax(-(Z**2) / 2, 0)


def average(f):
    """E[f(z)] for a standard normal z, to about seven digits. f: from a tensor to one of its shape."""
    return (WEIGHTS * f(Z)).sum().item()


def expected_std(gain, layers, nonlinearity="tanh", *, batch_norm=False, input_square=1.0):
    """The std of what each of `layers` hidden layers puts out, if they were infinitely wide: a list.

    gain: the weights' std times sqrt(fan_in); input_square: the mean square of what the first layer receives.
    With batch_norm every pre-activation has std 1, whatever the gain. Biases are zero.

    An input of mean square q gives pre-activations N(0, gain² q), and they in turn the next layer's q.
    Source: Poole et al. 2016, "Exponential expressivity in deep neural networks", eq. 3.
    """
    layer = NONLINEARITIES[nonlinearity]
    f = layer() if layer else lambda z: z
    square, stds = float(input_square), []
    for _ in range(layers):
        scale = 1.0 if batch_norm else gain * math.sqrt(square)
        mean = average(lambda z: f(scale * z))  # noqa: B023 - called at once
        square = average(lambda z: f(scale * z) ** 2)  # noqa: B023
        stds.append(math.sqrt(max(square - mean**2, 0)))
    return stds
