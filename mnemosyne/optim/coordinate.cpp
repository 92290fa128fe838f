#include "mnemosyne/optim/coordinate.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/feature_map.h"
#include "mnemosyne/optim/coordinate_weights.h"
#include "mnemosyne/optim/fallback.h"
#include "mnemosyne/optim/orthogonal.h"

namespace mnemosyne::optim {

void bind(Fields& visit, CoordinateOptions& options) {
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

/// Root mean squares [T], float64, of T flat tensors of one dtype and device. Squares above 1e38
/// overflow in float32, so they are summed in double precision: where that costs nothing, on a
/// device, always, and on the CPU where it shows.
at::Tensor root_mean_squares(const std::vector<at::Tensor>& tensors) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> detached;
  std::vector<double> counts;
  for (const at::Tensor& tensor : tensors) {
    detached.push_back(tensor.detach());
    counts.push_back(static_cast<double>(std::max<int64_t>(tensor.numel(), 1)));
  }
  const bool host = detached[0].is_cpu();
  const auto norms = [&](at::ScalarType dtype) {
    return at::stack(at::_foreach_norm(detached, 2, dtype)).to(at::kDouble);
  };
  at::Tensor norm = norms(host ? detached[0].scalar_type() : at::kDouble);
  if (host && !at::isfinite(norm).all().item<bool>()) {
    norm = at::where(at::isfinite(norm), norm, norms(at::kDouble));
  }
  return norm / at::tensor(counts, at::kDouble).sqrt().to(norm.device(), /*non_blocking=*/true);
}

/// Goes back to `before` where a step led to anything that is not finite.
void keep_finite_(const at::Tensor& param, const at::Tensor& before, ParamState& state,
                  DeferredCount* count) {
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
  std::vector<double> sizes;
  for (const at::Tensor& param : params) {
    const at::Tensor size = step_scale({flat(param, compute_dtype(param))}, options);
    sizes.push_back(size.item<double>());
  }
  return sizes;
}

at::Tensor CoordinateRule::step_scale(const std::vector<at::Tensor>& params,
                                      const StepOptions& options) const {
  const at::Tensor rms = root_mean_squares(params);
  const at::Tensor log_rate = find(weights_, "step.log_rate").detach();
  at::Tensor scale = options.lr * log_rate.to(rms.options()).exp().reshape({}) *
                     (options_.scale_free ? rms.clamp_min(options_.rms_floor) : at::ones_like(rms));
  return options.lr_factor.defined() ? scale * options.lr_factor.to(rms.options()) : scale;
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
  ops::MemoryStepInputs& inputs = group.inputs;
  const at::Tensor grad_rms = root_mean_squares(inputs.grads);
  const at::Tensor size = root_mean_squares(inputs.params).clamp_min(options_.rms_floor);
  const at::Tensor eps =
      options_.scale_free ? options_.eps * grad_rms + kTiny : at::full_like(grad_rms, options_.eps);
  inputs.grad_scale = (1.0 / (grad_rms + kTiny)).to(group.options);
  inputs.param_scale = (1.0 / size).to(group.options);
  inputs.eps = eps.to(group.options);
  at::Tensor scale = options_.scale_free ? options.lr * size : at::full_like(size, options.lr);
  if (options.lr_factor.defined()) scale = scale * options.lr_factor.to(scale.options());
  std::vector<at::Tensor> features;
  for (const size_t i : group.indices) {
    features.push_back(coordinate_tensor_features(params[i], step_count(state[i]) + 1, options));
  }
  const at::Tensor stacked =
      at::stack(features).to(group.options, /*non_blocking=*/true);  // [T, Y]
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

at::Tensor CoordinateRule::decays(const Group& group, const StepOptions& options) const {
  if (*options.weight_decay == 0.0) return {};
  at::Tensor share = step_scale(group.inputs.params, options) * *options.weight_decay;
  if (options.weight_decay_factor.defined()) {
    share = share * options.weight_decay_factor.to(share.options());
  }
  return share.to(group.options);
}

UpdateResult CoordinateRule::do_update(at::TensorList grads, const State& state,
                                       at::TensorList params, const StepOptions& options) const {
  UpdateResult result{std::vector<at::Tensor>(params.size()), State(params.size())};
  for (const Group& group : groups(grads, state, params, options)) {
    ops::MemoryStepResult step =
        ops::memory_step(group.inputs, step_weights(group.options), step_options_);
    const at::Tensor decay = decays(group, options);
    for (size_t j = 0; j < group.indices.size(); ++j) {
      const size_t i = group.indices[j];
      at::Tensor update = step.updates[j];
      if (decay.defined()) {
        update = update + decay[static_cast<int64_t>(j)] * group.inputs.params[j];
      }
      result.updates[i] = update.view(params[i].sizes());
      result.state[i] = {state[i][0] + 1, step.memories[j]};
    }
  }
  return result;
}

void CoordinateRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                              const StepOptions& options, const std::vector<double>&) const {
  const at::NoGradGuard no_grad;
  for (Group& group : groups(grads, state, params, options)) {
    // The kernel writes what it is given; a few bytes beside its memory.
    std::vector<at::Tensor> before;
    for (const at::Tensor& param : group.inputs.params) before.push_back(param.clone());
    ops::memory_step_(group.inputs, step_weights(group.options), step_options_,
                      decays(group, options));
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
