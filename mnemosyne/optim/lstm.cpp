#include "mnemosyne/optim/lstm.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/core/fields.h"
#include "mnemosyne/core/random.h"
#include "mnemosyne/optim/fallback.h"
#include "mnemosyne/optim/per_parameter_rule.h"

namespace mnemosyne::optim {

static void bind(Fields& visit, LstmOptions& options) {
  visit("num_hidden", options.num_hidden);
  visit("output_scale", options.output_scale);
  visit("log_scale", options.log_scale);
  visit("decay", options.decay);
  visit("seed", options.seed);
}

namespace {

enum Slot { kStep, kHidden1, kCell1, kHidden2, kCell2, kMean, kSquare };

constexpr int64_t kNumFeatures = 2;
constexpr double kSmallestLog = 1e-30;   // keeps the logarithm of a zero gradient finite
constexpr double kSmallestRoot = 1e-12;  // keeps the ratios of a zero gradient finite

// As torch.nn.LSTM draws them, but for the forget gate, which starts open, and the last layer,
// which starts near zero.
NamedTensors initial_weights(const LstmOptions& options) {
  const int64_t H = options.num_hidden;
  const at::Generator generator = tensor_generator(static_cast<uint64_t>(options.seed));
  const double bound = 1.0 / std::sqrt(static_cast<double>(H));
  const auto draw = [&](at::IntArrayRef shape, double limit) {
    return at::empty(shape, at::kFloat).uniform_(-limit, limit, generator);
  };
  NamedTensors weights;
  for (int64_t layer = 0; layer < 2; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const int64_t num_inputs = layer == 0 ? kNumFeatures : H;
    weights.emplace_back(prefix + "input_weight", draw({4 * H, num_inputs}, bound));
    weights.emplace_back(prefix + "recurrent_weight", draw({4 * H, H}, bound));
    at::Tensor bias = at::zeros({4 * H}, at::kFloat);
    bias.narrow(0, H, H).fill_(1.0);
    weights.emplace_back(prefix + "bias", bias);
  }
  weights.emplace_back("output.weight", draw({1, H}, 0.1 * bound));
  weights.emplace_back("output.bias", at::zeros({1}, at::kFloat));
  return weights;
}

at::Tensor log_sign_features(const at::Tensor& grad, double log_scale) {
  return at::stack({(grad.abs() + kSmallestLog).log().div(log_scale).clamp_min(-1.0),
                    (grad * std::exp(log_scale)).clamp(-1.0, 1.0)});
}

// `moments` after t steps.
at::Tensor ratio_features(const at::Tensor& grad, const ParamState& moments, double decay) {
  const double correction = 1.0 / (1.0 - std::pow(decay, static_cast<double>(step_count(moments))));
  const at::Tensor root = (moments[kSquare] * correction).sqrt() + kSmallestRoot;
  return at::stack({grad / root, moments[kMean] * correction / root});
}

std::vector<at::Tensor> flat_in(at::TensorList tensors, at::ScalarType dtype) {
  std::vector<at::Tensor> flat;
  flat.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) flat.push_back(tensor.to(dtype).reshape({-1}));
  return flat;
}

}  // namespace

LstmRule::LstmRule(LstmFeatures features, const LstmOptions& options)
    : features_(features), options_(options) {
  check_option(options.num_hidden >= 1 && options.num_hidden <= 64, name(),
               "num_hidden from 1 to 64", static_cast<double>(options.num_hidden));
  check_option(options.output_scale > 0.0, name(), "output_scale above 0", options.output_scale);
  check_option(options.log_scale > 0.0 && options.log_scale <= 30.0, name(), "log_scale in (0, 30]",
               options.log_scale);
  check_option(options.decay >= 0.0 && options.decay < 1.0, name(), "decay in [0, 1)",
               options.decay);
  weights_ = initial_weights(options);
}

std::string LstmRule::name() const {
  return features_ == LstmFeatures::kRnnProp ? "lstm-rnnprop" : "lstm";
}

std::string LstmRule::options_json() const { return write_options(options_); }

StateLayout LstmRule::state_layout(const at::Tensor& param) const {
  StateLayout layout{step_entry()};
  for (const char* name : {"hidden1", "cell1", "hidden2", "cell2"}) {
    layout.push_back(entry_of(name, {options_.num_hidden, param.numel()}, param));
  }
  if (features_ == LstmFeatures::kRnnProp) {
    layout.push_back(entry_of("mean", {param.numel()}, param));
    layout.push_back(entry_of("square", {param.numel()}, param));
  }
  return layout;
}

std::shared_ptr<const UpdateRule> LstmRule::elementwise() const {
  throw InputError("[" + name() + "] expected orthogonal = true, got false, which it cannot do");
}

std::vector<double> LstmRule::step_sizes(const State&, at::TensorList params,
                                         const StepOptions& options) const {
  return std::vector<double>(params.size(), options.lr * options_.output_scale);
}

ops::LstmWeights LstmRule::cell_weights(const at::TensorOptions& options) const {
  const auto get = [&](const std::string& name) { return find(weights_, name).to(options); };
  ops::LstmWeights cells;
  for (size_t layer = 0; layer < 2; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    cells.matrices[layer] =
        at::cat({get(prefix + "input_weight"), get(prefix + "recurrent_weight")}, 1);
    cells.biases[layer] = get(prefix + "bias");
  }
  cells.output_weight = get("output.weight");
  cells.output_bias = get("output.bias");
  return cells;
}

