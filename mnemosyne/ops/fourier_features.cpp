#include "mnemosyne/ops/fourier_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diff.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/triu_indices.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "mnemosyne/ops/device_check.h"

namespace mnemosyne::ops {
namespace {

// Below it a weight counts as zero in the split: its square root has no gradient there.
constexpr double kSplitFloor = 1e-3;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The angles of points [..., L, D] with frequencies [H, R, D]: [..., H, L, R] within half a turn.
at::Tensor angles(const at::Tensor& points, const SpectralSum& sum) {
  const at::Tensor& frequencies = sum.frequencies;
  TORCH_CHECK(frequencies.dim() == 3 && points.size(-1) == frequencies.size(2),
              "[fourier_features] expected positions of dimension ", frequencies.size(-1), ", got ",
              points.sizes());
  const at::Tensor turns =
      at::matmul(points.to(at::kDouble).unsqueeze(-3), frequencies.to(at::kDouble).mT());
  return ((turns - turns.detach().round()) * (2.0 * std::numbers::pi)).to(sum.cosine.scalar_type());
}

}  // namespace

std::pair<at::Tensor, at::Tensor> split_weight(const at::Tensor& weight, const at::Tensor& other) {
  at::Tensor square = weight.square();
  if (other.defined()) square = square + other.square();
  const at::Tensor split = (square + kSplitFloor * kSplitFloor).pow(0.25);
  return {split, weight / split};
}

at::Tensor fourier_sum(const SpectralSum& sum, const at::Tensor& offsets) {
  const at::Tensor angle = angles(offsets.reshape({-1, offsets.size(-1)}), sum);  // [H, P, R]
  at::Tensor value = at::matmul(angle.cos(), sum.cosine.unsqueeze(-1));
  if (sum.sine.defined()) value = value + at::matmul(angle.sin(), sum.sine.unsqueeze(-1));
  std::vector<int64_t> shape = offsets.sizes().vec();
  shape.back() = sum.cosine.size(0);
  return value.squeeze(-1).mT().reshape(shape).movedim(-1, 0);
}

PositionFeatures fourier_features(const SpectralSum& sum, const at::Tensor& positions) {
  TORCH_CHECK(positions.dim() == 2 || positions.dim() == 3,
              "[fourier_features] expected positions of shape [L, D] or [B, L, D], got ",
              positions.sizes());
  const at::Tensor angle = angles(positions, sum);  // [..., H, L, R]
  const at::Tensor cosine = angle.cos(), sine = angle.sin();
  const at::Tensor waves = at::cat({cosine, sine}, -1);
  const auto both = [](const at::Tensor& t) { return at::cat({t, t}, -1).unsqueeze(-2); };
  if (sum.amplitude.defined()) {
    const at::Tensor scaled = both(sum.amplitude) * waves;
    return {scaled, scaled, {}};
  }
  const auto [split, rest] = split_weight(sum.cosine, sum.sine);
  at::Tensor key = both(rest) * waves;
  if (sum.sine.defined()) {
    key = key + both(sum.sine / split) * at::cat({-sine, cosine}, -1);
  }
  return {both(split) * waves, key, {}};
}

PositionFeatures linear_factor_features(const PositionFeatures& features) {
  const auto with_one = [](const at::Tensor& t) {
    return at::cat({at::ones_like(t.narrow(-1, 0, 1)), t}, -1);
  };
  return {with_one(features.query), with_one(features.key), {}};
}

PositionFeatures square_factor_features(const PositionFeatures& features) {
  const PositionFeatures linear = linear_factor_features(features);
  const int64_t size = linear.query.size(-1);
  const at::Tensor pairs =
      at::triu_indices(size, size, 0, linear.query.options().dtype(at::kLong).requires_grad(false));
  // A pair of different features stands for both of its orders.
  const at::Tensor weight =
      (pairs[0] != pairs[1]).to(linear.query.scalar_type()) * (std::numbers::sqrt2 - 1.0) + 1.0;
  const auto square = [&](const at::Tensor& t) {
    return t.index_select(-1, pairs[0]) * t.index_select(-1, pairs[1]) * weight;
  };
  return {square(linear.query), square(linear.key), {}};
}

PositionFeatures with_unplaced_tokens(const PositionFeatures& features,
                                      const at::Tensor& has_position) {
  // [..., 1, L, 1], one for tokens with a position.
  const at::Tensor placed =
      has_position.to(features.query.scalar_type()).unsqueeze(-2).unsqueeze(-1);
  const at::Tensor query = features.query * placed;
  const at::Tensor one = at::ones_like(query.narrow(-1, 0, 1)), has = one * placed;
  PositionFeatures result{at::cat({query, one - has, has}, -1),
                          at::cat({features.key * placed, one, one - has}, -1),
                          {}};
  if (features.decay.defined()) {
    const at::Tensor none = at::zeros({features.decay.size(0), 2}, features.decay.options());
    result.decay = at::cat({features.decay, none}, -1);
  }
  return result;
}

at::Tensor line_gaps(const at::Tensor& positions, const at::Tensor& previous) {
  const at::Tensor first = positions.narrow(-1, 0, 1);
  const at::Tensor start =
      previous.defined() ? at::where(previous == -kInfinity, first, previous) : first;
  const at::Tensor line = positions + at::zeros_like(start);  // [B, L] where either has a batch
  const at::Tensor before = start + at::zeros_like(line.narrow(-1, 0, 1));
  const at::Tensor gaps = at::diff(at::cat({before, line}, -1));
  if (gaps.numel() > 0) {
    check_at_most(-gaps.min().nan_to_num(-kInfinity), 0.0,
                  "[log_decay] expected positions that do not go down", "a step back of ");
  }
  return gaps;
}

at::Tensor log_decay(const at::Tensor& decay, const at::Tensor& positions,
                     const at::Tensor& previous) {
  TORCH_CHECK(decay.dim() == 2 && positions.dim() >= 1 && positions.size(-1) > 0,
              "[log_decay] expected decay [H, N] and positions [..., L], got ", decay.sizes(),
              " and ", positions.sizes());
  const at::Tensor gaps = line_gaps(positions, previous);
  return -decay.unsqueeze(1) * gaps.to(decay.scalar_type()).unsqueeze(-1).unsqueeze(-3);
}

}  // namespace mnemosyne::ops
