#include "mnemosyne/nn/point_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>

#include <string>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/copy_module.h"

namespace mnemosyne::nn {
namespace {

constexpr uint64_t kTypeSeed = 1000, kPositionSeed = 1001, kHeadSeed = 1002;

void check(const PointEncoderOptions& o) {
  if (o.num_types < 1 || o.outputs < 1 || o.layers < 1) {
    throw InputError("[point_encoder] expected positive num_types, outputs and layers, got " +
                     std::to_string(o.num_types) + ", " + std::to_string(o.outputs) + " and " +
                     std::to_string(o.layers));
  }
  one_of("point_encoder", o.pooling, {"sum", "mean"}, "pooling");
}

AttentionSite site_of(const PointEncoderOptions& o, uint64_t layer) {
  return {.embed_dim = o.width,
          .num_heads = o.heads,
          .position_dim = 3,
          .min_width = o.min_width,
          .max_width = o.max_width,
          .extent = o.extent,
          .rotation_invariant = o.rotation_invariant && o.attention.position == "flt",
          .seed = part_seed(*o.seed, layer)};
}

}  // namespace

void bind(Fields& visit, PointEncoderOptions& o) {
  visit("num_types", o.num_types);
  visit("outputs", o.outputs);
  visit("rotation_invariant", o.rotation_invariant);
  visit("pooling", o.pooling);
  visit("min_width", o.min_width);
  visit("max_width", o.max_width);
  visit("extent", o.extent);
  visit("width", o.width);
  visit("heads", o.heads);
  visit("layers", o.layers);
  visit("hidden", o.hidden);
  visit("seed", o.seed);
}

PointEncoderImpl::PointEncoderImpl(const PointEncoderOptions& options)
    : torch::nn::Module("PointEncoder"), options_(with_seed(options)) {
  check(options);
  validate(options.attention, site_of(options_, 0));
  type_embedding = register_parameter(
      "type_embedding", seeded_normal({options.num_types, options.width}, kEmbeddingDeviation,
                                      part_seed(*options_.seed, kTypeSeed)));
  if (options.attention.position == "absolute") {
    position_embedding = register_module(
        "position_embedding",
        Dense(3, options.width, /*with_bias=*/false, part_seed(*options_.seed, kPositionSeed)));
  }
  blocks = register_blocks(*this, options.layers, options.attention, options.hidden,
                           [&](uint64_t layer) { return site_of(options_, layer); });
  norm = register_module("norm", Norm(options.width));
  head = register_module(
      "head", Dense(options.width, options.outputs, true, part_seed(*options_.seed, kHeadSeed)));
}

at::Tensor PointEncoderImpl::forward(const at::Tensor& types, const at::Tensor& positions,
                                     const at::Tensor& padding) const {
  TORCH_CHECK(types.dim() == 2 && types.scalar_type() == at::kLong && positions.dim() == 3 &&
                  positions.size(0) == types.size(0) && positions.size(1) == types.size(1) &&
                  positions.size(2) == 3,
              "[point_encoder] expected types int64 [B,N] and positions [B,N,3], got ",
              types.scalar_type(), " ", types.sizes(), " and ", positions.sizes());
  TORCH_CHECK(!padding.defined() ||
                  (padding.sizes() == types.sizes() && padding.scalar_type() == at::kBool),
              "[point_encoder] expected padding bool ", types.sizes());
  at::Tensor absent, which = types, where = positions;
  if (padding.defined()) {
    absent = padding.logical_not();
    which = types.masked_fill(absent, 0);
    where = positions.masked_fill(absent.unsqueeze(-1), 0);
  }
  at::Tensor x = at::embedding(type_embedding, which);
  if (position_embedding) x = x + position_embedding->forward(where.to(x.scalar_type()));
  const AttentionInputs inputs{.positions = where, .key_padding_mask = padding};
  for (const PerformerBlock& block : blocks) x = block->forward(x, inputs);
  at::Tensor outputs = head->forward(norm->forward(x));  // [B,N,outputs]
  if (padding.defined()) outputs = outputs.masked_fill(absent.unsqueeze(-1), 0);
  const at::Tensor total = outputs.sum(1);
  if (options_.pooling == "sum") return total;
  if (!padding.defined()) return total / static_cast<double>(types.size(1));
  return total / padding.sum(1, /*keepdim=*/true).clamp_min(1);
}

std::shared_ptr<torch::nn::Module> PointEncoderImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<PointEncoderImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
