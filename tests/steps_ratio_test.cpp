#include "mnemosyne/meta/steps_ratio.h"

#include <cmath>
#include <limits>

#include "testing.h"

namespace mnemosyne::meta {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Falls from `from` by `slope` a step to `floor`: its trailing mean over 25 steps is known in
// closed form.
Curve line(int64_t steps, double from, double slope, double floor = 0.0) {
  Curve curve;
  for (int64_t i = 0; i < steps; ++i) {
    curve.push_back(static_cast<float>(std::max(from - slope * static_cast<double>(i), floor)));
  }
  return curve;
}

TEST(StepsRatio, SmoothingIsATrailingMean) {
  EXPECT_EQ(smooth({1, 2, 3, 6}, 2), (Curve{1.5, 2.5, 4.5}));
  EXPECT_EQ(smooth({1, 2, 3}, 25), (Curve{2}));
  EXPECT_EQ(final_loss(line(100, 100, 1)), 13.0);  // mean of 1 ... 25
  EXPECT_TRUE(std::isinf(final_loss({1, 2, kInfinity})));
}

TEST(StepsRatio, TargetIsTheLastSmoothedLossOfTheMeanPlusTwoPercent) {
  // Means 13 and 15 at the end: 14, plus 2 % is 14.28. The mean curve is 101 - i, smoothed after
  // n steps 101 - (n - 13) = 114 - n, which is first at or below 14.28 at n = 100.
  const StepsTarget target = steps_target({line(100, 100, 1), line(100, 102, 1)});
  EXPECT_NEAR(target.loss, 14.28, 1e-5);
  EXPECT_EQ(target.steps, 100);
}

TEST(StepsRatio, BaselineThatStandsStillNeedsFewSteps) {
  const StepsTarget target = steps_target({line(100, 100, 2, 10)});
  EXPECT_NEAR(target.loss, 10.2, 1e-5);
  // 100 - 2 i is 10 from i = 45 on. The mean of steps 45 to 69 has one loss above 10, which is 12,
  // and is 10.08; the mean of steps 44 to 68 has 14 and 12 and is 10.24.
  EXPECT_EQ(target.steps, 69);
}

TEST(StepsRatio, ComparesStepsToTheTarget) {
  const StepsTarget target{.loss = 14.28, .steps = 100};
  // 101 - i and 100 - 2 i: smoothed after n steps 114 - n and 126 - 2 n.
  EXPECT_DOUBLE_EQ(steps_ratio(target, line(100, 101, 1)), 1.0);
  EXPECT_DOUBLE_EQ(steps_ratio(target, line(100, 100, 2, -100)), 100.0 / 56.0);
}

TEST(StepsRatio, WhatNeverArrivesGetsAtMostHalf) {
  const StepsTarget target{.loss = 10, .steps = 100};
  EXPECT_DOUBLE_EQ(steps_ratio(target, Curve(100, 40.0f)), 0.5 * 10 / 40);
  EXPECT_NEAR(steps_ratio(target, Curve(100, 10.01f)), 0.5, 1e-3);
  EXPECT_DOUBLE_EQ(steps_ratio(target, Curve(100, kInfinity)), 0.01);
  EXPECT_DOUBLE_EQ(steps_ratio({.loss = -1, .steps = 100}, Curve(100, 2.0f)), 0.01);
}

TEST(StepsRatio, NegativeLossesGetTheirMarginOnTheRightSide) {
  const StepsTarget target = steps_target({Curve(100, -10.0f)});
  EXPECT_GT(target.loss, -10.0);
  EXPECT_EQ(target.steps, 25);
}

TEST(StepsRatio, DivergedBaselinesAreLeftOut) {
  EXPECT_NEAR(steps_target({line(100, 100, 1), Curve(100, kInfinity)}).loss, 13.26, 1e-5);
  const StepsTarget none = steps_target({Curve(100, kInfinity)});
  EXPECT_TRUE(std::isnan(steps_ratio(none, line(100, 100, 1))));
}

TEST(StepsRatio, GeometricMeanLeavesOutWhatIsUndefined) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NEAR(geometric_mean({0.5, 2.0, 4.0, nan}), std::cbrt(4.0), 1e-12);
  EXPECT_TRUE(std::isnan(geometric_mean({nan})));
}

TEST(StepsRatio, RunsStraightBetweenValues) {
  EXPECT_EQ(between({4, 2, 1}, 4), (Curve{3, 2, 1.5, 1}));
  EXPECT_EQ(between({1, kInfinity}, 1), (Curve{kInfinity}));
  const Curve late = between({2, 1, kInfinity}, 4);
  EXPECT_EQ(late[1], 1.0f) << "nothing of what comes after";
  EXPECT_TRUE(std::isinf(late[2]));
  EXPECT_THROW(between({1}, 5), c10::Error);
}

TEST(StepsRatio, CurvesOfHeldOutDataAreNotSmoothed) {
  const StepsTarget target = steps_target({between({10, 1}, 90)}, /*window=*/1);
  EXPECT_NEAR(target.loss, 1.02, 1e-6);
  EXPECT_EQ(target.steps, 90);
  EXPECT_DOUBLE_EQ(steps_ratio(target, between({10, 1, 1}, 90), 1), 2.0);
  EXPECT_NEAR(steps_ratio(target, between({10, 2}, 90), 1), 0.5 * 1.02 / 2, 1e-6);
}

}  // namespace
}  // namespace mnemosyne::meta
