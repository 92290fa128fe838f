#include "mnemosyne/optim/super.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "mnemosyne/core/choices.h"

namespace mnemosyne::optim {
namespace {

constexpr size_t kCoordinateMemory = 4;
constexpr char kGate[] = "gate", kTensor[] = "tensor.", kCoordinate[] = "coordinate.";
/// What the base rule's step stands in for.
constexpr char kLogRate[] = "step.log_rate";

constexpr size_t kGateInputs = 5;
const std::vector<std::string>& gate_input_names() {
  static const std::vector<std::string> names{"one", "matrix", "size", "age", "remaining"};
  return names;
}
constexpr std::array<double, kGateInputs> kInitialGate{2.0, -4.0, 0.0, 0.0, 0.0};

std::array<double, kGateInputs> gate_inputs(const at::Tensor& param, int64_t t,
                                            const StepOptions& options) {
  const auto age = static_cast<double>(t);
  const double remaining =
      options.num_steps
          ? std::clamp(1.0 - (age - 1.0) / static_cast<double>(*options.num_steps), 0.0, 1.0)
          : 0.0;
  const auto size = static_cast<double>(std::max<int64_t>(param.numel(), 1));
  return {1.0, matrix_rows(param) > 0 ? 1.0 : 0.0, std::log10(size) / 6.0, std::log10(age) / 5.0,
          remaining};
}

CoordinateOptions coordinate_options(const SuperOptions& o) {
  return {.num_heads = o.coordinate_heads,
          .num_features = o.coordinate_features,
          .key_dim = o.coordinate_key_dim,
          .hidden = o.coordinate_hidden,
          .direction_bound = o.coordinate_direction_bound,
          .magnitude_bound = o.coordinate_magnitude_bound,
          .step_bound = o.coordinate_step_bound,
          .scale_free = false,
          .eps = o.tensor.base.eps,
          .seed = o.tensor.network.seed};
}

/// Weights of a coordinate-wise rule in Adam's units, from those without its rate.
NamedTensors with_unit_rate(const UpdateRule& rule, const NamedTensors& others) {
  NamedTensors all;
  for (const auto& [name, weight] : rule.weights()) {
    all.emplace_back(name, name == kLogRate ? at::zeros_like(weight) : find(others, name));
  }
  return all;
}

void append(NamedTensors& all, const char* prefix, const NamedTensors& weights) {
  for (const auto& [name, weight] : weights) {
    if (name != kLogRate) all.emplace_back(prefix + name, weight);
  }
}

/// Those whose names begin with the prefix, without it.
NamedTensors without_prefix(const NamedTensors& all, const std::string& prefix) {
  NamedTensors own;
  for (const auto& [name, weight] : all) {
    if (name.starts_with(prefix)) own.emplace_back(name.substr(prefix.size()), weight);
  }
  return own;
}

}  // namespace

/// What the coordinate-wise part does to the small tensors of a list.
struct SuperRule::Small {
  std::vector<size_t> indices;       // into the list
  std::vector<at::Tensor> updates;   // s r C
  std::vector<at::Tensor> memories;  // after the step
  at::Tensor gates;                  // [indices]
};

SuperRule::SuperRule(SuperOptions options)
    : options_(std::move(options)),
      tensorwise_(std::make_shared<const TensorwiseRule>(options_.tensor)),
      gate_(at::tensor(at::ArrayRef<double>(kInitialGate), at::kFloat)) {
  check_option(options_.small_size >= 0, "mnemosyne-super", "small_size of at least 0",
               static_cast<double>(options_.small_size));
  const CoordinateRule fresh(coordinate_options(options_));
  coordinate_ = fresh.with_weights(with_unit_rate(fresh, fresh.weights()));
}

StateLayout SuperRule::state_layout(const at::Tensor& param) const {
  StateLayout layout = tensorwise_->state_layout(param);
  if (!options_.tensor.learned) return layout;
  StateEntry memory = coordinate_->state_layout(param).at(1);
  if (!is_small(param)) memory.shape = {0};
  memory.name = "coordinate_memory";
  layout.push_back(memory);
  return layout;
}

std::vector<double> SuperRule::step_sizes(const State& state, at::TensorList params,
                                          const StepOptions& options) const {
  return tensorwise_->step_sizes(state, params, options);
}

SuperRule::Small SuperRule::step_small(at::TensorList grads, const State& state,
                                       at::TensorList params, const StepOptions& options) const {
  Small small;
  std::vector<at::Tensor> own_grads, own_params;
  State own_state;
  std::vector<double> inputs, steps;
  for (size_t i = 0; i < params.size(); ++i) {
    if (!is_small(params[i])) continue;
    small.indices.push_back(i);
    own_grads.push_back(grads[i]);
    own_params.push_back(params[i]);
    own_state.push_back({state[i][0], state[i][kCoordinateMemory]});
    const int64_t t = step_count(state[i]) + 1;
    const std::array<double, kGateInputs> y = gate_inputs(params[i], t, options);
    inputs.insert(inputs.end(), y.begin(), y.end());
    steps.push_back(base_step_size(options_.tensor.base, options, t) *
                    (matrix_rows(params[i]) > 0 ? ops::kDirectionRms : 1.0));
  }
  if (small.indices.empty()) return small;
  UpdateResult step =
      coordinate_->update(own_grads, own_state, own_params,
                          {.lr = 1.0, .weight_decay = 0.0, .num_steps = options.num_steps});
  for (size_t k = 0; k < steps.size(); ++k) {
    small.updates.push_back(steps[k] * step.updates[k]);
    small.memories.push_back(step.state[k][1]);
  }
  const at::Tensor y = at::tensor(inputs, at::kDouble).view({-1, kGateInputs});
  small.gates = at::sigmoid(at::matmul(y.to(gate_.options()), gate_));
  return small;
}

std::vector<at::Tensor> SuperRule::advance(StepList& list, Small small, at::TensorList grads,
                                           const StepOptions& options) const {
  std::vector<at::Tensor> updates = tensorwise_->advance(list, grads, options);
  at::Tensor gates = small.gates;
  for (size_t k = 0; k < small.indices.size(); ++k) {
    const size_t i = small.indices[k];
    gates = gates.to(updates[i].device(), /*non_blocking=*/true);
    const at::Tensor gate = gates[static_cast<int64_t>(k)].to(updates[i].scalar_type());
    updates[i] = gate * small.updates[k] + (1.0 - gate) * updates[i];
    at::Tensor& memory = list.state()[i][kCoordinateMemory];
    if (list.in_place()) {
      memory.copy_(small.memories[k]);
    } else {
      memory = small.memories[k];
    }
  }
  return updates;
}

UpdateResult SuperRule::do_update(at::TensorList grads, const State& state, at::TensorList params,
                                  const StepOptions& options) const {
  const TensorwiseRule& tensorwise = *tensorwise_;
  if (!options_.tensor.learned || params.empty()) {
    return tensorwise.do_update(grads, state, params, options);
  }
  Small small = step_small(grads, state, params, options);  // before the list counts the step
  StepList list = tensorwise.list(StepList::Form::kPure, grads, state, params, options);
  std::vector<at::Tensor> updates = advance(list, std::move(small), grads, options);
  return {.updates = std::move(updates), .state = std::move(list.state())};
}

void SuperRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                         const StepOptions& options, const std::vector<double>& shrink) const {
  const TensorwiseRule& tensorwise = *tensorwise_;
  if (!options_.tensor.learned || params.empty()) {
    return tensorwise.do_step_(grads, state, params, options, shrink);
  }
  const at::NoGradGuard no_grad;
  Small small = step_small(grads, state, params, options);
  StepList list = tensorwise.list(StepList::Form::kInPlace, grads, state, params, options);
  const std::vector<at::Tensor> updates = advance(list, std::move(small), grads, options);
  for (size_t i = 0; i < params.size(); ++i) {
    move_(params[i], updates[i], shrink[i], grads[i], state[i], options);
  }
}

