"""Folded layers against the pairs they replace and against torch's own fusion; whole models, known and foreign."""

import contextlib
import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from helpers.folding import fold_batch_norms, fold_conv, fold_linear
from helpers.layers import BatchNorm1d, Linear
from helpers.models import deep_mlp, lecture_mlp, seeded
from helpers.resnet import resnet50

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, BatchNorm1d)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def worn(model, seed=0):
    """The model as after some training: no statistic and no gamma has the value that it was made with."""
    g = seeded(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, BATCH_NORMS):
                for parameter in module.parameters():  # of either sign, and one gamma exactly zero
                    parameter.normal_(generator=g)
                    parameter.flatten()[0] = 0
                if module.running_mean is not None:
                    module.running_mean.normal_(generator=g)
                    module.running_var.uniform_(0.01, 4, generator=g)
    return model.double().eval()


def close(a, b, tolerance=1e-12):
    """Within the tolerance, absolutely and relative to the largest entry."""
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1, b.abs().max().item()))


def same_parameters(a, b, tolerance):
    close(a.weight, b.weight, tolerance)
    close(a.bias, b.bias, tolerance)


def has_batch_norm(model):
    return any(hasattr(module, "running_mean") for module in model.modules())


# One layer and its BatchNorm

sizes = st.integers(1, 12)
epsilons = st.sampled_from([1e-12, 1e-5, 1e-3, 0.1])
seeds = st.integers(0, 10**6)


@settings(max_examples=20, deadline=None)
@given(n=sizes, fan_in=sizes, fan_out=sizes, bias=st.booleans(), affine=st.booleans(), eps=epsilons, seed=seeds)
def test_a_linear_folds_as_torch_folds_it(n, fan_in, fan_out, bias, affine, eps, seed):
    linear, norm = nn.Linear(fan_in, fan_out, bias=bias), nn.BatchNorm1d(fan_out, eps=eps, affine=affine)
    worn(nn.Sequential(linear, norm), seed)
    x = randn(n, fan_in, seed=seed) * 3 + 2
    close(fold_linear(linear, norm)(x), norm(linear(x)))
    if affine:  # torch's fusion can't do without
        same_parameters(fold_linear(linear, norm), fuse_linear_bn_eval(linear, norm), 1e-12)
        linear, norm = linear.float(), norm.float()
        same_parameters(fold_linear(linear, norm), fuse_linear_bn_eval(linear, norm), 1e-6)


@settings(max_examples=20, deadline=None)
@given(
    n=sizes,
    fan_in=sizes,
    fan_out=sizes,
    bias=st.booleans(),
    eps=st.sampled_from([0, 1e-5, 0.1]),
    correction=st.sampled_from([0, 1]),
    num_models=st.sampled_from([None, 1, 3]),
    seed=seeds,
)
def test_our_linear_folds_alone_and_in_a_stack(n, fan_in, fan_out, bias, eps, correction, num_models, seed):
    linear = Linear(fan_in, fan_out, bias=bias, num_models=num_models, generator=seeded(seed))
    norm = BatchNorm1d(fan_out, eps=eps, correction=correction, num_models=num_models)
    worn(nn.Sequential(linear, norm), seed)
    x = randn(n, fan_in, seed=seed) * 3 + 2
    folded = fold_linear(linear, norm)
    close(folded(x), norm(linear(x)))
    assert type(folded) is Linear and folded.bias.shape == norm.gamma.shape


def test_torchs_and_our_layers_fold_into_each_other():
    x = randn(8, 5)
    for linear in Linear(5, 7), nn.Linear(5, 7):
        for norm in BatchNorm1d(7), nn.BatchNorm1d(7), nn.SyncBatchNorm(7):
            pair = worn(nn.Sequential(linear, norm))
            close(fold_linear(linear, norm)(x), pair(x))
            close(fold_batch_norms(pair)(x), pair(x))


@settings(max_examples=30, deadline=None)
@given(
    dims=st.integers(1, 3),
    transposed=st.booleans(),
    groups=st.integers(1, 3),
    inside=st.integers(1, 3),
    outside=st.integers(1, 3),
    kernel_size=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    eps=epsilons,
    seed=seeds,
)
def test_a_convolution_folds_as_torch_folds_it(
    dims, transposed, groups, inside, outside, kernel_size, stride, padding, dilation, bias, eps, seed
):
    kind = [(nn.Conv1d, nn.Conv2d, nn.Conv3d), (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](groups * outside, eps=eps)
    conv = kind[transposed][dims - 1](
        groups * inside, groups * outside, kernel_size, stride, padding, dilation=dilation, groups=groups, bias=bias
    )
    worn(nn.Sequential(conv, norm), seed)
    x = randn(2, groups * inside, *[6] * dims, seed=seed) + 1
    folded = fold_conv(conv, norm)
    close(folded(x), norm(conv(x)))
    assert type(folded) is type(conv) and folded.stride == conv.stride and folded.groups == groups
    if not transposed or groups == 1:  # torch's fusion does not know a transposed convolution's groups
        same_parameters(folded, fuse_conv_bn_eval(conv, norm, transposed), 1e-12)
        conv, norm = conv.float(), norm.float()
        same_parameters(fold_conv(conv, norm), fuse_conv_bn_eval(conv, norm, transposed), 1e-6)


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 2, "padding_mode": "reflect"}])
def test_other_paddings_fold_too(options):
    pair = worn(nn.Sequential(nn.Conv2d(3, 4, 3, **options), nn.BatchNorm2d(4)))
    x = randn(2, 3, 8, 8)
    close(fold_conv(*pair)(x), pair(x))
    assert fold_conv(*pair).padding_mode == pair[0].padding_mode


