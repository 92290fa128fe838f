#include "mnemosyne/optim/mnemosyne_rule.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/controller.h"
#include "mnemosyne/optim/fallback.h"
#include "mnemosyne/optim/fused_step.h"
#include "mnemosyne/optim/rule_options.h"

namespace mnemosyne::optim {
namespace {

enum Slot { kStep, kMomentum, kSecondMoment, kSignals };

constexpr char kControllerName[] = "controller";
constexpr double kLargestStepBound = 3.0;

ControllerBounds bounds_of(const MnemosyneRuleOptions& options) {
  return {.step = options.step_bound, .mixture = options.mixture_bound};
}

at::Tensor soft(const at::Tensor& x) { return x / (1.0 + x.abs()); }

TensorFacts facts_of(const at::Tensor& param, int64_t t, const StepOptions& options) {
  return {t, options.num_steps, param.numel(), matrix_rows(param)};
}

Signals& signals_of(const at::Tensor& tensor) {
  return *reinterpret_cast<Signals*>(tensor.mutable_data_ptr<float>());
}

double squared(const at::Tensor& x) { return x.square().sum(at::kDouble).item<double>(); }

// One tensor of the readable form, between the moments and the update.
struct Moments {
  at::Tensor g, p, m, v;
  ops::TensorCoefficients base;
  ops::TensorSums sums;
};

Moments advance(const at::Tensor& grad, const at::Tensor& param, const ParamState& state,
                const ops::TensorCoefficients& base) {
  Moments out;
  out.base = base;
  out.g = grad.detach().to(compute_dtype(param));
  out.p = param.detach().to(compute_dtype(param));
  const at::Tensor& old = state[kMomentum];
  out.m = base.momentum_decay * old + (1.0 - base.momentum_decay) * out.g;
  out.v = base.second_decay * state[kSecondMoment] + (1.0 - base.second_decay) * out.g * out.g;
  out.sums.grad_dot_momentum = (out.g * old).sum(at::kDouble).item<double>();
  out.sums.grad_squared = squared(out.g);
  out.sums.old_squared = squared(old);
  out.sums.new_squared = squared(out.m);
  out.sums.param_squared = squared(out.p);
  out.sums.second_moment = out.v.sum(at::kDouble).item<double>();
  out.sums.zeros = (out.g == 0).sum().item<double>();
  return out;
}

// z [K] are the controller's outputs; the update of step 3 in the class comment.
at::Tensor corrected_update(const Moments& tensor, const at::Tensor& z, int64_t rows,
                            const ControllerBounds& bounds) {
  const ops::TensorCoefficients& c = tensor.base;
  const at::Tensor step = c.step * (bounds.step * z[0].tanh()).exp();
  const at::Tensor blend = c.blend * (kLogBlendBound * z[1].tanh()).exp();
  const at::Tensor mixture = bounds.mixture * z[2].tanh();
  const at::Tensor v = tensor.v * c.second_correction;
  const at::Tensor root = v.sqrt() + c.eps;
  const at::Tensor a = tensor.m * c.momentum_correction / root;
  const at::Tensor base =
      rows > 0 ? orthogonal_direction(tensor.m + blend * (tensor.g - tensor.m), rows) : a;
  const at::Tensor u = rows > 0 ? base / ops::kDirectionRms : base;
  const at::Tensor share = v / (v + v.mean() + 1e-30) - 0.5;
  const at::Tensor h = kReadoutScale * (z[3] * soft(u * a) + z[4] * soft(u * (tensor.g / root)) +
                                        z[5] * soft(a.abs()) + z[6] * soft(u.abs()) + z[7] * share);
  const at::Tensor mixed = rows > 0 ? base + mixture * (ops::kDirectionRms * a - base) : base;
  return step * mixed * (1.0 + ops::kReadoutBound * soft(h));
}

at::Tensor features_tensor(const Features& features, const at::TensorOptions& options) {
  return at::tensor(at::ArrayRef<double>(features.data(), features.size()), at::kDouble)
      .to(options);
}

}  // namespace

MnemosyneRule::MnemosyneRule(MnemosyneRuleOptions options, at::Tensor controller)
    : options_(options), base_(options.base), controller_(std::move(controller)) {
  check_option(options.step_bound >= 0.0 && options.step_bound <= kLargestStepBound, "mnemosyne",
               "step_bound in [0, 3]", options.step_bound);
  check_option(options.mixture_bound >= 0.0 && options.mixture_bound <= 1.0, "mnemosyne",
               "mixture_bound in [0, 1]", options.mixture_bound);
  if (!controller_.defined()) controller_ = at::zeros({kNumOutputs, kNumFeatures}, at::kFloat);
  TORCH_CHECK(controller_.dim() == 2 && controller_.size(0) == kNumOutputs &&
                  controller_.size(1) == kNumFeatures,
              "[mnemosyne] expected a controller of shape [", kNumOutputs, ", ", kNumFeatures,
              "], got ", controller_.sizes());
}

StateLayout MnemosyneRule::state_layout(const at::Tensor& param) const {
  if (!options_.learned) return base_.state_layout(param);
  return {step_entry(), entry_like("momentum", param), entry_like("second_moment", param),
          host_entry("signals", {kNumSignals}, at::kFloat)};
}

std::vector<double> MnemosyneRule::step_sizes(const State& state, at::TensorList params,
                                              const StepOptions& options) const {
  return base_.step_sizes(state, params, options);
}

UpdateResult MnemosyneRule::do_update(at::TensorList grads, const State& state,
                                      at::TensorList params, const StepOptions& options) const {
  if (!options_.learned) return base_.do_update(grads, state, params, options);
  UpdateResult result;
  std::vector<Moments> moments;
  std::vector<TensorFacts> facts;
  std::vector<ops::TensorSums> sums;
  std::vector<const Signals*> signals;
  for (size_t i = 0; i < params.size(); ++i) {
    const int64_t t = step_count(state[i]) + 1;
    facts.push_back(facts_of(params[i], t, options));
    const auto base = base_coefficients(options_.base, options, t, facts[i].rows > 0);
    moments.push_back(advance(grads[i], params[i], state[i], base));
    sums.push_back(moments[i].sums);
    ParamState& next = result.state.emplace_back(
        ParamState{state[i][kStep] + 1, moments[i].m, moments[i].v, state[i][kSignals].clone()});
    update_signals(signals_of(next[kSignals]), sums[i], t);
    signals.push_back(&signals_of(next[kSignals]));
  }
  const std::vector<Features> features = controller_features(facts, signals, sums);
  for (size_t i = 0; i < params.size(); ++i) {
    const at::TensorOptions target = moments[i].m.options();
    const at::Tensor x = features_tensor(features[i], target);
    const at::Tensor z = controller_.to(target).matmul(x);
    result.updates.push_back(corrected_update(moments[i], z, facts[i].rows, bounds_of(options_)));
  }
  return result;
}

void MnemosyneRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                             const StepOptions& options, const std::vector<double>& shrink) const {
  if (!options_.learned) return base_.do_step_(grads, state, params, options, shrink);
  if (!FusedStep::supports(grads, params)) {
    return UpdateRule::do_step_(grads, state, params, options, shrink);
  }
  const at::NoGradGuard no_grad;
  std::vector<int64_t> rows;
  for (const at::Tensor& param : params) rows.push_back(matrix_rows(param));
  FusedStep fused(grads, state, params, rows);
  std::vector<ops::TensorCoefficients> coefficients;
  std::vector<TensorFacts> facts;
  for (size_t i = 0; i < params.size(); ++i) {
    facts.push_back(facts_of(params[i], step_count(state[i]), options));
    coefficients.push_back(
        base_coefficients(options_.base, options, facts[i].t, facts[i].rows > 0));
    coefficients.back().decay = shrink[i];
  }
  const auto sums = ops::update_moments_(fused.items(), coefficients, true);
  std::vector<const Signals*> signals;
  for (size_t i = 0; i < params.size(); ++i) {
    update_signals(signals_of(state[i][kSignals]), sums[i], facts[i].t);
    signals.push_back(&signals_of(state[i][kSignals]));
  }
  const std::vector<Features> features = controller_features(facts, signals, sums);
  const at::Tensor weights = controller_.detach().to(at::kFloat).contiguous();
  for (size_t i = 0; i < params.size(); ++i) {
    apply_outputs(controller_outputs(weights.const_data_ptr<float>(), features[i]),
                  bounds_of(options_), coefficients[i]);
  }
  const int64_t replaced = ops::apply_directions_(fused.items(), coefficients, sums);
  if (options.fallbacks != nullptr) options.fallbacks->add(replaced);
  fused.finish();
}

