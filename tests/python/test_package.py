"""The package around the library: version, stubs, and what `python -m mnemosyne` gives."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mnemosyne.__main__ import library_path

import mnemosyne
from mnemosyne import _C

ROOT = Path(__file__).parents[2]


def run_module(*arguments):
    command = [sys.executable, "-m", "mnemosyne", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_version_is_the_one_of_the_header():
    header = (ROOT / "mnemosyne" / "version.h").read_text()
    assert mnemosyne.__version__ == ".".join(re.findall(r"VERSION_[A-Z]+ (\d+)", header))


def test_the_library_was_built_with_this_torch():
    assert _C.torch_version.split(".")[:2] == torch.__version__.split(".")[:2]


def test_the_stubs_name_what_the_module_has():
    def public(names):
        return {name for name in names if not name.startswith("_")}

    stubs = ast.parse((ROOT / "python" / "mnemosyne" / "_C.pyi").read_text())
    functions = {node.name for node in stubs.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name: node for node in stubs.body if isinstance(node, ast.ClassDef)}
    assert public(functions | classes.keys()) == public(dir(_C)) - {"torch_version"}
    for name, node in classes.items():
        members = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        assert public(members) == public(dir(getattr(_C, name)))


def test_cmake_finds_the_library_through_python():
    result = run_module("--cmake-dir")
    assert result.returncode == 0
    assert (Path(result.stdout.strip()) / "mnemosyne-config.cmake").exists()


def test_other_arguments_reach_the_program():
    result = run_module("--help")
    assert result.returncode == 0
    assert "train" in result.stdout
    assert run_module("no-such-command").returncode == 2


def test_the_program_finds_torch_in_another_place_than_the_package():
    libraries = Path(library_path(""))
    assert list(libraries.glob("libtorch_cpu.*"))
    assert library_path("/mine") == f"/mine{os.pathsep}{libraries}"


def test_errors_of_the_library_are_exceptions_of_python():
    with pytest.raises(ValueError, match='expected one of .*adamw.*, got "no-such-rule"'):
        _C.make_rule("no-such-rule")
    with pytest.raises(ValueError, match="no-such-file"):
        _C.load_rule("no-such-file")


def test_weights_files_give_back_the_same_rule(tmp_path):
    rule = _C.make_rule("mnemosyne")
    path = str(tmp_path / "mine.safetensors")
    _C.save_rule(path, rule, {"note": "untrained"})
    loaded = _C.load_rule(path)
    assert (loaded.name, loaded.options, loaded.hash) == (rule.name, rule.options, rule.hash)
    param = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = mnemosyne.optim.Mnemosyne([param], weights=path)
    assert optimizer.param_groups[0]["weights_hash"] == rule.hash
    with pytest.raises(ValueError, match='expected weights of "lstm", got "mnemosyne"'):
        mnemosyne.optim.LSTM([param], weights=path)
