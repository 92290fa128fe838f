#include "mnemosyne/optim/coordinate.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/feature_map.h"
#include "mnemosyne/optim/coordinate_weights.h"
#include "mnemosyne/optim/fallback.h"
#include "mnemosyne/optim/orthogonal.h"
#include "mnemosyne/optim/rule_options.h"

namespace mnemosyne::optim {

void bind(OptionVisitor& visit, CoordinateOptions& options) {
  visit("num_layers", options.num_layers);
  visit("num_heads", options.num_heads);
  visit("feature_map", options.feature_map);
  visit("num_features", options.num_features);
  visit("key_dim", options.key_dim);
  visit("hidden", options.hidden);
  visit("momentum_head", options.momentum_head);
  visit("variance_head", options.variance_head);
  visit("direction_bound", options.direction_bound);
  visit("magnitude_bound", options.magnitude_bound);
  visit("step_bound", options.step_bound);
  visit("scale_free", options.scale_free);
  visit("rms_floor", options.rms_floor);
  visit("eps", options.eps);
  visit("seed", options.seed);
  visit("omega", options.omega);
}

namespace {

constexpr double kTiny = 1e-30;

/// Root mean squares of flat tensors of one dtype and device, with one transfer to the host.
std::vector<double> root_mean_squares(const std::vector<at::Tensor>& tensors) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> detached;
  for (const at::Tensor& tensor : tensors) detached.push_back(tensor.detach());
  const at::Tensor norms = at::stack(at::_foreach_norm(detached)).to(at::kCPU, at::kDouble);
  std::vector<double> result;
  for (size_t i = 0; i < tensors.size(); ++i) {
    double norm = norms.const_data_ptr<double>()[i];
    // Squares above 1e38 overflow in float32.
    if (!std::isfinite(norm)) norm = detached[i].to(at::kDouble).norm().item<double>();
    const int64_t count = std::max<int64_t>(tensors[i].numel(), 1);
    result.push_back(norm / std::sqrt(static_cast<double>(count)));
  }
  return result;
}

/// Goes back to `before` where a step led to anything that is not finite.
void keep_finite_(const at::Tensor& param, const at::Tensor& before, ParamState& state,
                  FallbackCount* count) {
  if (param.is_cpu() && std::isfinite(param.sum().item<double>())) return;
  const at::Tensor finite = at::isfinite(param).all();
  param.copy_(at::where(finite, param, before));
  if (count != nullptr) count->add(finite.logical_not());
  repair_state(state, {state[0], at::zeros_like(state[1])});
}

at::Tensor flat(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.detach().to(dtype).contiguous().view({-1});
}

}  // namespace

/// Parameters of one compute dtype and device, which one call of the op can take.
struct CoordinateRule::Group {
  at::TensorOptions options;
  std::vector<size_t> indices;  // into the caller's lists
  ops::MemoryStepInputs inputs;
};

CoordinateRule::CoordinateRule(CoordinateOptions options) : options_(std::move(options)) {
  validate(options_);
  step_options_ = {.feature_map = nn::feature_map_kind(options_.feature_map),
                   .momentum_head = options_.momentum_head,
                   .variance_head = options_.variance_head,
                   .direction_bound = options_.direction_bound,
                   .magnitude_bound = options_.magnitude_bound};
  omega_ = coordinate_omega(options_);
  options_.omega = omega_text(omega_);
  weights_ = initial_coordinate_weights(options_);
}

std::shared_ptr<CoordinateRule> CoordinateRule::adam(const AdamSettings& settings) {
  auto rule = std::make_shared<CoordinateRule>(CoordinateOptions{.num_heads = 2,
                                                                 .feature_map = "constant",
                                                                 .num_features = 1,
                                                                 .scale_free = false,
                                                                 .eps = settings.eps});
  const auto logit = [](double x) { return std::log(x) - std::log1p(-x); };
  const at::TensorOptions real(at::kDouble);
  for (auto& [name, tensor] : rule->weights_) {
    tensor = tensor.to(at::kDouble);
    if (name == "layers.0.decay_logit") {
      tensor.mutable_data_ptr<double>()[0] = logit(settings.beta1);
      tensor.mutable_data_ptr<double>()[1] = logit(settings.beta2);
    } else if (name == "step.log_rate") {
      tensor.fill_(std::log(settings.lr));
    }
  }
  return rule;
}

std::string CoordinateRule::options_json() const { return write_options(options_); }

StateLayout CoordinateRule::state_layout(const at::Tensor& param) const {
  return {step_entry(), entry_of("memory",
                                 {options_.num_layers, options_.num_heads, options_.num_features,
                                  ops::kMemoryValues + 1, param.numel()},
                                 param)};
}

std::shared_ptr<const UpdateRule> CoordinateRule::elementwise() const {
  return OrthogonalRule().elementwise();
}

std::vector<double> CoordinateRule::step_sizes(const State&, at::TensorList params,
                                               const StepOptions& options) const {
  const double rate = options.lr * std::exp(find(weights_, "step.log_rate").item<double>());
  if (!options_.scale_free) return std::vector<double>(params.size(), rate);
  std::vector<double> sizes;
  for (const at::Tensor& param : params) {
    const double rms = root_mean_squares({flat(param, compute_dtype(param))})[0];
    sizes.push_back(rate * std::max(rms, options_.rms_floor));
  }
  return sizes;
}

std::shared_ptr<UpdateRule> CoordinateRule::with_weights(const NamedTensors& weights) const {
  auto rule = std::make_shared<CoordinateRule>(*this);
  rule->weights_ = matching(name(), weights_, weights);
  return rule;
}

