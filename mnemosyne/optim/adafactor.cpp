#include "mnemosyne/optim/adafactor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/fields.h"

namespace mnemosyne::optim {

static void bind(Fields& visit, AdafactorOptions& options) {
  visit("beta2_decay", options.beta2_decay);
  visit("clip_threshold", options.clip_threshold);
  visit("smallest_scale", options.smallest_scale);
}

namespace {

enum Slot { kStep, kRow, kColumn, kVariance };

// As torch: the machine epsilon of the dtype keeps roots and means away from zero.
double smallest_root(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon()
                                             : std::numeric_limits<float>::epsilon();
}

// 0-d, float64.
at::Tensor root_mean_square(const at::Tensor& tensor) {
  return at::linalg_vector_norm(tensor).to(at::kDouble) /
         std::sqrt(static_cast<double>(tensor.numel()));
}

at::Tensor mean_square(const at::Tensor& grad, int64_t dim) {
  return at::linalg_vector_norm(grad, 2, dim, /*keepdim=*/true)
      .square_()
      .div_(static_cast<double>(grad.size(dim)));
}

}  // namespace

Adafactor::Adafactor(const AdafactorOptions& options) : options_(options) {
  check_option(options.beta2_decay <= 0.0, name(), "beta2_decay of at most 0", options.beta2_decay);
  check_option(options.clip_threshold >= 1.0, name(), "clip_threshold of at least 1",
               options.clip_threshold);
  check_option(options.smallest_scale >= 0.0, name(), "smallest_scale of at least 0",
               options.smallest_scale);
}

std::string Adafactor::options_json() const { return write_options(options_); }

StateLayout Adafactor::state_layout(const at::Tensor& param) const {
  if (param.dim() < 2) {
    return {step_entry(), entry_of("row", {0}, param), entry_of("column", {0}, param),
            entry_like("variance", param)};
  }
  c10::DimVector row(param.sizes()), column(param.sizes());
  row[row.size() - 1] = 1;
  column[column.size() - 2] = 1;
  return {step_entry(), entry_of("row", row, param), entry_of("column", column, param),
          entry_of("variance", {0}, param)};
}

at::Tensor Adafactor::update_one(const at::Tensor& grad, ParamState& state, const at::Tensor& param,
                                 const StepOptions& options) const {
  const auto t = static_cast<double>(step_count(state));
  const double weight = std::pow(t, options_.beta2_decay), eps = smallest_root(param);
  at::Tensor variance;
  if (grad.dim() >= 2) {
    at::Tensor& row = state[kRow];
    at::Tensor& column = state[kColumn];
    row.lerp_(mean_square(grad, -1), weight);
    column.lerp_(mean_square(grad, -2), weight);
    variance = at::matmul(row, column).div_(row.mean(-2, /*keepdim=*/true).clamp_min_(eps));
  } else {
    state[kVariance].lerp_(grad.square(), weight);
    variance = state[kVariance].clone();
  }
  at::Tensor update = variance.clamp_min_(eps * eps).rsqrt_().mul_(grad);
  at::Tensor step = root_mean_square(param).clamp_min_(options_.smallest_scale);
  if (options.lr_factor.defined()) {
    const at::Tensor lr = options.lr * options.lr_factor.to(step.options());
    step.mul_(lr.clamp_max(1.0 / std::sqrt(t)));
  } else {
    step.mul_(std::min(options.lr, 1.0 / std::sqrt(t)));
  }
  const at::Tensor excess = (root_mean_square(update) / options_.clip_threshold).clamp_min_(1.0);
  return update.mul_(step.div_(excess));
}

std::shared_ptr<UpdateRule> make_adafactor(const std::string& options_json) {
  return std::make_shared<Adafactor>(read_options<AdafactorOptions>("adafactor", options_json));
}

}  // namespace mnemosyne::optim
