#include "mnemosyne/nn/performer_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>

#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/copy_module.h"

namespace mnemosyne::nn {
namespace {

// 0 to 5 are those of attention.
constexpr uint64_t kUpSeed = 6;
constexpr uint64_t kDownSeed = 7;

}  // namespace

PerformerBlockImpl::PerformerBlockImpl(const PerformerBlockOptions& options)
    : torch::nn::Module("PerformerBlock"), options_(options) {
  options_.site = with_seed(options.site);
  const int64_t width = options.site.embed_dim;
  if (width < 1 || options.hidden < 0) {
    throw InputError("[attention] expected a positive width and hidden of 0 or more, got " +
                     std::to_string(width) + " and " + std::to_string(options.hidden));
  }
  const int64_t hidden = options.hidden > 0 ? options.hidden : 4 * width;
  norm1 = register_module("norm1", Norm(width));
  attention = register_module("attention", make_attention(options.attention, options_.site));
  norm2 = register_module("norm2", Norm(width));
  up = register_module("up", Dense(width, hidden, true, part_seed(*options_.site.seed, kUpSeed)));
  down = register_module("down",
                         Dense(hidden, width, true, part_seed(*options_.site.seed, kDownSeed)));
}

at::Tensor PerformerBlockImpl::feed_forward(const at::Tensor& x) const {
  return x + down->forward(at::gelu(up->forward(norm2->forward(x))));
}

at::Tensor PerformerBlockImpl::forward(const at::Tensor& x, const AttentionInputs& inputs) const {
  return feed_forward(x + attention->forward(norm1->forward(x), inputs));
}

at::Tensor PerformerBlockImpl::forward_segment(const at::Tensor& x,
                                               LinearAttentionMemory& memory) const {
  const auto* linear = dynamic_cast<const LinearAttentionImpl*>(attention.get());
  if (linear == nullptr) {
    throw InputError("[attention] expected linear attention for segments, got softmax");
  }
  return feed_forward(x + linear->forward_segment(norm1->forward(x), memory));
}

std::shared_ptr<torch::nn::Module> PerformerBlockImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<PerformerBlockImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
