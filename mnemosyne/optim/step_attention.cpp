#include "mnemosyne/optim/step_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/where.h>

#include <limits>
#include <map>
#include <mutex>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/nn/copy_module.h"
#include "mnemosyne/optim/step_features.h"
#include "mnemosyne/optim/step_outputs.h"

namespace mnemosyne::optim {
namespace {

constexpr char kRule[] = "mnemosyne";
constexpr char kPrefix[] = "attention.";
// Part of what a weights file means: its seeds draw the random features.
constexpr uint64_t kEncoderSeed = 1, kMemorySeed = 2, kNetworkSeed = 3;

/// A memory [B,S] in which streams that are not finite begin anew.
at::Tensor sound(const at::Tensor& memory, at::ScalarType dtype) {
  const at::Tensor finite =
      memory.abs().amax(1, /*keepdim=*/true) < std::numeric_limits<double>::infinity();
  return at::where(finite, memory, 0.0).to(dtype);
}

}  // namespace

void bind(Fields& visit, StepAttentionOptions& o) {
  visit("attention", o.enabled);
  visit("attention_chunk_size", o.chunk_size);
  visit("attention_chunk_length", o.chunk_length);
  visit("attention_width", o.width);
  visit("attention_heads", o.heads);
  visit("attention_position", o.position);
  visit("attention_memory", o.memory);
  visit("attention_chunks", o.chunks);
  visit("attention_chunk_bound", o.chunk_bound);
}

void validate(const StepAttentionOptions& o) {
  const auto check = [](bool good, const std::string& expected, double got) {
    check_option(good, kRule, expected, got);
  };
  check(o.chunk_size >= 1, "attention_chunk_size of at least 1", static_cast<double>(o.chunk_size));
  check(o.chunk_length >= 1, "attention_chunk_length of at least 1",
        static_cast<double>(o.chunk_length));
  check(o.chunk_bound >= 0.0 && o.chunk_bound <= 3.0, "attention_chunk_bound in [0, 3]",
        o.chunk_bound);
}

StepAttentionImpl::StepAttentionImpl(const StepAttentionOptions& options, int64_t num_features,
                                     int64_t num_outputs)
    : torch::nn::Module("StepAttention"),
      options_(options),
      num_features_(num_features),
      num_outputs_(num_outputs) {
  validate(options);
  nn::HierarchicalEncoderOptions encoding{
      .token_dim = static_cast<int64_t>(chunk_feature_names().size()),
      .tensor_dim = num_features,
      .width = options.width,
      .heads = options.heads,
      .hidden = 2 * options.width,
      .chunk_lengths = {options.chunk_length},
      .extent = static_cast<double>(options.chunk_length),
      .seed = kEncoderSeed};
  encoding.attention.position = options.position;
  encoder = register_module("encoder", nn::HierarchicalEncoder(encoding));
  if (options.memory) {
    const auto time = [&](const char* name, uint64_t seed) {
      return register_module(name, nn::TemporalMemory({.width = options.width, .seed = seed}));
    };
    memory = time("memory", kMemorySeed);
    network_memory = time("network_memory", kNetworkSeed);
  }
  const at::NoGradGuard no_grad;
  tensor_norm = register_module("tensor_norm", nn::Norm(options.width));
  tensor_head = register_module("tensor_head", nn::Dense(options.width, num_outputs, true, 0));
  tensor_head->weight.zero_();
  if (!options.chunks) return;
  chunk_norm = register_module("chunk_norm", nn::Norm(options.width));
  chunk_head = register_module("chunk_head", nn::Dense(options.width, 1, true, 0));
  chunk_head->weight.zero_();
}

int64_t StepAttentionImpl::meta_tokens(int64_t numel) const {
  const int64_t chunks = ops::chunk_count(numel, options_.chunk_size);
  return (chunks + options_.chunk_length - 1) / options_.chunk_length;
}

int64_t StepAttentionImpl::state_size() const { return memory ? memory->state_size() : 0; }

AttendedOutputs StepAttentionImpl::forward(const at::Tensor& features, const at::Tensor& chunks,
                                           const ChunkGeometry& geometry, at::Tensor& memory_state,
                                           at::Tensor& network_state) const {
  nn::EncodedTensors encoded = encoder->forward({.tokens = chunks,
                                                 .positions = geometry.positions,
                                                 .tensors = features,
                                                 .counts = geometry.counts});
  if (memory) {
    encoded.meta = memory->forward(encoded.meta, memory_state);
    encoded.sets = network_memory->forward(encoded.sets, network_state);
  }
  const at::Tensor tensors = encoded.tensors + encoded.meta_of_tensors.pool(encoded.meta) +
                             encoded.tensors_of_sets.spread(encoded.sets);
  AttendedOutputs outputs;
  outputs.tensors = tensor_head->forward(tensor_norm->forward(tensors));
  if (options_.chunks) {
    outputs.chunks = chunk_head->forward(chunk_norm->forward(encoder->spread(encoded))).squeeze(-1);
  }
  return outputs;
}

struct LearnedAttention::Copies {
  std::mutex mutex;
  std::map<std::string, std::vector<at::Tensor>> of_device;
};

LearnedAttention::LearnedAttention(const StepAttentionOptions& options, int64_t num_features,
                                   int64_t num_outputs)
    : module_(options, num_features, num_outputs),
      functional_(std::make_shared<const nn::FunctionalModule>(module_.ptr())),
      copies_(std::make_shared<Copies>()) {
  std::vector<std::string> names;
  for (const auto& parameter : module_->named_parameters()) {
    names.push_back(parameter.key());
    weights_.emplace_back(kPrefix + parameter.key(), parameter.value().detach().clone());
  }
  for (const auto& buffer : module_->named_buffers()) names.push_back(buffer.key());
  places_ = functional_->places(names);
}

LearnedAttention LearnedAttention::with_weights(const NamedTensors& weights) const {
  LearnedAttention result = *this;
  result.weights_ = matching(kRule, weights_, weights);
  result.copies_ = std::make_shared<Copies>();
  return result;
}

std::vector<at::Tensor> LearnedAttention::tensors_on(at::Device device) const {
  std::vector<at::Tensor> tensors;
  bool constant = true;
  for (const auto& [name, weight] : weights_) {
    tensors.push_back(weight);
    constant = constant && !weight.requires_grad();
  }
  for (const at::Tensor& buffer : module_->buffers()) tensors.push_back(buffer);
  if (device.is_cpu()) return tensors;
  const auto moved = [&] {
    std::vector<at::Tensor> there;
    for (const at::Tensor& tensor : tensors) there.push_back(tensor.to(device));
    return there;
  };
  if (!constant) return moved();
  const std::lock_guard lock(copies_->mutex);
  std::vector<at::Tensor>& there = copies_->of_device[device.str()];
  if (there.empty()) there = moved();
  return there;
}

void LearnedAttention::add_axes(WeightAxes& axes) const {
  const auto add = [&](const std::string& name, const std::vector<std::vector<std::string>>& own) {
    axes[kPrefix + name] = own;
  };
  add("encoder.embed.weight", {{}, chunk_feature_names()});
  add("encoder.embed_tensor.weight", {{}, step_feature_names()});
  add("tensor_head.weight", {step_output_names(), {}});
  add("tensor_head.bias", {step_output_names()});
}

AttendedOutputs LearnedAttention::operator()(const at::Tensor& features, const at::Tensor& chunks,
                                             const ChunkGeometry& geometry, at::Tensor& memory,
                                             at::Tensor& network_memory) const {
  const std::vector<at::Tensor> tensors = tensors_on(features.device());
  const at::ScalarType dtype = tensors.front().scalar_type();
  at::Tensor held = memory, network_held = network_memory;
  if (held.defined()) {
    held = sound(held, dtype);
    network_held = sound(network_held, dtype);
  }
  AttendedOutputs outputs = functional_->call(places_, tensors, [&](torch::nn::Module& module) {
    return module.as<StepAttentionImpl>()->forward(features.to(dtype), chunks.to(dtype), geometry,
                                                   held, network_held);
  });
  if (memory.defined()) {
    memory = held.to(memory.scalar_type());
    network_memory = network_held.to(network_memory.scalar_type());
  }
  return outputs;
}

std::shared_ptr<torch::nn::Module> StepAttentionImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<StepAttentionImpl>(options_, num_features_, num_outputs_);
  nn::copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::optim
