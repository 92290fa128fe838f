#include "mnemosyne/kernels/tensor_step.h"

#include <cmath>

#include "mnemosyne/kernels/cpu/bfloat16.h"

namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

// Parameter blocks are passed by value: stores to the tensors then cannot alias them.

/// One piece on its way through `update_moments`.
struct Moments {
  const float* grad;
  const float* param;
  float* momentum;
  float* second_moment;
  const uint16_t* update;
  int64_t size;
  float momentum_decay;
  float second_decay;
  PieceSums* sums;
};

/// One piece on its way through `apply_directions`.
struct Application {
  float* param;
  const float* grad;
  const float* momentum;
  const float* second_moment;
  const float* direction;
  uint16_t* update;
  int64_t size;
  float step;
  float decay;
  float scale;
  float rms;
  float mixture;
  float momentum_correction;
  float second_correction;
  float eps;
  float mean_second_moment;
  float bound;
  float readouts[kNumReadouts];
  int64_t* skipped;
};

template <typename T>
T* from(T* data, int64_t begin) {
  return data == nullptr ? nullptr : data + begin;
}

// Independent partial sums, so that the compiler may keep them in one or two vector registers.
constexpr int kLanes = 16;

struct Lanes {
  float values[kLanes] = {};

  double total() const {
    double sum = 0.0;
    for (int lane = 0; lane < kLanes; ++lane) sum += values[lane];
    return sum;
  }
};

// As an integer, which orders them; vectors have its maximum. From that of infinity on not finite.
inline int32_t magnitude_bits(float x) { return __builtin_bit_cast(int32_t, x) & 0x7FFFFFFF; }
constexpr int32_t kInfinityBits = 0x7F800000;

inline float softsign(float x) { return x / (1.0f + std::fabs(x)); }

template <bool kSecond>
void moments_without_sums(const Moments p) {
  const float keep = p.momentum_decay, add = 1.0f - keep;
  const float keep2 = p.second_decay, add2 = 1.0f - keep2;
#pragma GCC ivdep
  for (int64_t i = 0; i < p.size; ++i) {
    const float g = p.grad[i];
    p.momentum[i] = keep * p.momentum[i] + add * g;
    if constexpr (kSecond) p.second_moment[i] = keep2 * p.second_moment[i] + add2 * g * g;
  }
}

// The sums of a chunk whose squares are too large for float, after the step: the old momentum is
// read back from the new one.
void sums_in_double(const Moments& p) {
  const double keep = p.momentum_decay, add = 1.0 - keep;
  PieceSums sums = {};
  for (int64_t i = 0; i < p.size; ++i) {
    const double g = p.grad[i], next = p.momentum[i], x = p.param[i];
    const double old = keep > 0 ? (next - add * g) / keep : 0.0;
    sums.grad_dot_momentum += g * old;
    sums.grad_squared += g * g;
    sums.old_squared += old * old;
    sums.new_squared += next * next;
    sums.param_squared += x * x;
    sums.second_moment += p.second_moment[i];
    sums.zeros += g == 0.0 ? 1.0 : 0.0;
  }
  *p.sums = sums;
}

// One coordinate, whose contributions to the sums go to `lane`.
struct MomentsWithSums {
  Lanes dot, grad, old_m, new_m, param, second, zeros;

  inline void add(const Moments& p, int64_t i, int lane) {
    const float g = p.grad[i], m = p.momentum[i], x = p.param[i];
    const float next = p.momentum_decay * m + (1.0f - p.momentum_decay) * g;
    const float v = p.second_decay * p.second_moment[i] + (1.0f - p.second_decay) * g * g;
    p.momentum[i] = next;
    p.second_moment[i] = v;
    dot.values[lane] += g * m;
    grad.values[lane] += g * g;
    old_m.values[lane] += m * m;
    new_m.values[lane] += next * next;
    param.values[lane] += x * x;
    second.values[lane] += v;
    zeros.values[lane] += g == 0.0f ? 1.0f : 0.0f;
  }
};

void moments_with_sums(const Moments p) {
  MomentsWithSums sums;
  int64_t i = 0;
  for (; i + kLanes <= p.size; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums.add(p, i + lane, lane);
  }
  for (int lane = 0; i < p.size; ++i, ++lane) sums.add(p, i, lane);
  *p.sums = {sums.dot.total(),   sums.grad.total(),   sums.old_m.total(), sums.new_m.total(),
             sums.param.total(), sums.second.total(), sums.zeros.total()};
  const double all = p.sums->grad_dot_momentum + p.sums->grad_squared + p.sums->old_squared +
                     p.sums->new_squared + p.sums->param_squared + p.sums->second_moment;
  if (!(all - all == 0)) sums_in_double(p);
}

