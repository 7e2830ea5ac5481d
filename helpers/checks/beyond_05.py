"""Lesson X05: the lowest loss behind a softmax too many, and four findings with their organs."""

import math

from helpers.checks.kinds import check, choices


@check("lesson X05, the floor", 259, [(27,), (2,), (10,), (1000,)])
def check_softmax_floor(classes):
    """f(classes) -> the lowest cross-entropy of numbers that are probabilities already."""
    return math.log(math.e + classes - 1) - 1


check_softmax_floor.mistakes = {
    "That is the floor of logits. Probabilities are no larger than 1: what does a softmax make of a 1 and zeros?": (
        lambda classes: 0.0),
    "That is a guess at random. The network may do better: it may give the right class all of its probability.": math.log,
    "That is the log of the sum alone: take the right class's own logit, 1, away.": lambda n: math.log(math.e + n - 1),
    "The right class is one of the classes already: classes - 1 of them are left with a 0.": (
        lambda n: math.log(math.e + n) - 1),
    "That is the probability of the right class: the loss is minus its log.": lambda n: math.e / (math.e + n - 1),
}  # fmt: skip

check_four_findings = choices("the four organs", "lesson X05, four findings", 5211, {
    "a": ("data", {
        "initialisation": "Its own loss falls well, so it starts well enough. Which names does one batch hold?",
        "network": "It learns what it is shown. What is it shown, one batch after the other?",
        "optimizer": "Each step is as it should be, for the batch that it saw. Which batches does it see?"}),
    "b": ("initialisation", {
        "data": "The inputs are indices of letters. What turns an index into large numbers?",
        "network": "All layers are there, and they are of the right kind. Which numbers were drawn too large?",
        "optimizer": "At step 0 the optimizer has done nothing yet."}),
    "c": ("optimizer", {
        "data": "The change does not depend on the batch at all.",
        "initialisation": "The start is over. Something takes 1 % of what is there, again in each step.",
        "network": "No layer changes its own weights. Which setting pulls every weight towards zero?"}),
    "d": ("network", {
        "data": "Whatever goes in, the sum is 1. Which layer makes it so?",
        "initialisation": "Training does not change the sum. It is built in.",
        "optimizer": "An optimizer moves weights. It does not make 27 numbers add up."}),
}, otherwise="Which line of the script would you change?")  # fmt: skip
