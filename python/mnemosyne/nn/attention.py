"""Multi-head attention in time and memory linear in the number of tokens."""

from typing import Any

import torch
from torch import Tensor

from mnemosyne.nn.functional import LinearAttentionState
from mnemosyne.nn.module import LibraryModule, library_module
from mnemosyne.nn.position import DampedPosition, FourierPosition

__all__ = ["LinearAttention", "PerformerBlock"]

_NAMED = {
    "rope": {"type": "RotaryPosition"},
    "flt": {"type": "FourierPosition", "coupling": "multiplicative", "initial_amplitude": 1.0},
    "damped": {"type": "DampedPosition"},
}


class _Attention(LibraryModule):
    """Projections of torch, and what is between them in C++."""

    _computes = True

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        *,
        has_position: Tensor | None = None,
        context: Tensor | None = None,
        context_positions: Tensor | None = None,
        context_has_position: Tensor | None = None,
    ) -> Tensor:
        mixed = torch.ops.mnemosyne.attention(
            self._description,
            self._tensors(),
            *self._project(x, x if context is None else context),
            positions=positions,
            has_position=has_position,
            key_padding_mask=key_padding_mask,
            context=context,
            context_positions=context_positions,
            context_has_position=context_has_position,
        )
        return self.output(mixed)

    def __setattr__(self, name: str, value: Any) -> None:
        known = self.__dict__.get("_modules", {})
        if name == "position" and name not in known and isinstance(value, torch.nn.Module):
            raise ValueError(
                "[position] expected attention that was made with a position, since C++ computes "
                f"with it: this one is without, got {type(value).__name__}"
            )
        super().__setattr__(name, value)

    def _project(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self._check(x, source)
        return self.query(x), self.key(source), self.value(source)

    def _check(self, x: Tensor, source: Tensor) -> None:
        width = self.options["embed_dim"]
        fits = all(y.dim() == 3 and y.size(2) == width for y in (x, source))
        if not (fits and x.size(0) == source.size(0) and x.size(1) > 0):
            raise RuntimeError(
                f"[attention] expected tokens [B,L,{width}] with L > 0 and a context [B,S,{width}],"
                f" got {list(x.shape)} and {list(source.shape)}"
            )
        if self.options["causal"] and source is not x:
            raise RuntimeError("[attention] expected no context in causal attention, got one")


@library_module
class LinearAttention(_Attention):
    """Multi-head linear attention that knows where tokens are (arXiv 2302.01925).

    Args:
        embed_dim: E, divisible by the heads.
        num_heads: H.
        num_kv_heads: heads of keys and values, a divisor of H; 0: H.
        feature_map: "favor+", "hyp+", "trig", "relu" or "elu+1".
        num_features: M; "elu+1" has as many as a head has dimensions.
        causal: a token sees those before it and itself.
        position: None; a `FourierPosition` or, when causal, a `DampedPosition` with as many heads,
            which becomes the submodule `position`; or "flt", "damped" or "rope" for one with the
            default options ("flt": multiplicative, f(0) = 1 at the start; extent None where
            position_dim > 1).
        position_dim: of "flt" and "rope".
        exact_length: up to so many tokens a multiplicative `FourierPosition` is applied exactly, by
            the L x L matrix; 0: by its features, whatever the length. For "relu" and "elu+1", not
            causal.
        seed: of the initial weights and the random features; None: from torch's generator, as
            `torch.manual_seed` set it.
        device, dtype: of the parameters; None: torch's defaults. Random features are float32.

    Parts: `query`, `key`, `value` and `output` are `torch.nn.Linear`.

    Shapes: x [B, L, E] to [B, L, E]; positions [L, P] or [B, L, P], default 0 ... L - 1;
    has_position bool [L] or [B, L], false for class tokens; key_padding_mask bool [B, L], true
    where a token takes part. Not causal, tokens can attend to others: context [B, S, E], with
    context_positions and context_has_position like their own, and key_padding_mask [B, S].

    Outputs are differentiable in positions, too, any number of times. What key_padding_mask hides
    is neither in the order of "damped" tokens nor within the extent of a FourierPosition.

    Errors: ValueError for options; RuntimeError for shapes, for positions of "damped" that go down
    and for tokens further apart than the extent of a FourierPosition (see there).

    Example:
        >>> attention = mnemosyne.nn.LinearAttention(64, 4, causal=True, position="damped")
        >>> y = attention(torch.randn(2, 100, 64))
        >>> state, x_t = None, torch.randn(2, 64)
        >>> y_t, state = attention.step(x_t, state)                       # constant time and memory
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int = 0,
        feature_map: str = "relu",
        num_features: int = 64,
        causal: bool = False,
        position: FourierPosition | DampedPosition | str | None = None,
        position_dim: int = 1,
        exact_length: int = 0,
        seed: int | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ):
        options = {
            "embed_dim": embed_dim,
            "num_heads": num_heads,
            "num_kv_heads": num_kv_heads,
            "feature_map": feature_map,
            "num_features": num_features,
            "causal": causal,
            "exact_length": exact_length,
            "seed": seed,
        }
        own = isinstance(position, FourierPosition | DampedPosition)
        if own and position.num_heads != num_heads:
            raise ValueError(
                f"[position] expected {num_heads} heads, as many as the attention, "
                f"got {position.num_heads}"
            )
        self._start(options, _position_options(position, position_dim), device=device, dtype=dtype)
        if own:
            self.position = position
            self._place(device, dtype)

    def forward_segment(
        self,
        x: Tensor,
        state: LinearAttentionState | None = None,
        positions: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, LinearAttentionState]:
        """The next tokens [B, L, E] of a causal sequence, and the state after them."""
        heads = self._project(x, x)
        state = state or LinearAttentionState()
        length = state.length + x.size(1)
        on_line = positions is None
        if on_line:
            positions = torch.arange(state.length, length, dtype=torch.float64, device=x.device)
            positions = positions.unsqueeze(-1)
        mixed, sums, normalizer, offset, last, span = torch.ops.mnemosyne.attention_segment(
            self._description,
            self._tensors(),
            *heads,
            positions=positions,
            on_line=on_line,
            key_padding_mask=key_padding_mask,
            sums=state.sums,
            normalizer=state.normalizer,
            offset=state.offset,
            last=state.last,
            span=state.span,
        )
        after = LinearAttentionState(sums, normalizer, offset, last, length, span)
        return self.output(mixed), after

    def step(
        self, x_t: Tensor, state: LinearAttentionState | None = None, position: Tensor | None = None
    ) -> tuple[Tensor, LinearAttentionState]:
        """One token [B, E] to [B, E], and the state after it; None: the first token.

        `position` [P] or [B, P], default the next integer.
        """
        positions = None if position is None else position.unsqueeze(-2)
        y, state = self.forward_segment(x_t.unsqueeze(1), state, positions)
        return y.squeeze(1), state


@library_module
class SoftmaxAttention(_Attention):
    """Softmax attention of models and blocks with the kind "softmax", which make it."""

    def __init__(self) -> None:
        raise TypeError(
            '[softmax_attention] expected a model or a block with attention={"kind": "softmax"}'
        )


@library_module
class PerformerBlock(LibraryModule):
    """A pre-norm Transformer block: x + attention(norm(x)), then x + W2 gelu(W1 norm(x)).

    Args:
        embed_dim: E, divisible by the heads.
        num_heads: H.
        causal: a token sees those before it and itself.
        hidden: of the feed-forward part; 0: 4 E.
        attention: which attention, see `mnemosyne.nn.models.AttentionChoice`.
        device, dtype: of the parameters; None: torch's defaults.
        site: what the attention is told about its place: position_dim, min_width, max_width,
            extent, rotation_invariant, grid, seed (None: from torch's generator).

    Parts: `norm1`, `attention`, `norm2`, `up` and `down`.

    Shapes: as `LinearAttention`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        causal: bool = False,
        hidden: int = 0,
        attention: dict[str, Any] | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **site: Any,
    ):
        place = {"embed_dim": embed_dim, "num_heads": num_heads, "causal": causal, **site}
        self._start(place, attention or {}, hidden, device=device, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **context: Tensor | None,
    ) -> Tensor:
        return self._feed(x + self.attention(self.norm1(x), positions, key_padding_mask, **context))

    def forward_segment(
        self, x: Tensor, state: LinearAttentionState | None = None
    ) -> tuple[Tensor, LinearAttentionState]:
        """The next tokens [B, L, E] of a causal sequence, and the state after them."""
        if isinstance(self.attention, SoftmaxAttention):
            raise ValueError("[attention] expected linear attention for segments, got softmax")
        y, state = self.attention.forward_segment(self.norm1(x), state)
        return self._feed(x + y), state

    def _feed(self, x: Tensor) -> Tensor:
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x))))


def _position_options(position, position_dim: int) -> dict[str, Any] | None:
    if position is None:
        return None
    if isinstance(position, FourierPosition | DampedPosition):
        return {"type": type(position)._kind, **position.options}
    if position not in _NAMED:
        raise ValueError(
            f"[position] expected a FourierPosition, a DampedPosition, None or one of "
            f'{", ".join(_NAMED)}, got "{position}"'
        )
    options = dict(_NAMED[position])
    if position != "damped":
        options["position_dim"] = position_dim
    if position == "flt" and position_dim > 1:
        options["extent"] = None  # a grid of 256 units in each direction is too large
    return options
