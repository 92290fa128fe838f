#include "mnemosyne/kernels/cpu/linear_attention_chunk.h"
#include "mnemosyne/kernels/cpu/linear_attention_features.h"
#include "mnemosyne/kernels/cpu/linear_attention_position.h"
#include "mnemosyne/kernels/linear_attention.h"

/// No state per chunk is stored. Causal: one sweep forwards recomputes the state before each chunk,
/// from which the queries' gradient follows; one sweep backwards sums the gradient of the state
/// after each chunk, from which the keys' and values' follow. Both directions: queries first, with
/// the final state, then keys.
///
/// With numerator N_i and denominator d_i of output o_i, g_i / d_i is the gradient of N_i ("up")
/// and -(g_i o_i) / d_i that of d_i ("total"); so weight w_ij has up_i v_j + total_i.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

using Params = LinearAttentionBackwardParams;

struct Chunk {
  float *x, *key_x, *grad_x;                      // [C,Dp]
  float *queries, *keys, *scaled, *grad, *terms;  // [C,Mp]
  float* keys_transposed;                         // [Mp,C]
  float *values, *values_transposed, *up, *sum;   // [C,Vp]
  float *totals, *norms, *largest, *relative;     // [C]
  float *scores, *weights, *coupling;             // [C,C]
  float *factors, *factor_tables;                 // [C,R], 3 of [C,Rp]
  float* transposed;                              // [Vp,Mp], one of a state's matrices
  float* offsets;                                 // [S]
  Fading fading;

  Chunk(const Shape& s, const LinearAttentionParams& p, Arena& arena)
      : x(arena.take(s.C * s.Dp)),
        key_x(arena.take(s.C * s.Dp)),
        grad_x(arena.take(s.C * s.Dp)),
        queries(arena.take(s.C * s.Mp)),
        keys(arena.take(s.C * s.Mp)),
        scaled(arena.take(s.C * s.Mp)),
        grad(arena.take(s.C * s.Mp)),
        terms(arena.take(s.C * s.Mp)),
        keys_transposed(arena.take(s.C * s.Mp)),
        values(arena.take(s.C * s.Vp)),
        values_transposed(arena.take(s.C * s.Vp)),
        up(arena.take(s.C * s.Vp)),
        sum(arena.take(s.C * s.Vp)),
        totals(arena.take(s.C)),
        norms(arena.take(s.C)),
        largest(arena.take(s.C)),
        relative(arena.take(s.C)),
        scores(arena.take(s.C * s.C)),
        weights(arena.take(s.C * s.C)),
        coupling(arena.take(s.C * s.C)),
        factors(arena.take(s.C * s.R)),
        factor_tables(arena.take(3 * s.C * attention_padded(s.R))),
        transposed(arena.take(s.Vp * s.Mp)),
        offsets(arena.take(s.S)),
        fading(take_fading(s, p, arena)) {}
};

/// up [C,Vp] and totals [C] of the queries of a chunk.
void load_up(const Shape& s, const Params& p, const Chunk& c, Span span) {
  load_rows(p.grad_output, s.b, s.h, span, s.Dv, s.Vp, nullptr, c.up);
  const int64_t first = (s.b * p.forward.sizes.heads + s.h) * s.L + span.first;
  const float largest = 1 / p.forward.floor;
  for (int64_t i = 0; i < span.n; ++i) {
    const float inverse = p.forward.inverse[first + i];
    const float* output = p.forward.output + (first + i) * s.Dv;
    scale(c.up + i * s.Vp, s.Dv, inverse);
    copy(c.sum, output, s.Dv);
    fill(c.sum + s.Dv, s.Vp - s.Dv, 0);
    const bool floored = inverse >= largest || inverse <= -largest;
    c.totals[i] = floored ? 0.0f : -dot(s.Vp, c.up + i * s.Vp, c.sum);
  }
  fill(c.totals + span.n, span.rows - span.n, 0);
}

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

/// Factors of the queries, p_ir relative_i, and of the keys, s_jr relative_j, faded.
void load_query_factors(const Shape& s, const Params& p, const Chunk& c, Span span) {
  load_factors(span, s.R, chunk_table(s, p.forward.query_factor, s.L, span), c.fading.since,
               c.relative, c.factors);
}

void load_key_factors(const Shape& s, const Params& p, const Chunk& c, Span span) {
  load_factors(span, s.R, chunk_table(s, p.forward.key_factor, s.S, span), c.fading.until,
               c.relative, c.factors);
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
    if (p.grad_query_factor != nullptr) {
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
    if (p.grad_key_factor != nullptr) {
      add_dots(s, span, c.relative, at_rank(c.fading.until, r), c.keys, c.terms,
               chunk_table(s, p.grad_key_factor, s.S, span) + r);
    }
    add_scaled_rows(s, span, c.factors + r, c.terms, c.grad);
    scale_rows(span, s.Mp, c.factors + r, s.R, c.keys, c.scaled);
    product<Accumulate::kAdd, true>(span.rows, s.Vp, s.Mp, c.scaled, s.Mp, sums, s.Vp, c.sum, s.Vp);
  }
}

/// Writes the queries' gradient from grad [C,Mp].
void finish_queries(const Shape& s, const Params& p, const Chunk& c, Span span) {
  float* grad_log =
      p.grad_query_log == nullptr ? nullptr : p.grad_query_log + (s.h * s.L + span.first) * s.M;
  features_backward(s, p.forward, span, /*key=*/false, c.x, c.queries, c.grad, grad_log, c.grad_x);
  float* to = p.grad_query + ((s.b * p.forward.sizes.heads + s.h) * s.L + span.first) * s.D;
  for (int64_t i = 0; i < span.n; ++i) copy(to + i * s.D, c.grad_x + i * s.Dp, s.D);
}

