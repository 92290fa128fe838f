#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/optim/update_rule.h"
#include "mnemosyne/tasks/task.h"

/// The smallest learned rule and the smallest tasks, with everything about them known.
namespace mnemosyne::testing {

/// m <- d m + (1 - d) g; u = exp(a) m with d = sigmoid(b): weights "log_rate" a and "decay_logit"
/// b.
class ToyRule : public optim::UpdateRule {
 public:
  explicit ToyRule(double log_rate, double decay_logit)
      : weights_{{"log_rate", at::tensor({static_cast<float>(log_rate)})},
                 {"decay_logit", at::tensor({static_cast<float>(decay_logit)})}} {}
  explicit ToyRule(NamedTensors weights) : weights_(std::move(weights)) {}

  std::string name() const override { return "toy"; }
  optim::StateLayout state_layout(const at::Tensor& param) const override {
    return {optim::step_entry(), optim::entry_like("m", param)};
  }
  std::shared_ptr<const UpdateRule> elementwise() const override { return nullptr; }
  double default_lr() const override { return 1.0; }
  NamedTensors weights() const override { return weights_; }
  std::shared_ptr<UpdateRule> with_weights(const NamedTensors& weights) const override {
    return std::make_shared<ToyRule>(weights);
  }

 protected:
  optim::UpdateResult do_update(at::TensorList grads, const optim::State& state, at::TensorList,
                                const optim::StepOptions& options) const override {
    const at::Tensor rate = weights_[0].second.exp() * options.lr;
    const at::Tensor decay = weights_[1].second.sigmoid();
    optim::UpdateResult result;
    for (size_t i = 0; i < grads.size(); ++i) {
      const at::Tensor m = decay * state[i][1] + (1 - decay) * grads[i];
      result.updates.push_back(rate * m);
      result.state.push_back({state[i][0] + 1, m});
    }
    return result;
  }

 private:
  NamedTensors weights_;
};

/// loss = 1/2 sum_i curvature_i (x_i - noise_i(step))^2 + floor, one parameter vector of two
/// entries.
class ToyTask : public tasks::Task {
 public:
  explicit ToyTask(double noise = 0.0, double floor = 0.1) : noise_(noise), floor_(floor) {}

  std::string name() const override { return "toy"; }
  std::vector<at::Tensor> init(uint64_t seed) const override {
    return {at::tensor({1.0f, -0.5f}) * (1.0 + 0.1 * static_cast<double>(seed % 7))};
  }
  std::vector<std::string> param_names() const override { return {"x"}; }
  std::unique_ptr<tasks::BatchStream> train_stream(uint64_t seed) const override {
    return std::make_unique<Stream>(seed, noise_);
  }
  std::vector<tasks::Batch> validation_batches() const override { return {{at::zeros({2})}}; }
  at::Tensor loss(at::TensorList params, const tasks::Batch& batch) const override {
    const at::Tensor curvature = at::tensor({1.0f, 0.3f});
    return ((params[0] - batch[0]).square() * curvature).sum(-1) * 0.5 + floor_;
  }

 private:
  class Stream : public tasks::BatchStream {
   public:
    Stream(uint64_t seed, double noise) : seed_(seed), noise_(noise) {}
    tasks::Batch at(int64_t step) override {
      const auto phase = static_cast<double>(seed_ % 1000) + 1.7 * static_cast<double>(step);
      return {at::tensor({std::sin(phase), std::cos(2 * phase)}).to(at::kFloat) * noise_};
    }

   private:
    uint64_t seed_;
    double noise_;
  };

  double noise_, floor_;
};

class ToyFamily : public tasks::TaskFamily {
 public:
  explicit ToyFamily(double noise = 0.0, double floor = 0.1) : noise_(noise), floor_(floor) {}
  std::string name() const override { return "toy"; }
  std::shared_ptr<const tasks::Task> sample(uint64_t) const override {
    return std::make_shared<ToyTask>(noise_, floor_);
  }

 private:
  double noise_, floor_;
};

}  // namespace mnemosyne::testing
