"""Learning curves of a comparison: ``python -m mnemosyne.plot OUT``.

Reads what ``mnemosyne compare --out OUT`` left in OUT/curves and writes OUT/curves.png: a panel per
task and length, the mean over the seeds as a line, their range as a band, losses on a log scale.
Needs NumPy, safetensors and matplotlib; neither torch nor the compiled library.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SMOOTHING = 25  # steps; as in the steps ratio
COLUMNS = 3


class PlotError(Exception):
    """What cannot be plotted, in one line."""


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


def draw_panel(axes, title: str, runs: list[Runs], colors: dict[str, object]) -> None:
    for run in runs:
        curves = smooth(run.losses)
        curves[~np.isfinite(curves)] = np.nan
        steps = np.arange(1, curves.shape[1] + 1)
        known = ~np.isnan(curves).all(axis=0)
        if not known.any():
            continue
        curves, steps = curves[:, known], steps[known]
        color = colors[run.label]
        axes.plot(steps, np.nanmean(curves, axis=0), label=run.label, color=color, linewidth=1.4)
        low, high = np.nanmin(curves, axis=0), np.nanmax(curves, axis=0)
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    if all((run.losses > 0).all() for run in runs):
        axes.set_yscale("log")
    axes.set_title(title.replace("@", ", ") + " steps", fontsize=10)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.grid(True, which="major", alpha=0.3)


def plot(folder: str | Path, picture: str | Path | None = None) -> Path:
    """Draws the curves in ``folder`` into ``picture`` (default: folder/curves.png)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder = Path(folder)
    picture = Path(picture) if picture else folder / "curves.png"
    cells = load_cells(folder)
    labels = sorted({run.label for runs in cells.values() for run in runs})
    palette = pyplot.get_cmap("tab10" if len(labels) <= 10 else "tab20")
    colors = {label: palette(i % palette.N) for i, label in enumerate(labels)}

    columns = min(COLUMNS, len(cells))
    rows = math.ceil(len(cells) / columns)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(5.2 * columns, 3.6 * rows + 0.6), squeeze=False
    )
    panels = list(grid.flat)
    for axes, (name, runs) in zip(panels, cells.items(), strict=False):
        draw_panel(axes, name, runs, colors)
    for axes in panels[len(cells) :]:
        axes.set_visible(False)
    handles = [pyplot.Line2D([], [], color=colors[label], label=label) for label in labels]
    figure.legend(handles=handles, loc="upper center", ncols=min(len(labels), 6), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.45 / figure.get_figheight()))
    figure.savefig(picture, dpi=120)
    pyplot.close(figure)
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