def test_train_mode_does_not_matter_and_nothing_is_changed():
    pair = worn(nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))).train()
    before = copy.deepcopy(pair.state_dict())
    folded = fold_linear(*pair)
    assert pair[0].training and pair[1].training and not folded.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in pair.state_dict().items())
    x = randn(8, 5)
    close(folded(x), pair.eval()(x))
    with torch.no_grad():
        folded.weight.zero_()  # shares no memory with the original
    assert torch.equal(pair[0].weight, before["0.weight"])


def test_a_folded_layer_is_as_trainable_as_the_layer_was():
    linear, norm = nn.Linear(5, 7, bias=False), nn.BatchNorm1d(7)
    folded = fold_linear(linear, norm)
    assert folded.weight.is_leaf and folded.bias.is_leaf
    assert folded.weight.requires_grad and folded.bias.requires_grad
    folded = fold_linear(linear.requires_grad_(False), norm)
    assert not folded.weight.requires_grad and not folded.bias.requires_grad


def subclass(kind, method, change=torch.abs):
    """A subclass with a forward of its own that computes something else."""
    return type(
        f"My{kind.__name__}", (kind,), {method: lambda self, *inputs: change(getattr(kind, method)(self, *inputs))}
    )


def hooked(layer):
    layer.register_forward_hook(lambda module, inputs, output: output * 2)
    return layer


FIT = "BatchNorm1d does not normalise what.*Linear.*that fit"
CONV = "BatchNorm1d does not normalise what.*MyConv1d.*that fit"


@pytest.mark.parametrize(
    ("fold", "layer", "norm", "words"),
    [
        (fold_linear, nn.Linear(5, 7), nn.BatchNorm1d(7, track_running_stats=False), f"{FIT}.*track_run"),
        (fold_linear, nn.Linear(5, 7), nn.BatchNorm1d(5), FIT),
        (fold_linear, nn.Linear(5, 7), nn.BatchNorm1d(1), FIT),
        (fold_linear, Linear(5, 7, num_models=2), nn.BatchNorm1d(7), FIT),
        (fold_linear, Linear(5, 7), BatchNorm1d(7, num_models=2), FIT),
        (fold_linear, nn.Linear(5, 7), nn.BatchNorm2d(7), "BatchNorm2d does not normalise.*that fit"),
        (fold_linear, nn.Linear(5, 7), nn.LayerNorm(7), "LayerNorm does not normalise.*running statistics"),
        (fold_linear, nn.Tanh(), nn.BatchNorm1d(7), "BatchNorm1d does not normalise what Tanh"),
        (fold_linear, nn.Embedding(5, 7), nn.BatchNorm1d(7), "BatchNorm1d does not normalise what Embedding"),
        (fold_conv, nn.Conv2d(5, 7, 1), nn.BatchNorm1d(7), "BatchNorm1d does not normalise"),
        (fold_conv, nn.Conv1d(5, 7, 1), BatchNorm1d(7), "BatchNorm1d does not normalise"),
        (fold_linear, subclass(nn.Linear, "forward")(5, 7), worn(nn.BatchNorm1d(7)), FIT),
        (fold_linear, nn.Linear(5, 7), subclass(nn.BatchNorm1d, "forward")(7), "MyBatchNorm1d.*or does more"),
        (
            fold_linear,
            nn.Linear(5, 7),
            subclass(nn.BatchNorm1d, "forward", lambda out: out.clamp(-99, 99))(7),
            "does more",
        ),
        (fold_conv, subclass(nn.Conv1d, "_conv_forward")(5, 7, 1), worn(nn.BatchNorm1d(7)), CONV),
        (fold_linear, hooked(nn.Linear(5, 7)), nn.BatchNorm1d(7), "Linear has hooks"),
        (fold_linear, nn.Linear(5, 7), hooked(nn.BatchNorm1d(7)), "BatchNorm1d has hooks"),
        (fold_linear, nn.utils.spectral_norm(nn.Linear(5, 7)), nn.BatchNorm1d(7), "Linear has hooks"),
        (fold_linear, nn.utils.parametrizations.weight_norm(nn.Linear(5, 7)), nn.BatchNorm1d(7), "parametrized"),
        (fold_linear, nn.LazyLinear(7), nn.BatchNorm1d(7), "no shape yet.* call the model once"),
    ],
)
def test_pairs_that_do_not_fold_are_refused(fold, layer, norm, words):
    with pytest.raises(ValueError, match=words):
        fold(layer, norm)


@pytest.mark.parametrize("linear, norm", [(nn.Linear, nn.BatchNorm1d), (Linear, BatchNorm1d)])
def test_a_forward_of_its_own_that_computes_the_same_folds(linear, norm):
    same = (subclass(kind, "forward", lambda out: out * 1) for kind in (linear, norm))
    pair = worn(nn.Sequential(next(same)(4, 4), next(same)(4)))
    close(fold_batch_norms(pair)(rows()), pair(rows()))


def test_a_replaced_forward_is_refused():
    linear = nn.Linear(5, 7)
    linear.forward = lambda x: F.linear(x, linear.weight).abs()
    with pytest.raises(ValueError, match="forward replaced"):
        fold_linear(linear, nn.BatchNorm1d(7))


# The course's models


def characters(n=64):
    return torch.randint(0, 27, (n, 3), generator=seeded())


