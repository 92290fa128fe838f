#include "mnemosyne/optim/coordinate.h"

#include <torch/csrc/autograd/autograd.h>

#include "data/optimizer_golden.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/adam.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::identical;

// Start and gradients of data/make_optimizer_golden.py.
std::vector<at::Tensor> start(at::ScalarType dtype) {
  const std::vector<std::vector<int64_t>> shapes{{3, 4}, {5}, {3, 2, 2}, {}};
  std::vector<at::Tensor> params;
  for (size_t k = 0; k < shapes.size(); ++k) {
    const int64_t numel = k == 1 ? 5 : k == 3 ? 1 : 12;
    const at::Tensor index = at::arange(numel, at::kDouble) + 1.0 + static_cast<double>(k);
    params.push_back(index.sin().reshape(shapes[k]).to(dtype));
  }
  return params;
}

std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& params, int step) {
  std::vector<at::Tensor> grads;
  for (size_t k = 0; k < params.size(); ++k) {
    const at::Tensor index = at::arange(params[k].numel(), at::kDouble);
    const at::Tensor wave = (0.7 * index + 1.3 * step + static_cast<double>(k)).cos();
    grads.push_back(wave.reshape(params[k].sizes()).to(params[k].scalar_type()) + 0.5 * params[k]);
  }
  return grads;
}

at::Tensor flat(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& tensor : tensors) parts.push_back(tensor.reshape({-1}));
  return at::cat(parts);
}

at::Tensor train(const UpdateRule& rule, const StepOptions& options, int steps,
                 at::ScalarType dtype) {
  std::vector<at::Tensor> params = start(dtype);
  State state = init_state(rule, params);
  for (int step = 0; step < steps; ++step) {
    rule.step_(gradients(params, step), state, params, options);
  }
  return flat(params);
}

/// A rule whose last layer is not zero, so that every weight matters.
std::shared_ptr<UpdateRule> trained(CoordinateOptions options) {
  const CoordinateRule fresh(std::move(options));
  at::manual_seed(17);
  NamedTensors weights = fresh.weights();
  for (auto& [name, tensor] : weights) {
    if (name == "step.log_rate") continue;
    tensor = tensor + 0.1 * at::randn(tensor.sizes());
  }
  return fresh.with_weights(weights);
}

NamedTensors leaves(const NamedTensors& weights, at::ScalarType dtype) {
  NamedTensors copy;
  for (const auto& [name, tensor] : weights) {
    copy.emplace_back(name, tensor.to(dtype).clone().requires_grad_(true));
  }
  return copy;
}

TEST(CoordinateRule, AdamsWeightsGiveTheNumbersOfTorchsAdam) {
  const auto rule = CoordinateRule::adam({.lr = 0.02, .beta1 = 0.8, .beta2 = 0.95});
  const at::Tensor expected = at::tensor(at::ArrayRef<double>(golden::kAdam), at::kDouble);
  EXPECT_TRUE(close(train(*rule, {}, 20, at::kDouble), expected, {.rtol = 1e-11, .atol = 1e-12}));
  EXPECT_TRUE(close(train(*rule, {}, 20, at::kFloat), expected, {.rtol = 2e-5, .atol = 2e-6}));
}

TEST(CoordinateRule, AdamsWeightsCanBeLoadedAndStayAdamForFiftySteps) {
  const auto made = CoordinateRule::adam({.lr = 1.0});
  const auto rule = make_coordinate_rule(made->options_json())->with_weights(made->weights());
  const Adam adam;
  for (const StepOptions& options :
       {StepOptions{.lr = 3e-3}, StepOptions{.lr = 1e-2, .weight_decay = 0.1}}) {
    const at::Tensor expected = train(adam, options, 50, at::kDouble);
    EXPECT_TRUE(
        close(train(*rule, options, 50, at::kDouble), expected, {.rtol = 1e-11, .atol = 1e-12}));
    EXPECT_TRUE(
        close(train(*rule, options, 50, at::kFloat), expected, {.rtol = 2e-5, .atol = 2e-6}));
  }
}

TEST(CoordinateRule, UntrainedItTakesAdamsStepInUnitsOfTheParameter) {
  const CoordinateRule rule({.num_heads = 2, .feature_map = "constant", .num_features = 1});
  const Adam adam;
  const std::vector<at::Tensor> params = start(at::kFloat), grads = gradients(params, 0);
  const auto ours = rule.update(grads, init_state(rule, params), params, {});
  const auto adams = adam.update(grads, init_state(adam, params), params, {.lr = 1.0});
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor rms = params[i].square().mean().sqrt();
    EXPECT_TRUE(close(ours.updates[i], 0.03 * rms * adams.updates[i], {.rtol = 1e-4}));
  }
}

