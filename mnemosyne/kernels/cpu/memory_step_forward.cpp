#include "mnemosyne/kernels/cpu/memory_step_chunk.h"

namespace mnemosyne::kernels::CPU_CAPABILITY {
namespace {

/// 3. to 6. for one head: writes the memory's rows and the rows `mean` and `size`.
template <typename S>
void write_and_read(const MemoryStepParams& p, const Chunk& chunk, int h) {
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
    float* to = p.memory_out + first + i;
    for (int r = 0; r < S::features(m); ++r) {
      const Vec written[kMemoryChannels] = {key[r] * grad, key[r] * square, key[r]};
      for (int c = 0; c < kMemoryChannels; ++c, from += p.size, to += p.size) {
        prefetch(from);
        const Vec next = at::vec::fmadd(decay, load(from, lanes), written[c]);
        store(to, next, lanes);
        sums[c] = at::vec::fmadd(query[r], next, sums[c]);
      }
    }
    const Vec inverse = Vec(1.0f) / at::vec::maximum(sums[2], Vec(normaliser_floor<S>()));
    store(chunk.mean[h] + i, sums[0] * inverse);
    store(chunk.size[h] + i, at::vec::maximum(sums[1] * inverse, Vec(kSmallestVariance)).sqrt());
  }
}

/// 8. and 9. for the vector at i, given the two outputs before their bias.
void apply(const MemoryStepParams& p, const Chunk& chunk, int i, const Vec& output0,
           const Vec& output1) {
  const MemoryStepModel& m = p.model;
  const int lanes = chunk.lanes(i);
  if (lanes == 0) return;
  const Vec inverse = Vec(1.0f) / (load(chunk.size[m.variance_head] + i) + Vec(*p.eps));
  const Vec base = load(chunk.mean[m.momentum_head] + i) * inverse;
  const Vec direction =
      at::vec::fmadd(Vec(m.direction_bound), squash(output0 + Vec(m.output_bias[0])), base);
  const Vec magnitude = (Vec(m.magnitude_bound) * squash(output1 + Vec(m.output_bias[1]))).exp();
  const Vec update = Vec(*p.step) * direction * magnitude;
  if (p.update != nullptr) store(p.update + chunk.begin + i, update, lanes);
  if (p.param_out != nullptr) {
    const Vec param = load(p.param + chunk.begin + i, lanes);
    store(p.param_out + chunk.begin + i,
          param - at::vec::fmadd(Vec(p.decay != nullptr ? *p.decay : 0.0f), param, update), lanes);
  }
}

void decode(const MemoryStepParams& p, const Chunk& chunk) {
  const float* weight = p.model.output_weight;
  const int hidden = p.model.hidden;
  for (int i = 0; i < chunk.padded; i += 2 * kWidth) {
    Vec low[2] = {Vec(0.0f), Vec(0.0f)}, high[2] = {Vec(0.0f), Vec(0.0f)};
    for (int j = 0; j < hidden; ++j) {
      const HiddenPair unit(p, chunk, j, i);
      for (int k = 0; k < 2; ++k) {
        low[k] = at::vec::fmadd(Vec(weight[k * hidden + j]), unit.low, low[k]);
        high[k] = at::vec::fmadd(Vec(weight[k * hidden + j]), unit.high, high[k]);
      }
    }
    apply(p, chunk, i, low[0], low[1]);
    apply(p, chunk, i + kWidth, high[0], high[1]);
  }
}

template <typename S>
void forward(const MemoryStepSlice& slice) {
  const MemoryStepParams& p = slice.problem;
  Arena arena(slice.scratch);
  Chunk chunk(p.model, arena);
  for (int64_t begin = slice.begin; begin < slice.end; begin += kMemoryChunk) {
    chunk.move_to(begin, slice.end);
    load_tokens(p, chunk);
    for (int h = 0; h < p.model.heads; ++h) write_and_read<S>(p, chunk, h);
    fill_decoder_inputs(p, chunk);
    decode(p, chunk);
  }
}

}  // namespace

void memory_step_forward(const MemoryStepSlice& slice) {
  with_sizes(slice.problem.model, [&](auto sizes) { forward<decltype(sizes)>(slice); });
}

int64_t memory_step_forward_scratch(const MemoryStepModel& model) {
  Arena counter(nullptr);
  const Chunk chunk(model, counter);
  return counter.taken();
}

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
