"""Learning curves of a comparison: ``python -m mnemosyne.plot OUT``.

Reads what ``mnemosyne compare --out OUT`` left in OUT/curves and writes OUT/curves.png: a panel per
task and length, the mean over the seeds as a line, their range as a band, losses on a log scale.
Needs NumPy, safetensors and matplotlib; neither torch nor the compiled library.
"""

import argparse
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mnemosyne._figure import PlotError, fit_titles, legend_above, log_ticks, new_figure, save

SMOOTHING = 25  # steps; as in the steps ratio
COLUMNS = 3
PANEL = (5.2, 3.6)  # inches
ROOM_ABOVE = 10.0  # times the largest first loss: what is above has diverged and leaves the panel
ROOM_BELOW = 1e-6  # times that loss: what is below is drawn at the edge, zero for example

OURS = "mnemosyne"
OUR_COLOR = "#d62728"
# Of the optimizers that every comparison has, so that they look alike in all pictures.
COLORS = {
    "adamw": "#1f77b4",
    "muon": "#8c564b",
    "orthogonal": "#e377c2",
    "schedule-free": "#bcbd22",
    "lstm": "#ff7f0e",
    "lstm-rnnprop": "#2ca02c",
    "adam": "#17becf",
    "sgd": "#7f7f7f",
    "adafactor": "#9467bd",
}
OTHER_COLORS = [
    "#393b79",
    "#637939",
    "#8c6d31",
    "#7b4173",
    "#3182bd",
    "#31a354",
    "#756bb1",
    "#636363",
]
# Of the variants of one optimizer: other rates, schedules, lengths.
DASHES = ["-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (3, 1)), (0, (1, 2))]


@dataclass
class Runs:
    """The curves of one optimizer on one task and length."""

    label: str
    losses: np.ndarray  # [seeds, steps]


def load_cells(folder: Path) -> dict[str, list[Runs]]:
    """The runs in ``folder/curves`` by cell ("vit_digits@500"), both sorted by name."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    cells: dict[str, list[Runs]] = {}
    for optimizer in sorted(folder.glob("curves/*/*/")):
        curves = []
        for file in sorted(optimizer.glob("seed*.safetensors")):
            try:
                curves.append(load_file(file)["loss"])
            except (SafetensorError, KeyError, OSError) as error:
                raise PlotError(f"{file}: expected the curve of a run, got {error}") from error
        if not curves:
            continue
        shortest = min(len(curve) for curve in curves)
        losses = np.stack([curve[:shortest] for curve in curves])
        cells.setdefault(optimizer.parent.name, []).append(Runs(optimizer.name, losses))
    if not cells:
        raise PlotError(f"{folder}: expected the --out of `mnemosyne compare`, got no curves in it")
    return cells


def smooth(losses: np.ndarray, window: int = SMOOTHING) -> np.ndarray:
    """Trailing means [seeds, steps] -> [seeds, steps]; over what there is in the first steps."""
    sums = np.cumsum(np.insert(losses.astype(np.float64), 0, 0.0, axis=1), axis=1)
    end = np.arange(1, losses.shape[1] + 1)
    start = np.maximum(end - window, 0)
    with np.errstate(invalid="ignore"):
        return (sums[:, end] - sums[:, start]) / (end - start)


def is_ours(label: str) -> bool:
    return label.startswith(OURS)


def base_name(label: str) -> str:
    """The optimizer of a label without rate, schedule and so on: "adamw" of "adamw@1e-3"."""
    return OURS if is_ours(label) else re.split(r"[@:+]", label)[0]


def in_order(labels) -> list[str]:
    """Ours first, then by name."""
    return sorted(labels, key=lambda label: (not is_ours(label), label))


def styles(labels) -> dict[str, dict]:
    """How each optimizer is drawn: a color for each, a dash for its variants, ours in front."""
    result: dict[str, dict] = {}
    colors = {OURS: OUR_COLOR, **COLORS}
    dashes = dict.fromkeys(colors, 0)  # how many each optimizer has used
    for label in in_order(set(labels)):
        name = base_name(label)
        if name not in colors:
            others = len(colors) - 1 - len(COLORS)
            colors[name] = OTHER_COLORS[others % len(OTHER_COLORS)]
            dashes[name] = others // len(OTHER_COLORS)
        used = dashes[name]
        dashes[name] += 1
        result[label] = {
            "color": colors[name],
            "linestyle": DASHES[used] if used < len(DASHES) else (0, (used, 2)),
            "linewidth": 2.0 if is_ours(label) else 1.3,
            "zorder": (4.0 if is_ours(label) else 3.0) - 0.001 * used,
        }
    return result


def draw_panel(axes, title: str, runs: list[Runs], style: dict[str, dict]) -> None:
    drawn = []
    for run in runs:
        curves = smooth(run.losses)
        curves[~np.isfinite(curves)] = np.nan
        steps = np.arange(1, curves.shape[1] + 1)
        known = ~np.isnan(curves).all(axis=0)
        if not known.any():
            continue
        curves, steps = curves[:, known], steps[known]
        own = style[run.label]
        axes.plot(steps, np.nanmean(curves, axis=0), label=run.label, **own)
        low, high = np.nanmin(curves, axis=0), np.nanmax(curves, axis=0)
        axes.fill_between(
            steps, low, high, color=own["color"], alpha=0.15, linewidth=0, zorder=own["zorder"] - 2
        )
        drawn.append((low, high))
    set_losses(axes, drawn)
    axes.set_title(title.replace("@", ", ") + " steps", fontsize=10)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.grid(True, which="major", alpha=0.3)


def set_losses(axes, drawn: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """The axis of losses: logarithmic where none is negative, and not beyond what can be read."""
    if not drawn:
        return
    lows, highs = (np.concatenate(part) for part in zip(*drawn, strict=True))
    first = max(float(high[0]) for _, high in drawn)
    if lows.min() < 0 or first <= 0 or not (lows > 0).any():
        return
    high = min(float(highs.max()), ROOM_ABOVE * first)
    low = max(float(lows[lows > 0].min()), ROOM_BELOW * first)
    margin = max((high / low) ** 0.05, 1.001)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(low / margin, high * margin)
    log_ticks(axes.yaxis, low / margin, high * margin)


def draw(cells: dict[str, list[Runs]]):
    """The figure of all cells, with one legend over them."""
    from matplotlib.lines import Line2D

    style = styles(run.label for runs in cells.values() for run in runs)
    columns = min(COLUMNS, len(cells))
    figure, grid = new_figure(math.ceil(len(cells) / columns), columns, PANEL)
    panels = list(grid.flat)
    for axes, (name, runs) in zip(panels, cells.items(), strict=False):
        draw_panel(axes, name, runs, style)
    for axes in panels[len(cells) :]:
        axes.set_visible(False)
    legend_above(figure, [Line2D([], [], label=label, **own) for label, own in style.items()])
    fit_titles(figure)
    return figure


def plot(folder: str | Path, picture: str | Path | None = None) -> Path:
    """Draws the curves in ``folder`` into ``picture`` (default: folder/curves.png)."""
    folder = Path(folder)
    picture = Path(picture) if picture else folder / "curves.png"
    save(draw(load_cells(folder)), picture)
    return picture


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mnemosyne.plot", description=__doc__)
    parser.add_argument("folder", metavar="OUT", help="the --out of `mnemosyne compare`")
    parser.add_argument("--picture", help="where to write (default: OUT/curves.png)")
    options = parser.parse_args(arguments)
    try:
        print(plot(options.folder, options.picture))
    except (PlotError, ImportError) as error:
        print(f"mnemosyne.plot: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
