#include "mnemosyne/kernels/cpu/memory_step_chunk.h"

namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// What the backward step keeps of a chunk besides the forward rows.
struct Tape {
  Rows key, query;      // [H, R] features
  Rows memory;          // [H, R, C] after the write
  Rows normaliser;      // [H] before the floor
  Rows hidden;          // [U]
  Rows grad_hidden;     // [U], before the relu
  Rows grad_output;     // [2], before the squash
  Rows grad_direction;  // [1]
  Rows grad_decoder;    // [Z]
  Rows grad_mean;       // [H]
  Rows grad_variance;   // [H], with respect to the read-out of g^2
  Rows grad_address;    // [2 D] of one head: key, query
  float* lanes;         // [MemoryGradLayout::size, kMemoryLanes], sums lane by lane

  Tape(const MemoryStepModel& m, Arena& arena)
      : key(take_rows(arena, m.heads * m.features)),
        query(take_rows(arena, m.heads * m.features)),
        memory(take_rows(arena, m.heads * m.features * kMemoryChannels)),
        normaliser(take_rows(arena, m.heads)),
        hidden(take_rows(arena, m.hidden)),
        grad_hidden(take_rows(arena, m.hidden)),
        grad_output(take_rows(arena, 2)),
        grad_direction(take_rows(arena, 1)),
        grad_decoder(take_rows(arena, memory_decoder_rows(m))),
        grad_mean(take_rows(arena, m.heads)),
        grad_variance(take_rows(arena, m.heads)),
        grad_address(take_rows(arena, 2 * m.key_dim)),
        lanes(arena.take(int64_t{memory_grad_layout(m).size} * kMemoryLanes)) {}

  void add(int weight, const Vec& value) const {
    float* sum = lanes + weight * kMemoryLanes;
    store(sum, load(sum) + value);
  }
};

/// lanes[first + a * columns + b] += sum over the chunk of left[a] * right[b].
void add_outer(const Tape& tape, const Chunk& chunk, int first, const Rows& left, int rows,
               const Rows& right, int columns) {
  for (int a = 0; a < rows; ++a) {
    int b = 0;
    for (; b + 4 <= columns; b += 4) {
      float* sums = tape.lanes + (first + a * columns + b) * kMemoryLanes;
      Vec s0 = load(sums), s1 = load(sums + kMemoryLanes);
      Vec s2 = load(sums + 2 * kMemoryLanes), s3 = load(sums + 3 * kMemoryLanes);
      const float *r0 = right[b], *r1 = right[b + 1], *r2 = right[b + 2], *r3 = right[b + 3];
      for (int i = 0; i < chunk.padded; i += kWidth) {
        const Vec x = load(left[a] + i);
        s0 = at::vec::fmadd(x, load(r0 + i), s0);
        s1 = at::vec::fmadd(x, load(r1 + i), s1);
        s2 = at::vec::fmadd(x, load(r2 + i), s2);
        s3 = at::vec::fmadd(x, load(r3 + i), s3);
      }
      store(sums, s0);
      store(sums + kMemoryLanes, s1);
      store(sums + 2 * kMemoryLanes, s2);
      store(sums + 3 * kMemoryLanes, s3);
    }
    for (; b < columns; ++b) {
      float* sums = tape.lanes + (first + a * columns + b) * kMemoryLanes;
      Vec sum = load(sums);
      for (int i = 0; i < chunk.padded; i += kWidth) {
        sum = at::vec::fmadd(load(left[a] + i), load(right[b] + i), sum);
      }
      store(sums, sum);
    }
  }
}

/// lanes[first + a] += sum over the chunk of rows[a].
void add_rows(const Tape& tape, const Chunk& chunk, int first, const Rows& rows, int count) {
  for (int a = 0; a < count; ++a) {
    Vec sum(0.0f);
    for (int i = 0; i < chunk.padded; i += kWidth) sum = sum + load(rows[a] + i);
    tape.add(first + a, sum);
  }
}

