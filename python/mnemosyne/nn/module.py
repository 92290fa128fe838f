"""Modules of the C++ library as `torch.nn.Module`s."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mnemosyne import _C

_kinds: dict[str, type["LibraryModule"]] = {}


class LibraryModule(torch.nn.Module):
    """A module of the library; its parameters are those of Python, and so are its layers.

    Parameters and buffers have the names of the C++ module, so checkpoints of both languages fit.
    Projections, norms and feed-forward layers are `torch.nn.Linear` and `torch.nn.LayerNorm`, and
    are called: hooks, adapters in place of a layer, pruning, quantisation and wrappers work as on
    any module of torch. What is between the projections of attention and inside of positions is
    C++; there parametrisations work, and a position may be replaced by one of the same options.

    Optimizers, `state_dict`, copying, pickling, `.to()`, DDP and `torch.func.functional_call` work,
    and gradients of any order go through C++ autograd. What is C++ is an operator
    (`torch.ops.mnemosyne.attention` and others) whose arguments are the options, as a text, and the
    tensors: `torch.compile(fullgraph=True)`, `torch.export`, `torch.func.grad` and `vmap` go
    through it. What they trace has no numbers to look at: docs/position.md says which errors then
    come later, and which need an extent.
    """

    _kind = ""
    #: Whether there is a C++ module that computes with tensors of this one.
    _computes = False
    #: What that is made of, as a text.
    _description = ""
    #: Of its tensors: dotted names.
    _names: Sequence[str] = ()

    def _start(
        self,
        *arguments: Any,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Makes the C++ module from plain values; device and dtype as those of torch's modules."""
        self._adopt(_C.make_module(self._kind, *arguments))
        self._place(device, dtype)

    def _place(self, device: torch.device | str | int | None, dtype: torch.dtype | None) -> None:
        # A tensor knows about every default: of the dtype, of the device, of a context.
        like = torch.empty(0, device=device, dtype=dtype)
        if like.device.type != "cpu" or like.dtype != torch.float32:
            self.to(like.device, like.dtype)

    def _adopt(self, core: "_C.Module") -> None:
        torch.nn.Module.__init__(self)
        self._arguments = core.arguments
        _grow(self, core)
        if self._computes:
            self._names = core.names
            self._describe()

    def _describe(self) -> None:
        self._description = json.dumps({"type": self._kind, "arguments": self._arguments})

    @property
    def options(self) -> dict[str, Any]:
        """All options by name, the seed that was drawn included."""
        return dict(self._arguments[0])

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

    def _tensors(self) -> list[Tensor]:
        """What the C++ module computes with, as it is now."""
        owners: dict[str, torch.nn.Module] = {}
        tensors = []
        for name in self._names:
            path, _, leaf = name.rpartition(".")
            if path not in owners:
                owners[path] = _owner(self, path)
                _run_hooks(owners[path])
            tensors.append(getattr(owners[path], leaf))
        return tensors

    def __setattr__(self, name: str, value: Any) -> None:
        if self._computes:
            old = self.__dict__.get("_modules", {}).get(name)
            if isinstance(old, LibraryModule | Part):
                _check_replacement(name, old, value)
        super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> torch.nn.Module:
        # Frozen draws stay in float64, where C++ rounds their angles: they move, and that is all.
        draws = {
            name: buffer
            for name, buffer in self.named_buffers()
            if name in self._names and buffer.is_floating_point()
        }
        super()._apply(fn, recurse)
        for name, buffer in draws.items():
            path, _, leaf = name.rpartition(".")
            owner = _owner(self, path)
            moved = owner._buffers[leaf]
            if moved.dtype != buffer.dtype:
                owner._buffers[leaf] = buffer.to(moved.device)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._computes and not self._description:  # of a version that had none
            self._describe()


class Part(torch.nn.Module):
    """Parameters of a part of a `LibraryModule`, which has no forward pass of its own."""


def library_module(cls: type[LibraryModule]) -> type[LibraryModule]:
    """Of the class that stands for the C++ module of the same name."""
    cls._kind = cls.__name__
    _kinds[cls.__name__] = cls
    return cls


def make_module(kind: str, *arguments: Any) -> LibraryModule:
    """The module of the C++ module that `_C.make_module` makes; ValueError where there is none."""
    return _wrap(_C.make_module(kind, *arguments))


def _linear(tensors: dict[str, Tensor]) -> torch.nn.Module:
    outputs, inputs = tensors["weight"].shape
    return torch.nn.Linear(inputs, outputs, bias="bias" in tensors, device="meta")


def _norm(tensors: dict[str, Tensor]) -> torch.nn.Module:
    return torch.nn.LayerNorm(tensors["weight"].numel(), device="meta")


_LAYERS = {"Dense": _linear, "Norm": _norm}


def _wrap(core: "_C.Module") -> torch.nn.Module:
    if core.kind in _LAYERS:
        tensors = dict(core.take_parameters())
        layer = _LAYERS[core.kind](tensors)
        for name, tensor in tensors.items():
            layer.register_parameter(name, torch.nn.Parameter(tensor))
        return layer
    if core.kind in _kinds:
        cls = _kinds[core.kind]
        module = cls.__new__(cls)
        module._adopt(core)
        return module
    part = Part()
    _grow(part, core)
    return part


def _grow(module: torch.nn.Module, core: "_C.Module") -> None:
    """Gives a module the parameters, buffers and children of a C++ module."""
    for name, tensor in core.parameters():
        module.register_parameter(name, torch.nn.Parameter(tensor.detach()))
    for name, tensor in core.buffers():
        module.register_buffer(name, tensor.detach())
    for name, child in core.children():
        module.add_module(name, _wrap(child))


def _owner(module: torch.nn.Module, path: str) -> torch.nn.Module:
    for child in path.split(".") if path else ():
        module = getattr(module, child)  # not `_modules`: wrappers hand on what they wrap
    return module


def _run_hooks(part: torch.nn.Module) -> None:
    """What pruning and the old `weight_norm` have a call do first: parts are read, not called."""
    for key, hook in part._forward_pre_hooks.items():
        if key in part._forward_pre_hooks_with_kwargs:
            hook(part, (), {})
        else:
            hook(part, ())


def _check_replacement(name: str, old: torch.nn.Module, new: Any) -> None:
    def kept(module: Any) -> dict[str, Any] | None:
        options = getattr(module, "options", None)
        return {**options, "seed": None} if isinstance(options, dict) else None

    same = kept(new) == kept(old) if isinstance(old, LibraryModule) else isinstance(new, Part)
    if not same:
        kind = type(old).__name__
        raise ValueError(
            f"[{name}] expected a {kind} with the options of the one that it replaces, which C++ "
            f"computes with, got {type(new).__name__}"
        )


def numbered(module: torch.nn.Module, prefix: str) -> Iterator[torch.nn.Module]:
    """The children `prefix`0, `prefix`1, ... as they are now."""
    index = 0
    while hasattr(module, f"{prefix}{index}"):
        yield getattr(module, f"{prefix}{index}")
        index += 1
