#pragma once

#include "mnemosyne/kernels/cpu/linear_attention_chunk.h"

/// What positions do to a chunk of tokens: factors p and s of rank R, and how each of the R parts
/// of the state fades from token to token.
///
/// Weights within a chunk have the coupling sum_r p_ir s_jr prod_{j < t <= i} decay_tr. Products of
/// decays are only ever taken over the tokens between a key and its query, so nothing grows.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// By how much the state fades within a chunk; null where nothing does.
struct Fading {
  float* since;    ///< [C,R]: from before the chunk to token i, whose own decay counts.
  float* until;    ///< [C,R]: from token j to the end of the chunk.
  float* through;  ///< [R]: from before the chunk to its end.
};

inline Fading take_fading(const Shape& s, const LinearAttentionParams& p, Arena& arena) {
  if (p.decay.data == nullptr) return {};
  float* since = arena.take(s.C * s.R);
  float* until = arena.take(s.C * s.R);
  return {since, until, arena.take(s.R)};
}

/// The rows of a chunk in tables [H,length,R]; null if these are.
template <typename Float>
inline Float* chunk_table(const Shape& s, AttentionTables<Float> tables, int64_t length,
                          Span span) {
  return tables.data == nullptr
             ? nullptr
             : tables.data + s.b * tables.batch + (s.h * length + span.first) * s.R;
}

inline void load_fading(const Shape& s, const LinearAttentionParams& p, Span span, Fading fading) {
  const float* decay = chunk_table(s, p.decay, s.S, span);
  if (decay == nullptr) return;
  fill(fading.through, s.R, 1);
  for (int64_t i = 0; i < span.n; ++i) {
    for (int64_t r = 0; r < s.R; ++r) {
      fading.through[r] *= decay[i * s.R + r];
      fading.since[i * s.R + r] = fading.through[r];
    }
  }
  fill(fading.until + (span.n - 1) * s.R, s.R, 1);
  for (int64_t k = (span.n - 1) * s.R - 1; k >= 0; --k) {
    fading.until[k] = fading.until[k + s.R] * decay[k + s.R];
  }
}

/// state <- decay * what fades through the chunk * state.
inline void fade_state(const Shape& s, float decay, const float* through, State state) {
  for (int64_t r = 0; r < s.R; ++r) {
    const float factor = through != nullptr ? decay * through[r] : decay;
    scale(state.sums + r * s.Mp * s.Vp, s.Mp * s.Vp, factor);
    scale(state.normalizer + r * s.Mp, s.Mp, factor);
  }
}

/// factors [n,R] <- table of the chunk times fades, both [n,R] (ones if null), times weights [n].
inline void load_factors(Span span, int64_t rank, const float* table, const float* fades,
                         const float* weights, float* factors) {
  for (int64_t i = 0; i < span.n; ++i) {
    for (int64_t r = i * rank; r < (i + 1) * rank; ++r) {
      factors[r] =
          weights[i] * (table != nullptr ? table[r] : 1.0f) * (fades != nullptr ? fades[r] : 1.0f);
    }
  }
}

/// to [R,C] <- rows [n,R], zero in columns from n on.
inline void transpose_factors(const Shape& s, Span span, const float* rows, float* to) {
  fill(to, s.R * s.C, 0);
  for (int64_t j = 0; j < span.n; ++j) {
    for (int64_t r = 0; r < s.R; ++r) to[r * s.C + j] = rows[j * s.R + r];
  }
}

/// One row after the other, the keys' factors fade along: keys [R,C] is scratch.
inline void fading_coupling(const Shape& s, Span span, const float* query_factor,
                            const float* key_factor, const float* decay, float* keys,
                            float* coupling) {
  fill(keys, s.R * s.C, 0);
  for (int64_t i = 0; i < span.n; ++i) {
    const float *p = query_factor + i * s.R, *own = key_factor + i * s.R, *fade = decay + i * s.R;
    for (int64_t j = 0; j < i; j += kLanes) {
      Vector total = {};
      for (int64_t r = 0; r < s.R; ++r) {
        const Vector faded = load(keys + r * s.C + j) * fade[r];
        store(keys + r * s.C + j, faded);
        total += faded * p[r];
      }
      store(coupling + i * s.C + j, total);
    }
    float diagonal = 0;
    for (int64_t r = 0; r < s.R; ++r) {
      diagonal += p[r] * own[r];
      keys[r * s.C + i] = own[r];
    }
    coupling[i * s.C + i] = diagonal;
  }
}

