#include "mnemosyne/optim/step_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/nn/copy_module.h"
#include "mnemosyne/optim/chunk_tokens.h"

namespace mnemosyne::optim {
namespace {

constexpr char kRule[] = "mnemosyne";
// Part of what a weights file means: its seeds draw the random features.
constexpr uint64_t kEncoderSeed = 1, kMemorySeed = 2;

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
                                     int64_t num_outputs, bool aligned)
    : torch::nn::Module("StepAttention"),
      options_(options),
      num_features_(num_features),
      num_outputs_(num_outputs),
      aligned_(aligned) {
  validate(options);
  nn::HierarchicalEncoderOptions encoding{
      .token_dim = static_cast<int64_t>(chunk_feature_names(aligned).size()),
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
    memory = register_module("memory",
                             nn::TemporalMemory({.width = options.width, .seed = kMemorySeed}));
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
                                           const nn::EncoderPlan& plan, at::Tensor& memory_state,
                                           at::Tensor& network_state) const {
  nn::EncodedTensors encoded = encoder->forward({.tokens = chunks, .tensors = features}, plan);
  if (memory) {
    const std::vector<int64_t> streams{encoded.meta.size(0), encoded.sets.size(0)};
    at::Tensor state = at::cat({memory_state, network_state});
    const at::Tensor now = memory->forward(at::cat({encoded.meta, encoded.sets}), state);
    const std::vector<at::Tensor> tokens = now.split_with_sizes(streams);
    const std::vector<at::Tensor> states = state.split_with_sizes(streams);
    encoded.meta = tokens[0];
    encoded.sets = tokens[1];
    memory_state = states[0];
    network_state = states[1];
  }
  const at::Tensor tensors = encoded.tensors + plan.meta_of_tensors.pool(encoded.meta) +
                             plan.tensors_of_sets.spread(encoded.sets);
  AttendedOutputs outputs;
  outputs.tensors = tensor_head->forward(tensor_norm->forward(tensors));
  if (options_.chunks) {
    const at::Tensor all = encoder->spread(encoded, plan);
    outputs.chunks = chunk_head->forward(chunk_norm->forward(all)).squeeze(-1);
  }
  return outputs;
}

std::shared_ptr<torch::nn::Module> StepAttentionImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy =
      std::make_shared<StepAttentionImpl>(options_, num_features_, num_outputs_, aligned_);
  nn::copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::optim