ops::MemoryStepWeights CoordinateRule::step_weights(const at::TensorOptions& options) const {
  const auto get = [&](const std::string& name) { return find(weights_, name).to(options); };
  ops::MemoryStepWeights result;
  for (int64_t l = 0; l < options_.num_layers; ++l) {
    const std::string prefix = "layers." + std::to_string(l) + ".";
    ops::MemoryLayerWeights& layer = result.layers.emplace_back();
    layer.decay = get(prefix + "decay_logit").sigmoid();
    if (omega_.defined()) {
      layer.key = get(prefix + "key");
      layer.query = get(prefix + "query");
      layer.radius = get(prefix + "temperature").sigmoid();
    }
    if (l > 0) layer.value = get(prefix + "value");
  }
  if (omega_.defined()) result.omega = omega_.to(options);
  result.hidden_weight = get("decoder.hidden_weight");
  result.output_weight = get("decoder.output_weight");
  result.output_bias = get("decoder.output_bias");
  return result;
}

void CoordinateRule::add_tensor_terms(Group& group, const State& state, at::TensorList params,
                                      const StepOptions& options) const {
  const std::vector<double> grad_rms = root_mean_squares(group.inputs.grads);
  const std::vector<double> param_rms = root_mean_squares(group.inputs.params);
  std::vector<at::Tensor> features;
  at::Tensor scale = at::full({static_cast<int64_t>(group.indices.size())}, options.lr,
                              at::TensorOptions(at::kDouble));
  for (size_t j = 0; j < group.indices.size(); ++j) {
    const size_t i = group.indices[j];
    const double size = std::max(param_rms[j], options_.rms_floor);
    group.inputs.grad_scale.push_back(1.0 / (grad_rms[j] + kTiny));
    group.inputs.param_scale.push_back(1.0 / size);
    group.inputs.eps.push_back(options_.scale_free ? options_.eps * grad_rms[j] + kTiny
                                                   : options_.eps);
    if (options_.scale_free) scale.mutable_data_ptr<double>()[j] *= size;
    features.push_back(coordinate_tensor_features(params[i], step_count(state[i]) + 1, options));
  }
  const at::Tensor stacked = at::stack(features).to(group.options);  // [T, Y]
  const auto get = [&](const std::string& name) { return find(weights_, name).to(group.options); };
  group.inputs.hidden_bias =
      at::matmul(stacked, get("decoder.tensor_weight").t()) + get("decoder.hidden_bias");
  const at::Tensor change = at::matmul(stacked, get("step.tensor_weight")).tanh();
  group.inputs.step =
      scale.to(group.options) * (get("step.log_rate") + options_.step_bound * change).exp();
}

std::vector<CoordinateRule::Group> CoordinateRule::groups(at::TensorList grads, const State& state,
                                                          at::TensorList params,
                                                          const StepOptions& options) const {
  std::vector<Group> result;
  for (size_t i = 0; i < params.size(); ++i) {
    const at::ScalarType dtype = compute_dtype(params[i]);
    const auto same = [&](const Group& group) {
      return group.options.dtype() == dtype && group.options.device() == params[i].device();
    };
    auto group = std::find_if(result.begin(), result.end(), same);
    if (group == result.end()) {
      result.push_back({at::TensorOptions(dtype).device(params[i].device()), {}, {}});
      group = result.end() - 1;
    }
    group->indices.push_back(i);
    group->inputs.grads.push_back(flat(grads[i], dtype));
    group->inputs.params.push_back(flat(params[i], dtype));
    group->inputs.memories.push_back(state[i].at(1));
  }
  for (Group& group : result) add_tensor_terms(group, state, params, options);
  return result;
}

UpdateResult CoordinateRule::do_update(at::TensorList grads, const State& state,
                                       at::TensorList params, const StepOptions& options) const {
  UpdateResult result{std::vector<at::Tensor>(params.size()), State(params.size())};
  for (const Group& group : groups(grads, state, params, options)) {
    ops::MemoryStepResult step =
        ops::memory_step(group.inputs, step_weights(group.options), step_options_);
    for (size_t j = 0; j < group.indices.size(); ++j) {
      const size_t i = group.indices[j];
      result.updates[i] = step.updates[j].view(params[i].sizes());
      result.state[i] = {state[i][0] + 1, step.memories[j]};
    }
  }
  return result;
}

void CoordinateRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                              const StepOptions& options, const std::vector<double>& shrink) const {
  const at::NoGradGuard no_grad;
  for (Group& group : groups(grads, state, params, options)) {
    std::vector<double> decays;
    for (const size_t i : group.indices) decays.push_back(shrink[i]);
    // The kernel writes what it is given; a few bytes beside its memory.
    std::vector<at::Tensor> before;
    for (const at::Tensor& param : group.inputs.params) before.push_back(param.clone());
    ops::memory_step_(group.inputs, step_weights(group.options), step_options_, decays);
    for (size_t j = 0; j < group.indices.size(); ++j) {
      const size_t i = group.indices[j];
      state[i][0].add_(1);
      keep_finite_(group.inputs.params[j], before[j], state[i], options.fallbacks);
      // A strided or half-precision parameter was stepped in a copy.
      if (params[i].data_ptr() != group.inputs.params[j].data_ptr()) {
        params[i].copy_(group.inputs.params[j].view(params[i].sizes()));
      }
    }
  }
}

std::shared_ptr<UpdateRule> make_coordinate_rule(const std::string& options_json) {
  return std::make_shared<CoordinateRule>(
      read_options<CoordinateOptions>("mnemosyne-coordinate", options_json));
}

}  // namespace mnemosyne::optim
