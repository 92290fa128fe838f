#include "mnemosyne/nn/position/position.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

namespace mnemosyne::nn {

bool Places::all_placed() const {
  return !queries.has_position.defined() && !keys().has_position.defined();
}

Places Position::place(const Projected& tokens, const AttentionInputs& inputs,
                       const LinearAttentionMemory* memory) const {
  Places places{.cross = inputs.context.defined()};
  const at::Tensor& mask = inputs.key_padding_mask;
  places.queries =
      place_tokens(tokens.query, inputs.positions, inputs.has_position,
                   places.cross ? at::Tensor() : mask, memory != nullptr ? memory->length : 0);
  places.queries.is_line = places.queries.is_line || inputs.on_line;
  if (places.cross) {
    places.context =
        place_tokens(tokens.key, inputs.context_positions, inputs.context_has_position, mask, 0);
  }
  return places;
}

void Position::check(const Places& /*places*/) const {}

at::Tensor Position::turn(const at::Tensor& x, const PlacedTokens& /*places*/) const { return x; }

at::Tensor Position::bias(const at::Tensor& /*offsets*/) const { return {}; }

at::Tensor Position::attend(const Places& /*places*/, const LinearCall& /*call*/) const {
  return {};
}

void Position::encode(const Places& places, LinearAttentionMemory* /*memory*/,
                      LinearCall& call) const {
  call.inputs.query = turn(call.inputs.query, places.queries);
  call.inputs.key = turn(call.inputs.key, places.keys());
}

PairMatrix Position::pair_matrix(const Places& /*places*/) const {
  return PairMatrix::kWhereCheaper;
}

at::Tensor Position::factor_of_pairs(const Places& /*places*/) const { return {}; }

PositionFactor Position::factor(const Places& /*places*/, LinearAttentionMemory* /*memory*/) const {
  return {};
}

Places NoPosition::place(const Projected& /*tokens*/, const AttentionInputs& inputs,
                         const LinearAttentionMemory* /*memory*/) const {
  return {.cross = inputs.context.defined()};
}

at::Tensor offsets_of_pairs(const Places& places) {
  const PlacedTokens &queries = places.queries, &keys = places.keys();
  const at::Tensor x = zero_unplaced(queries.positions, queries.has_position);
  const at::Tensor y = zero_unplaced(keys.positions, keys.has_position);
  return x.unsqueeze(-2) - y.unsqueeze(-3);
}

at::Tensor with_unplaced_pairs(const at::Tensor& values, const Places& places, double unplaced) {
  const at::Tensor result = values.dim() == 4 ? values.transpose(0, 1) : values;
  if (places.all_placed()) return result;
  at::Tensor both =
      places.queries.placed().unsqueeze(-1).logical_and(places.keys().placed().unsqueeze(-2));
  if (both.dim() == 3) both = both.unsqueeze(1);
  return at::where(both, result, unplaced);
}

}  // namespace mnemosyne::nn
