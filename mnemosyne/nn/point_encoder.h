#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/module_holder.h"
#include "mnemosyne/nn/module_tensors.h"
#include "mnemosyne/nn/performer_block.h"

namespace mnemosyne::nn {

/// Options of a PointEncoder. Lengths are in the unit of the positions, usually Angstrom.
struct PointEncoderOptions {
  int64_t num_types = 10;  ///< Types are 0 ... num_types - 1, for example atomic numbers.
  int64_t outputs = 1;
  int64_t width = 64;  ///< E, divisible by the heads.
  int64_t heads = 4;
  int64_t layers = 2;
  int64_t hidden = 0;  ///< Of the feed-forward part; 0: four times the width.
  AttentionOptions attention{};
  /// Masks are functions of the distance, for "flt". The output then is invariant to rotations:
  /// exactly with softmax attention, and up to what the number of frequencies leaves with linear
  /// attention. "none" and "alibi" are invariant anyway, "absolute", "rope" and "t5" never.
  bool rotation_invariant = true;
  std::string pooling = "sum";  ///< Of outputs per point: "sum" (energies) or "mean".
  double min_width = 0.75;      ///< Of masks at the start.
  double max_width = 6.0;
  /// The largest offset per axis. Factor "exp" would repeat beyond it, so larger points are
  /// refused; none: it grows with them.
  std::optional<double> extent = 12.0;
  /// Of the initial weights and all random draws; none: from torch's default generator.
  std::optional<uint64_t> seed{};
};

/// All but the attention.
void bind(Fields& visit, PointEncoderOptions& options);

/// A Transformer over points in space with a type each, such as the atoms of a molecule: types go
/// into queries, keys and values by their embedding, positions into relative masks. Invariant to
/// the order of points, to what padding holds, and to moving all points (not with "absolute"; with
/// linear "rope" and with "concatenate" in expectation over the random features).
///
///     nn::PointEncoder model({.num_types = 10});
///     at::Tensor energy = model->forward(types, positions, is_atom);
///
/// Differentiable in positions, any number of times, but for "t5": forces and training on them.
class PointEncoderImpl : public torch::nn::Module, public TensorFields {
 public:
  explicit PointEncoderImpl(const PointEncoderOptions& options);

  /// types int64 [B,N], positions [B,N,3], padding bool [B,N] (true where there is a point;
  /// undefined: everywhere) to [B,outputs]. What stands where there is no point does not matter.
  at::Tensor forward(const at::Tensor& types, const at::Tensor& positions,
                     const at::Tensor& padding = {}) const;

  const PointEncoderOptions& options() const { return options_; }

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<at::Device>& device = std::nullopt) const override;

  at::Tensor type_embedding;          ///< [num_types,E].
  Dense position_embedding{nullptr};  ///< 3 to E; only where the position is "absolute".
  std::vector<PerformerBlock> blocks;
  Norm norm{nullptr};
  Dense head{nullptr};

  std::vector<at::Tensor*> tensor_fields() override { return {&type_embedding}; }

 private:
  PointEncoderOptions options_;
};

MN_MODULE(PointEncoder);

}  // namespace mnemosyne::nn
