#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace mnemosyne::ops {

/// Seconds for one pass over a list of matrices, each the smallest of several passes that take
/// turns.
struct OrthogonalizeTimes {
  double fused = 0;     ///< `orthogonalize_`
  double products = 0;  ///< `orthogonalize_` as on a device without a kernel, in float32
  double muon = 0;      ///< what torch.optim.Muon does, see `muon_newton_schulz`
};

/// Times them over random matrices of the given sizes (rows, columns), on the threads that are set.
OrthogonalizeTimes benchmark_orthogonalize(const std::vector<std::pair<int64_t, int64_t>>& sizes,
                                           int repetitions = 5);

/// The matrices of ViT-Ti/16 (width 192, 12 blocks, 1,000 classes) that an orthogonalising
/// optimizer meets: patch embedding, position embedding, qkv, projection and the two of the MLP of
/// every block, and the head.
std::vector<std::pair<int64_t, int64_t>> vit_tiny_matrices();

}  // namespace mnemosyne::ops
