"""Lesson X04: GroupNorm written, four reports of networks with BatchNorm, and why two letters are left."""

from functools import partial

from helpers.checks.kinds import check, choice, choices, seeded_randn

_X = 3 * seeded_randn(5, 12, seed=1) + 1
CASES = [(_X, 3, 1e-5), (_X, 2, 1e-5), (_X, 1, 1e-5), (_X[:2], 4, 0.5), (0.1 * _X, 6, 0.1)]


def _groups(x, groups, eps, *, axes=2, correction=0, mean=True, root=True, inside=True):
    parts = x.unflatten(1, (groups, -1))
    centre, var = parts.mean(axes, keepdim=True), parts.var(axes, correction=correction, keepdim=True)
    if not mean:
        centre, var = 0, parts.square().mean(axes, keepdim=True)
    size = (var + eps).sqrt() if inside and root else var + eps if not root else var.sqrt() + eps
    return ((parts - centre) / size).flatten(1)


@check("lesson X04, exercise X04.1", 3787, CASES)
def check_group_norm(x, groups, eps):
    """f(x, groups, eps) -> x (examples, features), each group of neighbouring features of an example normalised."""
    return _groups(x, groups, eps)


check_group_norm.mistakes = {
    "`groups` is how many groups there are. Yours takes it for the features in each.": (
        lambda x, groups, eps: _groups(x, x.shape[1] // groups, eps)),
    "Neighbours belong together: features 0, 1, 2, … Yours takes every so-many-th.": lambda x, groups, eps: (
        _groups(x.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1), groups, eps)
        .unflatten(1, (groups, -1)).transpose(1, 2).flatten(1)),
    "Take mean and variance over the last axis: the features in one group, not the groups.": partial(_groups, axes=1),
    "No other example may matter: yours takes mean and variance over the batch too.": (
        partial(_groups, axes=(0, 2)), partial(_groups, axes=0)),
    "Divide by the number of features in the group, not by one less: `correction=0`.": partial(_groups, correction=1),
    "The mean is to be taken off: without that it is an RMSNorm of each group.": partial(_groups, mean=False),
    "eps is added to the variance, under the root.": partial(_groups, inside=False),
    "Divide by the root of the variance.": partial(_groups, root=False),
}  # fmt: skip

_MODES = "Its own training examples, in train mode and in eval mode: are these two losses alike?"
_SEEN = "Compare training examples in eval mode with validation examples in eval mode."
_AFRESH = "Compare the last two lines: what do fresh statistics change?"
_ALIKE = "Compare the first line with the third: are unseen names worse, batched alike?"

check_four_reports = choices("the four reports", "lesson X04, exercise X04.2", 3787, {
    "A": ("leaks", {"overfits": _ALIKE, "wrong statistics": _AFRESH, "another kind": _ALIKE}),
    "B": ("overfits", {"leaks": _MODES, "wrong statistics": _AFRESH, "another kind": "Can it be? How low is its "
          "training loss, beside that of the others?"}),
    "C": ("wrong statistics", {"overfits": _SEEN, "leaks": _AFRESH, "another kind": _ALIKE}),
    "D": ("another kind", {"leaks": _MODES, "wrong statistics": _AFRESH, "overfits": "How low is its training "
          "loss, beside that of the one that knows its names by heart?"}),
}, noun="fault")  # fmt: skip

check_two_letters = choice("the two letters", "lesson X04, exercise X04.3", 3787, "B", {
    "A": "Two numbers that are not equal have a variance far above 1e-12. And with eps in charge all would lie near 0.",
    "C": "In the picture no gamma and no beta is used. And what is the same for all letters can't join two of them.",
})  # fmt: skip
