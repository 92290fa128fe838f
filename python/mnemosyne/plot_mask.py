"""Learned masks and their spectra: ``mnemosyne plot mask CHECKPOINT``.

Reads the FourierPositions and DampedPositions of a safetensors file, which `mnemosyne train --out`
or `mnemosyne.nn.position_metadata` wrote, and draws a row for each: f of every head (D = 1 and
rotation-invariant ones as curves, others as a map of the first two axes; of a DampedPosition the
factor), and the waves that it is made of. f comes from the C++ modules themselves.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnemosyne._figure import PlotError, fit_titles, new_figure, save

POINTS = 201  # of a curve
SIDE = 81  # of a map
REACH = 2.0  # how far masks are drawn, in largest widths
PANEL = (4.4, 3.0)  # inches
LEGEND_ROWS = 14  # heads in one column of a legend
LARGEST = 4096  # components and waves of one head: more are no mask that we wrote


@dataclass
class Picture:
    """One position encoding, evaluated. H = heads, R = waves."""

    name: str
    kind: str
    offsets: np.ndarray  # [Z]: of the curve, or of both axes of the map
    values: np.ndarray  # [H, Z] or [H, Z, Z]; [h, i, j] at (offsets[i], offsets[j])
    value_label: str
    waves: np.ndarray  # [H, R] or, beside a map, [H, R, 2]: frequencies, or decay lengths
    weights: np.ndarray  # [H, R]
    wave_label: str

    @property
    def is_map(self) -> bool:
        return self.values.ndim == 3


def load_pictures(file: Path) -> list[Picture]:
    """All positions of a safetensors file (or of the folder of a run), in its order of names."""
    from safetensors import SafetensorError, safe_open

    if file.is_dir():
        file = file / "weights.safetensors"
    try:
        with safe_open(file, framework="pt") as reader:
            metadata = reader.metadata() or {}
            names = [name for name in reader.keys() if _prefix(name) is not None]
            prefixes = sorted({_prefix(name) for name in names})
            tensors = {
                prefix: {
                    name[len(prefix) :]: reader.get_tensor(name).float()
                    for name in reader.keys()
                    if name.startswith(prefix)
                }
                for prefix in prefixes
            }
    except (SafetensorError, OSError) as error:
        raise PlotError(f"{file}: expected a safetensors file, got {error}") from error
    if not tensors:
        raise PlotError(
            f"{file}: expected the parameters of a FourierPosition or DampedPosition, got none"
        )
    pictures = []
    for prefix, state in tensors.items():
        name = prefix.removesuffix(".")
        try:
            pictures.append(_evaluate(name, _options(name, state, metadata), state))
        except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
            what = " ".join(str(error).split())
            raise PlotError(f"{file}: {name or 'the position'}: {what}") from error
    return pictures


def _prefix(name: str) -> str | None:
    """What stands before the names of a position's own parameters, if this is one of them."""
    for mark in ("spectrum.amplitude", "spectrum.weight1", "log_rate"):
        if name == mark or name.endswith("." + mark):
            return name.removesuffix(mark)
    return None


def _options(name: str, state: dict, metadata: dict[str, str]) -> dict[str, Any]:
    """Those of the metadata, else what the parameters themselves say."""
    text = metadata.get(f"position.{name}")
    if text is not None:
        options = json.loads(text)
        if not isinstance(options, dict) or "type" not in options:
            raise ValueError(f'expected options with a "type" in its metadata, got {text[:80]}')
        sizes = ("num_heads", "num_components", "num_frequencies", "position_dim", "hidden")
        if any(not 0 < int(options.get(size, 1)) <= LARGEST for size in sizes):
            raise ValueError(f"expected sizes from 1 to {LARGEST} in its metadata, got {text[:80]}")
        return options
    if "log_rate" in state:
        heads, terms = state["log_rate"].shape
        longest = float((-state["log_rate"]).exp().amax())
        widths = {"min_width": min(1.0, longest), "max_width": longest}
        return {
            "type": "DampedPosition", "num_heads": heads, "num_components": terms, **widths
        }  # fmt: skip
    if not {"spectrum.centre", "spectrum.log_sigma"} <= state.keys():
        raise ValueError(
            f'expected metadata "position.{name}" with its options, which are known without only '
            "for a gaussian_mixture and a DampedPosition"
        )
    heads, terms = state["spectrum.amplitude"].shape
    centre = state["spectrum.centre"]
    longest = float((-state["spectrum.log_sigma"]).exp().amax()) / (2 * math.pi)
    draws = state.get("spectrum.draws")
    return {
        "type": "FourierPosition",
        "num_heads": heads,
        "position_dim": 3 if centre.dim() == 2 else centre.size(2),
        "num_components": terms,
        "num_frequencies": terms * (8 if draws is None else draws.size(2)),
        "rotation_invariant": centre.dim() == 2,
        "phase": "spectrum.phase" in state,
        "min_width": min(1.0, longest),
        "max_width": longest,
        "extent": max(256.0, REACH * longest),
    }


def _evaluate(name: str, options: dict[str, Any], state: dict) -> Picture:
    import torch

    from mnemosyne import nn

    kinds: dict[str, Callable] = {
        "FourierPosition": nn.FourierPosition,
        "DampedPosition": nn.DampedPosition,
    }
    kind = options.pop("type")
    if kind not in kinds:
        raise ValueError(f'expected one of {", ".join(kinds)}, got "{kind}"')
    module = kinds[kind](**options)
    wanted = dict(module.named_parameters())
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        raise ValueError(f"expected its parameter {missing[0]}, got none")
    known = module.state_dict()
    module.load_state_dict({**known, **{k: v for k, v in state.items() if k in known}})
    with torch.no_grad():
        picture = _damped(name, module) if kind == "DampedPosition" else _fourier(name, module)
    if not np.isfinite(picture.values).all():
        raise ValueError("expected a mask of finite values, got others")
    return picture