@pytest.mark.parametrize(
    ("model", "before", "after"),
    [
        (lambda: deep_mlp(batch_norm=True, generator=seeded()), 47_024, 46_497),
        (lambda: deep_mlp(depth=3, batch_norm=True, correction=0, generator=seeded()), 16_424, 16_197),
        (lambda: lecture_mlp("batchnorm", generator=seeded()), 12_097, 11_897),
        (lambda: deep_mlp(batch_norm=True, num_models=2, generator=seeded()), 94_048, 92_994),
    ],
)
def test_the_lectures_networks_fold(model, before, after):
    model = worn(model())
    folded = fold_batch_norms(model)
    assert sum(p.numel() for p in model.parameters()) == before
    assert sum(p.numel() for p in folded.parameters()) == after
    assert not has_batch_norm(folded) and not folded.training
    close(folded(characters()), model(characters()))
    close(folded.float()(characters()), model.float()(characters()), 1e-5)


def test_names_stay_and_the_copy_can_be_saved_and_copied():
    folded = fold_batch_norms(worn(deep_mlp(depth=2, batch_norm=True)))
    names = ["embedding.weight", "linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"]
    assert list(folded.state_dict()) == names
    out = folded(characters())
    for twin in copy.deepcopy(folded), pickle.loads(pickle.dumps(folded)), fold_batch_norms(folded):
        assert torch.equal(twin(characters()), out)


def test_a_folded_model_can_be_traced_again():
    folded = fold_batch_norms(worn(Images()))
    assert torch.equal(torch.fx.symbolic_trace(folded)(images()), folded(images()))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_folded_model_can_be_compiled_whole_and_scripted():
    model = worn(
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm1d(4))
    ).eval()
    folded = fold_batch_norms(model)
    for made in torch.compile(folded, backend="eager", fullgraph=True), torch.jit.script(folded):
        close(made(rows()), model(rows()))


def test_all_53_of_resnet50_fold():
    torch.manual_seed(0)
    model = resnet50(num_classes=10)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(-1, 1)
                module.bias.normal_(0, 0.2)
    folded = fold_batch_norms(model.eval())
    x = randn(1, 3, 32, 32, dtype=torch.float32)
    with torch.no_grad():
        close(folded(x), model(x), 1e-4)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 53 and not has_batch_norm(folded)
    saved = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in folded.parameters())
    assert saved == sum(norm.num_features for norm in norms)  # gamma and beta go, a bias comes
    assert {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Conv2d)} <= set(
        folded.state_dict()
    )


# Foreign models


def images():
    return randn(2, 3, 8, 8)


def rows():
    return randn(6, 4)


def network(forward, **modules):
    """A module with these children and this forward."""
    model = type("Network", (nn.Module,), {"forward": forward})()
    for name, module in modules.items():
        setattr(model, name, module)
    return model


def pair():
    return dict(a=nn.Linear(4, 4), bn=nn.BatchNorm1d(4))


class Images(nn.Module):
    """Functional calls, an in-place ReLU, a residual sum, nested Sequentials, a convolution alone in one of them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, bias=False)), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.conv, self.bn = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8, affine=False)
        self.up, self.up_bn = nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2), nn.BatchNorm2d(4)
        self.norm, self.linear, self.out = nn.GroupNorm(2, 4), nn.Linear(4, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(self.bn(self.conv(x)) + x, inplace=True)
        x = self.up_bn(self.up(x)).tanh_()
        x = F.adaptive_avg_pool2d(self.norm(x), 1)
        return self.out(self.linear(torch.flatten(x, 1)))


def twice():
    """A block with a BatchNorm in it is called twice, or three times."""
    block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh())
    return network(lambda m, x, y=None: m.block(m.block(x)) + (0 if y is None else m.block(y)), block=block)


def shared_batch_norm():
    """One BatchNorm behind two layers: each can have its scale."""
    return network(lambda m, x: m.bn(input=m.b(m.bn(m.a(x)).relu())), **pair(), b=nn.Linear(4, 4))


def inputs_of_two_kinds():
    model = network(lambda m, x: m.bn(m.a(x)) + m.bn(m.conv(x[:, :, None])).squeeze(2), **pair())
    model.conv = nn.Conv1d(4, 4, 1)
    return model


def listed():
    """Layers with two names and a list that no copy of the registered names would reach; a weight tied to another."""
    model = network(lambda m, x: m.tied(m.layers[1](m.layers[0](x))), **pair(), tied=nn.Linear(4, 4))
    model.tied.weight, model.alias = model.a.weight, model.a
    model.__dict__["layers"] = [model.a, model.bn]
    return model


def apart():
    """What comes before the BatchNorm is a container of your own, which has none."""
    inner = network(lambda m, x: m.b(m.a(x)), a=nn.Linear(4, 4, bias=False), b=nn.Linear(4, 4))
    return network(lambda m, x: m.bn(m.inner(x)), inner=inner, bn=nn.BatchNorm1d(4))


class Keeping(nn.Module):
    """Keeps what it computes, also in a list, and asks for the input's size in a part without BatchNorm."""

    class Inner(nn.Linear):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.tanh = nn.Tanh()

        def forward(self, x):
            return super().forward(x) if len(x) > 2 else x

    def __init__(self):
        super().__init__()
        self.inner, self.linear, self.bn = nn.Sequential(self.Inner(4, 4)), nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.size, self.kept = None, []

    def forward(self, x):
        self.size = x.shape[0]
        self.out = self.bn(self.linear(self.inner(x)))
        self.kept.append({"out": (self.out,)})
        return {"out": self.out, "noise": torch.rand(1)}["out"]