/// 3. to 6. for one head again, keeping what the backward step needs.
template <typename S>
void recompute_head(const MemoryStepParams& p, const Chunk& chunk, const Tape& tape, int h) {
  const MemoryStepModel& m = p.model;
  const int64_t first = int64_t{h} * S::features(m) * kMemoryChannels * p.size + chunk.begin;
  const Vec decay(m.decay[h]);
  Vec key[S::kMaxFeatures], query[S::kMaxFeatures];
  for (int i = 0; i < chunk.padded; i += kWidth) {
    key_and_query<S>(m, chunk, h, i, key, query);
    const int lanes = chunk.lanes(i);
    const Vec grad = load(chunk.grad[0] + i);
    const Vec square = grad * grad;
    Vec sums[kMemoryChannels] = {Vec(0.0f), Vec(0.0f), Vec(0.0f)};
    const float* from = p.memory + first + i;
    for (int r = 0; r < S::features(m); ++r) {
      const int row = h * S::features(m) + r;
      const Vec written[kMemoryChannels] = {key[r] * grad, key[r] * square, key[r]};
      for (int c = 0; c < kMemoryChannels; ++c, from += p.size) {
        prefetch(from);
        const Vec next = at::vec::fmadd(decay, load(from, lanes), written[c]);
        store(tape.memory[row * kMemoryChannels + c] + i, next);
        sums[c] = at::vec::fmadd(query[r], next, sums[c]);
      }
      store(tape.key[row] + i, key[r]);
      store(tape.query[row] + i, query[r]);
    }
    const Vec inverse = Vec(1.0f) / at::vec::maximum(sums[2], Vec(normaliser_floor<S>()));
    store(tape.normaliser[h] + i, sums[2]);
    store(chunk.mean[h] + i, sums[0] * inverse);
    store(chunk.size[h] + i, at::vec::maximum(sums[1] * inverse, Vec(kSmallestVariance)).sqrt());
  }
}

void recompute_hidden(const MemoryStepParams& p, const Chunk& chunk, const Tape& tape) {
  for (int i = 0; i < chunk.padded; i += 2 * kWidth) {
    for (int j = 0; j < p.model.hidden; ++j) {
      const HiddenPair unit(p, chunk, j, i);
      store(tape.hidden[j] + i, unit.low);
      store(tape.hidden[j] + i + kWidth, unit.high);
    }
  }
}

/// 9. and 8. backwards: rows grad_output, grad_direction and grad_hidden, and the gradient of the
/// step.
void backward_outputs(const MemoryStepBackwardParams& b, const Chunk& chunk, const Tape& tape,
                      const MemoryGradLayout& layout) {
  const MemoryStepParams& p = b.forward;
  const MemoryStepModel& m = p.model;
  const float* weight = m.output_weight;
  const Vec step(*p.step), zero(0.0f);
  Vec grad_step(0.0f);
  for (int i = 0; i < chunk.padded; i += kWidth) {
    Vec y0(m.output_bias[0]), y1(m.output_bias[1]);
    for (int j = 0; j < m.hidden; ++j) {
      const Vec unit = load(tape.hidden[j] + i);
      y0 = at::vec::fmadd(Vec(weight[j]), unit, y0);
      y1 = at::vec::fmadd(Vec(weight[m.hidden + j]), unit, y1);
    }
    const Vec inverse = Vec(1.0f) / (load(chunk.size[m.variance_head] + i) + Vec(*p.eps));
    const Vec base = load(chunk.mean[m.momentum_head] + i) * inverse;
    const Vec direction = at::vec::fmadd(Vec(m.direction_bound), squash(y0), base);
    const Vec magnitude = (Vec(m.magnitude_bound) * squash(y1)).exp();
    const int lanes = chunk.lanes(i);
    const Vec grad_update =
        b.grad_update == nullptr ? zero : load(b.grad_update + chunk.begin + i, lanes);
    const Vec by_step = grad_update * magnitude;
    const Vec grad_direction = by_step * step;
    grad_step = at::vec::fmadd(by_step, direction, grad_step);
    const Vec grad0 = grad_direction * Vec(m.direction_bound) * squash_slope(y0);
    const Vec grad1 = grad_direction * direction * Vec(m.magnitude_bound) * squash_slope(y1);
    store(tape.grad_direction[0] + i, grad_direction);
    store(tape.grad_output[0] + i, grad0);
    store(tape.grad_output[1] + i, grad1);
    for (int j = 0; j < m.hidden; ++j) {
      const Vec grad = at::vec::fmadd(Vec(weight[j]), grad0, Vec(weight[m.hidden + j]) * grad1);
      const Vec active = load(tape.hidden[j] + i) > zero;
      store(tape.grad_hidden[j] + i, Vec::blendv(zero, grad, active));
    }
  }
  tape.add(layout.step, grad_step);
}

