#pragma once

#include "mnemosyne/kernels/cpu/linear_attention_features.h"
#include "mnemosyne/kernels/cpu/linear_attention_position.h"

/// What the backward pass holds of a chunk of tokens, how it gets there and how gradients leave.
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
  float *factors, *factor_tables;                 // [C,R], 5 of [C,Rp]
  float* transposed;                              // [Vp,Mp], one of a state's matrices
  float* offsets;                                 // [S]
  float* gap;                                     // [R]
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
        factor_tables(arena.take(5 * s.C * attention_padded(s.R))),
        transposed(arena.take(s.Vp * s.Mp)),
        offsets(arena.take(s.S)),
        gap(arena.take(s.R)),
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

/// Factors of the queries, p_ir relative_i, and of the keys, s_jr relative_j, faded.
void load_query_factors(const Shape& s, const Params& p, const Chunk& c, Span span) {
  load_factors(span, s.R, chunk_table(s, p.forward.query_factor, s.L, span), c.fading.since,
               c.relative, c.factors);
}

void load_key_factors(const Shape& s, const Params& p, const Chunk& c, Span span) {
  load_factors(span, s.R, chunk_table(s, p.forward.key_factor, s.S, span), c.fading.until,
               c.relative, c.factors);
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

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
