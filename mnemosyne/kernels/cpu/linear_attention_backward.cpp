#include "mnemosyne/kernels/cpu/linear_attention_backward_chunk.h"
#include "mnemosyne/kernels/cpu/linear_attention_blocks_backward.h"
#include "mnemosyne/kernels/linear_attention.h"

/// No state per chunk is stored. Causal: one sweep forwards recomputes the state before each chunk,
/// from which the queries' gradient follows; one sweep backwards sums the gradient of the state
/// after each chunk, from which the keys' and values' follow. Both directions: queries first, with
/// the final state, then keys. By blocks: the same, with all chunks on the other side for a state.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// to [C,width] <- totals[i] row (row null: ones).
void spread_totals(Span span, int64_t width, const float* totals, const float* row, float* to) {
  for (int64_t i = 0; i < span.rows; ++i, to += width) {
    for (int64_t m = 0; m < width; m += kLanes) {
      store(to + m, row != nullptr ? load(row + m) * totals[i] : broadcast(totals[i]));
    }
  }
}

/// to [n] of distance R += weights[i] fades[i R] <a_i, b_i>; ones if null.
void add_dots(const Shape& s, Span span, const float* weights, const float* fades, const float* a,
              const float* b, float* to) {
  for (int64_t i = 0; i < span.n; ++i) {
    const float weight = fades != nullptr ? weights[i] * fades[i * s.R] : weights[i];
    to[i * s.R] += weight * dot(s.Mp, a + i * s.Mp, b + i * s.Mp);
  }
}

/// to [C,Mp] += factors[i * R] from [C,Mp].
void add_scaled_rows(const Shape& s, Span span, const float* factors, const float* from,
                     float* to) {
  for (int64_t i = 0; i < span.n; ++i) {
    for (int64_t m = i * s.Mp; m < (i + 1) * s.Mp; m += kLanes) {
      store(to + m, load(to + m) + load(from + m) * factors[i * s.R]);
    }
  }
}

/// fades + r, or null.
const float* at_rank(const float* fades, int64_t r) {
  return fades == nullptr ? nullptr : fades + r;
}

/// grad [C,Mp] += what the queries get from the state (stored transposed, [R,Vp,Mp]).
void queries_from_state(const Shape& s, const Params& p, const Chunk& c, Span span,
                        const float* sums_transposed, const float* normalizer) {
  load_query_factors(s, p, c, span);
  for (int64_t r = 0; r < s.R; ++r) {
    spread_totals(span, s.Mp, c.totals, normalizer + r * s.Mp, c.terms);
    product<Accumulate::kAdd, true>(span.rows, s.Mp, s.Dv, c.up, s.Vp,
                                    sums_transposed + r * s.Vp * s.Mp, s.Mp, c.terms, s.Mp);
    if (p.grad_query_factor.data != nullptr) {
      add_dots(s, span, c.relative, at_rank(c.fading.since, r), c.queries, c.terms,
               chunk_table(s, p.grad_query_factor, s.L, span) + r);
    }
    add_scaled_rows(s, span, c.factors + r, c.terms, c.grad);
  }
}

/// grad_state <- decay grad_state, faded, + sum_i p_i relative_i phi_i [up_i, total_i].
void queries_to_state(const Shape& s, const Params& p, const Chunk& c, Span span, float decay,
                      State grad_state) {
  load_query_factors(s, p, c, span);
  fade_state(s, decay, c.fading.through, grad_state);
  for (int64_t r = 0; r < s.R; ++r) {
    scale_rows(span, s.Mp, c.factors + r, s.R, c.queries, c.scaled);
    product<Accumulate::kAdd, false>(s.Mp, s.Vp, span.n, c.scaled, s.Mp, c.up, s.Vp,
                                     grad_state.sums + r * s.Mp * s.Vp, s.Vp);
    add_rows(span, s.Mp, c.scaled, c.totals, grad_state.normalizer + r * s.Mp);
  }
}