FOREIGN = [twice, shared_batch_norm, inputs_of_two_kinds, listed, apart, Keeping]


@pytest.mark.parametrize(("make", "inputs"), [(Images, images)] + [(make, rows) for make in FOREIGN])
def test_foreign_models_fold_and_stay_as_they_were(make, inputs):
    model, x = worn(make()).train(), inputs()
    next(iter(model.children())).eval()  # modes that are mixed
    model(x)  # with tensors kept
    state, kept = copy.deepcopy(model.state_dict()), dict(vars(model))
    modes, modules = [module.training for module in model.modules()], list(model.modules())
    random = torch.get_rng_state()
    folded = fold_batch_norms(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes and list(model.modules()) == modules
    assert dict(vars(model)) == kept and len(getattr(model, "kept", [1])) == 1
    after = model.state_dict()
    assert list(after) == list(state) and all(torch.equal(after[key], state[key]) for key in state)
    assert not has_batch_norm(folded)
    twin, expected = copy.deepcopy(folded), model.eval()(x)
    close(twin(x), expected)
    close(folded(x), expected)


def test_a_stored_result_is_no_symbol_afterwards():
    folded = fold_batch_norms(worn(Keeping()))
    assert not hasattr(folded, "out")
    pickle.loads(pickle.dumps(folded))


def test_a_model_without_batch_norm_is_copied_whatever_its_forward():
    model = network(
        lambda m, x: m.a(x) if x.sum() > 0 else x, a=nn.Linear(4, 4), norm=nn.LayerNorm(4), out=nn.Dropout()
    )
    folded = fold_batch_norms(model)
    assert folded is not model and not folded.training and model.training
    close(folded(rows().abs().float()), model.eval()(rows().abs().float()))
    listed = network(lambda m, x: m.a(x[0] if isinstance(x, list) else x), a=nn.Linear(4, 4))  # several ways, no matter
    close(fold_batch_norms(listed)([rows().float()]), listed([rows().float()]))


def test_a_batch_of_sequences_is_no_silent_mistake():
    """nn.BatchNorm1d takes (N, 4, 4) as 4 features in dimension 1; a Linear has them in the last."""
    model = worn(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    with pytest.raises(AssertionError, match="folded for inputs of 2 dimensions: flatten"):
        fold_batch_norms(model)(randn(3, 4, 4))
    own = nn.Sequential(nn.Linear(4, 4), YourOwn(4)).double().eval()  # has them in the last, too
    folded = fold_batch_norms(own)
    for x in randn(6, 4), randn(2, 3, 4), randn(2, 4, 4):
        close(folded(x), own(x))


def normalized(x, mean, var):
    return F.batch_norm(x, mean, var)


def normalized_elsewhere(x):
    return normalized(x, torch.zeros(4), torch.ones(4))


def unread(layer):
    return network(lambda m, x: m.layer(x) if len(x) else x, layer=layer)


def counting(m, x):
    m.n += 1
    return m.bn(m.a(x)) if m.n % 2 else m.a(x)


def catching(m, x):
    try:
        return m.bn(m.a(x)) if x.mean() > 100 else m.a(x)
    except ValueError:
        return m.bn(m.a(x))


def catching_the_length(m, x):
    try:
        many = len(x) > 2
    except (RuntimeError, TypeError, ValueError):
        many = True
    return m.bn(m.a(x)) if many else m.a(x)


def switching(m, x):
    m.bn.training = True
    return m.bn(m.a(x))


def asking_for_classes(m, x):
    for layer in (m.a, m.bn, m.b):
        x = layer(x) if isinstance(layer, (nn.Linear, nn.BatchNorm1d)) else layer(x) * 2
    return x


def summing(m, x):
    """A number that is computed from all weights."""
    return m.bn(m.a(x)), sum(p.square().sum() for p in m.parameters())


shared = nn.Linear(4, 4)
REFUSED = {
    "after a module": (lambda m, x: m.bn(m.inner(x)), {}, r"bn follows inner\.1 \(ReLU\), not directly"),
    "after a function": (lambda m, x: m.bn(F.relu(m.a(x))), {}, "bn follows relu, not directly"),
    "after a method": (lambda m, x: m.bn(m.a(x).tanh()), {}, "bn follows tanh, not directly"),
    "after the input": (lambda m, x: m.bn(x), {}, "bn follows the input x, not directly"),
    "after a sum": (lambda m, x: m.bn(m.a(x) + m.b(x)), {}, "bn follows add, not directly"),
    "after a batch norm": (lambda m, x: m.bn2(m.bn(m.a(x))), {"bn2": nn.BatchNorm1d(4)}, "bn2 follows bn .BatchNorm1d., "),
    "used elsewhere": (lambda m, x: m.bn(y := m.a(x)) + y, {}, "bn follows a, whose output also goes to add"),
    "changed in place": (lambda m, x: (y := m.a(x), m.bn(y), y.mul_(2))[1], {}, "a, whose output also.*mul_"),
    "returned too": (lambda m, x: (y := m.a(x), m.bn(y)), {}, "bn follows a, whose .* goes to the model's output"),
    "a shared layer": (lambda m, x: m.b(m.a(m.bn(m.a(x)))), {}, r"bn follows a, whose .* also goes to b \(Linear\)"),
    "never called": (lambda m, x: m.a(x), {}, "bn is not called as a layer"),
    "called by its forward": (lambda m, x: m.bn.forward(m.a(x)), {}, "can't follow|not called as a layer"),
    "weight read": (lambda m, x: m.bn(m.a(x)) @ m.a.weight, {}, "reads weights"),
    "gamma read": (lambda m, x: m.bn(m.a(x)) * m.bn.weight, {}, "can't follow.*no attribute 'weight'"),
    "an attribute read": (lambda m, x: m.bn(m.a(x)) * m.bn.num_features, {}, "can't follow.*'num_features'"),
    "weights summed": (summing, {}, "reads weights"),
    "classes asked for": (asking_for_classes, {}, "goes another way"),
    "other features": (lambda m, x: m.bn(m.a(x)), {"bn": nn.BatchNorm1d(5)}, "bn can't be folded into a: .*that fit"),
    "hook on the layer": (lambda m, x: m.bn(m.a(x)), {"a": hooked(nn.Linear(4, 4))}, "a has hooks"),
    "hook elsewhere": (lambda m, x: m.b(m.bn(m.a(x))), {"b": hooked(nn.Tanh())}, "b has hooks.*remove"),
    "hook around both": (
        lambda m, x: m.inner(x), {"inner": hooked(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))},
        "inner has hooks",
    ),
    "batch_norm called": (lambda m, x: F.batch_norm(m.b(m.bn(m.a(x))), m.m, m.v), {}, "Network calls batch_norm as a func"),
    "batch_norm called elsewhere": (lambda m, x: normalized_elsewhere(m.bn(m.a(x))), {}, "Network calls batch_norm as a func"),
    "branches by None": (lambda m, x, y=None: m.bn(m.a(x) if y is not None else m.a(x) + 1), {}, "bn follows add"),
    "other layers by None": (lambda m, x, y=None: m.bn(m.a(x) if y is None else m.b(x)), {}, "several ways, by y"),
    "branches by a number": (
        lambda m, x: m.bn(m.a(x)) if x.sum() > 0 else x, {}, r"can't follow Network.* at line .*x\.sum\(\) > 0",
    ),
    "branches by a flag": (lambda m, x, raw=False: m.a(x) if raw is True else m.bn(m.a(x)), {}, "not called.*flags"),
    "branches by gradients": (
        lambda m, x: m.bn(m.a(x)) if torch.is_grad_enabled() else m.a(x), {}, "not called.*no_grad",
    ),
    "branches by a list": (
        lambda m, x: m.a(torch.cat(x)) if isinstance(x, (list, tuple)) else m.bn(m.a(x)), {}, "a list of inputs",
    ),
    "branches by no list": (lambda m, x: m.a(x) if torch.is_tensor(x) else m.bn(m.a(x)), {}, "bn is not called"),
    "a way looked up": (
        lambda m, x, way="bn": {"raw": m.a}.get(way, lambda x: m.bn(m.a(x)))(x), {}, "can't follow.*way='bn'",
    ),
    "counts its calls": (counting, {}, "changes n, "),
    "counts in a buffer": (counting, {"n": nn.Buffer(torch.tensor(0))}, "changes n, "),
    "switches to train mode": (switching, {}, "changes bn.training"),
    "catches": (catching, {}, "can't follow.*catches"),
    "catches a length": (catching_the_length, {}, "can't follow.*catches"),
    "not registered": (lambda m, x: m.bn([nn.Linear(4, 4)][0](x)), {}, "can't follow Network's forward"),
    "shared with a part not looked into": (
        lambda m, x: m.bn(m.a(x)) + m.inner(x), {"a": shared, "inner": unread(shared)}, "bn follows a, whose output also goes to",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_folded_is_refused_by_name(case):
    forward, changes, words = REFUSED[case]
    others = dict(
        b=nn.Linear(4, 4), inner=nn.Sequential(nn.Linear(4, 4), nn.ReLU()), n=0, m=torch.zeros(4), v=torch.ones(4)
    )
    model = network(forward, **pair() | others | changes)
    random, state = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=words):
        fold_batch_norms(model)
    assert torch.equal(torch.get_rng_state(), random) and model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_layers_without_shapes_are_refused():
    for first, norm, words in [
        (nn.LazyLinear(4), nn.BatchNorm1d(4), "0 has no shape yet.* call the model once"),
        (nn.Linear(4, 4), nn.LazyBatchNorm1d(), "1 has no shape yet.* call the model once"),
        (nn.Linear(4, 4, device="meta"), nn.BatchNorm1d(4), "Linear .*no numbers.*load it"),
    ]:
        with pytest.raises(ValueError, match=words):
            fold_batch_norms(nn.Sequential(first, norm))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_model_in_a_wrapper_is_refused_and_what_to_fold_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="compiled by torch.jit"):
        fold_batch_norms(torch.jit.script(model))
    with pytest.raises(ValueError, match=r"OptimizedModule: fold its \._orig_mod"):
        fold_batch_norms(torch.compile(model))
    with pytest.raises(ValueError, match=r"DataParallel: fold its \.module"):
        fold_batch_norms(nn.DataParallel(model))


@pytest.mark.parametrize("model", [[nn.Linear(3, 3)], lambda x: x, nn.Sequential, None])
def test_what_is_no_module_is_refused(model):
    with pytest.raises(ValueError, match="no module: give a module"):
        fold_batch_norms(model)
    with pytest.raises(ValueError, match="no module"):
        fold_linear(nn.Linear(3, 3), model)


def test_a_batch_norm_alone_is_refused():
    with pytest.raises(ValueError, match="a BatchNorm1d alone: give one that has the layer before it"):
        fold_batch_norms(nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="0 follows the input"):
        fold_batch_norms(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)))


