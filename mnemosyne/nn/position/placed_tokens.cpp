#include "mnemosyne/nn/position/placed_tokens.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cummax.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <utility>
#include <vector>

#include "mnemosyne/nn/heads.h"

namespace mnemosyne::nn {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Boxes on one device; those of lines are on the CPU.
std::pair<at::Tensor, at::Tensor> together(const at::Tensor& one, const at::Tensor& other) {
  if (one.is_cpu()) return {one.to(other.device()), other};
  return {one, other.to(one.device())};
}

at::Tensor low(const at::Tensor& span) { return span.select(-2, 0); }
at::Tensor high(const at::Tensor& span) { return span.select(-2, 1); }

}  // namespace

at::Tensor PlacedTokens::placed() const {
  return has_position.defined() ? has_position : at::ones_like(positions.select(-1, 0), at::kBool);
}

at::Tensor PlacedTokens::counted() const {
  if (!mask.defined() || !has_position.defined()) {
    return mask.defined() ? mask : has_position;
  }
  return mask.logical_and(has_position);
}

PlacedTokens place_tokens(const at::Tensor& x, const at::Tensor& positions,
                          const at::Tensor& has_position, const at::Tensor& mask, int64_t first) {
  const at::IntArrayRef tokens = x.sizes().slice(0, 2);
  TORCH_CHECK(!mask.defined() || (mask.sizes() == tokens && mask.scalar_type() == at::kBool),
              "[attention] expected a key_padding_mask bool ", tokens, ", got ", mask.scalar_type(),
              " ", mask.sizes());
  TORCH_CHECK(!has_position.defined() ||
                  (has_position.scalar_type() == at::kBool &&
                   (has_position.sizes() == tokens || has_position.sizes() == tokens.slice(1))),
              "[attention] expected has_position bool ", tokens, " or ", tokens.slice(1), ", got ",
              has_position.scalar_type(), " ", has_position.sizes());
  return {.positions = positions_or_line(positions, x, first),
          .has_position = has_position,
          .mask = mask,
          .is_line = !positions.defined(),
          .first = positions.defined() ? std::optional<int64_t>() : first};
}

at::Tensor span_of(const PlacedTokens& tokens) {
  const at::Tensor counted = tokens.counted(), place = tokens.positions.detach();
  const int64_t length = place.size(-2);
  if (tokens.first.has_value() && !counted.defined() && length > 0) {
    const double first = static_cast<double>(*tokens.first);
    return at::linspace(
               first, first + static_cast<double>(length - 1), 2,
               at::TensorOptions(at::kDouble).device(place.is_meta() ? at::kMeta : at::kCPU))
        .unsqueeze(-1);
  }
  // A row more, which does not count, for sequences without tokens.
  const auto corner = [&](double none) {
    at::Tensor x = place;
    if (counted.defined()) x = at::where(counted.unsqueeze(-1), x, none);
    std::vector<int64_t> row = x.sizes().vec();
    row[row.size() - 2] = 1;
    return at::cat({x, at::full(row, none, x.options())}, -2);
  };
  return at::stack({corner(kInfinity).amin(-2), corner(-kInfinity).amax(-2)}, -2);
}

at::Tensor joined_span(const at::Tensor& one, const at::Tensor& other) {
  if (!one.defined() || !other.defined()) return one.defined() ? one : other;
  const auto [a, b] = together(one, other);
  return at::stack({at::minimum(low(a), low(b)), at::maximum(high(a), high(b))}, -2);
}

at::Tensor largest_offset(const at::Tensor& one, const at::Tensor& other) {
  const auto [a, b] = together(one, other);
  const at::Tensor offsets = at::maximum(high(a) - low(b), high(b) - low(a)).clamp_min(0.0);
  return offsets.numel() > 0 ? offsets.max() : at::zeros({}, offsets.options());
}

OrderedLine ordered_line(const PlacedTokens& tokens, const at::Tensor& last) {
  TORCH_CHECK(tokens.positions.size(-1) == 1, "[damped_position] expected positions [L, 1] or ",
              "[B, L, 1], got ", tokens.positions.sizes());
  const at::Tensor given = tokens.positions.select(-1, 0);
  const int64_t end = given.size(-1) - 1;
  if (end < 0) return {given, last};
  const at::Tensor counted = tokens.is_line ? tokens.has_position : tokens.counted();
  if (!counted.defined()) return {given, given.narrow(-1, end, 1)};
  at::Tensor seen = at::where(counted, given, -kInfinity);
  if (last.defined()) seen = at::maximum(seen, last);
  const at::Tensor before = std::get<0>(at::cummax(seen, -1));
  // Before the first one that counts, its own position; where none does, any.
  const at::Tensor first = at::where(counted, given, kInfinity).amin(-1, /*keepdim=*/true);
  const at::Tensor start = at::where(first == kInfinity, 0.0, first);
  const at::Tensor filled = at::where(before == -kInfinity, start, before);
  return {at::where(counted, given, filled), before.narrow(-1, end, 1)};
}

}  // namespace mnemosyne::nn
