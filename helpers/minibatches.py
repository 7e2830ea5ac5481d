"""The minibatches of a training run, drawn as the lecture draws them."""

import torch

__all__ = ["minibatches"]

DRAWN_AHEAD = 8192  # examples: enough that drawing costs nothing, few enough to stay in the processor's cache


def minibatches(X, Y, batch_size, generator, steps):
    """Yield (X, Y) of so many steps' minibatches: the examples that one torch.randint a step would draw.

    generator: one, for minibatches (batch_size, …) that every network of a stack sees; or a list of one a network,
    for (num_models, batch_size, …). None draws from torch's global generator.

    Several steps are drawn at a time, which gives the same numbers for less. Closed early, it leaves the
    generator where step by step drawing would have left it.
    """
    several = isinstance(generator, (list, tuple))
    generators = list(generator) if several else [generator]
    # Not ahead where others draw in between: layers such as dropout from the global generator, or a network
    # from the generator of another.
    shared = None in generators or torch.default_generator in generators
    shared = shared or len({id(g) for g in generators}) < len(generators)
    ahead = 1 if shared else max(1, DRAWN_AHEAD // (batch_size * len(generators)))

    def draw(count):
        drawn = [torch.randint(0, len(X), (count, batch_size), generator=g) for g in generators]
        return torch.stack(drawn, 1) if several else drawn[0]

    for start in range(0, steps, ahead):
        count = min(ahead, steps - start)
        states, used = [] if shared else [g.get_state() for g in generators], 0
        try:
            ix = draw(count)
            for minibatch in zip(X[ix].unbind(), Y[ix].unbind(), strict=True):
                used += 1
                yield minibatch
        finally:
            if used < count and not shared:
                for g, state in zip(generators, states, strict=True):
                    g.set_state(state)
                draw(used)
