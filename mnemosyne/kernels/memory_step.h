#pragma once

#include <cstdint>

#include "mnemosyne/kernels/dispatch.h"

// The fused memory step of one layer, float32. ops/memory_step/memory_step.h has the specification
// and its letters.

namespace mnemosyne::kernels {

enum class MemoryFeatures { kConstant, kFavorPlus, kHypPlus, kTrig, kRelu };

/// Coordinates that a kernel treats at a time; nothing transient is longer.
inline constexpr int kMemoryChunk = 128;

/// Coordinates over which gradients of weights are summed: whatever the threads, the same sums.
inline constexpr int64_t kMemorySpan = 4096;

inline constexpr int kMemoryToken = 4;     ///< F
inline constexpr int kMemoryChannels = 3;  ///< C

/// The largest sizes that the kernels have registers or stack for.
inline constexpr int kMemoryMaxHeads = 8;
inline constexpr int kMemoryMaxFeatures = 16;
inline constexpr int kMemoryMaxKeyDim = 8;
inline constexpr int kMemoryMaxHidden = 64;

/// Room for one vector register: the weight gradients are summed lane by lane.
inline constexpr int kMemoryLanes = 16;

/// Weights and sizes, the same for all coordinates.
struct MemoryStepModel {
  MemoryFeatures map;
  int heads, features, omegas, key_dim, hidden;  // H, R, M, D, U
  int momentum_head, variance_head;
  float direction_bound, magnitude_bound;
  const float* decay;          // [H]
  const float* key;            // [H, D, F]
  const float* query;          // [H, D, F]
  const float* radius;         // [H]
  const float* omega;          // [M, D]
  const float* hidden_weight;  // [U, Z]
  const float* output_weight;  // [2, U]
  const float* output_bias;    // [2]
};

// The functions of this header are static: each translation unit has its own copy, so that the
// linker cannot keep one that was compiled for another instruction set.

/// Z, the number of the decoder's inputs.
static inline constexpr int memory_decoder_rows(const MemoryStepModel& m) {
  return 4 + 2 * m.heads;
}

/// One tensor of a step; its items are its coordinates.
struct MemoryStepParams {
  MemoryStepModel model;
  int64_t size;              // N
  const float* grad;         // [N]
  const float* param;        // [N]
  const float* memory;       // [H, R, C, N]
  const float* hidden_bias;  // [U]
  const float* step;         // [1]
  const float* grad_scale;   // [1]
  const float* param_scale;  // [1]
  const float* eps;          // [1]
  const float* decay;        // [1] or null: param_out <- param - (update + decay param)
  float* memory_out;         // [H, R, C, N], may be `memory`
  float* update;             // [N] or null
  float* param_out;          // [N] or null, may be `param`
};

struct MemoryStepBackwardParams {
  MemoryStepParams forward;      // its outputs are not used
  const float* grad_update;      // [N] or null
  const float* grad_memory_out;  // [H, R, C, N] or null
  float* grad_memory;            // [H, R, C, N]
  // [N / kMemorySpan rounded up, memory_grad_layout(model).size]: the sum over each span. A slice
  // is within one span and writes its row.
  float* grad_weights;
};

/// Where each weight's gradient lies in `grad_weights`.
struct MemoryGradLayout {
  int decay, key, query, radius, hidden_weight, output_weight, output_bias, hidden_bias, step, size;
};

static inline constexpr MemoryGradLayout memory_grad_layout(const MemoryStepModel& m) {
  const int addresses = m.heads * m.key_dim * kMemoryToken;
  MemoryGradLayout layout{};
  layout.decay = 0;
  layout.key = layout.decay + m.heads;
  layout.query = layout.key + addresses;
  layout.radius = layout.query + addresses;
  layout.hidden_weight = layout.radius + m.heads;
  layout.output_weight = layout.hidden_weight + m.hidden * memory_decoder_rows(m);
  layout.output_bias = layout.output_weight + 2 * m.hidden;
  layout.hidden_bias = layout.output_bias + 2;
  layout.step = layout.hidden_bias + m.hidden;
  layout.size = layout.step + 1;
  return layout;
}

/// The forward step on CUDA tensors, on `stream` (a cudaStream_t); model and tensor pointers are on
/// the device. Throws std::runtime_error when the launch fails or the
/// library was built without CUDA.
void memory_step_forward_cuda(const MemoryStepParams& params, void* stream);

using MemoryStepSlice = Slice<MemoryStepParams>;
using MemoryStepBackwardSlice = Slice<MemoryStepBackwardParams>;

}  // namespace mnemosyne::kernels

MN_DECLARE_KERNEL(memory_step_forward, MemoryStepSlice)
MN_DECLARE_KERNEL(memory_step_backward, MemoryStepBackwardSlice)
MN_DECLARE_SCRATCH(memory_step_forward_scratch, MemoryStepModel)
MN_DECLARE_SCRATCH(memory_step_backward_scratch, MemoryStepModel)
