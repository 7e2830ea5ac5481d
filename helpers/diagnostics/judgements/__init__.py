"""What we look for, most urgent first: the lists say all of it.

A judgement reads a Look and yields sentences: what is wrong, the usual cause, the remedy. A new one is a function in
the file of what it judges and a line in a list, below those that may be its cause: it can ask whether they spoke.

The thresholds lie between what was measured on healthy networks (the course's, at step 0 and after 1,000 steps at
learning rate 0.1, and others) and on unhealthy ones. Each comment gives both.
"""

from . import attention, data, layers, learning, loss, rates, structure, training
from .look import Look

__all__ = ["FIRST", "READINGS", "STEP", "TRAINING", "Look"]

# What can be judged only while the step is at hand: the network, its output, its loss.
STEP = [
    data.nan_in_the_data,
    loss.not_finite,
    learning.not_among_the_parameters,
    learning.no_gradient,
    learning.gradient_cut_off,
    learning.no_parameters,
    learning.not_in_the_optimizer,
    learning.left_without_requires_grad,
    learning.frozen_in_vain,
    loss.compares_all_pairs,
    loss.wants_probabilities,
    data.mixed_by_a_view,
    data.mixed_by_softmax,
    data.examples_taken_for_time,
    attention.sums_over_queries,
    attention.one_hot,
    attention.mask_of_floats,
    attention.sees_the_next,
    loss.wants_logits,
    loss.wants_one_class,
    loss.cosines_as_logits,
    loss.drops_the_logits,
    loss.softmax_of_a_relu,
    loss.wants_signs,
    learning.drops_nearly_all,
    loss.far_from_a_guess,
    loss.targets_out_of_reach,
    data.same_answer_for_all,
    data.same_at_all_places,
    data.inputs_unscaled,
    structure.normalises_few,
    structure.nothing_between,
    structure.forgets_at_once,
    learning.not_used,
    learning.detached_in_a_loop,
    learning.eval_mode,
]
# What of it watch can't judge. It comes after the step: the parameters have moved, and of the output and the targets it
# knows what the losses got. All else it judges at its first record.
BEFORE_A_STEP = {
    data.nan_in_the_data,
    learning.not_among_the_parameters,
    learning.no_gradient,
    learning.gradient_cut_off,
    learning.no_parameters,
    learning.not_in_the_optimizer,
    learning.left_without_requires_grad,
    learning.frozen_in_vain,
    attention.sees_the_next,
    loss.targets_out_of_reach,
    data.same_answer_for_all,
    data.same_at_all_places,
    learning.detached_in_a_loop,
    learning.eval_mode,
}
FIRST = [judgement for judgement in STEP if judgement not in BEFORE_A_STEP]
# What watch judges at each step that it records.
TRAINING = [training.gradients_add_up, training.pulled_far_away, data.nan_in_the_data, training.not_trained]
# What the rows of a Diagnosis tell.
READINGS = [
    layers.not_finite,
    layers.saturated,
    layers.dead,
    layers.change_with_depth,
    layers.nothing_left,
    layers.change_through_time,
    learning.no_gradient_at_some,
    learning.equal_weights,
    learning.zero_gradient,
    rates.step_not_finite,
    rates.nothing_moves,
    rates.too_high_or_too_low,
    training.changed_with_depth,
    training.grows_without_end,
]
