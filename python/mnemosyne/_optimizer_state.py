"""What an optimizer keeps in `optimizer.state[p]`, and how a rule of the C++ library sees it.

Every entry has the parameter's shape, but for two: "step", as in torch's optimizers, and
"extra_state", a flat tensor of everything else that the rule remembers of the parameter. Entries of
other names are the user's own and are left alone.
"""

from collections.abc import Iterable
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mnemosyne import _C
from mnemosyne._optimizer_options import shown

EXTRA_STATE = "extra_state"
HOST = torch.device("cpu")


class Entry(NamedTuple):
    name: str
    shape: torch.Size
    dtype: torch.dtype
    on_host: bool
    like_param: bool


class StateLayout:
    """The entries of one parameter's state; those of a sharded parameter are sharded like it."""

    def __init__(self, rule: "_C.Rule", param: Tensor):
        like = torch.empty(param.shape, dtype=param.dtype, device="meta")
        self._entries = [
            Entry(name, torch.Size(shape), *rest) for name, shape, *rest in rule.state_layout(like)
        ]
        self._packed = [e for e in self._entries if not e.like_param and e.name != "step"]
        stored = [e for e in self._entries if e.like_param or e.name == "step"]
        size = sum(prod(e.shape) for e in self._packed)
        self._has_extra = size > 0
        # Rows and columns of [6, 4] have as many numbers as those of [4, 6].
        several = self._has_extra and len({e.shape for e in self._packed}) > 1
        self._head = [float(n) for n in param.shape] if several else []
        size += len(self._head)
        self._part_sizes = [len(self._head), *(prod(e.shape) for e in self._packed)]
        if self._has_extra:
            first = self._packed[0]
            stored.append(Entry(EXTRA_STATE, torch.Size([size]), first.dtype, first.on_host, False))
        self._stored = stored
        # For each of the rule's tensors its name, where it has an entry of its own.
        self._own_names = [None if e in self._packed else e.name for e in self._entries]

    def is_in(self, state: dict[str, Any]) -> bool:
        """Whether a parameter has had a step or a load; its state may be incomplete."""
        return any(entry.name in state for entry in self._stored)

    def unchecked(self, state: dict[str, Any], param: Tensor) -> list[Tensor] | None:
        """The rule's tensors as they lie in `state`; None where `tensors` has to look closer."""
        if self._head:
            return None
        try:
            if not self._packed:
                return [state[own] for own in self._own_names]
            extra = state[EXTRA_STATE] if self._has_extra else None
            if extra is not None and extra.dim() != 1:
                return None
            parts = iter(self._unpack(extra, param.device))
            return [next(parts) if own is None else state[own] for own in self._own_names]
        except (KeyError, RuntimeError, AttributeError):
            return None

    def tensors(self, state: dict[str, Any], param: Tensor, owner: str, name: str) -> list[Tensor]:
        """The rule's tensors out of `state`, in the rule's order; they share its memory.

        Those that were moved to another device, or whose numbers do not lie one after the other,
        are brought back. ValueError, one line, for what is missing or of another shape or dtype.
        """
        param_device = param.device
        for entry in self._stored:
            value = state.get(entry.name)
            if not _fits(value, entry):
                raise ValueError(_refusal(owner, entry, name, value))
            if value.device != (HOST if entry.on_host else param_device) or not (
                value.is_contiguous()
            ):
                state[entry.name] = _placed(value, entry, param)
        if not self._packed:
            return [state[own] for own in self._own_names]
        if param_device == HOST:  # what is on a device was checked when it was loaded
            self._check_head(state, owner, name)
        parts = iter(self._unpack(state.get(EXTRA_STATE), param_device))
        return [next(parts) if own is None else state[own] for own in self._own_names]

    def store(self, state: dict[str, Any], tensors: list[Tensor], param: Tensor) -> None:
        """Writes the rule's tensors after the first step of a parameter."""
        for own, entry, tensor in zip(self._own_names, self._entries, tensors, strict=True):
            if own is not None:
                state[own] = shard_like(tensor, param) if entry.like_param else tensor
        if self._has_extra:
            names = zip(tensors, self._own_names, strict=True)
            state[EXTRA_STATE] = self._pack([tensor for tensor, own in names if own is None])

    def reshard(self, state: dict[str, Any], tensors: list[Tensor], param: Tensor) -> None:
        """Writes what was gathered for a step back to the shards."""
        for own, entry, tensor in zip(self._own_names, self._entries, tensors, strict=True):
            if own is not None and entry.like_param:
                state[own] = shard_like(tensor, param)

    def replace(self, state: dict[str, Any], place: int, before: Tensor, after: Tensor) -> None:
        """Writes a tensor that has taken the place of one that `tensors` gave, but to shards."""
        own = self._own_names[place]
        if own is None:
            before.copy_(after)
        else:
            state[own] = after

    def load(self, stored: dict[str, Any], param: Tensor, owner: str, name: str) -> dict[str, Any]:
        """What a checkpoint has of a parameter, the rule's entries in their own dtype and place.

        Takes also the form of earlier versions, with an entry for each of the rule's tensors.
        """
        state = {k: v.value if isinstance(v, _Kept) else v for k, v in stored.items()}
        if any(e.name in state for e in self._packed) and EXTRA_STATE not in state:
            parts = [_cast(state.pop(e.name, None), e) for e in self._packed]
            for part, entry in zip(parts, self._packed, strict=True):
                if not _fits(part, entry):
                    raise ValueError(_refusal(owner, entry, name, part))
            if self._has_extra:
                state[EXTRA_STATE] = self._pack(parts)
        if not self.is_in(state):
            return state
        for entry in self._stored:
            value = _cast(state.get(entry.name), entry)
            if not _fits(value, entry):
                raise ValueError(_refusal(owner, entry, name, state.get(entry.name)))
            value = _placed(value, entry, param)
            state[entry.name] = value.clone() if value is state[entry.name] else value
        if state["step"] < 0:
            raise ValueError(
                f"[{owner}] expected step of at least 0 for {name}, got {int(state['step'])}"
            )
        self._check_head(state, owner, name)
        return state

    def _pack(self, parts: list[Tensor]) -> Tensor:
        head = torch.tensor(self._head, dtype=parts[0].dtype).to(parts[0].device)
        return torch.cat([head, *(part.reshape(-1) for part in parts)])

    def _check_head(self, state: dict[str, Any], owner: str, name: str) -> None:
        if not self._head or state[EXTRA_STATE].is_meta:
            return
        head = state[EXTRA_STATE][: len(self._head)]
        if not head.any():  # a hook has reset the state
            head.copy_(head.new_tensor(self._head))
        if head.tolist() != self._head:
            raise ValueError(
                f"[{owner}] expected {EXTRA_STATE} of a parameter of {self._head} for {name}, "
                f"got that of {head.tolist()}"
            )

    def _unpack(self, extra: Tensor | None, device: torch.device) -> list[Tensor]:
        if len(self._packed) == 1 and extra is not None:
            shape = self._packed[0].shape
            return [extra if extra.shape == shape else extra.view(shape)]
        if extra is None:  # all of them are empty
            return [torch.empty(e.shape, dtype=e.dtype, device=device) for e in self._packed]
        # A list of hundreds of tensors is taken apart at every step. What modes may look into, such
        # as a FakeTensor, is split where they see it.
        split = _C.parts if type(extra) is Tensor else Tensor.split_with_sizes
        parts = split(extra, self._part_sizes)
        return [
            part if part.shape == entry.shape else part.view(entry.shape)
            for part, entry in zip(parts[1:], self._packed, strict=True)
        ]


