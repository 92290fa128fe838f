#include "mnemosyne/tasks/stacked/resnet.h"

#include <string>
#include <utility>

#include "mnemosyne/core/error.h"

namespace mnemosyne::tasks {
namespace {

/// A block of stage `stage`: how it declares itself and runs.
struct Block {
  std::string name;
  int64_t in, out, stride;

  bool changes_width() const { return stride != 1 || in != out; }
};

std::vector<Block> blocks_of(const ResNetOptions& options) {
  std::vector<Block> blocks;
  int64_t in = options.widths.front();
  for (size_t stage = 0; stage < options.widths.size(); ++stage) {
    for (int64_t i = 0; i < options.blocks; ++i) {
      const bool halves = stage > 0 && i == 0;
      blocks.push_back({"layer" + std::to_string(stage + 1) + "." + std::to_string(i) + ".", in,
                        options.widths[stage], halves ? 2 : 1});
      in = options.widths[stage];
    }
  }
  return blocks;
}

/// A convolution and its norm, or a convolution with a bias.
void declare_conv(ParamList& params, const std::string& conv, const std::string& norm, int64_t in,
                  int64_t out, int64_t kernel, bool batch_norm) {
  if (!batch_norm) {
    params.conv2d(conv, in, out, kernel);
    return;
  }
  params.conv2d_weight(conv, in, out, kernel);
  params.norm(norm, out);
}

ParamList declare(const ResNetOptions& options) {
  ParamList params;
  const bool norm = options.batch_norm;
  declare_conv(params, "conv1", "bn1", options.channels, options.widths.front(), 3, norm);
  for (const Block& block : blocks_of(options)) {
    declare_conv(params, block.name + "conv1", block.name + "bn1", block.in, block.out, 3, norm);
    declare_conv(params, block.name + "conv2", block.name + "bn2", block.out, block.out, 3, norm);
    if (block.changes_width()) {
      declare_conv(params, block.name + "downsample.0", block.name + "downsample.1", block.in,
                   block.out, 1, norm);
    }
  }
  params.linear("fc", options.widths.back(), options.num_classes);
  return params;
}

class ResNet : public StackedModel {
 public:
  explicit ResNet(const ResNetOptions& options)
      : StackedModel(declare(options)), options_(options), blocks_(blocks_of(options)) {}

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    ParamCursor cursor(params);
    at::Tensor x = activate(convolve(inputs, cursor, 1, /*shared=*/true), options_.activation);
    for (const Block& block : blocks_) {
      at::Tensor y = activate(convolve(x, cursor, block.stride), options_.activation);
      y = convolve(y, cursor, 1);
      x = block.changes_width() ? convolve(x, cursor, block.stride) : x;
      x = activate(x.add(y), options_.activation);
    }
    const Affine head = cursor.affine();
    return stacked_linear(stacked_flatten(x.mean({2, 3}), head.weight.size(0)), head);
  }

 private:
  /// The next convolution, padded to keep the size, with its norm or bias.
  at::Tensor convolve(const at::Tensor& x, ParamCursor& cursor, int64_t stride,
                      bool shared = false) const {
    Affine conv{cursor.next(), {}};
    if (!options_.batch_norm) conv.bias = cursor.next();
    const at::Tensor y = stacked_conv2d(x, shared, conv, stride, conv.weight.size(3) / 2);
    return options_.batch_norm ? stacked_batch_norm2d(y, cursor.affine()) : y;
  }

  ResNetOptions options_;
  std::vector<Block> blocks_;
};

}  // namespace

std::shared_ptr<const Model> make_resnet(const ResNetOptions& options) {
  if (options.widths.empty() || options.blocks < 1) {
    throw InputError("[resnet] expected at least one stage of at least one block, got " +
                     std::to_string(options.widths.size()) + " and " +
                     std::to_string(options.blocks));
  }
  return std::make_shared<ResNet>(options);
}

}  // namespace mnemosyne::tasks
