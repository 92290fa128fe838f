#include "mnemosyne/nn/position/fft_attention.h"

#include <ATen/TensorOperators.h>

#include <cmath>
#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/heads.h"
#include "mnemosyne/nn/position/grid_offsets.h"
#include "mnemosyne/ops/masked_attention.h"

namespace mnemosyne::nn {
namespace {

class FftMask final : public Position {
 public:
  FftMask(const FourierPositionOptions& mask, int64_t columns) : mask_(mask), columns_(columns) {}

  std::shared_ptr<torch::nn::Module> module() const override { return mask_.ptr(); }

  /// Those of a grid, of which each token sees all others (or, on a line and causal, earlier ones).
  Places place(const Projected& tokens, const AttentionInputs& inputs,
               const LinearAttentionMemory* /*memory*/) const override {
    TORCH_CHECK(tokens.key.size(1) == tokens.query.size(1) && !inputs.has_position.defined(),
                "[linear_attention] expected the tokens of one grid, all of them placed, for fft");
    return {.cross = inputs.context.defined()};
  }

  void check_segments() const override {
    throw InputError("[attention] expected causal attention without fft for segments, got fft");
  }

  at::Tensor attend(const Places& places, const LinearCall& call) const override;

 private:
  FourierPosition mask_;
  int64_t columns_;  // See grid_offsets.h.
};

at::Tensor FftMask::attend(const Places& /*places*/, const LinearCall& call) const {
  const ops::LinearAttentionInputs& in = call.inputs;
  const ops::FeatureMapKind map = *call.options.feature_map;
  const int64_t length = in.query.size(2), group = in.query.size(1) / in.key.size(1);
  const bool estimates = ops::traits_of(map).estimates;
  const double scale = estimates ? std::pow(static_cast<double>(in.query.size(3)), -0.25) : 1.0;
  const at::Tensor& omega = call.options.omega;
  const auto features = [&](const at::Tensor& x) {
    return ops::feature_map(map, x * scale, omega.defined() ? omega.to(x.options()) : omega);
  };
  at::Tensor keys = features(repeat_heads(in.key, group));
  if (in.key_padding_mask.defined()) {
    keys = keys.masked_fill(in.key_padding_mask.logical_not().unsqueeze(1).unsqueeze(-1), 0);
  }
  const at::Tensor offsets = grid_offsets(length, columns_).to(in.query.device());
  at::Tensor factor = mask_->factor(offsets);
  if (call.options.causal) factor = factor * (offsets.squeeze(-1) >= 0);
  factor = factor.to(in.query.scalar_type());
  const at::Tensor queries = features(in.query), values = repeat_heads(in.value, group);
  if (length > kLargestMatrix) return ops::fft_masked_attention(queries, keys, values, factor);
  const at::Tensor index = grid_offset_index(length, columns_).to(factor.device());
  const at::Tensor matrix = factor.flatten(1).index_select(1, index).view({-1, length, length});
  return ops::masked_linear_attention_reference(queries, keys, values, matrix);
}

}  // namespace

void bind(Fields& visit, FftMaskOptions& o) {
  bind(visit, o.mask);
  visit("columns", o.columns);
}

std::shared_ptr<Position> make_position(const FftMaskOptions& options, const PositionSite& site) {
  const int64_t dim = options.mask.position_dim;
  if (dim != (options.columns > 0 ? 2 : 1) || (site.causal && dim == 2)) {
    throw InputError(
        "[attention] expected a line or, not causal, a plane with columns for fft, "
        "got position_dim " +
        std::to_string(dim) + " and " + std::to_string(options.columns) + " columns");
  }
  FourierPositionOptions exact = for_heads(options.mask, site);
  exact.coupling = "multiplicative";
  return std::make_shared<FftMask>(exact, options.columns);
}

void choose(const AttentionOptions& chosen, const AttentionSite& site, FftMaskOptions& options) {
  choose(chosen, site, options.mask);
  options.mask.coupling = "concatenate";
  options.columns = site.position_dim == 2 ? site.grid[1] : 0;
}

}  // namespace mnemosyne::nn
