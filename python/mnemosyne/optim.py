"""Learned optimizers as `torch.optim.Optimizer`s, over the update rules of the C++ library.

The weights come with the package. Everything that holds for an optimizer of torch holds here:
parameter groups, closures, schedulers (`lr` is a plain multiplier, 1 by default), `GradScaler`,
`state_dict` with bit-exact resume, copying, pickling, `torch.distributed.checkpoint`, DDP, FSDP2.
"""

import os
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mnemosyne import _C

__all__ = ["LSTM", "Mnemosyne", "RuleOptimizer"]


class RuleOptimizer(Optimizer):
    """Runs any update rule of the C++ library, by its name or as a `_C.Rule`.

    Args:
        params: parameters or groups; a group may have its own `lr`, `weight_decay`, `num_steps`.
        rule: one of `mnemosyne._C.rule_names()`, or a rule.
        lr: step size; None for the rule's default.
        weight_decay: decoupled: each step takes `lr * weight_decay * p` off as well.
        num_steps: length of the training run, when known; rules with a schedule use it.

    Non-finite entries of gradients count as zero, and `nonfinite_count` counts them. Parameters
    without a gradient are left alone, and sparse or complex ones are refused.

    Sharded parameters (DTensor, FSDP2) are updated exactly like whole ones. Since an update depends
    on the whole tensor, each step gathers gradients, parameters and state of all of them on every
    rank, computes there, and keeps its own shard: memory for the whole list during a step, and one
    all-gather a tensor. Between steps, state of the shape of its parameter stays sharded.
    """

    def __init__(
        self,
        params: Iterable[Any],
        rule: "_C.Rule | str",
        *,
        lr: float | None = None,
        weight_decay: float = 0.0,
        num_steps: int | None = None,
    ):
        self._rule = _C.make_rule(rule) if isinstance(rule, str) else rule
        self._nonfinite_count = 0
        defaults = {
            "lr": self._rule.default_lr if lr is None else lr,
            "weight_decay": weight_decay,
            "num_steps": num_steps,
            # In the groups because that is what reaches every kind of checkpoint.
            "weights_hash": self._rule.hash,
        }
        super().__init__(params, defaults)

    @property
    def nonfinite_count(self) -> int:
        """How many entries of gradients were NaN or infinite so far."""
        return self._nonfinite_count

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        group = {**self.defaults, **param_group}
        if not float(group["lr"]) >= 0:
            raise ValueError(f"[{type(self).__name__}] expected lr >= 0, got {group['lr']}")
        if not group["weight_decay"] >= 0:
            raise ValueError(
                f"[{type(self).__name__}] expected weight_decay >= 0, got {group['weight_decay']}"
            )
        if group["num_steps"] is not None and not group["num_steps"] >= 1:
            raise ValueError(
                f"[{type(self).__name__}] expected num_steps >= 1, got {group['num_steps']}"
            )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; runs a closure first, with gradients, and returns what it returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._check_gradients(group["params"])
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_params(params, group)
        return loss

    def _check_gradients(self, params: list[Tensor]) -> None:
        for p in params:
            if p.grad is None:
                continue
            if p.grad.layout != torch.strided:
                raise RuntimeError(
                    f"[{type(self).__name__}] expected dense gradients, got {p.grad.layout}"
                )
            if p.is_complex():
                raise RuntimeError(
                    f"[{type(self).__name__}] expected real parameters, got {p.dtype}"
                )

    def _step_params(self, params: list[Tensor], group: dict[str, Any]) -> None:
        whole = [_whole(p) for p in params]
        grads, count = _C.clean_gradients([_whole(p.grad) for p in params])
        self._nonfinite_count += count
        names = self._rule.state_names
        states = []
        for p, whole_p in zip(params, whole, strict=True):
            state = self.state[p]
            if not state:
                states.append(self._rule.init(whole_p))
            else:
                states.append([_whole(state[name]) for name in names])
        states = self._rule.step_(
            grads, states, whole, float(group["lr"]), group["weight_decay"], group["num_steps"]
        )
        for p, whole_p, tensors in zip(params, whole, states, strict=True):
            if whole_p is not p:
                _local(p).copy_(_local(_shard_like(whole_p, p)))
                tensors = tensors[:1] + [_shard_like(t, p) for t in tensors[1:]]
            self.state[p] = dict(zip(names, tensors, strict=True))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a `state_dict()` of an optimizer with the same weights; copies it."""
        for group in state_dict["param_groups"]:
            found = group.get("weights_hash")
            if found != self._rule.hash:
                raise ValueError(
                    f"[{type(self).__name__}] expected a checkpoint of the optimizer weights "
                    f"{self._rule.hash}, got one of {found}"
                )
        super().load_state_dict(state_dict)
        # The base class casts the state to the parameter's dtype, which for bfloat16 loses most of
        # it, and shares memory with the caller's dictionary where there is nothing to cast.
        keys = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        for key, p in zip(keys, params, strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                device = value.device if name == "step" else p.device
                self.state[p][name] = value.detach().to(device, copy=True)

    def __getstate__(self) -> dict[str, Any]:
        rule = self._rule
        return {
            **super().__getstate__(),
            "rule": (rule.name, rule.options, rule.weights()),
            "nonfinite_count": self._nonfinite_count,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "rule" in state:
            name, options, weights = state.pop("rule")
            self._rule = _C.make_rule(name, options)
            if weights:
                self._rule = self._rule.with_weights(weights)
            self._nonfinite_count = state.pop("nonfinite_count")
        super().__setstate__(state)


class Mnemosyne(RuleOptimizer):
    """The learned optimizer: no learning rate, no schedule, no number of steps to find.

    Args:
        params: parameters or groups; a group may have its own `lr`, `weight_decay`, `num_steps`.
        weights: "default" for those of the package, or the path of a weights file.
        variant: None, or "coordinate" for the coordinate-wise Mnemosyne.
        lr: a plain multiplier of every step; schedulers act on it.
        weight_decay: decoupled: each step takes `lr * weight_decay * p` off as well.
        num_steps: length of the training run, when known: its steps then shrink to zero.
        learned: False leaves the base rule, orthogonalised momentum, uncorrected.

    Example:
        >>> optimizer = mnemosyne.optim.Mnemosyne(model.parameters())
        >>> loss_fn(model(x), y).backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        weights: str | os.PathLike[str] = "default",
        variant: str | None = None,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        num_steps: int | None = None,
        learned: bool = True,
    ):
        rule = _C.mnemosyne_rule(os.fspath(weights), variant or "", learned)
        super().__init__(params, rule, lr=lr, weight_decay=weight_decay, num_steps=num_steps)