/// grad_decoder = hidden_weight^T grad_hidden; the token's three inputs are constants.
void backward_hidden(const MemoryStepModel& m, const Chunk& chunk, const Tape& tape) {
  const int inputs = memory_decoder_rows(m);
  for (int f = 3; f < inputs; ++f) {
    for (int i = 0; i < chunk.padded; i += 2 * kWidth) {
      Vec low(0.0f), high(0.0f);
      const float* grad = tape.grad_hidden[0] + i;
      for (int j = 0; j < m.hidden; ++j, grad += kMemoryChunk) {
        const Vec weight(m.hidden_weight[j * inputs + f]);
        low = at::vec::fmadd(weight, load(grad), low);
        high = at::vec::fmadd(weight, load(grad + kWidth), high);
      }
      store(tape.grad_decoder[f] + i, low);
      store(tape.grad_decoder[f] + i + kWidth, high);
    }
  }
}

/// 7. backwards: rows grad_mean and grad_variance.
void backward_decoder_inputs(const MemoryStepParams& p, const Chunk& chunk, const Tape& tape) {
  const MemoryStepModel& m = p.model;
  const Vec two(2.0f), zero(0.0f), least = Vec(kSmallestVariance).sqrt();
  for (int i = 0; i < chunk.padded; i += kWidth) {
    const Vec base = load(chunk.size[m.variance_head] + i);
    const Vec inverse = Vec(1.0f) / (base + Vec(*p.eps));
    const Vec grad = load(chunk.grad[0] + i);
    Vec grad_inverse = load(tape.grad_decoder[3] + i) * squash_slope(grad * inverse) * grad;
    Vec grad_base(0.0f);
    for (int h = 0; h < m.heads; ++h) {
      const Vec mean = load(chunk.mean[h] + i), size = load(chunk.size[h] + i);
      Vec grad_scaled = load(tape.grad_decoder[4 + h] + i) * squash_slope(mean * inverse);
      if (h == m.momentum_head) grad_scaled = grad_scaled + load(tape.grad_direction[0] + i);
      store(tape.grad_mean[h] + i, grad_scaled * inverse);
      grad_inverse = at::vec::fmadd(grad_scaled, mean, grad_inverse);
      const Vec weight = Vec(1.0f) / (size + base);
      const Vec grad_ratio = load(tape.grad_decoder[4 + m.heads + h] + i) * two * weight * weight;
      store(tape.grad_variance[h] + i, grad_ratio * base);  // so far with respect to the size
      grad_base = grad_base - grad_ratio * size;
    }
    grad_base = grad_base - grad_inverse * inverse * inverse;
    for (int h = 0; h < m.heads; ++h) {
      const Vec size = load(chunk.size[h] + i);
      Vec grad_size = load(tape.grad_variance[h] + i);
      if (h == m.variance_head) grad_size = grad_size + grad_base;
      const Vec grad_variance = grad_size * Vec(0.5f) / size;
      store(tape.grad_variance[h] + i, Vec::blendv(zero, grad_variance, size > least));
    }
  }
}

/// Gradient with respect to x of sum_r grad_phi[r] phi_r(x).
template <typename S>
void backward_features(const MemoryStepModel& m, const Vec* x, const Vec* phi, const Vec* grad_phi,
                       Vec* grad_x) {
  const int omegas = S::omegas(m);
  Vec envelope(0.0f);
  for (int d = 0; d < S::key_dim(m); ++d) grad_x[d] = Vec(0.0f);
  for (int i = 0; i < omegas; ++i) {
    Vec along(0.0f);  // gradient with respect to w_i x
    if constexpr (S::kMap == MemoryFeatures::kFavorPlus) {
      along = grad_phi[i] * phi[i];
      envelope = envelope - along;
    } else if constexpr (S::kMap == MemoryFeatures::kHypPlus) {
      const Vec up = grad_phi[i] * phi[i], down = grad_phi[omegas + i] * phi[omegas + i];
      along = up - down;
      envelope = envelope - (up + down);
    } else if constexpr (S::kMap == MemoryFeatures::kTrig) {
      const int j = omegas + i;
      along = grad_phi[j] * phi[i] - grad_phi[i] * phi[j];
      envelope = envelope + grad_phi[i] * phi[i] + grad_phi[j] * phi[j];
    } else {
      const Vec active = project<S>(m, i, x) > Vec(0.0f);
      along = Vec::blendv(Vec(0.0f), grad_phi[i] * Vec(feature_scale<S>(m)), active);
    }
    for (int d = 0; d < S::key_dim(m); ++d) {
      grad_x[d] = at::vec::fmadd(Vec(m.omega[i * S::key_dim(m) + d]), along, grad_x[d]);
    }
  }
  if constexpr (S::kMap == MemoryFeatures::kRelu) return;
  for (int d = 0; d < S::key_dim(m); ++d) grad_x[d] = at::vec::fmadd(envelope, x[d], grad_x[d]);
}

