"""The options of a parameter group: checked when they are given and read for each step."""

import numbers
import os
from typing import Any, NamedTuple

from torch import Tensor

from mnemosyne import _C


class StepOptions(NamedTuple):
    lr: float
    weight_decay: float
    num_steps: int | None
    momentum: float | None
    orthogonal: bool
    # What `lr` and `weight_decay` are multiplied with where they are tensors on a device.
    lr_factor: Tensor | None
    weight_decay_factor: Tensor | None


def shown(value: Any) -> str:
    """One line of a value, for messages."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def checked_options(owner: str, rule: "_C.Rule", group: dict[str, Any]) -> StepOptions:
    """The options of a group that is being made; ValueError, one line, for what cannot be used."""
    options = step_options(owner, rule, group, finite=False)
    _expect(options.lr >= 0, owner, "lr >= 0", group["lr"])
    _expect(_is_finite(options.lr), owner, "a finite lr", group["lr"])
    return options


def step_options(
    owner: str, rule: "_C.Rule", group: dict[str, Any], *, finite: bool = True
) -> StepOptions:
    """The options of a step: what users and schedulers have left in the group.

    A learning rate may be below 0 here, as rounding in a scheduler makes it.
    """
    lr, lr_factor = _factored(owner, "lr", group["lr"])
    _expect(not finite or _is_finite(lr), owner, "a finite lr", group["lr"])
    weight_decay, decay_factor = _factored(owner, "weight_decay", group["weight_decay"])
    _expect(weight_decay >= 0, owner, "weight_decay >= 0", group["weight_decay"])
    _expect(_is_finite(weight_decay), owner, "a finite weight_decay", group["weight_decay"])
    num_steps = group["num_steps"]
    if num_steps is not None:
        whole = isinstance(num_steps, numbers.Integral) and not isinstance(num_steps, bool)
        _expect(whole, owner, "num_steps as a whole number or None", num_steps)
        _expect(num_steps >= 1, owner, "num_steps >= 1", num_steps)
        num_steps = int(num_steps)
    momentum = group.get("momentum")
    if momentum is not None:
        has_momentum = rule.default_momentum is not None
        _expect(has_momentum, owner, f"no momentum, which {rule.name} does not have", momentum)
        momentum = _number(owner, "momentum", momentum)
        _expect(0 <= momentum < 1, owner, "momentum in [0, 1)", group["momentum"])
    orthogonal = flag(owner, "orthogonal", group["orthogonal"])
    if not orthogonal:
        rule.elementwise()  # refuses where the rule has no such form
    return StepOptions(lr, weight_decay, num_steps, momentum, orthogonal, lr_factor, decay_factor)


def flag(owner: str, name: str, value: Any) -> bool:
    _expect(isinstance(value, bool), owner, f"{name} to be True or False", value)
    return value


def path(owner: str, weights: Any) -> str:
    if not isinstance(weights, (str, bytes, os.PathLike)):
        raise ValueError(f"[{owner}] expected weights to be a path, got {shown(weights)}")
    return os.fsdecode(weights)


def variant_name(owner: str, variant: Any) -> str | None:
    if variant is not None and not isinstance(variant, str):
        raise ValueError(f"[{owner}] expected variant to be a name or None, got {shown(variant)}")
    return variant


def _factored(owner: str, name: str, value: Any) -> tuple[float, Tensor | None]:
    """A number and the tensor that it is to be multiplied with: one on a device is not read."""
    if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point():
        if value.device.type != "cpu":
            return 1.0, value.detach().reshape(())
    return _number(owner, name, value), None


def _number(owner: str, name: str, value: Any) -> float:
    """A number, or a tensor with one, as schedulers use it in compiled steps."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return float(value)
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    _expect(real, owner, f"{name} to be a number", value)
    return float(value)


def _is_finite(value: float) -> bool:
    return value - value == 0


def _expect(holds: bool, owner: str, expected: str, got: Any) -> None:
    if not holds:
        raise ValueError(f"[{owner}] expected {expected}, got {shown(got)}")
