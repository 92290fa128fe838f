#include "mnemosyne/tasks/stacked/mlp.h"

#include <utility>

#include "mnemosyne/core/error.h"

namespace mnemosyne::tasks {
namespace {

ParamList declare(const MlpOptions& options) {
  ParamList params;
  for (size_t i = 0; i + 1 < options.sizes.size(); ++i) {
    params.linear("layers." + std::to_string(i), options.sizes[i], options.sizes[i + 1]);
  }
  return params;
}

class Mlp : public StackedModel {
 public:
  explicit Mlp(MlpOptions options) : StackedModel(declare(options)), options_(std::move(options)) {}

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    ParamCursor cursor(params);
    at::Tensor x = stacked_linear(inputs.flatten(1), cursor.affine());
    for (size_t i = 2; i < options_.sizes.size(); ++i) {
      x = stacked_linear(activate(x, options_.activation), cursor.affine());
    }
    return x;
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
