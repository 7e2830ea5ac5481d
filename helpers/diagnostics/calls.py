"""What a call of torch's tells by the function's name and its arguments: is it an activation, a product, a loss?"""

from functools import cache

import torch

from .rows import ACTIVATIONS

# By the function's name, without underscores: torch.tanh, x.tanh_ and F.tanh are one.
BY_NAME = {name.lower(): name for name in ACTIVATIONS} | dict.fromkeys(["clamp", "clampmin", "clip"], "ReLU")
BY_NAME |= dict(specialexpit="Sigmoid", threshold="ReLU")
# What multiplies by a weight: the layer class that does the same, and the dimension of the units, from the end.
# 1: they are counted in dimension 1, from the front. None: it is not known.
PRODUCTS = dict.fromkeys(["linear", "matmul", "rmatmul", "mm", "bmm", "mv", "addmm", "baddbmm"], ("Linear", -1))
PRODUCTS |= {f"{kind.lower()}{n}d": (f"{kind}{n}d", -n - 1) for kind in ("Conv", "ConvTranspose") for n in (1, 2, 3)}
PRODUCTS |= dict(bilinear=("Bilinear", -1), einsum=("Linear", None), getitem=("Embedding", -1))
PRODUCTS |= dict(embedding=("Embedding", -1), embeddingbag=("EmbeddingBag", -1), layernorm=("LayerNorm", -1))
PRODUCTS |= dict(rmsnorm=("RMSNorm", -1), groupnorm=("GroupNorm", 1), instancenorm=("InstanceNorm1d", 1))
PRODUCTS |= dict(batchnorm=("BatchNorm1d", 1), nativebatchnorm=("BatchNorm1d", 1))
RECURRENT = {"lstm", "gru", "rnntanh", "rnnrelu", "multiheadattentionforward", "lstmcell", "grucell"}
RECURRENT |= {"scaleddotproductattention"}
# What leaves the units where they are.
ELEMENTWISE = (
    "add sub rsub mul div truedivide neg pow clone contiguous to float half bfloat16 double type typeas detach where "
    "dropout alphadropout dropout1d dropout2d dropout3d maskedfill nantonum addcmul lerp pad setitem fill zero copy"
)
BY_HAND = {"max", "maximum", "where", "mul"}  # may be a ReLU of one's own
MADE = {"requiresgrad"}  # x.requires_grad_(), x.requires_grad = True
RESHAPING = {"view", "reshape", "flatten", "getitem", "expand", "expandas", "permute", "transpose"}
RESHAPING |= {"squeeze", "unsqueeze"}
POOLING = {f"{kind}pool{n}d": -n - 1 for kind in ("max", "avg", "adaptivemax", "adaptiveavg", "lp") for n in (1, 2, 3)}
MIXING = {"view", "reshape", "softmax", "logsoftmax"}
LOSSES = {"crossentropy", "nllloss", "binarycrossentropy", "binarycrossentropywithlogits", "kldiv", "mseloss"}
LOSSES |= {"l1loss", "smoothl1loss", "huberloss", "softmarginloss", "hingeembeddingloss"}
OF_PAIRS = {"cosineembeddingloss", "marginrankingloss"}
KNOWN = {*MADE, *MIXING, *BY_NAME, *PRODUCTS, *RECURRENT, *ELEMENTWISE.split(), *BY_HAND, *RESHAPING, *POOLING}
KNOWN |= LOSSES | OF_PAIRS
GATES = {"Sigmoid", "Hardsigmoid", "Tanh"}


@cache
def key_of(func):
    """The function's name in the tables above; None if it does not matter."""
    name = getattr(func, "__name__", "")
    name = getattr(func.__self__, "__name__", "") if name == "__set__" else name
    name = name.replace("_", "").lower()
    return name if name in KNOWN else None


