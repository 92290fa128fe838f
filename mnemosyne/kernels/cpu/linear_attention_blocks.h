#pragma once

#include "mnemosyne/kernels/cpu/linear_attention_position.h"

/// What stands in for a state where that is the larger one: a block of every chunk of keys (or,
/// backwards, of queries), which the chunks on the other side meet one after the other.
///
/// The weight of query i and key j in different chunks is phi_i.phi_j times the product of
///
///     sum_r  p_ir since_ir gap_r e^{a - o_i}  s_jr until_jr e^{o_j - a}
///
/// with the offset a after the keys' chunk and `gap` what fades through the chunks in between. So
/// it is a product of matrices, and none of its factors grows.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// What is kept of one chunk; a transposed matrix has C columns.
struct Block {
  float* features;  ///< [C,Mp], or its transpose
  float* values;    ///< [C,Vp], or its transpose; of queries the gradients of their outputs
  float* factors;   ///< of keys [R,C], transposed; of queries [C,R], `since`
  float* numbers;   ///< of keys [1], the offset after them; of queries [C], the gradients of their
                    ///< denominators
  float* through;   ///< [R], what fades through the chunk
};

inline Block take_block(const Shape& s, Arena& arena) {
  float* features = arena.take(s.C * s.Mp);
  float* values = arena.take(s.C * s.Vp);
  float* factors = arena.take(s.C * s.R);
  float* numbers = arena.take(s.C);
  return {features, values, factors, numbers, arena.take(s.R)};
}

struct Blocks {
  float* first = nullptr;
  int64_t distance = 0;

  Block at(const Shape& s, int64_t index) const {
    Arena arena(first + index * distance);
    return take_block(s, arena);
  }
};

inline int64_t chunks_of(const Shape& s, int64_t length) { return (length + s.C - 1) / s.C; }

/// Of all chunks of keys or of queries, whichever are more.
inline Blocks take_blocks(const Shape& s, Arena& arena) {
  Arena counter(nullptr);
  take_block(s, counter);
  const int64_t count = chunks_of(s, s.L > s.S ? s.L : s.S);
  return {arena.take(count * counter.taken()), counter.taken()};
}

inline void keep_through(const Shape& s, const Fading& fading, const Block& block) {
  if (fading.through != nullptr) {
    copy(block.through, fading.through, s.R);
  } else {
    fill(block.through, s.R, 1);
  }
}

/// The part of a block of keys that both passes keep: factors [n,R] relative to `after`.
inline void keep_factors(const Shape& s, Span span, const float* factors, float after,
                         const Fading& fading, const Block& block) {
  transpose_factors(s, span, factors, block.factors);
  block.numbers[0] = after;
  keep_through(s, fading, block);
}

/// gap *= what fades through the block.
inline void widen_gap(const Shape& s, const Block& block, float* gap) {
  for (int64_t r = 0; r < s.R; ++r) gap[r] *= block.through[r];
}

/// relative [n] <- e^{from - o_i}; ones where offsets is null, as all are `from`.
inline void relative_to(Span span, float from, const float* offsets, float* relative) {
  for (int64_t i = 0; i < span.n; ++i) {
    relative[i] = offsets != nullptr ? rescaled(from, offsets[i]) : 1.0f;
  }
}

/// factors [n,R] <- p_ir since_ir gap_r relative_i; table and since [n,R] are ones if null.
inline void load_pair_factors(const Shape& s, Span span, const float* table, const float* since,
                              const float* gap, const float* relative, float* factors) {
  load_factors(span, s.R, table, since, relative, factors);
  for (int64_t i = 0; i < span.n; ++i) {
    for (int64_t r = 0; r < s.R; ++r) factors[i * s.R + r] *= gap[r];
  }
}

/// weights [n,C] *= coupling for the first `count` columns; zero up to whole vectors.
inline void couple_all(const Shape& s, Span span, int64_t count, const float* coupling,
                       float* weights) {
  for (int64_t i = 0; i < span.n; ++i) {
    couple_row(count, round_up(count, kLanes), coupling + i * s.C, weights + i * s.C);
  }
}

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