class LSTM(RuleOptimizer):
    """The learned optimizer of Andrychowicz et al. 2016 (arXiv 1606.04474), a baseline.

    Args:
        params: parameters or parameter groups; a group may have its own `lr`.
        weights: "default" for those of the package, or the path of a weights file.
        variant: None for inputs by their logarithm and sign, "rnnprop" for those of RNNprop.
        lr: a plain multiplier of every step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        weights: str | os.PathLike[str] = "default",
        variant: str | None = None,
        lr: float = 1.0,
    ):
        if weights == "default":
            rule = _C.default_rule("lstm" if variant is None else f"lstm-{variant}")
        else:
            rule = _C.load_rule(os.fspath(weights))
        if not rule.name.startswith("lstm"):
            raise ValueError(f'[LSTM] expected weights of "lstm", got "{rule.name}" in {weights}')
        super().__init__(params, rule, lr=lr)


def _is_sharded(tensor: Tensor) -> bool:
    # The attribute, so that nobody pays for importing torch.distributed who does not use it.
    return hasattr(tensor, "full_tensor")


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if _is_sharded(tensor) else tensor


def _shard_like(whole: Tensor, param: Tensor) -> Tensor:
    """This rank's shard of what all ranks hold; whole if its shape is not the parameter's."""
    if whole.shape != param.shape:
        return whole
    from torch.distributed.tensor import DTensor, Replicate

    mesh = param.device_mesh
    replicated = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=param.placements)
