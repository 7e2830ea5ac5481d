import signal

import pytest
import torch

from helpers.data import load_splits

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in the background, and the processes that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # networks this small are never faster on two


@pytest.fixture(scope="session")
def lecture_splits():
    """The lecture's own splits, for numbers that only its file gives."""
    splits = load_splits()
    if splits.names.source != "lecture":
        pytest.skip("needs the lecture's names: run `make data`, or set MAKEMORE_NAMES")
    return splits
