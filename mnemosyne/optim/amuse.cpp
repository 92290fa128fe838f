#include "mnemosyne/optim/amuse.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"
#include "mnemosyne/optim/newton_schulz.h"

namespace mnemosyne::optim {

static void bind(Fields& visit, AmuseOptions& options) {
  visit("beta1", options.beta1);
  visit("rho", options.rho);
  visit("momentum", options.momentum);
  visit("beta2", options.beta2);
  visit("eps", options.eps);
  visit("num_iterations", options.num_iterations);
  visit("warmup_steps", options.warmup_steps);
}

namespace {

enum Slot { kStep, kMoment, kFast, kWeightSum, kWarmupShare, kAverageShare };

StateEntry number_entry(std::string name) { return {std::move(name), {}, at::kDouble}; }

/// x from y and z.
at::Tensor average_of(const at::Tensor& y, const at::Tensor& z, const at::Tensor& average_share) {
  return z + (y - z) / average_share.to(y.options());
}

}  // namespace

Amuse::Amuse(const AmuseOptions& options) : options_(options) {
  const auto check = [&](bool good, const char* expected, double got) {
    check_option(good, name(), expected, got);
  };
  check(options.beta1 > 0.0 && options.beta1 < 1.0, "beta1 in (0, 1)", options.beta1);
  check(options.rho >= 0.0, "rho of at least 0", options.rho);
  check(options.momentum >= 0.0 && options.momentum < 1.0, "momentum in [0, 1)", options.momentum);
  check(options.beta2 >= 0.0 && options.beta2 < 1.0, "beta2 in [0, 1)", options.beta2);
  check(options.eps >= 0.0, "eps of at least 0", options.eps);
  check(options.num_iterations >= 1 && options.num_iterations < 100, "num_iterations from 1 to 99",
        static_cast<double>(options.num_iterations));
  check(options.warmup_steps >= 1, "warmup_steps of at least 1",
        static_cast<double>(options.warmup_steps));
}

std::string Amuse::options_json() const { return write_options(options_); }

bool Amuse::is_matrix(const at::Tensor& param) const {
  return !elementwise_ && param.dim() >= 2 && param.size(0) > 1 && param.numel() > param.size(0);
}

double Amuse::warmup(double t) const {
  return std::min(1.0, t / static_cast<double>(options_.warmup_steps));
}

std::vector<double> Amuse::step_sizes(const State& state, at::TensorList params,
                                      const StepOptions& options) const {
  std::vector<double> sizes;
  for (size_t i = 0; i < params.size(); ++i) {
    sizes.push_back(options.lr * warmup(static_cast<double>(step_count(state[i]) + 1)));
  }
  return sizes;
}

std::shared_ptr<const UpdateRule> Amuse::elementwise() const {
  auto rule = std::make_shared<Amuse>(*this);
  rule->elementwise_ = true;
  return rule;
}

StateLayout Amuse::state_layout(const at::Tensor& param) const {
  return {step_entry(),
          entry_like("moment", param),
          entry_like("z", param),
          number_entry("weight_sum"),
          number_entry("warmup_share"),
          number_entry("average_share")};
}

ParamState Amuse::init(const at::Tensor& param) const {
  ParamState state = UpdateRule::init(param);
  state[kFast].copy_(param.detach());
  state[kAverageShare].fill_(options_.beta1);
  return state;
}

at::Tensor Amuse::direction(const at::Tensor& grad, at::Tensor& moment, double t) const {
  if (!is_matrix(grad)) {
    moment.mul_(options_.beta2).addcmul_(grad, grad, 1.0 - options_.beta2);
    const double root_scale = 1.0 / std::sqrt(1.0 - std::pow(options_.beta2, t));
    return grad / (moment.sqrt() * root_scale + options_.eps);
  }
  moment.lerp_(grad, 1.0 - options_.momentum);
  const at::Tensor matrix = grad.lerp(moment, options_.momentum).reshape({grad.size(0), -1});
  const auto longest = static_cast<double>(std::max(matrix.size(0), matrix.size(1)));
  return (newton_schulz(matrix, options_.num_iterations) * (0.2 * std::sqrt(longest)))
      .reshape(grad.sizes());
}

at::Tensor Amuse::advance_shares(ParamState& state, const at::Tensor& lr, double t) const {
  const auto warmup = static_cast<double>(options_.warmup_steps);
  at::Tensor &weight_sum = state[kWeightSum], &warmup_share = state[kWarmupShare];
  weight_sum.add_(lr.square());
  const at::Tensor share = at::where(weight_sum > 0, lr.square() / weight_sum, 0.0);
  if (t == warmup) warmup_share.copy_(share);
  if (t > warmup) {
    const at::Tensor odds = (share * (1.0 - warmup_share)) / (warmup_share * (1.0 - share));
    // Learning rates of zero leave nothing to compare.
    const at::Tensor left = odds.nan_to_num(1.0).clamp(0.0, 1.0).pow(options_.rho);
    state[kAverageShare].copy_(1.0 - left * (1.0 - options_.beta1));
  }
  return share;
}

at::Tensor Amuse::update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                             const StepOptions& options) const {
  const auto t = static_cast<double>(step_count(state));
  at::Tensor lr = at::full({}, options.lr * warmup(t), state[kWeightSum].options());
  if (options.lr_factor.defined()) lr.mul_(options.lr_factor.to(lr.options()));
  at::Tensor decay = lr * *options.weight_decay;
  const at::Tensor& factor = options.weight_decay_factor;
  if (factor.defined()) decay.mul_(factor.to(decay.options()));

  at::Tensor& fast = state[kFast];
  const at::Tensor average = average_of(param, fast, state[kAverageShare]);
  const at::Tensor share = advance_shares(state, lr, t).to(param.options());
  const at::Tensor step = direction(grad, state[kMoment], t) * lr.to(param.options());
  fast.mul_(1.0 - decay.to(param.options())).sub_(step);
  const at::Tensor next = average.lerp(fast, share);
  return param - fast.lerp(next, state[kAverageShare].to(param.options()));
}

std::vector<at::Tensor> Amuse::evaluation_params(const State& state, at::TensorList params) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> averages;
  averages.reserve(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    check_state(state_layout(params[i]), state.at(i), name(), "parameter " + std::to_string(i));
    const at::Tensor y = params[i].detach().to(state[i][kFast].scalar_type());
    averages.push_back(
        average_of(y, state[i][kFast], state[i][kAverageShare]).to(params[i].scalar_type()));
  }
  return averages;
}

std::shared_ptr<UpdateRule> make_amuse(const std::string& options_json) {
  return std::make_shared<Amuse>(read_options<AmuseOptions>("amuse", options_json));
}

}  // namespace mnemosyne::optim
