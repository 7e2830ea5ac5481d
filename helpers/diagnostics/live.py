"""The pictures of a training, drawn in Jupyter while it runs."""

import io
import time
from statistics import median

from matplotlib.figure import Figure

from .pictures import plot_training

LIVE_SHARE = 0.1  # of the wall time, at most, for drawing while it trains


class Live:
    """The pictures in Jupyter, drawn anew as often as a tenth of the time allows."""

    def __init__(self, watched):
        try:
            from IPython.display import Image, display
        except ImportError as error:
            raise ImportError("live=True draws in Jupyter: install ipython, or leave live out") from error
        self.watched, self.display, self.image, self.handle = watched, display, Image, None
        self.began, self.spent, self.costs = time.perf_counter(), 0.0, []

    def draw_if_cheap(self):
        elapsed = time.perf_counter() - self.began
        if self.spent + (median(self.costs[-3:]) if self.costs else 0.5) <= LIVE_SHARE * elapsed:
            self.draw()

    def draw(self):
        start, pixels = time.perf_counter(), io.BytesIO()
        fig = Figure(figsize=(10, 13), layout="none")  # a constrained layout would take twice the time
        fig.subplots_adjust(left=0.08, right=0.72, bottom=0.05, top=0.98, hspace=0.12)
        plot_training(self.watched.records, fig).savefig(pixels, dpi=60)
        picture = self.image(pixels.getvalue())
        if self.handle is None:
            self.handle = self.display(picture, display_id=True)
        else:
            self.handle.update(picture)
        self.costs.append(time.perf_counter() - start)
        self.spent += self.costs[-1]
