"""Transformers for text, images and points, each with any attention of the library."""

from typing import Any, TypedDict

from torch import Tensor

from mnemosyne import _C
from mnemosyne.nn.functional import LinearAttentionState
from mnemosyne.nn.module import LibraryModule, uncompiled

__all__ = ["AttentionChoice", "CausalLM", "PointEncoder", "ViT"]


class AttentionChoice(TypedDict, total=False):
    """Which attention a model has; the defaults are those of C++ (nn/attention_options.h)."""

    kind: str  # "linear" or "softmax"
    position: str  # none, absolute, rope, flt, damped (causal); linear: fft; softmax: alibi, t5
    num_kv_heads: int
    feature_map: str
    num_features: int
    spectrum: str  # of "flt" and "fft": the kind of a FourierPosition
    coupling: str
    factor: str
    num_frequencies: int
    num_components: int
    exact_length: int  # up to so many tokens "flt" applies its mask exactly
    initial_amplitude: float
    max_bound: float
    phase: bool


class CausalLM(LibraryModule):
    """A language model: tokens int64 [B, T], T <= context, to logits [B, T, vocabulary].

    Options: vocabulary, context, width, heads, layers, hidden (0: 4 width), seed. The position is
    "damped" unless `attention` names another.

    Example:
        >>> model = mnemosyne.nn.CausalLM(vocabulary=65)
        >>> logits = model(torch.zeros(2, 128, dtype=torch.int64))        # [2, 128, 65]
    """

    def __init__(self, *, attention: AttentionChoice | None = None, **options: Any):
        self._start("causal_lm", options, dict(attention or {}))

    @uncompiled
    def forward(self, tokens: Tensor) -> Tensor:
        return _C.model_forward(self._tied(), [tokens])

    @uncompiled
    def forward_segment(
        self, tokens: Tensor, state: list[LinearAttentionState] | None = None
    ) -> tuple[Tensor, list[LinearAttentionState]]:
        """The logits of the next tokens [B, T], and the state of each block after them."""
        state = state or []
        length = state[0].length if state else 0
        logits, blocks = _C.model_segment(self._tied(), tokens, state, length)
        return logits, [LinearAttentionState(*block) for block in blocks]


class ViT(LibraryModule):
    """A Vision Transformer: images [B, C, image_size, image_size] to [B, num_classes].

    Options: image_size, channels, patch_size, num_classes, width, heads, layers, hidden, seed.
    """

    def __init__(self, *, attention: AttentionChoice | None = None, **options: Any):
        self._start("vit", options, dict(attention or {}))

    @uncompiled
    def forward(self, images: Tensor) -> Tensor:
        return _C.model_forward(self._tied(), [images])


class PointEncoder(LibraryModule):
    """A Transformer over points in space with a type each, such as atoms, to [B, outputs].

    Options: num_types, outputs, width, heads, layers, hidden, rotation_invariant, pooling,
    min_width, max_width, extent, seed.

    Shapes: types int64 [B, N], positions [B, N, 3], padding bool [B, N], true for a point.

    The output is differentiable in the positions, any number of times. "flt" by features refuses
    points further apart than `extent` along an axis (12.0; None: grows with the input).

    Example:
        >>> model = mnemosyne.nn.PointEncoder(num_types=10)
        >>> energy = model(types, positions.requires_grad_())                    # [B, 1]
        >>> forces = -torch.autograd.grad(energy.sum(), positions, create_graph=True)[0]
    """

    def __init__(self, *, attention: AttentionChoice | None = None, **options: Any):
        self._start("point_encoder", options, dict(attention or {}))

    @uncompiled
    def forward(self, types: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        inputs = [types, positions] if padding is None else [types, positions, padding]
        return _C.model_forward(self._tied(), inputs)
