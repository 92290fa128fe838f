#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace mnemosyne::nn {

// T = rows, N = tokens of all of them, C = chunks of all of them, L = places of a chunk, E = width.

/// How T rows of tokens of any lengths, one row after the other in [N,E], are cut into chunks of at
/// most so many tokens, which a Transformer takes as a batch [C,L,E] with a mask. No chunk holds
/// tokens of two rows, a row without tokens has one empty chunk, and what stands in padding is
/// zero.
///
///     const nn::ChunkPlan plan({5, 0, 3}, 4, at::kCPU);   // chunks of 4, 1, 0 and 3 tokens
///     at::Tensor chunks = plan.gather(tokens);            // [8,E] to [4,4,E]
class ChunkPlan {
 public:
  ChunkPlan() = default;
  /// `counts` [T] are the tokens of each row; `length` 0: every row is one chunk, C = T, be
  /// it empty. Everything lies on `device`. c10::Error for a count or a length below 0.
  ChunkPlan(const std::vector<int64_t>& counts, int64_t length, at::Device device);

  /// The chunks of each row, [T]: counts of the next level.
  const std::vector<int64_t>& chunk_counts() const { return chunk_counts_; }

  int64_t num_tokens() const { return place_.defined() ? place_.size(0) : 0; }  ///< N.

  /// bool [C,L]: true where there is a token; undefined where that is everywhere.
  const at::Tensor& mask() const { return mask_; }

  /// [N,E] to [C,L,E].
  at::Tensor gather(const at::Tensor& tokens) const;

  /// [C,L,E] to [N,E].
  at::Tensor scatter(const at::Tensor& chunks) const;

  /// The mean of each chunk's tokens, [N,E] to [C,E]; zero for an empty one.
  at::Tensor pool(const at::Tensor& tokens) const;

  /// To each token what its chunk has, [C,E] to [N,E].
  at::Tensor spread(const at::Tensor& values) const;

 private:
  std::vector<int64_t> chunk_counts_;
  at::Tensor source_;   // int64 [C L], into [N]; of padding the first
  at::Tensor place_;    // int64 [N], into [C L]
  at::Tensor chunk_;    // int64 [N], into [C]
  at::Tensor mask_;     // bool [C,L], or undefined
  int64_t places_ = 1;  // L
  at::Tensor padding_;  // bool [C L,1], where there is none; undefined: everywhere there is one
  at::Tensor sizes_;    // float32 [C,1], tokens of each chunk, at least 1
};

}  // namespace mnemosyne::nn
