#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "mnemosyne/kernels/memory_step.h"

// One thread a coordinate; rows of the memory are read and written by neighbouring threads
// together, the weights are the same for all of them. Numbers in comments are those of
// ops/memory_step/memory_step.h.

namespace mnemosyne::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxInputs = 4 + 2 * kMemoryMaxHeads;

__device__ inline float squash(float x) { return x / sqrtf(1.0f + x * x); }

/// 3. phi of a key or query of one head.
__device__ void address_features(const MemoryStepModel& m, const float* weight, float radius,
                                 const float* token, float* phi) {
  float x[kMemoryMaxKeyDim];
  float square = 0.0f;
  for (int d = 0; d < m.key_dim; ++d) {
    const float* w = weight + d * kMemoryToken;
    x[d] = w[0] * token[0] + w[1] * token[1] + w[2] * token[2] + w[3];
    square += x[d] * x[d];
  }
  const float length = radius / sqrtf(1.0f + square);
  const float half_norm = 0.5f * square * length * length;
  const bool twice = m.map == MemoryFeatures::kHypPlus;
  const float scale = rsqrtf(static_cast<float>(twice ? 2 * m.omegas : m.omegas));
  for (int i = 0; i < m.omegas; ++i) {
    float projection = 0.0f;
    for (int d = 0; d < m.key_dim; ++d) projection += m.omega[i * m.key_dim + d] * x[d];
    projection *= length;
    if (m.map == MemoryFeatures::kTrig) {
      const float envelope = expf(half_norm) * scale;
      phi[i] = cosf(projection) * envelope;
      phi[m.omegas + i] = sinf(projection) * envelope;
    } else if (m.map == MemoryFeatures::kRelu) {
      phi[i] = fmaxf(projection, 0.0f) * scale + 1e-3f;
    } else {
      phi[i] = expf(projection - half_norm) * scale;
      if (twice) phi[m.omegas + i] = expf(-projection - half_norm) * scale;
    }
  }
}

/// 4. to 6. for one head.
__device__ void write_and_read(const MemoryStepParams& p, int64_t i, int h, float grad,
                               const float* token, float& mean, float& size) {
  const MemoryStepModel& m = p.model;
  float key[kMemoryMaxFeatures], query[kMemoryMaxFeatures];
  if (m.map == MemoryFeatures::kConstant) {
    key[0] = query[0] = 1.0f;
  } else {
    const int offset = h * m.key_dim * kMemoryToken;
    address_features(m, m.key + offset, m.radius[h], token, key);
    address_features(m, m.query + offset, m.radius[h], token, query);
  }
  const float value[kMemoryChannels] = {grad, grad * grad, 1.0f};
  float sums[kMemoryChannels] = {};
  int64_t offset = static_cast<int64_t>(h) * m.features * kMemoryChannels * p.size + i;
  for (int r = 0; r < m.features; ++r) {
    for (int c = 0; c < kMemoryChannels; ++c, offset += p.size) {
      const float next = m.decay[h] * p.memory[offset] + key[r] * value[c];
      p.memory_out[offset] = next;
      sums[c] += query[r] * next;
    }
  }
  const float floor = m.map == MemoryFeatures::kTrig ? 0.1f : 1e-12f;
  const float inverse = 1.0f / fmaxf(sums[2], floor);
  mean = sums[0] * inverse;
  size = sqrtf(fmaxf(sums[1] * inverse, 1e-36f));
}

/// 8. and 9.
__device__ float decode(const MemoryStepParams& p, const float* z, float base) {
  const MemoryStepModel& m = p.model;
  const int inputs = 4 + 2 * m.heads;
  float direction = m.output_bias[0], magnitude = m.output_bias[1];
  for (int j = 0; j < m.hidden; ++j) {
    float unit = p.hidden_bias[j];
    for (int f = 0; f < inputs; ++f) unit += m.hidden_weight[j * inputs + f] * z[f];
    unit = fmaxf(unit, 0.0f);
    direction += m.output_weight[j] * unit;
    magnitude += m.output_weight[m.hidden + j] * unit;
  }
  return *p.step * (base + m.direction_bound * squash(direction)) *
         expf(m.magnitude_bound * squash(magnitude));
}

__global__ void memory_step_kernel(const MemoryStepParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.size) return;
  const MemoryStepModel& m = p.model;
  const float grad = fminf(fmaxf(p.grad[i], -1e17f), 1e17f);
  const float param = p.param[i], scaled = grad * *p.grad_scale;
  float z[kMaxInputs], mean[kMemoryMaxHeads], size[kMemoryMaxHeads];
  z[0] = squash(scaled);
  z[1] = fminf(fmaxf(logf(fabsf(scaled) + 1e-9f) * 0.1f, -1.0f), 1.0f);
  z[2] = squash(param * *p.param_scale);
  for (int h = 0; h < m.heads; ++h) write_and_read(p, i, h, grad, z, mean[h], size[h]);
  const float base_size = size[m.variance_head];
  const float inverse = 1.0f / (base_size + *p.eps);
  z[3] = squash(grad * inverse);
  for (int h = 0; h < m.heads; ++h) {
    z[4 + h] = squash(mean[h] * inverse);
    z[4 + m.heads + h] = (size[h] - base_size) / (size[h] + base_size);
  }
  const float update = decode(p, z, mean[m.momentum_head] * inverse);
  if (p.update != nullptr) p.update[i] = update;
  const float decay = p.decay != nullptr ? *p.decay : 0.0f;
  if (p.param_out != nullptr) p.param_out[i] = param - (update + decay * param);
}

}  // namespace

void memory_step_forward_cuda(const MemoryStepParams& params, void* stream) {
  if (params.size <= 0) return;
  const auto blocks = static_cast<unsigned>((params.size + kThreads - 1) / kThreads);
  memory_step_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(params);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("[memory_step] CUDA: ") + cudaGetErrorString(error));
  }
}

}  // namespace mnemosyne::kernels
