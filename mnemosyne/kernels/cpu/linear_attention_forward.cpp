#include "mnemosyne/kernels/cpu/linear_attention_blocks.h"
#include "mnemosyne/kernels/cpu/linear_attention_chunk.h"
#include "mnemosyne/kernels/cpu/linear_attention_features.h"
#include "mnemosyne/kernels/cpu/linear_attention_position.h"
#include "mnemosyne/kernels/linear_attention.h"

namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// Matrices of the current chunk.
struct Chunk {
  float *x, *queries, *keys, *keys_transposed, *scaled;  // [C,Dp], [C,Mp] .. [Mp,C], [C,Mp]
  float *values, *output;                                // [C,Vp]
  float *weights, *coupling;                             // [C,C]
  float *factors, *factor_tables;                        // [C,R], 2 of [C,R]
  float *norms, *largest, *offsets, *relative, *totals;  // [C]
  float* gap;                                            // [R]
  Fading fading;

  Chunk(const Shape& s, const LinearAttentionParams& p, Arena& arena)
      : x(arena.take(s.C * s.Dp)),
        queries(arena.take(s.C * s.Mp)),
        keys(arena.take(s.C * s.Mp)),
        keys_transposed(arena.take(s.C * s.Mp)),
        scaled(arena.take(s.C * s.Mp)),
        values(arena.take(s.C * s.Vp)),
        output(arena.take(s.C * s.Vp)),
        weights(arena.take(s.C * s.C)),
        coupling(arena.take(s.C * s.C)),
        factors(arena.take(s.C * s.R)),
        factor_tables(arena.take(2 * s.C * s.R)),
        norms(arena.take(s.C)),
        largest(arena.take(s.C)),
        offsets(arena.take(s.C)),
        relative(arena.take(s.C)),
        totals(arena.take(s.C)),
        gap(arena.take(s.R)),
        fading(take_fading(s, p, arena)) {}
};

/// What is left of the keys of earlier chunks: one of the two.
struct Past {
  State state{};
  Blocks blocks{};

  Past(const Shape& s, const LinearAttentionParams& p, Arena& arena) {
    if (p.by_blocks) {
      blocks = take_blocks(s, arena);
    } else {
      state = take_state(s, arena);
    }
  }
};

/// factors <- s_jr e^{o_j - after}, faded to the end of the chunk.
void load_key_factors(const Shape& s, const LinearAttentionParams& p, const Chunk& c, Span span,
                      float after) {
  for (int64_t j = 0; j < span.n; ++j) c.relative[j] = rescaled(c.offsets[j], after);
  load_factors(span, s.R, chunk_table(s, p.key_factor, s.S, span), c.fading.until, c.relative,
               c.factors);
}

/// state <- e^{before - after} state, faded, + sum_j e^{o_j - after} s_j phi_j [v_j, 1], faded.
void add_keys(const Shape& s, const LinearAttentionParams& p, const Chunk& c, Span span,
              float before, float after, State state) {
  const bool plain = p.key_factor.data == nullptr && before == after;
  load_key_factors(s, p, c, span, after);
  fade_state(s, rescaled(before, after), c.fading.through, state);
  for (int64_t r = 0; r < s.R; ++r) {
    const float* keys = c.keys;
    if (!plain) {
      scale_rows(span, s.Mp, c.factors + r, s.R, c.keys, c.scaled);
      keys = c.scaled;
    }
    product<Accumulate::kAdd, false>(s.Mp, s.Vp, span.n, keys, s.Mp, c.values, s.Vp,
                                     state.sums + r * s.Mp * s.Vp, s.Vp);
    add_rows(span, s.Mp, keys, nullptr, state.normalizer + r * s.Mp);
  }
}

