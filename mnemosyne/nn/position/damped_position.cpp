#include "mnemosyne/nn/position/damped_position.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <numbers>
#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/copy_module.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/position/position_spectrum.h"
#include "mnemosyne/ops/autocast.h"

namespace mnemosyne::nn {
namespace {

constexpr double kPi = std::numbers::pi;
constexpr double kInitialDip = -3.0;

void check(const DampedPositionOptions& o) {
  if (o.num_heads < 1 || o.num_components < 1) {
    throw InputError("[num_heads, num_components] expected positive numbers, got " +
                     std::to_string(o.num_heads) + " and " + std::to_string(o.num_components));
  }
  if (!(o.min_width > 0.0) || !(o.max_width >= o.min_width)) {
    throw InputError("[min_width, max_width] expected 0 < min_width <= max_width, got " +
                     std::to_string(o.min_width) + " and " + std::to_string(o.max_width));
  }
  if (!(o.initial_weight > 0.0)) {
    throw InputError("[initial_weight] expected a positive number, got " +
                     std::to_string(o.initial_weight));
  }
}

class FadingFactor final : public Position {
 public:
  explicit FadingFactor(const DampedPositionOptions& options) : waves_(options) {}

  std::shared_ptr<torch::nn::Module> module() const override { return waves_.ptr(); }

  /// In order: what does not count takes over the position before it.
  Places place(const Projected& tokens, const AttentionInputs& inputs,
               const LinearAttentionMemory* memory) const override {
    Places places = Position::place(tokens, inputs, memory);
    const OrderedLine line =
        ordered_line(places.queries, memory != nullptr ? memory->last : at::Tensor());
    places.queries.positions = line.positions.unsqueeze(-1);
    places.last = line.last;
    return places;
  }

  void check(const Places& places) const override { ops::line_gaps(line_of(places)); }

  bool has_bias() const override { return true; }

  /// Later keys are hidden anyway; the logarithm of zero would have no gradient.
  at::Tensor bias(const at::Tensor& offsets) const override {
    return waves_->mask(offsets.masked_fill(offsets < 0, 0));
  }

  int64_t rank() const override { return waves_->num_features(); }

  PairMatrix pair_matrix(const Places& places) const override {
    return places.all_placed() ? PairMatrix::kWhereCheaper : PairMatrix::kNever;
  }

  at::Tensor factor_of_pairs(const Places& places) const override {
    return with_unplaced_pairs(waves_->factor(offsets_of_pairs(places)), places, 1.0);
  }

  PositionFactor factor(const Places& places, LinearAttentionMemory* memory) const override {
    const PlacedTokens& tokens = places.queries;
    const ops::PositionFeatures features = waves_->features(tokens.positions, tokens.has_position);
    PositionFactor factor{.query = features.query, .key = features.key};
    if (tokens.positions.size(-2) == 0) return factor;
    factor.log_decay = ops::log_decay(features.decay, line_of(places),
                                      memory != nullptr ? memory->last : at::Tensor());
    if (memory != nullptr) memory->last = places.last;
    return factor;
  }

 private:
  static at::Tensor line_of(const Places& places) { return places.queries.positions.select(-1, 0); }

