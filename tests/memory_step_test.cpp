#include "mnemosyne/ops/memory_step/memory_step.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include "mnemosyne/kernels/isa.h"
#include "mnemosyne/nn/feature_map.h"
#include "testing.h"

namespace mnemosyne::ops {
namespace {

using testing::close;

/// Sizes of one comparison; see memory_step.h for the letters.
struct Case {
  std::string map;
  int64_t features;  // R
  std::vector<int64_t> sizes = {1, 7, 64, 1000};
  int64_t heads = 3;
  int64_t layers = 1;
  int64_t hidden = 12;
  int64_t key_dim = 4;
};

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.map + std::to_string(info.param.features);
  std::erase(name, '+');
  return name;
}

struct Problem {
  MemoryStepInputs inputs;
  MemoryStepWeights weights;
  MemoryStepOptions options;

  /// Everything that has a gradient, in a fixed order.
  std::vector<at::Tensor> variables() const {
    std::vector<at::Tensor> result;
    for (const MemoryLayerWeights& layer : weights.layers) {
      for (const auto& tensor : {layer.decay, layer.key, layer.query, layer.radius, layer.value}) {
        if (tensor.defined()) result.push_back(tensor);
      }
    }
    for (const auto& tensor : {weights.hidden_weight, weights.output_weight, weights.output_bias,
                               inputs.hidden_bias, inputs.step}) {
      result.push_back(tensor);
    }
    result.insert(result.end(), inputs.memories.begin(), inputs.memories.end());
    return result;
  }
};

at::Tensor normal(at::IntArrayRef shape, double scale) {
  return at::randn(shape, at::kDouble) * scale;
}

MemoryStepWeights random_weights(const Case& c, FeatureMapKind kind) {
  MemoryStepWeights weights;
  for (int64_t l = 0; l < c.layers; ++l) {
    const int64_t inputs = memory_layer_inputs(l, c.heads);
    MemoryLayerWeights& layer = weights.layers.emplace_back();
    layer.decay = at::rand({c.heads}, at::kDouble) * 0.5 + 0.45;
    if (kind != FeatureMapKind::kConstant) {
      layer.key = normal({c.heads, c.key_dim, inputs}, 0.6);
      layer.query = normal({c.heads, c.key_dim, inputs}, 0.6);
      layer.radius = at::rand({c.heads}, at::kDouble) * 0.3 + 0.5;
    }
    if (l > 0) layer.value = normal({kMemoryValues, inputs}, 0.6);
  }
  const int64_t omegas = nn::num_omegas(kind, c.features);
  if (omegas > 0) weights.omega = nn::draw_omega(omegas, c.key_dim, 5);
  weights.hidden_weight = normal({c.hidden, memory_decoder_inputs(c.layers, c.heads)}, 0.5);
  weights.output_weight = normal({2, c.hidden}, 0.4);
  weights.output_bias = normal({2}, 0.1);
  return weights;
}

/// A random problem in float64 after some steps of the reference, so that the memories are in use.
Problem make_problem(const Case& c) {
  at::manual_seed(7);
  Problem problem;
  problem.options.feature_map = nn::feature_map_kind(c.map);
  problem.options.variance_head = c.heads - 1;
  problem.weights = random_weights(c, problem.options.feature_map);
  MemoryStepInputs& in = problem.inputs;
  const auto count = static_cast<int64_t>(c.sizes.size());
  in.hidden_bias = normal({count, c.hidden}, 0.3);
  in.step = at::rand({count}, at::kDouble) + 0.5;
  in.grad_scale = at::arange(count, at::kDouble) + 10;
  in.param_scale = at::full({count}, 5.0, at::kDouble);
  in.eps = at::full({count}, 1e-8, at::kDouble);
  for (int64_t t = 0; t < count; ++t) {
    const int64_t size = c.sizes[static_cast<size_t>(t)];
    in.memories.push_back(at::zeros({c.layers, c.heads, c.features, 3, size}, at::kDouble));
    in.params.push_back(normal({size}, 0.2));
  }
  for (int step = 0; step < 4; ++step) {
    in.grads.clear();
    for (const int64_t size : c.sizes) in.grads.push_back(normal({size}, 0.1));
    in.memories = memory_step_reference(in, problem.weights, problem.options).memories;
  }
  return problem;
}

/// Moves every tensor of the problem.
void move_to(Problem& problem, at::Device device) {
  const auto move = [&](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.to(device);
  };
  for (MemoryLayerWeights& layer : problem.weights.layers) {
    for (at::Tensor* tensor :
         {&layer.decay, &layer.key, &layer.query, &layer.radius, &layer.value}) {
      move(*tensor);
    }
  }
  for (at::Tensor* tensor :
       {&problem.weights.omega, &problem.weights.hidden_weight, &problem.weights.output_weight,
        &problem.weights.output_bias, &problem.inputs.hidden_bias, &problem.inputs.step,
        &problem.inputs.grad_scale, &problem.inputs.param_scale, &problem.inputs.eps}) {
    move(*tensor);
  }
  for (auto* list : {&problem.inputs.grads, &problem.inputs.params, &problem.inputs.memories}) {
    for (at::Tensor& tensor : *list) move(tensor);
  }
}

/// The same problem in another dtype, all variables leaves that require gradients.
Problem cast(const Problem& problem, at::ScalarType dtype) {
  Problem copy = problem;
  const auto leaf = [&](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.to(dtype).clone().requires_grad_(true);
  };
  for (MemoryLayerWeights& layer : copy.weights.layers) {
    for (at::Tensor* tensor :
         {&layer.decay, &layer.key, &layer.query, &layer.radius, &layer.value}) {
      leaf(*tensor);
    }
  }
  leaf(copy.weights.hidden_weight);
  leaf(copy.weights.output_weight);
  leaf(copy.weights.output_bias);
  leaf(copy.inputs.hidden_bias);
  leaf(copy.inputs.step);
  for (at::Tensor& memory : copy.inputs.memories) leaf(memory);
  for (at::Tensor& grad : copy.inputs.grads) grad = grad.to(dtype);
  for (at::Tensor& param : copy.inputs.params) param = param.to(dtype);
  for (at::Tensor* numbers :
       {&copy.inputs.grad_scale, &copy.inputs.param_scale, &copy.inputs.eps}) {
    *numbers = numbers->to(dtype);
  }
  if (copy.weights.omega.defined()) copy.weights.omega = copy.weights.omega.to(dtype);
  return copy;
}

using Step = MemoryStepResult (*)(const MemoryStepInputs&, const MemoryStepWeights&,
                                  const MemoryStepOptions&);

/// Gradients of two steps with random gradients for updates and the final memories.
std::vector<at::Tensor> gradients(const Problem& problem, Step step, MemoryStepResult& result) {
  MemoryStepInputs inputs = problem.inputs;
  const MemoryStepResult first = step(inputs, problem.weights, problem.options);
  inputs.memories = first.memories;
  result = step(inputs, problem.weights, problem.options);
  at::manual_seed(11);
  at::Tensor loss = at::zeros({}, problem.inputs.step.options().requires_grad(false));
  const auto add = [&](const at::Tensor& tensor) {
    const at::Tensor weight = at::randn(tensor.sizes(), at::kDouble).to(tensor.scalar_type());
    loss = loss + (tensor * weight).sum();
  };
  for (size_t t = 0; t < result.updates.size(); ++t) {
    add(first.updates[t]);
    add(result.updates[t]);
    add(result.memories[t]);
  }
  return torch::autograd::grad({loss}, problem.variables(), {}, true, false, /*allow_unused=*/true);
}

/// Deviation in units of the largest entry, which is what rounding in float32 scales with, or of
/// `scale`.
::testing::AssertionResult same_within(const at::Tensor& actual, const at::Tensor& expected,
                                       double tolerance, double scale = 1e-12) {
  if (expected.numel() > 0) scale = std::max(scale, expected.abs().max().item<double>());
  return close(actual, expected, {.rtol = tolerance, .atol = tolerance * scale});
}

class MemoryStep : public ::testing::TestWithParam<Case> {
 protected:
  void TearDown() override { kernels::set_active_isa(kernels::available_isas().back()); }
};

TEST_P(MemoryStep, FusedEqualsTheReferenceInValuesAndAllGradients) {
  const Problem exact = cast(make_problem(GetParam()), at::kDouble);
  const Problem single = cast(exact, at::kFloat);
  ASSERT_TRUE(memory_step_is_fused(single.inputs, single.weights));
  MemoryStepResult expected, actual;
  const auto expected_grads = gradients(exact, memory_step_reference, expected);
  for (const kernels::Isa isa : kernels::available_isas()) {
    SCOPED_TRACE(kernels::isa_name(isa));
    kernels::set_active_isa(isa);
    const auto grads = gradients(single, memory_step, actual);
    for (size_t t = 0; t < actual.updates.size(); ++t) {
      EXPECT_TRUE(same_within(actual.updates[t], expected.updates[t], 1e-5)) << "update " << t;
      EXPECT_TRUE(same_within(actual.memories[t], expected.memories[t], 1e-6)) << "memory " << t;
    }
    for (size_t i = 0; i < grads.size(); ++i) {
      // With one feature the query cancels: its gradient is the difference of terms of the key's
      // size.
      const bool query = i == 2 && single.weights.omega.defined();
      const double scale = query ? expected_grads[1].abs().max().item<double>() : 0.0;
      EXPECT_TRUE(same_within(grads[i], expected_grads[i], 3e-5, scale + 1e-12))
          << "gradient " << i;
    }
  }
}

TEST_P(MemoryStep, InPlaceEqualsOutOfPlace) {
  const at::NoGradGuard no_grad;
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    Problem problem = cast(make_problem(GetParam()), dtype);
    const MemoryStepResult expected = memory_step(problem.inputs, problem.weights, problem.options);
    std::vector<at::Tensor> before;
    for (const at::Tensor& param : problem.inputs.params) before.push_back(param.clone());
    const at::Tensor decay =
        0.25 / (at::arange(static_cast<int64_t>(before.size()), at::TensorOptions(dtype)) + 1);
    memory_step_(problem.inputs, problem.weights, problem.options, decay);
    for (size_t t = 0; t < before.size(); ++t) {
      EXPECT_TRUE(testing::identical(problem.inputs.memories[t], expected.memories[t]));
      EXPECT_TRUE(close(problem.inputs.params[t],
                        before[t] * (1.0 - decay[static_cast<int64_t>(t)]) - expected.updates[t]));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    FeatureMaps, MemoryStep,
    ::testing::Values(Case{"constant", 1}, Case{"favor+", 1}, Case{"favor+", 2}, Case{"favor+", 3},
                      Case{"favor+", 4}, Case{"hyp+", 2}, Case{"hyp+", 4}, Case{"trig", 2},
                      Case{"trig", 4}, Case{"relu", 1}, Case{"relu", 3},
                      Case{.map = "hyp+", .features = 6, .heads = 1, .hidden = 5, .key_dim = 2},
                      Case{.map = "relu", .features = 16, .heads = 8, .hidden = 33, .key_dim = 8}),
    case_name);

TEST(MemoryStepReference, GradientsAreThoseOfFiniteDifferences) {
  Problem problem =
      cast(make_problem({.map = "hyp+", .features = 2, .sizes = {5}, .layers = 2}), at::kDouble);
  MemoryStepResult result;
  const auto grads = gradients(problem, memory_step, result);
  const auto loss = [&] {
    MemoryStepResult first = memory_step(problem.inputs, problem.weights, problem.options);
    MemoryStepInputs inputs = problem.inputs;
    inputs.memories = first.memories;
    result = memory_step(inputs, problem.weights, problem.options);
    at::manual_seed(11);
    double sum = 0.0;
    for (const auto& tensor : {first.updates[0], result.updates[0], result.memories[0]}) {
      sum += (tensor * at::randn(tensor.sizes(), at::kDouble)).sum().item<double>();
    }
    return sum;
  };
  const at::NoGradGuard no_grad;
  const auto variables = problem.variables();
  for (size_t v = 0; v < variables.size(); ++v) {
    const at::Tensor direction = at::randn_like(variables[v]);
    constexpr double kStep = 1e-6;
    variables[v].add_(direction, kStep);
    const double up = loss();
    variables[v].sub_(direction, 2 * kStep);
    const double down = loss();
    variables[v].add_(direction, kStep);
    const double expected = (grads[v] * direction).sum().item<double>();
    EXPECT_NEAR((up - down) / (2 * kStep), expected, 1e-6 * (1.0 + std::abs(expected)))
        << "variable " << v;
  }
}

TEST(MemoryStepFused, GradientsDoNotDependOnTheNumberOfThreads) {
  const Problem problem =
      cast(make_problem({.map = "hyp+", .features = 2, .sizes = {9000, 5000}}), at::kFloat);
  MemoryStepResult result;
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = gradients(problem, memory_step, result);
  at::set_num_threads(2);
  const auto two = gradients(problem, memory_step, result);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_TRUE(testing::identical(one[i], two[i])) << "gradient " << i;
  }
}

TEST(MemoryStepFused, GradientsAreForTheParametersOfTheForwardPass) {
  const Problem problem =
      cast(make_problem({.map = "favor+", .features = 2, .sizes = {40}}), at::kFloat);
  MemoryStepResult result;
  const auto expected = gradients(problem, memory_step, result);
  result = memory_step(problem.inputs, problem.weights, problem.options);
  const at::Tensor loss = result.updates[0].sum();
  const at::Tensor weight = problem.weights.layers[0].key;
  const at::Tensor before = torch::autograd::grad({loss}, {weight}, {}, true)[0];
  problem.inputs.params[0].fill_(3.0);
  const at::Tensor after = torch::autograd::grad({loss}, {weight})[0];
  EXPECT_GT(before.abs().max().item<float>(), 0.0f);
  EXPECT_TRUE(testing::identical(before, after));
}

TEST(MemoryStepFused, StaysFiniteForExtremeGradients) {
  for (const std::string map : {"constant", "hyp+", "trig"}) {
    const int64_t features = map == "constant" ? 1 : 2;
    Problem problem =
        cast(make_problem({.map = map, .features = features, .sizes = {6}}), at::kFloat);
    problem.inputs.grads[0] = at::tensor({0.0f, 1e18f, -1e18f, 1e-30f, -1e-12f, 1.0f});
    for (at::Tensor& memory : problem.inputs.memories) {
      memory = at::zeros_like(memory).requires_grad_(true);
    }
    MemoryStepResult result;
    const auto grads = gradients(problem, memory_step, result);
    EXPECT_TRUE(at::isfinite(result.updates[0]).all().item<bool>());
    EXPECT_LE(result.updates[0].abs().max().item<float>(), 100.0f);
    EXPECT_TRUE(at::isfinite(result.memories[0]).all().item<bool>());
  }
}

TEST(MemoryStepFused, EmptyTensorsAndNoTensorsAreFine) {
  const Problem problem =
      cast(make_problem({.map = "hyp+", .features = 2, .sizes = {0, 3, 0}}), at::kFloat);
  MemoryStepResult result;
  const auto grads = gradients(problem, memory_step, result);
  EXPECT_EQ(result.updates[0].numel(), 0);
  EXPECT_EQ(result.updates[1].numel(), 3);
  Problem none = problem;
  none.inputs = {.grads = {},
                 .params = {},
                 .memories = {},
                 .hidden_bias = at::zeros({0, 12}),
                 .step = at::zeros({0}),
                 .grad_scale = at::zeros({0}),
                 .param_scale = at::zeros({0}),
                 .eps = at::zeros({0})};
  EXPECT_TRUE(memory_step(none.inputs, none.weights, none.options).updates.empty());
}

TEST(MemoryStepGpu, CudaEqualsTheReference) {
  if (!at::hasCUDA()) {
    GTEST_SKIP() << "no CUDA device";
  }
  const at::NoGradGuard no_grad;
  for (const Case& c : {Case{"constant", 1}, Case{"favor+", 3}, Case{"hyp+", 4}, Case{"trig", 2},
                        Case{"relu", 3}}) {
    const Problem exact = cast(make_problem(c), at::kDouble);
    Problem device = cast(exact, at::kFloat);
    move_to(device, at::kCUDA);
    const auto expected = memory_step_reference(exact.inputs, exact.weights, exact.options);
    const auto actual = memory_step(device.inputs, device.weights, device.options);
    for (size_t t = 0; t < c.sizes.size(); ++t) {
      EXPECT_TRUE(same_within(actual.updates[t], expected.updates[t], 1e-5)) << c.map;
      EXPECT_TRUE(same_within(actual.memories[t], expected.memories[t], 1e-6)) << c.map;
    }
    memory_step_(device.inputs, device.weights, device.options,
                 at::full({static_cast<int64_t>(c.sizes.size())}, 0.25, at::kCUDA));
    for (size_t t = 0; t < c.sizes.size(); ++t) {
      const at::Tensor param = 0.75 * exact.inputs.params[t] - expected.updates[t];
      EXPECT_TRUE(same_within(device.inputs.params[t], param, 1e-5)) << c.map;
      EXPECT_TRUE(testing::identical(device.inputs.memories[t], actual.memories[t])) << c.map;
    }
  }
}

TEST(MemoryStep, RefusesShapesThatDoNotFit) {
  const Problem good = cast(make_problem({.map = "hyp+", .features = 2, .sizes = {4}}), at::kFloat);
  const auto run = [](const Problem& p) { memory_step(p.inputs, p.weights, p.options); };
  Problem bad = good;
  bad.inputs.memories[0] = at::zeros({1, 3, 2, 3, 5});
  EXPECT_THROW(run(bad), c10::Error);
  bad = good;
  bad.inputs.step = at::zeros({2});
  EXPECT_THROW(run(bad), c10::Error);
  bad = good;
  bad.options.variance_head = 3;
  EXPECT_THROW(run(bad), c10::Error);
  bad = good;
  bad.inputs.eps = at::zeros({2});
  EXPECT_THROW(run(bad), c10::Error);
}

}  // namespace
}  // namespace mnemosyne::ops
