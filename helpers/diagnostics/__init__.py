"""Read any network's health: what its layers put out, what gradients reach them, how fast its weights learn.

``diagnose`` looks at one step, ``watch`` at a training. The folder needs torch and matplotlib and nothing else: copy it.

statistics, rows, diagnosis   what is measured, and what each number means: begin here
pictures, axes                the lecture's four pictures
judgements                    what counts as unhealthy, a function for each
hooks, functions              how layers and functions are seen while the network runs
losses, trial                 the loss of any output, and a step that is taken back
networks, given, holdings     any kind of network, what is refused, and how all is left as it was
watch, passes, over_time,
frames, live                  a training: its own passes, what changes, drawn while it runs
"""

from collections.abc import Mapping

import torch
from torch.autograd.graph import get_gradient_edge
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_map_only

from .diagnosis import Diagnosis
from .given import check_given, with_remedy
from .holdings import held, left_as_it_was
from .hooks import Watcher, tensors_in
from .judgements import STEP, Look, layers, rates
from .losses import by_hand, computed_from, fitting, has_learned, loss_number, read_from_gradient, that_count
from .networks import Network
from .pictures import layer_colors, plot_activations, plot_gradients, plot_parameter_gradients, plot_update_ratios
from .rows import LayerRow, ParameterRow, layer_rows, parameter_rows
from .statistics import Histogram, layer_statistics, tensor_statistics
from .trial import Trial, check_optimizer, listed
from .watch import watch

__all__ = ["Diagnosis", "Histogram", "LayerRow", "ParameterRow", "diagnose", "layer_colors", "plot_activations"]
__all__ += ["plot_gradients", "plot_parameter_gradients", "plot_update_ratios", "watch"]


def diagnose(
    model, inputs, targets=None, loss_fn=cross_entropy, *, lr=None, optimizer=None, parameters=None, histograms=True
):
    """One forward and backward pass of any network, measured layer by layer and parameter by parameter.

    model: an nn.Module, a list of layers, an object with a __call__, or a function of plain tensors. parameters: of
    what is no Module, a list or a dict by name; by default those that the loss depends on. inputs: a tensor, a tuple
    (positional arguments) or a dict (keyword arguments). The loss is ``loss_fn(output, targets)``, or
    ``loss_fn(output)`` without targets; with loss_fn=None there is none, and no gradients. lr: judges
    ``lr * gradient``, plain SGD's update. optimizer: judges the step it would take, tried on copies; with lr, if that
    is given too; a list of several that share the model. histograms=False leaves the histograms out: a look for every
    few steps of a training, at half the price.

    The mode, train or eval, is the one that the model is in. What the model, the loss_fn and the inputs hold, the
    optimizer and the random states stay exactly as they are, even when the model raises. (Not caches that were begun,
    iterators, files. All tensors are copied for that: a model that holds its data set makes a look slow.) Scripted
    functions are not looked into. Where steps look too long, a few are tried on the same examples, and taken back.

    A container that only hands on what its last layer returned has no row; one that computes something itself
    (a residual sum) has. Raises ValueError, with the remedy, for a loss that is not one number and for what can't be
    read. Source: the lecture, 1:26:51 to 1:46:04.
    """
    check_given(targets, loss_fn, lr)
    optimizers = listed(optimizer)
    for each in optimizers:
        check_optimizer(each, "param_groups", "lr=")
    network = Network(model, parameters)

    def see(seen, tensor):
        seen.readings = layer_statistics(tensor, seen.bounds, seen.unit, histograms)
        seen.gradient = get_gradient_edge(tensor) if tensor.requires_grad else None

    def loss_of(output):
        arguments = fitting(loss_fn, output, targets)
        with with_remedy("targets", targets, network):
            return loss_number(loss_fn(*arguments))

    def run(inputs):
        """The output once more, by the same random numbers."""
        torch.set_rng_state(random_state)
        return network(*_arguments(inputs))

    random_state = torch.get_rng_state()
    reached = network.reached | held(loss_fn, network.parameters, inputs, targets, *map(type, optimizers))
    with left_as_it_was(reached), torch.inference_mode(False), torch.set_grad_enabled(loss_fn is not None):
        # Forward: whatever a layer or a function puts out is measured as it comes.
        with Watcher(network, see) as watcher:
            with with_remedy("inputs", inputs, network):
                output = watcher.call(*_arguments(inputs))
            loss = None if loss_fn is None else loss_of(output)
        seen, functions = watcher.seen, watcher.functions
        # Backward: the gradient at each of them, and at the parameters.
        results = [*tensors_in(output), loss] if network.parameters is None else []
        parameters = functions.parameters(computed_from(results, inputs, functions.made))
        logits = next((t for t in tensors_in(output) if t.requires_grad and t.dim() > 1), None)
        with with_remedy("loss", loss, network):
            calls = list(functions.losses)
            ends = seen, parameters.values(), logits, calls
            at_layers, at_parameters, (at_logits, *at_calls) = _gradients(loss, *ends)
        for row, gradient in zip(seen, at_layers, strict=True):
            row.gradient = tensor_statistics(gradient, histograms)
        # Update: the step that the optimizer would take.
        with Trial(optimizers, lr, parameters.values(), at_parameters) as trial:
            changes = trial.changes()
            tensors = trial.values, at_parameters, changes
            rows = parameter_rows(network, functions.uses, parameters, *tensors, optimizers, lr, histograms)
            losses = list(map(that_count, calls, at_calls)) or read_from_gradient(logits, at_logits)
            losses = losses or [by_hand(output, targets, loss)]
            look = Look(network, functions, losses, seen, parameters, inputs, targets, output, loss_fn, loss)
            look.optimizers, look.is_step = optimizers, lr is not None or bool(optimizers)
            look.has_learned = any(map(has_learned, losses))
            look.activations, look.gradients = layer_rows(seen)
            look.parameters, look.run = rows, run
            vars(look).update(ways := layers.ways(look))
            look.rises = trial.raises(loss, lambda: loss_of(run(inputs))) if rates.steps_are_long(look) else None
        findings = look.judge(STEP)

    number, gradients = (None, []) if loss is None else (loss.item(), look.gradients)
    return Diagnosis(look.activations, gradients, rows, number, findings, look.rises, look.has_learned, **ways)


def _arguments(inputs):
    """(positional, keyword) arguments: copies, as the first layer may work in place."""
    inputs = tree_map_only(torch.Tensor, torch.clone, dict(inputs) if isinstance(inputs, Mapping) else inputs)
    return ((), inputs) if isinstance(inputs, dict) else (inputs if type(inputs) is tuple else (inputs,), {})


def _gradients(loss, seen, parameters, logits, calls):
    """The loss's gradients: at what was seen, at the parameters, at the logits and the calls' losses; None for none."""
    edges = [row.gradient for row in seen] + [p if p.requires_grad else None for p in parameters]
    edges += [logits, *(call.edge for call in calls)]
    wanted, found = [edge for edge in edges if edge is not None], iter(())
    if loss is not None and loss.requires_grad and wanted:
        found = iter(torch.autograd.grad(loss.sum(), wanted, retain_graph=True, allow_unused=True))
    gradients = [None if edge is None else next(found, None) for edge in edges]
    others = len(edges) - len(calls) - 1
    return gradients[: len(seen)], gradients[len(seen) : others], gradients[others:]
