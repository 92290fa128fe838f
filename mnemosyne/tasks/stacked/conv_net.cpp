#include "mnemosyne/tasks/stacked/conv_net.h"

#include <utility>

#include "mnemosyne/core/error.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kKernel = 3, kPadding = 1;

ParamList declare(const ConvNetOptions& options) {
  ParamList params;
  int64_t in = options.channels, height = options.image_size;
  int64_t width = options.image_width > 0 ? options.image_width : height;
  for (size_t i = 0; i < options.widths.size(); ++i) {
    params.conv2d("convs." + std::to_string(i), in, options.widths[i], kKernel);
    in = options.widths[i];
    height = (height - 1) / options.stride + 1;
    width = (width - 1) / options.stride + 1;
  }
  params.linear("head", in * height * width, options.num_classes);
  return params;
}

class ConvNet : public StackedModel {
 public:
  explicit ConvNet(ConvNetOptions options)
      : StackedModel(declare(options)), options_(std::move(options)) {}

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    ParamCursor cursor(params);
    at::Tensor x = inputs;
    for (size_t i = 0; i < options_.widths.size(); ++i) {
      x = stacked_conv2d(x, /*shared=*/i == 0, cursor.affine(), options_.stride, kPadding);
      x = activate(x, options_.activation);
    }
    const Affine head = cursor.affine();
    return stacked_linear(stacked_flatten(x, head.weight.size(0)), head);
  }

 private:
  ConvNetOptions options_;
};

}  // namespace

std::shared_ptr<const Model> make_conv_net(const ConvNetOptions& options) {
  if (options.widths.empty() || options.stride < 1) {
    throw InputError("[conv_net] expected at least one convolution and a positive stride, got " +
                     std::to_string(options.widths.size()) + " and " +
                     std::to_string(options.stride));
  }
  return std::make_shared<ConvNet>(options);
}

}  // namespace mnemosyne::tasks
