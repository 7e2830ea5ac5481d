"""What chapter 12 writes inline gives what the helpers give."""

import torch
from torch.testing import assert_close

from helpers.train import train
from notebook_cells import definitions


def test_the_chapters_loop_records_what_train_records():
    chapter = definitions("12_update_ratio")
    seeded, X, Y = chapter["seeded"], chapter["X"], chapter["Y"]
    # A small lr: the chapter takes the ratio after the update, as the lecture does, and train before it.
    lr = 1e-3
    ours, theirs = (chapter["deep_mlp"](generator=seeded()) for _ in range(2))
    losses, ud = chapter["train_with_ud"](ours, 5, lr, seeded(0))
    history = train(theirs, X, Y, steps=5, lr=lr, generator=seeded(0), record_ratios_every=1, progress=False)
    assert_close(torch.tensor(losses), history.loss, rtol=1e-6, atol=0)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(p, q, rtol=1e-6, atol=1e-8)
    assert ud.keys() == history.update_ratio.keys()
    for name, values in ud.items():
        assert_close(torch.tensor(values), history.update_ratio[name].log10(), rtol=0, atol=1e-3)
