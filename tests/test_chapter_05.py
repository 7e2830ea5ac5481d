"""Chapter 05: the four boxes can be told apart by the questions of their hint; the full run runs, with few steps."""

import torch

from helpers.checks.chapter_05_faults import four_boxes
from notebook_cells import execute, read


def test_each_box_has_the_condition_that_its_answer_key_says():
    seen, boxes = four_boxes()
    out = {name: box(seen) for name, box in boxes.items()}
    centred = {name for name, o in out.items() if o.mean(0).abs().max() < 0.1 and (o.std(0) - 1).abs().max() < 0.1}
    by_rows = {name for name, o in out.items() if o.mean(1).abs().max() < 1e-4}
    asks_others = {n for n, box in boxes.items() if not torch.allclose(box(seen[:1]), box(seen[:8])[:1], atol=1e-3)}
    assert (centred, by_rows, asks_others) == ({"b", "c"}, {"d"}, {"b"})
    assert all(o.shape == seen.shape and not o.requires_grad for o in out.values())


def test_the_full_run_trains_when_it_is_switched_on(chapter, capsys):
    (source,) = [cell.source for cell in read("05_batch_norm").cells if "full_run, full_steps = False" in cell.source]
    namespace = dict(chapter)
    execute(source, namespace)
    assert "full_loss" not in namespace and not capsys.readouterr().out
    execute(source.replace("full_run, full_steps = False, 200_000", "full_run, full_steps = True, 60"), namespace)
    assert len(namespace["full_loss"]) == 60 and namespace["final"][0] < 3.3
    assert "validation" in capsys.readouterr().out