at::Tensor MnemosyneRule::fallback_update(const at::Tensor& grad, const ParamState& state,
                                          const at::Tensor& param,
                                          const StepOptions& options) const {
  return base_.fallback_update(grad, state, param, options);
}

NamedTensors MnemosyneRule::weights() const { return {{kControllerName, controller_}}; }

std::shared_ptr<UpdateRule> MnemosyneRule::with_weights(const NamedTensors& weights) const {
  const NamedTensors own = matching(name(), this->weights(), weights);
  return std::make_shared<MnemosyneRule>(options_, own[0].second);
}

const std::vector<std::string>& MnemosyneRule::feature_names() {
  return controller_feature_names();
}

const std::vector<std::string>& MnemosyneRule::output_names() { return controller_output_names(); }

void bind(OptionVisitor& visit, MnemosyneRuleOptions& options) {
  bind(visit, options.base);
  visit("learned", options.learned);
  visit("step_bound", options.step_bound);
  visit("mixture_bound", options.mixture_bound);
}

std::string MnemosyneRule::options_json() const { return write_options(options_); }

std::shared_ptr<UpdateRule> make_mnemosyne_rule(const std::string& options_json) {
  return std::make_shared<MnemosyneRule>(
      read_options<MnemosyneRuleOptions>("mnemosyne", options_json));
}

}  // namespace mnemosyne::optim