TEST(CoordinateRule, ScaleOfTheLossDoesNotMatterAndUpdatesScaleWithTheParameter) {
  const auto rule = trained({});
  const std::vector<at::Tensor> params = start(at::kFloat);
  std::vector<at::Tensor> tenfold;
  for (const at::Tensor& param : params) tenfold.push_back(10 * param);
  State state = init_state(*rule, params), other = init_state(*rule, params);
  State third = init_state(*rule, params);
  for (int step = 0; step < 5; ++step) {
    const std::vector<at::Tensor> grads = gradients(params, step);
    std::vector<at::Tensor> scaled;
    for (const at::Tensor& grad : grads) scaled.push_back(1e6 * grad);
    const UpdateResult plain = rule->update(grads, state, params, {});
    const UpdateResult large = rule->update(scaled, other, params, {});
    const UpdateResult wide = rule->update(grads, third, tenfold, {});
    for (size_t i = 0; i < params.size(); ++i) {
      EXPECT_TRUE(close(large.updates[i], plain.updates[i], {.rtol = 1e-3, .atol = 1e-6}));
      EXPECT_TRUE(close(wide.updates[i], 10 * plain.updates[i], {.rtol = 1e-3, .atol = 1e-5}));
    }
    state = plain.state;
    other = large.state;
    third = wide.state;
  }
}

/// Gradient of a loss on three steps with respect to all weights, in the dtype's own kernel.
std::vector<at::Tensor> meta_gradient(const UpdateRule& rule, at::ScalarType dtype) {
  const NamedTensors weights = leaves(rule.weights(), dtype);
  const auto learner = rule.with_weights(weights);
  const std::vector<at::Tensor> params = start(dtype);
  State state = init_state(*learner, params);
  at::Tensor loss = at::zeros({}, dtype);
  for (int step = 0; step < 3; ++step) {
    const auto grads = gradients(params, step);
    UpdateResult result = learner->update(grads, state, params, {.weight_decay = 0.1});
    for (size_t i = 0; i < params.size(); ++i) {
      loss = loss + (result.updates[i] * gradients(params, step + 5)[i]).sum();
    }
    state = std::move(result.state);
  }
  std::vector<at::Tensor> variables;
  for (const auto& [name, tensor] : weights) variables.push_back(tensor);
  return torch::autograd::grad({loss}, variables, {}, {}, false, /*allow_unused=*/true);
}

TEST(CoordinateRule, MetaGradientsOfTheFusedAndTheReferencePathAgree) {
  for (const std::string map : {"constant", "favor+", "hyp+", "trig", "relu"}) {
    const auto rule = trained({.feature_map = map, .num_features = map == "constant" ? 1 : 2});
    const auto fused = meta_gradient(*rule, at::kFloat);
    const auto exact = meta_gradient(*rule, at::kDouble);
    const NamedTensors weights = rule->weights();
    double key_scale = 0.0;
    for (size_t i = 0; i < exact.size(); ++i) {
      const std::string& name = weights[i].first;
      ASSERT_TRUE(exact[i].defined() && fused[i].defined()) << name;
      double scale = exact[i].abs().max().item<double>();
      EXPECT_GT(scale, 0.0) << name;
      if (name == "layers.0.key") key_scale = scale;
      // The length of an address all but cancels in normalised relu features.
      if (name == "layers.0.temperature") scale = std::max(scale, key_scale);
      EXPECT_TRUE(close(fused[i], exact[i], {.rtol = 1e-3, .atol = 2e-4 * scale}))
          << map << " " << name;
    }
  }
}

TEST(CoordinateRule, UpdatesStayInTheirBounds) {
  const CoordinateRule fresh({.feature_map = "constant",
                              .num_features = 1,
                              .direction_bound = 0.5,
                              .magnitude_bound = 1.0,
                              .step_bound = 0.25,
                              .scale_free = false});
  at::manual_seed(23);
  NamedTensors weights = fresh.weights();
  for (auto& [name, tensor] : weights) {
    if (name.rfind("decoder", 0) == 0 || name == "step.tensor_weight") {
      tensor = 100.0 * at::randn(tensor.sizes());
    }
  }
  const auto wild = fresh.with_weights(weights);
  const std::vector<at::Tensor> params = start(at::kFloat);
  State state = init_state(*wild, params), calm_state = init_state(fresh, params);
  for (int step = 0; step < 10; ++step) {
    const auto grads = gradients(params, step);
    UpdateResult result = wild->update(grads, state, params, {});
    UpdateResult calm = fresh.update(grads, calm_state, params, {});
    for (size_t i = 0; i < params.size(); ++i) {
      const at::Tensor most = (calm.updates[i].abs() + 0.5 * 0.03) * std::exp(1.25);
      EXPECT_TRUE((result.updates[i].abs() <= most * 1.0001).all().item<bool>());
    }
    state = std::move(result.state);
    calm_state = std::move(calm.state);
  }
}

