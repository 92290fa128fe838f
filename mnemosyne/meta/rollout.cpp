#include "mnemosyne/meta/rollout.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/checkpoint.h"

namespace mnemosyne::meta {
namespace {

double schedule_factor(Schedule schedule, int64_t step, int64_t num_steps) {
  if (schedule == Schedule::kConstant) return 1.0;
  const double progress = static_cast<double>(step) / static_cast<double>(num_steps);
  return 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

bool all_finite(const std::vector<at::Tensor>& tensors) {
  double total = 0.0;
  for (const at::Tensor& tensor : tensors) total += tensor.sum().item<double>();
  return std::isfinite(total);
}

std::vector<float> to_vector(const at::Tensor& values) {
  const at::Tensor contiguous = values.detach().to(at::kFloat).contiguous();
  const float* data = contiguous.const_data_ptr<float>();
  return {data, data + contiguous.numel()};
}

std::string param_key(size_t index) { return "params." + std::to_string(index); }

std::string state_key(size_t member, size_t param, size_t slot) {
  return "state." + std::to_string(member) + "." + std::to_string(param) + "." +
         std::to_string(slot);
}

}  // namespace

Rollout::Rollout(std::shared_ptr<const tasks::Task> task, std::vector<Member> members,
                 int64_t num_steps, uint64_t seed)
    : task_(std::move(task)), members_(std::move(members)), num_steps_(num_steps) {
  if (members_.empty()) throw InputError("[rollout] expected at least one member, got none");
  if (num_steps < 1) {
    throw InputError("[rollout] expected at least one step, got " + std::to_string(num_steps));
  }
  stream_ = task_->train_stream(seed);
  params_ = tasks::stack_members(task_->init(seed), static_cast<int64_t>(members_.size()));
  for (at::Tensor& param : params_) param.requires_grad_(true);
  alive_.assign(members_.size(), 1);
  for (size_t m = 0; m < members_.size(); ++m) {
    std::vector<at::Tensor>& views = views_.emplace_back();
    for (const at::Tensor& param : params_) {
      views.push_back(param.detach().select(0, static_cast<int64_t>(m)));
    }
    states_.push_back(optim::init_state(*members_[m].rule, views));
  }
}

std::vector<at::Tensor> Rollout::gradients(at::Tensor& losses) const {
  const at::AutoGradMode with_grad(true);
  losses = task_->loss(params_, stream_->at(step_));
  const torch::autograd::variable_list grads = torch::autograd::grad(
      {losses.sum()}, {params_.begin(), params_.end()}, {}, std::nullopt, false, true);
  std::vector<at::Tensor> result;
  for (size_t i = 0; i < grads.size(); ++i) {
    result.push_back(grads[i].defined() ? grads[i].contiguous() : at::zeros_like(params_[i]));
  }
  return result;
}

std::vector<float> Rollout::step() {
  at::Tensor losses;
  const std::vector<at::Tensor> grads = gradients(losses);
  const at::NoGradGuard no_grad;
  std::vector<float> values = to_vector(losses);
  const bool check_members = !all_finite(grads);
  for (size_t m = 0; m < members_.size(); ++m) {
    const std::vector<at::Tensor> own = tasks::member_views(grads, static_cast<int64_t>(m));
    if (!std::isfinite(values[m]) || (check_members && !all_finite(own))) alive_[m] = 0;
    if (!alive_[m]) {
      values[m] = std::numeric_limits<float>::infinity();
      continue;
    }
    optim::StepOptions options = members_[m].options;
    options.lr *= schedule_factor(members_[m].schedule, step_, num_steps_);
    members_[m].rule->step_(own, states_[m], views_[m], options);
  }
  ++step_;
  return values;
}

std::vector<at::Tensor> Rollout::evaluation_params() const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> result;
  for (const at::Tensor& param : params_) result.push_back(param.detach().clone());
  for (size_t m = 0; m < members_.size(); ++m) {
    const auto own = members_[m].rule->evaluation_params(states_[m], views_[m]);
    for (size_t i = 0; i < own.size(); ++i) {
      result[i].select(0, static_cast<int64_t>(m)).copy_(own[i]);
    }
  }
  return result;
}

std::vector<float> Rollout::validation_mean(Measure measure) const {
  const at::NoGradGuard no_grad;
  const std::vector<tasks::Batch> batches = task_->validation_batches();
  if (batches.empty()) return {};
  const std::vector<at::Tensor> params = evaluation_params();
  at::Tensor total;
  for (const tasks::Batch& batch : batches) {
    const at::Tensor value = ((*task_).*measure)(params, batch);
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
  for (size_t i = 0; i < params_.size(); ++i) {
    tensors.emplace_back(param_key(i), params_[i].detach().clone());
  }
  for (size_t m = 0; m < states_.size(); ++m) {
    tensors.emplace_back("alive." + std::to_string(m), at::scalar_tensor(alive_[m], at::kLong));
    for (size_t i = 0; i < states_[m].size(); ++i) {
      for (size_t s = 0; s < states_[m][i].size(); ++s) {
        tensors.emplace_back(state_key(m, i, s), states_[m][i][s].clone());
      }
    }
  }
  return tensors;
}

void Rollout::restore(const NamedTensors& tensors) {
  const at::NoGradGuard no_grad;
  const auto checked = [&](const std::string& name, const at::Tensor& like) {
    return find_checked(tensors, name, like.scalar_type(), like.sizes());
  };
  const int64_t step = find_checked(tensors, "step", at::kLong, {}).item<int64_t>();
  if (step < 0 || step > num_steps_) {
    throw InputError("[checkpoint] expected a step of 0 to " + std::to_string(num_steps_) +
                     ", got " + std::to_string(step));
  }
  step_ = step;
  for (size_t i = 0; i < params_.size(); ++i) params_[i].copy_(checked(param_key(i), params_[i]));
  for (size_t m = 0; m < states_.size(); ++m) {
    const std::string alive = "alive." + std::to_string(m);
    alive_[m] = find_checked(tensors, alive, at::kLong, {}).item<int64_t>() != 0;
    for (size_t i = 0; i < states_[m].size(); ++i) {
      for (size_t s = 0; s < states_[m][i].size(); ++s) {
        states_[m][i][s] = checked(state_key(m, i, s), states_[m][i][s]).clone();
      }
    }
  }
}

}  // namespace mnemosyne::meta
