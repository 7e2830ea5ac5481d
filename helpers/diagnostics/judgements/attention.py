"""Attention that is written by hand, softmax(scores) @ values. (torch's own scales its scores, and sums over the keys.)"""

ONE_HOT = 0.8  # the largest weight of a query, in the mean: of 16 keys and scores of std 1 0.22, 5 0.66, 16 0.87
FEWEST = 8  # keys: of fewer, a mask may leave one


def sums_over_queries(look):
    for name, shape, dim, _ in look.functions.attention:
        if dim == len(shape) - 2 and shape[-1] == shape[-2] > 1:
            text = f"{name} gets weights {tuple(shape)} that sum to 1 over dimension {dim}, the queries"
            yield f"{text}: give softmax dim=-1, so that the weights of each query do"
            return


def one_hot(look):
    """Each query takes one value, and no gradient reaches the others."""
    for name, shape, dim, largest in [] if look.has_learned else look.functions.attention:
        if dim == len(shape) - 1 and shape[-1] >= FEWEST and largest > ONE_HOT:
            text = f"{name}: of {shape[-1]} attention weights the largest is {largest:.2f} in the mean, at scores that large"
            yield f"{text} hardly any gradient passes the softmax: divide the scores by sqrt(size of a key)"
            return


def mask_of_floats(look):
    for name in look.functions.float_masks[:1]:
        text = f"{name} gets a mask of 0.0 and 1.0, which is added to the scores and hides nothing"
        yield f"{text}: give -inf where it must not look, and 0 elsewhere"