def test_a_model_that_keeps_running_statistics_itself_is_no_batch_norm_alone():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("running_mean", torch.zeros(4))
            self.register_buffer("running_var", torch.ones(4))

        def forward(self, x):
            return F.batch_norm(self.linear(x), self.running_mean, self.running_var)

    with pytest.raises(ValueError, match="Both calls batch_norm as a function"):
        fold_batch_norms(Both())


@pytest.mark.parametrize("kind", [list, nn.ModuleList])
def test_a_batch_norm_in_a_list_is_named(kind):
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = kind([nn.Linear(4, 4), nn.BatchNorm1d(4)])

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    if kind is list:
        with pytest.raises(ValueError, match="nn.ModuleList, not in a plain list"):
            fold_batch_norms(Listed())
    else:
        assert len(fold_batch_norms(Listed()).layers) == 2


# What looks like a BatchNorm


class Frozen(nn.Module):
    """As in torchvision: four buffers and a formula."""

    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.eps = eps
        for name, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
            self.register_buffer(name, torch.full((dim,), value) + torch.rand(dim, generator=seeded(len(name))))

    def forward(self, x):
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)


class YourOwn(nn.Module):
    """As a learner writes it: statistics of shape (1, dim), and a forward for each mode; `wrong` leaves out the std."""

    def __init__(self, dim, wrong=False):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(randn(dim)), nn.Parameter(randn(dim, seed=1))
        self.eps, self.wrong = 1e-3, wrong
        self.register_buffer("running_mean", randn(1, dim, seed=2))
        self.register_buffer("running_var", randn(1, dim, seed=3).square() + 0.1)

    def forward(self, x):
        mean, var = (x.mean(0), x.var(0)) if self.training else (self.running_mean, self.running_var)
        return self.gamma * (x - mean) / (1 if self.wrong else (var + self.eps).sqrt()) + self.beta


