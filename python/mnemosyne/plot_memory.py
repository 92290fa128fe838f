"""What a compact memory keeps: ``mnemosyne plot memory FILE``.

Reads what ``mnemosyne bench memory --json > FILE`` wrote and draws a panel for each of its tables
that is in it: right spins against patterns, distance, features and age, the capacity of the exact
energy and of memories of constant size, and the error against softmax attention. Lines are
measured, dots are what the formulas say. Needs NumPy and matplotlib; neither torch nor the compiled
library.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mnemosyne._figure import PlotError, fit_titles, legend_above, log_ticks, new_figure, save

PANEL = (4.6, 3.4)  # inches
COLUMNS = 3
COLORS = {"trig": "#1f77b4", "hyp+": "#d62728", "favor+": "#2ca02c"}
OTHER_COLORS = ["#9467bd", "#8c564b", "#17becf", "#7f7f7f"]
EXACT_COLOR = "#000000"
DASHES = {"energy": "-", "memory": "--"}
FORMULA = {"linestyle": "none", "marker": "o", "markersize": 4, "markerfacecolor": "none"}

Rows = list[dict[str, Any]]


def load_rows(file: Path) -> Rows:
    """The rows of all tables: the last line of the file."""
    try:
        lines = file.read_text().splitlines()
        rows = json.loads(lines[-1] if lines else "")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("something else")
    except (OSError, ValueError) as error:
        what = " ".join(str(error).split())
        raise PlotError(
            f"{file}: expected the output of `mnemosyne bench memory --json`, got {what}"
        ) from error
    return rows


def _groups(rows: Rows, *keys: str) -> dict[tuple, Rows]:
    """The rows by the values of these keys, in the order in which they come."""
    groups: dict[tuple, Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _column(rows: Rows, key: str, factor: float = 1.0) -> list[float]:
    return [math.nan if row[key] is None else factor * row[key] for row in rows]


def _logarithmic(axis, values: list[float]) -> None:
    known = [value for value in values if math.isfinite(value) and value > 0]
    if known and max(known) > min(known):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        log_ticks(axis, min(known), max(known))


def _draw_recovery(axes, rows: Rows, name: str, label: str, logarithmic: bool) -> None:
    for (feature_map, readout), group in _groups(rows, "feature_map", "readout").items():
        color = COLORS[feature_map]
        x = _column(group, name)
        axes.plot(x, _column(group, "bits", 100), color=color, linestyle=DASHES[readout])
        axes.plot(x, _column(group, "predicted_bits", 100), color=color, **FORMULA)
    first = next(iter(_groups(rows, "feature_map", "readout").values()))
    exact = _column(first, "exact_bits", 100)
    axes.plot(_column(first, name), exact, color=EXACT_COLOR, linestyle=":")
    if logarithmic:
        _logarithmic(axes.xaxis, _column(first, name))
    axes.set_xlabel(label)
    axes.set_ylabel("right spins, %")


def draw_patterns(axes, rows: Rows) -> None:
    axes.set_title("recovery against the number of patterns", fontsize=10)
    _draw_recovery(axes, rows, "patterns", "patterns", logarithmic=True)


def draw_flips(axes, rows: Rows) -> None:
    axes.set_title("recovery against distance", fontsize=10)
    _draw_recovery(axes, rows, "flips", "spins turned at the start", logarithmic=False)


def draw_features(axes, rows: Rows) -> None:
    axes.set_title("recovery against features", fontsize=10)
    _draw_recovery(axes, rows, "features", "features R", logarithmic=True)


def draw_age(axes, rows: Rows) -> None:
    axes.set_title(f"recovery of {rows[0]['patterns']} patterns by age", fontsize=10)
    for place, ((gamma,), group) in enumerate(_groups(rows, "gamma").items()):
        color = OTHER_COLORS[place % len(OTHER_COLORS)]
        x = _column(group, "age")
        axes.plot(x, _column(group, "bits", 100), color=color, label=f"gamma {gamma:g}")
        axes.plot(x, _column(group, "predicted_bits", 100), color=color, **FORMULA)
    axes.set_xlabel("patterns written after it")
    axes.set_ylabel("right spins, %")
    axes.legend(fontsize=8, frameon=False)


def draw_exact_capacity(axes, rows: Rows) -> None:
    axes.set_title("capacity of the exact energy", fontsize=10)
    capacities = _column(rows, "capacity")
    axes.plot(_column(rows, "spins"), capacities, color=EXACT_COLOR, linestyle=":", marker="s")
    _logarithmic(axes.yaxis, capacities)
    axes.set_xlabel("spins N, one in eight turned")
    axes.set_ylabel("patterns")


def draw_compact_capacity(axes, rows: Rows) -> None:
    axes.set_title("capacity of memories of constant size", fontsize=10)
    for (feature_map, readout), group in _groups(rows, "feature_map", "readout").items():
        axes.plot(
            _column(group, "features"), _column(group, "capacity"), color=COLORS[feature_map],
            linestyle=DASHES[readout], marker="s",
        )  # fmt: skip
    _logarithmic(axes.xaxis, _column(rows, "features"))
    _logarithmic(axes.yaxis, _column(rows, "capacity"))
    axes.set_xlabel("features R")
    axes.set_ylabel("patterns")


def draw_attention(axes, rows: Rows) -> None:
    axes.set_title("error against softmax attention", fontsize=10)
    for (feature_map,), group in _groups(rows, "feature_map").items():
        color, x = COLORS[feature_map], _column(group, "features")
        axes.plot(x, _column(group, "independent"), color=color, alpha=0.4, linewidth=4)
        axes.plot(x, _column(group, "orthogonal"), color=color, linestyle=DASHES["memory"])
        axes.plot(x, _column(group, "predicted"), color=color, **FORMULA)
    _logarithmic(axes.xaxis, _column(rows, "features"))
    errors = [error for key in ("orthogonal", "predicted") for error in _column(rows, key)]
    _logarithmic(axes.yaxis, errors)
    axes.set_xlabel("features R")
    axes.set_ylabel("relative error; wide: independent vectors")


# By the name of the experiment; the tables of numbers alone have no picture.
PANELS: dict[str, Callable] = {
    "patterns": draw_patterns,
    "flips": draw_flips,
    "features": draw_features,
    "exact_capacity": draw_exact_capacity,
    "compact_capacity": draw_compact_capacity,
    "age": draw_age,
    "attention": draw_attention,
}


def draw(rows: Rows):
    """The figure of all experiments that have a picture, with one legend over them."""
    from matplotlib.lines import Line2D

    found = {name: [row for row in rows if row.get("experiment") == name] for name in PANELS}
    found = {name: own for name, own in found.items() if own}
    if not found:
        raise PlotError(f"expected rows of one of {', '.join(PANELS)}, got none")
    columns = min(COLUMNS, len(found))
    figure, grid = new_figure(math.ceil(len(found) / columns), columns, PANEL)
    panels = list(grid.flat)
    for axes, (name, own) in zip(panels, found.items(), strict=False):
        try:
            PANELS[name](axes, own)
        except (KeyError, TypeError) as error:
            raise PlotError(f"{name}: expected the rows of `bench memory`, got {error}") from error
        axes.grid(True, alpha=0.3)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    handles = [Line2D([], [], color=color, label=name) for name, color in COLORS.items()]
    handles += [
        Line2D([], [], color="#555555", linestyle=dash, label=name) for name, dash in DASHES.items()
    ]
    handles.append(Line2D([], [], color="#555555", label="formula", **FORMULA))
    handles.append(Line2D([], [], color=EXACT_COLOR, linestyle=":", label="exact"))
    legend_above(figure, handles)
    fit_titles(figure)
    return figure


def plot(file: str | Path, picture: str | Path | None = None) -> Path:
    """Draws the tables in ``file`` into ``picture`` (default: beside it, as FILE.png)."""
    target = Path(picture) if picture else Path(f"{file}.png")
    try:
        figure = draw(load_rows(Path(file)))
    except PlotError as error:
        text = str(error)
        raise PlotError(text if text.startswith(str(file)) else f"{file}: {text}") from error
    save(figure, target)
    return target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mnemosyne plot memory", description=__doc__)
    parser.add_argument("file", metavar="FILE", help="output of `mnemosyne bench memory --json`")
    parser.add_argument("--out", help="where to write (default: FILE.png)")
    options = parser.parse_args(arguments)
    try:
        print(plot(options.file, options.out))
    except (PlotError, ImportError) as error:
        print(f"mnemosyne: [plot memory] {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
