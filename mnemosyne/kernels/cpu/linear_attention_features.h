#pragma once

#include "mnemosyne/kernels/cpu/linear_attention_chunk.h"

/// Feature maps on a chunk of tokens and their gradients.
///
/// Those with exponents work in two steps. First the exponents: for queries relative to their own
/// largest one, which cancels in the quotient; for keys as they are. Then the caller chooses the
/// offset of each key from the exponents of no later key, and the features are taken relative to
/// it.
namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

constexpr float kReluOffset = 1e-3f;

inline float largest_of(const float* row, int64_t count) {
  Vector best = broadcast(kAttentionNoOffset);
  int64_t m = 0;
  for (; m + kLanes <= count; m += kLanes) {
    const Vector x = load(row + m);
    best = x > best ? x : best;
  }
  float result = largest_across(best);
  for (; m < count; ++m) result = row[m] > result ? row[m] : result;
  return result;
}

/// row[m] <- e^{row[m] + shift}, [Mp]; the padding becomes zero.
inline void exponentiate(const Shape& s, float shift, float* row) {
  for (int64_t m = 0; m < s.Mp; m += Vec::size()) {
    (Vec::loadu(row + m) + Vec(shift)).exp_u20().store(row + m);
  }
  for (int64_t half = 0; half < s.Mp; half += s.Wp) fill(row + half + s.W, s.Wp - s.W, 0);
}

/// Projections [Wp] to exponents of both halves, with the additive term; returns the largest.
inline float exponents(const Shape& s, const float* log, float* row) {
  if (s.pairs) {
    for (int64_t m = 0; m < s.Wp; m += kLanes) store(row + s.Wp + m, -load(row + m));
  }
  float largest = kAttentionNoOffset;
  for (int64_t half = 0; half < (s.pairs ? 2 : 1); ++half) {
    float* x = row + half * s.Wp;
    if (log != nullptr) {
      for (int64_t m = 0; m < s.W; ++m) x[m] += log[half * s.W + m];
    }
    const float here = largest_of(x, s.W);
    largest = here > largest ? here : largest;
  }
  return largest;
}

inline void cosines_and_sines(const Shape& s, float* row) {
  for (int64_t m = 0; m < s.Wp; m += Vec::size()) {
    const Vec x = Vec::loadu(row + m);
    x.sin().store(row + s.Wp + m);
    x.cos().store(row + m);
  }
  fill(row + s.W, s.Wp - s.W, 0);
}

/// Features without an exponent, in place.
inline void plain_features(const Shape& s, const LinearAttentionParams& p, float* row) {
  if (p.features == AttentionFeatures::kIdentity) return;
  for (int64_t m = 0; m < s.Mp; m += Vec::size()) {
    const Vec x = Vec::loadu(row + m);
    const Vec positive = at::vec::maximum(x, Vec(0.0f));
    if (p.features == AttentionFeatures::kRelu) {
      (positive * Vec(p.relu_scale) + Vec(kReluOffset)).store(row + m);
    } else {
      (positive + at::vec::minimum(x, Vec(0.0f)).exp_u20()).store(row + m);
    }
  }
  fill(row + s.W, s.Wp - s.W, 0);
}

inline void project(const Shape& s, const LinearAttentionParams& p, Span span, const float* x,
                    float* phi) {
  if (p.omega == nullptr) {
    copy(phi, x, span.rows * s.Mp);
  } else {
    product<Accumulate::kSet, true>(span.rows, s.Wp, s.D, x, s.Dp, p.omega_transposed, s.Wp, phi,
                                    s.Mp);
  }
}

/// phi [C,Mp] of the queries x [C,Dp] of a chunk.
inline void query_features(const Shape& s, const LinearAttentionParams& p, Span span, float* x,
                           float* phi) {
  load_rows(p.query, s.b, s.h, span, s.D, s.Dp, nullptr, x);
  project(s, p, span, x, phi);
  for (int64_t i = 0; i < span.n; ++i) {
    float* row = phi + i * s.Mp;
    const float* log =
        p.query_log == nullptr ? nullptr : p.query_log + (s.h * s.L + span.first + i) * s.M;
    if (p.features == AttentionFeatures::kTrig) {
      cosines_and_sines(s, row);
    } else if (attention_features_have_offset(p.features)) {
      exponentiate(s, -exponents(s, log, row), row);
    } else {
      plain_features(s, p, row);
    }
  }
  fill(phi + span.n * s.Mp, (span.rows - span.n) * s.Mp, 0);
}

inline const bool* key_mask(const Shape& s, const LinearAttentionParams& p, Span span) {
  return p.key_mask == nullptr ? nullptr : p.key_mask + s.b * s.S + span.first;
}

inline void load_values(const Shape& s, const LinearAttentionParams& p, Span span, float* values) {
  load_rows(p.value, s.b, s.hk, span, s.Dv, s.Vp, key_mask(s, p, span), values);
}

