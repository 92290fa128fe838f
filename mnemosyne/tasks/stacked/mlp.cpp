#include "mnemosyne/tasks/stacked/mlp.h"

#include <utility>

#include "mnemosyne/core/error.h"

namespace mnemosyne::tasks {
namespace {

ParamList declare(const MlpOptions& options) {
  ParamList params;
  for (size_t i = 0; i + 1 < options.sizes.size(); ++i) {
    const bool hidden = i + 2 < options.sizes.size();
    params.linear("layers." + std::to_string(i), options.sizes[i], options.sizes[i + 1]);
    if (hidden && options.norm != Norm::kNone) {
      params.norm("norms." + std::to_string(i), options.sizes[i + 1]);
    }
  }
  return params;
}

class Mlp : public StackedModel {
 public:
  explicit Mlp(MlpOptions options) : StackedModel(declare(options)), options_(std::move(options)) {}

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    ParamCursor cursor(params);
    at::Tensor x = inputs.flatten(1);
    for (size_t i = 1; i + 1 < options_.sizes.size(); ++i) {
      at::Tensor y = stacked_linear(x, cursor.affine());
      if (options_.norm != Norm::kNone) y = normalize(y, options_.norm, cursor.affine());
      y = activate(y, options_.activation);
      const bool adds = options_.residual && options_.sizes[i] == options_.sizes[i - 1];
      x = adds ? y.add(x) : y;
    }
    return stacked_linear(x, cursor.affine());
  }

 private:
  MlpOptions options_;
};

}  // namespace

std::shared_ptr<const Model> make_mlp(const MlpOptions& options) {
  if (options.sizes.size() < 2) {
    throw InputError("[mlp] expected at least two sizes, got " +
                     std::to_string(options.sizes.size()));
  }
  return std::make_shared<Mlp>(options);
}

}  // namespace mnemosyne::tasks
