"""The picture of a comparison."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from mnemosyne import plot


def write_runs(folder, cell, label, curves):
    target = folder / "curves" / cell / label
    target.mkdir(parents=True)
    for seed, curve in enumerate(curves):
        losses = np.asarray(curve, dtype=np.float32)
        save_file({"loss": losses}, target / f"seed{seed}.safetensors")


def test_smoothing_is_a_trailing_mean():
    losses = np.arange(100, dtype=np.float32)[None]
    smoothed = plot.smooth(losses)
    assert smoothed[0, 0] == 0
    assert smoothed[0, 9] == pytest.approx(losses[0, :10].mean())
    assert smoothed[0, 99] == pytest.approx(losses[0, 75:].mean())


def test_picture_has_a_panel_per_cell(tmp_path):
    falling = 1 / np.arange(1, 101)
    for cell in ["a@100", "b@100", "c@100", "d@100"]:
        write_runs(tmp_path, cell, "adamw", [falling, 2 * falling])
        write_runs(tmp_path, cell, "mnemosyne:num_steps", [falling**2])
    cells = plot.load_cells(tmp_path)
    assert list(cells) == ["a@100", "b@100", "c@100", "d@100"]
    assert cells["a@100"][0].losses.shape == (2, 100)
    picture = plot.plot(tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000


def test_diverged_and_negative_curves_are_drawn(tmp_path):
    diverged = np.concatenate([np.ones(10), np.full(20, np.inf)])
    write_runs(tmp_path, "a@30", "bad", [diverged, diverged])
    write_runs(tmp_path, "a@30", "worse", [np.full(30, np.inf)])
    write_runs(tmp_path, "a@30", "negative", [np.linspace(1, -1, 30)])
    assert plot.plot(tmp_path, tmp_path / "other.png").exists()


def test_what_is_no_comparison_is_one_line(tmp_path, capsys):
    assert plot.main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    write_runs(tmp_path, "a@3", "bad", [[1, 2, 3]])
    file = tmp_path / "curves" / "a@3" / "bad" / "seed0.safetensors"
    file.write_bytes(b"nonsense")
    assert plot.main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert str(file) in message and len(message.splitlines()) == 1