/// grad [C,Mp] and sum [C,Vp] += what keys and values get from the gradient of the state after
/// them.
void keys_from_state(const Shape& s, const Params& p, const Chunk& c, Span span, State grad_state) {
  load_key_factors(s, p, c, span);
  for (int64_t r = 0; r < s.R; ++r) {
    const float* sums = grad_state.sums + r * s.Mp * s.Vp;
    transpose(s.Mp, s.Vp, sums, s.Vp, c.transposed, s.Mp);
    for (int64_t j = 0; j < span.rows; ++j) {
      copy(c.terms + j * s.Mp, grad_state.normalizer + r * s.Mp, s.Mp);
    }
    product<Accumulate::kAdd, true>(span.rows, s.Mp, s.Dv, c.values, s.Vp, c.transposed, s.Mp,
                                    c.terms, s.Mp);
    if (p.grad_key_factor.data != nullptr) {
      add_dots(s, span, c.relative, at_rank(c.fading.until, r), c.keys, c.terms,
               chunk_table(s, p.grad_key_factor, s.S, span) + r);
    }
    add_scaled_rows(s, span, c.factors + r, c.terms, c.grad);
    scale_rows(span, s.Mp, c.factors + r, s.R, c.keys, c.scaled);
    product<Accumulate::kAdd, true>(span.rows, s.Vp, s.Mp, c.scaled, s.Mp, sums, s.Vp, c.sum, s.Vp);
  }
}

/// weights [C,C], lower <- up_i v_j + total_i, the gradient of the weights within a chunk.
void weight_gradients(const Shape& s, const Chunk& c, Span span) {
  transpose(span.rows, s.Vp, c.values, s.Vp, c.values_transposed, s.C);
  for (int64_t i = 0; i < span.rows; ++i) fill(c.weights + i * s.C, s.C, c.totals[i]);
  product<Accumulate::kAdd, true, Part::kLowerResult>(span.rows, span.rows, s.Dv, c.up, s.Vp,
                                                      c.values_transposed, s.C, c.weights, s.C);
}

/// state (sums transposed) <- decay state, faded, + sum_j s_j relative_j phi_j [v_j, 1].
void keys_to_transposed_state(const Shape& s, const Params& p, const Chunk& c, Span span,
                              float decay, State state) {
  load_key_factors(s, p, c, span);
  fade_state(s, decay, c.fading.through, state);
  for (int64_t r = 0; r < s.R; ++r) {
    scale_rows(span, s.Mp, c.factors + r, s.R, c.keys, c.scaled);
    product<Accumulate::kAdd, false>(s.Vp, s.Mp, span.n, c.values, s.Vp, c.scaled, s.Mp,
                                     state.sums + r * s.Vp * s.Mp, s.Mp);
    add_rows(span, s.Mp, c.scaled, nullptr, state.normalizer + r * s.Mp);
  }
}

void transpose_state(const Shape& s, const Chunk& c, State state) {
  for (int64_t r = 0; r < s.R; ++r) {
    float* sums = state.sums + r * s.Mp * s.Vp;
    copy(c.transposed, sums, s.Mp * s.Vp);
    transpose(s.Mp, s.Vp, c.transposed, s.Vp, sums, s.Mp);
  }
}

/// What stands for the chunks on the other side: states, sums transposed, or blocks.
struct Memory {
  State state{}, grad_state{};
  Blocks blocks{};

  Memory(const Shape& s, const LinearAttentionParams& p, Arena& arena) {
    if (p.by_blocks) {
      blocks = take_blocks(s, arena);
    } else {
      state = take_state(s, arena);
      grad_state = take_state(s, arena);
    }
  }
};

