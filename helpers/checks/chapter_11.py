"""Chapter 11: the size of a weight's gradient, and what it says beside the weight."""

from helpers.checks.kinds import choice, choices

check_layer_table = choices("the layers of the table", "chapter 11, exercise 11.1", 5775, {
    "gradient": ("a", {
        "b": "b has the smallest product rms(x) * rms(g): its weight does not enter its gradient.",
        "c": "Multiply: c has half of a's rms(g), and a tenth of its rms(x).",
        "d": "d has the largest rms(x), but multiply it by rms(g)."}),
    "grad:data": ("d", {
        "a": "a has the largest gradient, but divide it by the weight.",
        "b": "b has the smallest weight, but its gradient is small too: divide one by the other.",
        "c": "c has a small weight and a large rms(g), but it reads little: rms(x) counts as much."}),
}, otherwise="Multiply rms(x) by rms(g); for grad:data divide by std(W).")  # fmt: skip

SQUARED = "The 100 comes in twice: once in the gradient of V, once more"
POWER = "Write the power of 100, not the factor: 1 for 100 times, 2 for 10,000 times."
check_stored_weight = choices("the stored weight", "chapter 11, exercise 11.2", 5775, {
    "gradient": (1, {
        0: "The loss sees 100 V: the chain rule brings a factor of 100.",
        2: "The chain rule brings the factor once.",
        -1: "That is the weight. Its gradient goes the other way.",
        100: POWER}),
    "grad:data": (2, {
        0: "Gradient and weight do not cancel: one is multiplied by 100, the other divided. Take the ratio.",
        1: SQUARED + " because the data is 100 times smaller.",
        -2: "That is upside down: the gradient stands on top.",
        10_000: POWER}),
    "change of the output": (2, {
        0: "The outputs are the same before the step. After it they are not: follow the change of V.",
        1: SQUARED + " on the way from V to the output.",
        -1: "V changes by more, not by less: its gradient is larger.",
        10_000: POWER}),
},
noun="number", otherwise="Write the step: V changes by the rate times its gradient, and the output by 100 times that.",
)  # fmt: skip

check_heavy_tails = choice("the heavy tails", "chapter 11, exercise 11.3", 5775, "B", {
    "A": "An odd example would reach the columns of all units, and stay there when each is divided by its std.",
    "C": "Within one unit's column 32 terms are summed too, and there the tails are gone.",
})  # fmt: skip