TEST(CoordinateRule, ResumesBitForBitAndItsStateDoesNotGrow) {
  const auto rule = trained({.num_features = 2});
  const int64_t values = 3 * 2 * 3;  // H R C
  std::vector<at::Tensor> params = start(at::kFloat);
  State state = init_state(*rule, params);
  for (int step = 0; step < 4; ++step) rule->step_(gradients(params, step), state, params, {});
  std::vector<at::Tensor> copies;
  for (const at::Tensor& param : params) copies.push_back(param.clone());
  State copy = clone_state(state);
  for (int step = 4; step < 30; ++step) rule->step_(gradients(params, step), state, params, {});
  const auto again = make_coordinate_rule(rule->options_json())->with_weights(rule->weights());
  for (int step = 4; step < 30; ++step) again->step_(gradients(copies, step), copy, copies, {});
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_TRUE(identical(params[i], copies[i]));
    EXPECT_TRUE(identical(state[i][1], copy[i][1]));
    EXPECT_EQ(state[i][1].numel(), values * params[i].numel());
  }
}

TEST(CoordinateRule, SeveralLayersTakeTheReferenceAndTrain) {
  const auto rule = trained({.num_layers = 2, .num_heads = 2, .num_features = 2, .hidden = 8});
  std::vector<at::Tensor> params = start(at::kFloat);
  State state = init_state(*rule, params);
  const UpdateResult expected = rule->update(gradients(params, 0), state, params, {});
  const at::Tensor before = flat(params);
  rule->step_(gradients(params, 0), state, params, {});
  EXPECT_TRUE(close(flat(params), before - flat(expected.updates)));
  for (const at::Tensor& gradient : meta_gradient(*rule, at::kDouble)) {
    EXPECT_GT(gradient.abs().max().item<double>(), 0.0);
  }
}

TEST(CoordinateRule, SeesHowMuchOfTheRunIsLeft) {
  const auto rule = trained({});
  const std::vector<at::Tensor> params = start(at::kFloat), grads = gradients(params, 0);
  const State state = init_state(*rule, params);
  const auto unknown = rule->update(grads, state, params, {});
  const auto known = rule->update(grads, state, params, {.num_steps = 100});
  EXPECT_FALSE(close(flat(known.updates), flat(unknown.updates), {.rtol = 1e-3, .atol = 0}));
}

TEST(CoordinateRule, KeepsItsRandomVectorsWithItsOptions) {
  const CoordinateRule one({.seed = 1}), two({.seed = 2});
  EXPECT_NE(one.options().omega, two.options().omega);
  const auto copy = make_coordinate_rule(one.options_json());
  EXPECT_EQ(copy->options_json(), one.options_json());
  EXPECT_EQ(CoordinateRule({.seed = 1}).options().omega, one.options().omega);
  for (const auto& [name, tensor] : one.weights()) EXPECT_EQ(name.find("omega"), std::string::npos);
}

TEST(CoordinateRule, RefusesOptionsAndWeightsThatItCannotUse) {
  EXPECT_THROW(CoordinateRule({.num_heads = 0}), InputError);
  EXPECT_THROW(CoordinateRule({.feature_map = "softmax"}), InputError);
  EXPECT_THROW(CoordinateRule({.feature_map = "hyp+", .num_features = 3}), InputError);
  EXPECT_THROW(CoordinateRule({.variance_head = 3}), InputError);
  EXPECT_THROW(CoordinateRule({.momentum_head = -1}), InputError);
  EXPECT_THROW(CoordinateRule({.magnitude_bound = 1e9}), InputError);
  EXPECT_THROW(CoordinateRule({.eps = 0.0}), InputError);
  EXPECT_THROW(CoordinateRule({.omega = "1 2 3"}), InputError);
  EXPECT_THROW(CoordinateRule({.omega = "1 2 3 4 5 6 7 8 9"}), InputError);
  EXPECT_THROW(CoordinateRule({.omega = "1 2 3 4 5 6 7 nan"}), InputError);
  EXPECT_THROW(make_coordinate_rule(R"({"num_heads": "three"})"), InputError);
  EXPECT_THROW(make_coordinate_rule(R"({"heads": 3})"), InputError);
  const CoordinateRule rule;
  NamedTensors weights = rule.weights();
  weights[0].second = at::zeros({4});
  EXPECT_THROW(rule.with_weights(weights), InputError);
  weights.erase(weights.begin());
  EXPECT_THROW(rule.with_weights(weights), InputError);
}

}  // namespace
}  // namespace mnemosyne::optim