/// First step for the keys of a chunk: x [C,Dp], exponents in phi [C,Mp], norms [C] the part of
/// them that all features share, largest [C] the largest exponent.
inline void key_exponents(const Shape& s, const LinearAttentionParams& p, Span span, float* x,
                          float* phi, float* norms, float* largest) {
  const bool* mask = key_mask(s, p, span);
  load_rows(p.key, s.b, s.hk, span, s.D, s.Dp, mask, x);
  project(s, p, span, x, phi);
  for (int64_t j = 0; j < span.n; ++j) {
    float* row = phi + j * s.Mp;
    norms[j] = 0;
    largest[j] = kAttentionNoOffset;
    if (mask != nullptr && !mask[j]) continue;
    if (!attention_features_have_offset(p.features)) {
      plain_features(s, p, row);
      continue;
    }
    norms[j] = p.norm_scale * dot(s.Dp, x + j * s.Dp, x + j * s.Dp);
    if (p.features == AttentionFeatures::kTrig) {
      cosines_and_sines(s, row);
      largest[j] = norms[j];
      continue;
    }
    const float* log =
        p.key_log == nullptr ? nullptr : p.key_log + (s.h * s.S + span.first + j) * s.M;
    largest[j] = exponents(s, log, row) + norms[j];
  }
}

/// Second step: phi relative to offsets [C]. Zero for keys that are masked, and in rows from n on.
inline void finish_key_features(const Shape& s, const LinearAttentionParams& p, Span span,
                                const float* norms, const float* offsets, float* phi) {
  const bool* mask = key_mask(s, p, span);
  for (int64_t j = 0; j < span.rows; ++j) {
    float* row = phi + j * s.Mp;
    if (j >= span.n || (mask != nullptr && !mask[j])) {
      fill(row, s.Mp, 0);
    } else if (p.features == AttentionFeatures::kTrig) {
      scale(row, s.Mp, std::exp(norms[j] - offsets[j]));
    } else if (attention_features_have_offset(p.features)) {
      exponentiate(s, norms[j] - offsets[j], row);
    }
  }
}

/// Offsets of a causal chunk: the running maximum; `offset` becomes the last one.
inline void running_offsets(Span span, const float* largest, float* offset, float* offsets) {
  for (int64_t j = 0; j < span.n; ++j) {
    if (largest[j] > *offset) *offset = largest[j];
    offsets[j] = *offset;
  }
}

/// One offset for the whole chunk: `offset` becomes the largest of it and the chunk's exponents.
inline void common_offset(Span span, const float* largest, float* offset, float* offsets) {
  for (int64_t j = 0; j < span.n; ++j) {
    if (largest[j] > *offset) *offset = largest[j];
  }
  fill(offsets, span.n, *offset);
}

/// Gradient of the features [C,Mp] to one of projections, [C,Wp] with distance Mp, in place.
inline void projections_backward(const Shape& s, const LinearAttentionParams& p, const float* phi,
                                 float* grad) {
  for (int64_t m = 0; m < s.Wp; m += kLanes) {
    const Vector value = load(phi + m), up = load(grad + m);
    switch (p.features) {
      case AttentionFeatures::kIdentity:
        break;
      case AttentionFeatures::kElu:
        store(grad + m, up * (value < 1.0f ? value : broadcast(1)));
        break;
      case AttentionFeatures::kRelu:
        store(grad + m, value > kReluOffset ? up * p.relu_scale : Vector{});
        break;
      case AttentionFeatures::kExp:
        store(grad + m, up * value);
        break;
      case AttentionFeatures::kExpPair:
        store(grad + m, up * value - load(grad + s.Wp + m) * load(phi + s.Wp + m));
        break;
      case AttentionFeatures::kTrig:
        store(grad + m, value * load(grad + s.Wp + m) - load(phi + s.Wp + m) * up);
        break;
    }
  }
}

/// grad_x [C,Dp] from grad [C,Mp], the gradient of phi, which is overwritten. `grad_log` [n,M] of
/// this chunk is added to unless null. Keys also have the factor e^{c |x|^2}.
inline void features_backward(const Shape& s, const LinearAttentionParams& p, Span span, bool key,
                              const float* x, const float* phi, float* grad, float* grad_log,
                              float* grad_x) {
  const bool* mask = key ? key_mask(s, p, span) : nullptr;
  float totals[256];
  for (int64_t i = 0; i < span.n; ++i) {
    float* row = grad + i * s.Mp;
    const float* features = phi + i * s.Mp;
    totals[i] = 0;
    if (mask != nullptr && !mask[i]) {
      fill(row, s.Mp, 0);
      continue;
    }
    if (key && p.norm_scale != 0) totals[i] = 2 * p.norm_scale * dot(s.Mp, row, features);
    if (grad_log != nullptr) {
      for (int64_t m = 0; m < s.M; ++m) {
        const int64_t place = padded_feature(s, m);
        grad_log[i * s.M + m] += row[place] * features[place];
      }
    }
    projections_backward(s, p, features, row);
  }
  if (p.omega == nullptr) {
    copy(grad_x, grad, span.rows * s.Dp);
    return;
  }
  product<Accumulate::kSet, true>(span.rows, s.Dp, s.W, grad, s.Mp, p.omega, s.Dp, grad_x, s.Dp);
  if (!key || p.norm_scale == 0) return;
  for (int64_t i = 0; i < span.n; ++i) {
    for (int64_t d = 0; d < s.Dp; d += kLanes) {
      float* to = grad_x + i * s.Dp + d;
      store(to, load(to) + load(x + i * s.Dp + d) * totals[i]);
    }
  }
}

}  // namespace
}  // namespace mnemosyne::kernels::CPU_CAPABILITY