def test_what_looks_like_a_batch_norm_is_folded_if_it_is_one():
    models = [
        nn.Sequential(
            nn.Conv2d(3, 4, 3), Frozen(4), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3, groups=2), Frozen(6, eps=0.1)
        ),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
    ]
    for model, x in [(model, images()) for model in models] + [
        (nn.Sequential(nn.Linear(4, 5), YourOwn(5)), rows()),
        (nn.Sequential(Linear(4, 5), YourOwn(5), nn.Tanh()), rows()),
    ]:
        model = model.double().eval()
        folded = fold_batch_norms(model)
        assert not has_batch_norm(folded) and has_batch_norm(model)
        close(folded(x), model(x))
    pair = nn.Conv2d(3, 4, 3).double(), Frozen(4).double()
    close(fold_conv(*pair)(images()), pair[1](pair[0](images())))


def test_what_looks_like_a_batch_norm_and_is_none_is_named():
    for norm in YourOwn(4, wrong=True), subclass(YourOwn, "extra")(4, wrong=True), Frozen(4):
        with pytest.raises(ValueError, match=f"1 can't be folded into 0: {type(norm).__name__} does not normalise"):
            fold_batch_norms(nn.Sequential(nn.Linear(4, 4), norm))
    with pytest.raises(ValueError, match="1 follows 0 .Tanh., not directly"):
        fold_batch_norms(nn.Sequential(nn.Tanh(), YourOwn(4)))


def test_statistics_by_other_names_are_named_and_those_of_the_images_are_none():
    class Lectures(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.bngain, self.bnmean_running = nn.Parameter(torch.ones(1, dim)), nn.Buffer(torch.zeros(1, dim))
            self.bnstd_running = torch.ones(1, dim)

        def forward(self, x):
            return self.bngain * (x - self.bnmean_running) / self.bnstd_running

    with pytest.raises(ValueError, match="1 keeps bnstd_running, bnmean_running.*call them running_mean"):
        fold_batch_norms(nn.Sequential(nn.Linear(4, 4), Lectures(4)))
    kept = dict(mean=nn.Buffer(torch.zeros(3)), std=nn.Buffer(torch.ones(3)))
    model = worn(network(lambda m, x: m.bn(m.a((x - m.mean) / m.std)), a=nn.Linear(3, 4), bn=nn.BatchNorm1d(4), **kept))
    close(fold_batch_norms(model)(rows()[:, :3]), model(rows()[:, :3]))


def test_batch_norm_called_as_a_function_is_named_where_no_layer_is_one():
    def forward(m, x):  # can't be traced, so that its code must be read
        return normalized(m.linear(x), m.mean, m.var) if len(x) else x

    def model():
        return network(forward, linear=nn.Linear(4, 4), mean=torch.zeros(4), var=torch.ones(4))

    by_a_method = network(lambda m, x: m.norm(x) if len(x) else x)
    type(by_a_method).norm = lambda m, x: F.batch_norm(x, torch.zeros(4), torch.ones(4))
    for one in model(), by_a_method, nn.Sequential(nn.Linear(4, 4), model()):
        with pytest.raises(ValueError, match="(1|Network) calls batch_norm as a function.*nn.BatchNorm1d"):
            fold_batch_norms(one)
    named = worn(network(lambda m, x: m.batch_norm(m.a(x)), a=nn.Linear(4, 4), batch_norm=nn.BatchNorm1d(4)))
    close(fold_batch_norms(named)(rows()), named(rows()))  # a layer of that name is no reason to refuse


# What can't be followed or copied


class Augmenting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.bn = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x, augment=False):
        if augment:
            x = x + 1
        return self.bn(self.linear(x))


