"""What we look for, most urgent first: whoever wants to know what is judged reads the two lists.

A judgement reads a Look and yields sentences: what is wrong, the usual cause, the remedy. A new one is a function in
the file of what it judges and a line in a list, below those that may be its cause: it can ask whether they spoke.

The thresholds lie between what was measured on healthy networks (the course's at step 0, and after 1,000 steps at
learning rate 0.1, and others) and on unhealthy ones. Each comment gives both.
"""

from . import batch, data, depth, layers, learning, loss, rates
from .look import Look

__all__ = ["READINGS", "STEP", "Look"]

# What is judged while the step itself is at hand: the network, its output, its loss.
STEP = [
    data.hold_nan,
    loss.not_finite,
    learning.outside,
    loss.no_gradient,
    loss.cut_off,
    learning.none_to_learn,
    learning.not_held,
    learning.left_out,
    loss.compares_all_pairs,
    loss.wants_probabilities,
    batch.mixed_by_view,
    batch.mixed_by_softmax,
    batch.mixed_by_time,
    loss.unfit_for_cross_entropy,
    data.targets_out_of_reach,
    batch.one_answer_for_all,
    data.inputs_unscaled,
    learning.eval_mode,
]
# What is judged by the rows of a Diagnosis.
READINGS = [
    layers.not_finite,
    layers.saturated,
    layers.dead,
    layers.constant,
    depth.activations_change,
    depth.gradients_change,
    depth.gradients_change_through_time,
    learning.without_gradient,
    learning.all_the_same,
    learning.gradient_is_zero,
    rates.nothing_moves,
    rates.decay_wins,
    rates.too_high,
    rates.too_low,
    rates.below_eps,
]
