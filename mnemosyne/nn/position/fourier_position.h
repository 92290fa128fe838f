#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "mnemosyne/nn/module_holder.h"
#include "mnemosyne/nn/position/placed_tokens.h"
#include "mnemosyne/nn/position/position.h"
#include "mnemosyne/nn/position/position_spectrum.h"
#include "mnemosyne/ops/fourier_features.h"
#include "mnemosyne/ops/periodic_factor.h"

namespace mnemosyne::nn {

/// A learned relative position encoding f(r_i - r_j) for linear attention, for tokens anywhere in
/// R^D: FourierLearner-Transformers (Choromanski et al., arXiv 2302.01925). f is parametrised by
/// its spectrum, so that a few waves give features of queries and keys whose inner product is f,
/// and the L x L mask is never made.
///
/// Two couplings:
///
///   * "concatenate" (the paper's): features stand beside query and key, q^.k^ = q.k / sqrt(d) + f,
///     and any feature map of linear attention acts on them. With positive random features keep
///     sum |A| below about 1: the relative variance of a weight at offset 0 is (e^(4F) - 1) / m
///     with F = f(0). `bound()` reports it, `max_bound` enforces it.
///   * "multiplicative": features of a factor h(r_i - r_j) of the attention weight, whose products
///     with the content's features are the features of the weighted kernel. h = exp(f),
///     (1 + f)^2 or 1 + f (`factor`). Strong masks are possible. "exp" keeps the largest waves of
///     e^f and can dip below zero between them, "linear" is signed; only "square" never is.
///
/// `released_code` gives the estimator of the authors' code instead (released_spectrum.h), with its
/// scale of logits (`join`). T = 25 components and R = 64 frequencies are what it uses.
///
///     nn::FourierPosition position({.num_heads = 8, .num_frequencies = 32, .max_width = 32});
///     auto [query, key, decay] = position->features(positions);   // [L, 1] -> [H, L, 64]
///     at::Tensor f = position->mask(offsets);                     // [L, L, 1] -> [H, L, L]
class FourierPositionImpl : public torch::nn::Module {
 public:
  explicit FourierPositionImpl(const FourierPositionOptions& options);

  /// Exact f at offsets [..., D] (query's position minus key's): [H, ...]. Closed form; for
  /// "neural" and `released_code` the sum over their fixed frequencies. Differentiable in the
  /// parameters.
  at::Tensor mask(const at::Tensor& offsets) const;

  /// Exact factor of the attention weight: exp(f) when concatenated, else as `factor` says.
  at::Tensor factor(const at::Tensor& offsets) const;

  /// Features of positions [L, D] or [B, L, D], each side [H, L, N] or [B, H, L, N], N =
  /// `num_features()`. Their inner product estimates f, or the factor when multiplicative.
  /// Functions of offsets only: moving all positions changes nothing. Differentiable in positions,
  /// too. c10::Error for offsets beyond the extent, where features would repeat themselves.
  ///
  /// `has_position` (bool, [L] or [B, L]) is false for tokens that are nowhere, such as class
  /// tokens: for their pairs f is 0 and the factor 1. Concatenated, "square" and "linear" have zero
  /// features of f there; "exp" gets two more features, both non-negative (see
  /// `ops::with_unplaced_tokens`).
  ops::PositionFeatures features(const at::Tensor& positions,
                                 const at::Tensor& has_position = {}) const;

  /// The same for queries and keys that need not be the same tokens, with what of them counts for
  /// the extent. `span` is the box around earlier keys (`span_of`), or undefined; it grows by these
  /// keys where features repeat.
  ops::PositionFeatures features(const PlacedTokens& queries, const PlacedTokens& keys,
                                 at::Tensor& span) const;

  /// N of `features`, with or without `has_position`; at most so many without an extent.
  int64_t num_features(bool with_unplaced_tokens = false) const;

  /// sum |weights| of the waves, [H]: |f as estimated| is nowhere larger. With `max_bound` that is
  /// at most it.
  at::Tensor bound() const;

  /// Content and position side by side for "concatenate": from query and key [B, H, L, d] to
  /// [B, H, L, d + N], whose inner product is q.k / sqrt(d) + f; with `released_code`
  /// (q.k + sqrt(d) f) / sqrt(d + N).
  std::pair<at::Tensor, at::Tensor> join(const at::Tensor& query, const at::Tensor& key,
                                         const ops::PositionFeatures& features) const;

  bool multiplicative() const { return options_.coupling == "multiplicative"; }
  const FourierPositionOptions& options() const { return options_; }
  const PositionSpectrum& spectrum() const { return *spectrum_; }

  /// Whether the waves of `features` follow the input: then there is no state between segments.
  bool grows() const { return options_.is_exact() && !options_.extent.has_value(); }

  /// A copy with its own parameters and draws.
  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

 private:
  using Grid = std::shared_ptr<const ops::PeriodicGrid>;

  at::Tensor scaled(const at::Tensor& positions) const;
  at::Tensor limit(const ops::SpectralSum& sum) const;
  ops::SpectralSum limited_sum() const;
  at::Tensor factor_of(const at::Tensor& f) const;
  Grid grid_for(const at::Tensor& reach) const;
  ops::PeriodicFactor periodic_factor(const ops::PeriodicGrid& grid, at::Device device) const;
  ops::PositionFeatures drawn_features(const at::Tensor& positions,
                                       const at::Tensor& has_position) const;

  FourierPositionOptions options_;
  std::shared_ptr<PositionSpectrum> spectrum_;
  // Of the factor "exp"; a function of the options, or of these and the input, so not a buffer.
  mutable std::mutex mutex_;
  mutable Grid grid_;
  mutable double grid_steps_ = 0.0;  // From offset zero to the largest, where the grid grows.
};

MN_MODULE(FourierPosition);

/// A factor of linear attention or features beside query and key, as `coupling` says; a bias of
/// softmax attention.
std::shared_ptr<Position> make_position(const FourierPositionOptions& options,
                                        const PositionSite& site);

void choose(const AttentionOptions& chosen, const AttentionSite& site,
            FourierPositionOptions& options);

}  // namespace mnemosyne::nn
