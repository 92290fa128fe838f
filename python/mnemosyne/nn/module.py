"""Modules of the C++ library as `torch.nn.Module`s: parameters here, mathematics there."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mnemosyne import _C

# For what calls C++ modules: `torch.compile` breaks its graph there and does not look inside. This
# is `torch.compiler.disable` without its import of the compiler before the first call.
uncompiled = torch._disable_dynamo


class LibraryModule(torch.nn.Module):
    """A module whose forward pass is C++ and whose parameters are those of Python.

    Parameters and buffers have the names of the C++ module, so checkpoints of both languages fit.
    They are ordinary `torch.nn.Parameter`s: optimizers, `state_dict`, copying, pickling, `.to()`,
    DDP, `torch.nn.utils.parametrize` and `torch.func.functional_call` work, and gradients of any
    order go through C++ autograd. Transforms of `torch.func` (grad, vmap) do not and say so.
    `torch.compile` breaks its graph at these modules, which run as they do without it.
    """

    _core: "_C.Module"

    def _start(self, make: str, *arguments: Any) -> None:
        """Makes the C++ module by `_C.<make>` of plain values, which a copy is made of again."""
        super().__init__()
        self._recipe = (make, arguments)
        self._core = getattr(_C, make)(*arguments)
        _grow(self, self._core)

    def _tied(self) -> "_C.Module":
        """The C++ module, computing with the tensors that this one has now."""
        self._core = self._core.tied([_find(self, name) for name in self._core.names])
        return self._core

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> torch.nn.Module:
        # Frozen draws are in float64, where C++ rounds their angles: they move, and stay in it.
        draws = {
            name: buffer for name, buffer in self.named_buffers() if buffer.is_floating_point()
        }
        super()._apply(fn, recurse)
        for name, buffer in draws.items():
            moved = _find(self, name)
            if moved.dtype != buffer.dtype:
                owner, leaf = _owner(self, name)
                owner._buffers[leaf] = buffer.to(moved.device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_core", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        make, arguments = self._recipe
        self._core = getattr(_C, make)(*arguments)


class Part(torch.nn.Module):
    """Parameters of a part of a `LibraryModule`, which has no forward pass of its own."""


def _wrap(core: "_C.Module") -> torch.nn.Module:
    from mnemosyne.nn.position import DampedPosition, FourierPosition

    for kind in (FourierPosition, DampedPosition):
        if core.kind == kind.__name__:
            # Options hold the seed, so the same numbers come out.
            return kind(**_C.position_options(core))
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


def _owner(module: torch.nn.Module, name: str) -> tuple[torch.nn.Module, str]:
    *path, leaf = name.split(".")
    for child in path:
        module = module._modules[child]
    return module, leaf


def _find(module: torch.nn.Module, name: str) -> Tensor:
    owner, leaf = _owner(module, name)
    return getattr(owner, leaf)
