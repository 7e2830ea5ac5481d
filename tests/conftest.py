import pytest
import torch

from helpers.data import load_splits

torch.set_num_threads(1)  # networks this small are never faster on two


@pytest.fixture(scope="session")
def lecture_splits():
    """The lecture's own splits, for numbers that only its file gives."""
    splits = load_splits()
    if splits.names.source != "lecture":
        pytest.skip("needs the lecture's names: run `make data`, or set MAKEMORE_NAMES")
    return splits
