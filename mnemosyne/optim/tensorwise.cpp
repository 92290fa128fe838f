#include "mnemosyne/optim/tensorwise.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <utility>

#include "mnemosyne/core/choices.h"

namespace mnemosyne::optim {
namespace {

enum Slot : size_t { kMomentum = 1, kSecondMoment = 2, kMemory = 3 };
constexpr double kLargestDirectionBound = 2.0, kLargestMagnitudeBound = 3.0;

/// The usual root mean square of a base direction.
double direction_unit(const at::Tensor& param) {
  return matrix_rows(param) > 0 ? ops::kDirectionRms : 1.0;
}

/// Tensors one after the other, [N], whatever their strides.
at::Tensor joined(const std::vector<at::Tensor>& tensors, const at::TensorOptions& options) {
  std::vector<at::Tensor> flat;
  for (const at::Tensor& tensor : tensors) {
    flat.push_back(tensor.detach().to(options).reshape({-1}));
  }
  return at::cat(flat);
}

}  // namespace

/// What a list's coordinates have, [N] each.
struct TensorwiseRule::Flat {
  CoordinateFacts facts;
  at::Tensor direction;   // D
  at::Tensor step, unit;  // s, r
};

TensorwiseRule::TensorwiseRule(TensorwiseOptions options)
    : options_(std::move(options)), base_(options_.base) {
  const auto check = [&](double bound, double most, const std::string& expected) {
    check_option(bound >= 0.0 && bound <= most, "mnemosyne-tensor", expected, bound);
  };
  check(options_.direction_bound, kLargestDirectionBound, "direction_bound in [0, 2]");
  check(options_.magnitude_bound, kLargestMagnitudeBound, "magnitude_bound in [0, 3]");
  validate(options_.network, "mnemosyne-tensor");
  if (options_.learned) network_.emplace(options_.network);
}

StateLayout TensorwiseRule::state_layout(const at::Tensor& param) const {
  if (!network_) return base_.state_layout(param);
  const int64_t memory = network_->meta_tokens(param.numel()) * network_->state_size();
  return {step_entry(), entry_like("momentum", param), entry_like("second_moment", param),
          entry_of("memory", {memory}, param)};
}

std::vector<double> TensorwiseRule::step_sizes(const State& state, at::TensorList params,
                                               const StepOptions& options) const {
  return base_.step_sizes(state, params, options);
}

StepList TensorwiseRule::list(StepList::Form form, at::TensorList grads, const State& state,
                              at::TensorList params, const StepOptions& options) const {
  StepList::Inputs inputs = base_.inputs(grads, state, params, options);
  // Directions alone: a step of size zero would hide them.
  for (ops::StepBase& base : inputs.base) base.step = 1.0;
  inputs.lr_factor = at::Tensor();
  inputs.weight_decay_factor = at::Tensor();
  return StepList(form, std::move(inputs));
}

TensorwiseRule::Flat TensorwiseRule::flat(StepList& list, at::TensorList grads,
                                          const StepOptions& options, const ops::StepSums& sums,
                                          const TensorwisePlan& plan) const {
  const std::vector<at::Tensor>& params = list.params();
  at::ScalarType dtype = network_->dtype();
  std::vector<double> numbers;
  std::vector<at::Tensor> momenta, second_moments;
  for (size_t i = 0; i < params.size(); ++i) {
    const ParamState& own = list.state()[i];
    const bool matrix = matrix_rows(params[i]) > 0;
    const ops::StepBase c = base_coefficients(options_.base, options, step_count(own), matrix);
    const auto size = static_cast<double>(std::max<int64_t>(params[i].numel(), 1));
    numbers.insert(numbers.end(), {c.momentum_correction, c.second_correction, c.step,
                                   direction_unit(params[i]), size});
    momenta.push_back(own[kMomentum]);
    second_moments.push_back(own[kSecondMoment]);
    dtype = c10::promoteTypes(dtype, compute_dtype(params[i]));
  }
  const at::TensorOptions here = sums.grad_squared.options(), kind = here.dtype(dtype);
  const std::vector<at::Tensor> of_tensors = at::tensor(numbers, at::kDouble)
                                                 .view({-1, 5})
                                                 .t()
                                                 .contiguous()
                                                 .to(here, /*non_blocking=*/true)
                                                 .unbind();
  const at::Tensor& size = of_tensors[4];
  const auto spread = [&](const at::Tensor& x) { return plan.places.spread(x.to(kind)); };
  // In place, all tensors of a device at once.
  ops::StepCorrection unchanged;
  unchanged.step = at::ones_like(size);
  const std::vector<at::Tensor> directions =
      list.directions(list.in_place() ? &unchanged : nullptr);
  Flat result;
  result.direction = joined(directions, kind);
  result.step = spread(of_tensors[2]);
  result.unit = spread(of_tensors[3]);
  result.facts = {.grad = joined(grads.vec(), kind),
                  .param = joined(params, kind),
                  .momentum = joined(momenta, kind) * spread(of_tensors[0]),
                  .second_moment = joined(second_moments, kind) * spread(of_tensors[1]),
                  .direction = result.direction / result.unit,
                  .grad_rms = spread((sums.grad_squared / size).sqrt()),
                  .param_rms = spread((sums.param_squared / size).sqrt()),
                  .mean_second_moment = spread(sums.second_moment / size * of_tensors[1])};
  return result;
}

at::Tensor TensorwiseRule::decide(StepList& list, const Flat& flat, const at::Tensor& tensors,
                                  const TensorwisePlan& plan) const {
  const at::Tensor tokens = coordinate_tokens(flat.facts, options_.base.eps);
  const at::TensorOptions kind = tokens.options();
  at::Tensor memory;
  const int64_t size = network_->state_size();
  if (size == 0) return (*network_)(plan, tokens, tensors.to(kind), memory);
  std::vector<at::Tensor> held, values;
  std::vector<int64_t> lengths;
  for (const ParamState& own : list.state()) {
    held.push_back(own[kMemory]);
    values.push_back(own[kMemory].to(kind));
    lengths.push_back(own[kMemory].numel());
  }
  memory = at::cat(values).view({-1, size});
  const at::Tensor outputs = (*network_)(plan, tokens, tensors.to(kind), memory);
  const std::vector<at::Tensor> next = memory.reshape({-1}).split_with_sizes(lengths);
  if (list.in_place()) {
    at::_foreach_copy_(held, next);
    return outputs;
  }
  for (size_t i = 0; i < next.size(); ++i) list.state()[i][kMemory] = next[i].to(held[i].options());
  return outputs;
}

std::vector<at::Tensor> TensorwiseRule::advance(StepList& list, at::TensorList grads,
                                                const StepOptions& options) const {
  const std::vector<at::Tensor>& params = list.params();
  const ops::StepSums sums = list.advance(/*with_sums=*/true);
  const std::shared_ptr<const TensorwisePlan> plan =
      network_->plan(params, sums.grad_squared.device());
  std::vector<int64_t> times;
  for (const ParamState& own : list.state()) times.push_back(step_count(own));
  const Flat flat = this->flat(list, grads, options, sums, *plan);
  const std::vector<at::Tensor> y =
      decide(list, flat, tensor_tokens(params, times, options, sums), *plan).unbind(1);
  const at::Tensor direction =
      flat.direction + flat.unit * (options_.direction_bound * at::tanh(y[0]));
  const at::Tensor size = flat.step * at::exp(options_.magnitude_bound * at::tanh(y[1]));
  std::vector<at::Tensor> updates = (size * direction).split_with_sizes(plan->places.counts);
  for (size_t i = 0; i < params.size(); ++i) {
    updates[i] =
        updates[i].view(params[i].sizes()).to(params[i].device(), compute_dtype(params[i]));
  }
  return updates;
}

UpdateResult TensorwiseRule::do_update(at::TensorList grads, const State& state,
                                       at::TensorList params, const StepOptions& options) const {
  if (!network_) return base_.do_update(grads, state, params, options);
  if (params.empty()) return {.updates = {}, .state = state};
  StepList list = this->list(StepList::Form::kPure, grads, state, params, options);
  std::vector<at::Tensor> updates = advance(list, grads, options);
  return {.updates = std::move(updates), .state = std::move(list.state())};
}

void TensorwiseRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                              const StepOptions& options, const std::vector<double>& shrink) const {
  if (!network_) return base_.do_step_(grads, state, params, options, shrink);
  if (params.empty()) return;
  const at::NoGradGuard no_grad;
  StepList list = this->list(StepList::Form::kInPlace, grads, state, params, options);
  const std::vector<at::Tensor> updates = advance(list, grads, options);
  for (size_t i = 0; i < params.size(); ++i) {
    move_(params[i], updates[i], shrink[i], grads[i], state[i], options);
  }
}

