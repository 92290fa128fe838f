#include "mnemosyne/optim/step_features.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "testing.h"

namespace mnemosyne::optim {
namespace {

using testing::close;

ops::StepSums random_sums(int64_t count) {
  const at::Tensor positive = at::rand({6, count}, at::kDouble) + 0.1;
  ops::StepSums sums;
  sums.grad_squared = positive[0];
  sums.old_squared = positive[1];
  sums.new_squared = positive[2];
  sums.param_squared = positive[3];
  sums.second_moment = positive[4];
  sums.grad_dot_momentum =
      (2.0 * at::rand({count}, at::kDouble) - 1.0) * (positive[0] * positive[1]).sqrt();
  sums.zeros = at::zeros({count}, at::kDouble);
  return sums;
}

std::vector<at::Tensor> fresh_signals(size_t count) {
  std::vector<at::Tensor> signals(count);
  for (at::Tensor& own : signals) own = at::zeros({kNumSignals});
  return signals;
}

std::vector<double> column(const at::Tensor& features, const std::string& name) {
  const auto& names = step_feature_names();
  const auto found = std::find(names.begin(), names.end(), name);
  EXPECT_NE(found, names.end()) << name;
  const at::Tensor values = features.select(1, found - names.begin()).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

const std::vector<TensorFacts> kFacts{{.t = 1, .num_steps = 100, .size = 12, .rows = 3},
                                      {.t = 7, .num_steps = 100, .size = 5, .rows = 0}};

// One text gives both forms: numbers on the host, tensors wherever they are asked for by autograd.
TEST(StepFeatures, AreTheSameByNumberAndByTensor) {
  at::manual_seed(3);
  std::vector<at::Tensor> by_number = fresh_signals(2), by_tensor = fresh_signals(2);
  for (int step = 0; step < 3; ++step) {
    ops::StepSums sums = random_sums(2);
    const at::Tensor numbers = advance_features(by_number, true, sums, kFacts);
    sums.grad_squared = sums.grad_squared.clone().requires_grad_(true);
    const at::Tensor tensors = advance_features(by_tensor, false, sums, kFacts);
    EXPECT_TRUE(tensors.requires_grad());
    EXPECT_TRUE(close(tensors.detach(), numbers, {.rtol = 1e-6, .atol = 1e-6})) << step;
  }
}

TEST(StepFeatures, SurgeIsTheGradientBesideItsSecondMoment) {
  ops::StepSums sums = random_sums(2);
  sums.second_moment = at::tensor({2.0, 2.0}, at::kDouble);
  sums.grad_squared = at::tensor({2.0, 2.0 * std::exp(1.0)}, at::kDouble);
  std::vector<at::Tensor> signals = fresh_signals(2);
  const std::vector<double> surge = column(advance_features(signals, true, sums, kFacts), "surge");
  EXPECT_NEAR(surge[0], 0.0, 1e-12);
  EXPECT_NEAR(surge[1], std::tanh(0.5), 1e-12);
}

}  // namespace
}  // namespace mnemosyne::optim
