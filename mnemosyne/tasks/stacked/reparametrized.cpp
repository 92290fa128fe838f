#include "mnemosyne/tasks/stacked/reparametrized.h"

#include <cmath>
#include <utility>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/random.h"

namespace mnemosyne::tasks {
namespace {

class Reparametrized : public Task {
 public:
  Reparametrized(std::shared_ptr<const Task> inner, const ReparametrizedOptions& options)
      : inner_(std::move(inner)), loss_scale_(options.loss_scale) {
    Random random(options.seed);
    for (size_t i = 0; i < inner_->param_names().size(); ++i) {
      scales_.push_back(std::exp(options.sigma * random.normal()));
    }
  }

  std::string name() const override { return inner_->name() + "/reparametrized"; }

  std::vector<at::Tensor> init(uint64_t seed) const override {
    std::vector<at::Tensor> params = inner_->init(seed);
    for (size_t i = 0; i < params.size(); ++i) params[i] = params[i].div(scales_[i]);
    return params;
  }

  std::vector<std::string> param_names() const override { return inner_->param_names(); }

  std::unique_ptr<BatchStream> train_stream(uint64_t seed) const override {
    return inner_->train_stream(seed);
  }

  std::vector<Batch> validation_batches() const override { return inner_->validation_batches(); }

  bool is_batched() const override { return inner_->is_batched(); }

  at::Tensor loss(at::TensorList params, const Batch& batch) const override {
    return inner_->loss(scaled(params), batch).mul(loss_scale_);
  }

  at::Tensor accuracy(at::TensorList params, const Batch& batch) const override {
    return inner_->accuracy(scaled(params), batch);
  }

 private:
  std::vector<at::Tensor> scaled(at::TensorList params) const {
    std::vector<at::Tensor> result;
    for (size_t i = 0; i < params.size(); ++i) result.push_back(params[i].mul(scales_[i]));
    return result;
  }

  std::shared_ptr<const Task> inner_;
  double loss_scale_;
  std::vector<double> scales_;
};

}  // namespace

std::shared_ptr<const Task> make_reparametrized(std::shared_ptr<const Task> inner,
                                                const ReparametrizedOptions& options) {
  if (!(options.sigma >= 0.0) || !(options.loss_scale > 0.0)) {
    throw InputError("[reparametrized] expected sigma >= 0 and a positive loss_scale, got " +
                     std::to_string(options.sigma) + " and " + std::to_string(options.loss_scale));
  }
  return std::make_shared<Reparametrized>(std::move(inner), options);
}

}  // namespace mnemosyne::tasks
