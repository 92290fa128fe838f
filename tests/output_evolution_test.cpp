#include "mnemosyne/meta/output_evolution.h"

#include <cmath>

#include "meta_toys.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/rules.h"
#include "testing.h"

namespace mnemosyne::meta {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::ToyFamily;
using mnemosyne::testing::ToyRule;

/// u = exp(z - 2) g with z = W phi + 1/2 beside, phi = (1, log10(t) / 2 - 1).
class LinearToyRule : public optim::UpdateRule {
 public:
  explicit LinearToyRule(NamedTensors weights = {{"controller", at::zeros({1, 2})},
                                                 {"beside", at::zeros({1})}})
      : weights_(std::move(weights)) {}

  std::string name() const override { return "linear_toy"; }
  optim::StateLayout state_layout(const at::Tensor&) const override {
    return {optim::step_entry()};
  }
  std::shared_ptr<const UpdateRule> elementwise() const override { return nullptr; }
  double default_lr() const override { return 1.0; }
  NamedTensors weights() const override { return weights_; }
  optim::WeightAxes weight_axes() const override {
    return {{"controller", {{"step"}, {"one", "log_time"}}}};
  }
  std::shared_ptr<UpdateRule> with_weights(const NamedTensors& weights) const override {
    return std::make_shared<LinearToyRule>(weights);
  }

 protected:
  optim::UpdateResult do_update(at::TensorList grads, const optim::State& state, at::TensorList,
                                const optim::StepOptions& options) const override {
    const at::Tensor t = state[0][0] + 1;
    const at::Tensor phi = at::stack({at::ones({}), t.to(at::kFloat).log10() / 2 - 1}).unsqueeze(0);
    const at::Tensor z = at::matmul(phi, weights_[0].second.t()) + 0.5 * weights_[1].second;
    if (options.decisions != nullptr) *options.decisions = {phi, z};
    optim::UpdateResult result;
    for (const at::Tensor& grad : grads) {
      result.updates.push_back((z.squeeze() - 2.0).exp() * grad);
      result.state.push_back({t});
    }
    return result;
  }

 private:
  NamedTensors weights_;
};

RunSampler toy_sampler() { return RunSampler({std::make_shared<ToyFamily>()}, {.min_steps = 40}); }

const OutputEvolutionOptions kOptions{
    .outputs = {"step"}, .features = {"one", "log_time"}, .window = 3, .stride = 7};
const OuterStep kStep{.index = 2, .seed = 9, .horizon = 40};

TEST(OutputEvolution, GivesBackWhatEvolutionFoundAndGoesOnToOtherWeights) {
  const EvolutionOptions evolution{.num_tasks = 3, .perturbation = {.num_pairs = 16, .sigma = 0.2}};
  const LinearToyRule rule;
  const MetaGradient own =
      OutputEvolutionEstimator(toy_sampler(), evolution, kOptions).estimate(rule, kStep);
  // The same draws, by the weights alone.
  EvolutionOptions by_weights = evolution;
  by_weights.perturbation.scales = {"beside=0"};
  const MetaGradient plain = EvolutionEstimator(toy_sampler(), by_weights).estimate(rule, kStep);
  ASSERT_GT(plain.gradient.abs().max().item<double>(), 0.05);
  EXPECT_TRUE(close(own.gradient.narrow(0, 0, 2), plain.gradient.narrow(0, 0, 2),
                    {.rtol = 0.02, .atol = 0.01}));
  // dz / dbeside is half of dz / dW_one.
  EXPECT_NEAR(own.gradient[2].item<double>(), 0.5 * own.gradient[0].item<double>(), 1e-4);
  EXPECT_EQ(plain.gradient[2].item<double>(), 0.0);
  EXPECT_EQ(own.meta_loss, plain.meta_loss);
}

TEST(OutputEvolution, DoesNotDependOnTheNumberOfWorkers) {
  OutputEvolutionEstimator estimator(toy_sampler(), {.num_tasks = 4}, kOptions);
  OuterStep step = kStep;
  const MetaGradient one = estimator.estimate(LinearToyRule(), step);
  step.num_workers = 3;
  EXPECT_TRUE(at::equal(estimator.estimate(LinearToyRule(), step).gradient, one.gradient));
}

TEST(OutputEvolution, ReachesEveryWeightOfAttention) {
  auto rule = optim::make_rule(
      "mnemosyne", R"({"attention": true, "step_bound": 0.5, "attention_chunk_size": 1})");
  NamedTensors weights = rule->weights();
  at::manual_seed(4);
  for (auto& [name, weight] : weights) {
    if (name.find("head") != std::string::npos) weight = 0.3 * at::randn(weight.sizes());
  }
  rule = rule->with_weights(weights);
  const MetaGradient own =
      OutputEvolutionEstimator(toy_sampler(), {.num_tasks = 2, .perturbation = {.sigma = 0.3}}, {})
          .estimate(*rule, kStep);
  int64_t first = 0;
  for (const auto& [name, weight] : weights) {
    const at::Tensor part = own.gradient.narrow(0, first, weight.numel());
    first += weight.numel();
    // Heads of chunks decide what keeps the norm of their tensor: nothing of it is an output.
    const bool is_output = name.find("chunk_") == std::string::npos;
    EXPECT_EQ(part.abs().max().item<double>() > 0.0, is_output) << name;
  }
}

TEST(OutputEvolution, RefusesRulesWithoutSuchOutputs) {
  OutputEvolutionEstimator estimator(toy_sampler(), {}, kOptions);
  EXPECT_THROW(estimator.estimate(ToyRule(-1, 0), kStep), InputError);
  OutputEvolutionOptions other = kOptions;
  other.features = {"one", "nothing"};
  EXPECT_THROW(OutputEvolutionEstimator(toy_sampler(), {}, other).estimate(LinearToyRule(), kStep),
               InputError);
}

}  // namespace
}  // namespace mnemosyne::meta
