#pragma once

#include "mnemosyne/kernels/cpu/linear_attention_backward_chunk.h"
#include "mnemosyne/kernels/cpu/linear_attention_blocks.h"

/// Gradients between chunks of tokens that meet block by block.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// What `queries_from_blocks` needs of the keys of a chunk, and `after`, their last offset.
void keep_keys(const Shape& s, const Params& p, const Chunk& c, Span span, float after,
               const Block& block) {
  load_key_factors(s, p, c, span);
  keep_factors(s, span, c.factors, after, c.fading, block);
  copy(block.features, c.keys, span.rows * s.Mp);
  transpose(span.rows, s.Vp, c.values, s.Vp, block.values, s.C);
}

/// What `keys_from_blocks` needs of the queries of a chunk.
void keep_queries(const Shape& s, const Chunk& c, Span span, const Block& block) {
  copy(block.features, c.queries, span.rows * s.Mp);
  copy(block.values, c.up, span.rows * s.Vp);
  copy(block.numbers, c.totals, span.rows);
  if (c.fading.since != nullptr) copy(block.factors, c.fading.since, span.n * s.R);
  keep_through(s, c.fading, block);
}

/// For `keys_from_blocks` where no pairs within the chunk came before.
void transpose_keys(const Shape& s, const Chunk& c, Span span) {
  transpose(span.rows, s.Mp, c.keys, s.Mp, c.keys_transposed, s.C);
  transpose(span.rows, s.Vp, c.values, s.Vp, c.values_transposed, s.C);
}

/// to [C,C] <- up_i v_j + total_i, the gradients of weights; values transposed [Vp,C].
void pair_gradients(const Shape& s, Span queries, Span keys, const float* up, const float* totals,
                    const float* values, float* to) {
  for (int64_t i = 0; i < queries.rows; ++i) fill(to + i * s.C, s.C, totals[i]);
  product<Accumulate::kAdd, true>(queries.rows, keys.rows, s.Dv, up, s.Vp, values, s.C, to, s.C);
}

/// grad [C,Mp] += what the queries of a chunk get from the first `count` chunks of keys, the last
/// one first. offsets [n] of the queries; null: those of the keys.
void queries_from_blocks(const Shape& s, const Params& p, const Chunk& c, Span span, int64_t count,
                         const float* offsets, const Blocks& blocks) {
  const float* table = chunk_table(s, p.forward.query_factor, s.L, span);
  fill(c.gap, s.R, 1);
  for (int64_t index = count - 1; index >= 0; --index) {
    const Block block = blocks.at(s, index);
    const Span keys = Span::at(index * s.C, s.S, s.C);
    relative_to(span, block.numbers[0], offsets, c.relative);
    load_pair_factors(s, span, table, c.fading.since, c.gap, c.relative, c.factors);
    product<Accumulate::kSet, true>(span.rows, keys.rows, s.R, c.factors, s.R, block.factors, s.C,
                                    c.coupling, s.C);
    pair_gradients(s, span, keys, c.up, c.totals, block.values, c.weights);
    couple_all(s, span, keys.n, c.coupling, c.weights);
    product<Accumulate::kAdd, true>(span.rows, s.Mp, keys.n, c.weights, s.C, block.features, s.Mp,
                                    c.grad, s.Mp);
    widen_gap(s, block, c.gap);
  }
}

/// Tables of position factors for the keys of a chunk, in the chunk's scratch.
struct FactorTables {
  float *queries, *keys, *grad_queries, *grad_keys;  // [C,Rp]
  float* keys_transposed;                            // [R,C]

  FactorTables(const Shape& s, const Chunk& c, Span span) {
    const int64_t padded = attention_padded(s.R), size = s.C * padded;
    queries = c.factor_tables;
    keys = queries + size;
    grad_queries = keys + size;
    grad_keys = grad_queries + size;
    keys_transposed = grad_keys + size;
    pad_factors(s, span, padded, c.factors, keys);
    transpose_factors(s, span, c.factors, keys_transposed);
    fill(grad_keys, size, 0);
  }
};

