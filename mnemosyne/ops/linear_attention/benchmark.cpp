#include "mnemosyne/ops/linear_attention/benchmark.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>

#include "mnemosyne/kernels/linear_attention.h"
#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::ops {
namespace {

/// Follows what tensors of this thread allocate while it is installed.
class PeakMemory : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    held_ += size;
    peak_ = std::max(peak_, held_);
  }
  bool memoryProfilingEnabled() const override { return true; }

  /// Bytes at the peak that are no longer held.
  int64_t extra() const { return peak_ - held_; }

 private:
  int64_t held_ = 0;
  int64_t peak_ = 0;
};

double seconds(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double fastest(int repetitions, const std::function<void()>& body) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repetitions; ++i) best = std::min(best, seconds(body));
  return best;
}

int64_t extra_bytes(const std::function<std::vector<at::Tensor>()>& body) {
  const auto memory = std::make_shared<PeakMemory>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, memory);
  const std::vector<at::Tensor> results = body();
  return memory->extra();
}

/// Costs of an attention, a function of `inputs`.
AttentionCost cost_of(const std::vector<at::Tensor>& inputs, int repetitions,
                      const std::function<at::Tensor(const std::vector<at::Tensor>&)>& attention) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& x : inputs) leaves.push_back(x.detach().requires_grad_(true));
  const at::Tensor grad = at::ones_like(inputs[0]);
  const auto forward = [&]() -> std::vector<at::Tensor> {
    const at::NoGradGuard no_grad;
    return {attention(inputs)};
  };
  const auto training = [&]() -> std::vector<at::Tensor> {
    const at::AutoGradMode with_grad(true);
    const at::Tensor output = attention(leaves);
    std::vector<at::Tensor> results = torch::autograd::grad({output}, leaves, {grad});
    results.push_back(output.detach());
    return results;
  };
  AttentionCost cost;
  // The passes that measure memory also warm caches.
  cost.forward_bytes = extra_bytes(forward);
  cost.forward_seconds = fastest(repetitions, [&] { forward(); });
  cost.training_bytes = extra_bytes(training);
  cost.training_seconds = fastest(repetitions, [&] { training(); });
  return cost;
}

at::TensorOptions real() { return at::TensorOptions(at::kFloat); }

/// Operations a second of the fastest product found.
double multiply_rate(int repetitions) {
  const at::NoGradGuard no_grad;
  double rate = 0;
  for (const int64_t size : {256, 512, 1024}) {
    const at::Tensor a = at::randn({size, size}, real()), b = at::randn({size, size}, real());
    const double operations = 2.0 * static_cast<double>(size * size * size);
    const int rounds = static_cast<int>(1024 / size);
    const auto measure = [&](const std::function<void()>& body) {
      body();
      const double best = fastest(3 * repetitions * rounds, body);
      rate = std::max(rate, operations / best);
    };
    measure([&] { at::mm(a, b); });
    measure([&] { at::conv1d(b.unsqueeze(0), a.unsqueeze(-1)); });
  }
  return rate;
}

/// Costs of `linear_attention`; `inputs` are query, key and value.
AttentionCost linear_cost(const AttentionBenchmarkOptions& options, std::vector<at::Tensor> inputs,
                          int64_t features, int64_t rank) {
  const std::vector<int64_t> table = {options.heads, inputs[0].size(2), rank};
  if (rank > 0) {
    inputs.push_back(at::rand(table, real()));
    inputs.push_back(at::rand(table, real()));
    if (options.fading) inputs.push_back(at::rand(table, real()).mul_(-0.1));
  }
  const LinearAttentionOptions how{.feature_map = FeatureMapKind::kFavorPlus,
                                   .omega = at::randn({features, options.depth}, real()),
                                   .causal = options.causal,
                                   .with_state = false};
  return cost_of(inputs, options.repetitions, [&](const std::vector<at::Tensor>& x) {
    LinearAttentionInputs call{.query = x[0], .key = x[1], .value = x[2]};
    if (x.size() > 3) {
      call.query_factor = x[3];
      call.key_factor = x[4];
    }
    if (x.size() > 5) call.log_decay = x[5];
    return linear_attention(call, how).output;
  });
}

