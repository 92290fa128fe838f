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

struct Blocks {
  float* first = nullptr;
  int64_t distance = 0;

  Block at(const Shape& s, int64_t index) const {
    Arena arena{first + index * distance};
    float* features = arena.take(s.C * s.Mp);
    float* values = arena.take(s.C * s.Vp);
    float* factors = arena.take(s.C * s.R);
    float* numbers = arena.take(s.C);
    return {features, values, factors, numbers, arena.take(s.R)};
  }
};

inline int64_t chunks_of(const Shape& s, int64_t length) { return (length + s.C - 1) / s.C; }

inline Blocks take_blocks(const Shape& s, Arena& arena) {
  const int64_t count = chunks_of(s, s.L > s.S ? s.L : s.S);
  const int64_t distance = s.C * (s.Mp + s.Vp + s.R + 1) + attention_padded(s.R);
  return {arena.take(count * distance), distance};
}

inline void keep_through(const Shape& s, const Fading& fading, const Block& block) {
  if (fading.through != nullptr) {
    copy(block.through, fading.through, s.R);
  } else {
    fill(block.through, s.R, 1);
  }
}

/// gap *= what fades through the block.
inline void widen_gap(const Shape& s, const Block& block, float* gap) {
  for (int64_t r = 0; r < s.R; ++r) gap[r] *= block.through[r];
}

/// to [R,C] <- rows [n,R], zero in columns from n on.
inline void transpose_factors(const Shape& s, Span span, const float* rows, float* to) {
  fill(to, s.R * s.C, 0);
  for (int64_t j = 0; j < span.n; ++j) {
    for (int64_t r = 0; r < s.R; ++r) to[r * s.C + j] = rows[j * s.R + r];
  }
}

/// to [nr] rows of `width` <- p_ir since_ir gap_r e^{from - o_i}, zero in the padding and in rows
/// from n on. table and since (ones if null) are [n,R]; offsets null: all are `from`.
inline void pair_factors(const Shape& s, Span span, const float* table, const float* since,
                         const float* gap, float from, const float* offsets, int64_t width,
                         float* to) {
  fill(to, span.rows * width, 0);
  for (int64_t i = 0; i < span.n; ++i, to += width) {
    const float relative = offsets != nullptr ? rescaled(from, offsets[i]) : 1.0f;
    for (int64_t r = 0; r < s.R; ++r) {
      const float faded = since != nullptr ? gap[r] * since[i * s.R + r] : gap[r];
      to[r] = relative * faded * (table != nullptr ? table[i * s.R + r] : 1.0f);
    }
  }
}

/// weights [n,C] *= coupling for the first `count` columns; zero up to whole vectors.
inline void couple_all(const Shape& s, Span span, int64_t count, const float* coupling,
                       float* weights) {
  for (int64_t i = 0; i < span.n; ++i, weights += s.C, coupling += s.C) {
    for (int64_t j = 0; j < count; ++j) weights[j] *= coupling[j];
    fill(weights + count, round_up(count, kLanes) - count, 0);
  }
}

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
