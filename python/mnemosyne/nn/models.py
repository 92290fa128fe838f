"""Transformers for text, images and points, each with any attention of the library."""

from typing import Any, TypedDict

import torch
from torch import Tensor

from mnemosyne.nn.functional import LinearAttentionState
from mnemosyne.nn.module import LibraryModule, library_module, numbered

__all__ = ["AttentionChoice", "CausalLM", "PointEncoder", "ViT"]


class AttentionChoice(TypedDict, total=False):
    """Which attention a model has; the defaults are those of C++ (nn/attention_options.h)."""

    kind: str  # "linear" or "softmax"
    position: str  # none, absolute, rope, flt, damped (causal); linear: fft; softmax: alibi, t5
    num_kv_heads: int
    num_components: int
    spectrum: str  # of "flt" and "fft": the kind of a FourierPosition
    # Of linear attention, as LinearAttention has them.
    feature_map: str
    num_features: int
    exact_length: int  # up to so many tokens "flt" applies its mask exactly
    # Of "flt" and "fft", as FourierPosition has them.
    coupling: str
    factor: str
    num_frequencies: int
    kernel: str
    matern_nu: float
    window: str
    smoothing: float
    initial_amplitude: float
    max_bound: float
    draws: str
    phase: bool
    released_code: bool
    hidden: int
    # Of "damped", as DampedPosition has it.
    initial_weight: float


class _Model(LibraryModule):
    """Blocks `block0`, `block1`, ..., a last `norm` and a `head`, all of them called."""

    def __init__(
        self,
        *,
        attention: AttentionChoice | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ):
        self._start(options, dict(attention or {}), device=device, dtype=dtype)

    @property
    def attention(self) -> dict[str, Any]:
        """All options of the attention by name."""
        return dict(self._arguments[1])


@library_module
class CausalLM(_Model):
    """A language model: tokens int64 [B, T], T <= context, to logits [B, T, vocabulary].

    Options: vocabulary, context, width, heads, layers, hidden (0: 4 width), seed (None: from the
    generator of torch), and device and dtype as torch's modules have them. The position is "damped"
    unless `attention` names another.

    Example:
        >>> model = mnemosyne.nn.CausalLM(vocabulary=65)
        >>> logits = model(torch.zeros(2, 128, dtype=torch.int64))        # [2, 128, 65]
    """

    def forward(self, tokens: Tensor) -> Tensor:
        x = self._embed(tokens, 0)
        for block in numbered(self, "block"):
            x = block(x)
        return self.head(self.norm(x))

    def forward_segment(
        self, tokens: Tensor, state: list[LinearAttentionState] | None = None
    ) -> tuple[Tensor, list[LinearAttentionState]]:
        """The logits of the next tokens [B, T], and the state of each block after them."""
        blocks = list(numbered(self, "block"))
        x = self._embed(tokens, state[0].length if state else 0)
        states = []
        for block, before in zip(blocks, state or [None] * len(blocks), strict=True):
            x, after = block.forward_segment(x, before)
            states.append(after)
        return self.head(self.norm(x)), states

    def _embed(self, tokens: Tensor, first: int) -> Tensor:
        if tokens.dim() != 2 or tokens.dtype != torch.int64 or tokens.size(1) == 0:
            raise RuntimeError(
                f"[causal_lm] expected tokens int64 [B,T] with T > 0, got {tokens.dtype} "
                f"{list(tokens.shape)}"
            )
        context, position = self.options["context"], self.attention["position"]
        last = first + tokens.size(1)
        if last > context and (first == 0 or position in ("absolute", "flt")):
            raise RuntimeError(f"[causal_lm] expected at most {context} tokens, got {last}")
        x = torch.nn.functional.embedding(tokens, self.token_embedding)
        return x + self.position_embedding[first:last] if position == "absolute" else x


@library_module
class ViT(_Model):
    """A Vision Transformer: images [B, C, image_size, image_size] to [B, num_classes].

    Options: image_size, channels, patch_size, num_classes, width, heads, layers, hidden, seed
    (None: from torch's generator), and device and dtype as torch's modules have them.
    """

    def forward(self, images: Tensor) -> Tensor:
        o = self.options
        channels, size, patch = o["channels"], o["image_size"], o["patch_size"]
        if images.dim() != 4 or images.shape[1:] != (channels, size, size):
            raise RuntimeError(
                f"[vit] expected images [B,{channels},{size},{size}], got {list(images.shape)}"
            )
        side = size // patch
        pixels = images.reshape(images.size(0), channels, side, patch, side, patch)
        x = self.patches(pixels.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))
        if self.attention["position"] == "absolute":
            x = x + self.position_embedding
        axis = torch.arange(side, dtype=torch.float64, device=images.device)
        places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).view(-1, 2)
        for block in numbered(self, "block"):
            x = block(x, places)
        return self.head(self.norm(x.mean(1)))


@library_module
class PointEncoder(_Model):
    """A Transformer over points in space with a type each, such as atoms, to [B, outputs].

    Options: num_types, outputs, width, heads, layers, hidden, rotation_invariant, pooling,
    min_width, max_width, extent, seed (None: from torch's generator), and device and dtype as
    torch's modules have them.

    Shapes: types int64 [B, N], positions [B, N, 3], padding bool [B, N], true for a point.

    The output is differentiable in the positions, any number of times. "flt" by features refuses
    points further apart than `extent` along an axis (12.0; None: grows with the input).

    Example:
        >>> model = mnemosyne.nn.PointEncoder(num_types=10)
        >>> energy = model(types, positions.requires_grad_())                    # [B, 1]
        >>> forces = -torch.autograd.grad(energy.sum(), positions, create_graph=True)[0]
    """

    def forward(self, types: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        self._check(types, positions, padding)
        absent = None
        if padding is not None:
            absent = ~padding
            types = types.masked_fill(absent, 0)
            positions = positions.masked_fill(absent.unsqueeze(-1), 0)
        x = torch.nn.functional.embedding(types, self.type_embedding)
        if self.attention["position"] == "absolute":
            x = x + self.position_embedding(positions.to(x.dtype))
        for block in numbered(self, "block"):
            x = block(x, positions, padding)
        outputs = self.head(self.norm(x))  # [B, N, outputs]
        if absent is not None:
            outputs = outputs.masked_fill(absent.unsqueeze(-1), 0)
        total = outputs.sum(1)
        if self.options["pooling"] == "sum":
            return total
        if padding is None:
            return total / types.size(1)
        return total / padding.sum(1, keepdim=True).clamp_min(1)

    @staticmethod
    def _check(types: Tensor, positions: Tensor, padding: Tensor | None) -> None:
        fits = types.dim() == 2 and positions.shape == (*types.shape, 3)
        if not fits or types.dtype != torch.int64:
            raise RuntimeError(
                "[point_encoder] expected types int64 [B,N] and positions [B,N,3], got "
                f"{types.dtype} {list(types.shape)} and {list(positions.shape)}"
            )
        if padding is not None and (padding.shape != types.shape or padding.dtype != torch.bool):
            raise RuntimeError(f"[point_encoder] expected padding bool {list(types.shape)}")
