#pragma once

#include <cstdint>
#include <vector>

namespace mnemosyne::ops {

/// What to measure: one example, float32, random inputs, on the threads that are set.
struct AttentionBenchmarkOptions {
  std::vector<int64_t> lengths = {256, 1024, 4096, 16384, 65536};  ///< L
  std::vector<int64_t> features = {64, 256};                       ///< M, of favor+
  int64_t heads = 8;
  int64_t depth = 64;                ///< D of queries, keys and values.
  std::vector<int64_t> ranks = {0};  ///< R of position factors; 0 for none.
  bool fading = false;               ///< Factors fade from token to token (`log_decay`).
  bool causal = true;
  int64_t longest_softmax = 16384;   ///< Softmax attention has L^2 terms,
  int64_t longest_with_bias = 4096;  ///< and a learned bias is a tensor [H,L,L].
  int repetitions = 3;               ///< The fastest of so many counts.
};

/// Seconds, and bytes that are allocated at the peak beyond inputs and results. All zero where the
/// length is beyond a limit of the options.
struct AttentionCost {
  double forward_seconds = 0;
  double training_seconds = 0;  ///< forward and backward
  int64_t forward_bytes = 0;
  int64_t training_bytes = 0;
};

/// One length.
struct AttentionBenchmarkRow {
  int64_t length = 0;
  AttentionCost softmax{};            ///< at::scaled_dot_product_attention
  AttentionCost softmax_with_bias{};  ///< the same with a learned bias per head
  /// `linear_attention`: for each number of features one for each rank.
  std::vector<AttentionCost> linear{};
  std::vector<double> forward_share{};  ///< of `multiply_rate`: operations / seconds / rate
  std::vector<double> training_share{};
};

struct AttentionBenchmark {
  /// Operations a second of the fastest float32 product found in the same run, of matrices of
  /// several sizes through at::mm and through at::conv1d (oneDNN).
  double multiply_rate = 0;
  std::vector<AttentionBenchmarkRow> rows{};
};

/// Times attention against length. Absolute numbers depend on what else the machine does: compare
/// within one result.
AttentionBenchmark benchmark_attention(const AttentionBenchmarkOptions& options = {});

/// Operations (multiplications and additions) of the products of the kernel's algorithm, chunks
/// with a state or pairs of blocks, of one example: what it has to compute, the triangle of a
/// causal chunk included and the exponentials not. `training` counts the backward pass with its
/// recomputation of features and states, too.
double linear_attention_operations(const AttentionBenchmarkOptions& options, int64_t length,
                                   int64_t features, int64_t rank, bool training);

}  // namespace mnemosyne::ops
