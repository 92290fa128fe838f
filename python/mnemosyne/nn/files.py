"""Modules in safetensors files, with the options that they are made of."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from mnemosyne import _C
from mnemosyne.nn.module import LibraryModule, make_module
from mnemosyne.nn.position import position_metadata

__all__ = ["load", "save"]

_WEIGHTS = "weights.safetensors"


def load(path: str | os.PathLike[str]) -> LibraryModule:
    """The module that a file holds: of `save`, or of `mnemosyne train --out` with an flt task.

    Args:
        path: the file, or the folder of a run.

    Returns:
        The module with its weights, frozen draws and options, in training mode: the same outputs as
        where it was written, to the last bit.

    Errors: ValueError, one line, for what is no such file: of another kind, damaged, incomplete.

    Example:
        >>> model = mnemosyne.nn.load("runs/text")                    # of train --task flt_char_lm
        >>> logits = model.eval()(tokens)
    """
    file = Path(path)
    if file.is_dir():
        file = file / _WEIGHTS
    tensors, metadata = _C.read_safetensors(str(file))
    if "module" not in metadata:
        whose = f"the task {metadata['task']}" if "task" in metadata else "something else"
        raise ValueError(
            f"[load] {file}: expected weights of a module of mnemosyne.nn, with its options, got "
            f"those of {whose}"
        )
    module = _made(file, metadata["module"])
    _check_fit(f"[load] {file}", module.state_dict(), tensors)
    # The tensors themselves, so that dtypes are those of the file.
    module.load_state_dict(tensors, assign=True)
    return module


def save(module: LibraryModule, path: str | os.PathLike[str]) -> None:
    """Writes a module of `mnemosyne.nn` for `load`: weights, frozen draws and options.

    Errors: TypeError for another module; ValueError where its parts have been replaced or wrapped,
    so that its options do not tell what they are.

    Example:
        >>> mnemosyne.nn.save(model, "model.safetensors")
    """
    if not isinstance(module, LibraryModule):
        raise TypeError(
            f"[save] expected a module of mnemosyne.nn, got {type(module).__name__}; "
            "see position_metadata for models that hold some"
        )
    state = module.state_dict()
    made_again = make_module(module._kind, *module._arguments)
    _check_fit(f"[save] {path}", made_again.state_dict(), state)
    said = {"type": module._kind, "arguments": list(module._arguments)}
    metadata = {"module": json.dumps(said), **position_metadata(module)}
    _C.write_safetensors(str(path), state, metadata)


def _made(file: Path, text: str) -> LibraryModule:
    try:
        said = json.loads(text)
        return make_module(said["type"], *said["arguments"])
    except (KeyError, TypeError, IndexError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"[load] {file}: expected options of a module in its metadata, got {text[:80]} "
            f"({reason})"
        ) from error


def _check_fit(where: str, expected: dict[str, Any], found: dict[str, torch.Tensor]) -> None:
    for name in sorted(expected.keys() | found.keys()):
        here, there = (
            f"{name} {list(tensors[name].shape)}" if name in tensors else f"no {name}"
            for tensors in (expected, found)
        )
        if here != there:
            raise ValueError(f"{where}: expected {here}, got {there}")
