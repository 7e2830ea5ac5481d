"""What E01 writes inline: the zeroing, the loop that records who moved, and the map of it."""

import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt

from helpers.models import deep_mlp, lecture_mlp, seeded
from helpers.train import train
from notebook_cells import definitions


@pytest.fixture(scope="module")
def chapter():
    return definitions("E01_zero_init")


@pytest.fixture
def ax():
    with matplotlib.rc_context():
        figure, ax = plt.subplots()
        yield ax
        plt.close(figure)


def test_who_moved_trains_as_train_does(chapter):
    ours, twin = (lecture_mlp("kaiming", generator=seeded(1)) for _ in range(2))
    start = {name: p.detach().clone() for name, p in twin.named_parameters()}
    moved = chapter["who_moved"](ours, steps=5, lr=0.3, generator=seeded(2))
    history = train(twin, chapter["X"], chapter["Y"], steps=5, lr=0.3, generator=seeded(2), progress=False)
    assert moved.loss == history.loss.tolist()
    for (name, p), q in zip(twin.named_parameters(), ours.parameters(), strict=True):
        assert torch.equal(p, q)
        assert moved.change[chapter["SHORT"][name]][-1] == (p - start[name]).abs().max().item()


def test_who_moved_records_the_largest_gradient_and_exact_zeros(chapter):
    net = chapter["zeroed"](lecture_mlp("kaiming", generator=seeded(1)))
    moved = chapter["who_moved"](net, steps=3, generator=seeded(2))
    assert [name for name, sizes in moved.gradient.items() if any(sizes)] == ["b2"]
    assert all(len(sizes) == 3 for part in (moved.gradient, moved.change) for sizes in part.values())
    ix = torch.randint(0, len(chapter["X"]), (32,), generator=seeded(2))
    counts = torch.bincount(chapter["Y"][ix], minlength=27)
    expected = (1 / 27 - counts / 32).abs().max().item()  # softmax of zeros, minus the mean one-hot
    assert moved.gradient["b2"][0] == pytest.approx(expected, abs=1e-6)
    assert moved.change["b2"][0] == pytest.approx(0.1 * expected, abs=1e-6)


def test_zeroed_spares_what_is_kept_and_batch_norm(chapter):
    net = lecture_mlp("original", generator=seeded(1))
    C, b1 = net.embedding.weight.detach().clone(), net.hidden.bias.detach().clone()
    assert chapter["zeroed"](net, keep={"C", "b1"}) is net
    assert torch.equal(net.embedding.weight, C)
    assert torch.equal(net.hidden.bias, b1)
    assert not any(p.any() for p in (net.hidden.weight, net.output.weight, net.output.bias))
    deep = chapter["zeroed"](deep_mlp(batch_norm=True, generator=seeded(1)))
    assert (deep.batch_norm1.gamma == 1).all()
    assert (deep.batch_norm6.gamma == 0.1).all()
    assert not any(p.any() for name, p in deep.named_parameters() if "batch_norm" not in name)


def test_the_map_tells_exact_zeros_small_steps_and_nan_apart(chapter, ax):
    gradient = {"a": [0.0, 0.0], "b": [1e-12, 0.5], "c": [float("nan"), 1.0]}
    change = {"a": [0.0, 0.0], "b": [0.0, 0.05], "c": [float("nan"), float("nan")]}
    image = chapter["draw_who_moved"](chapter["Moved"](gradient, change, [1.0, 1.0]), ax)
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in ax.texts}
    assert texts == {(0, 0): "0", (0, 1): "0", (1, 0): "~", (1, 1): "", (2, 0): "NaN", (2, 1): ""}
    shown = image.get_array()
    assert shown[1, 1] == pytest.approx(0.05)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1"]


def test_the_map_shows_the_steps_asked_for(chapter, ax):
    gradient, change = {"a": [1.0, 0.0, 2.0, 0.0]}, {"a": [0.1, 0.1, 0.2, 0.2]}
    image = chapter["draw_who_moved"](chapter["Moved"](gradient, change, [1.0] * 4), ax, at=[1, 2])
    assert [t.get_text() for t in ax.texts] == ["0", ""]
    assert image.get_array().tolist() == [pytest.approx([0.1, 0.2])]
