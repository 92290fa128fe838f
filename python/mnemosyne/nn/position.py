"""Learned relative positions for attention: `FourierPosition` and `DampedPosition`."""

import json

import torch
from torch import Tensor

from mnemosyne.nn.module import LibraryModule, library_module

__all__ = ["DampedPosition", "FourierPosition", "position_metadata"]


class _Position(LibraryModule):
    _computes = True

    @property
    def num_heads(self) -> int:
        return self.options["num_heads"]

    def mask(self, offsets: Tensor) -> Tensor:
        """The exact mask, a bias of softmax attention: offsets [..., position_dim] to [H, ...].

        Offsets are the position of the query minus that of the key.
        """
        return torch.ops.mnemosyne.position_mask(self._description, self._tensors(), offsets)

    def factor(self, offsets: Tensor) -> Tensor:
        """The exact factor of the attention weight: offsets [..., position_dim] to [H, ...]."""
        return torch.ops.mnemosyne.position_factor(self._description, self._tensors(), offsets)


@library_module
class FourierPosition(_Position):
    """A learned relative position f(r_i - r_j) for tokens anywhere in R^D, by its spectrum.

    A few waves of the spectrum give features of queries and keys whose inner product is f, so that
    attention stays linear and the L x L mask is never made. FourierLearner-Transformers
    (Choromanski et al., arXiv 2302.01925); frozen draws without importance weights, the exact
    windows and the coupling that multiplies are ours (docs/position.md).

    Args:
        num_heads: H, each with its own mask.
        position_dim: D.
        kind: what f is. "gaussian_mixture": sum_t A_t exp(-2 pi^2 s_t^2 |z|^2) cos(2 pi mu_t.z);
            "shift_invariant": sum_t A_t k(|z| / w_t) of a `kernel`; "local": windows of fixed
            widths, see `window`; "neural": frequencies weighted by a network of the frequency.
        coupling: "concatenate": features of f beside query and key, where |f| has to stay small;
            "multiplicative": features of a `factor` of the attention weight.
        factor: of "multiplicative": "exp" (e^f, D <= 3), "square" ((1 + f)^2, never negative) or
            "linear" (1 + f, signed).
        num_frequencies: R; where frequencies are drawn a multiple of `num_components`.
        num_components: T, terms of f per head.
        kernel: "gaussian", "laplace" or "matern" with `matern_nu` 0.5, 1.5 or 2.5.
        window: "dirichlet" (D = 1), "tent", "box", "l2_ball" or "l1_ball", the last three smoothed
            by `smoothing` times their half-width; "auto": dirichlet on a line, box elsewhere.
        min_width, max_width: of the terms at the start, in units of position, log-spaced between.
        extent: the largest offset per axis, of factor "exp" and of "dirichlet", which repeat
            beyond it: features refuse larger ones. None: "exp" covers the offsets of each input, so
            that its waves follow the input, and there is no state between segments.
        position_scale: what positions are multiplied by first.
        initial_amplitude: f(0) at the start; 0 starts without a mask.
        max_bound: if positive, f is scaled down to sum |weights| <= max_bound.
        draws: of frequencies: "quasi_random", "orthogonal" or "independent".
        phase: learn phases, so that f(z) != f(-z); mixture and neural only.
        rotation_invariant: f depends on the distance alone; mixture with D = 3 only.
        released_code: the estimator of the authors' code.
        hidden: width of the network of "neural".
        seed: of the frozen draws and the initial values; None: from torch's generator, as
            `torch.manual_seed` set it.
        device, dtype: of the parameters; None: torch's defaults. Frozen draws are float64.

    Shapes: `mask(offsets)` and `factor(offsets)` take [..., D] to [H, ...], exactly;
    `features(positions)` takes [L, D] or [B, L, D] to phi and psi, [H, L, N] or [B, H, L, N].

    All of them are differentiable in offsets and positions, any number of times.

    Errors: ValueError for options; RuntimeError for shapes, and for features of positions that are
    further apart than the extent (on CUDA, where nothing is read back to the host, and in compiled
    and exported programs by an assertion, as for an index out of range). Without an extent the
    factor "exp" follows the input, which no compiled or exported program can.

    Example:
        >>> position = mnemosyne.nn.FourierPosition(8, num_frequencies=64, initial_amplitude=1.0)
        >>> phi, psi = position.features(torch.arange(100.0)[:, None])
        >>> estimate = phi @ psi.mT                                       # of f, [8, 100, 100]
        >>> f = position.mask(torch.arange(-99.0, 100.0)[:, None])        # exact, [8, 199]
    """

    def __init__(
        self,
        num_heads: int,
        position_dim: int = 1,
        *,
        kind: str = "gaussian_mixture",
        coupling: str = "concatenate",
        factor: str = "exp",
        num_frequencies: int = 32,
        num_components: int = 8,
        kernel: str = "gaussian",
        matern_nu: float = 1.5,
        window: str = "auto",
        smoothing: float = 0.25,
        min_width: float = 1.0,
        max_width: float = 64.0,
        extent: float | None = 256.0,
        position_scale: float = 1.0,
        initial_amplitude: float = 0.0,
        max_bound: float = 0.0,
        draws: str = "quasi_random",
        phase: bool = False,
        rotation_invariant: bool = False,
        released_code: bool = False,
        hidden: int = 32,
        seed: int | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ):
        options = {name: value for name, value in locals().items() if name in _FOURIER_OPTIONS}
        self._start(options, device=device, dtype=dtype)

    def features(
        self, positions: Tensor, has_position: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(phi, psi), whose product over the last axis estimates f, or the factor.

        `positions` [L, D] or [B, L, D]; `has_position` bool [L] or [B, L] is false for tokens that
        are nowhere, such as class tokens. Each of both is [H, L, N] or [B, H, L, N].
        """
        phi, psi, _ = torch.ops.mnemosyne.position_features(
            self._description, self._tensors(), positions, has_position
        )
        return phi, psi

    def _pair(
        self,
        positions: Tensor,
        key_positions: Tensor | None,
        mask: Tensor | None,
        span: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """phi of queries, psi of keys (None: the same tokens), and the span of all keys so far."""
        return torch.ops.mnemosyne.position_pair(
            self._description, self._tensors(), positions, key_positions, mask, span
        )

    def bound(self) -> Tensor:
        """sum |weights| of the waves, [H], above which the estimate of f never is."""
        return torch.ops.mnemosyne.position_bound(self._description, self._tensors())

    def waves(self) -> tuple[Tensor, Tensor]:
        """(frequencies [H, R, D] or [1, R, D], amplitudes [H, R]) of the sum that estimates f.

        Frequencies are in cycles per unit of position times `position_scale`.
        """
        return torch.ops.mnemosyne.position_waves(self._description, self._tensors())

    def join(self, query: Tensor, key: Tensor, phi: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
        """Content [B, H, L, d] and features side by side, for attention of scale 1.

        [B, H, L, d + N] each, with inner product q.k / sqrt(d) + f; "concatenate" only.
        """
        return torch.ops.mnemosyne.position_join(
            self._description, self._tensors(), query, key, phi, psi
        )

    @property
    def multiplicative(self) -> bool:
        return self.options["coupling"] == "multiplicative"


@library_module
class DampedPosition(_Position):
    """A learned positive factor of causal attention weights, as a sum of fading waves.

    h(z) = c_0 (1 - sum_t d_t e^(-a_t z)) + sum_t c_t e^(-a_t z) (1 + m_t cos(2 pi w_t z + p_t))
    for z >= 0: exact at any length, also for sharp local masks, with a state of constant size. Not
    in the paper; figures in docs/position.md.

    Args:
        num_heads: H.
        num_components: T, fading waves per head.
        min_width, max_width: shortest and longest decay length at the start, log-spaced.
        initial_weight: c_t at the start, against the constant 1; positive.
        seed: of the initial frequencies and phases; None: from torch's generator, as
            `torch.manual_seed` set it.
        device, dtype: of the parameters; None: torch's defaults.

    Shapes and errors as in `FourierPosition`, with positions [L, 1] or [B, L, 1].

    Example:
        >>> position = mnemosyne.nn.DampedPosition(8)
        >>> phi, psi, decay = position.features(torch.arange(10.0)[:, None])   # [8, 10, 13]
        >>> bias = position.mask(torch.arange(10.0)[:, None])                  # log h, [8, 10]
    """

    def __init__(
        self,
        num_heads: int,
        *,
        num_components: int = 4,
        min_width: float = 1.0,
        max_width: float = 64.0,
        initial_weight: float = 4.0,
        seed: int | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ):
        options = {name: value for name, value in locals().items() if name in _DAMPED_OPTIONS}
        self._start(options, device=device, dtype=dtype)

    def features(
        self, positions: Tensor, has_position: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(phi, psi, decay): phi(x).psi(y), feature n faded by exp(-decay_n (x - y)), is h(x - y).

        phi and psi are [H, L, N] or [B, H, L, N], decay is [H, N], per unit of position.
        """
        return torch.ops.mnemosyne.position_features(
            self._description, self._tensors(), positions, has_position
        )


def _option_names(cls: type) -> frozenset[str]:
    return frozenset(cls.__init__.__annotations__) - {"device", "dtype"}


_FOURIER_OPTIONS = _option_names(FourierPosition)
_DAMPED_OPTIONS = _option_names(DampedPosition)


def position_metadata(model: torch.nn.Module) -> dict[str, str]:
    """What a safetensors file of `model.state_dict()` needs for `mnemosyne plot mask`.

    One entry per position: "position.<name of the module>" with its options as JSON.

    Example:
        >>> from safetensors.torch import save_file
        >>> save_file(model.state_dict(), "model.safetensors", position_metadata(model))
    """
    return {
        f"position.{name}": json.dumps({"type": module._kind, **module.options})
        for name, module in model.named_modules()
        if isinstance(module, _Position)
    }
