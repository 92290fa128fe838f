"""Weights in the library are those that the configurations in the repository make."""

from pathlib import Path

import pytest
from command_line import run
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))


def config_of(weights):
    """The configuration that a weights file was made from, by name."""
    with safe_open(weights, "pt") as file:
        return dict(line.split(" = ", 1) for line in file.metadata()["config"].splitlines())


def test_every_weights_file_has_a_configuration():
    rules = {path.stem.replace("_", "-") for path in CONFIGS}
    assert {path.stem for path in (ROOT / "weights").iterdir()} == rules


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_is_the_one_that_made_the_weights(path, tmp_path):
    rule = path.stem.replace("_", "-")
    assert f"mnemosyne meta-train --config configs/{path.name} " in path.read_text()
    weights = ROOT / "weights" / f"{rule}.safetensors"
    assert weights.stat().st_size < 1_000_000
    result = run("meta-train", "--config", path, "--out", tmp_path, "--num-outer-steps", 0)
    assert result.returncode == 0, result.stderr
    found = config_of(weights)
    name = found["rule"].strip('"')  # "mnemosyne" of mnemosyne-attention, too
    expected = config_of(tmp_path / f"{name}.safetensors")
    expected["num_outer_steps"] = found["num_outer_steps"]  # nothing was trained here
    assert found == {name: expected[name] for name in found}
