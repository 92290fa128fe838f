// The step of the optimizer: reference, kernel on every instruction set, and operations over lists.
#include "mnemosyne/ops/tensor_step/tensor_step.h"

#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "mnemosyne/kernels/isa.h"
#include "mnemosyne/ops/operation_count.h"
#include "mnemosyne/ops/tensor_step/device.h"
#include "mnemosyne/ops/tensor_step/tensor_step.h"
#include "mnemosyne/ops/without_kernels.h"
#include "testing.h"

namespace mnemosyne::ops {
namespace {

using testing::close;
using testing::identical;
using testing::Tolerance;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Case {
  at::ScalarType dtype = at::kFloat;
  int64_t chunk_size = 0;
  bool corrected = true;
  bool second_moments = true;  // of matrices
  bool scales = false;
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

Problem make_problem(const Case& c) {
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
                        .readouts = at::randn({chunks, kNumReadouts}, at::kDouble)};
  return problem;
}

Problem copy_of(const Problem& problem) {
  Problem copy = problem;
  for (auto* list : {&copy.step.params, &copy.step.momenta, &copy.step.second_moments}) {
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

Outcome by_reference(Problem problem, bool with_sums) {
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

Outcome in_place(Problem problem, bool with_sums) {
  const StepSums sums = advance_moments_(problem.step, with_sums);
  const int64_t replaced = apply_directions_(problem.step, sums, problem.given()).item<int64_t>();
  return {problem, sums, replaced};
}

/// Over lists, with the orthogonalisation of the CPU.
Outcome by_device(Problem problem, bool with_sums, int64_t most_at_once = kMostAtOnce) {
  const at::NoGradGuard no_grad;
  const StepSums sums = advance_moments_device_(problem.step, with_sums, most_at_once);
  const StepCorrection correction = problem.corrected ? problem.correction : StepCorrection{};
  const int64_t replaced =
      apply_directions_device_(problem.step, sums, correction, most_at_once).item<int64_t>();
  return {problem, sums, replaced};
}

void expect_close(const Outcome& actual, const Outcome& expected, Tolerance tolerance) {
  EXPECT_EQ(actual.replaced, expected.replaced);
  const TensorStep &a = actual.problem.step, &b = expected.problem.step;
  for (size_t i = 0; i < a.size(); ++i) {
    SCOPED_TRACE(::testing::Message() << "tensor " << i << " of " << b.params[i].sizes());
    EXPECT_EQ(a.params[i].scalar_type(), b.params[i].scalar_type());
    EXPECT_TRUE(close(a.params[i], b.params[i], tolerance));
    EXPECT_TRUE(close(a.momenta[i], b.momenta[i], tolerance));
    if (b.second_moment(i).defined()) {
      EXPECT_TRUE(close(a.second_moments[i], b.second_moments[i], tolerance));
    }
  }
  const StepSums &s = actual.sums, &t = expected.sums;
  ASSERT_EQ(s.zeros.defined(), t.zeros.defined());
  if (!s.zeros.defined()) return;
  const double rtol = std::min(tolerance.rtol, 1e-5);
  const Tolerance of_sums{rtol, 20 * rtol};
  EXPECT_EQ(s.zeros.scalar_type(), at::kDouble);
  for (const auto member :
       {&StepSums::grad_dot_momentum, &StepSums::grad_squared, &StepSums::old_squared,
        &StepSums::new_squared, &StepSums::param_squared, &StepSums::second_moment}) {
    // Sums that are not finite say so: as NaN or as infinity.
    const auto finite = [](const at::Tensor& x) { return x.nan_to_num(-1, -1, -1); };
    EXPECT_TRUE(close(finite(s.*member), finite(t.*member), of_sums));
  }
  EXPECT_TRUE(close(s.zeros, t.zeros, {0, 0}));
}

const std::vector<std::pair<std::string, Case>>& cases() {
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
      {"vectors", {.shapes = {{5}, {300}, {1}}}},
      {"matrices", {.corrected = false, .second_moments = false, .shapes = {{5, 9}, {30, 7}}}},
      {"small ones of one shape", {.shapes = std::vector<std::vector<int64_t>>(40, {3, 4})}},
      {"empty ones", {.shapes = {{0}, {3, 0}}}},
  };
  return list;
}

class TensorStepKernel : public ::testing::TestWithParam<kernels::Isa> {
 protected:
  void SetUp() override { kernels::set_active_isa(GetParam()); }
  void TearDown() override { kernels::set_active_isa(isa_); }

 private:
  kernels::Isa isa_ = kernels::active_isa();
};

TEST_P(TensorStepKernel, EqualsTheReference) {
  for (const auto& [name, c] : cases()) {
    SCOPED_TRACE(name);
    const Problem problem = make_problem(c);
    expect_close(in_place(copy_of(problem), c.second_moments),
                 by_reference(copy_of(problem), c.second_moments), {1e-4, 1e-5});
  }
}

TEST_P(TensorStepKernel, TakesOtherDtypesAndStrides) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
    SCOPED_TRACE(dtype);
    Problem problem = make_problem({.dtype = dtype, .chunk_size = 50});
    TensorStep& step = problem.step;
    step.params[0] = step.params[0].t().contiguous().t();
    step.grads[0] = step.grads[0].t().contiguous().t();
    step.grads[1] = at::randn({2 * 129}).slice(0, 0, 2 * 129, 2);
    const at::Tensor param = step.params[5].to(at::MemoryFormat::ChannelsLast);
    ASSERT_FALSE(param.is_contiguous());
    step.params[5] = param;
    const double eps = dtype == at::kFloat ? 1e-5 : 2e-2;
    const Outcome outcome = in_place(copy_of(problem), true);
    expect_close(outcome, by_reference(copy_of(problem), true), {eps, eps});
    EXPECT_EQ(outcome.problem.step.params[5].strides(), param.strides());
  }
}

// Chunks are tensors of their own but for the mean second moment and the orthogonalisation.
TEST_P(TensorStepKernel, TreatsTheChunksOfAVectorAsVectors) {
  Problem whole = make_problem({.chunk_size = 70, .shapes = {{300}}});
  whole.correction.readouts.select(1, 4).zero_();
  Problem parts = copy_of(whole);
  TensorStep& step = parts.step;
  for (auto* list : {&step.params, &step.grads, &step.momenta, &step.second_moments}) {
    const at::Tensor tensor = (*list)[0];
    *list = tensor.split(70);
  }
  step.chunk_size = 0;
  step.rows.assign(5, 0);
  step.base.assign(5, step.base[0]);
  const Outcome a = in_place(whole, true), b = in_place(parts, true);
  EXPECT_TRUE(identical(a.problem.step.params[0], at::cat(b.problem.step.params)));
  EXPECT_TRUE(identical(a.sums.grad_squared, b.sums.grad_squared));
  EXPECT_TRUE(identical(a.sums.zeros, b.sums.zeros));
}

INSTANTIATE_TEST_SUITE_P(Isas, TensorStepKernel, ::testing::ValuesIn(kernels::available_isas()),
                         [](const auto& info) { return kernels::isa_name(info.param); });

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
    const Problem problem = make_problem({.chunk_size = chunk_size, .scales = true});
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
  for (const int64_t chunk_size : {0, 4096}) {
    c.chunk_size = chunk_size;
    Problem problem = make_problem(c);
    const WithoutKernels without_kernels;
    const OperationCount count;
    const StepSums sums = advance_moments_(problem.step, true);
    apply_directions_(problem.step, sums, &problem.correction);
    EXPECT_LE(count.operations(), 230);
    EXPECT_EQ(count.host_reads(), 0);
    std::cout << "OPS " << chunk_size << " " << count.operations() << "\n";
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

using Way = Outcome (*)(Problem, bool);

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
    Problem problem = make_problem({.chunk_size = chunk_size});
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
  Problem problem = make_problem({});
  problem.step.params[0][1][1] = kNan;  // never was one, and is not counted
  problem.step.params[1][2] = 3e38F;
  problem.step.base[1].decay = -1;  // beyond the range of float
  problem.step.base[2].step = kNan;
  const Outcome outcome = run(copy_of(problem), true);
  EXPECT_EQ(outcome.replaced, by_reference(copy_of(problem), true).replaced);
  EXPECT_EQ(outcome.problem.step.params[1][2].item<float>(), 3e38F);
  EXPECT_TRUE(identical(outcome.problem.step.params[2], problem.step.params[2]));
  EXPECT_TRUE(outcome.problem.step.params[0][1][1].isnan().item<bool>());
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

TEST(TensorStepReference, HasTheGradientOfEveryCorrection) {
  for (const int64_t chunk_size : {0, 7}) {
    Problem problem = make_problem({.dtype = at::kDouble,
                                    .chunk_size = chunk_size,
                                    .scales = true,
                                    .shapes = {{5, 4}, {11}, {0}, {3, 8}}});
    const StepSums sums = advance_moments_reference(problem.step, true);
    StepCorrection& given = problem.correction;
    std::vector<at::Tensor> leaves;
    for (at::Tensor* member : {&given.step, &given.mixture, &given.readouts}) {
      leaves.push_back(member->set_requires_grad(true));
    }
    const auto function = [&] {
      at::Tensor total = at::zeros({}, at::kDouble);
      double k = 1;
      for (const at::Tensor& u : directions_reference(problem.step, sums, &given)) {
        total = total + (u * at::linspace(-1, k, u.numel(), at::kDouble).view_as(u)).sum();
        k += 0.7;
      }
      return total;
    };
    EXPECT_TRUE(testing::gradients_agree(function, leaves));
  }
}

TEST(TensorStepReference, WritesToNothingThatItWasGiven) {
  const Problem problem = make_problem({.chunk_size = 50});
  const Problem before = copy_of(problem);
  Problem after = problem;
  const StepSums sums = advance_moments_reference(after.step, true);
  directions_reference(after.step, sums, &after.correction);
  for (size_t i = 0; i < problem.step.size(); ++i) {
    EXPECT_TRUE(identical(problem.step.momenta[i], before.step.momenta[i]));
    EXPECT_TRUE(identical(problem.step.second_moments[i], before.step.second_moments[i]));
    EXPECT_TRUE(identical(problem.step.params[i], before.step.params[i]));
  }
}

// The equations of the header, one number at a time.
TEST(TensorStepReference, IsTheFormulaOfAVector) {
  const Problem problem = make_problem({.dtype = at::kDouble, .scales = true, .shapes = {{17}}});
  Problem after = copy_of(problem);
  const StepSums sums = advance_moments_reference(after.step, true);
  const at::Tensor u = directions_reference(after.step, sums, &after.correction)[0];
  const StepBase& base = problem.step.base[0];
  const auto number = [](const at::Tensor& x, int64_t k) { return x[k].item<double>(); };
  const auto soft = [](double x) { return x / (1 + std::abs(x)); };
  double total = 0;
  for (int64_t k = 0; k < 17; ++k) total += number(after.step.second_moments[0], k);
  for (int64_t k = 0; k < 17; ++k) {
    const double g = number(problem.step.grads[0], k);
    const double m = 0.9 * number(problem.step.momenta[0], k) + 0.1 * g;
    const double v =
        base.second_correction * (0.99 * number(problem.step.second_moments[0], k) + 0.01 * g * g);
    const double root = std::sqrt(v) + base.eps, a = base.momentum_correction * m / root;
    const double share = v / (v + base.second_correction * total / 17);
    const double inputs[] = {soft(a * a), soft(a * g / root), soft(std::abs(a)), soft(std::abs(a)),
                             share - 0.5};
    double h = 0;
    for (int c = 0; c < 5; ++c) h += number(problem.correction.readouts[0], c) * inputs[c];
    const double size = base.step * 0.7F * number(problem.correction.step, 0);
    EXPECT_NEAR(number(u, k), size * a * (1 + 0.75 * soft(h)), 1e-12);
  }
}

TEST(TensorStepInput, IsChecked) {
  const auto refuses = [](const std::function<void(Problem&)>& change) {
    Problem problem = make_problem({.shapes = {{5, 4}, {7}}});
    change(problem);
    EXPECT_THROW(in_place(problem, true), c10::Error);
  };
  refuses([](Problem& p) { p.step.grads.pop_back(); });
  refuses([](Problem& p) { p.step.grads[0] = at::ones({4, 5}); });
  refuses([](Problem& p) { p.step.momenta[0] = at::ones({4, 5}).t(); });
  refuses([](Problem& p) { p.step.momenta[0] = at::ones({5, 4}, at::kDouble); });
  refuses([](Problem& p) { p.step.second_moments[0] = at::Tensor(); });  // for its sums
  refuses([](Problem& p) { p.step.rows[0] = 3; });
  refuses([](Problem& p) { p.step.chunk_size = -1; });
  refuses([](Problem& p) { p.step.scale = at::ones({1}); });
  refuses([](Problem& p) { p.correction.step = at::ones({3}); });
  refuses([](Problem& p) { p.correction.readouts = at::ones({2, 4}); });
  Problem problem = make_problem({.second_moments = false});
  EXPECT_THROW(apply_directions_(problem.step, {}, &problem.correction), c10::Error);
}

}  // namespace
}  // namespace mnemosyne::ops