def test_the_argument_and_the_line_that_can_not_be_followed_are_named():
    with pytest.raises(ValueError, match=r"Augmenting's forward\(x, augment=False\) at line \d+, `if augment:`"):
        fold_batch_norms(Augmenting())


def test_what_can_not_be_copied_is_not_blamed_on_torch_fx():
    model = Keeping()
    model.kept = (number for number in range(3))
    with pytest.raises(ValueError, match="Keeping can't be copied.*generator"):
        fold_batch_norms(model)
    kind = type("Own", (nn.Sequential,), {"__deepcopy__": lambda self, memo: kind(*map(copy.deepcopy, self))})
    with pytest.raises(ValueError, match="Own.*without a BatchNorm"):  # its copies keep the BatchNorms
        fold_batch_norms(kind(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    model = nn.Sequential(nn.Linear(4, 4), hooked(nn.Tanh()))  # no BatchNorm at all, but a copy would share the hook
    with pytest.raises(ValueError, match="1 has hooks"):
        fold_batch_norms(model)


# What forward makes of sizes: torch's C code must never take a symbol for a tensor, or the process dies

SIZES = """
torch.zeros(x.shape[0], 4)
torch.zeros((x.shape[0], 4))
torch.zeros(x.size())
torch.zeros(h.shape[0], h.shape[1], 1)
torch.zeros(x.shape[0], device=h.device, dtype=h.dtype)
torch.ones(x.shape[0], x.shape[0]).triu(1)
torch.arange(x.shape[1])
torch.linspace(0, 1, steps=x.shape[1])
torch.full((x.shape[0], 4), 0.5)
torch.full((4,), x.shape[0])
torch.full_like(h, x.shape[0])
torch.empty(x.shape[0], 4).fill_(2)
torch.rand(x.shape[0], 4) * 0
torch.randn(x.shape[0], 4) * 0
torch.randperm(x.shape[0]).sum()
torch.eye(x.shape[1])
h @ torch.eye(h.shape[-1], dtype=h.dtype)
torch.cat([torch.zeros(x.shape[0], 2), h], 1)
torch.tensor(x.shape[0])
torch.tensor([x.shape[0], 1.0])
torch.tensor(h)
F.one_hot(torch.arange(8), x.shape[1] + 4)
F.adaptive_avg_pool1d(h, x.shape[1])
F.interpolate(torch.ones(1, 1, 8), size=x.shape[1])
F.pad(torch.ones(8), (0, x.shape[0]))
torch.where(torch.ones(4) > 0, h, 0.0)
torch.ones(3).unsqueeze(x.dim() - 1)
torch.ones(24).view(x.shape[0], -1)
torch.ones(1, 4).repeat(x.shape[0], 1)
torch.ones(8, 8).narrow(0, 0, x.shape[0])
torch.ones(8).roll(x.shape[0])
torch.ones(8, 8).sum(x.dim() - 1)
torch.ones(10, 4)[h.argmax(1)]
torch.ones(8, 8)[x.shape[0]]
"""
NOT_FOLLOWED = """
torch.ones(1, 4).expand(x.shape[0], 4)
torch.ones(8, 8)[: x.shape[0]]
torch.Tensor(x.shape[0], 4)
torch.Tensor(h)
torch.as_tensor(h)
Double.apply(h)
scripted(h)
torch.func.grad(torch.sum)(h)
sum(h[:, i] for i in range(x.shape[1]))
[1, 2, 3, 4, 5, 6, 7][x.shape[0]]
len(x)
"""
FOLD_EACH = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from helpers.folding import fold_batch_norms

scripted = torch.jit.trace(torch.tanh, torch.ones(3))

class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

for line in sys.stdin.read().strip().splitlines():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.bn = nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.bn.running_mean += 1
        def forward(self, x):
            h = self.bn(self.a(x))
            return h, eval(line)

    print(line, end=" ", flush=True)
    model, x = Network().double().eval(), torch.randn(6, 4).double()
    try:
        folded = fold_batch_norms(model)
    except ValueError as error:
        print("is refused:", " ".join(str(error).split()))
    else:
        torch.testing.assert_close(folded(x), model(x))
        print("is folded")
"""


@pytest.mark.parametrize(
    ("lines", "words"), [(SIZES, "is folded"), (NOT_FOLLOWED, "is refused: torch.fx can't follow")]
)
def test_sizes_and_tensors_made_by_them_are_followed_or_refused(lines, words):
    """In a process of its own, which may die."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FOLD_EACH], check=False, input=lines, capture_output=True, text=True
    )
    said = done.stdout.strip().splitlines()
    assert done.returncode == 0, f"{said[-1]}: {done.returncode}\n{done.stderr}"
    for line, answer in zip(lines.strip().splitlines(), said, strict=True):
        assert answer.startswith(f"{line} {words}"), answer


def test_questions_of_the_forward_are_its_own_afterwards():
    before = isinstance, len, torch.zeros
    for forward in lambda m, x: m.bn(m.a(x)), lambda m, x: m.bn(m.a(x)) if len(x) else x:
        with contextlib.suppress(ValueError):
            fold_batch_norms(network(forward, **pair()))
    assert before == (isinstance, len, torch.zeros)


# What stands between a layer and its BatchNorm, in a BatchNorm, or in training only


class BatchNormAct(nn.BatchNorm1d):
    """As in timm: it drops and activates what it has normalised, itself."""

    def __init__(self, dim, act):
        super().__init__(dim)
        self.drop, self.act = nn.Dropout(), act

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_the_activation_of_a_batch_norm_stays():
    acts = nn.ReLU(inplace=True), nn.PReLU(init=0.5), nn.Hardswish(), nn.Identity()
    layers = [layer for act in acts for layer in (nn.Linear(4, 4), BatchNormAct(4, act))]
    model = worn(nn.Sequential(*layers))
    folded = fold_batch_norms(model)
    assert not has_batch_norm(folded) and folded.get_submodule("3.act") is not acts[1]
    assert {"3.act.weight", "0.bias"} < set(folded.state_dict()) < set(model.state_dict())
    twin = fold_batch_norms(folded)
    for made in folded, twin, torch.compile(folded, backend="eager", fullgraph=True), torch.jit.script(folded):
        close(made(rows()), model(rows()))
    with torch.no_grad():
        acts[1].weight.zero_()  # shares no memory with the original
    close(folded(rows()), twin(rows()))
    with pytest.raises(ValueError, match="BatchNormAct.*or does more"):
        fold_linear(*model[:2])


def test_an_activation_of_a_batch_norm_that_is_used_otherwise_is_refused():
    first = type("First", (BatchNormAct,), {"forward": lambda self, x: nn.BatchNorm1d.forward(self, self.act(x))})
    with pytest.raises(ValueError, match="1 can't be folded into 0: First does not normalise.*or does more"):
        fold_batch_norms(worn(nn.Sequential(nn.Linear(4, 4), first(4, nn.Tanh()))))
    unused = type("Unused", (BatchNormAct,), {"forward": lambda self, x: nn.BatchNorm1d.forward(self, x)})
    model = worn(nn.Sequential(nn.Linear(4, 4), unused(4, nn.Tanh())))
    close(fold_batch_norms(model)(rows()), model(rows()))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: (h := m.a(x), b := h.shape[0], m.bn(h).view(b, 2, -1))[2],
        lambda m, x: (h := m.a(x), m.bn(h) * h.size(1) / h.dim())[1],
        lambda m, x: (h := m.a(x), m.bn(h.contiguous()).to(h.device, h.dtype))[1],
        lambda m, x: m.bn(m.a(x.contiguous()).float().contiguous()),
    ],
)
def test_what_reads_or_changes_no_number_may_stand_between(forward):
    model, x = worn(network(forward, **pair())).float(), rows().float()
    folded = fold_batch_norms(model)
    assert not has_batch_norm(folded)
    close(folded(x), model(x), 1e-5)