at::Tensor TensorwiseRule::fallback_update(const at::Tensor&, const ParamState& state,
                                           const at::Tensor& param,
                                           const StepOptions& options) const {
  const ops::StepBase c =
      base_coefficients(options_.base, options, step_count(state), matrix_rows(param) > 0);
  const at::Tensor root = (state[kSecondMoment] * c.second_correction).sqrt() + c.eps;
  return c.step * direction_unit(param) * (state[kMomentum] * c.momentum_correction / root);
}

NamedTensors TensorwiseRule::weights() const {
  return network_ ? network_->weights() : NamedTensors{};
}

WeightAxes TensorwiseRule::weight_axes() const {
  return network_ ? network_->axes() : WeightAxes{};
}

std::shared_ptr<UpdateRule> TensorwiseRule::with_weights(const NamedTensors& weights) const {
  if (!network_) return UpdateRule::with_weights(weights);
  auto rule = std::make_shared<TensorwiseRule>(*this);
  rule->network_ = network_->with_weights(name(), weights);
  return rule;
}

void bind(Fields& visit, TensorwiseOptions& options) {
  bind(visit, options.base);
  visit("learned", options.learned);
  visit("direction_bound", options.direction_bound);
  visit("magnitude_bound", options.magnitude_bound);
  bind(visit, options.network);
}

std::string TensorwiseRule::options_json() const { return write_options(options_); }

std::shared_ptr<UpdateRule> make_tensorwise_rule(const std::string& options_json) {
  return std::make_shared<TensorwiseRule>(
      read_options<TensorwiseOptions>("mnemosyne-tensor", options_json));
}

}  // namespace mnemosyne::optim
