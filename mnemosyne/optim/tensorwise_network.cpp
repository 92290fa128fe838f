#include "mnemosyne/optim/tensorwise_network.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/gelu.h>

#include <algorithm>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/nn/copy_module.h"

namespace mnemosyne::optim {
namespace {

// Part of what a weights file means: seeds draw the random features.
constexpr uint64_t kEncoderSeed = 1, kMemorySeed = 2, kFeatureSeed = 3, kContextSeed = 4;
constexpr int64_t kOutputs = 2;  // direction and log-magnitude

}  // namespace

void bind(Fields& visit, TensorwiseNetworkOptions& o) {
  visit("width", o.width);
  visit("heads", o.heads);
  visit("chunk_lengths", o.chunk_lengths);
  visit("position", o.position);
  visit("memory", o.memory);
  visit("discounts", o.discounts);
  visit("hidden", o.hidden);
  visit("seed", o.seed);
}

void validate(const TensorwiseNetworkOptions& o, const std::string& rule) {
  const auto check = [&](bool good, const std::string& expected, int64_t got) {
    check_option(good, rule, expected, static_cast<double>(got));
  };
  const auto in = [](int64_t value, int64_t most) { return value >= 1 && value <= most; };
  check(in(o.heads, 64), "heads from 1 to 64", o.heads);
  check(in(o.width, 1024) && o.width % o.heads == 0, "width up to 1024, a multiple of heads",
        o.width);
  check(in(o.hidden, 1024), "hidden from 1 to 1024", o.hidden);
  const auto levels = static_cast<int64_t>(o.chunk_lengths.size());
  check(in(levels, 8), "chunk_lengths of 1 to 8 levels", levels);
  for (const int64_t length : o.chunk_lengths) {
    check(in(length, 65536), "chunk_lengths from 1 to 65536", length);
  }
  const auto discounts = static_cast<int64_t>(o.discounts.size());
  check(in(discounts, 64), "1 to 64 discounts", discounts);
  for (const double discount : o.discounts) {
    check_option(discount > 0.0 && discount < 1.0, rule, "discounts in (0, 1)", discount);
  }
  check(o.seed >= 0, "seed of at least 0", o.seed);
  one_of(rule, o.position, {"flt", "absolute", "none"}, "position");
}

TensorwiseNetworkImpl::TensorwiseNetworkImpl(const TensorwiseNetworkOptions& options,
                                             int64_t num_features, int64_t num_tensor_features)
    : torch::nn::Module("TensorwiseNetwork"),
      options_(options),
      num_features_(num_features),
      num_tensor_features_(num_tensor_features) {
  const auto seed = [&](uint64_t part) {
    return part_seed(static_cast<uint64_t>(options.seed), part);
  };
  const int64_t longest =
      *std::max_element(options.chunk_lengths.begin(), options.chunk_lengths.end());
  nn::HierarchicalEncoderOptions encoding{.token_dim = num_features,
                                          .tensor_dim = num_tensor_features,
                                          .width = options.width,
                                          .heads = options.heads,
                                          .hidden = 2 * options.width,
                                          .chunk_lengths = options.chunk_lengths,
                                          .extent = static_cast<double>(longest),
                                          .seed = seed(kEncoderSeed)};
  encoding.attention.position = options.position;
  encoder = register_module("encoder", nn::HierarchicalEncoder(encoding));
  if (options.memory) {
    memory = register_module("memory", nn::TemporalMemory({.width = options.width,
                                                           .discounts = options.discounts,
                                                           .seed = seed(kMemorySeed)}));
  }
  context_norm = register_module("context_norm", nn::Norm(options.width));
  from_features = register_module(
      "from_features",
      nn::Dense(num_features, options.hidden, /*with_bias=*/false, seed(kFeatureSeed)));
  from_context = register_module("from_context", nn::Dense(options.width, options.hidden,
                                                           /*with_bias=*/true, seed(kContextSeed)));
  head = register_module("head", nn::Dense(options.hidden, kOutputs, /*with_bias=*/true, 0));
  const at::NoGradGuard no_grad;
  head->weight.zero_();
}

int64_t TensorwiseNetworkImpl::meta_tokens(int64_t numel) const {
  for (const int64_t length : options_.chunk_lengths) numel = (numel + length - 1) / length;
  return numel;
}

int64_t TensorwiseNetworkImpl::state_size() const { return memory ? memory->state_size() : 0; }

at::Tensor TensorwiseNetworkImpl::forward(const at::Tensor& tokens, const at::Tensor& tensors,
                                          const nn::EncoderPlan& plan, at::Tensor& state) const {
  nn::EncodedTensors encoded = encoder->forward({.tokens = tokens, .tensors = tensors}, plan);
  if (memory) encoded.meta = memory->forward(encoded.meta, state);
  const at::Tensor context = context_norm->forward(encoder->spread(encoded, plan));
  const at::Tensor hidden = from_features->forward(tokens) + from_context->forward(context);
  return head->forward(at::gelu(hidden));
}

std::shared_ptr<torch::nn::Module> TensorwiseNetworkImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy =
      std::make_shared<TensorwiseNetworkImpl>(options_, num_features_, num_tensor_features_);
  nn::copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::optim
