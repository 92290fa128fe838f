#include "mnemosyne/optim/muon.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"
#include "mnemosyne/optim/newton_schulz.h"

namespace mnemosyne::optim {

static void bind(Fields& visit, MuonOptions& options) {
  visit("momentum", options.momentum);
  visit("nesterov", options.nesterov);
  visit("num_iterations", options.num_iterations);
  visit("adam_lr_ratio", options.adam_lr_ratio);
  visit("adam_beta1", options.adam_beta1);
  visit("adam_beta2", options.adam_beta2);
}

namespace {

constexpr double kSmallestNorm = 1e-7;

StepOptions adam_step_options(const MuonOptions& muon, StepOptions options) {
  options.lr *= muon.adam_lr_ratio;
  return options;
}

}  // namespace

Muon::Muon(const MuonOptions& options, const std::string& name)
    : options_(options), adam_({.beta1 = options.adam_beta1, .beta2 = options.adam_beta2}, name) {
  check_option(options.momentum >= 0.0 && options.momentum < 1.0, name, "momentum in [0, 1)",
               options.momentum);
  check_option(options.num_iterations >= 1 && options.num_iterations < 100, name,
               "num_iterations from 1 to 99", static_cast<double>(options.num_iterations));
  check_option(options.adam_lr_ratio >= 0.0, name, "adam_lr_ratio of at least 0",
               options.adam_lr_ratio);
}

std::string Muon::options_json() const { return write_options(options_); }

bool Muon::is_matrix(const at::Tensor& param) const {
  return !elementwise_ && param.dim() >= 2 && param.size(0) > 1 && param.numel() > param.size(0);
}

StateLayout Muon::state_layout(const at::Tensor& param) const {
  return {step_entry(), entry_like("momentum", param),
          is_matrix(param) ? entry_of("second_moment", {0}, param)
                           : entry_like("second_moment", param)};
}

std::shared_ptr<const UpdateRule> Muon::elementwise() const {
  auto rule = std::make_shared<Muon>(*this);
  rule->elementwise_ = true;
  return rule;
}

std::vector<double> Muon::step_sizes(const State&, at::TensorList params,
                                     const StepOptions& options) const {
  std::vector<double> sizes;
  for (const at::Tensor& param : params) {
    sizes.push_back(is_matrix(param) ? options.lr : adam_step_options(options_, options).lr);
  }
  return sizes;
}

at::Tensor Muon::update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                            const StepOptions& options) const {
  if (!is_matrix(param)) {
    return adam_.update_one(grad, state, param, adam_step_options(options_, options));
  }
  at::Tensor& momentum = state[1];
  const double decay = options.momentum.value_or(options_.momentum);
  momentum.lerp_(grad, 1.0 - decay);
  const at::Tensor direction = options_.nesterov ? grad.lerp(momentum, decay) : momentum;
  const at::Tensor matrix = direction.reshape({param.size(0), -1});
  return scaled(newton_schulz(matrix, options_.num_iterations), state[2], options.lr)
      .reshape(param.sizes());
}

at::Tensor Muon::scaled(const at::Tensor& orthogonal, at::Tensor& /*second_moment*/,
                        double lr) const {
  const auto longest = static_cast<double>(std::max(orthogonal.size(0), orthogonal.size(1)));
  return orthogonal.mul(lr * 0.2 * std::sqrt(longest));
}

at::Tensor Muon::fallback_update(const at::Tensor& grad, const ParamState& state,
                                 const at::Tensor& param, const StepOptions& options) const {
  if (!is_matrix(param)) return UpdateRule::fallback_update(grad, state, param, options);
  const at::Tensor& m = state[1];
  const at::Tensor size = m.to(at::kDouble).square().mean().sqrt().clamp_min(kSmallestNorm);
  return m.div(size).mul_(options.lr * 0.2);
}

void Muon::do_step_(at::TensorList grads, State& state, at::TensorList params,
                    const StepOptions& options, const std::vector<double>& shrink) const {
  const at::NoGradGuard no_grad;
  std::vector<size_t> others;
  std::vector<at::Tensor> other_grads, other_params;
  State other_states;
  std::vector<double> other_shrink;
  for (size_t i = 0; i < params.size(); ++i) {
    if (is_matrix(params[i])) {
      step_one_(grads[i], state[i], params[i], options, shrink[i]);
      continue;
    }
    others.push_back(i);
    other_grads.push_back(grads[i]);
    other_params.push_back(params[i]);
    other_shrink.push_back(shrink[i]);
    other_states.push_back(std::move(state[i]));
  }
  adam_.do_step_(other_grads, other_states, other_params, adam_step_options(options_, options),
                 other_shrink);
  for (size_t k = 0; k < others.size(); ++k) state[others[k]] = std::move(other_states[k]);
}

std::shared_ptr<UpdateRule> make_muon(const std::string& options_json) {
  return std::make_shared<Muon>(read_options<MuonOptions>("muon", options_json));
}

}  // namespace mnemosyne::optim