/// output and totals += sum_r p_i relative_i phi_i [sums, normalizer], faded.
void read_state(const Shape& s, const LinearAttentionParams& p, const Chunk& c, Span span,
                bool plain, State state) {
  load_factors(span, s.R, chunk_table(s, p.query_factor, s.L, span), c.fading.since, c.relative,
               c.factors);
  plain = plain && p.query_factor.data == nullptr;
  for (int64_t r = 0; r < s.R; ++r) {
    const float* queries = c.queries;
    if (!plain) {
      scale_rows(span, s.Mp, c.factors + r, s.R, c.queries, c.scaled);
      queries = c.scaled;
    }
    product<Accumulate::kAdd, true>(span.rows, s.Vp, s.Mp, queries, s.Mp,
                                    state.sums + r * s.Mp * s.Vp, s.Vp, c.output, s.Vp);
    for (int64_t i = 0; i < span.n; ++i) {
      c.totals[i] += dot(s.Mp, queries + i * s.Mp, state.normalizer + r * s.Mp);
    }
  }
}

/// What `read_block` needs of the keys of a chunk, and `after`, their last offset.
void keep_keys(const Shape& s, const LinearAttentionParams& p, const Chunk& c, Span span,
               float after, const Block& block) {
  load_key_factors(s, p, c, span, after);
  keep_factors(s, span, c.factors, after, c.fading, block);
  transpose(span.rows, s.Mp, c.keys, s.Mp, block.features, s.C);
  copy(block.values, c.values, span.rows * s.Vp);
}

/// output and totals += what the queries of a chunk read from the keys of another one.
void read_block(const Shape& s, const LinearAttentionParams& p, const Chunk& c, Span span,
                Span keys, const Block& block) {
  relative_to(span, block.numbers[0], c.offsets, c.relative);
  load_pair_factors(s, span, chunk_table(s, p.query_factor, s.L, span), c.fading.since, c.gap,
                    c.relative, c.factors);
  product<Accumulate::kSet, true>(span.rows, keys.rows, s.R, c.factors, s.R, block.factors, s.C,
                                  c.coupling, s.C);
  product<Accumulate::kSet, true>(span.rows, keys.rows, s.Mp, c.queries, s.Mp, block.features, s.C,
                                  c.weights, s.C);
  couple_all(s, span, keys.n, c.coupling, c.weights);
  for (int64_t i = 0; i < span.n; ++i) c.totals[i] += sum_of(keys.n, c.weights + i * s.C);
  product<Accumulate::kAdd, true>(span.rows, s.Vp, keys.n, c.weights, s.C, block.values, s.Vp,
                                  c.output, s.Vp);
}

/// The same for the first `count` chunks of keys, the last one first, as the gap widens.
void read_blocks(const Shape& s, const LinearAttentionParams& p, const Chunk& c, Span span,
                 int64_t count, const Blocks& blocks) {
  fill(c.gap, s.R, 1);
  for (int64_t index = count - 1; index >= 0; --index) {
    const Block block = blocks.at(s, index);
    read_block(s, p, c, span, Span::at(index * s.C, s.S, s.C), block);
    widen_gap(s, block, c.gap);
  }
}

/// output [C,Vp] <- the causal part within the chunk, totals its denominators.
void read_chunk(const Shape& s, const LinearAttentionParams& p, const Chunk& c, Span span,
                bool moved) {
  transpose(span.rows, s.Mp, c.keys, s.Mp, c.keys_transposed, s.C);
  product<Accumulate::kSet, true, Part::kLowerResult>(span.rows, span.rows, s.Mp, c.queries, s.Mp,
                                                      c.keys_transposed, s.C, c.weights, s.C);
  const float* coupling = chunk_coupling(s, p, span, c.offsets, moved, c.factor_tables, c.coupling);
  couple(s, span, coupling, c.weights);
  for (int64_t i = 0; i < span.n; ++i) c.totals[i] = sum_of(i + 1, c.weights + i * s.C);
  product<Accumulate::kSet, true, Part::kLowerLeft>(span.rows, s.Vp, span.rows, c.weights, s.C,
                                                    c.values, s.Vp, c.output, s.Vp);
}

void write_output(const Shape& s, const LinearAttentionParams& p, const Chunk& c, Span span) {
  const int64_t first = (s.b * p.sizes.heads + s.h) * s.L + span.first;
  for (int64_t i = 0; i < span.n; ++i) {
    const float total = c.totals[i];
    const float kept = total >= p.floor || total <= -p.floor || total != total
                           ? total
                           : (total < 0 ? -p.floor : p.floor);
    const float inverse = 1 / kept;
    p.inverse[first + i] = inverse;
    scale(c.output + i * s.Vp, s.Dv, inverse);
    copy(p.output + (first + i) * s.Dv, c.output + i * s.Vp, s.Dv);
  }
}

