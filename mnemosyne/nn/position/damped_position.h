#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/module_holder.h"
#include "mnemosyne/nn/module_tensors.h"
#include "mnemosyne/nn/position/position.h"
#include "mnemosyne/nn/position/position_names.h"
#include "mnemosyne/ops/fourier_features.h"

namespace mnemosyne::nn {

/// Options of a DampedPosition. Lengths are in units of position, usually tokens.
struct DampedPositionOptions {
  static constexpr PositionNames kNames{"damped", "DampedPosition", PositionUse::kBoth};

  int64_t num_heads = 1;        ///< H.
  int64_t num_components = 4;   ///< T, fading waves per head.
  double min_width = 1.0;       ///< Shortest and longest decay length at the start, log-spaced.
  double max_width = 64.0;      ///< A quarter of the length.
  double initial_weight = 4.0;  ///< c_t at the start, against the constant 1; positive.
  /// Of the initial frequencies and phases; none: from torch's default generator.
  std::optional<uint64_t> seed{};
};

void bind(Fields& visit, DampedPositionOptions& options);

/// Those that do not depend on where attention stands, but for `num_components`.
void bind_choice(Fields& visit, DampedPositionOptions& options);

/// A learned factor of causal attention weights as a sum of fading waves: what the spectrum of a
/// FourierPosition is for tokens anywhere, for tokens on a line that look back.
///
///     h(z) = c_0 (1 - sum_t d_t e^(-a_t z)) + sum_t c_t e^(-a_t z) (1 + m_t cos(2 pi w_t z + p_t))
///
/// for z >= 0: peaks of weight c_t > 0, and dips d_t > 0 with sum_t d_t < 1 into the constant c_0,
/// at rates a_t > 0, the peaks modulated by |m_t| < 1. So h is positive whatever the parameters. A
/// wave that fades needs one number per feature of state and is exact however long the sequence is,
/// while few features without decay cannot realise a sharp local mask (docs/position.md has the
/// figures). Not in the paper.
///
///     nn::DampedPosition position({.num_heads = 8});
///     auto [query, key, decay] = position->features(positions);   // [L, 1] -> [H, L, 1 + 3 T]
///
/// Attention multiplies the state of feature n by exp(-decay_n) per unit of position:
/// `ops::log_decay` makes what `ops::linear_attention` takes. Attention to both sides is two
/// passes, one per direction.
class DampedPositionImpl : public torch::nn::Module, public TensorFields {
 public:
  explicit DampedPositionImpl(const DampedPositionOptions& options);

  /// h at offsets [..., 1] (query minus key): [H, ...]; zero where negative. Differentiable.
  at::Tensor factor(const at::Tensor& offsets) const;

  /// log h, [H, ...]: a bias of softmax attention, minus infinity at negative offsets.
  at::Tensor mask(const at::Tensor& offsets) const;

  /// Features of positions [L, 1] or [B, L, 1], with their decay [H, N]: the inner product, each
  /// feature faded by exp(-decay (x - y)), is h(x - y) for x >= y. `has_position` as in
  /// FourierPosition: two more features.
  ops::PositionFeatures features(const at::Tensor& positions,
                                 const at::Tensor& has_position = {}) const;

  /// N of `features`.
  int64_t num_features(bool with_unplaced_tokens = false) const {
    return 1 + 3 * options_.num_components + (with_unplaced_tokens ? 2 : 0);
  }

  const DampedPositionOptions& options() const { return options_; }

  /// A copy with its own parameters.
  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  at::Tensor log_constant;  ///< log c_0, [H].
  at::Tensor log_weight;    ///< log c_t, [H, T].
  at::Tensor dip;           ///< [H, T], d = exp(dip) / (1 + sum exp(dip)).
  at::Tensor log_rate;      ///< log a_t, [H, T].
  at::Tensor modulation;    ///< atanh m_t, [H, T].
  at::Tensor frequency;     ///< w_t, [H, T], cycles per unit of position.
  at::Tensor phase;         ///< p_t, [H, T].

  std::vector<at::Tensor*> tensor_fields() override {
    return {&log_constant, &log_weight, &dip, &log_rate, &modulation, &frequency, &phase};
  }

 private:
  at::Tensor dips() const;

  DampedPositionOptions options_;
};

MN_MODULE(DampedPosition);

/// A factor of causal attention whose parts fade from token to token, or its logarithm as a bias;
/// InputError for attention to both sides.
std::shared_ptr<Position> make_position(const DampedPositionOptions& options,
                                        const PositionSite& site);

void choose(const AttentionOptions& chosen, const AttentionSite& site,
            DampedPositionOptions& options);

}  // namespace mnemosyne::nn
