#include "mnemosyne/optim/coordinate_tokens.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/optim/coordinate_weights.h"

namespace mnemosyne::optim {
namespace {

constexpr double kTiny = 1e-30;  // a zero beside a zero is nothing special
constexpr double kLogScale = 10.0;
constexpr int64_t kFromSums = 4;

at::Tensor soft(const at::Tensor& x) { return x / (x.abs() + 1.0); }

at::Tensor finite_or_zero(const at::Tensor& x) { return at::nan_to_num(x, 0.0, 0.0, 0.0); }

}  // namespace

CoordinatePlaces::CoordinatePlaces(at::TensorList params, at::Device device) {
  for (const at::Tensor& param : params) counts.push_back(param.numel());
  owners = at::repeat_interleave(at::tensor(counts, at::kLong)).to(device, /*non_blocking=*/true);
}

at::Tensor CoordinatePlaces::spread(const at::Tensor& values) const {
  return values.index_select(0, owners);
}

at::Tensor coordinate_positions(at::TensorList params) {
  std::vector<at::Tensor> all{at::empty({0, 3}, at::kFloat)};
  for (const at::Tensor& p : params) {
    if (p.numel() == 0) continue;
    const int64_t second = p.dim() > 1 ? p.size(1) : 1;
    const int64_t rest = p.dim() > 0 ? p.numel() / (p.size(0) * second) : 1;
    const at::Tensor index = at::arange(p.numel(), at::kLong);
    const at::Tensor pairs = index.floor_divide(rest);
    all.push_back(
        at::stack({pairs.floor_divide(second), pairs.remainder(second), index.remainder(rest)}, 1)
            .to(at::kFloat));
  }
  return at::cat(all);
}

at::Tensor coordinate_tokens(const CoordinateFacts& facts, double eps) {
  const at::Tensor root = facts.second_moment.sqrt() + eps;
  const at::Tensor relative = facts.grad / (facts.grad_rms + kTiny);
  const at::Tensor normalised = facts.grad / root, average = facts.momentum / root;
  const at::Tensor& v = facts.second_moment;
  const at::Tensor tokens =
      at::stack({soft(relative), ((relative.abs() + kTiny).log() / kLogScale).clamp(-1, 1),
                 (relative * std::exp(kLogScale)).clamp(-1, 1), soft(normalised), soft(average),
                 soft(facts.direction), soft(facts.direction * normalised),
                 soft(average * normalised), v / (v + facts.mean_second_moment + kTiny) - 0.5,
                 soft(facts.param / (facts.param_rms + kTiny))},
                1);
  return finite_or_zero(tokens);
}

const std::vector<std::string>& coordinate_token_names() {
  static const std::vector<std::string> names{"gradient",
                                              "log_gradient",
                                              "sign",
                                              "normalised_gradient",
                                              "momentum",
                                              "direction",
                                              "direction_gradient",
                                              "momentum_gradient",
                                              "share",
                                              "parameter"};
  return names;
}

at::Tensor tensor_tokens(at::TensorList params, const std::vector<int64_t>& t,
                         const StepOptions& options, const ops::StepSums& sums) {
  std::vector<at::Tensor> known;
  std::vector<double> sizes;
  for (size_t i = 0; i < params.size(); ++i) {
    known.push_back(coordinate_tensor_features(params[i], t[i], options));
    sizes.push_back(static_cast<double>(std::max<int64_t>(params[i].numel(), 1)));
  }
  const auto here = [&](const at::Tensor& host) {
    return host.to(sums.grad_squared.options(), /*non_blocking=*/true);
  };
  const at::Tensor size = here(at::tensor(sizes, at::kDouble));
  const at::Tensor norms = sums.grad_squared.sqrt() * sums.old_squared.sqrt();
  const auto log_ratio = [](const at::Tensor& above, const at::Tensor& below) {
    return 0.5 * ((above + kTiny) / (below + kTiny)).log();
  };
  const at::Tensor seen = at::stack(
      {sums.grad_dot_momentum / norms, at::tanh(log_ratio(sums.new_squared, sums.grad_squared)),
       at::tanh(log_ratio(sums.param_squared, size) / 3.0), sums.zeros / size},
      1);
  return at::cat({here(at::stack(known)), finite_or_zero(seen)}, 1);
}

int64_t num_tensor_tokens() { return coordinate_tensor_features() + kFromSums; }

}  // namespace mnemosyne::optim
