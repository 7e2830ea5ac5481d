"""Lesson X01: a network and its training step with three faults, to be mended."""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.kinds import conditions

_PAIR = "Pass both, in this order: `check_three_faults((Net, training_step))`."
_LIST = "`net.parameters()` does not see layers in a plain list: which container of torch.nn shows them?"
_SOFTMAX = "F.cross_entropy takes logits, any numbers: it has a softmax of its own."
_ADDED = "The gradients of one step are added to those of the steps before. What takes them away?"
_NO_STEP = "The step has no effect on the weights: backward, then `optimizer.step()`."
_ALL = "Keep the embedding, both hidden layers and the output, and let all four train."
_BEND = "Keep the tanh behind both hidden layers: without it two layers are one matrix."
_LOSS = "Leave the loss and the step as they are: F.cross_entropy of the network's output, backward, optimizer.step()."


@conditions("the network and its step", "lesson X01", 5211)
def check_three_faults(answer):
    """(Net, training_step): the class of a network, and f(net, optimizer, x, y) that takes one step of training."""
    yield isinstance(answer, (tuple, list)) and len(answer) == 2, f"a {type(answer).__name__} was given", _PAIR
    make, step = answer
    if make is not ... and step is not ...:
        in_order = callable(make) and callable(step) and not isinstance(make, nn.Module) and not isinstance(step, type)
        yield in_order, f"a {type(make).__name__} and a {type(step).__name__} were given", _PAIR
    torch.manual_seed(0)
    net, (x, y) = make(), (torch.arange(96).view(32, 3) % 27, torch.arange(32) % 27)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # a layer that starts at zero would hide the others
    output = net(x)
    hidden = not _leaves(output) <= {id(p) for p in net.parameters()}
    far = _with(net, x, [(p, 100 * p) for p in net.parameters()])
    softmaxed = bool((output >= 0).all() or far.abs().max() <= 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    (moved, first), _, (_, third) = [_step(net, step, optimizer, x, y) for _ in range(3)]
    yield not hidden or not softmaxed or third, "all three faults are still there"
    yield not hidden, "the output depends on tensors that are not among the network's parameters", _LIST
    yield not softmaxed, "the output stays between 0 and 1, -1 and 1, or above 0: these are no logits", _SOFTMAX
    weights = [p for p in net.parameters() if p.requires_grad and p.dim() > 1]
    found = torch.autograd.grad(F.cross_entropy(net(x), y), weights, materialize_grads=True)
    layers = sum(bool(gradient.any()) for gradient in found)
    yield layers >= 4, f"{layers} layers of the network have a weight that gets a gradient", _ALL
    straight = sum(_is_straight(net, x, p) for p in weights)
    yield straight < 2, f"the output is a straight line in {straight} of the weights", _BEND
    yield moved, "no weight has changed after a step", _NO_STEP
    yield first, "the first step is not lr times the gradient of F.cross_entropy(net(x), y)", _LOSS
    yield third, "the third step is not lr times the gradient of its own batch", _ADDED


@torch.no_grad()
def _with(net, x, values):
    """net(x) with other values in its parameters: pairs (parameter, value)."""
    before = [(p, p.clone()) for p, _ in values]
    [p.copy_(value) for p, value in values]
    output = net(x)
    [p.copy_(value) for p, value in before]
    return output


def _is_straight(net, x, weight):
    """Whether half a change of the weight makes half of the change of the output."""
    change = torch.randn_like(weight) * weight.std()
    first, half, last = (_with(net, x, [(weight, weight + part * change)]) for part in (0, 0.5, 1))
    return torch.allclose(half, (first + last) / 2, atol=1e-4, rtol=1e-3)


def _leaves(output):
    nodes, found, done = [output.grad_fn], set(), set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in done:
            done.add(node)
            found |= {id(node.variable)} if hasattr(node, "variable") else set()
            nodes += [n for n, _ in node.next_functions]
    return found


def _step(net, step, optimizer, x, y):
    """(whether a step changes anything, whether that is lr times the gradient of this batch, and of nothing else)."""
    parameters, in_a_row = [p for p in net.parameters() if p.requires_grad], nn.utils.parameters_to_vector
    due = in_a_row(torch.autograd.grad(F.cross_entropy(net(x), y), parameters, materialize_grads=True))
    before = in_a_row(parameters).detach().clone()
    step(net, optimizer, x, y)
    change = in_a_row(parameters).detach() - before
    return change.any(), (change + 0.2 * due).norm() < 0.002 * due.norm()
