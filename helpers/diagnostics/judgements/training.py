"""What is wrong with the loop of a training, and what it has made of the network."""

from math import prod

from . import data, layers, rates

ONE_SIDED = 3  # mean / std of the gradient at the output; prices of 1e5 ± 1e4: 10; targets around 0: below 1
GROWN = 1000  # times as large as at first, or as 1; logits of what has learned: 10 to 60
LOW = 5e-4  # of its peak: a rate that has fallen; a cosine is there for its last hundredth
TOO_LONG = "learning rate is probably too high", "weight decay"


def gradients_add_up(look):
    if look.adds_up:
        yield "the gradients of earlier steps are still in this step's: call optimizer.zero_grad() in every step"


def pulled_far_away(look):
    """All examples pull the output the same way, and far; or both ways, where its targets were far away at first.

    Of a mean of squares the gradient is twice the difference to the targets, by the number of outputs. Those of losses
    that are bounded, such as cross-entropy, are 1 at most.
    """
    is_explained = any(" puts out " in text for text in look.findings)  # the last layer does not reach them
    for row in [] if is_explained else look.seen[-1:]:
        if row.is_output and row.gradient and row.gradient.get("std") and row.readings.get("std"):
            pull, spread = abs(row.gradient["mean"]), row.gradient["std"]
            size = max(1, abs(row.readings["mean"]), row.readings["std"])
            is_one_sided = pull > max(1, ONE_SIDED * spread, 2 * data.LARGE * size / prod(row.shape))
            if is_one_sided or (look.were_far and max(pull, spread) > 2 * data.LARGE * size):
                text = f"the loss pulls the output, {row.name}, far away"
                yield f"{text}: standardise the targets, (y - mean) / std, or is the last layer bounded?"


def not_trained(look):
    """Why the optimizer's step changes nothing."""
    if not look.optimizers:
        return
    has_none = all(p.grad_mean is None and not p.grad_nonfinite for p in look.parameters)
    if not look.seen and look.without_gradients:
        text = "the watched model was called inside torch.no_grad only, so that its layers are not seen"
        yield text + (": is it the one that the loop trains?" if has_none else "")
    elif not look.seen:
        text = "the watched model was not called before this step, or inside torch.compile or torch.func"
        yield f"{text}: watch the one that the loop trains (was its cell run again?)"
    elif look.parameters and has_none:
        text = "no parameter has a gradient when the optimizer steps: call zero_grad() before backward(), and both"
        yield f"{text} before step(); look for detach, .item() or a new tensor in the loss"


def changed_with_depth(look):
    """Sizes that were right at first, where nothing else is said that may be the cause."""
    causes = [text for texts in look.said.values() for text in texts if any(cause in text for cause in TOO_LONG)]
    is_explained = causes or layers.are_stuck(look) or look.has_said(layers.not_finite)
    if look.is_later(layers.change_with_depth) and not is_explained:
        for text in look.says(layers.changes):
            yield f"{text}; it was not so at first: the steps were probably too long, or weight decay too strong"


def grows_without_end(look):
    """An output that is far larger than at first, where nothing else is said that may be the cause."""
    is_explained = look.were_far or look.has_said(layers.not_finite, rates.too_high_or_too_low, changed_with_depth)
    if is_explained or look.has_learned or not (look.first and look.activations and look.first.activations):
        return
    first, now = look.first.activations[-1], look.activations[-1]
    sizes = [max(abs(row.mean or 0), row.std or 0) for row in (first, now)]
    if first.name == now.name and sizes[1] > GROWN * max(1, sizes[0]):
        text = f"the output, {now.name}, was {sizes[0]:.1e} in size at first and is {sizes[1]:.1e}"
        yield f"{text}; does the loss fall without end (is its sign right?), or is the learning rate too high?"


def rate_has_fallen(records):
    """A learning rate that was next to nothing for more than a third of the (step, Diagnosis) given, after its peak."""
    rates = [(step, [p.lr for p in diagnosis.parameters if p.lr is not None]) for step, diagnosis in records]
    rates = [(step, max(those)) for step, those in rates if those]
    if len(rates) < 2:  # a scheduler may begin, or end, with 0
        return
    most = max(rate for _, rate in rates)
    peak = [rate for _, rate in rates].index(most)
    low = [(step, rate) for step, rate in rates[peak:] if rate < LOW * most]
    if most == 0:
        yield "the learning rate is 0 in all recorded steps: is scheduler.step() called, or has its schedule ended?"
    elif len(low) > max(1, len(rates) / 3):
        text = f"the learning rate fell from {most:.1e} to {low[0][1]:.1e} by step {low[0][0]:,}"
        yield f"{text}, and little is learned there: is the scheduler stepped per batch in place of per epoch?"
