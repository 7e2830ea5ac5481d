"""Checks for the exercises: an answer in, a CheckResult out. How to add one: see `engine.py`.

`mistakes.py` says what can be seen of any wrong answer; the exercises stand in a file per chapter.
"""

# ruff: noqa: F401 - what is imported here is handed on to the notebooks
from helpers.checks.beyond_01 import check_three_faults
from helpers.checks.beyond_02 import check_four_streams, check_stream_growth, check_zero_last
from helpers.checks.beyond_03 import check_four_walks, check_training, check_uncorrected_step
from helpers.checks.beyond_04 import check_four_reports, check_group_norm, check_two_letters
from helpers.checks.beyond_05 import check_four_findings, check_softmax_floor
from helpers.checks.chapter_00 import check_two_dice
from helpers.checks.chapter_01 import check_four_datasets, check_rate_drop, check_unigram_entropy
from helpers.checks.chapter_02 import check_frequency_bias, check_guilty_layer, check_logit_std
from helpers.checks.chapter_03 import check_dead_units, check_first_steps, check_four_layers, check_sigmoid_slope
from helpers.checks.chapter_04 import check_first_weight, check_four_networks, check_gain
from helpers.checks.chapter_05 import check_batch_norm, check_batch_norm_forward
from helpers.checks.chapter_05_faults import check_bias_gradient, check_four_boxes
from helpers.checks.chapter_06 import check_conv_as_linear, check_conv_output_size, check_four_resnets
from helpers.checks.chapter_07 import check_four_modules, check_lead, check_linear, check_module
from helpers.checks.chapter_08 import check_alternating, check_fixed_point, check_no_settling
from helpers.checks.chapter_09 import check_even_gains, check_faulty_layer, check_most_left
from helpers.checks.chapter_10 import check_collapse, check_four_stacks, check_xor
from helpers.checks.chapter_11 import check_heavy_tails, check_layer_table, check_stored_weight
from helpers.checks.chapter_12 import check_adam_ratio, check_four_runs, check_new_rate, check_ratio_of_step
from helpers.checks.chapter_13 import check_gain_powers, check_scale_free, check_wrong_gain
from helpers.checks.chapter_14 import check_first_look, check_mystery, check_rate_from_ratios, check_which_patient
from helpers.checks.engine import CheckResult
from helpers.checks.exercise_01 import check_failing_pair, check_lora_starts, check_sigmoid_zeros, check_what_trains
from helpers.checks.exercise_02 import check_fold, check_other_order, check_wrong_by