/// to [n,R] += grad [n,Rp] times fades[r] (ones if null) rows[n,R] (ones if null) weights[n].
void add_factor_gradients(const Shape& s, Span span, const float* grad, const float* fades,
                          const float* rows, const float* weights, float* to) {
  const int64_t padded = attention_padded(s.R);
  for (int64_t i = 0; i < span.n; ++i, grad += padded, to += s.R) {
    for (int64_t r = 0; r < s.R; ++r) {
      float factor = weights != nullptr ? weights[i] : 1.0f;
      if (fades != nullptr) factor *= fades[r];
      if (rows != nullptr) factor *= rows[i * s.R + r];
      to[r] += grad[r] * factor;
    }
  }
}

/// Gradients of the factors from pairs whose scores and weight gradients are in scores and weights:
/// of the queries' at once, of the keys' summed in a table. relative [C] is that of the queries.
void pair_factor_gradients(const Shape& s, const Params& p, const Chunk& c, Span span, Span queries,
                           const float* since, const float* relative, const FactorTables& tables) {
  if (p.grad_query_factor.data == nullptr) return;
  const int64_t padded = attention_padded(s.R);
  float* grad = c.coupling;
  copy(grad, c.scores, queries.rows * s.C);
  couple_all(s, queries, span.n, c.weights, grad);
  product<Accumulate::kSet, true>(queries.rows, padded, span.n, grad, s.C, tables.keys, padded,
                                  tables.grad_queries, padded);
  add_factor_gradients(s, queries, tables.grad_queries, c.gap, since, relative,
                       chunk_table(s, p.grad_query_factor, s.L, queries));
  product<Accumulate::kAdd, false>(span.rows, padded, queries.n, grad, s.C, tables.queries, padded,
                                   tables.grad_keys, padded);
}

/// grad [C,Mp] of the keys and sum [C,Vp] of the values += their part from the queries of another
/// chunk.
void keys_from_block(const Shape& s, const Params& p, const Chunk& c, Span span, Span queries,
                     float after, const float* offsets, const Block& block,
                     const FactorTables& tables) {
  const float* since = p.forward.decay.data != nullptr ? block.factors : nullptr;
  float* relative = c.largest;
  relative_to(queries, after, offsets, relative);
  load_pair_factors(s, queries, chunk_table(s, p.forward.query_factor, s.L, queries), since, c.gap,
                    relative, c.factors);
  pad_factors(s, queries, attention_padded(s.R), c.factors, tables.queries);
  product<Accumulate::kSet, true>(queries.rows, span.rows, s.Mp, block.features, s.Mp,
                                  c.keys_transposed, s.C, c.scores, s.C);
  pair_gradients(s, queries, span, block.values, block.numbers, c.values_transposed, c.weights);
  pair_factor_gradients(s, p, c, span, queries, since, relative, tables);
  product<Accumulate::kSet, true>(queries.rows, span.rows, s.R, tables.queries,
                                  attention_padded(s.R), tables.keys_transposed, s.C, c.coupling,
                                  s.C);
  couple_all(s, queries, span.n, c.coupling, c.scores);
  couple_all(s, queries, span.n, c.coupling, c.weights);
  product<Accumulate::kAdd, false>(span.rows, s.Vp, queries.n, c.scores, s.C, block.values, s.Vp,
                                   c.sum, s.Vp);
  product<Accumulate::kAdd, false>(span.rows, s.Mp, queries.n, c.weights, s.C, block.features, s.Mp,
                                   c.grad, s.Mp);
}

/// The same from all chunks of queries from `index` on. Causal: queries have the offsets of keys
/// at their places.
void keys_from_blocks(const Shape& s, const Params& p, const Chunk& c, Span span, int64_t index,
                      float after, const Blocks& blocks) {
  load_key_factors(s, p, c, span);
  const FactorTables tables(s, c, span);
  fill(c.gap, s.R, 1);
  for (; index < chunks_of(s, s.L); ++index) {
    const Span queries = Span::at(index * s.C, s.L, s.C);
    const float* offsets = p.forward.causal ? c.offsets + queries.first : nullptr;
    const Block block = blocks.at(s, index);
    keys_from_block(s, p, c, span, queries, after, offsets, block, tables);
    widen_gap(s, block, c.gap);
  }
  if (p.grad_key_factor.data == nullptr) return;
  add_factor_gradients(s, span, tables.grad_keys, nullptr, c.fading.until, c.relative,
                       chunk_table(s, p.grad_key_factor, s.S, span));
}

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