// A pass of its own: with these among them the sums of the moments would not fit the registers.
PieceAlignment alignment_sums(const Moments p) {
  Lanes grad, momentum, squared, radial;
  const auto add = [&](int64_t i, int lane) {
    const float g = p.grad[i], u = from_bfloat16(p.update[i]);
    grad.values[lane] += g * u;
    momentum.values[lane] += p.momentum[i] * u;
    squared.values[lane] += u * u;
    radial.values[lane] += g * p.param[i];
  };
  int64_t i = 0;
  for (; i + kLanes <= p.size; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (int lane = 0; i < p.size; ++i, ++lane) add(i, lane);
  PieceAlignment sums{grad.total(), momentum.total(), squared.total(), radial.total()};
  const double all =
      sums.grad_dot_update + sums.momentum_dot_update + sums.update_squared + sums.grad_dot_param;
  if (all - all == 0) return sums;
  sums = {};  // too large for float
  for (i = 0; i < p.size; ++i) {
    const double g = p.grad[i], u = from_bfloat16(p.update[i]);
    sums.grad_dot_update += g * u;
    sums.momentum_dot_update += p.momentum[i] * u;
    sums.update_squared += u * u;
    sums.grad_dot_param += g * p.param[i];
  }
  return sums;
}

template <bool kDirection, bool kCorrected>
inline float update_of(const Application& p, int64_t i) {
  const float v = p.second_correction * p.second_moment[i];
  const float inverse = 1.0f / (std::sqrt(v) + p.eps);
  const float adam = p.momentum_correction * p.momentum[i] * inverse;
  const float base = kDirection ? p.scale * p.direction[i] : p.scale * adam;
  float update = kDirection ? base + p.mixture * (p.rms * adam - base) : base;
  if constexpr (kCorrected) {
    const float u = kDirection ? base / p.rms : base;
    const float g = p.grad[i] * inverse;
    const float h = p.readouts[0] * softsign(u * adam) + p.readouts[1] * softsign(u * g) +
                    p.readouts[2] * softsign(std::fabs(adam)) +
                    p.readouts[3] * softsign(std::fabs(u)) +
                    p.readouts[4] * (v / (v + p.mean_second_moment + 1e-30f) - 0.5f);
    update *= 1.0f + p.bound * softsign(h);
  }
  return update;
}

// Coordinates that were finite and are no longer stay where they were.
void restore(const Application& p, float* param, const float* old, uint16_t* taken, int64_t size) {
  bool any = false;
  for (int64_t i = 0; i < size; ++i) {
    if (magnitude_bits(param[i]) < kInfinityBits) continue;
    param[i] = old[i];
    if (taken != nullptr) taken[i] = 0;
    any = any || magnitude_bits(old[i]) < kInfinityBits;
  }
  *p.skipped += any ? 1 : 0;
}

// p <- keep p - step update, in pieces that stay in the first cache.
template <bool kKept, typename Update>
void write(const Application p, float step, const Update& update) {
  constexpr int64_t kPiece = 512;
  const float keep = 1.0f - p.decay;
  float old[kPiece];
  for (int64_t begin = 0; begin < p.size; begin += kPiece) {
    const int64_t size = p.size - begin < kPiece ? p.size - begin : kPiece;
    float* param = p.param + begin;
    uint16_t* taken = from(p.update, begin);
    int32_t largest = 0;
#pragma GCC ivdep
    for (int64_t i = 0; i < size; ++i) {
      old[i] = param[i];
      const float own = step * update(p, begin + i);
      const float next = keep * param[i] - own;
      param[i] = next;
      if constexpr (kKept) taken[i] = to_bfloat16(own);
      const int32_t magnitude = magnitude_bits(next);
      largest = magnitude > largest ? magnitude : largest;
    }
    if (largest >= kInfinityBits) restore(p, param, old, taken, size);
  }
}

template <bool kDirection, bool kCorrected, bool kKept>
void apply(const Application& p) {
  write<kKept>(p, p.step, [](const Application& q, int64_t i) {
    return update_of<kDirection, kCorrected>(q, i);
  });
}

void blend_piece(const float* grad, const float* momentum, float* direction, int64_t size,
                 float blend) {
#pragma GCC ivdep
  for (int64_t i = 0; i < size; ++i) {
    direction[i] = momentum[i] + blend * (grad[i] - momentum[i]);
  }
}

template <bool kKept>
void apply_direction_only(const Application& p) {
  write<kKept>(p, p.step * p.scale, [](const Application& q, int64_t i) { return q.direction[i]; });
}

template <bool kKept>
void apply_piece(const Application& p, bool corrected) {
  if (p.second_moment == nullptr) return apply_direction_only<kKept>(p);
  const bool direction = p.direction != nullptr;
  if (corrected) return direction ? apply<true, true, kKept>(p) : apply<false, true, kKept>(p);
  return direction ? apply<true, false, kKept>(p) : apply<false, false, kKept>(p);
}

void apply_piece(const Application& p, bool corrected) {
  if (p.update != nullptr) {
    apply_piece<true>(p, corrected);
  } else {
    apply_piece<false>(p, corrected);
  }
}

void advance(const Moments& p) {
  if (p.sums != nullptr) {
    moments_with_sums(p);
  } else if (p.second_moment != nullptr) {
    moments_without_sums<true>(p);
  } else {
    moments_without_sums<false>(p);
  }
}

// Blocks of bfloat16 that are unpacked at a time, for the arithmetic of float to go over.
constexpr int64_t kBlock = 1024;

// A piece of a tensor whose second moment is bfloat16.
void advance_compact(const Moments& p, const StepTensor& x, int64_t begin) {
  PieceSums sums = {};
  float values[kBlock];
  for (int64_t at = 0; at < p.size; at += kBlock) {
    PieceSums own;
    Moments block = p;
    block.size = p.size - at < kBlock ? p.size - at : kBlock;
    block.grad += at;
    block.param = from(p.param, at);
    block.momentum += at;
    block.second_moment = values;
    block.sums = p.sums != nullptr ? &own : nullptr;
    uint16_t* packed = x.compact_second_moment + begin + at;
    unpack(packed, block.size, values);
    advance(block);
    pack_at_random(values, block.size, begin + at, x.rounding_seed, packed);
    if (p.sums == nullptr) continue;
    sums.grad_dot_momentum += own.grad_dot_momentum;
    sums.grad_squared += own.grad_squared;
    sums.old_squared += own.old_squared;
    sums.new_squared += own.new_squared;
    sums.param_squared += own.param_squared;
    sums.second_moment += own.second_moment;
    sums.zeros += own.zeros;
  }
  if (p.sums != nullptr) *p.sums = sums;
}

// Likewise on its way through `apply_directions`.
void apply_compact(const Application& p, const StepTensor& x, int64_t begin) {
  float values[kBlock];
  for (int64_t at = 0; at < p.size; at += kBlock) {
    Application block = p;
    block.size = p.size - at < kBlock ? p.size - at : kBlock;
    block.param += at;
    block.grad += at;
    block.momentum += at;
    block.second_moment = values;
    block.direction = from(p.direction, at);
    block.update = from(p.update, at);
    unpack(x.compact_second_moment + begin + at, block.size, values);
    apply_piece(block, x.corrected);
  }
}

}  // namespace

