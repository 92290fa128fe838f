#include "mnemosyne/nn/vit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/meshgrid.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/copy_module.h"

namespace mnemosyne::nn {
namespace {

constexpr uint64_t kPatchSeed = 1000, kPositionSeed = 1001, kHeadSeed = 1002;

void check(const ViTOptions& o) {
  if (o.channels < 1 || o.num_classes < 1 || o.layers < 1) {
    throw InputError("[vit] expected positive channels, num_classes and layers, got " +
                     std::to_string(o.channels) + ", " + std::to_string(o.num_classes) + " and " +
                     std::to_string(o.layers));
  }
  if (o.image_size < 1 || o.patch_size < 1 || o.image_size % o.patch_size != 0) {
    throw InputError("[vit] expected a positive image_size divisible by patch_size, got " +
                     std::to_string(o.image_size) + " and " + std::to_string(o.patch_size));
  }
}

AttentionSite site_of(const ViTOptions& o, uint64_t layer) {
  const int64_t side = o.image_size / o.patch_size;
  return {.embed_dim = o.width,
          .num_heads = o.heads,
          .position_dim = 2,
          .max_width = std::max(static_cast<double>(side) / 2.0, 1.0),
          .extent = static_cast<double>(side),
          .grid = {side, side},
          .seed = part_seed(*o.seed, layer)};
}

}  // namespace

void bind(Fields& visit, ViTOptions& o) {
  visit("image_size", o.image_size);
  visit("channels", o.channels);
  visit("patch_size", o.patch_size);
  visit("num_classes", o.num_classes);
  visit("width", o.width);
  visit("heads", o.heads);
  visit("layers", o.layers);
  visit("hidden", o.hidden);
  visit("seed", o.seed);
}

ViTImpl::ViTImpl(const ViTOptions& options)
    : torch::nn::Module("ViT"), options_(with_seed(options)) {
  check(options);
  validate(options.attention, site_of(options_, 0));
  const int64_t side = options.image_size / options.patch_size;
  const int64_t pixels = options.channels * options.patch_size * options.patch_size;
  patches = register_module(
      "patches", Dense(pixels, options.width, true, part_seed(*options_.seed, kPatchSeed)));
  if (options.attention.position == "absolute") {
    position_embedding = register_parameter(
        "position_embedding", seeded_normal({side * side, options.width}, kEmbeddingDeviation,
                                            part_seed(*options_.seed, kPositionSeed)));
  }
  blocks = register_blocks(*this, options.layers, options.attention, options.hidden,
                           [&](uint64_t layer) { return site_of(options_, layer); });
  norm = register_module("norm", Norm(options.width));
  head = register_module("head", Dense(options.width, options.num_classes, true,
                                       part_seed(*options_.seed, kHeadSeed)));
  const at::Tensor axis = at::arange(side, at::TensorOptions(at::kDouble));
  positions_ = at::stack(at::meshgrid({axis, axis}, "ij"), -1).view({-1, 2});
}

at::Tensor ViTImpl::forward(const at::Tensor& images) const {
  const int64_t size = options_.image_size, patch = options_.patch_size, side = size / patch;
  TORCH_CHECK(images.dim() == 4 && images.size(1) == options_.channels && images.size(2) == size &&
                  images.size(3) == size,
              "[vit] expected images [B,", options_.channels, ",", size, ",", size, "], got ",
              images.sizes());
  const at::Tensor pixels =
      images.reshape({images.size(0), options_.channels, side, patch, side, patch})
          .permute({0, 2, 4, 1, 3, 5})
          .flatten(3)
          .flatten(1, 2);  // [B, patches, C patch^2]
  at::Tensor x = patches->forward(pixels);
  if (position_embedding.defined()) x = x + position_embedding;
  const AttentionInputs inputs{.positions = positions_.to(images.device())};
  for (const PerformerBlock& block : blocks) x = block->forward(x, inputs);
  return head->forward(norm->forward(x.mean(1)));
}

std::shared_ptr<torch::nn::Module> ViTImpl::clone(const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<ViTImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