def is_mixing(key, output, x, dim=None, *_, **others):
    """Whether a view reads the sizes in another order, or a softmax sums over dimension 0."""
    if x.is_nested:
        return False
    if key.endswith("softmax"):
        dim = dim if dim is not None else 0 if x.dim() in (1, 3) else 1  # as torch guesses
        return x.dim() > 1 and dim in (0, -x.dim())
    was, now = ([n for n in t.shape if n > 1] for t in (x, output))
    if sorted(was) == sorted(now):
        return was != now
    return bool(now) and now[0] in was[1:] and was[0] % now[0] > 0  # what was counted inside is outermost


def spreads(output, a, b):
    """Whether (N, 1) and (N,) became (N, N): an output and its targets, as only one of them needs a gradient."""
    are_pairs = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.dim() != b.dim()
    return are_pairs and a.numel() == b.numel() < output.numel() and a.requires_grad != b.requires_grad


def argument(name, place, args, kwargs, default=None):
    return kwargs.get(name, args[place] if len(args) > place else default)


def is_mask_of_floats(mask):
    """Whether it holds 0.0 and 1.0, and nothing else: torch adds it to the scores."""
    is_mask = isinstance(mask, torch.Tensor) and mask.is_floating_point() and mask.numel() > 1
    return is_mask and mask.min() == 0 and mask.max() == 1 and bool(((mask == 0) | (mask == 1)).all())


def unit_of_product(key, unit, output, tensors, weights, args, kwargs):
    if key in ("matmul", "mm"):  # x @ W has the units last, W @ x in front of the examples
        left = bool(weights) and weights[-1] is tensors[0]
        return (-2 if output.dim() > 1 else -1) if left else -1 if weights else None
    if key in ("layernorm", "rmsnorm") and len(argument("normalized_shape", 1, args, kwargs)) > 1:
        return None
    return 1 - output.dim() if unit == 1 else unit


def is_lookup(table, index):
    """Whether C[X] looks up rows: X holds whole numbers."""
    whole = isinstance(index, torch.Tensor) and index.dtype in (torch.int64, torch.int32)
    return whole and table.dim() == 2 and table.requires_grad


def activation(key, output, args, kwargs):
    """The activation that a function is, or None: a clamp or a threshold is not always one."""
    if key in BY_HAND:
        return "ReLU" if _is_relu(key, output, args) else None
    if key == "threshold":
        return "ReLU" if argument("threshold", 1, args, kwargs) == 0 == argument("value", 2, args, kwargs) else None
    if not key.startswith(("clamp", "clip")):
        return BY_NAME.get(key)
    limits = argument("min", 1, args, kwargs), argument("max", 2, args, kwargs)
    is_hidden = args[0].requires_grad or not torch.is_grad_enabled()  # inputs are clamped, too
    if type(limits[0]) not in (int, float):
        return None
    return "ReLU" if limits == (0, None) else "Hardtanh" if limits == (-1, 1) and is_hidden else None


def _is_relu(key, output, args):
    """torch.max(x, zeros), torch.where(x > 0, x, 0), x * (x > 0): the larger of a tensor and 0, where some are below."""
    given = [a for a in args if isinstance(a, torch.Tensor)]
    numbers = [t for t in given if t.is_floating_point()]
    x = next((t for t in numbers if t.requires_grad or not torch.is_grad_enabled()), None)
    if key.startswith("max"):
        zeros = [t for t in numbers if t is not x and not t.requires_grad]
        may_be = len(numbers) == 2 and any(not t.any() for t in zeros)
    else:
        may_be = len(numbers) < len(given) <= 3 and any(t.dtype == torch.bool for t in given)
    if x is None or not may_be or torch._C._functorch.is_functorch_wrapped_tensor(output):
        return False
    return x.shape == output.shape and bool((x < 0).any()) and torch.equal(output, x.clamp(min=0))


def bounds(kind, args, kwargs):
    if kind == "Hardtanh":
        low, high = argument("min_val", 1, args, kwargs, -1), argument("max_val", 2, args, kwargs, 1)
        return "dies" if low == 0 else (low, high)
    return ACTIVATIONS.get(kind)
