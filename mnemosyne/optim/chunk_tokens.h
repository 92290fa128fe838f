#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::optim {

// T = tensors, C = chunks of all of them.

/// How a list of parameters is cut into chunks, and where these are.
struct ChunkGeometry {
  std::vector<int64_t> counts;  ///< Chunks of each tensor, [T].
  at::Tensor owners;            ///< int64 [C], the tensor of each chunk.
  at::Tensor positions;         ///< float64 [C,3]: of a chunk's middle along the first two axes and
                                ///< along the rest, in units of what a chunk covers, at least 1.
  at::Tensor sizes;             ///< float64 [C], coordinates.
  int64_t first = 0;            ///< Of the chunks of a longer list, of which this is a part.

  ChunkGeometry() = default;
  /// On the CPU. Reads sizes of the parameters, not strides: chunks are runs in row-major order.
  ChunkGeometry(at::TensorList params, int64_t chunk_size);

  ChunkGeometry on(at::Device device) const;

  /// That of `count` tensors from the one at `begin` on.
  ChunkGeometry part(size_t begin, size_t count) const;

  /// Numbers [T, ...] for the chunks of each tensor, [C, ...]; undefined ones stay so.
  at::Tensor spread(const at::Tensor& values) const;

  /// Sums [T, ...] of numbers [C, ...] over the chunks of each tensor.
  at::Tensor sum(const at::Tensor& values) const;
};

/// Sums over tensors of sums over chunks.
ops::StepSums sums_of_tensors(const ops::StepSums& chunks, const ChunkGeometry& geometry);

/// What is known of a chunk beside its tensor, float32 [C, chunk_feature_names(aligned).size()];
/// aligned where the sums have those of previous updates.
at::Tensor chunk_features(const ops::StepSums& chunks, const ops::StepSums& tensors,
                          const ChunkGeometry& geometry);

const std::vector<std::string>& chunk_feature_names(bool aligned);

/// The factor of each chunk's step from its output y [C]: f = exp(bound tanh y), divided by the
/// root of the mean of f^2 over the coordinates of the tensor, so that the tensor's step keeps its
/// norm.
at::Tensor chunk_factor(const at::Tensor& y, const ChunkGeometry& geometry, double bound);

/// A correction of tensors as one of their chunks.
ops::StepCorrection of_chunks(const ops::StepCorrection& tensors, const ChunkGeometry& geometry);

}  // namespace mnemosyne::optim