/// The factors of the weights within a causal chunk: coupling [C,C], written for j <= i, also has
/// e^{o_j - o_i} where offsets moved, and is null where all of them are one. tables: 2 of [C,R].
inline float* chunk_coupling(const Shape& s, const LinearAttentionParams& p, Span span,
                             const float* offsets, bool moved, float* tables, float* coupling) {
  const float* queries = chunk_table(s, p.query_factor, s.L, span);
  const float* keys = chunk_table(s, p.key_factor, s.S, span);
  if (queries == nullptr && !moved) return nullptr;
  if (queries == nullptr) {
    fill(coupling, s.C * s.C, 1);
  } else if (p.decay.data != nullptr) {
    fading_coupling(s, span, queries, keys, chunk_table(s, p.decay, s.S, span), tables, coupling);
  } else {
    transpose_factors(s, span, keys, tables);
    // The last tile would read rows of the table that do not exist.
    float* rows = tables + s.R * s.C;
    copy(rows, queries, span.n * s.R);
    product<Accumulate::kSet, true, Part::kLowerResult>(span.rows, span.rows, s.R, rows, s.R,
                                                        tables, s.C, coupling, s.C);
  }
  if (!moved) return coupling;
  for (int64_t i = 0; i < span.n; ++i) {
    for (int64_t j = 0; j <= i; ++j) coupling[i * s.C + j] *= rescaled(offsets[j], offsets[i]);
  }
  return coupling;
}

/// The first `count` of a row of weights *= coupling (ones if null); zero from there to `width`.
inline void couple_row(int64_t count, int64_t width, const float* coupling, float* row) {
  if (coupling != nullptr) {
    for (int64_t j = 0; j < count; ++j) row[j] *= coupling[j];
  }
  fill(row + count, width - count, 0);
}

/// weights [C,C] *= coupling on and below the diagonal, zero above it up to whole vectors; rows
/// from n on are zero.
inline void couple(const Shape& s, Span span, const float* coupling, float* weights) {
  for (int64_t i = 0; i < span.rows; ++i) {
    couple_row(i < span.n ? i + 1 : 0, round_up(span.rows, kLanes),
               coupling != nullptr ? coupling + i * s.C : nullptr, weights + i * s.C);
  }
}

/// table [C,Rp] <- rows [n,R], zero in the padding and in rows to nr.
inline void pad_factors(const Shape& s, Span span, int64_t padded, const float* rows,
                        float* table) {
  fill(table, span.rows * padded, 0);
  for (int64_t i = 0; i < span.n; ++i) copy(table + i * padded, rows + i * s.R, s.R);
}

/// Adds the gradients of both factors from grad [C,C], that of the coupling, zero above its
/// diagonal. tables: 3 of [C,Rp].
inline void coupling_gradients(const Shape& s, Span span, const float* query_factor,
                               const float* key_factor, const float* grad, float* tables,
                               float* grad_query, float* grad_key) {
  const int64_t padded = attention_padded(s.R);
  float *queries = tables, *keys = queries + s.C * padded, *result = keys + s.C * padded;
  pad_factors(s, span, padded, query_factor, queries);
  pad_factors(s, span, padded, key_factor, keys);
  const auto add = [&](float* to) {
    for (int64_t i = 0; i < span.n; ++i) {
      for (int64_t r = 0; r < s.R; ++r) to[i * s.R + r] += result[i * padded + r];
    }
  };
  product<Accumulate::kSet, true, Part::kLowerLeft>(span.rows, padded, span.rows, grad, s.C, keys,
                                                    padded, result, padded);
  add(grad_query);
  product<Accumulate::kSet, false, Part::kUpperLeft>(span.rows, padded, span.rows, grad, s.C,
                                                     queries, padded, result, padded);
  add(grad_key);
}

/// The same where the state fades: queries see keys that fade along as rows go up, keys see queries
/// that fade along as rows go down. table [R,C] is scratch.
inline void fading_gradients(const Shape& s, Span span, const float* query_factor,
                             const float* key_factor, const float* decay, const float* grad,
                             float* table, float* grad_query, float* grad_key) {
  fill(table, s.R * s.C, 0);
  for (int64_t i = 0; i < span.n; ++i) {
    for (int64_t r = 0; r < s.R; ++r) {
      float* keys = table + r * s.C;
      Vector total = {};
      for (int64_t j = 0; j < i; j += kLanes) {
        const Vector faded = load(keys + j) * decay[i * s.R + r];
        store(keys + j, faded);
        total += faded * load(grad + i * s.C + j);
      }
      keys[i] = key_factor[i * s.R + r];
      grad_query[i * s.R + r] += sum_across(total) + keys[i] * grad[i * s.C + i];
    }
  }
  fill(table, s.R * s.C, 0);
  for (int64_t i = span.n - 1; i >= 0; --i) {
    const bool last = i == span.n - 1;
    for (int64_t r = 0; r < s.R; ++r) {
      float* queries = table + r * s.C;
      const float fade = last ? 1.0f : decay[(i + 1) * s.R + r], p = query_factor[i * s.R + r];
      for (int64_t j = 0; j <= i; j += kLanes) {
        store(queries + j, load(queries + j) * fade + load(grad + i * s.C + j) * p);
      }
      grad_key[i * s.R + r] += queries[i];
    }
  }
}

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
