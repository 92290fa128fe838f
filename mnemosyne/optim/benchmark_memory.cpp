#include "mnemosyne/optim/benchmark_memory.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <chrono>

#include "mnemosyne/core/error.h"

namespace mnemosyne::optim {
namespace {

using Clock = std::chrono::steady_clock;
using Step = ops::MemoryStepResult (*)(const ops::MemoryStepInputs&, const ops::MemoryStepWeights&,
                                       const ops::MemoryStepOptions&);

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Problem {
  ops::MemoryStepInputs inputs;
  ops::MemoryStepWeights weights;
  ops::MemoryStepOptions options;
  std::vector<at::Tensor> variables;
  int64_t coordinates = 0;
};

Problem make_problem(const MemoryBenchmarkOptions& options) {
  const CoordinateRule rule(options.rule);
  const at::TensorOptions real(at::kFloat);
  const auto count = static_cast<int64_t>(options.sizes.size());
  Problem problem;
  problem.options = rule.step_options();
  problem.weights = rule.step_weights(real);
  ops::MemoryStepInputs& in = problem.inputs;
  for (const int64_t size : options.sizes) {
    in.grads.push_back(at::randn({size}, real));
    in.params.push_back(at::randn({size}, real));
    in.memories.push_back(rule.init(in.params.back())[1]);
    problem.coordinates += size;
  }
  in.hidden_bias = at::zeros({count, options.rule.hidden}, real);
  in.step = at::full({count}, 1e-3, real);
  in.grad_scale = in.param_scale = at::ones({count});
  in.eps = at::full({count}, 1e-8);
  const ops::MemoryLayerWeights& layer = problem.weights.layers[0];
  for (const at::Tensor& tensor :
       {layer.decay, layer.key, layer.query, layer.radius, problem.weights.hidden_weight,
        problem.weights.output_weight, problem.weights.output_bias, in.hidden_bias, in.step}) {
    if (tensor.defined()) problem.variables.push_back(tensor.requires_grad_(true));
  }
  return problem;
}

/// Seconds of one window: its steps, and the gradient of all weights for given gradients of the
/// updates.
double time_window(const Problem& problem, Step step, int64_t window) {
  const auto start = Clock::now();
  ops::MemoryStepInputs inputs = problem.inputs;
  std::vector<at::Tensor> updates, grads;
  for (int64_t s = 0; s < window; ++s) {
    ops::MemoryStepResult result = step(inputs, problem.weights, problem.options);
    updates.insert(updates.end(), result.updates.begin(), result.updates.end());
    grads.insert(grads.end(), inputs.grads.begin(), inputs.grads.end());
    inputs.memories = std::move(result.memories);
  }
  torch::autograd::grad(updates, problem.variables, grads);
  return since(start);
}

double time_in_place(Problem& problem, int64_t window) {
  const at::NoGradGuard no_grad;
  const auto start = Clock::now();
  for (int64_t s = 0; s < window; ++s) {
    ops::memory_step_(problem.inputs, problem.weights, problem.options);
  }
  return since(start);
}

}  // namespace

MemoryBenchmark benchmark_memory_step(const MemoryBenchmarkOptions& options) {
  Problem problem = make_problem(options);
  if (!ops::memory_step_is_fused(problem.inputs, problem.weights)) {
    throw InputError("[benchmark_memory_step] expected sizes that have a fused kernel");
  }
  time_window(problem, ops::memory_step, 2);
  time_window(problem, ops::memory_step_reference, 2);
  double reference = 0.0, fused = 0.0, in_place = 0.0;
  int64_t reference_windows = 0, fused_windows = 0, in_place_windows = 0;
  while (reference < options.seconds || fused < options.seconds) {
    reference += time_window(problem, ops::memory_step_reference, options.window);
    ++reference_windows;
    // The fused window is repeated to fill a like share of the time.
    for (const double until = fused + reference / static_cast<double>(reference_windows);
         fused < until; ++fused_windows) {
      fused += time_window(problem, ops::memory_step, options.window);
    }
  }
  for (; in_place < options.seconds; ++in_place_windows) {
    in_place += time_in_place(problem, options.window);
  }
  const double steps = static_cast<double>(options.window * problem.coordinates);
  return {.reference = steps * static_cast<double>(reference_windows) / reference,
          .fused = steps * static_cast<double>(fused_windows) / fused,
          .in_place = steps * static_cast<double>(in_place_windows) / in_place};
}

}  // namespace mnemosyne::optim