/// The queries' gradient, chunk after chunk with the state before each; leaves the keys' offsets.
void causal_queries(const Shape& s, const Params& p, const Chunk& c, const Memory& memory,
                    float offset) {
  const LinearAttentionParams& f = p.forward;
  for (int64_t first = 0; first < s.L; first += s.C) {
    const Span span = Span::at(first, s.L, s.C);
    const int64_t index = first / s.C;
    const float before = offset;
    float* offsets = c.offsets + first;
    load_fading(s, f, span, c.fading);
    load_values(s, f, span, c.values);
    load_up(s, p, c, span);
    key_exponents(s, f, span, c.key_x, c.keys, c.norms, c.largest);
    running_offsets(span, c.largest, &offset, offsets);
    finish_key_features(s, f, span, c.norms, offsets, c.keys);
    query_features(s, f, span, c.x, c.queries);
    weight_gradients(s, c, span);
    const float* coupling =
        chunk_coupling(s, f, span, offsets, before != offset, c.factor_tables, c.coupling);
    couple(s, span, coupling, c.weights);
    product<Accumulate::kSet, true, Part::kLowerLeft>(span.rows, s.Mp, span.rows, c.weights, s.C,
                                                      c.keys, s.Mp, c.grad, s.Mp);
    if (f.by_blocks) {
      queries_from_blocks(s, p, c, span, index, offsets, memory.blocks);
    } else if (first > 0 || f.sums != nullptr) {
      for (int64_t i = 0; i < span.n; ++i) c.relative[i] = rescaled(before, offsets[i]);
      queries_from_state(s, p, c, span, memory.state.sums, memory.state.normalizer);
    }
    finish_queries(s, p, c, span);
    for (int64_t j = 0; j < span.n; ++j) c.relative[j] = rescaled(offsets[j], offset);
    if (f.by_blocks) {
      keep_keys(s, p, c, span, offset, memory.blocks.at(s, index));
    } else {
      keys_to_transposed_state(s, p, c, span, rescaled(before, offset), memory.state);
    }
  }
}

/// Gradients of the position factors from the weights within a chunk: scores, weights as they are
/// before coupling, whose gradient is their product.
void chunk_factor_gradients(const Shape& s, const Params& p, const Chunk& c, Span span,
                            const float* offsets, bool moved) {
  if (p.grad_query_factor.data == nullptr) return;
  float* grad = c.coupling;
  for (int64_t i = 0; i < span.n; ++i) {
    copy(grad + i * s.C, c.scores + i * s.C, i + 1);
    for (int64_t j = 0; moved && j <= i; ++j) {
      grad[i * s.C + j] *= rescaled(offsets[j], offsets[i]);
    }
  }
  couple(s, span, c.weights, grad);
  const float* queries = chunk_table(s, p.forward.query_factor, s.L, span);
  const float* keys = chunk_table(s, p.forward.key_factor, s.S, span);
  const float* decay = chunk_table(s, p.forward.decay, s.S, span);
  float* grad_queries = chunk_table(s, p.grad_query_factor, s.L, span);
  float* grad_keys = chunk_table(s, p.grad_key_factor, s.S, span);
  if (decay != nullptr) {
    fading_gradients(s, span, queries, keys, decay, grad, c.factor_tables, grad_queries, grad_keys);
  } else {
    coupling_gradients(s, span, queries, keys, grad, c.factor_tables, grad_queries, grad_keys);
  }
}

/// grad [C,Mp] of the keys and sum [C,Vp] of the values <- their part within the chunk.
void keys_from_chunk(const Shape& s, const Params& p, const Chunk& c, Span span,
                     const float* offsets, float before) {
  transpose(span.rows, s.Mp, c.keys, s.Mp, c.keys_transposed, s.C);
  product<Accumulate::kSet, true, Part::kLowerResult>(span.rows, span.rows, s.Mp, c.queries, s.Mp,
                                                      c.keys_transposed, s.C, c.scores, s.C);
  weight_gradients(s, c, span);
  const bool moved = before != offsets[span.n - 1];
  chunk_factor_gradients(s, p, c, span, offsets, moved);
  const float* coupling =
      chunk_coupling(s, p.forward, span, offsets, moved, c.factor_tables, c.coupling);
  couple(s, span, coupling, c.scores);
  couple(s, span, coupling, c.weights);
  product<Accumulate::kSet, false, Part::kUpperLeft>(span.rows, s.Vp, span.rows, c.scores, s.C,
                                                     c.up, s.Vp, c.sum, s.Vp);
  product<Accumulate::kSet, false, Part::kUpperLeft>(span.rows, s.Mp, span.rows, c.weights, s.C,
                                                     c.queries, s.Mp, c.grad, s.Mp);
}

