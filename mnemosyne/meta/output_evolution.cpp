#include "mnemosyne/meta/output_evolution.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/loss_gradients.h"

namespace mnemosyne::meta {
namespace {

constexpr double kRidge = 1e-3;  // features that hardly differ in a run say nothing apart

std::vector<int64_t> places_of(const std::vector<std::string>& names,
                               const std::vector<std::string>& all, const std::string& what) {
  std::vector<int64_t> places;
  for (const std::string& name : names) {
    const auto found = std::find(all.begin(), all.end(), name);
    if (found == all.end()) {
      throw InputError("[output_evolution] expected a rule with the " + what + " \"" + name +
                       "\", got one without");
    }
    places.push_back(found - all.begin());
  }
  return places;
}

/// A run of one network with a rule, of which windows keep their graph.
class Replay {
 public:
  /// `learned` is the same rule, whose weights require gradients.
  Replay(const Run& run, const optim::UpdateRule& rule, const optim::UpdateRule& learned,
         at::Device device)
      : run_(run), rule_(rule), learned_(learned), stream_(run.task->train_stream(run.seed)) {
    params_ = tasks::on_device(run.task->init(run.seed), device);
    state_ = optim::init_state(rule, params_);
  }

  /// False at the end of the run, and where it is no longer finite.
  bool has_next() {
    if (step_ == run_.num_steps) return false;
    now_ = sample_gradients(*run_.task, *stream_, params_, step_);
    return std::isfinite(now_.loss);
  }

  void step() {
    const at::NoGradGuard no_grad;
    rule_.step_(now_.grads, state_, params_, run_.options());
    ++step_;
  }

  optim::Decisions step_with_graph() {
    optim::Decisions decisions;
    optim::StepOptions options = run_.options();
    options.decisions = &decisions;
    optim::UpdateResult result = learned_.update(now_.grads, state_, params_, options);
    state_ = std::move(result.state);
    for (size_t i = 0; i < params_.size(); ++i) {
      params_[i] = params_[i].sub(result.updates[i].detach());
    }
    ++step_;
    return decisions;
  }

  void forget_graph() {
    for (optim::ParamState& own : state_) {
      for (at::Tensor& tensor : own) tensor = tensor.detach();
    }
    for (at::Tensor& tensor : state_.shared) tensor = tensor.detach();
  }

  int64_t steps() const { return step_; }

 private:
  const Run& run_;
  const optim::UpdateRule& rule_;
  const optim::UpdateRule& learned_;
  std::unique_ptr<tasks::BatchStream> stream_;
  std::vector<at::Tensor> params_;
  optim::State state_;
  Sample now_;
  int64_t step_ = 0;
};

}  // namespace

OutputEvolutionEstimator::OutputEvolutionEstimator(RunSampler sampler, EvolutionOptions evolution,
                                                   OutputEvolutionOptions options)
    : EvolutionEstimator(std::move(sampler), std::move(evolution)), options_(std::move(options)) {}

OutputEvolutionEstimator::Basis OutputEvolutionEstimator::basis_of(
    const optim::UpdateRule& rule) const {
  const NamedTensors weights = rule.weights();
  const optim::WeightAxes axes = rule.weight_axes();
  const auto own = weights.empty() ? axes.end() : axes.find(weights[0].first);
  std::vector<std::vector<std::string>> names{{}, {}};
  if (own != axes.end() && own->second.size() == 2) names = own->second;
  return {.outputs = places_of(options_.outputs, names[0], "output"),
          .features = places_of(options_.features, names[1], "feature"),
          .num_outputs = static_cast<int64_t>(names[0].size()),
          .num_features = static_cast<int64_t>(names[1].size())};
}

at::Tensor OutputEvolutionEstimator::scale(const optim::UpdateRule& rule) const {
  const Basis basis = basis_of(rule);
  const at::Tensor result = at::zeros_like(flatten(rule.weights()).detach());
  const at::Tensor matrix = result.narrow(0, 0, basis.num_outputs * basis.num_features)
                                .view({basis.num_outputs, basis.num_features});
  for (const int64_t output : basis.outputs) {
    for (const int64_t feature : basis.features) matrix[output][feature].fill_(1.0);
  }
  return result;
}

at::Tensor OutputEvolutionEstimator::gradient(const optim::UpdateRule& rule, const Run& run,
                                              const at::Tensor& perturbed,
                                              const OuterStep& step) const {
  const at::AutoGradMode with_grad(true);
  const Basis basis = basis_of(rule);
  const NamedTensors weights = rule.weights();
  const at::Tensor theta = flatten(weights).detach().requires_grad_(true);
  const auto learned = rule.with_weights(unflatten(theta, weights));
  const at::Tensor outputs = at::tensor(basis.outputs, at::kLong).to(step.device);
  const at::Tensor features = at::tensor(basis.features, at::kLong).to(step.device);

  // Sums over tensors and steps of phi phi^T [B,B] and of phi z^T [B,K].
  at::Tensor squares, products;
  Replay replay(run, rule, *learned, step.device);
  while (replay.has_next()) {
    const int64_t place = replay.steps() % options_.stride;
    if (place >= options_.window) {
      replay.step();
      continue;
    }
    const optim::Decisions decisions = replay.step_with_graph();
    const at::Tensor phi = decisions.features.detach().index_select(1, features).to(at::kFloat);
    const at::Tensor z = decisions.outputs.index_select(1, outputs).to(at::kFloat);
    const at::Tensor square = at::matmul(phi.t(), phi), product = at::matmul(phi.t(), z);
    squares = squares.defined() ? squares + square : square;
    products = products.defined() ? products + product : product;
    if (place + 1 == options_.window) replay.forget_graph();
  }
  if (!products.defined()) return perturbed;
  const at::Tensor slopes = perturbed.narrow(0, 0, basis.num_outputs * basis.num_features)
                                .view({basis.num_outputs, basis.num_features})
                                .to(squares.options())
                                .index_select(0, outputs)
                                .index_select(1, features);
  const auto size = static_cast<double>(basis.features.size());
  const at::Tensor ridge =
      kRidge * squares.trace() / size * at::eye(squares.size(0), squares.options());
  const at::Tensor field = at::linalg_solve(squares + ridge, slopes.t());  // [B,K]
  const at::Tensor sum = (field * products).sum();
  return torch::autograd::grad({sum}, {theta})[0];
}

}  // namespace mnemosyne::meta
