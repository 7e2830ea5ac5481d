"""Chapter 00: two dice, to show what a check says."""

from helpers.checks.kinds import check


@check("chapter 00, the dice", 0, [(total,) for total in range(2, 13)])
def check_two_dice(total):
    """f(total) -> in how many of the 36 ways two dice add up to total."""
    return 6 - abs(total - 7)


check_two_dice.mistakes = {
    "That is right up to 7. Beyond it there are fewer and fewer ways: only 6 and 6 make 12.": lambda total: total - 1,
    "That is right from 7 on. Below it there are fewer ways, too: only 1 and 1 make 2.": lambda total: 13 - total,
    "The two dice differ: 1 and 2, 2 and 1 are two ways.": lambda total: min(total // 2, 7 - (total + 1) // 2),
    "That is the share: multiply it by the 36 ways that there are.": lambda total: (6 - abs(total - 7)) / 36,
}