at::Tensor SuperRule::fallback_update(const at::Tensor& grad, const ParamState& state,
                                      const at::Tensor& param, const StepOptions& options) const {
  return tensorwise_->fallback_update(grad, state, param, options);
}

NamedTensors SuperRule::weights() const {
  NamedTensors all;
  if (!options_.tensor.learned) return all;
  all.emplace_back(kGate, gate_);
  append(all, kTensor, tensorwise_->weights());
  append(all, kCoordinate, coordinate_->weights());
  return all;
}

WeightAxes SuperRule::weight_axes() const {
  WeightAxes axes;
  if (!options_.tensor.learned) return axes;
  axes[kGate] = {gate_input_names()};
  for (const auto& [name, names] : tensorwise_->weight_axes()) axes[kTensor + name] = names;
  return axes;
}

std::shared_ptr<UpdateRule> SuperRule::with_weights(const NamedTensors& weights) const {
  if (!options_.tensor.learned) return UpdateRule::with_weights(weights);
  const NamedTensors own = matching(name(), this->weights(), weights);
  auto rule = std::make_shared<SuperRule>(*this);
  rule->gate_ = find(own, kGate);
  rule->tensorwise_ = std::dynamic_pointer_cast<const TensorwiseRule>(
      std::shared_ptr<const UpdateRule>(tensorwise_->with_weights(without_prefix(own, kTensor))));
  rule->coordinate_ =
      coordinate_->with_weights(with_unit_rate(*coordinate_, without_prefix(own, kCoordinate)));
  return rule;
}

void bind(Fields& visit, SuperOptions& options) {
  bind(visit, options.tensor);
  visit("small_size", options.small_size);
  visit("coordinate_heads", options.coordinate_heads);
  visit("coordinate_features", options.coordinate_features);
  visit("coordinate_key_dim", options.coordinate_key_dim);
  visit("coordinate_hidden", options.coordinate_hidden);
  visit("coordinate_direction_bound", options.coordinate_direction_bound);
  visit("coordinate_magnitude_bound", options.coordinate_magnitude_bound);
  visit("coordinate_step_bound", options.coordinate_step_bound);
}

std::string SuperRule::options_json() const { return write_options(options_); }

std::shared_ptr<UpdateRule> make_super_rule(const std::string& options_json) {
  return std::make_shared<SuperRule>(read_options<SuperOptions>("mnemosyne-super", options_json));
}

}  // namespace mnemosyne::optim