/// The keys' and values' gradients, from the last chunk to the first; grad_state goes from the
/// state after all of them to the one before.
void causal_keys(const Shape& s, const Params& p, const Chunk& c, const Memory& memory,
                 float offset) {
  const LinearAttentionParams& f = p.forward;
  for (int64_t first = (chunks_of(s, s.L) - 1) * s.C; first >= 0; first -= s.C) {
    const Span span = Span::at(first, s.L, s.C);
    const int64_t index = first / s.C;
    const float* offsets = c.offsets + first;
    const float before = first > 0 ? offsets[-1] : offset;
    const float after = offsets[span.n - 1];
    load_fading(s, f, span, c.fading);
    load_values(s, f, span, c.values);
    load_up(s, p, c, span);
    key_exponents(s, f, span, c.key_x, c.keys, c.norms, c.largest);
    finish_key_features(s, f, span, c.norms, offsets, c.keys);
    query_features(s, f, span, c.x, c.queries);
    keys_from_chunk(s, p, c, span, offsets, before);
    for (int64_t j = 0; j < span.n; ++j) c.relative[j] = rescaled(offsets[j], after);
    if (f.by_blocks) {
      keys_from_blocks(s, p, c, span, index + 1, after, memory.blocks);
    } else {
      keys_from_state(s, p, c, span, memory.grad_state);
    }
    finish_keys(s, p, c, span);
    if (f.by_blocks) {
      keep_queries(s, c, span, memory.blocks.at(s, index));
      continue;
    }
    for (int64_t i = 0; i < span.n; ++i) c.relative[i] = rescaled(before, offsets[i]);
    queries_to_state(s, p, c, span, rescaled(before, after), memory.grad_state);
  }
}

/// Features and values of the keys of a chunk, all relative to one offset.
void load_keys(const Shape& s, const Params& p, const Chunk& c, Span span) {
  load_values(s, p.forward, span, c.values);
  key_exponents(s, p.forward, span, c.key_x, c.keys, c.norms, c.largest);
  finish_key_features(s, p.forward, span, c.norms, c.offsets + span.first, c.keys);
}

/// What the queries of both directions meet: the state after all keys, or all their blocks.
void remember_keys(const Shape& s, const Params& p, const Chunk& c, const Memory& memory,
                   float before, float after) {
  const LinearAttentionParams& f = p.forward;
  if (f.next_sums != nullptr) {
    load_state(s, f.sizes.heads, f.next_sums, f.next_normalizer, memory.state);
    transpose_state(s, c, memory.state);
    return;
  }
  if (!f.by_blocks) {
    load_state(s, f.sizes.heads, f.sums, f.normalizer, memory.state);
    transpose_state(s, c, memory.state);
    fade_state(s, rescaled(before, after), nullptr, memory.state);
  }
  for (int64_t first = 0; first < s.S; first += s.C) {
    const Span span = Span::at(first, s.S, s.C);
    load_keys(s, p, c, span);
    if (f.by_blocks) {
      keep_keys(s, p, c, span, after, memory.blocks.at(s, first / s.C));
    } else {
      keys_to_transposed_state(s, p, c, span, 1, memory.state);
    }
  }
}