class _Kept:
    """Carries a tensor through torch's `load_state_dict`, which casts those that it sees."""

    def __init__(self, value: Tensor):
        self.value = value


def kept_for_the_rule(state_dict: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A checkpoint for torch's `load_state_dict` that shares no tensor with the given one.

    Entries with the names are out of torch's reach: it gives every entry but "step" the dtype and
    device of the parameter. Of those of other names torch decides.
    """
    names = {"step", EXTRA_STATE, *names}
    known = set(chain.from_iterable(group["params"] for group in state_dict["param_groups"]))

    def kept(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return _Kept(value.detach()) if name in names else value.detach().clone()

    state = {
        key: {n: kept(n, v) for n, v in entries.items()} if key in known else entries
        for key, entries in state_dict["state"].items()
    }
    return {**state_dict, "state": state}


def is_sharded(tensor: Tensor) -> bool:
    # The attribute, so that nobody pays for importing torch.distributed who does not use it.
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if is_sharded(tensor) else tensor


def shard_like(tensor: Tensor, param: Tensor) -> Tensor:
    """This rank's shard of what all ranks hold, where the parameter is sharded."""
    if not is_sharded(param):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    mesh = param.device_mesh
    replicated = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=param.placements)


def _fits(value: Any, entry: Entry) -> bool:
    return isinstance(value, Tensor) and value.dtype == entry.dtype and value.shape == entry.shape


def _cast(value: Any, entry: Entry) -> Any:
    """A number of a checkpoint in the entry's dtype, where nothing but digits can get lost."""
    if entry.name == "step" and isinstance(value, (int, float)) and value == int(value):
        return torch.tensor(int(value))
    if not isinstance(value, Tensor) or value.dtype == entry.dtype:
        return value
    if entry.dtype.is_floating_point and value.is_floating_point():
        return value.to(entry.dtype)
    if entry.name == "step" and not value.is_complex() and bool((value == value.round()).all()):
        return value.to(entry.dtype)
    return value


def _placed(value: Tensor, entry: Entry, param: Tensor) -> Tensor:
    value = value.to(HOST if entry.on_host else param.device)
    return value if is_sharded(value) else value.contiguous()


def _refusal(owner: str, entry: Entry, name: str, value: Any) -> str:
    got = f"{_dtype(value.dtype)} {list(value.shape)}" if isinstance(value, Tensor) else "none"
    if not isinstance(value, Tensor) and value is not None:
        got = shown(value)
    expected = f"{entry.name} of {_dtype(entry.dtype)} {list(entry.shape)}"
    return f"[{owner}] expected {expected} for {name}, got {got}"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