def _damped(name: str, module) -> Picture:
    import torch

    z = torch.linspace(0, REACH * module.options["max_width"], POINTS, dtype=torch.float64)
    return Picture(
        name=name,
        kind="DampedPosition",
        offsets=z.numpy(),
        values=module.factor(z.unsqueeze(-1)).numpy(),
        value_label="factor h",
        waves=(-module.log_rate).exp().numpy(),
        weights=module.log_weight.exp().numpy(),
        wave_label="decay length",
    )


def _fourier(name: str, module) -> Picture:
    import torch

    options = module.options
    dim, scale = options["position_dim"], options["position_scale"]
    reach = min(REACH * options["max_width"], options["extent"] or float("inf")) / scale
    curve = dim == 1 or options["rotation_invariant"]
    if curve:
        z = torch.linspace(0 if dim > 1 else -reach, reach, POINTS, dtype=torch.float64)
        offsets = torch.zeros(POINTS, dim, dtype=torch.float64)
        offsets[:, 0] = z
    else:
        z = torch.linspace(-reach, reach, SIDE, dtype=torch.float64)
        offsets = torch.zeros(SIDE, SIDE, dim, dtype=torch.float64)
        offsets[..., 0], offsets[..., 1] = z[:, None], z[None, :]
    frequencies, amplitudes = module.waves()
    frequencies = frequencies.expand(*amplitudes.shape, dim) * scale
    waves = frequencies.norm(dim=-1) if curve else frequencies[..., :2]
    return Picture(
        name=name,
        kind=f"FourierPosition, {options['kind']}",
        offsets=z.numpy(),
        values=module.mask(offsets).numpy(),
        value_label="mask f",
        waves=waves.numpy(),
        weights=amplitudes.numpy(),
        wave_label="cycles per unit of position",
    )


def _head_colors(heads: int) -> list:
    """A color of its own for every head."""
    from matplotlib import colormaps

    if heads > 20:
        return list(colormaps["turbo"](np.linspace(0.05, 0.95, heads)))
    return list(colormaps["tab10" if heads <= 10 else "tab20"].colors[:heads])


def _draw_curves(mask, spectrum, picture: Picture) -> None:
    heads = list(zip(picture.values, picture.waves, picture.weights, strict=True))
    for head, color in enumerate(_head_colors(len(heads))):
        values, waves, weights = heads[head]
        mask.plot(picture.offsets, values, color=color, linewidth=1.4, label=f"head {head}")
        spectrum.vlines(waves, 0, weights, color=color, linewidth=0.8, alpha=0.6)
        spectrum.plot(waves, weights, "o", markersize=2.5, color=color)
    mask.set_xlabel("offset")
    mask.set_title(f"{picture.name}: {picture.value_label}", fontsize=9)
    mask.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, fontsize=7, frameon=False,
        ncols=math.ceil(len(heads) / LEGEND_ROWS),
    )  # fmt: skip
    spectrum.set_xlabel(picture.wave_label)
    spectrum.set_title("weights of its waves", fontsize=9)
    for axes in (mask, spectrum):
        axes.grid(True, alpha=0.3)


def _draw_maps(figure, panels, picture: Picture) -> None:
    largest = float(np.abs(picture.values).max()) or 1.0
    reach = float(picture.offsets[-1])
    for head, (axes, values) in enumerate(zip(panels, picture.values, strict=False)):
        image = axes.imshow(
            values.T, origin="lower", cmap="RdBu_r", vmin=-largest, vmax=largest,
            extent=(-reach, reach, -reach, reach),
        )  # fmt: skip
        axes.set_title(f"{picture.name}: {picture.value_label}, head {head}", fontsize=9)
        figure.colorbar(image, ax=axes, shrink=0.8)
    spectrum = panels[len(picture.values)]
    points = picture.waves.reshape(-1, 2)
    colors = picture.weights.reshape(-1)
    limit = float(np.abs(colors).max()) or 1.0
    dots = spectrum.scatter(*points.T, c=colors, s=8, cmap="RdBu_r", vmin=-limit, vmax=limit)
    spectrum.set_title("weights of its waves, all heads", fontsize=9)
    spectrum.set_xlabel(picture.wave_label)
    spectrum.set_aspect("equal", adjustable="datalim")
    figure.colorbar(dots, ax=spectrum, shrink=0.8)


def draw(pictures: list[Picture]):
    """The figure of all positions, a row for each."""
    columns = max(len(p.values) + 1 if p.is_map else 2 for p in pictures)
    figure, grid = new_figure(len(pictures), columns, PANEL)
    for panels, one in zip(grid, pictures, strict=True):
        if one.is_map:
            _draw_maps(figure, panels, one)
        else:
            _draw_curves(panels[0], panels[1], one)
        for axes in panels[len(one.values) + 1 if one.is_map else 2 :]:
            axes.set_visible(False)
    fit_titles(figure)
    return figure


def plot(file: str | Path, picture: str | Path | None = None) -> Path:
    """Draws the masks in ``file`` into ``picture`` (default: beside it, as FILE.masks.png)."""
    pictures = load_pictures(Path(file))
    default = Path(file) / "masks.png" if Path(file).is_dir() else Path(f"{file}.masks.png")
    target = Path(picture) if picture else default
    save(draw(pictures), target)
    return target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mnemosyne plot mask", description=__doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="safetensors file or run folder")
    parser.add_argument("--out", help="where to write (default: CHECKPOINT.masks.png)")
    options = parser.parse_args(arguments)
    try:
        print(plot(options.checkpoint, options.out))
    except (PlotError, ImportError) as error:
        print(f"mnemosyne: [plot mask] {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