/// 3. backwards for a key or query: stores the rows `grad_y` [D], returns the radius's gradient.
template <typename S>
Vec backward_address(const MemoryStepModel& m, const Address<S>& address, float radius,
                     const Vec* phi, const Vec* grad_phi, const Rows& grad_y, int i) {
  const Vec n = address.inverse_length, length = Vec(radius) * n;
  Vec x[S::kMaxKeyDim], grad_x[S::kMaxKeyDim];
  for (int d = 0; d < S::key_dim(m); ++d) x[d] = address.y[d] * length;
  backward_features<S>(m, x, phi, grad_phi, grad_x);
  Vec dot(0.0f);
  for (int d = 0; d < S::key_dim(m); ++d) dot = at::vec::fmadd(grad_x[d], address.y[d], dot);
  const Vec radial = n * n * dot;
  for (int d = 0; d < S::key_dim(m); ++d) {
    store(grad_y[d] + i, length * (grad_x[d] - address.y[d] * radial));
  }
  return n * dot;
}

/// 6. and 5. backwards for one vector of coordinates of one head: the old memory's gradient, those
/// of the features, and, returned, that of the decay.
template <typename S>
Vec backward_memory(const MemoryStepBackwardParams& b, const Chunk& chunk, const Tape& tape, int h,
                    int i, Vec* grad_key, Vec* grad_query) {
  const MemoryStepParams& p = b.forward;
  const int features = S::features(p.model), lanes = chunk.lanes(i);
  const Vec decay(p.model.decay[h]), floor(normaliser_floor<S>());
  const Vec normaliser = load(tape.normaliser[h] + i), size = load(chunk.size[h] + i);
  const Vec inverse = Vec(1.0f) / at::vec::maximum(normaliser, floor);
  const Vec by_mean = load(tape.grad_mean[h] + i) * inverse;
  const Vec by_variance = load(tape.grad_variance[h] + i) * inverse;
  const Vec by_normaliser = (by_mean * load(chunk.mean[h] + i) + by_variance * size * size).neg();
  const Vec by_sum[kMemoryChannels] = {by_mean, by_variance,
                                       Vec::blendv(Vec(0.0f), by_normaliser, normaliser >= floor)};
  const Vec grad = load(chunk.grad[0] + i);
  const Vec value[kMemoryChannels] = {grad, grad * grad, Vec(1.0f)};
  Vec grad_decay(0.0f);
  for (int r = 0; r < features; ++r) {
    const int row = h * features + r;
    const Vec query = load(tape.query[row] + i);
    Vec by_key(0.0f), by_query(0.0f);
    for (int c = 0; c < kMemoryChannels; ++c) {
      const int channel = row * kMemoryChannels + c;
      const int64_t offset = channel * p.size + chunk.begin + i;
      Vec grad_next = query * by_sum[c];
      prefetch(b.grad_memory + offset);
      if (b.grad_memory_out != nullptr) {
        prefetch(b.grad_memory_out + offset);
        grad_next = grad_next + load(b.grad_memory_out + offset, lanes);
      }
      by_query = at::vec::fmadd(by_sum[c], load(tape.memory[channel] + i), by_query);
      by_key = at::vec::fmadd(grad_next, value[c], by_key);
      grad_decay = at::vec::fmadd(grad_next, load(p.memory + offset, lanes), grad_decay);
      store(b.grad_memory + offset, decay * grad_next, lanes);
    }
    grad_key[r] = by_key;
    grad_query[r] = by_query;
  }
  return grad_decay;
}