AttentionBenchmarkRow measure(const AttentionBenchmarkOptions& options, int64_t length,
                              double rate) {
  AttentionBenchmarkRow row{.length = length};
  const auto normal = [&] { return at::randn({1, options.heads, length, options.depth}, real()); };
  const std::vector<at::Tensor> inputs = {normal(), normal(), normal()};
  for (const int64_t features : options.features) {
    for (const int64_t rank : options.ranks) {
      const AttentionCost cost = linear_cost(options, inputs, features, rank);
      const auto share = [&](bool training, double time) {
        return linear_attention_operations(options, length, features, rank, training) / time / rate;
      };
      row.linear.push_back(cost);
      row.forward_share.push_back(share(false, cost.forward_seconds));
      row.training_share.push_back(share(true, cost.training_seconds));
    }
  }
  if (length <= options.longest_softmax) {
    row.softmax = cost_of(inputs, options.repetitions, [&](const auto& x) {
      return at::scaled_dot_product_attention(x[0], x[1], x[2], {}, 0.0, options.causal);
    });
  }
  if (length <= options.longest_with_bias) {
    std::vector<at::Tensor> with_bias = inputs;
    with_bias.push_back(at::randn({1, options.heads, length, length}, real()));
    if (options.causal) {
      with_bias.back().add_(
          at::full({length, length}, -std::numeric_limits<float>::infinity(), real()).triu(1));
    }
    row.softmax_with_bias = cost_of(with_bias, options.repetitions, [](const auto& x) {
      return at::scaled_dot_product_attention(x[0], x[1], x[2], x[3]);
    });
  }
  return row;
}

}  // namespace

AttentionBenchmark benchmark_attention(const AttentionBenchmarkOptions& options) {
  AttentionBenchmark result{.multiply_rate = multiply_rate(options.repetitions)};
  for (const int64_t length : options.lengths) {
    result.rows.push_back(measure(options, length, result.multiply_rate));
  }
  return result;
}

double linear_attention_operations(const AttentionBenchmarkOptions& options, int64_t length,
                                   int64_t features, int64_t rank, bool training) {
  const auto number = [](int64_t x) { return static_cast<double>(x); };
  const int64_t parts = std::max<int64_t>(rank, 1);
  const kernels::LinearAttentionSizes sizes{.batch = 1,
                                            .heads = options.heads,
                                            .key_heads = options.heads,
                                            .queries = length,
                                            .keys = length,
                                            .depth = options.depth,
                                            .value_depth = options.depth,
                                            .omegas = features,
                                            .rank = parts};
  const double depth = number(options.depth), width = number(features), position = number(rank);
  const double project = 2 * depth * width, state = 2 * number(parts) * width * depth;
  const int64_t chunk = std::min(kernels::attention_chunk(parts), length);
  // For each token: products with omega, with a state, and half a product for each pair.
  const auto pass = [&](bool backward, double projections, double states, double pair) {
    const bool blocks = kernels::attention_prefers_blocks(sizes, kernels::AttentionFeatures::kExp,
                                                          options.causal, backward);
    const double in_chunk = options.causal ? number(chunk + 1) : 0;
    const double partners = !blocks ? in_chunk : number(options.causal ? length + 1 : 2 * length);
    return projections * project + (blocks ? 0 : states * state) + partners * pair;
  };
  double total = pass(false, 2, 2, width + depth + position);
  if (training) {
    total += pass(true, options.causal ? 6 : 5, 5, 3 * width + 3 * depth + 4 * position);
  }
  return total * number(length * options.heads);
}

}  // namespace mnemosyne::ops