void update_moments(const TensorStepSlice& slice) {
  const TensorStepParams& problem = slice.problem;
  for (int64_t k = slice.begin; k < slice.end; ++k) {
    const StepPiece& piece = problem.pieces[k];
    const StepTensor& x = problem.tensors[piece.tensor];
    const Moments p{.grad = x.grad + piece.begin,
                    .param = from(x.param, piece.begin),
                    .momentum = x.momentum + piece.begin,
                    .second_moment = from(x.second_moment, piece.begin),
                    .update = from(x.update, piece.begin),
                    .size = piece.size,
                    .momentum_decay = x.momentum_decay,
                    .second_decay = x.second_decay,
                    .sums = from(problem.sums, k)};
    if (problem.alignment != nullptr) problem.alignment[k] = alignment_sums(p);
    if (x.compact_second_moment != nullptr) {
      advance_compact(p, x, piece.begin);
    } else {
      advance(p);
    }
  }
}

void blend_directions(const TensorStepSlice& slice) {
  for (int64_t k = slice.begin; k < slice.end; ++k) {
    const StepPiece& piece = slice.problem.pieces[k];
    const StepTensor& x = slice.problem.tensors[piece.tensor];
    blend_piece(x.grad + piece.begin, x.momentum + piece.begin, x.direction + piece.begin,
                piece.size, slice.problem.chunks[piece.chunk].blend);
  }
}

void apply_directions(const TensorStepSlice& slice) {
  const TensorStepParams& problem = slice.problem;
  for (int64_t k = slice.begin; k < slice.end; ++k) {
    const StepPiece& piece = problem.pieces[k];
    const StepTensor& x = problem.tensors[piece.tensor];
    const ChunkNumbers& chunk = problem.chunks[piece.chunk];
    Application p{.param = x.param + piece.begin,
                  .grad = x.grad + piece.begin,
                  .momentum = x.momentum + piece.begin,
                  .second_moment = from(x.second_moment, piece.begin),
                  .direction = from(x.direction, piece.begin),
                  .update = from(x.update, piece.begin),
                  .size = piece.size,
                  .step = chunk.step,
                  .decay = chunk.decay,
                  .scale = x.scale,
                  .rms = problem.rms,
                  .mixture = chunk.mixture,
                  .momentum_correction = x.momentum_correction,
                  .second_correction = x.second_correction,
                  .eps = x.eps,
                  .mean_second_moment = x.mean_second_moment,
                  .bound = problem.bound,
                  .readouts = {},
                  .skipped = problem.skipped + k};
    for (int c = 0; c < kNumReadouts; ++c) p.readouts[c] = chunk.readouts[c];
    if (x.compact_second_moment != nullptr) {
      apply_compact(p, x, piece.begin);
    } else {
      apply_piece(p, x.corrected);
    }
  }
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
