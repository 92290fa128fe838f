#include "mnemosyne/nn/heads.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/where.h>

#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/ops/autocast.h"

namespace mnemosyne::nn {

void check_heads(int64_t embed_dim, int64_t num_heads, int64_t num_kv_heads) {
  if (embed_dim < 1 || num_heads < 1 || embed_dim % num_heads != 0) {
    throw InputError("[attention] expected a positive width divisible by the heads, got " +
                     std::to_string(embed_dim) + " and " + std::to_string(num_heads));
  }
  if (num_kv_heads < 0 || (num_kv_heads > 0 && num_heads % num_kv_heads != 0)) {
    throw InputError("[attention] expected num_kv_heads to be 0 or a divisor of the " +
                     std::to_string(num_heads) + " heads, got " + std::to_string(num_kv_heads));
  }
}

void Heads::check(const at::Tensor& x, const at::Tensor& source, bool causal) const {
  const int64_t width = queries * depth;
  TORCH_CHECK(x.dim() == 3 && x.size(2) == width && source.dim() == 3 && source.size(2) == width &&
                  x.size(0) == source.size(0) && x.size(1) > 0,
              "[attention] expected tokens [B,L,", width, "] with L > 0 and a context [B,S,", width,
              "], got ", x.sizes(), " and ", source.sizes());
  TORCH_CHECK(!causal || x.is_same(source),
              "[attention] expected no context in causal attention, got one");
}

Projected Heads::split(const Projected& projected) const {
  const auto& [query, key, value] = projected;
  const int64_t wide = queries * depth, narrow = keys * depth;
  TORCH_CHECK(query.dim() == 3 && key.dim() == 3 && key.sizes() == value.sizes() &&
                  query.size(0) == key.size(0) && query.size(2) == wide && key.size(2) == narrow,
              "[attention] expected projections [B,L,", wide, "], [B,S,", narrow, "] and [B,S,",
              narrow, "] of queries, keys and values, got ", query.sizes(), ", ", key.sizes(),
              " and ", value.sizes());
  const auto apart = [](const at::Tensor& x, int64_t heads) {
    return split_heads(ops::to_autocast_dtype(x), heads);
  };
  return {apart(query, queries), apart(key, keys), apart(value, keys)};
}

at::Tensor split_heads(const at::Tensor& x, int64_t heads) {
  return x.unflatten(-1, {heads, x.size(-1) / heads}).transpose(1, 2);
}

at::Tensor repeat_heads(const at::Tensor& x, int64_t times) {
  return times == 1 ? x : x.repeat_interleave(times, 1);
}

at::Tensor positions_or_line(const at::Tensor& positions, const at::Tensor& x, int64_t first) {
  if (!positions.defined()) {
    return at::arange(first, first + x.size(1), x.options().dtype(at::kDouble).requires_grad(false))
        .unsqueeze(-1);
  }
  TORCH_CHECK((positions.dim() == 2 || (positions.dim() == 3 && positions.size(0) == x.size(0))) &&
                  positions.size(-2) == x.size(1),
              "[attention] expected positions [L,P] or [B,L,P] of tokens ", x.sizes(), ", got ",
              positions.sizes());
  return positions.to(at::kDouble);
}

at::Tensor zero_unplaced(const at::Tensor& positions, const at::Tensor& has_position) {
  return has_position.defined() ? at::where(has_position.unsqueeze(-1), positions, 0.0) : positions;
}

}  // namespace mnemosyne::nn
