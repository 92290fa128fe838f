#include "mnemosyne/tasks/stacked/gru_lm.h"

#include <cmath>

#include "mnemosyne/tasks/stacked/gru.h"
#include "mnemosyne/tasks/stacked/layers.h"

namespace mnemosyne::tasks {
namespace {

ParamList declare(const GruLmOptions& options) {
  const int64_t hidden = options.hidden;
  // torch's GRU starts everything within 1 / sqrt(hidden), the input's weights too.
  const Init init{Init::Kind::kUniform, 1.0 / std::sqrt(static_cast<double>(hidden))};
  ParamList params;
  params.embedding("embedding", options.vocabulary, options.embedding, 1.0);
  params.add("gru.weight_ih_l0", {3 * hidden, options.embedding}, init);
  params.add("gru.bias_ih_l0", {3 * hidden}, init);
  params.add("gru.weight_hh_l0", {3 * hidden, hidden}, init);
  params.add("gru.bias_hh_l0", {3 * hidden}, init);
  params.linear("head", hidden, options.vocabulary);
  return params;
}

class GruLm : public StackedModel {
 public:
  explicit GruLm(const GruLmOptions& options) : StackedModel(declare(options)) {}

  at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const override {
    const int64_t batch = inputs.size(0), length = inputs.size(1);
    ParamCursor cursor(params);
    // Time first, so that a step of all sequences lies together.
    at::Tensor x = stacked_embedding(inputs.t().flatten(), cursor.next());
    x = stacked_linear(x, cursor.affine()).unflatten(1, {length, batch});
    x = stacked_gru(x, cursor.affine());
    return stacked_linear(x.transpose(1, 2).flatten(1, 2), cursor.affine());
  }
};

}  // namespace

std::shared_ptr<const Model> make_gru_lm(const GruLmOptions& options) {
  return std::make_shared<GruLm>(options);
}

}  // namespace mnemosyne::tasks