template <typename S>
void backward_head(const MemoryStepBackwardParams& b, const Chunk& chunk, const Tape& tape,
                   const MemoryGradLayout& layout, int h) {
  const MemoryStepModel& m = b.forward.model;
  const int address_size = m.key_dim * kMemoryToken;
  const Rows grad_query_rows{tape.grad_address[m.key_dim]};
  Vec phi[S::kMaxFeatures], grad_key[S::kMaxFeatures], grad_query[S::kMaxFeatures];
  Vec grad_decay(0.0f), grad_radius(0.0f);
  for (int i = 0; i < chunk.padded; i += kWidth) {
    grad_decay = grad_decay + backward_memory<S>(b, chunk, tape, h, i, grad_key, grad_query);
    if constexpr (!S::kConstant) {
      Vec token[kMemoryToken - 1];
      for (int f = 0; f < kMemoryToken - 1; ++f) token[f] = load(chunk.token[f] + i);
      for (int r = 0; r < S::features(m); ++r) phi[r] = load(tape.key[h * S::features(m) + r] + i);
      grad_radius =
          grad_radius + backward_address<S>(m, Address<S>(m, m.key + h * address_size, token),
                                            m.radius[h], phi, grad_key, tape.grad_address, i);
      for (int r = 0; r < S::features(m); ++r)
        phi[r] = load(tape.query[h * S::features(m) + r] + i);
      grad_radius =
          grad_radius + backward_address<S>(m, Address<S>(m, m.query + h * address_size, token),
                                            m.radius[h], phi, grad_query, grad_query_rows, i);
    }
  }
  tape.add(layout.decay + h, grad_decay);
  if constexpr (!S::kConstant) {
    tape.add(layout.radius + h, grad_radius);
    add_outer(tape, chunk, layout.key + h * address_size, tape.grad_address, m.key_dim, chunk.token,
              kMemoryToken);
    add_outer(tape, chunk, layout.query + h * address_size, grad_query_rows, m.key_dim, chunk.token,
              kMemoryToken);
  }
}

template <typename S>
void backward_chunk(const MemoryStepBackwardParams& b, const Chunk& chunk, const Tape& tape,
                    const MemoryGradLayout& layout) {
  const MemoryStepParams& p = b.forward;
  const MemoryStepModel& m = p.model;
  load_tokens(p, chunk);
  for (int h = 0; h < m.heads; ++h) recompute_head<S>(p, chunk, tape, h);
  fill_decoder_inputs(p, chunk);
  recompute_hidden(p, chunk, tape);
  backward_outputs(b, chunk, tape, layout);
  add_outer(tape, chunk, layout.output_weight, tape.grad_output, 2, tape.hidden, m.hidden);
  add_rows(tape, chunk, layout.output_bias, tape.grad_output, 2);
  add_outer(tape, chunk, layout.hidden_weight, tape.grad_hidden, m.hidden, chunk.decoder,
            memory_decoder_rows(m));
  add_rows(tape, chunk, layout.hidden_bias, tape.grad_hidden, m.hidden);
  backward_hidden(m, chunk, tape);
  backward_decoder_inputs(p, chunk, tape);
  for (int h = 0; h < m.heads; ++h) backward_head<S>(b, chunk, tape, layout, h);
}

template <typename S>
void backward(const MemoryStepBackwardSlice& slice) {
  const MemoryStepBackwardParams& b = slice.problem;
  const MemoryStepModel& m = b.forward.model;
  const MemoryGradLayout layout = memory_grad_layout(m);
  Arena arena(slice.scratch);
  Chunk chunk(m, arena);
  const Tape tape(m, arena);
  for (int w = 0; w < layout.size * kMemoryLanes; ++w) tape.lanes[w] = 0.0f;
  for (int64_t begin = slice.begin; begin < slice.end; begin += kMemoryChunk) {
    chunk.move_to(begin, slice.end);
    backward_chunk<S>(b, chunk, tape, layout);
  }
  float* sums = b.grad_weights + slice.begin / kMemorySpan * layout.size;
  for (int w = 0; w < layout.size; ++w) {
    float sum = 0.0f;
    for (int lane = 0; lane < kWidth; ++lane) sum += tape.lanes[w * kMemoryLanes + lane];
    sums[w] = sum;
  }
}

}  // namespace

void memory_step_backward(const MemoryStepBackwardSlice& slice) {
  with_sizes(slice.problem.forward.model, [&](auto sizes) { backward<decltype(sizes)>(slice); });
}

int64_t memory_step_backward_scratch(const MemoryStepModel& model) {
  Arena counter(nullptr);
  const Chunk chunk(model, counter);
  const Tape tape(model, counter);
  return counter.taken();
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
