#include "mnemosyne/tasks/stacked/layers.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tanh.h>
#include <c10/util/Exception.h>

#include "mnemosyne/ops/short_attention/short_attention.h"

namespace mnemosyne::tasks {
namespace {

/// x [B,M] or [B,M,H,W] by the statistics of its M columns, each with a weight and a bias.
at::Tensor batch_norm(const at::Tensor& x, const Affine& layer) {
  return at::batch_norm(x, layer.weight.reshape({-1}), layer.bias.reshape({-1}), {}, {},
                        /*training=*/true, /*momentum=*/0.0, /*eps=*/1e-5,
                        /*cudnn_enabled=*/true);
}

}  // namespace

at::Tensor stacked_linear(const at::Tensor& x, const Affine& layer) {
  const auto& [weight, bias] = layer;
  const int64_t members = weight.size(0), out = weight.size(1);
  TORCH_CHECK(x.size(-1) == weight.size(2), "[stacked_linear] expected ", weight.size(2),
              " features, got ", x.size(-1));
  if (x.dim() == 2 || members == 1) {
    const at::Tensor rows = x.dim() == 2 ? x : x.select(0, 0);
    const at::Tensor y =
        at::addmm(bias.reshape({members * out}), rows, weight.reshape({members * out, -1}).t());
    return y.view({x.size(-2), members, out}).transpose(0, 1);
  }
  return at::baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2));
}

at::Tensor stacked_layer_norm(const at::Tensor& x, const Affine& layer) {
  const int64_t features = x.size(-1);
  if (x.size(0) == 1) {
    return at::layer_norm(x, {features}, layer.weight.select(0, 0), layer.bias.select(0, 0));
  }
  return at::addcmul(layer.bias.unsqueeze(1), at::layer_norm(x, {features}),
                     layer.weight.unsqueeze(1));
}

at::Tensor stacked_batch_norm(const at::Tensor& x, const Affine& layer) {
  const int64_t members = x.size(0), rows = x.size(1);
  const at::Tensor columns = x.transpose(0, 1).reshape({rows, -1});
  return batch_norm(columns, layer).view({rows, members, -1}).transpose(0, 1);
}

at::Tensor stacked_batch_norm2d(const at::Tensor& x, const Affine& layer) {
  return batch_norm(x, layer);
}

at::Tensor stacked_embedding(const at::Tensor& indices, const at::Tensor& table) {
  const int64_t members = table.size(0), rows = table.size(1);
  at::Tensor positions = indices.unsqueeze(0);
  if (members > 1) {
    positions = positions.add(at::arange(0, members * rows, rows, indices.options()).unsqueeze(1));
  }
  return at::embedding(table.reshape({members * rows, table.size(2)}), positions);
}

at::Tensor stacked_conv2d(const at::Tensor& x, bool shared, const Affine& layer, int64_t stride,
                          int64_t padding) {
  const at::Tensor& weight = layer.weight;
  const int64_t members = weight.size(0), kernel = weight.size(3);
  return at::convolution(x, weight.reshape({-1, weight.size(2), kernel, kernel}),
                         layer.bias.defined() ? layer.bias.reshape({-1}) : at::Tensor(),
                         {stride, stride}, {padding, padding}, {1, 1},
                         /*transposed=*/false, {0, 0}, shared ? 1 : members);
}

at::Tensor stacked_flatten(const at::Tensor& x, int64_t members) {
  return x.reshape({x.size(0), members, -1}).transpose(0, 1);
}

at::Tensor image_patches(const at::Tensor& images, int64_t size) {
  const int64_t batch = images.size(0), channels = images.size(1);
  const int64_t rows = images.size(2) / size, columns = images.size(3) / size;
  return images.reshape({batch, channels, rows, size, columns, size})
      .permute({0, 2, 4, 1, 3, 5})
      .reshape({batch * rows * columns, channels * size * size});
}

at::Tensor stacked_attention(const at::Tensor& qkv, int64_t tokens, int64_t heads, bool causal) {
  const int64_t members = qkv.size(0), rows = qkv.size(1);
  return ops::short_attention(qkv.reshape({members * rows, -1}), tokens, heads, causal)
      .view({members, rows, -1});
}

at::Tensor stacked_cross_entropy(const at::Tensor& logits, const at::Tensor& targets) {
  const int64_t members = logits.size(0), rows = logits.size(1);
  if (members == 1) return at::cross_entropy_loss(logits.select(0, 0), targets).reshape({1});
  const at::Tensor each =
      at::cross_entropy_loss(logits.reshape({members * rows, logits.size(2)}),
                             targets.repeat({members}), {}, /*reduction=none*/ 0);
  return each.view({members, rows}).mean(1);
}

at::Tensor stacked_squared_error(const at::Tensor& predictions, const at::Tensor& targets) {
  return predictions.sub(targets).square().mean({1, 2});
}

at::Tensor stacked_accuracy(const at::Tensor& logits, const at::Tensor& targets) {
  return logits.argmax(-1).eq(targets).to(at::kFloat).mean(1);
}

at::Tensor normalize(const at::Tensor& x, Norm norm, const Affine& layer) {
  switch (norm) {
    case Norm::kNone:
      return x;
    case Norm::kLayer:
      return stacked_layer_norm(x, layer);
    case Norm::kBatch:
      return stacked_batch_norm(x, layer);
  }
  TORCH_CHECK(false, "[normalize] expected a known norm");
}

at::Tensor activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kTanh:
      return at::tanh(x);
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kSine:
      return x.sin();
    case Activation::kSigmoid:
      return at::sigmoid(x);
  }
  TORCH_CHECK(false, "[activate] expected a known activation");
}

}  // namespace mnemosyne::tasks
