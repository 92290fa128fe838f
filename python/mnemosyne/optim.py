"""Learned optimizers as `torch.optim.Optimizer`s, over the update rules of the C++ library.

The weights come with the package. Everything that holds for an optimizer of torch holds here:
parameter groups, closures, schedulers (`lr` is a plain multiplier, 1 by default), `GradScaler`,
`state_dict` with bit-exact resume and its hooks, copying, pickling, `torch.distributed.checkpoint`,
DDP, FSDP2. docs/optimizer.md has the options and the state in words.
"""

import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mnemosyne import _C
from mnemosyne._optimizer_options import (
    StepOptions,
    checked_options,
    flag,
    path,
    shown,
    step_options,
    variant_name,
)
from mnemosyne._optimizer_state import (
    StateLayout,
    is_sharded,
    kept_for_the_rule,
    local,
    shard_like,
    whole,
)

__all__ = ["LSTM", "Mnemosyne", "RuleOptimizer"]

COUNTS = ("nonfinite_count", "fallback_count", "damped_count")

# In the groups, because that reaches every kind of checkpoint, as does the hash of the weights.
SHARED_STATE = "shared_state"


class RuleOptimizer(Optimizer):
    """Runs any update rule of the C++ library, by its name or as a `_C.Rule`.

    Args:
        params: parameters or groups; a group may have its own values of the options below, and a
            `momentum` in [0, 1) in place of the rule's own, which `OneCycleLR` and `CyclicLR` set.
        rule: one of `mnemosyne._C.rule_names()`, or a rule.
        lr: step size; None for the rule's default. A tensor on the device of the parameters is
            never read, nor checked.
        weight_decay: as AdamW's: each step takes `step size * weight_decay * p` off as well; None
            for the rule's default. A tensor as with `lr`.
        num_steps: length of the training run, when known; rules with a schedule use it. Loading a
            checkpoint does not change one that is given: with a larger one a run is extended.
        orthogonal: False for parameters with masked entries: Adam's direction, nothing learned.

    Raises:
        ValueError: one line, for an option that cannot be used, a checkpoint of other weights, and
            a state that is not that of its parameter (from `load_state_dict` and from `step`).

    Non-finite entries of gradients count as zero, and `nonfinite_count` counts them. Parameters
    without a gradient are left alone, and sparse or complex ones are refused. An update that is not
    finite is never written: the tensor takes another (Adam's direction for `Mnemosyne`, else see
    `fallback_update` of the rule in C++), and `fallback_count` counts it. Where gradients run away,
    the default `Mnemosyne` takes its base rule's step, and `damped_count` counts the tensors.

    `state[p]` has entries of the shape of `p`, "step", and "extra_state", which holds everything
    else that the rule remembers of `p` in a flat tensor. Entries of other names are left alone.
    What a rule remembers of all parameters of a group together is a list of tensors in the group,
    "shared_state".

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
        lr: float | Tensor | None = None,
        weight_decay: float | Tensor | None = None,
        num_steps: int | None = None,
        orthogonal: bool = True,
    ):
        if not isinstance(rule, (str, _C.Rule)):
            raise ValueError(f"[{self._name}] expected a rule or its name, got {shown(rule)}")
        self._rule = _C.make_rule(rule) if isinstance(rule, str) else rule
        self._counts = {name: _C.DeferredCount() for name in COUNTS}
        self._warned = False
        self._layouts: dict[Any, StateLayout] = {}
        decay = self._rule.default_weight_decay if weight_decay is None else weight_decay
        defaults = {
            "lr": self._rule.default_lr if lr is None else lr,
            "weight_decay": decay,
            "num_steps": num_steps,
            "orthogonal": orthogonal,
            "weights_hash": self._rule.hash,
        }
        if self._rule.default_momentum is not None:
            # Schedulers that cycle the momentum look for it among the defaults.
            defaults["momentum"] = None
        super().__init__(params, defaults)

    @property
    def nonfinite_count(self) -> int:
        """How many entries of gradients were NaN or infinite so far; waits for a device."""
        return self._counts["nonfinite_count"].total()

    @property
    def fallback_count(self) -> int:
        """How many updates of tensors were not finite so far, and replaced; waits for a device."""
        return self._counts["fallback_count"].total()

    @property
    def damped_count(self) -> int:
        """How many steps of tensors the guard of `Mnemosyne` damped so far; waits for a device."""
        return self._counts["damped_count"].total()

    @property
    def _name(self) -> str:
        return type(self).__name__

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict):  # torch's refuses anything else
            checked_options(self._name, self._rule, {**self.defaults, **param_group})
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; runs a closure first, with gradients, and returns what it returns.

        Options, gradients and states of all groups are checked before anything is written.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        steps = [self._prepared(index) for index in range(len(self.param_groups))]
        for group, (params, states, options) in zip(self.param_groups, steps, strict=True):
            if params:
                self._step_params(group, params, states, options)
        return loss

    def _prepared(self, index: int) -> tuple[list[Tensor], list[list[Tensor]], StepOptions]:
        """The parameters of a group that have a gradient, their states (empty before the first
        step), and the options."""
        group = self.param_groups[index]
        options = step_options(self._name, self._rule, group)
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            self._check_gradient(p, p.grad)
        states = self._settled_states(params, options.orthogonal)
        if states is None:
            states = [
                self._checked_state(p, options.orthogonal, index, i)
                for i, p in enumerate(group["params"])
                if p.grad is not None
            ]
        return params, states, options

    def _settled_states(self, params: list[Tensor], orthogonal: bool) -> list[list[Tensor]] | None:
        """The states of parameters that have one each of which nothing has to be brought in order,
        as in most steps; else None. Asking the rule about all at once costs little."""
        states = []
        for p in params:
            if is_sharded(p):
                return None
            tensors = self._layout(p, orthogonal).unchecked(self.state[p], p)
            if tensors is None:
                return None
            states.append(tensors)
        rule = self._rule if orthogonal else self._rule.elementwise()
        try:
            return states if rule.has_states(states, params) else None
        except TypeError:  # something that is no tensor
            return None

    def _checked_state(self, p: Tensor, orthogonal: bool, group: int, index: int) -> list[Tensor]:
        layout, state = self._layout(p, orthogonal), self.state[p]
        if not layout.is_in(state):
            return []
        return layout.tensors(state, p, self._name, self._param_name(group, index))

    def _check_gradient(self, p: Tensor, grad: Tensor) -> None:
        if grad.layout != torch.strided:
            raise RuntimeError(f"[{self._name}] expected dense gradients, got {grad.layout}")
        if p.is_complex():
            raise RuntimeError(f"[{self._name}] expected real parameters, got {p.dtype}")

    def _step_params(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        states: list[list[Tensor]],
        options: StepOptions,
    ) -> None:
        rule = self._rule if options.orthogonal else self._rule.elementwise()
        whole_params, grads, before = params, [p.grad for p in params], states
        if any(map(is_sharded, params)):
            whole_params, grads = [whole(p) for p in params], [whole(g) for g in grads]
            before = [[whole(t) for t in state] for state in states]
        grads = _C.clean_gradients(grads, self._counts["nonfinite_count"])
        before = [state or rule.init(p) for state, p in zip(before, whole_params, strict=True)]
        replaced, shared, last = rule.step_(
            grads,
            before,
            whole_params,
            options.lr,
            options.weight_decay,
            options.num_steps,
            options.momentum,
            self._counts["fallback_count"],
            self._counts["damped_count"],
            group.get(SHARED_STATE) or [],
            options.lr_factor,
            options.weight_decay_factor,
        )
        if shared:
            group[SHARED_STATE] = shared
        for k, place, tensor in replaced:
            if states[k]:
                layout = self._layout(params[k], options.orthogonal)
                layout.replace(self.state[params[k]], place, states[k][place], tensor)
            before[k][place] = tensor
        for p, whole_p, state, tensors in zip(params, whole_params, states, before, strict=True):
            if whole_p is not p:
                local(p).copy_(local(shard_like(whole_p, p)))
                if state:
                    self._layout(p, options.orthogonal).reshard(self.state[p], tensors, p)
            if not state:
                self._layout(p, options.orthogonal).store(self.state[p], tensors, p)
        if options.num_steps is not None and last > options.num_steps and not self._warned:
            self._warned = True
            warnings.warn(
                f"[{self._name}] expected a run of num_steps = {options.num_steps} steps, got step "
                f"{last}: steps stay as small as the last one; a larger num_steps extends the run",
                stacklevel=5,
            )

    def _layout(self, p: Tensor, orthogonal: bool) -> StateLayout:
        key = (p.shape, p.dtype, orthogonal)
        if key not in self._layouts:
            rule = self._rule if orthogonal else self._rule.elementwise()
            self._layouts[key] = StateLayout(rule, p)
        return self._layouts[key]

    def _param_name(self, group: int, index: int) -> str:
        names = self.param_groups[group].get("param_names")
        return f'"{names[index]}"' if names else f"parameter {index} of group {group}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a `state_dict()` of an optimizer with the same weights; copies it.

        Options of the groups are those of the checkpoint, but for a `num_steps` that this optimizer
        was given. Hooks see and decide what they do with torch's optimizers.
        """
        # Behind the hooks of the user, which may make the checkpoint one that fits.
        handle = self.register_load_state_dict_pre_hook(RuleOptimizer._before_load)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    def _before_load(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        for group in state_dict["param_groups"]:
            found = group.get("weights_hash")
            if found != self._rule.hash:
                raise ValueError(
                    f"[{self._name}] expected a checkpoint of the optimizer weights "
                    f"{self._rule.hash}, got one of {found}"
                )
        return kept_for_the_rule(state_dict, self._rule.state_names)

    def _loaded(self, state: dict[str, Any]) -> dict[str, Any]:
        """What torch's `load_state_dict` is about to set, completed and checked."""
        own_groups, groups = self.param_groups, state["param_groups"]
        entries = dict(state["state"])
        for g, (own, group) in enumerate(zip(own_groups, groups, strict=True)):
            if own["num_steps"] is not None:
                group["num_steps"] = own["num_steps"]
            # Earlier versions took a weight decay of 0 for the rule's own.
            if "orthogonal" not in group and group["weight_decay"] == 0:
                group["weight_decay"] = self._rule.default_weight_decay
            for name in self.defaults.keys() & own.keys():
                group.setdefault(name, own[name])
            options = step_options(self._name, self._rule, group)
            for i, p in enumerate(group["params"]):
                if p in entries:
                    layout, name = self._layout(p, options.orthogonal), self._param_name(g, i)
                    entries[p] = layout.load(entries[p], p, self._name, name)
        state["state"].update(entries)
        return state

    def __getstate__(self) -> dict[str, Any]:
        rule = self._rule
        return {
            **super().__getstate__(),
            "rule": (rule.name, rule.options, rule.weights()),
            **{name: count.total() for name, count in self._counts.items()},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "rule" in state:  # a copy, or out of a pickle
            name, options, weights = state.pop("rule")
            self._rule = _C.make_rule(name, options)
            if weights:
                self._rule = self._rule.with_weights(weights)
            self._counts = {name: _C.DeferredCount(state.pop(name, 0)) for name in COUNTS}
            self._warned = False
            self._layouts = {}
        else:
            state = self._loaded(state)
        super().__setstate__(state)


class Mnemosyne(RuleOptimizer):
    """The learned optimizer: no learning rate, no schedule, no number of steps to find.

    Args:
        params: parameters or groups; a group may have its own `lr`, `weight_decay`, `num_steps`,
            `orthogonal`.
        weights: "default" for those of the package, or the path of a weights file.
        variant: None; "attention" for attention over space and time beside the controller (little
            ahead, for a longer step: docs/results); "compact" for momenta of low rank, below a byte
            a parameter of a large matrix (others: 8); the paper's, for research: "coordinate" (144
            bytes, no base rule), "tensor" (9), "super" (both, by size); "first": former weights.
        lr: a plain multiplier of every step; schedulers act on it.
        weight_decay: as AdamW's, whose values carry over: each step takes `step size * weight_decay
            * p` off as well. The step size is about .02 in the beginning (AdamW's learning rate).
        num_steps: length of the training run, when known: its steps then shrink towards zero.
        learned: False leaves the base rule, orthogonalised momentum, uncorrected.
        orthogonal: False leaves Adam's direction, with the base rule's steps: for parameters with
            masked entries, which orthogonalised momentum would move. Usually an option of a group.

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
        lr: float | Tensor = 1.0,
        weight_decay: float | Tensor = 0.0,
        num_steps: int | None = None,
        learned: bool = True,
        orthogonal: bool = True,
    ):
        rule = _C.mnemosyne_rule(
            path("Mnemosyne", weights),
            variant_name("Mnemosyne", variant) or "",
            flag("Mnemosyne", "learned", learned),
        )
        super().__init__(
            params,
            rule,
            lr=lr,
            weight_decay=weight_decay,
            num_steps=num_steps,
            orthogonal=orthogonal,
        )


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
        lr: float | Tensor = 1.0,
    ):
        weights, variant = path("LSTM", weights), variant_name("LSTM", variant)
        if weights == "default":
            rule = _C.default_rule(f"lstm-{variant}" if variant else "lstm")
        else:
            rule = _C.load_rule(weights)
        if not rule.name.startswith("lstm"):
            raise ValueError(f'[LSTM] expected weights of "lstm", got "{rule.name}" in {weights}')
        super().__init__(params, rule, lr=lr)
