#include "mnemosyne/optim/mnemosyne_rule.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <utility>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"
#include "mnemosyne/optim/step_features.h"
#include "mnemosyne/optim/step_outputs.h"

namespace mnemosyne::optim {
namespace {

constexpr size_t kSignals = 3;
constexpr char kControllerName[] = "controller";
constexpr double kLargestStepBound = 3.0;

/// Of a list whose steps have been counted.
std::vector<TensorFacts> facts_of(const State& state, at::TensorList params,
                                  const StepOptions& options) {
  std::vector<TensorFacts> facts;
  for (size_t i = 0; i < params.size(); ++i) {
    facts.push_back(
        {step_count(state[i]), options.num_steps, params[i].numel(), matrix_rows(params[i])});
  }
  return facts;
}

}  // namespace

MnemosyneRule::MnemosyneRule(MnemosyneRuleOptions options, at::Tensor controller)
    : options_(options), base_(options.base), controller_(std::move(controller)) {
  check_option(options.step_bound >= 0.0 && options.step_bound <= kLargestStepBound, "mnemosyne",
               "step_bound in [0, 3]", options.step_bound);
  check_option(options.mixture_bound >= 0.0 && options.mixture_bound <= 1.0, "mnemosyne",
               "mixture_bound in [0, 1]", options.mixture_bound);
  const std::array<int64_t, 2> shape{static_cast<int64_t>(step_output_names().size()),
                                     static_cast<int64_t>(step_feature_names().size())};
  if (!controller_.defined()) controller_ = at::zeros(shape, at::kFloat);
  TORCH_CHECK(controller_.sizes() == at::IntArrayRef(shape),
              "[mnemosyne] expected a controller of shape ", at::IntArrayRef(shape), ", got ",
              controller_.sizes());
}

StateLayout MnemosyneRule::state_layout(const at::Tensor& param) const {
  if (!options_.learned) return base_.state_layout(param);
  return {step_entry(), entry_like("momentum", param), entry_like("second_moment", param),
          float_entry("signals", {kNumSignals})};
}

std::vector<double> MnemosyneRule::step_sizes(const State& state, at::TensorList params,
                                              const StepOptions& options) const {
  return base_.step_sizes(state, params, options);
}

ops::StepCorrection MnemosyneRule::correct(StepList& list, const std::vector<TensorFacts>& facts,
                                           const std::vector<const MnemosyneRule*>& rules) const {
  const ops::StepSums sums = list.advance(/*with_sums=*/true);
  State& state = list.state();
  std::vector<at::Tensor> signals;
  for (const ParamState& own : state) signals.push_back(own[kSignals]);
  const auto members = static_cast<int64_t>(rules.size());
  const at::Tensor x = advance_features(signals, list.in_place(), sums, facts, members);
  for (size_t i = 0; i < facts.size(); ++i) state[i][kSignals] = signals[i];
  std::vector<at::Tensor> outputs;
  for (int64_t m = 0; m < members; ++m) {
    const int64_t length = x.size(0) / members;
    const at::Tensor& weights = rules[static_cast<size_t>(m)]->controller_;
    outputs.push_back(x.narrow(0, m * length, length).matmul(weights.to(x.options()).t()));
  }
  return step_correction(members == 1 ? outputs[0] : at::cat(outputs),
                         {.step = options_.step_bound, .mixture = options_.mixture_bound});
}

UpdateResult MnemosyneRule::do_update(at::TensorList grads, const State& state,
                                      at::TensorList params, const StepOptions& options) const {
  if (!options_.learned) return base_.do_update(grads, state, params, options);
  if (params.empty()) return {.updates = {}, .state = state};
  StepList list(StepList::Form::kReference, base_.inputs(grads, state, params, options));
  const ops::StepCorrection correction =
      correct(list, facts_of(list.state(), params, options), {this});
  return {.updates = list.directions(&correction), .state = std::move(list.state())};
}

void MnemosyneRule::step_joined_(const std::vector<MemberStep>& members) const {
  const at::NoGradGuard no_grad;
  StepList::Inputs all;
  std::vector<const MnemosyneRule*> rules;
  for (const MemberStep& member : members) {
    rules.push_back(static_cast<const MnemosyneRule*>(member.rule));
    rules.back()->base_.join(member.grads, *member.state, member.params, member.options,
                             member.shrink, all);
  }
  StepList list(StepList::Form::kInPlace, std::move(all));
  std::vector<TensorFacts> facts;
  for (const MemberStep& member : members) {
    const std::vector<TensorFacts> own = facts_of(*member.state, member.params, member.options);
    facts.insert(facts.end(), own.begin(), own.end());
  }
  const ops::StepCorrection correction = correct(list, facts, rules);
  list.apply(&correction, members.front().options.fallbacks);
}

void MnemosyneRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                             const StepOptions& options, const std::vector<double>& shrink) const {
  if (!options_.learned) return base_.do_step_(grads, state, params, options, shrink);
  if (!params.empty()) step_joined_({{this, grads, &state, params, options, shrink}});
}

bool MnemosyneRule::steps_with(const UpdateRule& other) const {
  const auto* rule = dynamic_cast<const MnemosyneRule*>(&other);
  return rule != nullptr && options_.learned && rule->options_.learned &&
         rule->options_.step_bound == options_.step_bound &&
         rule->options_.mixture_bound == options_.mixture_bound;
}

void MnemosyneRule::do_step_members_(const std::vector<MemberStep>& members) const {
  const bool joins = options_.learned && !members.front().params.empty();
  if (!joins || !StepList::can_join(members)) return UpdateRule::do_step_members_(members);
  step_joined_(members);
}

NamedTensors MnemosyneRule::weights() const { return {{kControllerName, controller_}}; }

std::shared_ptr<UpdateRule> MnemosyneRule::with_weights(const NamedTensors& weights) const {
  const NamedTensors own = matching(name(), this->weights(), weights);
  return std::make_shared<MnemosyneRule>(options_, own[0].second);
}

WeightAxes MnemosyneRule::weight_axes() const {
  return {{kControllerName, {step_output_names(), step_feature_names()}}};
}

void bind(Fields& visit, MnemosyneRuleOptions& options) {
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
