"""Chapter 13: the gain under batch normalisation."""

from helpers.checks.kinds import choices

CANCELS = "A BatchNorm divides by the std of what it gets: whatever the gain multiplies, it takes away again."
BACK = "Going back, a BatchNorm divides the gradient by the std of what it got, which goes as the gain."
FROM_OUTPUT = "Its gradient is the input, which no gain reaches, times the gradient at the Linear's output."
AFTER = "On the way back here, the next BatchNorm divides by the gain, and the next Linear multiplies by it again."
check_gain_powers = choices("the powers of the gain", "chapter 13, the gain under batch normalisation", 6364, {
    "linear output": (1, {
        0: "A BatchNorm takes the gain away, but only after the Linear: its own output still has it.",
        2: "That is the variance: the question is the size, the std.",
        -1: "The output is input @ weight, and the weight is multiplied by the gain, not divided."}),
    "batch norm output": (0, dict.fromkeys((1, 2, -1, -2), CANCELS)),
    "gradient at batch norm output": (0, dict.fromkeys((1, 2, -1, -2), AFTER)),
    "gradient at linear output": (-1, {
        0: "The gradient after the BatchNorm does not depend on the gain, but this one is before it. " + BACK,
        1: "That is the wrong way round. " + BACK,
        -2: "It is divided once: one BatchNorm stands between this output and the one after it. " + BACK}),
    "weight gradient": (-1, {
        0: FROM_OUTPUT + " That one does depend on the gain.",
        1: FROM_OUTPUT + " The weight itself does not enter its own gradient.",
        -2: FROM_OUTPUT + " It is not divided a second time: that comes with update:data."}),
    "update:data of the weight": (-2, {
        -1: "That is the update alone: the weight that it is divided by goes as the gain too.",
        0: "The update and the weight do not cancel: one goes as 1/gain, the other as the gain. Divide.",
        1: "That is the weight alone: divide the update by it.",
        2: "That is upside down: the update stands on top, the weight below."}),
}, noun="number", otherwise="Measure it: build the network at gain 1 and at gain 2, and compare.")  # fmt: skip

_BENDS = "A tanh bends: tanh(3z) is not 3 tanh(z). What the BatchNorm gets has another shape, not only another scale."
_SUM = "Only a part of the sum is multiplied. x stays, so the sum points elsewhere, and LayerNorm keeps directions."
_TAKEN = "What arrives at the normalisation is 3 times what it was, and it divides by a std that is 3 times as large."

check_scale_free = choices("which weights are free in their size", "chapter 13, exercise 13.1", 6364, {
    "Linear with a bias, BatchNorm": ("yes", {"no": "The bias is the same for all examples: it goes with the mean."}),
    "Linear without a bias, ReLU, BatchNorm": ("yes", {"no": "relu(3z) is 3 relu(z). " + _TAKEN}),
    "Linear without a bias, tanh, BatchNorm": ("no", {"yes": _BENDS}),
    "Linear without a bias, LayerNorm": ("yes", {"no": _TAKEN}),
    "x + Linear(x), LayerNorm": ("no", {"yes": _SUM}),
})  # fmt: skip

_LEVEL = "Its point lies on that of the healthy network: look for the one that does not."
_ROOT = "The ratio is that much lower. It goes as one over the square of the weight's length."


def multiply_one(model):
    """Exercise 13.2's patient: the model, with the weight of one of its Linears multiplied by a number."""
    model.linear4.weight.data *= 10
    return model


check_wrong_gain = choices("the multiplied weight", "chapter 13, exercise 13.2", 6364, {
    "the Linear": (4, dict.fromkeys((1, 2, 3, 5, 6), _LEVEL)),
    "its weight was multiplied by": (10.0, {100.0: _ROOT, 0.01: _ROOT, 0.1: "A shorter weight would turn faster."}),
    "multiply its learning rate by": (100.0, {10.0: "That is the weight's factor: the length counts twice.",
                                            0.01: "A lower rate makes a slow layer slower."}),
}, noun="number", otherwise="Read the distance in the picture, then use step 4.")  # fmt: skip
