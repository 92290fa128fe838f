"""What all pictures of the package have in common: names that fit, ticks that can be read."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

DPI = 120
LARGEST_LEGEND = 6  # columns


class PlotError(Exception):
    """What cannot be plotted, in one line."""


def new_figure(rows: int, columns: int, panel: tuple[float, float]) -> tuple[Any, np.ndarray]:
    """A figure of panels, each of that width and height in inches, beside any user's pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (panel[0] * columns, panel[1] * rows)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def break_name(name: str, width: int) -> str:
    """The name in lines of at most ``width`` characters, behind its signs where there are any."""
    lines = [""]
    for part in re.findall(r"[^\s_:.@/+,=-]*[\s_:.@/+,=-]*", name):
        for piece in [part[i : i + width] for i in range(0, len(part), width)]:
            if len((lines[-1] + piece).rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


def fit_text(text, pixels: float) -> None:
    """Breaks a text of a figure into lines that are not longer than so many pixels."""
    name = text.get_text()
    for width in range(len(name), 0, -1):
        text.set_text(break_name(name, width))
        if text.get_window_extent().width <= pixels:
            return


def fit_titles(figure) -> None:
    """Breaks the titles to the width of their panels. Call it when all panels are full."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        if axes.get_visible():
            fit_text(axes.title, axes.get_window_extent().width)


def legend_above(figure, handles: list) -> None:
    """A legend over all panels in as many columns as fit; the figure grows by its height."""
    width = figure.bbox.width * 0.98
    for columns in range(min(len(handles), LARGEST_LEGEND), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside upper center", ncols=columns, frameon=False
        )
        if columns == 1:
            beside = legend.get_window_extent().width - _widest(legend)
            for text in legend.get_texts():
                fit_text(text, width - beside)
        box = legend.get_window_extent()
        if box.width <= width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)


def _widest(legend) -> float:
    return max(text.get_window_extent().width for text in legend.get_texts())


def log_ticks(axis, low: float, high: float) -> None:
    """Ticks with plain numbers on a logarithmic axis from ``low`` to ``high``: powers of ten where
    there are enough of them, 1, 2 and 5 times these, or round numbers where the range is short.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    decades = math.log10(high / low)
    if decades < 0.8:
        axis.set_major_locator(_Between(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])))
        axis.set_minor_locator(_Between(MaxNLocator(20)))
    else:
        subs = (1.0,) if decades > 2.5 else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(subs=subs, numticks=9))
        axis.set_minor_locator(LogLocator(subs=np.arange(2.0, 10.0), numticks=100))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())


def _Between(locator):
    """The locator without its ticks at and below zero, which a logarithmic axis cannot show."""
    from matplotlib.ticker import Locator

    class Positive(Locator):
        def __call__(self):
            low, high = self.axis.get_view_interval()
            return [tick for tick in locator.tick_values(low, high) if tick > 0]

    return Positive()


def number(value: float) -> str:
    """0.05, 20 and 1000, but 10^-4 and 2 10^5: as one would write it."""
    if 1e-3 <= abs(value) < 1e5 or value == 0:
        return f"{value:.6g}"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    factor = value / 10.0**exponent
    front = "" if math.isclose(factor, 1.0) else rf"{factor:.3g}\cdot"
    return rf"${front}10^{{{exponent}}}$"


def save(figure, target: str | Path) -> None:
    try:
        figure.savefig(target)
    except (OSError, ValueError) as error:
        raise PlotError(f"[out] expected a picture that can be written, got {error}") from error
