#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/heads.h"
#include "mnemosyne/nn/position/fourier_position.h"

namespace mnemosyne::nn {
namespace {

/// What both couplings have.
class FourierEncoding : public Position {
 public:
  explicit FourierEncoding(const FourierPositionOptions& options) : waves_(options) {}

  std::shared_ptr<torch::nn::Module> module() const override { return waves_.ptr(); }

  bool has_bias() const override { return true; }
  at::Tensor bias(const at::Tensor& offsets) const override { return waves_->mask(offsets); }

  void check_segments() const override {
    if (!waves_->grows()) return;
    throw InputError(
        "[attention] expected an extent for segments, whose features have to agree, got none");
  }

 protected:
  ops::PositionFeatures features(const Places& places, LinearAttentionMemory* memory) const {
    at::Tensor none;
    return waves_->features(places.queries, places.keys(), memory != nullptr ? memory->span : none);
  }

  FourierPosition waves_;
};

class MultiplicativeFourier final : public FourierEncoding {
 public:
  MultiplicativeFourier(const FourierPositionOptions& options, int64_t exact_length)
      : FourierEncoding(options), exact_length_(exact_length) {}

  int64_t rank() const override { return waves_->num_features(); }

  PairMatrix pair_matrix(const Places& places) const override {
    return is_exact(places) ? PairMatrix::kAlways : PairMatrix::kWhereCheaper;
  }

  at::Tensor factor_of_pairs(const Places& places) const override {
    if (is_exact(places)) {
      return with_unplaced_pairs(waves_->factor(offsets_of_pairs(places)), places, 1.0);
    }
    const ops::PositionFeatures all = features(places, nullptr);
    return at::matmul(all.query, all.key.mT());
  }

  PositionFactor factor(const Places& places, LinearAttentionMemory* memory) const override {
    const ops::PositionFeatures all = features(places, memory);
    return {.query = all.query, .key = all.key};
  }

 private:
  bool is_exact(const Places& places) const {
    return std::max(places.queries.positions.size(-2), places.keys().positions.size(-2)) <=
           exact_length_;
  }

  int64_t exact_length_;
};

class ConcatenatedFourier final : public FourierEncoding {
 public:
  using FourierEncoding::FourierEncoding;

  int64_t num_beside() const override { return waves_->num_features(); }

  void encode(const Places& places, LinearAttentionMemory* memory,
              LinearCall& call) const override {
    const ops::PositionFeatures all = features(places, memory);
    const bool shared = all.query.dim() == 3 && all.key.dim() == 3;
    if (shared && ops::traits_of(*call.options.feature_map).exponential) {
      add_exponents(all, call);
      return;
    }
    ops::LinearAttentionInputs& in = call.inputs;
    const int64_t group = in.query.size(1) / in.key.size(1);
    in.key = repeat_heads(in.key, group);
    in.value = repeat_heads(in.value, group);
    std::tie(in.query, in.key) = waves_->join(in.query, in.key, all);
    call.options.scale = 1.0;
  }

 private:
  /// Positive features of content and position side by side are products: one exponent for the
  /// content and one, which the batch shares, for the position.
  void add_exponents(const ops::PositionFeatures& all, LinearCall& call) const {
    const int64_t depth = call.inputs.query.size(-1), size = all.query.size(-1);
    const double total = static_cast<double>(depth + size);
    const bool released = waves_->options().released_code;
    const at::Tensor omega = call.options.omega;
    call.options.scale = 1.0 / std::sqrt(released ? total : static_cast<double>(depth));
    call.options.omega = omega.narrow(1, 0, depth);
    const double place = released ? std::pow(static_cast<double>(depth) / total, 0.25) : 1.0;
    const at::Tensor vectors = omega.narrow(1, depth, size);
    const auto exponents = [&](const at::Tensor& position) {
      const at::Tensor projection = at::matmul(position, vectors.to(position.scalar_type()).t());
      const bool pairs = ops::traits_of(*call.options.feature_map).per_vector == 2;
      return pairs ? at::cat({projection, -projection}, -1) : projection;
    };
    const at::Tensor key_position = all.key * place;
    call.inputs.query_log = exponents(all.query * place);
    call.inputs.key_log =
        exponents(key_position) - key_position.square().sum(-1, /*keepdim=*/true) * 0.5;
  }
};

}  // namespace

std::shared_ptr<Position> make_position(const FourierPositionOptions& options,
                                        const PositionSite& site) {
  const FourierPositionOptions own = for_heads(options, site);
  if (options.coupling == "multiplicative") {
    return std::make_shared<MultiplicativeFourier>(own, site.exact_length);
  }
  return std::make_shared<ConcatenatedFourier>(own);
}

void choose(const AttentionOptions& chosen, const AttentionSite& site,
            FourierPositionOptions& options) {
  options = chosen.fourier;
  options.num_heads = site.num_heads;
  options.position_dim = site.position_dim;
  options.min_width = site.min_width;
  options.max_width = site.max_width;
  options.extent = site.extent;
  options.rotation_invariant = site.rotation_invariant;
  options.num_components = chosen.num_components > 0
                               ? chosen.num_components
                               : std::gcd(options.num_components, options.num_frequencies);
  // Of softmax the mask is exact and the coupling has no meaning.
  if (chosen.kind == "softmax") options.coupling = "concatenate";
  const bool concatenated = chosen.kind == "linear" && options.coupling == "concatenate";
  if (!concatenated || options.max_bound > 0.0) return;
  const ops::FeatureMapKind map = ops::feature_map_kind("feature_map", chosen.linear.feature_map,
                                                        ops::FeatureMapKind::kConstant);
  if (ops::traits_of(map).exponential) options.max_bound = 1.0;
}

}  // namespace mnemosyne::nn
