"""Chapter 02: the first loss."""

import math

from helpers.checks.kinds import check


@check("chapter 02, ln 27", 259, [(27,), (2,), (100,), (1000,), (50257,)])
def check_initial_loss(vocab_size):
    """f(vocab_size) -> the cross-entropy loss, in nats, of a network that finds all characters equally likely."""
    return math.log(vocab_size)


check_initial_loss.mistakes = {
    "That is the probability of each character: the loss is minus its log.": lambda v: 1 / v,
    "That is the probability of being wrong: take minus the log of the probability of being right.": lambda v: (
        1 - 1 / v
    ),
    "The end character is one of the vocab_size characters already: take none away.": lambda v: math.log(v - 1),
    "The end character is one of the vocab_size characters already: add none.": lambda v: math.log(v + 1),
    "That is a sum over all characters: only the right one's log-probability counts.": lambda v: v * math.log(v),
    "That is an average over all characters: only the right one's log-probability counts.": lambda v: math.log(v) / v,
    "That is exp of the loss, the perplexity: take its log.": lambda v: v,
}