at::Tensor LstmRule::features(const std::vector<at::Tensor>& grads,
                              const std::vector<ParamState>& moments) const {
  if (features_ == LstmFeatures::kLogSign) {
    return log_sign_features(at::cat(grads), options_.log_scale);
  }
  std::vector<at::Tensor> parts;
  parts.reserve(grads.size());
  for (size_t i = 0; i < grads.size(); ++i) {
    parts.push_back(ratio_features(grads[i], moments[i], options_.decay));
  }
  return at::cat(parts, 1);
}

at::Tensor LstmRule::scaled(const at::Tensor& output, double lr) const {
  const at::Tensor bounded = features_ == LstmFeatures::kRnnProp ? output.tanh() : output;
  return bounded * (lr * options_.output_scale);
}

UpdateResult LstmRule::do_update(at::TensorList grads, const State& state, at::TensorList params,
                                 const StepOptions& options) const {
  UpdateResult result{.updates = std::vector<at::Tensor>(params.size()), .state = state};
  std::map<std::pair<c10::DeviceType, int>, std::vector<size_t>> groups[2];
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Device device = params[i].device();
    groups[compute_dtype(params[i]) == at::kDouble][{device.type(), device.index()}].push_back(i);
  }
  for (const auto& of_dtype : groups) {
    for (const auto& [device, indices] : of_dtype) {
      update_group(indices, grads, params, options, result);
    }
  }
  return result;
}

void LstmRule::update_group(const std::vector<size_t>& indices, at::TensorList grads,
                            at::TensorList params, const StepOptions& options,
                            UpdateResult& result) const {
  const at::ScalarType dtype = compute_dtype(params[indices[0]]);
  std::vector<at::Tensor> flat_grads, columns[4];
  std::vector<ParamState> moments;
  std::vector<int64_t> sizes;
  for (const size_t i : indices) {
    ParamState& state = result.state[i];
    flat_grads.push_back(grads[i].to(dtype).reshape({-1}));
    sizes.push_back(params[i].numel());
    state[kStep] = state[kStep] + 1;
    if (features_ == LstmFeatures::kRnnProp) {
      const at::Tensor& grad = flat_grads.back();
      state[kMean] = state[kMean].lerp(grad, 1.0 - options_.decay);
      state[kSquare] = state[kSquare].lerp(grad * grad, 1.0 - options_.decay);
    }
    for (int k = 0; k < 4; ++k) columns[k].push_back(state[kHidden1 + k]);
    moments.push_back(state);
  }
  ops::LstmState cells;
  for (int k = 0; k < 4; ++k) cells[k] = at::cat(columns[k], 1);
  const at::Tensor output = ops::lstm_step_reference(features(flat_grads, moments), cells,
                                                     cell_weights(flat_grads[0].options()));
  const std::vector<at::Tensor> updates = scaled(output, options.lr).split_with_sizes(sizes);
  for (int k = 0; k < 4; ++k) {
    const std::vector<at::Tensor> parts = cells[k].split_with_sizes(sizes, 1);
    for (size_t j = 0; j < indices.size(); ++j) {
      result.state[indices[j]][kHidden1 + k] = parts[j].contiguous();
    }
  }
  for (size_t j = 0; j < indices.size(); ++j) {
    result.updates[indices[j]] = updates[j].reshape(params[indices[j]].sizes());
  }
}

void LstmRule::do_step_(at::TensorList grads, State& state, at::TensorList params,
                        const StepOptions& options, const std::vector<double>& shrink) const {
  const at::NoGradGuard no_grad;
  const ops::LstmWeights weights = cell_weights(at::TensorOptions(at::kFloat));
  const bool fused = std::all_of(params.begin(), params.end(), [](const at::Tensor& param) {
    return param.is_cpu() && compute_dtype(param) == at::kFloat;
  });
  if (params.empty()) return;
  if (!fused || !ops::lstm_step_is_fused(weights, kNumFeatures)) {
    return UpdateRule::do_step_(grads, state, params, options, shrink);
  }
  const std::vector<at::Tensor> flat_grads = flat_in(grads, at::kFloat);
  std::vector<ops::LstmState> cells;
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < params.size(); ++i) {
    count_step(state[i]);
    if (features_ == LstmFeatures::kRnnProp) {
      state[i][kMean].lerp_(flat_grads[i], 1.0 - options_.decay);
      state[i][kSquare].lerp_(flat_grads[i].square(), 1.0 - options_.decay);
    }
    cells.push_back({state[i][kHidden1], state[i][kCell1], state[i][kHidden2], state[i][kCell2]});
    sizes.push_back(params[i].numel());
  }
  const at::Tensor output = ops::lstm_step_(features(flat_grads, state.params()), cells, weights);
  const std::vector<at::Tensor> updates = scaled(output, options.lr).split_with_sizes(sizes);
  for (size_t i = 0; i < params.size(); ++i) {
    move_(params[i], updates[i].view(params[i].sizes()), shrink[i], grads[i], state[i], options);
  }
}

std::shared_ptr<UpdateRule> LstmRule::with_weights(const NamedTensors& weights) const {
  auto rule = std::make_shared<LstmRule>(*this);
  rule->weights_ = matching(name(), weights_, weights);
  return rule;
}

std::shared_ptr<UpdateRule> make_lstm(const std::string& options_json) {
  return std::make_shared<LstmRule>(LstmFeatures::kLogSign,
                                    read_options<LstmOptions>("lstm", options_json));
}

std::shared_ptr<UpdateRule> make_lstm_rnnprop(const std::string& options_json) {
  const LstmOptions defaults{.output_scale = 0.1};
  return std::make_shared<LstmRule>(LstmFeatures::kRnnProp,
                                    read_options("lstm-rnnprop", options_json, defaults));
}

}  // namespace mnemosyne::optim