/// Adds the keys' and values' gradients from grad [C,Mp] and sum [C,Vp].
void finish_keys(const Shape& s, const Params& p, const Chunk& c, Span span) {
  float* grad_log =
      p.grad_key_log == nullptr ? nullptr : p.grad_key_log + (s.h * s.S + span.first) * s.M;
  features_backward(s, p.forward, span, /*key=*/true, c.key_x, c.keys, c.grad, grad_log, c.grad_x);
  const int64_t first = (s.b * p.forward.sizes.key_heads + s.hk) * s.S + span.first;
  for (int64_t j = 0; j < span.n; ++j) {
    float* key = p.grad_key + (first + j) * s.D;
    float* value = p.grad_value + (first + j) * s.Dv;
    for (int64_t d = 0; d < s.D; ++d) key[d] += c.grad_x[j * s.Dp + d];
    for (int64_t d = 0; d < s.Dv; ++d) value[d] += c.sum[j * s.Vp + d];
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

/// The queries' gradient, chunk after chunk with the state before each; leaves the keys' offsets.
void causal_queries(const Shape& s, const Params& p, const Chunk& c, State state, float offset) {
  const LinearAttentionParams& f = p.forward;
  for (int64_t first = 0; first < s.L; first += s.C) {
    const Span span = Span::at(first, s.L, s.C);
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
    if (first > 0 || f.sums != nullptr) {
      for (int64_t i = 0; i < span.n; ++i) c.relative[i] = rescaled(before, offsets[i]);
      queries_from_state(s, p, c, span, state.sums, state.normalizer);
    }
    finish_queries(s, p, c, span);
    for (int64_t j = 0; j < span.n; ++j) c.relative[j] = rescaled(offsets[j], offset);
    keys_to_transposed_state(s, p, c, span, rescaled(before, offset), state);
  }
}

/// Gradients of the position factors from the weights within a chunk: scores, weights as they are
/// before coupling, whose gradient is their product.
void chunk_factor_gradients(const Shape& s, const Params& p, const Chunk& c, Span span,
                            const float* offsets, bool moved) {
  if (p.grad_query_factor == nullptr) return;
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
void causal_keys(const Shape& s, const Params& p, const Chunk& c, State grad_state, float offset) {
  const LinearAttentionParams& f = p.forward;
  for (int64_t first = (s.L + s.C - 1) / s.C * s.C - s.C; first >= 0; first -= s.C) {
    const Span span = Span::at(first, s.L, s.C);
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
    keys_from_state(s, p, c, span, grad_state);
    finish_keys(s, p, c, span);
    for (int64_t i = 0; i < span.n; ++i) c.relative[i] = rescaled(before, offsets[i]);
    queries_to_state(s, p, c, span, rescaled(before, after), grad_state);
  }
}

void two_way(const Shape& s, const Params& p, const Chunk& c, State state, State grad_state,
             float offset) {
  const LinearAttentionParams& f = p.forward;
  load_state(s, f.sizes.heads, f.next_sums, f.next_normalizer, state);
  transpose_state(s, c, state);
  fill(c.relative, s.C, 1);
  for (int64_t first = 0; first < s.L; first += s.C) {
    const Span span = Span::at(first, s.L, s.C);
    load_up(s, p, c, span);
    query_features(s, f, span, c.x, c.queries);
    fill(c.grad, s.C * s.Mp, 0);
    queries_from_state(s, p, c, span, state.sums, state.normalizer);
    queries_to_state(s, p, c, span, 1, grad_state);
    finish_queries(s, p, c, span);
  }
  const float after =
      attention_features_have_offset(f.features) ? f.next_offset[s.b * f.sizes.heads + s.h] : 0.0f;
  fill(c.offsets, s.S, after);
  for (int64_t first = 0; first < s.S; first += s.C) {
    const Span span = Span::at(first, s.S, s.C);
    load_values(s, f, span, c.values);
    key_exponents(s, f, span, c.key_x, c.keys, c.norms, c.largest);
    finish_key_features(s, f, span, c.norms, c.offsets + first, c.keys);
    fill(c.grad, s.C * s.Mp, 0);
    fill(c.sum, s.C * s.Vp, 0);
    keys_from_state(s, p, c, span, grad_state);
    finish_keys(s, p, c, span);
  }
  scale(grad_state.sums, s.R * s.Mp * s.Vp, rescaled(offset, after));
  scale(grad_state.normalizer, s.R * s.Mp, rescaled(offset, after));
}

}  // namespace

void linear_attention_backward(const LinearAttentionBackwardParams& params) {
  const LinearAttentionParams& forward = params.forward;
  const Shape shape(forward);
  const int64_t heads = forward.sizes.heads;
  Arena arena{forward.scratch};
  const Chunk chunk(shape, forward, arena);
  const State state = take_state(shape, arena), grad_state = take_state(shape, arena);
  const float offset = first_offset(shape, forward);
  load_state(shape, heads, params.grad_next_sums, params.grad_next_normalizer, grad_state);
  if (forward.causal) {
    load_state(shape, heads, forward.sums, forward.normalizer, state);
    transpose_state(shape, chunk, state);
    causal_queries(shape, params, chunk, state, offset);
    causal_keys(shape, params, chunk, grad_state, offset);
  } else {
    two_way(shape, params, chunk, state, grad_state, offset);
  }
  if (params.grad_sums == nullptr) return;
  store_state(shape, heads, grad_state, params.grad_sums, params.grad_normalizer);
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
