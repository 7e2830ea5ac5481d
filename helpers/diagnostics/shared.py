"""What several watchers change at once, and put back: two watches of one loop (a GAN's) may end in any order."""

from contextlib import ExitStack, contextmanager

import torch


class Shared:
    """A context that several are in: it begins with the first, and ends with whichever is the last to leave."""

    def __init__(self, make):
        self.make, self.users, self.undo = make, 0, ExitStack()

    def __enter__(self):
        if not self.users:
            self.undo.enter_context(self.make())
        self.users += 1

    def __exit__(self, *error):
        self.users -= 1
        if not self.users:
            self.undo.close()


@contextmanager
def _no_fast_path():
    mha = torch.backends.mha
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    yield
    mha.set_fastpath_enabled(before)


NO_FAST_PATH = Shared(_no_fast_path)  # of a transformer in eval mode: it would go past the layers
