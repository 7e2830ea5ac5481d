"""Chapters 11 and 12: ratios of standard deviations."""

from helpers.checks.kinds import check, seeded_randn

SIZES = ((6, 4, 1e-3), (3, 5, 0.02), (2, 8, 3.0))  # rows, columns, the scale of the smaller tensor


def tensors(seed):
    """Pairs of a tensor and a smaller one of the same shape; no mean is zero, so that a norm is not a std."""
    return [((0.4 + i) * seeded_randn(n, m, seed=seed + i) + 0.5 * i - 0.3, (seeded_randn(n, m, seed=seed + 9 + i) + 0.4) * s)
            for i, (n, m, s) in enumerate(SIZES)]  # fmt: skip


SPREAD = "That is not a ratio of stds, which leave the means out: "
RATIOS = {  # of a to b
    SPREAD + "you take mean absolute values, norms, largest values or means.": (
        lambda b, a: a.abs().mean() / b.abs().mean(), lambda b, a: a.norm() / b.norm(),
        lambda b, a: a.abs().max() / b.abs().max(), lambda b, a: a.mean() / b.mean()),
    SPREAD + "the std is the root of the variance.": lambda b, a: a.var() / b.var(),
    "The quotients are taken first: divide one std by the other.": (
        lambda b, a: (a / b).std(), lambda b, a: (a / b).mean(), lambda b, a: (a / b).abs().mean()),
    "That is one ratio per column or row: take the std over all entries.": (
        lambda b, a: a.std(0) / b.std(0), lambda b, a: a.std(1) / b.std(1)),
    "One of the two is missing: divide one std by the other.": (lambda b, a: a.std(), lambda b, a: b.std()),
    "That is a product or a difference: divide one std by the other.": (
        lambda b, a: a.std() * b.std(), lambda b, a: (a.std() - b.std()).abs()),
    "One std is by N, the other by N - 1: take the same for both.": (
        lambda b, a: a.std(correction=0) / b.std(), lambda b, a: a.std() / b.std(correction=0)),
    "A learning rate comes in: it is in there already, or not asked for.": tuple(
        lambda b, a, lr=lr: lr * a.std() / b.std() for lr in (0.1, 0.01, 0.001)),
}  # fmt: skip


@check("chapter 11, grad:data", 5775, tensors(40))
def check_grad_to_data(data, grad):
    """f(data, grad) -> std(grad) / std(data), over all entries of a parameter and of its gradient."""
    return grad.std() / data.std()


check_grad_to_data.mistakes = {
    "That is upside down: the gradient's std stands on top.": lambda d, g: d.std() / g.std(),
    **RATIOS,
}


@check("chapter 12, the update:data ratio", 5995, tensors(60))
def check_update_ratio(parameter, update):
    """f(parameter, update) -> log10(std(update) / std(parameter)), for parameters of 2 dimensions.

    No tensor that is tried is constant: its std is 0, and the ratio undefined.
    """
    return (update.std() / parameter.std()).log10()


check_update_ratio.mistakes = {
    "That is a natural log: the guide line at -3 stands for 1/1000, so take log10.":
        lambda p, u: (u.std() / p.std()).log(),
    "The log is missing: the ratio runs over powers of ten, so take its log10.": lambda p, u: u.std() / p.std(),
    "The sign is wrong: that is log10 of parameter over update.": lambda p, u: (p.std() / u.std()).log10(),
    "The logs are divided: the log of a ratio is a difference of logs.": (
        lambda p, u: u.std().log10() / p.std().log10(), lambda p, u: u.std().log() / p.std().log()),
    "That is log10 of 1 plus the ratio: leave the 1 out.": lambda p, u: (1 + u.std() / p.std()).log10(),
    "The log of each entry comes first: take the std, divide, then take one log.": (
        lambda p, u: u.abs().log10().mean() - p.abs().log10().mean(), lambda p, u: (u / p).abs().log10().std()),
    "The update is added first: compare the update with the parameter as it is.": (
        lambda p, u: (u.std() / (p + u).std()).log10(), lambda p, u: (u.std() / (p - u).std()).log10()),
    **{why: tuple((lambda p, u, f=f: f(p, u).log10()) for f in (fs if isinstance(fs, tuple) else (fs,)))
       for why, fs in RATIOS.items()},
}  # fmt: skip
