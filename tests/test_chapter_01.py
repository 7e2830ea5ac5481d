"""Chapter 01's own loop against helpers.train, its counting against torch, and the cell that trains the whole run."""

import pytest
import torch
import torch.nn.functional as F

from helpers.checks.chapter_01 import four_datasets
from helpers.data import build_dataset
from helpers.models import lecture_mlp, seeded
from helpers.train import train
from notebook_cells import execute, read


def cell(beginning):
    (source,) = [c.source for c in read("01_starter_code").cells if c.source.startswith(beginning)]
    return source


def test_its_loop_takes_the_steps_of_train(chapter):
    X, Y, g = chapter["X"], chapter["Y"], chapter["g"]
    for p in chapter["parameters"]:
        p.requires_grad_()
    losses = []
    for _ in range(30):
        ix = torch.randint(0, len(X), (32,), generator=g)
        losses.append(chapter["train_step"](X[ix], Y[ix], 0.1))
    g = seeded()
    history = train(lecture_mlp("original", generator=g), X, Y, steps=30, lr=0.1, generator=g)
    assert history.loss.tolist() == losses


def test_its_data_are_those_of_its_own_build_dataset(chapter):
    X, Y = chapter["build_dataset"](chapter["splits"].words["val"], chapter["stoi"])
    assert torch.equal(X, chapter["Xval"]) and torch.equal(Y, chapter["Yval"])


@pytest.mark.parametrize("k", [0, 1, 3, 5])
def test_a_table_counts_what_follows_each_context(chapter, k):
    words, stoi = ["emma", "ava", "mia", "emma"], chapter["stoi"]
    counted = chapter["count"](words, k)
    X, Y = build_dataset(words, stoi, k or 1)
    assert counted.total() == len(Y)
    same = (X[:, None] == X).all(-1) if k else torch.ones(len(Y), len(Y), dtype=torch.bool)
    n = same.float() @ F.one_hot(Y, 27).float()  # what followed each example's context
    for extra in (0, 0.1):
        expected = F.cross_entropy((n + extra).log(), Y).item()
        assert chapter["table_loss"](counted, counted, extra) == pytest.approx(expected, rel=1e-5)
    assert chapter["table_loss"](counted, chapter["count"](["zoe"], k)) > chapter["table_loss"](counted, counted)


def test_the_faults_of_the_four_datasets():
    a, b, c, d = four_datasets(["emma", "ava"])
    X, Y = build_dataset(["emma", "ava"], {char: i for i, char in enumerate(".abcdefghijklmnopqrstuvwxyz")})
    assert torch.equal(b[0], X) and torch.equal(b[1], Y)
    assert torch.equal(a[0], X) and not torch.equal(a[1], Y) and sorted(a[1].tolist()) == sorted(Y.tolist())
    assert torch.equal(c[0][:, -1], c[1]) and torch.equal(c[1], Y)
    assert (d[1] != 0).all() and len(d[1]) == len(Y) - 2


@pytest.mark.parametrize("full_run", [False, True])
def test_the_whole_run_trains_when_it_is_asked_for(chapter, full_run, capsys, monkeypatch):
    namespace = dict(chapter, knows_nothing=3.3, knows_letters=2.8, floors=[0, 0, 0, 1.9])
    namespace["log"] = {"stages": {"original": {"curve": [[3.0] * 200]}}}
    drawn = []
    namespace["show"] = lambda fig, alt: drawn.append(fig)
    source = cell("full_run = False").replace("full_run = False", f"full_run = {full_run}")
    assert "full_steps = 200_000" in source
    execute(source.replace("200_000", "60"), namespace)
    execute(cell("# draw the loss curve"), namespace)
    assert len(drawn) == 1 and ("history" in namespace) == full_run
    if full_run:
        assert len(namespace["history"]) == 60 and "validation loss" in capsys.readouterr().out
        assert drawn[0].axes[0].get_lines()[0].get_ydata().max() > 5  # its own run, which begins high
