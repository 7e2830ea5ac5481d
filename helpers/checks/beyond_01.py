"""Lesson X01: a network and its training step with three faults, to be mended."""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.kinds import conditions
from helpers.checks.sandbox import Verdict

_PAIR = "Pass both, in this order: `check_three_faults((Net, training_step))`."
_LIST = "`net.parameters()` does not see layers in a plain list: which container of torch.nn shows them?"
_SOFTMAX = "F.cross_entropy takes logits: it has a softmax of its own."
_ADDED = "The gradients of one step are added to those of the steps before. What takes them away?"
_NO_STEP = "The step has no effect on the weights: backward, then `optimizer.step()`."


@conditions("the network and its step", "lesson X01", 5211)
def check_three_faults(answer):
    """(Net, training_step): the class of a network, and f(net, optimizer, x, y) that takes one step of training."""
    yield isinstance(answer, (tuple, list)) and len(answer) == 2, f"a {type(answer).__name__} was given", _PAIR
    make, step = answer
    torch.manual_seed(0)
    net, (x, y) = make(), (torch.arange(96).view(32, 3) % 27, torch.arange(32) % 27)
    output = net(x)
    hidden = not _leaves(output) <= {id(p) for p in net.parameters()}
    softmaxed = bool((output >= 0).all() and ((output.sum(1) - 1).abs() < 1e-3).all())
    first, third = (_length(make, step, x, y, steps) for steps in (1, 3))
    added = third > 1.1 * first
    if hidden and softmaxed and added:
        raise Verdict("all three faults are still there", status="not attempted")
    yield not hidden, "the output depends on tensors that are not among the network's parameters", _LIST
    yield not softmaxed, "the output is probabilities", _SOFTMAX
    yield first > 0, "no weight has changed after a step", _NO_STEP
    yield not added, "on the same batch the third step is larger than the first", _ADDED


def _leaves(output):
    nodes, found, done = [output.grad_fn], set(), set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in done:
            done.add(node)
            found |= {id(node.variable)} if hasattr(node, "variable") else set()
            nodes += [n for n, _ in node.next_functions]
    return found


def _length(make, step, x, y, steps):
    """How far the last of some tiny steps goes: as far as the first, if only its own gradient counts."""
    torch.manual_seed(0)
    net = make()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    for _ in range(steps):
        before = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
        step(net, optimizer, x, y)
    return (nn.utils.parameters_to_vector(net.parameters()) - before).norm().item()


def _answer(hold=nn.ModuleList, end=lambda logits: logits, zero=True, move=True):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.output = nn.Embedding(27, 10), nn.Linear(100, 27)
            self.hidden = hold([nn.Linear(30, 100), nn.Linear(100, 100)])

        def forward(self, x):
            x = self.embedding(x).flatten(1)
            for layer in self.hidden:
                x = layer(x).tanh()
            return end(self.output(x))

    def training_step(net, optimizer, x, y):
        if zero:
            optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        if move:
            optimizer.step()
        return loss.item()

    return Net, training_step


check_three_faults.right = _answer()
check_three_faults.mistakes = {
    _LIST: (_answer(hold=list), _answer(hold=list, zero=False)),
    _SOFTMAX: (
        _answer(end=lambda logits: logits.softmax(-1)),
        _answer(end=lambda logits: logits.softmax(-1), zero=False),
    ),
    _ADDED: (_answer(zero=False),),
    _NO_STEP: (_answer(move=False),),
    _PAIR: nn.Linear,
}
