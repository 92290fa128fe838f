#include "mnemosyne/nn/position/fourier_position.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/nn/copy_module.h"
#include "mnemosyne/nn/heads.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/ops/autocast.h"
#include "mnemosyne/ops/device_check.h"
#include "mnemosyne/ops/untraced.h"

namespace mnemosyne::nn {
namespace {

// The factor "exp" starts from the exact f and counts its own waves; where those of the spectrum
// are not part of f, their number is rounded up to what the spectrum can have.
FourierPositionOptions spectrum_options(FourierPositionOptions options) {
  if (options.is_exact() && options.kind != "neural" && options.num_components > 0) {
    const int64_t rest = options.num_frequencies % options.num_components;
    if (rest > 0) options.num_frequencies += options.num_components - rest;
  }
  return options;
}

// A little more than the extent, for positions in float32.
void check_reach(const at::Tensor& reach, double extent) {
  ops::check_at_most(
      reach, extent * (1.0 + 1e-6),
      c10::str("[fourier_position] expected offsets of at most ", extent, ", the extent"));
}

ops::GridSymmetry symmetry_of(const FourierPositionOptions& o) {
  if (o.phase) return ops::GridSymmetry::kNone;
  return o.rotation_invariant ? ops::GridSymmetry::kRadial : ops::GridSymmetry::kEven;
}

}  // namespace

FourierPositionImpl::FourierPositionImpl(const FourierPositionOptions& options)
    : torch::nn::Module("FourierPosition"), options_(with_seed(options)) {
  one_of("coupling", options.coupling, {"concatenate", "multiplicative"});
  one_of("factor", options.factor, {"exp", "square", "linear"});
  spectrum_ = register_module("spectrum", make_position_spectrum(spectrum_options(options_)));
  if (options.is_exact() && options.extent.has_value()) {
    grid_ = std::make_shared<ops::PeriodicGrid>(ops::periodic_grid(
        *options.extent, options.min_width, options.position_dim, symmetry_of(options)));
  }
}

at::Tensor FourierPositionImpl::scaled(const at::Tensor& positions) const {
  TORCH_CHECK(positions.dim() >= 1 && positions.size(-1) == options_.position_dim,
              "[fourier_position] expected positions of dimension ", options_.position_dim,
              " in the last axis, got ", positions.sizes());
  return positions.to(at::kDouble) * options_.position_scale;
}

// [H], what f is multiplied by to stay within max_bound; undefined without one.
at::Tensor FourierPositionImpl::limit(const ops::SpectralSum& sum) const {
  if (options_.max_bound <= 0.0) return {};
  at::Tensor total;
  if (sum.sine.defined()) {
    // The small number keeps the gradient of the root finite at zero.
    total = (sum.cosine.square() + sum.sine.square() + 1e-20).sqrt().sum(-1);
  } else {
    total = sum.cosine.abs().sum(-1);
  }
  return options_.max_bound / total.clamp_min(options_.max_bound);
}

ops::SpectralSum FourierPositionImpl::limited_sum() const {
  ops::SpectralSum sum = spectrum_->sum();
  const at::Tensor factor = limit(sum);
  if (!factor.defined()) return sum;
  const at::Tensor column = factor.unsqueeze(-1);
  sum.cosine = sum.cosine * column;
  if (sum.sine.defined()) sum.sine = sum.sine * column;
  if (sum.amplitude.defined()) sum.amplitude = sum.amplitude * column.sqrt();
  return sum;
}

at::Tensor FourierPositionImpl::mask(const at::Tensor& offsets) const {
  const ops::NoAutocast angles_as_they_are;
  const at::Tensor z = scaled(offsets);
  at::Tensor value = spectrum_->mask(z.reshape({-1, options_.position_dim}));  // [H, P]
  if (options_.max_bound > 0.0) value = value * limit(spectrum_->sum()).unsqueeze(-1);
  std::vector<int64_t> shape = z.sizes().vec();
  shape.pop_back();
  shape.insert(shape.begin(), options_.num_heads);
  return value.reshape(shape);
}

at::Tensor FourierPositionImpl::factor_of(const at::Tensor& f) const {
  if (!multiplicative() || options_.factor == "exp") return f.exp();
  return options_.factor == "square" ? (1.0 + f).square() : 1.0 + f;
}

at::Tensor FourierPositionImpl::factor(const at::Tensor& offsets) const {
  return factor_of(mask(offsets));
}

ops::PositionFeatures FourierPositionImpl::features(const at::Tensor& positions,
                                                    const at::Tensor& has_position) const {
  const PlacedTokens tokens{.positions = positions, .has_position = has_position};
  at::Tensor none;
  return features(tokens, tokens, none);
}

ops::PositionFeatures FourierPositionImpl::features(const PlacedTokens& queries,
                                                    const PlacedTokens& keys,
                                                    at::Tensor& span) const {
  const ops::NoAutocast angles_as_they_are;
  const at::Tensor x = zero_unplaced(scaled(queries.positions), queries.has_position);
  const bool same = queries.positions.is_same(keys.positions);
  const at::Tensor y = same ? x : zero_unplaced(scaled(keys.positions), keys.has_position);
  at::Tensor reach;
  if (options_.is_exact() || spectrum_->is_periodic()) {
    const at::NoGradGuard no_grad;
    const at::Tensor own = span_of(queries);
    const at::Tensor seen = joined_span(span, &queries == &keys ? own : span_of(keys));
    reach = largest_offset(own, seen) * options_.position_scale;
    if (options_.extent.has_value()) check_reach(reach, *options_.extent);
    span = seen;
  }
  const bool some = queries.has_position.defined() || keys.has_position.defined();
  const at::Tensor has = some ? queries.placed() : at::Tensor();
  const at::Tensor key_has = same || !some ? has : keys.placed();
  if (!options_.is_exact()) {
    ops::PositionFeatures features = drawn_features(x, has);
    if (!same) features.key = drawn_features(y, key_has).key;
    return features;
  }
  const ops::PeriodicFactor factor = periodic_factor(*grid_for(reach), x.device());
  const auto side = [&](const at::Tensor& place, const at::Tensor& which) {
    const ops::PositionFeatures features = ops::factor_features(factor, place);
    return which.defined() ? ops::with_unplaced_tokens(features, which) : features;
  };
  ops::PositionFeatures features = side(x, has);
  if (!same) features.key = side(y, key_has).key;
  return features;
}

// The grid that covers offsets up to `reach`, which only one that grows reads. Shapes do not depend
// on it: on the meta device any extent will do.
FourierPositionImpl::Grid FourierPositionImpl::grid_for(const at::Tensor& reach) const {
  if (!grows() && !ops::is_traced(reach)) return grid_;
  const auto grid_of = [&](double extent) {
    const ops::Untraced numbers_to_keep;
    return ops::periodic_grid(extent, options_.min_width, options_.position_dim,
                              symmetry_of(options_));
  };
  if (ops::is_traced(reach)) {
    TORCH_CHECK(!grows(),
                "[fourier_position] expected an extent in a program that is traced, where no grid "
                "follows the input, got none");
    return std::make_shared<ops::PeriodicGrid>(ops::periodic_grid_like(
        reach, *options_.extent, options_.min_width, options_.position_dim, symmetry_of(options_)));
  }
  if (reach.is_meta()) return std::make_shared<ops::PeriodicGrid>(grid_of(options_.max_width));
  const double extent = std::max(ops::largest_number(reach), options_.min_width);
  const std::lock_guard lock(mutex_);
  const double steps = std::ceil(extent / options_.min_width);
  if (grid_ == nullptr || steps != grid_steps_) {
    grid_ = std::make_shared<ops::PeriodicGrid>(grid_of(extent));
    grid_steps_ = steps;
  }
  return grid_;
}

ops::PeriodicFactor FourierPositionImpl::periodic_factor(const ops::PeriodicGrid& grid,
                                                         at::Device device) const {
  at::Tensor f = spectrum_->mask(grid.offsets.to(device));
  if (options_.max_bound > 0.0) f = f * limit(spectrum_->sum()).unsqueeze(-1);
  return ops::largest_waves(f.exp(), grid, options_.num_frequencies);
}

// Of the sum of drawn waves, or of a factor made from it.
ops::PositionFeatures FourierPositionImpl::drawn_features(const at::Tensor& positions,
                                                          const at::Tensor& has_position) const {
  ops::PositionFeatures features = ops::fourier_features(limited_sum(), positions);
  if (has_position.defined()) {
    const at::Tensor placed =
        has_position.to(features.query.scalar_type()).unsqueeze(-2).unsqueeze(-1);
    features.query = features.query * placed;
    features.key = features.key * placed;
  }
  if (!multiplicative()) return features;
  return options_.factor == "square" ? ops::square_factor_features(features)
                                     : ops::linear_factor_features(features);
}

int64_t FourierPositionImpl::num_features(bool with_unplaced_tokens) const {
  if (options_.is_exact()) {
    const int64_t waves = grows() ? options_.num_frequencies
                                  : std::min(options_.num_frequencies, grid_->waves.size(0));
    return 2 * waves + 1 + (with_unplaced_tokens ? 2 : 0);
  }
  const int64_t size = 2 * spectrum_->num_waves();
  if (!multiplicative()) return size;
  return options_.factor == "square" ? (size + 1) * (size + 2) / 2 : size + 1;
}

at::Tensor FourierPositionImpl::bound() const {
  const ops::NoAutocast weights_as_they_are;
  const ops::SpectralSum sum = limited_sum();
  if (!sum.sine.defined()) return sum.cosine.abs().sum(-1);
  return (sum.cosine.square() + sum.sine.square()).sqrt().sum(-1);
}

std::pair<at::Tensor, at::Tensor> FourierPositionImpl::join(
    const at::Tensor& query, const at::Tensor& key, const ops::PositionFeatures& features) const {
  TORCH_CHECK(!multiplicative(), "[join] expected the coupling concatenate, got multiplicative");
  TORCH_CHECK(query.dim() == 4 && key.dim() == 4 && features.query.size(-2) == query.size(2),
              "[join] expected query and key [B, H, L, D] for ", features.query.size(-2),
              " positions, got ", query.sizes(), " and ", key.sizes());
  const double depth = static_cast<double>(query.size(-1));
  const double total = depth + static_cast<double>(features.query.size(-1));
  const bool released = options_.released_code;
  const double content = std::pow(released ? total : depth, -0.25);
  const double place = released ? std::pow(depth / total, 0.25) : 1.0;
  const auto side = [&](const at::Tensor& x, const at::Tensor& position) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = position.size(-1);
    return at::cat({x * content, (position * place).to(x.scalar_type()).expand(shape)}, -1);
  };
  return {side(query, features.query), side(key, features.key)};
}

std::shared_ptr<torch::nn::Module> FourierPositionImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<FourierPositionImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