def test_what_reads_numbers_may_not():
    for forward, words in [
        (lambda m, x: (h := m.a(x), m.bn(h.contiguous()) + h)[1], "a, whose output also goes to add"),
        (lambda m, x: (h := m.a(x), m.bn(h) @ h.T)[1], r"a, whose output also goes to \.T"),
        (lambda m, x: m.bn(m.a(x).half()), "bn follows half"),
        (lambda m, x: m.bn(x.contiguous()), "bn follows the input x"),
    ]:
        with pytest.raises(ValueError, match=words):
            fold_batch_norms(network(forward, **pair()))


def test_a_part_for_training_only_is_named_and_can_be_taken_out():
    def forward(m, x):
        if m.training and m.aux is not None:
            return m.bn(m.a(x)), m.aux(x)
        return m.bn(m.a(x))

    model = worn(network(forward, **pair(), aux=nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))))
    with pytest.raises(ValueError, match="aux.1 is not called as a layer.*or set the part that only training needs"):
        fold_batch_norms(model)
    model.aux = None
    close(fold_batch_norms(model)(rows()), model(rows()))


def test_a_part_that_is_not_looked_into_beside_a_container_that_is():
    model = worn(nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Sequential(Keeping.Inner(4, 4))))
    close(fold_batch_norms(model)(rows()), model(rows()))


def test_a_batch_norm_that_stays_in_train_mode_is_named():
    model = network(lambda m, x: m.bn(m.a(x)), **pair())
    type(model).train = lambda self, mode=True: nn.Module.train(self, mode).bn.__setattr__("training", True) or self
    with pytest.raises(ValueError, match="bn stays in train mode.*let Network.train pass it on"):
        fold_batch_norms(model)


def test_a_batch_norm_that_is_no_module_is_named():
    class Plain:
        def __init__(self):
            self.running_mean, self.running_var = torch.zeros(4), torch.ones(4)

        def __call__(self, x):
            return (x - self.running_mean) / self.running_var.sqrt()

    class Settings(dict):
        __getattr__ = dict.__getitem__

    settings = Settings(__deepcopy__=lambda memo: settings)
    assert len(fold_batch_norms(nn.Sequential(network(lambda m, x: x, settings=settings)))) == 1
    for norm in Plain(), [torch.tanh, Plain()], {"norm": Plain()}:
        model = network(lambda m, x: m.a(x), a=nn.Linear(4, 4), norm=norm)
        for whole in model, nn.Sequential(model):
            with pytest.raises(ValueError, match="keeps a Plain that is no nn.Module: let it be one"):
                fold_batch_norms(whole)


def test_batch_norm_called_as_a_function_is_named_however_deep_it_is():
    for model in (
        network(lambda m, x: twice_removed(m.a(x)), a=nn.Linear(4, 4)),
        network(lambda m, x: getattr(F, "batch_" + "norm")(m.a(x), torch.zeros(4), torch.ones(4)), a=nn.Linear(4, 4)),
    ):
        with pytest.raises(ValueError, match="Network calls batch_norm as a function"):
            fold_batch_norms(model)


def twice_removed(x):
    return normalized_elsewhere(x)
