// The step of the optimizer over lists, as devices without kernels take it, and on what is not
// finite.
#include "mnemosyne/ops/operation_count.h"
#include "mnemosyne/ops/without_kernels.h"
#include "tensor_step_cases.h"

namespace mnemosyne::ops {
namespace {

using namespace step_testing;
using testing::close;
using testing::identical;
using testing::Tolerance;

TEST(TensorStepDevice, EqualsTheReference) {
  for (const auto& [name, given] : cases()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      SCOPED_TRACE(::testing::Message() << name << " of " << dtype);
      Case c = given;
      c.dtype = dtype;
      const Problem problem = make_problem(c);
      const Tolerance tolerance =
          dtype == at::kFloat ? Tolerance{1e-4, 1e-5} : Tolerance{1e-9, 1e-10};
      expect_close(by_device(copy_of(problem), c.second_moments),
                   by_reference(copy_of(problem), c.second_moments), tolerance);
    }
  }
}

TEST(TensorStepDevice, TakesTheListInStretches) {
  for (const int64_t chunk_size : {0, 100}) {
    const Problem problem =
        make_problem({.chunk_size = chunk_size, .scales = true, .previous_updates = true});
    const Outcome outcome = by_device(copy_of(problem), true, /*most_at_once=*/3000);
    expect_close(outcome, by_reference(copy_of(problem), true), {1e-4, 1e-5});
  }
}

TEST(TensorStepDevice, TakesSeveralDtypesAndStridesInOneList) {
  Problem problem = make_problem({});
  TensorStep& step = problem.step;
  step.params[0] = step.params[0].to(at::kBFloat16).t().contiguous().t();
  step.grads[0] = step.grads[0].to(at::kHalf);
  step.grads[4] = step.grads[4].to(at::kBFloat16).t().contiguous().t();
  step.params[1] = step.params[1].to(at::kDouble);
  step.momenta[1] = step.momenta[1].to(at::kDouble);
  step.second_moments[1] = step.second_moments[1].to(at::kDouble);
  const Outcome outcome = in_place(copy_of(problem), true);
  expect_close(outcome, by_reference(copy_of(problem), true), {1e-2, 1e-3});
  EXPECT_TRUE(close(outcome.problem.step.params[1],
                    by_reference(copy_of(problem), true).problem.step.params[1], {1e-9, 1e-10}));
}

// The shapes of ViT-Ti/16, whose 152 tensors took 18,881 operations and 1,216 reads.
TEST(TensorStepDevice, TakesFewOperationsForManyTensorsAndReadsNothing) {
  Case c;
  c.shapes = {{1, 1, 192}, {1, 197, 192}, {192, 3, 16, 16}, {192}, {192}, {192}, {10, 192}, {10}};
  for (int block = 0; block < 12; ++block) {
    c.shapes.insert(c.shapes.end(), {{192},
                                     {192},
                                     {576, 192},
                                     {576},
                                     {192, 192},
                                     {192},
                                     {192},
                                     {192},
                                     {768, 192},
                                     {768},
                                     {192, 768},
                                     {192}});
  }
  ASSERT_EQ(c.shapes.size(), 152);
  for (const auto& [chunk_size, previous_updates] :
       {std::pair{0, false}, std::pair{4096, false}, std::pair{0, true}, std::pair{4096, true}}) {
    c.chunk_size = chunk_size;
    c.previous_updates = previous_updates;
    Problem problem = make_problem(c);
    const WithoutKernels without_kernels;
    const OperationCount count;
    const StepSums sums = advance_moments_(problem.step, true);
    apply_directions_(problem.step, sums, &problem.correction);
    EXPECT_LE(count.operations(), 230);
    EXPECT_EQ(count.host_reads(), 0);
  }
}

TEST(TensorStepDevice, IsTheWayWithoutKernels) {
  const Problem problem = make_problem({.shapes = {{7}, {300}}});
  const WithoutKernels without_kernels;
  const Outcome a = in_place(copy_of(problem), true), b = by_device(copy_of(problem), true);
  for (size_t i = 0; i < problem.step.size(); ++i) {
    EXPECT_TRUE(identical(a.problem.step.params[i], b.problem.step.params[i]));
  }
}

/// Kernel and lists on what is not finite.
class TensorStepNotFinite : public ::testing::TestWithParam<std::string> {
 protected:
  static Outcome run(Problem problem, bool with_sums) {
    return GetParam() == "kernel" ? in_place(std::move(problem), with_sums)
                                  : by_device(std::move(problem), with_sums);
  }
  static void expect_like_the_reference(const Problem& problem, bool with_sums, int64_t replaced) {
    const Outcome outcome = run(copy_of(problem), with_sums);
    expect_close(outcome, by_reference(copy_of(problem), with_sums), {1e-4, 1e-5});
    EXPECT_EQ(outcome.replaced, replaced);
    for (size_t i = 0; i < problem.step.size(); ++i) {
      EXPECT_TRUE(outcome.problem.step.momenta[i].isfinite().all().item<bool>());
    }
  }
};

TEST_P(TensorStepNotFinite, ACorrectionThatIsNotFiniteLeavesThePlainDirection) {
  for (const int64_t chunk_size : {0, 100}) {
    Problem problem = make_problem({.chunk_size = chunk_size});
    problem.correction.step[0] = kNan;  // tensor 0
    const int64_t vector = chunk_counts(problem.step)[0];
    problem.correction.readouts[vector][2] = std::numeric_limits<float>::infinity();
    expect_like_the_reference(problem, true, 2);
    // Without any of its correction a vector moves as if there were none.
    Problem none = copy_of(problem);
    none.corrected = false;
    EXPECT_TRUE(close(run(copy_of(problem), true).problem.step.params[1],
                      run(none, true).problem.step.params[1]));
  }
}

TEST_P(TensorStepNotFinite, AMomentThatIsNotFiniteIsDroppedAndCounted) {
  for (const int64_t chunk_size : {0, 100}) {
    Problem problem = make_problem({.chunk_size = chunk_size, .previous_updates = true});
    problem.step.momenta[0][3][4] = kNan;
    problem.step.second_moments[1][7] = kNan;
    problem.step.momenta[9][11] = -std::numeric_limits<float>::infinity();
    expect_like_the_reference(problem, true, 3);
  }
}

TEST_P(TensorStepNotFinite, AMatrixWithoutASecondMomentTakesItsMomentum) {
  Problem problem = make_problem({.corrected = false, .second_moments = false});
  problem.step.momenta[0][3][4] = kNan;
  problem.step.momenta[4].fill_(kNan);
  problem.step.momenta[1][5] = kNan;  // a coordinate of a vector, which stays
  expect_like_the_reference(problem, false, 3);
  const Outcome outcome = run(copy_of(problem), false);
  EXPECT_TRUE(identical(outcome.problem.step.params[1][5], problem.step.params[1][5]));
  EXPECT_FALSE(identical(outcome.problem.step.params[1][6], problem.step.params[1][6]));
}

TEST_P(TensorStepNotFinite, ACoordinateWithoutAFiniteStepStays) {
  Problem problem = make_problem({.previous_updates = true});
  problem.step.params[0][1][1] = kNan;  // never was one, and is not counted
  problem.step.params[1][2] = 3e38F;
  problem.step.base[1].decay = -1;  // beyond the range of float
  problem.step.base[2].step = kNan;
  const Outcome outcome = run(copy_of(problem), true);
  EXPECT_EQ(outcome.replaced, by_reference(copy_of(problem), true).replaced);
  EXPECT_EQ(outcome.problem.step.params[1][2].item<float>(), 3e38F);
  EXPECT_TRUE(identical(outcome.problem.step.params[2], problem.step.params[2]));
  EXPECT_TRUE(outcome.problem.step.params[0][1][1].isnan().item<bool>());
  const std::vector<at::Tensor>& taken = outcome.problem.step.previous_updates;
  for (const at::Tensor& own : taken) EXPECT_TRUE(own.isfinite().all().item<bool>());
  EXPECT_EQ(taken[0][1][1].item<float>(), 0.0F);
  EXPECT_EQ(taken[1][2].item<float>(), 0.0F);
  EXPECT_NE(taken[1][3].item<float>(), 0.0F);
  EXPECT_EQ(taken[2].item<float>(), 0.0F);
}

TEST_P(TensorStepNotFinite, EpsOfZeroMovesNothingWithoutAGradient) {
  Problem problem = make_problem({.shapes = {{5}, {3, 4}}});
  for (size_t i = 0; i < 2; ++i) {
    problem.step.base[i].eps = 0;
    for (auto* list : {&problem.step.grads, &problem.step.momenta, &problem.step.second_moments}) {
      (*list)[i].zero_();
    }
  }
  const Outcome outcome = run(copy_of(problem), true);
  EXPECT_TRUE(identical(outcome.problem.step.params[0], problem.step.params[0]));
  EXPECT_EQ(outcome.replaced, by_reference(copy_of(problem), true).replaced);
}

INSTANTIATE_TEST_SUITE_P(Ways, TensorStepNotFinite, ::testing::Values("kernel", "lists"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace mnemosyne::ops
