#include "mnemosyne/nn/position/position_bias.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/copy_module.h"
#include "mnemosyne/ops/distance.h"

namespace mnemosyne::nn {
namespace {

class Alibi final : public Position {
 public:
  Alibi(const AlibiOptions& options, int64_t num_heads)
      : options_(options), num_heads_(num_heads) {}

  bool has_bias() const override { return true; }
  at::Tensor bias(const at::Tensor& offsets) const override {
    return alibi_bias(offsets, num_heads_, options_);
  }

 private:
  AlibiOptions options_;
  int64_t num_heads_;
};

class Buckets final : public Position {
 public:
  explicit Buckets(const BucketBiasOptions& options) : table_(options) {}

  std::shared_ptr<torch::nn::Module> module() const override { return table_.ptr(); }
  bool has_bias() const override { return true; }
  at::Tensor bias(const at::Tensor& offsets) const override { return table_->forward(offsets); }

 private:
  BucketBias table_;
};

}  // namespace

void bind(Fields& visit, AlibiOptions& o) { visit("position_scale", o.position_scale); }

// The number of heads and the direction are those of the attention.
void bind(Fields& visit, BucketBiasOptions& o) {
  visit("position_dim", o.position_dim);
  visit("num_buckets", o.num_buckets);
  visit("max_distance", o.max_distance);
  visit("position_scale", o.position_scale);
}

at::Tensor alibi_bias(const at::Tensor& offsets, int64_t num_heads, const AlibiOptions& options) {
  const at::Tensor distance = ops::distance(offsets) * options.position_scale;  // [...]
  const at::Tensor head = at::arange(1, num_heads + 1, distance.options());
  std::vector<int64_t> shape(static_cast<size_t>(distance.dim()) + 1, 1);
  shape[0] = num_heads;
  const at::Tensor slope =
      (head * (-8.0 * std::log(2.0) / static_cast<double>(num_heads))).exp().view(shape);
  return -slope * distance;
}

BucketBiasImpl::BucketBiasImpl(const BucketBiasOptions& options)
    : torch::nn::Module("BucketBias"), options_(options) {
  const int64_t side = options.causal ? options.num_buckets : options.num_buckets / 2;
  if (options.num_heads < 1 || options.position_dim < 1 || side < 2 ||
      (!options.causal && options.num_buckets % 2 != 0)) {
    throw InputError("[attention] expected positive num_heads and position_dim and at least two " +
                     std::string("buckets for each direction for t5, got ") +
                     std::to_string(options.num_heads) + ", " +
                     std::to_string(options.position_dim) + " and " +
                     std::to_string(options.num_buckets));
  }
  if (!(options.max_distance > static_cast<double>(side / 2)) || !(options.position_scale > 0.0)) {
    throw InputError("[attention] expected a positive position_scale and a max_distance above a " +
                     std::string("quarter of the buckets for t5, got ") +
                     std::to_string(options.position_scale) + " and " +
                     std::to_string(options.max_distance));
  }
  table = register_parameter(
      "table", at::zeros({options.position_dim, options.num_buckets, options.num_heads},
                         at::TensorOptions(at::kFloat)));
}

at::Tensor BucketBiasImpl::forward(const at::Tensor& offsets) const {
  TORCH_CHECK(offsets.dim() >= 1 && offsets.size(-1) == options_.position_dim,
              "[bucket_bias] expected offsets [..., ", options_.position_dim, "], got ",
              offsets.sizes());
  TORCH_CHECK(!offsets.requires_grad() || !at::GradMode::is_enabled(),
              "[bucket_bias] expected positions without a gradient, as t5 rounds offsets, got some "
              "that require one");
  const at::Tensor back = (offsets.to(at::kDouble) * options_.position_scale).round();
  const int64_t side = options_.causal ? options_.num_buckets : options_.num_buckets / 2;
  const int64_t exact = side / 2;
  const at::Tensor distance = options_.causal ? back.clamp_min(0) : back.abs();
  const double range = std::log(options_.max_distance / static_cast<double>(exact));
  const at::Tensor far =
      (static_cast<double>(exact) + (distance.clamp_min(1) / static_cast<double>(exact)).log() *
                                        (static_cast<double>(side - exact) / range))
          .floor()
          .clamp_max(static_cast<double>(side - 1));
  at::Tensor bucket = at::where(distance < static_cast<double>(exact), distance, far).to(at::kLong);
  if (!options_.causal) bucket = bucket + (back < 0).to(at::kLong) * side;
  at::Tensor bias;
  for (int64_t axis = 0; axis < options_.position_dim; ++axis) {
    const at::Tensor index = bucket.select(-1, axis);
    std::vector<int64_t> shape = index.sizes().vec();
    shape.push_back(options_.num_heads);
    const at::Tensor part = table.select(0, axis).index_select(0, index.reshape({-1})).view(shape);
    bias = bias.defined() ? bias + part : part;
  }
  return bias.movedim(-1, 0);
}

std::shared_ptr<torch::nn::Module> BucketBiasImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<BucketBiasImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

std::shared_ptr<Position> make_position(const AlibiOptions& options, const PositionSite& site) {
  return std::make_shared<Alibi>(options, site.num_heads);
}

std::shared_ptr<Position> make_position(const BucketBiasOptions& options,
                                        const PositionSite& site) {
  BucketBiasOptions own = options;
  own.num_heads = site.num_heads;
  own.causal = site.causal;
  return std::make_shared<Buckets>(own);
}

void choose(const AttentionOptions& /*chosen*/, const AttentionSite& /*site*/,
            AlibiOptions& /*options*/) {}

void choose(const AttentionOptions& /*chosen*/, const AttentionSite& site,
            BucketBiasOptions& options) {
  options.position_dim = site.position_dim;
}

}  // namespace mnemosyne::nn
