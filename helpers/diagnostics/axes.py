"""Log axes and short numbers, written alike in all figures of the course."""

from matplotlib.ticker import LogLocator, NullLocator


class _Decades(LogLocator):
    """The decades; where fewer than two are in sight, 2 and 5 of each as well. An axis spans a factor of 5 at least."""

    def nonsingular(self, low, high):
        low, high = super().nonsingular(low, high)
        room = max(1, 5 * low / high) ** 0.5
        return low / room, high * room

    def tick_values(self, low, high):
        ticks = super().tick_values(low, high)
        if sum(low <= tick <= high for tick in ticks) > 1:
            return ticks
        return LogLocator(subs=(1, 2, 5)).tick_values(low, high)


def log_scale(ax):
    """A log y axis with its decades, written as 1e-3: ticks between them, and powers, take most of the time."""
    if ax.get_yscale() != "log":
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(_Decades())
        ax.autoscale_view(scalex=False)  # limits that are set stay
        ax.yaxis.set_major_formatter(lambda y, _: short(y).replace(".0e", "e"))
        ax.yaxis.set_minor_locator(NullLocator())


def short(value):
    """Two digits of a number, for titles and labels: 0.63, 140, 3.1e-5; "undefined" for None."""
    if value is None:
        return "undefined"
    if 99.5 <= abs(value) < 1000:
        return f"{value:.0f}"
    text = f"{value:.2g}" if 0.01 <= abs(value) < 1000 or not value else f"{value:.1e}"
    return text.replace("e-0", "e-").replace("e+0", "e+")
