#include "mnemosyne/meta/rollout.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/scalar_tensor.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/checkpoint.h"
#include "mnemosyne/meta/loss_gradients.h"

namespace mnemosyne::meta {
namespace {

std::string member_key(const char* name, size_t member) {
  return name + std::string(".") + std::to_string(member);
}

}  // namespace

double schedule_factor(Schedule schedule, int64_t step, int64_t num_steps) {
  if (schedule == Schedule::kConstant) return 1.0;
  const double progress = static_cast<double>(step) / static_cast<double>(num_steps);
  return 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

Rollout::Rollout(std::shared_ptr<const tasks::Task> task, std::vector<Member> members,
                 int64_t num_steps, uint64_t seed, at::Device device)
    : task_(std::move(task)), members_(std::move(members)), num_steps_(num_steps), device_(device) {
  if (members_.empty()) throw InputError("[rollout] expected at least one member, got none");
  if (num_steps < 1) {
    throw InputError("[rollout] expected at least one step, got " + std::to_string(num_steps));
  }
  stream_ = task_->train_stream(seed);
  params_ = tasks::stack_members(tasks::on_device(task_->init(seed), device_),
                                 static_cast<int64_t>(members_.size()));
  optim::Population::Rules rules;
  for (const Member& member : members_) rules.push_back(member.rule);
  population_ = std::make_unique<optim::Population>(std::move(rules), params_);
  for (at::Tensor& param : params_) param.requires_grad_(true);
  alive_.assign(members_.size(), 1);
}

std::vector<float> Rollout::step() {
  const LossGradients now =
      loss_gradients(*task_, params_, tasks::on_device(stream_->at(step_), device_));
  std::vector<float> values = to_vector(checked_losses(now));
  std::vector<optim::StepOptions> options;
  for (size_t m = 0; m < members_.size(); ++m) {
    if (!std::isfinite(values[m])) alive_[m] = 0;
    if (!alive_[m]) values[m] = std::numeric_limits<float>::infinity();
    options.push_back(members_[m].options);
    options.back().lr *= schedule_factor(members_[m].schedule, step_, num_steps_);
  }
  population_->step_(now.grads, options, alive_);
  ++step_;
  return values;
}

std::vector<at::Tensor> Rollout::evaluation_params() const {
  return population_->evaluation_params();
}

std::vector<float> Rollout::validation_mean(Measure measure) const {
  const at::NoGradGuard no_grad;
  const std::vector<tasks::Batch> batches = task_->validation_batches();
  if (batches.empty()) return {};
  const std::vector<at::Tensor> params = evaluation_params();
  at::Tensor total;
  for (const tasks::Batch& batch : batches) {
    const at::Tensor value = ((*task_).*measure)(params, tasks::on_device(batch, device_));
    if (!value.defined()) return {};
    total = total.defined() ? total + value : value;
  }
  return to_vector(total / static_cast<double>(batches.size()));
}

std::vector<float> Rollout::validation_loss() const { return validation_mean(&tasks::Task::loss); }

std::vector<float> Rollout::validation_accuracy() const {
  return validation_mean(&tasks::Task::accuracy);
}

NamedTensors Rollout::checkpoint() const {
  NamedTensors tensors;
  tensors.emplace_back("step", at::scalar_tensor(step_, at::kLong));
  append(tensors, "params.", params_);
  for (size_t m = 0; m < members_.size(); ++m) {
    tensors.emplace_back(member_key("alive", m), at::scalar_tensor(alive_[m], at::kLong));
    append(tensors, member_key("state", m) + ".", population_->state(static_cast<int64_t>(m)));
  }
  return tensors;
}

void Rollout::restore(const NamedTensors& tensors) {
  const at::NoGradGuard no_grad;
  const int64_t step = find_checked(tensors, "step", at::kLong, {}).item<int64_t>();
  if (step < 0 || step > num_steps_) {
    throw InputError("[checkpoint] expected a step of 0 to " + std::to_string(num_steps_) +
                     ", got " + std::to_string(step));
  }
  step_ = step;
  const std::vector<at::Tensor> params = find_alike(tensors, "params.", params_);
  for (size_t i = 0; i < params_.size(); ++i) params_[i].copy_(params[i]);
  for (size_t m = 0; m < members_.size(); ++m) {
    alive_[m] = find_checked(tensors, member_key("alive", m), at::kLong, {}).item<int64_t>() != 0;
    const auto member = static_cast<int64_t>(m);
    population_->set_state(
        member, find_alike(tensors, member_key("state", m) + ".", population_->state(member)));
  }
}

}  // namespace mnemosyne::meta
