"""XYZ files through two readers, ours and ASE's, as lists of frames that compare equal.

A frame is a dictionary of numbers (atomic), positions, and where there are any forces, energy and
lattice. ASE is what extended XYZ means.
"""

import json
import subprocess
import warnings
from pathlib import Path

import pytest
from command_line import environment, program

ase_io = pytest.importorskip("ase.io", reason="needs ASE (requirements.txt)")


def reader() -> Path:
    """the test program xyz_frames.cpp beside the command line of a build."""
    path = Path(program()).resolve().parents[1] / "tests" / "xyz_frames"
    if not path.exists():
        pytest.skip("needs the test program xyz_frames of a build")
    return path


def ours(paths) -> list[dict]:
    """Of each file {"frames": [...]} or {"error": "..."}."""
    result = subprocess.run(
        [reader()],
        input="".join(f"{path}\n" for path in paths),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def as_frame(atoms) -> dict:
    results = atoms.calc.results if atoms.calc else {}
    frame = {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}
    forces = results.get("forces", atoms.arrays.get("force"))
    if forces is not None and forces.shape == (len(atoms), 3):
        frame["forces"] = forces.astype(float).tolist()
    # A word "energy" in a text is True; no energy, then.
    if "energy" in results and results["energy"] is not True:
        frame["energy"] = results["energy"]
    if atoms.cell.any():
        frame["lattice"] = atoms.cell.array.ravel().tolist()
    return frame


def theirs(path) -> dict:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = ase_io.read(path, index=":", format="extxyz")
    except Exception as error:  # ASE lets what its parts raise pass through
        return {"error": f"{type(error).__name__}: {error}"}
    return {"frames": [as_frame(atoms) for atoms in images]}


def write(folder, contents) -> list[Path]:
    paths = []
    for i, content in enumerate(contents):
        paths.append(folder / f"{i:05d}.xyz")
        paths[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
    return paths
