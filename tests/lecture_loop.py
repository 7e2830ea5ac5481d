"""The lecture's own training loops and the numbers that it prints: what the helpers are compared with."""

from lecture import PlainDeep, PlainShallow

# Printed by the lecture with BatchNorm and gain 1 after its 1,001 steps: the std of the gradient at each Tanh,
# and the grad:data ratio of each weight, the embedding's first.
GRADIENT_STD = [2.640702e-03, 2.245584e-03, 2.045742e-03, 1.983134e-03, 1.952382e-03]
GRAD_TO_DATA = [8.012630e-03, 4.881091e-02, 6.964619e-02, 6.073741e-02, 5.631483e-02, 5.570125e-02, 1.160106e-01]


def lecture_loop(stage, X, Y, steps, lr=0.1):
    """Train part 1's network as the lecture's cells do; returns (losses, tensors by the lecture's names)."""
    plain = PlainShallow(stage)
    losses = plain.train(X, Y, steps, lr)
    names = ["C", "W1", "b1", "W2", "b2", "bngain", "bnbias", "bnmean_running", "bnvar_running"]
    return losses, {name: getattr(plain, name).detach() for name in names if hasattr(plain, name)}


def deep_lecture_loop(batch_norm, gain, X, Y, steps, lr=0.1):
    """Train part 2's six-layer network as the lecture's cells do; returns (losses, C, the list of layers)."""
    plain = PlainDeep(batch_norm, gain=gain)
    return plain.train(X, Y, steps, lr), plain.C, plain.layers
