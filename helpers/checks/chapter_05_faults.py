"""Chapter 05: four normalisation layers to tell apart by trying them, and a bias without a gradient to explain."""

import torch
from torch import nn

from helpers.checks.kinds import choice, choices


def four_boxes():
    """The examples (1000, 6) that four normalisation layers have seen, and the layers as functions {"a": …, "d": …}.

    Each has seen the same 300 batches of 32 in train mode; a box is what is used today, x (N, 6) -> (N, 6).
    """
    generator = torch.Generator().manual_seed(5)
    scale, shift = torch.tensor([0.5, 3.0, 1.0, 6.0, 2.0, 0.2]), torch.tensor([4.0, -6.0, 0.5, 9.0, -2.0, 1.0])
    seen = torch.randn((1000, 6), generator=generator) * scale + shift
    early, arrived = nn.BatchNorm1d(6, momentum=0.001), nn.BatchNorm1d(6, momentum=0.1)
    with torch.no_grad():
        for batch in torch.randint(0, 1000, (300, 32), generator=generator):
            early(seen[batch]), arrived(seen[batch])
    early.eval(), arrived.eval()

    @torch.no_grad()
    def by_batch(x):
        return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()

    rows = nn.LayerNorm(6, elementwise_affine=False)
    layers = {"a": early, "b": by_batch, "c": arrived, "d": rows}
    return seen, {name: torch.no_grad()(layer.__call__) for name, layer in layers.items()}


_ARRIVED = "On all of `seen` its columns have mean 0 and std 1: its statistics are right. Now try small batches."
_STRANGERS = "Its answer to `seen[:1]` is the same whichever rows come with it: it does not ask the batch."
_COMPANY = "Ask it for `seen[:1]` alone, and then with other rows: compare the two answers."
_OFF = "On all of `seen` its columns have neither mean 0 nor std 1: print them."
_ROWS = "Print the mean of each row of its answers, not of each column."
_NO_ROWS = "The rows of its answers do not have mean 0, so it does not take the mean over a row."

check_four_boxes = choices("the four boxes", "chapter 05, exercise 5.3", 2440, {
    "a": ("early", {"healthy": _OFF, "batch": _STRANGERS, "rows": _NO_ROWS}),
    "b": ("batch", {"healthy": _COMPANY, "early": _ARRIVED, "rows": _NO_ROWS}),
    "c": ("healthy", {"early": _ARRIVED, "batch": _STRANGERS, "rows": _NO_ROWS}),
    "d": ("rows", {"healthy": _OFF, "early": _ROWS, "batch": _STRANGERS}),
}, noun="condition")  # fmt: skip

check_bias_gradient = choice("the missing bias", "chapter 05, exercise 5.4", 2440, "B", {
    "A": "With nine more digits a small gradient stays as large as it is. This one becomes smaller by nine digits.",
    "C": "beta's gradient passes the same tanh, and arrives.",
})  # fmt: skip
