"""Linear attention as a function."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from mnemosyne import _C
from mnemosyne.nn.position import DampedPosition, FourierPosition

__all__ = ["LinearAttentionState", "linear_attention"]

_DRAWN_MAPS = frozenset(_C.drawn_feature_maps())

Features = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]


class LinearAttentionState(NamedTuple):
    """What causal attention remembers of earlier tokens: a constant size, whatever their number."""

    sums: Tensor | None = None  # [B, H, R * M, Dv]
    normalizer: Tensor | None = None  # [B, H, R * M]
    offset: Tensor | None = None  # [B, H]
    last: Tensor | None = None  # [1] or [B, 1]: the last position, where weights fade with it
    length: int = 0  # tokens so far
    span: Tensor | None = (
        None  # [2, P] or [B, 2, P]: where keys were, where features have an extent
    )


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    feature_map: str = "favor+",
    num_features: int | None = None,
    causal: bool = False,
    key_padding_mask: Tensor | None = None,
    position: FourierPosition | DampedPosition | Features | None = None,
    positions: Tensor | None = None,
    key_positions: Tensor | None = None,
    scale: float | None = None,
    omega: Tensor | None = None,
    seed: int = 0,
    state: LinearAttentionState | None = None,
    return_state: bool = False,
    denominator_floor: float = 1e-20,
) -> Tensor | tuple[Tensor, LinearAttentionState]:
    """Attention in time and memory linear in the length, over torch.ops.mnemosyne.linear_attention.

    o_i = sum_j w_ij v_j / sum_j w_ij with w_ij = phi(q_i).phi(k_j) h(r_i - r_j), over the keys that
    take part, j <= i when causal.

    Args:
        query: [B, H, L, D] in float32, bfloat16 or float64, as key and value.
        key: [B, Hk, S, D]; H is a multiple of Hk.
        value: [B, Hk, S, Dv].
        feature_map: "favor+", "hyp+" and "trig" estimate the softmax kernel exp(q.k / sqrt(D));
            "relu"; "elu+1"; "constant"; "identity" (query and key are features).
        num_features: M, of the maps that draw random vectors; None: 64.
        causal: query i sees keys 0 ... i; needs L = S.
        key_padding_mask: bool [B, S], true where the key takes part.
        position: a FourierPosition of either coupling; a DampedPosition (causal only); or features
            of a factor (phi [H, L, R] or [B, H, L, R], psi likewise for the keys), with a decay
            [H, R] as third where they fade; or None.
        positions: [L, P] or [B, L, P] of the queries; None: 0 ... L - 1, after those of the state.
        key_positions: of the keys; None: `positions`.
        scale: of the product q.k, as in `scaled_dot_product_attention`, 0 or more; None:
            1 / sqrt(D) where the softmax kernel is estimated, else 1.
        omega: the random vectors [W, D], instead of a draw (D + N for a concatenated position of
            N features).
        seed: of the draw; the same vectors in every call with the same seed and sizes, which are
            kept from call to call.
        state: of earlier tokens, for segments and for decoding one token at a time.
        return_state: return (output, state after the last key).
        denominator_floor: the least magnitude of a denominator.

    Returns:
        [B, H, L, Dv] in the dtype of the query.

    Errors: RuntimeError for shapes, ValueError for options.

    Example:
        >>> q, k, v = torch.randn(3, 1, 4, 50, 16)
        >>> o = linear_attention(q, k, v, causal=True)
        >>> state, rows = None, []
        >>> for t in range(50):                                           # the same, step by step
        ...     token = (x[:, :, t : t + 1] for x in (q, k, v))
        ...     o_t, state = linear_attention(*token, causal=True, state=state, return_state=True)

    Source: Choromanski et al., arXiv 2009.14794 (features) and arXiv 2302.01925 (positions).
    """
    _check_shapes(query, key, value)
    state = state or LinearAttentionState()
    factors, last, span = None, None, None
    if position is not None:
        line = _line(position, query, positions, state.length)
        if isinstance(position, FourierPosition):
            _check_segments(position, state, return_state)
            phi, psi, span = position._pair(line, key_positions, key_padding_mask, state.span)
            factors = [phi, psi]
            if not position.multiplicative:
                query, key = position.join(query, key, phi, psi)
                scale = 1.0 if scale is None else scale
                factors = None
        else:
            fades = isinstance(position, DampedPosition) or len(position) == 3
            if fades:
                mask = None if positions is None else key_padding_mask
                line, last = _ordered(line, mask, state.last, causal, key_positions)
            phi, psi, decay = _features(position, line)
            factors = [phi, psi]
            if decay is not None:
                factors.append(_log_decay(decay, line, state.last))
    if omega is None:
        omega = _draw(feature_map, num_features, query, seed)
    call = {
        "omega": omega,
        "feature_map": feature_map,
        "causal": causal,
        "scale": scale,
        "denominator_floor": denominator_floor,
        "with_state": return_state,
    }
    output, *sums = _call((query, key, value), factors, key_padding_mask, state, call)
    next_state = LinearAttentionState(*sums, last, state.length + key.size(2), span)
    return (output, next_state) if return_state else output


def _check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    if not query.dim() == key.dim() == value.dim() == 4:
        raise RuntimeError(
            "[linear_attention] expected query [B,H,L,D], key [B,Hk,S,D] and value [B,Hk,S,Dv], "
            f"got {list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )


def _draw(feature_map: str, num_features: int | None, query: Tensor, seed: int) -> Tensor | None:
    if feature_map not in _DRAWN_MAPS:
        if num_features is not None:
            raise ValueError(f"[num_features] expected None for {feature_map}, got {num_features}")
        return None
    count = 64 if num_features is None else num_features
    if torch.compiler.is_compiling() or type(query) is not Tensor:
        # A step of the program: a tensor from outside would be none of it.
        number = seed - 2**64 if seed >= 2**63 else seed
        draw = torch.ops.mnemosyne.draw_omega
        return draw(query.detach(), feature_map, count, query.size(-1), number)
    return _drawn(feature_map, count, query.size(-1), seed, query.device, query.dtype)


@functools.lru_cache(maxsize=64)
def _drawn(
    feature_map: str, count: int, dim: int, seed: int, device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    return _C.draw_omega(feature_map, count, dim, seed, device, dtype)


def _line(position, query: Tensor, positions: Tensor | None, first: int) -> Tensor:
    """The given positions, or the next integers where tokens are on a line."""
    if positions is not None:
        return positions
    dim = position.options.get("position_dim", 1) if isinstance(position, torch.nn.Module) else 1
    if dim != 1:
        raise RuntimeError(f"[linear_attention] expected positions [L, {dim}], got none")
    last = first + query.size(2)
    return torch.arange(first, last, dtype=torch.float64, device=query.device).unsqueeze(-1)


def _check_segments(position: FourierPosition, state: LinearAttentionState, more: bool) -> None:
    grows = position.multiplicative and position.options["factor"] == "exp"
    if grows and position.options["extent"] is None and (more or state.length > 0):
        raise ValueError(
            "[linear_attention] expected an extent for segments, whose features have to agree, "
            "got None"
        )


def _features(position, line: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features of the queries, of the keys, and how they fade."""
    given = position.features(line) if isinstance(position, torch.nn.Module) else position
    phi, psi, *decay = given
    return phi, psi, decay[0] if decay else None


def _ordered(line, mask: Tensor | None, last: Tensor | None, causal: bool, key_positions):
    """The line of tokens that fade without what the mask hides, and its end."""
    if not causal:
        raise ValueError("[linear_attention] expected causal attention for factors that fade")
    if key_positions is not None:
        raise ValueError("[linear_attention] expected no key_positions for factors that fade")
    line, last = torch.ops.mnemosyne.ordered_line(line, mask, last)
    return line.unsqueeze(-1), last


def _log_decay(decay: Tensor, line: Tensor, last: Tensor | None) -> Tensor:
    return torch.ops.mnemosyne.log_decay(decay, line.squeeze(-1), last)


def _call(tensors, factors, mask: Tensor | None, state: LinearAttentionState, call):
    """(output, sums, normalizer, offset)."""
    query_factor, key_factor, *decay = factors if factors is not None else (None, None)
    *result, _ = torch.ops.mnemosyne.linear_attention(
        *tensors,
        query_factor=query_factor,
        key_factor=key_factor,
        log_decay=decay[0] if decay else None,
        key_padding_mask=mask,
        state_sums=state.sums,
        state_normalizer=state.normalizer,
        state_offset=state.offset,
        **call,
    )
    return result
