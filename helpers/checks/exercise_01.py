"""Exercise E01, all parameters zero: what trains, when, and which pair of tensors waits for each other."""

import re
from collections.abc import Iterable, Mapping

import torch

from helpers.checks.kinds import choice, choices, conditions
from helpers.checks.sandbox import was_given

NAMES = ("C", "W1", "b1", "W2", "b2")  # from the input to the loss
BLOCKED = {  # the wrong member nearest to the loss is told first: the way back begins there
    "W2": "W2's gradient is the hidden layer h times the gradient at the logits, and h = tanh(0) = 0: exactly 0.",
    "b1": "b1's gradient comes back through W2, and W2 is all zeros: it is exactly 0.",
    "W1": "W1's gradient is the embedding times what comes back through W2: zeros times zeros, so exactly 0.",
    "C": "C's gradient comes back through W1, and W1 is all zeros: it is exactly 0.",
    "": "One parameter reaches the loss with no zero in between: go back from the logits, and stop at the first.",
}


@conditions("the parameters that train", "exercise E01, the chain rule with the zeros in it", 259)
def check_what_trains(answer):
    """The set, in any form, of those among the names C, W1, b1, W2, b2 that train when all start at zero."""
    is_set = isinstance(answer, Iterable) and not isinstance(answer, Mapping | torch.Tensor)
    yield is_set, was_given(answer), 'Pass a set of names, such as {"C", "W1"}, or set().'
    found = getattr(answer, "tolist", lambda: answer)()
    found = re.findall(r"\w+", found) if isinstance(found, str) else list(found)
    yield not any(name is ... for name in found), "there is no answer yet"
    for name in found:
        is_name = isinstance(name, str)
        shown = repr(name) if is_name else f"an object of type {type(name).__name__}"
        hint = f"Their names are {', '.join(NAMES)}, as text."
        yield is_name and name in NAMES, f"{shown} is not one of the parameters", hint
    names = [name for name in NAMES if name in found]
    hint = next(why for name, why in BLOCKED.items() if name in names or not name)
    yield names == ["b2"], f"yours, {', '.join(names) or 'none'}, is not right", hint


_THROUGH = "At step 0 a gradient that has to come back through W2 finds only zeros there."
_DEADLOCK = "C is heard only through W1, and W1 reads only C. Both are zero: which of them could go first?"
_READS = "W2 reads h. What is a sigmoid at 0?"
_LOGITS = "b2 gets the sum of the gradients at the logits, at every step: no zero stands in between."
check_sigmoid_zeros = choices("the first gradients", "exercise E01, the chain rule with the zeros in it", 259, {
    "C": ("never", {"step 0": _THROUGH, "step 1": _DEADLOCK}),
    "W1": ("never", {"step 0": _THROUGH, "step 1": _DEADLOCK}),
    "b1": ("step 1", {"step 0": _THROUGH, "never": "W2 moves at step 0: what comes back through it then?"}),
    "W2": ("step 0", {"step 1": _READS, "never": _READS}),
    "b2": ("step 0", {"step 1": _LOGITS, "never": _LOGITS}),
})  # fmt: skip

_WAIT = "exercise E01, two tensors that wait for each other"
check_failing_pair = choice("the pair that fails", _WAIT, 259, "b1 and W2", {
    "C and W1": "Then x @ W1 is not zero and h is alive: W2 moves at step 0, and lets the gradient back.",
    "C and b1": "b1 wakes h, so W2 moves at step 0. Then W1 hears the loss, and it has C to read.",
    "C and W2": "W2 lets the gradient back at step 0, and W1 has C to read.",
    "W1 and b1": "b1 wakes h, so W2 moves at step 0, and W1 hands the gradient on to C.",
    "W1 and W2": "Both hand the gradient on: C moves at step 0, and then W1 has something to read.",
})  # fmt: skip

_A, _B = "A hears the loss only through B.", "B reads x @ A, and nothing else."
check_lora_starts = choices("the three starts", "exercise E01, what a weight reads and who listens", 259, {
    "B zero": ("B", dict.fromkeys(("A", "both"), _A) | {"neither": "B reads x @ A, which is not zero."}),
    "A zero": ("A", dict.fromkeys(("B", "both"), _B) | {"neither": "A reads x, and B lets the gradient back."}),
    "both zero": ("neither", {"A": _A, "B": _B, "both": f"{_A} {_B}"}),
})  # fmt: skip
