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

namespace mnemosyne::nn {

// H = heads, P = dimension of positions; offsets are query minus key.

/// Attention with linear biases (Press et al. 2022, arXiv 2108.12409): minus the distance, times a
/// fixed slope 2^(-8 h / H) of head h = 1 ... H.
struct AlibiOptions {
  static constexpr PositionNames kNames{"alibi", "Alibi", PositionUse::kSoftmax};

  double position_scale = 1.0;  ///< Positions are multiplied by it first.
};

void bind(Fields& visit, AlibiOptions& options);

/// [H, ...] for offsets [..., P]; the distance is Euclidean.
at::Tensor alibi_bias(const at::Tensor& offsets, int64_t num_heads, const AlibiOptions& options);

std::shared_ptr<Position> make_position(const AlibiOptions& options, const PositionSite& site);

void choose(const AttentionOptions& chosen, const AttentionSite& site, AlibiOptions& options);

/// Options of a BucketBias.
struct BucketBiasOptions {
  static constexpr PositionNames kNames{"t5", "BucketBias", PositionUse::kSoftmax};

  int64_t num_heads = 1;        ///< H.
  int64_t position_dim = 1;     ///< P.
  int64_t num_buckets = 32;     ///< Per axis.
  double max_distance = 128.0;  ///< From here on all offsets share a bucket.
  bool causal = false;          ///< Then no bucket is spent on negative offsets.
  double position_scale = 1.0;  ///< Positions are multiplied by it first, then rounded.
};

void bind(Fields& visit, BucketBiasOptions& options);

/// The relative bias of T5 (Raffel et al. 2020, arXiv 1910.10683): a learned number per head and
/// bucket of the offset, exact for near, logarithmic for far tokens. For several axes the biases of
/// the axes add up (ours).
class BucketBiasImpl : public torch::nn::Module, public TensorFields {
 public:
  explicit BucketBiasImpl(const BucketBiasOptions& options);

  /// [H, ...] for offsets [..., P].
  at::Tensor forward(const at::Tensor& offsets) const;

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  at::Tensor table;  ///< [P, num_buckets, H], zero at the start.

  std::vector<at::Tensor*> tensor_fields() override { return {&table}; }

 private:
  BucketBiasOptions options_;
};

MN_MODULE(BucketBias);

std::shared_ptr<Position> make_position(const BucketBiasOptions& options, const PositionSite& site);

void choose(const AttentionOptions& chosen, const AttentionSite& site, BucketBiasOptions& options);

}  // namespace mnemosyne::nn
