#include "mnemosyne/optim/step_features.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "testing.h"

namespace mnemosyne::optim {
namespace {

using testing::close;

ops::StepSums random_sums(int64_t count, bool aligned = false) {
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
  if (!aligned) return sums;
  sums.update_squared = 1e-6 * positive[5];
  sums.grad_dot_update =
      0.3 * at::randn({count}, at::kDouble) * (sums.grad_squared * sums.update_squared).sqrt();
  sums.momentum_dot_update = 0.7 * (sums.old_squared * sums.update_squared).sqrt();
  sums.grad_dot_param = 0.1 * at::randn({count}, at::kDouble);
  return sums;
}

std::vector<at::Tensor> fresh_signals(size_t count, bool aligned = false) {
  std::vector<at::Tensor> signals(count);
  for (at::Tensor& own : signals) own = at::zeros({num_signals(aligned)});
  return signals;
}

std::vector<double> column(const at::Tensor& features, const std::string& name) {
  const auto& names =
      step_feature_names(features.size(1) != static_cast<int64_t>(step_feature_names().size()));
  const auto found = std::find(names.begin(), names.end(), name);
  EXPECT_NE(found, names.end()) << name;
  const at::Tensor values = features.select(1, found - names.begin()).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

const std::vector<TensorFacts> kFacts{
    {.t = 1, .num_steps = 100, .size = 12, .rows = 3, .momentum_weight = 0.0},
    {.t = 7, .num_steps = 100, .size = 5, .rows = 0, .momentum_weight = 0.7}};

// One text gives both forms: numbers on the host, tensors wherever they are asked for by autograd.
TEST(StepFeatures, AreTheSameByNumberAndByTensor) {
  at::manual_seed(3);
  for (const bool aligned : {false, true}) {
    std::vector<at::Tensor> by_number = fresh_signals(2, aligned), by_tensor = by_number;
    for (at::Tensor& own : by_number) own = own.clone();
    for (int step = 0; step < 3; ++step) {
      ops::StepSums sums = random_sums(2, aligned);
      const at::Tensor numbers = advance_features(by_number, true, sums, kFacts);
      sums.grad_squared = sums.grad_squared.clone().requires_grad_(true);
      const at::Tensor tensors = advance_features(by_tensor, false, sums, kFacts);
      EXPECT_TRUE(tensors.requires_grad());
      EXPECT_TRUE(close(tensors.detach(), numbers, {.rtol = 1e-6, .atol = 1e-6})) << step;
      for (size_t i = 0; i < by_number.size(); ++i) {
        EXPECT_TRUE(close(by_tensor[i].detach(), by_number[i])) << step;
      }
    }
  }
}

// Columns of the features without alignment stand where they stood, in the same order.
TEST(StepFeatures, OfAlignmentComeBesideTheOthers) {
  std::vector<std::string> others;
  for (const std::string& name : step_feature_names(true)) {
    if (name.find("alignment") == std::string::npos) others.push_back(name);
  }
  EXPECT_EQ(others, step_feature_names());
  EXPECT_EQ(step_feature_names(true).size(), others.size() + 6);
  at::manual_seed(4);
  ops::StepSums sums = random_sums(2, true);
  std::vector<at::Tensor> with = fresh_signals(2, true), without = fresh_signals(2);
  const at::Tensor all = advance_features(with, true, sums, kFacts);
  sums.grad_dot_update = at::Tensor();
  const at::Tensor some = advance_features(without, true, sums, kFacts);
  for (const std::string& name : others) EXPECT_EQ(column(all, name), column(some, name)) << name;
  EXPECT_TRUE(testing::identical(with[1].narrow(0, 0, kNumSignals), without[1]));
}

/// The features of one tensor that has met the same numbers for many steps.
at::Tensor settled(double grad_dot_update, double momentum_dot_update, double grad_dot_param) {
  const auto number = [](double x) { return at::full({1}, x, at::kDouble); };
  ops::StepSums sums = random_sums(1);
  sums.grad_squared = number(4.0);
  sums.old_squared = number(0.25);
  sums.param_squared = number(9.0);
  sums.update_squared = number(0.01);
  sums.grad_dot_update = number(grad_dot_update);
  sums.momentum_dot_update = number(momentum_dot_update);
  sums.grad_dot_param = number(grad_dot_param);
  std::vector<at::Tensor> signals = fresh_signals(1, true);
  at::Tensor features;
  for (int64_t t = 1; t < 300; ++t) {
    features = advance_features(signals, true, sums,
                                {{.t = t, .size = 25, .rows = 0, .momentum_weight = 0.5}});
  }
  return features;
}

TEST(StepFeatures, AlignmentIsWhatIsLeftOfWhatTheStepBeforeHopedFor) {
  // <m^, u> = .04 / .5: three quarters of it are left, or the step went too far by as much.
  for (const double left : {0.75, -0.75, -100.0}) {
    const at::Tensor features = settled(left * 0.08, 0.04, 0.0);
    for (const char* name : {"alignment_fast", "alignment_slow", "mean_alignment_slow"}) {
      EXPECT_NEAR(column(features, name)[0], std::tanh(left / 2), 1e-6) << name;
    }
  }
  // 5 coordinates times .3 / (2 3).
  EXPECT_NEAR(column(settled(0, 0.04, -0.3), "alignment_radial")[0], std::tanh(0.25), 1e-6);
  EXPECT_NEAR(column(settled(0, 0.04, 0.0), "alignment_radial")[0], 0.0, 1e-12);
}

TEST(StepFeatures, AlignmentStaysFiniteAndBounded) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double x : {0.0, 1e-300, 1e300, kInfinity, std::nan("")}) {
    for (const auto member : {&ops::StepSums::grad_squared, &ops::StepSums::update_squared,
                              &ops::StepSums::grad_dot_update, &ops::StepSums::momentum_dot_update,
                              &ops::StepSums::grad_dot_param, &ops::StepSums::param_squared}) {
      std::vector<at::Tensor> signals = fresh_signals(2, true);
      for (int step = 0; step < 3; ++step) {
        ops::StepSums sums = random_sums(2, true);
        if (step == 1) (sums.*member).fill_(x);
        const at::Tensor features = advance_features(signals, true, sums, kFacts);
        for (const std::string& name : step_feature_names(true)) {
          if (name.find("alignment") == std::string::npos) continue;
          for (const double value : column(features, name)) EXPECT_LE(std::abs(value), 1.0) << name;
        }
      }
      const at::Tensor own = signals[1].narrow(0, kNumSignals, kNumAlignmentSignals);
      EXPECT_TRUE(own.isfinite().all().item<bool>());
    }
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
