"""What a network is made of, whatever its kind: a module, plain classes, a list of layers, a function."""

from inspect import unwrap
from types import FunctionType

import torch
from torch import nn

from .holdings import held, inside, is_own, parts

__all__ = ["Network"]


class Network:
    """A model of any kind: ``layers`` and ``tensors`` by their id, with their names; ``network(inputs)`` calls it.

    root: the model, or the original of a compiled one. parameters: the given ones by name (a list or a dict);
    None for the model's own, which are found when it has run, if it has no parameters().
    """

    def __init__(self, model, parameters=None):
        self.root = root = _original(model)
        fits = (callable(root) and not isinstance(root, type)) or isinstance(root, (list, tuple))
        if not fits:
            kind = f"the class {root.__name__}" if isinstance(root, type) else f"a {type(model).__name__}"
            raise ValueError(f"model is {kind}: give a module (an object), a function, or a list of layers")
        self.reached = reached = held(root)
        self.name = getattr(root, "__name__", type(root).__name__).strip("<>")
        self.layers = {}  # id -> (name, layer)
        if isinstance(root, nn.Module):
            self.layers = {id(m): (_written(name) or self.name, m) for name, m in nn.Module.named_modules(root)}
        for path, value in reached.values():
            if isinstance(value, nn.Module) or (is_own(value) and callable(value)):
                self.layers.setdefault(id(value), (_written(path) or self.name, value))
        _refuse([root, *(layer for _, layer in self.layers.values())])
        self.containers = {
            i for i, (_, layer) in self.layers.items() if any(id(v) in self.layers for v in inside(layer))
        }
        self.tensors = {i: (path, value) for i, (path, value) in reached.items() if isinstance(value, torch.Tensor)}
        self.owners = {}  # the class of the layer that holds a tensor, by the tensor's id
        for i, (_, layer) in self.layers.items():
            if i in self.containers and not isinstance(layer, nn.Module):
                continue  # its use says more
            self.owners |= {id(v): type(layer) for _, v in parts(layer) if isinstance(v, torch.Tensor)}
        self.parameters = self._own_parameters() if parameters is None else self._named(parameters)

    def __call__(self, args, kwargs):
        if not isinstance(self.root, (list, tuple)):
            return self.root(*args, **kwargs)
        (x,) = args
        for place, layer in enumerate(self.root):
            self.place = place
            x = layer(x)
        return x

    def own_call(self, layer):
        """Whether a layer has a __call__ of its own, which torch's hooks do not see."""
        return type(layer).__call__ is not nn.Module.__call__

    def _own_parameters(self):
        """By name; None where nobody knows beforehand."""
        root, found = self.root, {}
        if isinstance(root, nn.Module):
            found = {_written(name): p for name, p in nn.Module.named_parameters(root)}
        layers = root if isinstance(root, (list, tuple)) else [root]
        for layer in layers:
            method = getattr(type(layer), "parameters", None)
            if method is None and not isinstance(root, (list, tuple)):
                return None
            if method is not None and method is not nn.Module.parameters:
                found |= self._named([p for p in layer.parameters() if not any(p is q for q in found.values())])
            elif isinstance(layer, nn.Module) and layer is not root:
                found |= self._named(list(nn.Module.parameters(layer)))
        return found if found or isinstance(root, nn.Module) else None

    def _named(self, parameters):
        if isinstance(parameters, dict):
            return parameters
        parameters = parameters if isinstance(parameters, torch.Tensor) else list(parameters)
        strange = [type(p).__name__ for p in parameters if not isinstance(p, torch.Tensor)]
        if strange or isinstance(parameters, torch.Tensor):
            raise ValueError(f"parameters is, or holds, a {(strange or ['Tensor'])[0]}: give a list or dict of tensors")
        return {self.tensor_name(p, f"parameters[{i}]"): p for i, p in enumerate(parameters)}

    def parameters_found(self, uses, leaves):
        """By name: the leaves, in the order in which the network used them first."""
        used = [t for i, (t, _) in uses.items() if i in leaves]
        return self._named([*used, *(t for i, t in leaves.items() if i not in uses)])

    def held_leaves(self):
        """What may be its parameters before it has run: all tensors that it holds and that need a gradient."""
        return [t for _, t in self.tensors.values() if t.requires_grad and t.is_leaf]

    def tensor_name(self, tensor, otherwise):
        return self.tensors[id(tensor)][0] if id(tensor) in self.tensors else otherwise


def _written(path):
    """A path as it was before torch.compile."""
    return path.replace("._orig_mod", "").replace("_orig_mod.", "")


def _original(model):
    if isinstance(model, nn.Module):
        return getattr(model, "_orig_mod", model)  # torch.compile's
    return unwrap(model) if isinstance(model, FunctionType) and hasattr(model, "_torchdynamo_orig_callable") else model


def _refuse(layers):
    for layer in layers:
        why = None
        if isinstance(layer, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
            why = "lets nobody look inside: give the Python module or function that it was made from"
        elif isinstance(layer, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            why = "runs replicas of its module: give model.module"
        elif isinstance(layer, nn.Module) and any(nn.parameter.is_lazy(p) for p in layer._parameters.values()):
            why = "has no weights yet: let the model run once, model(inputs), before"
        if why:
            raise ValueError(f"{type(layer).__name__} {why}")
