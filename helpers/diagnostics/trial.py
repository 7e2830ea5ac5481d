"""The optimizer: how it would change the parameters, and whether a few such steps raise the loss."""

import copy

import torch

from .given import kind_of

# On the same examples. The course's deep network at rate 3: loss 3.3, 2.0, 3.8, 6.5, 20, 86. Six healthy layers of
# ReLU, whose weights move as far by the first step: 3.9, 2.7, 2.2, 2.0, 1.8, 1.6. Too high by less: the mean rises alone.
STEPS = 5


def listed(optimizer):
    """The optimizers in a list: none, one, or several that share a model (Muon for matrices, Adam for the rest)."""
    several = isinstance(optimizer, (list, tuple))
    return list(optimizer) if several else [] if optimizer is None else [optimizer]


def held_by(optimizers):
    """id of a parameter -> (the optimizer that holds it, its group there)."""
    groups = [(optimizer, group) for optimizer in optimizers for group in optimizer.param_groups]
    return {id(p): (optimizer, group) for optimizer, group in groups for p in group["params"]}


def check_optimizer(optimizer, needs, otherwise):
    """needs: an attribute of torch's optimizers. otherwise: what to give in place of one."""
    if isinstance(optimizer, type) or not (optimizer is None or hasattr(optimizer, needs)):
        remedy = f"give a torch.optim.Optimizer over the parameters, or {otherwise}"
        if hasattr(getattr(optimizer, "optimizer", None), needs):  # accelerate's, or Lightning's
            remedy = "give its .optimizer"
        if isinstance(optimizer, (list, tuple)):
            remedy = "give one of them; a second watch sees the steps of another one"
        raise ValueError(f"optimizer is {kind_of(optimizer)}: {remedy}")


class Trial:
    """``with Trial(...) as trial:`` steps by copies of the optimizers (by SGD, if there is only lr), taken back afterwards.

    gradients: those of the first step, in the order of the parameters; None for what does not move.
    """

    def __init__(self, optimizers, lr, parameters, gradients):
        self.given, self.lr, self.parameters, self.gradients = optimizers, lr, list(parameters), gradients
        self.copies, self.before = [], []  # (values, .grad) of each parameter, once there was a step

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for p, (values, grad) in zip(self.parameters, self.before, strict=False):
            p.data.copy_(values)
            p.grad = grad

    @property
    def values(self):
        """The parameters' values before the first step."""
        return [values for values, _ in self.before] or [p.detach() for p in self.parameters]

    def changes(self):
        """What the first step changes; None where it changes nothing, and where there is no optimizer."""
        if not self.given:
            return [None for _ in self.parameters]
        try:
            held = self._step(self.gradients)
        except Exception as error:  # LBFGS and SAM want to call the loss again
            name = ", ".join(type(optimizer).__name__ for optimizer in self.given)
            raise ValueError(f"{name} can't be tried on a copy ({error}): give lr= in place of optimizer=") from error
        pairs = zip(self.parameters, self.values, self.gradients, strict=True)
        return [None if g is None or id(p) not in held else p.detach() - old for p, old, g in pairs]

    def raises(self, loss, again):
        """Whether the loss is higher in the mean of STEPS steps; again: computes it. None where that is not possible."""
        learn = [p for p in self.parameters if p.requires_grad]
        try:
            if not self.before:
                self._step(self.gradients)
            total = (now := again()).item()
            for _ in range(STEPS - 1):
                found = iter(torch.autograd.grad(now.sum(), learn, retain_graph=True, allow_unused=True))
                self._step([next(found) if p.requires_grad else None for p in self.parameters])
                total += (now := again()).item()
            return not total <= STEPS * loss.item()  # NaN is higher
        except Exception:  # noqa: BLE001  a model that can be called only once
            return None

    def _step(self, gradients):
        if not self.before:
            self.copies = [self._copied(optimizer) for optimizer in self.given]
            self.before = [(p.detach().clone(), p.grad if p.is_leaf else None) for p in self.parameters]
        if not self.copies:  # by hand: making torch's SGD imports its compiler, for more than a second
            for p, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is not None and p.is_leaf and p.requires_grad:
                    p.data.sub_(gradient, alpha=float(self.lr))
            return None
        held = held_by(self.copies)
        for p, gradient in zip(self.parameters, gradients, strict=True):
            if id(p) in held:
                p.grad = None if gradient is None else gradient.clone()
        for copied in self.copies:
            copied.step()
        return held

    def _copied(self, optimizer):
        """The optimizer with a state of its own, but with the very parameters."""
        memo = {id(p): p for p in self.parameters}
        copied = copy.deepcopy(optimizer, memo)
        lost = vars(optimizer).keys() - vars(copied).keys() - {"step", "zero_grad"}  # a scheduler wraps step
        vars(copied).update({key: copy.deepcopy(vars(optimizer)[key], memo) for key in lost})
        for group in copied.param_groups if self.lr is not None else ():
            group["lr"] = self.lr
        return copied
