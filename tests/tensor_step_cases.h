#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/ops/tensor_step/device.h"
#include "mnemosyne/ops/tensor_step/tensor_step.h"
#include "testing.h"

/// Problems for the tests of the optimizers' step, and the ways to take it.
namespace mnemosyne::ops::step_testing {

inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Case {
  at::ScalarType dtype = at::kFloat;
  int64_t chunk_size = 0;
  bool corrected = true;
  bool second_moments = true;  // of matrices
  bool scales = false;
  bool previous_updates = false;
  bool compact = false;  // second moments in bfloat16
  std::vector<std::vector<int64_t>> shapes{{37, 65},       {129}, {},      {0, 3},  {65, 37},
                                           {4, 3, 5, 5},   {1},   {64, 9}, {9, 64}, {20'003},
                                           {2, 2, 2, 3, 1}};
};

struct Problem {
  TensorStep step;
  StepCorrection correction;
  bool corrected;

  const StepCorrection* given() const { return corrected ? &correction : nullptr; }
  int64_t num_chunks() const {
    int64_t count = 0;
    for (const int64_t own : chunk_counts(step)) count += own;
    return count;
  }
};

inline Problem make_problem(const Case& c) {
  at::manual_seed(7);
  Problem problem;
  problem.corrected = c.corrected;
  TensorStep& step = problem.step;
  step.chunk_size = c.chunk_size;
  const at::ScalarType state = c.dtype == at::kDouble ? at::kDouble : at::kFloat;
  for (const std::vector<int64_t>& shape : c.shapes) {
    const at::Tensor param = at::randn(shape, at::kDouble).to(c.dtype);
    const bool matrix = shape.size() > 1 && shape[0] > 1 && param.numel() > 0;
    const double t = static_cast<double>(step.params.size() + 1);
    step.params.push_back(param);
    step.grads.push_back(at::randn(shape, at::kDouble).to(c.dtype));
    step.momenta.push_back(at::randn(shape, at::kDouble).mul(0.3).to(state));
    step.second_moments.push_back(
        matrix && !c.second_moments ? at::Tensor() : at::rand(shape, at::kDouble).to(state));
    step.rows.push_back(matrix ? shape[0] : 0);
    step.base.push_back({.momentum_decay = matrix ? 0.95 : 0.9,
                         .momentum_correction = 1 + 1 / t,
                         .second_correction = 1 + 2 / t,
                         .eps = 1e-6,
                         .step = 0.1 / t,
                         .decay = 0.01 * t / 10});
  }
  if (c.scales) {
    step.scale = at::full({}, 0.7);
    step.decay_scale = at::full({}, 1.3, at::kDouble);
  }
  const int64_t chunks = problem.num_chunks();
  problem.correction = {.step = at::rand({chunks}, at::kDouble) + 0.5,
                        .blend = at::rand({chunks}, at::kDouble) + 0.5,
                        .mixture = at::rand({chunks}, at::kDouble) - 0.5,
                        .decay = at::rand({chunks}, at::kDouble),
                        .readouts = at::randn({chunks, kNumReadouts}, at::kDouble)};
  for (size_t i = 0; c.compact && i < step.size(); ++i) {
    at::Tensor& v = step.second_moments[i];
    if (v.defined()) v = v.to(at::kBFloat16);
    step.base[i].rounding_seed = 0x9ABCDEF0u + 77u * static_cast<uint32_t>(i);
  }
  for (size_t i = 0; c.previous_updates && i < step.size(); ++i) {
    step.previous_updates.push_back((0.02 * at::randn(c.shapes[i])).to(at::kBFloat16));
  }
  return problem;
}

inline Problem copy_of(const Problem& problem) {
  Problem copy = problem;
  for (auto* list : {&copy.step.params, &copy.step.momenta, &copy.step.second_moments,
                     &copy.step.previous_updates}) {
    for (at::Tensor& tensor : *list) {
      if (tensor.defined()) tensor = tensor.clone(at::MemoryFormat::Preserve);
    }
  }
  return copy;
}

/// What a step leaves behind.
struct Outcome {
  Problem problem;
  StepSums sums;
  int64_t replaced;
};

inline Outcome by_reference(Problem problem, bool with_sums) {
  const StepSums sums = advance_moments_reference(problem.step, with_sums);
  for (auto* list : {&problem.step.momenta, &problem.step.second_moments}) {
    for (at::Tensor& tensor : *list) {
      if (tensor.defined()) tensor = tensor.clone();
    }
  }
  const int64_t replaced =
      apply_directions_reference_(problem.step, sums, problem.given()).item<int64_t>();
  return {problem, sums, replaced};
}

inline Outcome in_place(Problem problem, bool with_sums) {
  const StepSums sums = advance_moments_(problem.step, with_sums);
  const int64_t replaced = apply_directions_(problem.step, sums, problem.given()).item<int64_t>();
  return {problem, sums, replaced};
}

/// Over lists, with the orthogonalisation of the CPU.
inline Outcome by_device(Problem problem, bool with_sums, int64_t most_at_once = kMostAtOnce) {
  const at::NoGradGuard no_grad;
  const StepSums sums = advance_moments_device_(problem.step, with_sums, most_at_once);
  const StepCorrection correction = problem.corrected ? problem.correction : StepCorrection{};
  const int64_t replaced =
      apply_directions_device_(problem.step, sums, correction, most_at_once).item<int64_t>();
  return {problem, sums, replaced};
}

inline void expect_close(const Outcome& actual, const Outcome& expected,
                         testing::Tolerance tolerance) {
  EXPECT_EQ(actual.replaced, expected.replaced);
  // One number in the last place of bfloat16, where roundings meet a tie.
  const testing::Tolerance of_updates{std::max(tolerance.rtol, 0.0079), tolerance.atol};
  const TensorStep &a = actual.problem.step, &b = expected.problem.step;
  for (size_t i = 0; i < a.size(); ++i) {
    SCOPED_TRACE(::testing::Message() << "tensor " << i << " of " << b.params[i].sizes());
    EXPECT_EQ(a.params[i].scalar_type(), b.params[i].scalar_type());
    EXPECT_TRUE(testing::close(a.params[i], b.params[i], tolerance));
    EXPECT_TRUE(testing::close(a.momenta[i], b.momenta[i], tolerance));
    if (b.second_moment(i).defined()) {
      const bool compact = b.second_moments[i].scalar_type() == at::kBFloat16;
      EXPECT_TRUE(testing::close(a.second_moments[i], b.second_moments[i],
                                 compact ? of_updates : tolerance));
    }
    if (b.previous_updates.empty()) continue;
    EXPECT_TRUE(testing::close(a.previous_updates[i], b.previous_updates[i], of_updates));
  }
  const StepSums &s = actual.sums, &t = expected.sums;
  ASSERT_EQ(s.zeros.defined(), t.zeros.defined());
  if (!s.zeros.defined()) return;
  const double rtol = std::min(tolerance.rtol, 1e-5);
  const testing::Tolerance of_sums{rtol, 20 * rtol};
  EXPECT_EQ(s.zeros.scalar_type(), at::kDouble);
  for (const auto member : kStepSums) {
    ASSERT_EQ((s.*member).defined(), (t.*member).defined());
    if (!(s.*member).defined()) continue;
    // Sums that are not finite say so: as NaN or as infinity.
    const auto finite = [](const at::Tensor& x) { return x.nan_to_num(-1, -1, -1); };
    EXPECT_TRUE(testing::close(finite(s.*member), finite(t.*member), of_sums));
  }
  EXPECT_TRUE(testing::close(s.zeros, t.zeros, {0, 0}));
}

inline const std::vector<std::pair<std::string, Case>>& cases() {
  static const std::vector<std::pair<std::string, Case>> list = {
      {"base", {.corrected = false, .second_moments = false}},
      {"base with second moments", {.corrected = false}},
      {"corrected", {}},
      {"corrected, learning rate on the device", {.scales = true}},
      {"chunks", {.chunk_size = 100, .scales = true}},
      {"chunks of a prime length", {.chunk_size = 1009}},
      {"chunks of one page and more", {.chunk_size = 4096}},
      {"chunks longer than most", {.chunk_size = 17'000}},
      {"chunks without a correction", {.chunk_size = 64, .corrected = false}},
      {"previous updates", {.scales = true, .previous_updates = true}},
      {"previous updates of the base", {.corrected = false, .previous_updates = true}},
      {"previous updates without second moments",
       {.corrected = false, .second_moments = false, .previous_updates = true}},
      {"previous updates and chunks", {.chunk_size = 100, .previous_updates = true}},
      {"second moments in bfloat16", {.scales = true, .compact = true}},
      {"second moments in bfloat16 and chunks",
       {.chunk_size = 1009, .previous_updates = true, .compact = true}},
      {"second moments in bfloat16 of vectors alone",
       {.corrected = false, .second_moments = false, .compact = true}},
      {"vectors", {.shapes = {{5}, {300}, {1}}}},
      {"matrices", {.corrected = false, .second_moments = false, .shapes = {{5, 9}, {30, 7}}}},
      {"small ones of one shape", {.shapes = std::vector<std::vector<int64_t>>(40, {3, 4})}},
      {"empty ones", {.shapes = {{0}, {3, 0}}}},
  };
  return list;
}

}  // namespace mnemosyne::ops::step_testing