float causal_forward(const Shape& s, const LinearAttentionParams& p, const Chunk& c, Past past,
                     float offset) {
  bool empty = p.sums == nullptr;
  for (int64_t first = 0; first < s.L; first += s.C) {
    const Span span = Span::at(first, s.L, s.C);
    const int64_t index = first / s.C;
    const float before = offset;
    load_fading(s, p, span, c.fading);
    load_values(s, p, span, c.values);
    key_exponents(s, p, span, c.x, c.keys, c.norms, c.largest);
    running_offsets(span, c.largest, &offset, c.offsets);
    finish_key_features(s, p, span, c.norms, c.offsets, c.keys);
    query_features(s, p, span, c.x, c.queries);
    const bool moved = before != offset;
    read_chunk(s, p, c, span, moved);
    if (p.by_blocks) {
      read_blocks(s, p, c, span, index, past.blocks);
    } else if (!empty) {
      for (int64_t i = 0; i < span.n; ++i) c.relative[i] = rescaled(before, c.offsets[i]);
      read_state(s, p, c, span, !moved, past.state);
    }
    write_output(s, p, c, span);
    if (p.by_blocks) {
      keep_keys(s, p, c, span, offset, past.blocks.at(s, index));
    } else {
      add_keys(s, p, c, span, before, offset, past.state);
    }
    empty = false;
  }
  return offset;
}

float two_way_forward(const Shape& s, const LinearAttentionParams& p, const Chunk& c, Past past,
                      float offset) {
  for (int64_t first = 0; first < s.S; first += s.C) {
    const Span span = Span::at(first, s.S, s.C);
    const float before = offset;
    load_values(s, p, span, c.values);
    key_exponents(s, p, span, c.x, c.keys, c.norms, c.largest);
    common_offset(span, c.largest, &offset, c.offsets);
    finish_key_features(s, p, span, c.norms, c.offsets, c.keys);
    if (p.by_blocks) {
      keep_keys(s, p, c, span, offset, past.blocks.at(s, first / s.C));
    } else {
      add_keys(s, p, c, span, before, offset, past.state);
    }
  }
  fill(c.relative, s.C, 1);
  fill(c.offsets, s.C, offset);
  for (int64_t first = 0; first < s.L; first += s.C) {
    const Span span = Span::at(first, s.L, s.C);
    query_features(s, p, span, c.x, c.queries);
    fill(c.output, s.C * s.Vp, 0);
    fill(c.totals, s.C, 0);
    if (p.by_blocks) {
      read_blocks(s, p, c, span, chunks_of(s, s.S), past.blocks);
    } else {
      read_state(s, p, c, span, /*plain=*/true, past.state);
    }
    write_output(s, p, c, span);
  }
  return offset;
}

void forward(const Shape& shape, const LinearAttentionParams& params, const Chunk& chunk,
             Past past) {
  if (!params.by_blocks) {
    load_state(shape, params.sizes.heads, params.sums, params.normalizer, past.state);
  }
  const float before = first_offset(shape, params);
  const float after = params.causal ? causal_forward(shape, params, chunk, past, before)
                                    : two_way_forward(shape, params, chunk, past, before);
  if (params.next_sums != nullptr) {
    store_state(shape, params.sizes.heads, past.state, params.next_sums, params.next_normalizer);
  }
  params.next_offset[shape.b * params.sizes.heads + shape.h] = after;
}

}  // namespace

void linear_attention_forward(const LinearAttentionSlice& slice) {
  const LinearAttentionParams& params = slice.problem;
  for (int64_t item = slice.begin; item < slice.end; ++item) {
    const Shape shape(params, item);
    Arena arena(slice.scratch);
    const Chunk chunk(shape, params, arena);
    forward(shape, params, chunk, Past(shape, params, arena));
  }
}

int64_t linear_attention_forward_scratch(const LinearAttentionParams& params) {
  const Shape shape(params);
  Arena counter(nullptr);
  const Chunk chunk(shape, params, counter);
  const Past past(shape, params, counter);
  return counter.taken();
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
