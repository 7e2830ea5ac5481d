"""What a network is made of, whatever its kind: a module, plain classes, a list of layers, a function."""

from inspect import unwrap
from types import FunctionType, MethodType

import torch
from torch import nn

from .given import kind_of
from .holdings import CONTAINERS, held, is_own, parts


class Network:
    """A model of any kind: ``layers`` and ``tensors`` by their id, with their names; ``network(inputs)`` calls it.

    root: the model, or the original of a compiled one. parameters: the given ones by name (a list or a dict);
    None for the model's own, which are found when it has run, if it has no parameters().
    """

    def __init__(self, model, parameters=None):
        self.root = root = _original(model)
        self.is_list = isinstance(root, (list, tuple)) and not callable(root)
        self.is_given = parameters is not None
        if isinstance(root, type) or not (callable(root) or self.is_list):
            raise ValueError(f"model is {kind_of(root)}: give a module (an object), a function, or a list of layers")
        if self.is_list and not all(map(callable, root)):
            strange = next(type(layer).__name__ for layer in root if not callable(layer))
            raise ValueError(f"model is a list that holds a {strange}: give a list of layers")
        self.reached = held(root)
        name = getattr(root, "__name__", type(root).__name__).strip("<>")
        modules = nn.Module.named_modules(root) if isinstance(root, nn.Module) else ()
        self.layers = {id(m): (_written(path) or name, m) for path, m in modules}  # id -> (name, layer)
        for path, value in self.reached.values():
            ours = type(value).__module__.rpartition(".")[0] == __package__  # the hooks of a watch that is on
            if isinstance(value, nn.Module) or (is_own(value) and callable(value) and not ours):
                self.layers.setdefault(id(value), (_written(path) or name, value))
        layers = [layer for _, layer in self.layers.values()]
        for layer in (root, *layers):
            self._check(layer)
        self.tensors = {i: found for i, found in self.reached.items() if isinstance(found[1], torch.Tensor)}
        self.containers = set()  # the ids of layers that hold layers, themselves or in a list or dict
        self.owners = {}  # the class of the layer that holds a tensor, by the tensor's id
        for layer in layers:
            own = [part for _, part in parts(layer)]
            deeper = [part for value in own if isinstance(value, CONTAINERS) for _, part in parts(value)]
            if not self.layers.keys().isdisjoint(map(id, (*own, *deeper))):
                self.containers.add(id(layer))
            if isinstance(layer, nn.Module) or id(layer) not in self.containers:  # else its use says more
                self.owners |= {id(part): type(layer) for part in own if id(part) in self.tensors}
        self.parameters = self._own_parameters() if parameters is None else self.named(parameters)

    def _check(self, layer):
        root, why = self.root, None
        weights = layer._parameters.values() if isinstance(layer, nn.Module) else ()
        if isinstance(layer, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
            why = "lets nobody look inside: give the Python module or function that it was made from"
        elif isinstance(layer, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            why = "runs replicas of its module: give model.module"
        elif any(map(nn.parameter.is_lazy, weights)):
            why = "has no weights yet: let the model run once, model(inputs), before"
        elif layer is not root and isinstance(root, nn.Module) and any(getattr(p, "is_meta", False) for p in weights):
            why = "has no values (device meta): call to_empty(device=…) and load or initialise its weights"
        if why:
            raise ValueError(f"{type(layer).__name__} {why}")

    def __call__(self, args, kwargs):
        root = self.root
        has_no_forward = isinstance(root, nn.Module) and root.forward == MethodType(nn.Module.forward, root)
        if has_no_forward and type(root).__call__ is nn.Module.__call__:
            kind = type(root).__name__
            raise ValueError(f"model is a {kind}, which has no forward: give nn.Sequential(*layers), or a method of it")
        if not self.is_list:
            return root(*args, **kwargs)
        if len(args) != 1 or kwargs:
            raise ValueError("a list of layers takes one input: give a function, lambda a, b: …, for more")
        (x,) = args
        for place, layer in enumerate(self.root):
            self.place = place
            x = layer(x)
        return x

    def _own_parameters(self):
        """By name; None where nobody knows beforehand."""
        root, found = self.root, {}
        if isinstance(root, nn.Module):
            found = {_written(name): p for name, p in nn.Module.named_parameters(root)}
        elif not self.is_list and not hasattr(type(root), "parameters"):
            return None
        for layer in root if self.is_list else [root]:
            method = getattr(type(layer), "parameters", None)
            if method is not None and (layer is not root or method is not nn.Module.parameters):
                own = layer.parameters() if callable(method) else layer.parameters  # a property
                own = list(own.items() if isinstance(own, dict) else own)
                own = [p[1] if isinstance(p, tuple) and len(p) == 2 else p for p in own]  # (name, tensor)
                if not all(isinstance(p, torch.Tensor) for p in own):
                    return None  # nothing that can be read: they are found by their use
                found |= self.named([p for p in own if not any(p is q for q in found.values())])
        return found if found or isinstance(root, nn.Module) else None

    def named(self, parameters):
        """A list or dict of tensors as a dict by name."""
        is_dict, is_one = isinstance(parameters, dict), isinstance(parameters, torch.Tensor)
        values = [parameters] if is_one else list(parameters.values() if is_dict else parameters)
        strange = [value for value in values if not isinstance(value, torch.Tensor)]
        if strange or is_one:
            kind = type((strange or values)[0]).__name__
            raise ValueError(f"parameters is, or holds, a {kind}: give a list or dict of tensors")
        names = parameters if is_dict else [self.tensor_name(p, f"parameters[{i}]") for i, p in enumerate(values)]
        return dict(zip(map(str, names), values, strict=True))

    def held_leaves(self):
        """What may be its parameters before it has run: all tensors that it holds and that need a gradient."""
        return [t for _, t in self.tensors.values() if t.requires_grad and t.is_leaf]

    def tensor_name(self, tensor, otherwise):
        return self.tensors.get(id(tensor), (otherwise,))[0]


def _written(path):
    """A path as it was before torch.compile."""
    return path.replace("._orig_mod", "").replace("_orig_mod.", "")


def _original(model):
    if isinstance(model, nn.Module):
        return getattr(model, "_orig_mod", model)  # torch.compile's
    return unwrap(model) if isinstance(model, FunctionType) and hasattr(model, "_torchdynamo_orig_callable") else model
