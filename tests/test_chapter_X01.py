"""Lesson X01: what its networks are, against plain torch; its exercise, against wrong answers that it does not list."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks import check_three_faults
from helpers.diagnostics import diagnose, watch
from notebook_cells import execute, read
from notebook_parts import exercises


@pytest.fixture
def exercise():
    (found,) = exercises(read("X01_your_own_network"))
    return found


def written(source):
    """What an answer to the exercise defines: (Net, training_step)."""
    space = {"nn": nn, "F": F, "torch": torch}
    execute(source, space)
    return space["Net"], space["training_step"]


def test_the_gpt_looks_back_only(chapter):
    torch.manual_seed(0)
    gpt, idx = chapter["GPT"](), torch.randint(0, 27, (2, 16))
    changed = idx.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % 27
    torch.testing.assert_close(gpt(idx)[0][:, :10], gpt(changed)[0][:, :10])
    assert not torch.allclose(gpt(idx)[0][:, 10:], gpt(changed)[0][:, 10:])


def test_the_gpt_shares_its_table_and_std_sets_every_matrix(chapter):
    torch.manual_seed(0)
    gpt = chapter["GPT"](std=0.02)
    assert gpt.head.weight is gpt.tok.weight
    assert all(0.015 < p.std() < 0.025 for p in gpt.parameters() if p.dim() == 2)
    idx, targets = chapter["windows"](torch.Generator().manual_seed(0))
    logits, loss = gpt(idx, targets)
    torch.testing.assert_close(loss, F.cross_entropy(logits.transpose(1, 2), targets))


def test_windows_are_shifted_by_one(chapter):
    idx, targets = chapter["windows"](torch.Generator().manual_seed(0), n=8)
    assert idx.shape == targets.shape == (8, 16)
    assert torch.equal(idx[:, 1:], targets[:, :-1])


def test_the_plain_layers_are_what_torch_would_do(chapter):
    layers = chapter["make_layers"](lambda fan_in: 1 / fan_in)
    x = chapter["X"][:5]
    expected = chapter["C"][x].flatten(1)
    for layer in layers[1:]:
        is_tanh = type(layer) is chapter["Tanh"]
        expected = expected.tanh() if is_tanh else F.linear(expected, layer.weight.T)
    out = x
    for layer in layers:
        out = layer(out)
    torch.testing.assert_close(out, expected)


def test_one_minibatch_is_spoiled_and_the_others_are_the_same(chapter):
    spoiled, clean = (list(chapter["image_batches"](at, 4)) for at in (2, None))
    for step, ((x, y), (x0, y0)) in enumerate(zip(spoiled, clean, strict=True)):
        assert torch.equal(y, y0)
        assert torch.equal(x, 128 + 64 * x0 if step == 2 else x0)
        assert abs(x0.std() - 1) < 0.1


def test_watching_leaves_the_training_as_it_is(chapter):
    net = chapter["conv_net"]()
    losses, seen = chapter["train_images"](chapter["image_batches"](None, 8), net)
    twin, alone = chapter["conv_net"](), []
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.007, momentum=0.9)
    for x, y in chapter["image_batches"](None, 8):
        loss = F.cross_entropy(twin(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        alone.append(loss.item())
    assert losses == alone
    assert [step for step, _ in seen.records] == [0, 5]


def test_the_exercise_names_what_diagnose_names(exercise, chapter):
    """The stub has the three faults: two are found by diagnose, and the check is not yet attempted."""
    answer = written(exercise.stub)
    net = answer[0]()
    report = diagnose(net, chapter["X"][:64], chapter["Y"][:64], optimizer=torch.optim.SGD(net.parameters(), lr=0.1))
    assert sum("ModuleList" in w for w in report.warnings) == 1
    assert sum("softmax" in w for w in report.warnings) == 1
    assert check_three_faults(answer).status == "not attempted"


def test_the_third_fault_shows_in_what_watch_records(exercise, chapter):
    """Hint 2: without zero_grad the steps are too large, and grad:data grows in the first records."""
    forgetful, seen = exercise.solutions[0].replace("    net.zero_grad()\n", ""), {}
    for name, source in (("forgetful", forgetful), ("right", exercise.solutions[0])):
        Net, training_step = written(source)
        torch.manual_seed(0)
        net, g = Net(), torch.Generator().manual_seed(1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with watch(net, optimizer) as seen[name]:
            for _ in range(200):
                ix = torch.randint(0, len(chapter["X"]), (32,), generator=g)
                training_step(net, optimizer, chapter["X"][ix], chapter["Y"][ix])
    assert seen["right"].warnings == []
    assert any("steps were probably too long" in warning for warning in seen["forgetful"].warnings)
    first = [report.parameters for _, report in seen["forgetful"].records[:3]]
    sizes = [next(row.grad_to_data for row in rows if row.name == "hidden.0.weight") for rows in first]
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize(
    ("was", "new", "said"),
    [
        ("F.cross_entropy(net(x), y)", "F.cross_entropy(net(x).softmax(-1), y)", "F.cross_entropy"),
        ("F.cross_entropy(net(x), y)", "F.nll_loss(net(x), y)", "F.cross_entropy"),
        ("return self.output(x)", "return self.output(x).sigmoid()", "logits"),
        ("nn.Linear(100, 100)])", "nn.Linear(100, 100)]).requires_grad_(False)", "all four"),
        ("    net.zero_grad()", "    net.output.zero_grad()", "added"),
        ("optimizer.step()", "[p.data.sub_(0.1 * p.grad) for p in net.parameters()]", "optimizer.step"),
    ],
)
def test_a_fault_that_was_moved_is_still_there(exercise, was, new, said):
    Net, training_step = written(exercise.solutions[0].replace(was, new))
    result = check_three_faults((Net, training_step))
    assert result.status == "wrong" and said in result.misconception
    for pair in ((Net(), training_step), (training_step, Net)):
        assert "in this order" in check_three_faults(pair).misconception
