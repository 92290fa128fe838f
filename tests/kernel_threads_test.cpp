// Every kernel: how many threads take part, and that results do not depend on it.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "isa_testing.h"
#include "linear_attention_cases.h"
#include "mnemosyne/kernels/isa.h"
#include "mnemosyne/nn/feature_map.h"
#include "mnemosyne/ops/lstm_step/lstm_step.h"
#include "mnemosyne/ops/memory_step/memory_step.h"
#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/parallel.h"
#include "mnemosyne/ops/short_attention/short_attention.h"
#include "mnemosyne/ops/tensor_step/tensor_step.h"
#include "testing.h"

namespace mnemosyne::ops {
namespace {

using testing::AttentionCase;
using Results = std::vector<at::Tensor>;

/// A kernel with inputs of its own: the same in every call.
struct Kernel {
  std::string name;
  std::function<Results()> run;
};

/// Results and all gradients of a call of linear attention.
Results run_attention(const AttentionCase& c) {
  testing::AttentionCall call = testing::make_call(c).leaves(at::kFloat);
  const LinearAttentionResult result = linear_attention(call.inputs, call.options);
  Results outputs{result.output};
  if (c.with_state) {
    outputs.insert(outputs.end(), {result.state.sums, result.state.normalizer});
  }
  Results seeds, leaves;
  for (const at::Tensor& x : outputs) seeds.push_back(at::linspace(-1, 1, x.numel()).view_as(x));
  for (at::Tensor* x : call.differentiable()) leaves.push_back(*x);
  for (const at::Tensor& grad : torch::autograd::grad(outputs, leaves, seeds, {}, false, true)) {
    if (grad.defined()) outputs.push_back(grad);
  }
  return outputs;
}

Results run_short_attention(int64_t examples, bool causal) {
  constexpr int64_t kTokens = 33, kHeads = 3, kDepth = 21;
  at::manual_seed(1);
  const at::Tensor qkv = at::randn({examples * kTokens, 3 * kHeads * kDepth}).requires_grad_(true);
  const at::Tensor output = short_attention(qkv, kTokens, kHeads, causal);
  const at::Tensor seed = at::linspace(-1, 1, output.numel()).view_as(output);
  return {output, torch::autograd::grad({output}, {qkv}, {seed})[0]};
}

struct MemoryProblem {
  MemoryStepInputs inputs;
  MemoryStepWeights weights;
  MemoryStepOptions options{.feature_map = FeatureMapKind::kHypPlus};
};

MemoryProblem make_memory_problem(const std::vector<int64_t>& sizes) {
  constexpr int64_t kHeads = 3, kFeatures = 2, kKey = 4, kHidden = 12;
  at::manual_seed(2);
  MemoryProblem problem;
  MemoryStepWeights& weights = problem.weights;
  const int64_t token = memory_layer_inputs(0, kHeads);
  weights.layers.push_back({.decay = at::rand({kHeads}) * 0.5 + 0.45,
                            .key = at::randn({kHeads, kKey, token}),
                            .query = at::randn({kHeads, kKey, token}),
                            .radius = at::rand({kHeads}) * 0.3 + 0.5,
                            .value = {}});
  weights.omega =
      nn::draw_omega(nn::num_omegas(FeatureMapKind::kHypPlus, kFeatures), kKey, 5).to(at::kFloat);
  weights.hidden_weight = at::randn({kHidden, memory_decoder_inputs(1, kHeads)});
  weights.output_weight = at::randn({2, kHidden});
  weights.output_bias = at::randn({2});
  MemoryStepInputs& in = problem.inputs;
  const auto count = static_cast<int64_t>(sizes.size());
  in.hidden_bias = at::randn({count, kHidden});
  in.step = at::rand({count}) + 0.5;
  in.grad_scale = in.param_scale = at::ones({count});
  in.eps = at::full({count}, 1e-8);
  for (const int64_t size : sizes) {
    in.grads.push_back(at::randn({size}));
    in.params.push_back(at::randn({size}));
    in.memories.push_back(at::rand({1, kHeads, kFeatures, 3, size}) + 0.1);
  }
  return problem;
}

Results run_memory_step(const std::vector<int64_t>& sizes) {
  MemoryProblem problem = make_memory_problem(sizes);
  MemoryStepWeights& weights = problem.weights;
  Results leaves = problem.inputs.memories;
  leaves.insert(leaves.end(),
                {weights.layers[0].decay, weights.layers[0].key, weights.layers[0].query,
                 weights.layers[0].radius, weights.hidden_weight, weights.output_weight,
                 weights.output_bias, problem.inputs.hidden_bias, problem.inputs.step});
  for (at::Tensor& leaf : leaves) leaf.requires_grad_(true);
  MemoryStepResult result = memory_step(problem.inputs, weights, problem.options);
  Results outputs = result.updates;
  outputs.insert(outputs.end(), result.memories.begin(), result.memories.end());
  Results seeds;
  for (const at::Tensor& x : outputs) seeds.push_back(at::linspace(-1, 1, x.numel()).view_as(x));
  const Results grads = torch::autograd::grad(outputs, leaves, seeds);
  outputs.insert(outputs.end(), grads.begin(), grads.end());
  return outputs;
}

Results run_memory_step_in_place(const std::vector<int64_t>& sizes) {
  MemoryProblem problem = make_memory_problem(sizes);
  const at::NoGradGuard no_grad;
  memory_step_(problem.inputs, problem.weights, problem.options,
               at::full({static_cast<int64_t>(sizes.size())}, 0.01));
  Results results = problem.inputs.params;
  results.insert(results.end(), problem.inputs.memories.begin(), problem.inputs.memories.end());
  return results;
}

Results run_lstm_step(const std::vector<int64_t>& sizes) {
  constexpr int64_t kHidden = 20, kFeatures = 2;
  at::manual_seed(3);
  const auto draw = [](at::IntArrayRef shape) { return 0.5 * at::randn(shape); };
  const LstmWeights weights{
      .matrices = {draw({4 * kHidden, kFeatures + kHidden}), draw({4 * kHidden, 2 * kHidden})},
      .biases = {draw({4 * kHidden}), draw({4 * kHidden})},
      .output_weight = draw({1, kHidden}),
      .output_bias = draw({1})};
  std::vector<LstmState> states;
  int64_t columns = 0;
  for (const int64_t size : sizes) {
    LstmState& state = states.emplace_back();
    for (at::Tensor& x : state) x = draw({kHidden, size});
    columns += size;
  }
  Results results{lstm_step_(draw({kFeatures, columns}), states, weights)};
  for (const LstmState& state : states) results.insert(results.end(), state.begin(), state.end());
  return results;
}

Results run_orthogonalize(int64_t matrices, int64_t rows) {
  at::manual_seed(4);
  Results results;
  for (int64_t i = 0; i < matrices; ++i) results.push_back(at::randn({rows + 7 * i, 64 + 3 * i}));
  orthogonalize_(results);
  return results;
}

Results run_tensor_step(const std::vector<std::vector<int64_t>>& shapes, int64_t chunk_size,
                        at::ScalarType second_moment = at::kFloat) {
  at::manual_seed(5);
  TensorStep step;
  step.chunk_size = chunk_size;
  for (const std::vector<int64_t>& shape : shapes) {
    step.params.push_back(at::randn(shape));
    step.grads.push_back(at::randn(shape));
    step.momenta.push_back(at::randn(shape));
    step.second_moments.push_back(at::rand(shape).to(second_moment));
    step.previous_updates.push_back(at::randn(shape).to(at::kBFloat16));
    step.rows.push_back(shape.size() > 1 ? shape[0] : 0);
    step.base.push_back({.step = 0.1, .decay = 0.01});
  }
  const StepSums sums = advance_moments_(step, /*with_sums=*/true);
  const at::Tensor half = at::full_like(sums.zeros, 0.5);
  const at::Tensor readouts = at::tensor({0.1, -0.2, 0.3, -0.1, 0.2});
  const StepCorrection correction{.step = half,
                                  .blend = half,
                                  .mixture = half,
                                  .decay = half,
                                  .readouts = readouts.expand({half.numel(), 5})};
  Results results{apply_directions_(step, sums, &correction)};
  for (const auto member : kStepSums) results.push_back(sums.*member);
  for (const auto* list :
       {&step.params, &step.momenta, &step.second_moments, &step.previous_updates}) {
    results.insert(results.end(), list->begin(), list->end());
  }
  return results;
}

/// Work for four threads at least.
std::vector<Kernel> large_kernels() {
  const AttentionCase attention{.batch = 2,
                                .heads = 8,
                                .key_heads = 4,
                                .queries = 140,
                                .keys = 140,
                                .depth = 32,
                                .value_depth = 24,
                                .omegas = 32};
  std::vector<Kernel> kernels;
  const auto add = [&](const std::string& name, std::function<Results()> run) {
    kernels.push_back({name, std::move(run)});
  };
  AttentionCase c = attention;
  c.state = c.mask = true;
  add("causal attention with a state", [c] { return run_attention(c); });
  c = attention;
  c.causal = false;
  c.map = FeatureMapKind::kTrig;
  c.spread = 0.3;
  add("attention in both directions", [c] { return run_attention(c); });
  c = attention;
  c.rank = 3;
  c.decay = 0.1;
  c.logs = c.state = true;
  add("attention with fading factors and logs", [c] { return run_attention(c); });
  c = attention;
  c.rank = 40;
  c.decay = 0.02;
  c.with_state = false;
  add("attention by blocks", [c] { return run_attention(c); });
  c.decay = 0;
  c.causal = false;
  add("attention by blocks in both directions", [c] { return run_attention(c); });
  add("short attention", [] { return run_short_attention(40, false); });
  add("causal short attention", [] { return run_short_attention(41, true); });
  const std::vector<int64_t> sizes{9000, 1, 20'000, 17};
  add("memory step", [sizes] { return run_memory_step(sizes); });
  add("memory step in place", [sizes] { return run_memory_step_in_place(sizes); });
  add("lstm step", [sizes] { return run_lstm_step(sizes); });
  add("orthogonalize", [] { return run_orthogonalize(9, 60); });
  const std::vector<std::vector<int64_t>> shapes{{300, 200}, {70'001},   {64, 64},
                                                 {5},        {150, 400}, {33, 65}};
  add("tensor step", [shapes] { return run_tensor_step(shapes, 0); });
  add("tensor step in bfloat16", [shapes] { return run_tensor_step(shapes, 5000, at::kBFloat16); });
  add("tensor step by chunks", [shapes] { return run_tensor_step(shapes, 5000); });
  return kernels;
}

/// Work for one.
std::vector<Kernel> small_kernels() {
  const AttentionCase attention{.heads = 4, .key_heads = 4, .queries = 9, .keys = 9};
  std::vector<Kernel> kernels;
  kernels.push_back({"attention", [attention] { return run_attention(attention); }});
  kernels.push_back({"short attention", [] { return run_short_attention(1, true); }});
  const std::vector<int64_t> sizes{10, 1, 20};
  kernels.push_back({"memory step", [sizes] { return run_memory_step(sizes); }});
  kernels.push_back({"memory step in place", [sizes] { return run_memory_step_in_place(sizes); }});
  kernels.push_back({"lstm step", [sizes] { return run_lstm_step(sizes); }});
  kernels.push_back({"orthogonalize", [] { return run_orthogonalize(2, 8); }});
  kernels.push_back({"tensor step", [] { return run_tensor_step({{30, 20}, {1000}, {5}}, 0); }});
  return kernels;
}

class KernelThreads : public testing::EveryIsa {
 protected:
  void TearDown() override { at::set_num_threads(threads_); }

 private:
  int threads_ = at::get_num_threads();
};

TEST_P(KernelThreads, AllTakePartAndChangeNothing) {
  for (const Kernel& kernel : large_kernels()) {
    SCOPED_TRACE(kernel.name);
    at::set_num_threads(1);
    const Results one = kernel.run();
    for (const int threads : {1, 2, 3, 4}) {
      at::set_num_threads(threads);
      const ThreadCount taking_part;
      const Results results = kernel.run();
      EXPECT_EQ(std::max<int64_t>(taking_part.threads(), 1), threads);
      ASSERT_EQ(results.size(), one.size());
      for (size_t i = 0; i < one.size(); ++i) {
        EXPECT_TRUE(at::isfinite(one[i]).all().item<bool>()) << "result " << i;
        EXPECT_TRUE(testing::identical(results[i], one[i]))
            << "result " << i << " on " << threads << " threads";
      }
    }
  }
}

TEST_P(KernelThreads, OneDoesWhatIsTooLittleForTwo) {
  for (const Kernel& kernel : small_kernels()) {
    SCOPED_TRACE(kernel.name);
    at::set_num_threads(4);
    const ThreadCount taking_part;
    kernel.run();
    EXPECT_LE(taking_part.threads(), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, KernelThreads, ::testing::ValuesIn(kernels::available_isas()),
                         [](const auto& info) { return kernels::isa_name(info.param); });

}  // namespace
}  // namespace mnemosyne::ops