  DampedPosition waves_;
};

}  // namespace

void bind_choice(Fields& visit, DampedPositionOptions& o) {
  visit("initial_weight", o.initial_weight);
}

void bind(Fields& visit, DampedPositionOptions& o) {
  visit("num_heads", o.num_heads);
  visit("num_components", o.num_components);
  visit("min_width", o.min_width);
  visit("max_width", o.max_width);
  visit("seed", o.seed);
  bind_choice(visit, o);
}

DampedPositionImpl::DampedPositionImpl(const DampedPositionOptions& options)
    : torch::nn::Module("DampedPosition"), options_(with_seed(options)) {
  check(options);
  const int64_t heads = options.num_heads, terms = options.num_components;
  const at::Generator generator = tensor_generator(*options_.seed);
  const at::TensorOptions type = at::TensorOptions(at::kFloat);
  const at::Tensor rates =
      -at::linspace(std::log(options.min_width), std::log(options.max_width), terms, type);
  log_constant = register_parameter("log_constant", at::zeros({heads}, type));
  log_weight = register_parameter("log_weight",
                                  at::full({heads, terms}, std::log(options.initial_weight), type));
  dip = register_parameter("dip", at::full({heads, terms}, kInitialDip, type));
  log_rate = register_parameter("log_rate", rates.expand({heads, terms}).clone());
  modulation = register_parameter("modulation", at::zeros({heads, terms}, type));
  // Around one turn per decay length, and no phase alike: a gradient in the modulation at once.
  frequency = register_parameter(
      "frequency", at::randn({heads, terms}, generator, type) * rates.exp() / (2.0 * kPi));
  phase = register_parameter("phase", at::randn({heads, terms}, generator, type));
}

at::Tensor DampedPositionImpl::dips() const {
  const at::Tensor logits = at_least_float(dip);
  const at::Tensor slack = at::zeros_like(logits.narrow(-1, 0, 1));
  return at::softmax(at::cat({logits, slack}, -1), -1).narrow(-1, 0, logits.size(-1));
}

at::Tensor DampedPositionImpl::factor(const at::Tensor& offsets) const {
  const ops::NoAutocast angles_as_they_are;
  TORCH_CHECK(offsets.dim() >= 1 && offsets.size(-1) == 1,
              "[damped_position] expected offsets [..., 1], got ", offsets.sizes());
  const at::Tensor weight = at_least_float(log_weight).exp().unsqueeze(-1);  // [H, T, 1]
  const at::Tensor z = offsets.reshape({-1}).to(weight.scalar_type());
  const auto column = [](const at::Tensor& t) { return at_least_float(t).unsqueeze(-1); };
  // No clamp, whose derivative at its bound torch 2.14 changed: at offset zero that from the right.
  const at::Tensor lag = z.masked_fill(z < 0, 0);
  const at::Tensor fading = (-column(log_rate).exp() * lag).exp();
  const at::Tensor wave = (2.0 * kPi * column(frequency) * z + column(phase)).cos();
  const at::Tensor peaks = (weight * fading * (1.0 + column(modulation).tanh() * wave)).sum(1);
  const at::Tensor base = 1.0 - (dips().unsqueeze(-1) * fading).sum(1);
  const at::Tensor value = column(log_constant).exp() * base + peaks;
  std::vector<int64_t> shape = offsets.sizes().vec();
  shape.pop_back();
  shape.insert(shape.begin(), options_.num_heads);
  return (value * (z >= 0)).reshape(shape);
}

at::Tensor DampedPositionImpl::mask(const at::Tensor& offsets) const {
  return factor(offsets).log();
}

ops::PositionFeatures DampedPositionImpl::features(const at::Tensor& positions,
                                                   const at::Tensor& has_position) const {
  const ops::NoAutocast angles_as_they_are;
  TORCH_CHECK(positions.dim() >= 2 && positions.size(-1) == 1,
              "[damped_position] expected positions [L, 1] or [B, L, 1], got ", positions.sizes());
  const at::Tensor weight = at_least_float(log_weight).exp();
  const at::Tensor rate = at_least_float(log_rate).exp();
  const at::Tensor strength = weight * at_least_float(modulation).tanh();
  const at::Tensor angle = at_least_float(phase);
  const ops::PositionFeatures waves =
      ops::fourier_features({at_least_float(frequency).unsqueeze(-1),
                             strength * angle.cos(),
                             -strength * angle.sin(),
                             {}},
                            positions);
  const at::Tensor constant = at_least_float(log_constant).exp().unsqueeze(-1);
  const auto [split, rest] = ops::split_weight(at::cat({constant, weight - constant * dips()}, -1));
  // The same for every token: [..., H, L, 1 + T].
  const at::Tensor like = at::zeros_like(waves.query.narrow(-1, 0, 1));
  const ops::PositionFeatures features{
      at::cat({split.unsqueeze(-2) + like, waves.query}, -1),
      at::cat({rest.unsqueeze(-2) + like, waves.key}, -1),
      at::cat({at::zeros_like(rate.narrow(-1, 0, 1)), rate, rate, rate}, -1)};
  return has_position.defined() ? ops::with_unplaced_tokens(features, has_position) : features;
}

std::shared_ptr<torch::nn::Module> DampedPositionImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<DampedPositionImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

std::shared_ptr<Position> make_position(const DampedPositionOptions& options,
                                        const PositionSite& site) {
  if (!site.causal) {
    throw InputError("[attention] expected causal attention for damped, got both directions");
  }
  return std::make_shared<FadingFactor>(for_heads(options, site));
}

void choose(const AttentionOptions& chosen, const AttentionSite& site,
            DampedPositionOptions& options) {
  options = chosen.damped;
  options.num_heads = site.num_heads;
  if (chosen.num_components > 0) options.num_components = chosen.num_components;
  options.min_width = site.min_width;
  options.max_width = site.max_width;
}

}  // namespace mnemosyne::nn