void two_way_queries(const Shape& s, const Params& p, const Chunk& c, const Memory& memory) {
  for (int64_t first = 0; first < s.L; first += s.C) {
    const Span span = Span::at(first, s.L, s.C);
    load_up(s, p, c, span);
    query_features(s, p.forward, span, c.x, c.queries);
    fill(c.grad, s.C * s.Mp, 0);
    if (p.forward.by_blocks) {
      queries_from_blocks(s, p, c, span, chunks_of(s, s.S), /*offsets=*/nullptr, memory.blocks);
    } else {
      queries_from_state(s, p, c, span, memory.state.sums, memory.state.normalizer);
      queries_to_state(s, p, c, span, 1, memory.grad_state);
    }
    finish_queries(s, p, c, span);
  }
}

/// In place of the keys' blocks, which are not needed any more.
void remember_queries(const Shape& s, const Params& p, const Chunk& c, const Memory& memory) {
  for (int64_t first = 0; first < s.L; first += s.C) {
    const Span span = Span::at(first, s.L, s.C);
    load_up(s, p, c, span);
    query_features(s, p.forward, span, c.x, c.queries);
    keep_queries(s, c, span, memory.blocks.at(s, first / s.C));
  }
}

void two_way(const Shape& s, const Params& p, const Chunk& c, const Memory& memory, float offset) {
  const LinearAttentionParams& f = p.forward;
  const float after =
      attention_features_have_offset(f.features) ? f.next_offset[s.b * f.sizes.heads + s.h] : 0.0f;
  fill(c.offsets, s.S, after);
  fill(c.relative, s.C, 1);
  remember_keys(s, p, c, memory, offset, after);
  two_way_queries(s, p, c, memory);
  if (f.by_blocks) remember_queries(s, p, c, memory);
  for (int64_t first = 0; first < s.S; first += s.C) {
    const Span span = Span::at(first, s.S, s.C);
    load_keys(s, p, c, span);
    fill(c.grad, s.C * s.Mp, 0);
    fill(c.sum, s.C * s.Vp, 0);
    if (f.by_blocks) {
      transpose_keys(s, c, span);
      keys_from_blocks(s, p, c, span, 0, after, memory.blocks);
    } else {
      keys_from_state(s, p, c, span, memory.grad_state);
    }
    finish_keys(s, p, c, span);
  }
  if (!f.by_blocks) fade_state(s, rescaled(offset, after), nullptr, memory.grad_state);
}

void backward(const Shape& shape, const Params& params, const Chunk& chunk, const Memory& memory) {
  const LinearAttentionParams& forward = params.forward;
  const int64_t heads = forward.sizes.heads;
  const float offset = first_offset(shape, forward);
  if (!forward.by_blocks) {
    load_state(shape, heads, params.grad_next_sums, params.grad_next_normalizer, memory.grad_state);
  }
  if (!forward.causal) {
    two_way(shape, params, chunk, memory, offset);
  } else {
    if (!forward.by_blocks) {
      load_state(shape, heads, forward.sums, forward.normalizer, memory.state);
      transpose_state(shape, chunk, memory.state);
    }
    causal_queries(shape, params, chunk, memory, offset);
    causal_keys(shape, params, chunk, memory, offset);
  }
  if (params.grad_sums == nullptr) return;
  store_state(shape, heads, memory.grad_state, params.grad_sums, params.grad_normalizer);
}

}  // namespace

void linear_attention_backward(const LinearAttentionBackwardSlice& slice) {
  const LinearAttentionParams& forward = slice.problem.forward;
  for (int64_t item = slice.begin; item < slice.end; ++item) {
    const Shape shape(forward, item);
    Arena arena(slice.scratch);
    const Chunk chunk(shape, forward, arena);
    backward(shape, slice.problem, chunk, Memory(shape, forward, arena));
  }
}

int64_t linear_attention_backward_scratch(const LinearAttentionParams& forward) {
  const Shape shape(forward);
  Arena counter(nullptr);
  const Chunk chunk(shape, forward, counter);
  const Memory memory(shape, forward, counter);
  return counter.taken();
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
