// The step of the optimizer: reference, and kernel on every instruction set.
#include <torch/csrc/autograd/autograd.h>

#include "isa_testing.h"
#include "mnemosyne/kernels/isa.h"
#include "tensor_step_cases.h"

namespace mnemosyne::ops {
namespace {

using namespace step_testing;
using testing::close;
using testing::identical;

class TensorStepKernel : public testing::EveryIsa {};

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

// Parameters that were zero are what was taken off them, without a second rounding.
TEST_P(TensorStepKernel, KeepsWhatItTookOffRoundedToNearestEven) {
  for (const bool corrected : {false, true}) {
    Problem problem = make_problem({.corrected = corrected, .previous_updates = true});
    for (const at::Tensor& param : problem.step.params) param.zero_();
    for (const bool kernel : {true, false}) {
      const Outcome outcome =
          kernel ? in_place(copy_of(problem), true) : by_device(copy_of(problem), true);
      for (size_t i = 0; i < problem.step.size(); ++i) {
        const at::Tensor taken = -outcome.problem.step.params[i];
        EXPECT_TRUE(identical(outcome.problem.step.previous_updates[i], taken.to(at::kBFloat16)));
      }
    }
  }
}

// Neither the decay of the options nor the learned one is in it.
TEST_P(TensorStepKernel, KeepsNoDecay) {
  Problem problem = make_problem({.previous_updates = true});
  Problem without = copy_of(problem);
  without.correction.decay = at::Tensor();
  for (StepBase& base : without.step.base) base.decay = 0;
  const Outcome outcome = in_place(problem, true), expected = in_place(without, true);
  EXPECT_FALSE(close(outcome.problem.step.params[0], expected.problem.step.params[0]));
  for (size_t i = 0; i < problem.step.size(); ++i) {
    EXPECT_TRUE(identical(outcome.problem.step.previous_updates[i],
                          expected.problem.step.previous_updates[i]));
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

TEST(TensorStepReference, HasTheGradientOfEveryCorrection) {
  for (const int64_t chunk_size : {0, 7}) {
    Problem problem = make_problem({.dtype = at::kDouble,
                                    .chunk_size = chunk_size,
                                    .scales = true,
                                    .shapes = {{5, 4}, {11}, {0}, {3, 8}}});
    const StepSums sums = advance_moments_reference(problem.step, true);
    StepCorrection& given = problem.correction;
    std::vector<at::Tensor> leaves;
    for (at::Tensor* member : {&given.step, &given.mixture, &given.decay, &given.readouts}) {
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

TEST(TensorStepReference, SumsWhatTheGradientSaysOfTheStepBefore) {
  const Problem problem =
      make_problem({.dtype = at::kDouble, .previous_updates = true, .shapes = {{3, 4}, {9}}});
  Problem after = problem;
  const StepSums sums = advance_moments_reference(after.step, true);
  for (int64_t i = 0; i < 2; ++i) {
    const TensorStep& step = problem.step;
    const at::Tensor u = step.previous_updates[i].to(at::kDouble);
    const auto expect_dot = [&](const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
      EXPECT_NEAR(sum[i].item<double>(), (a * b).sum().item<double>(), 1e-12);
    };
    expect_dot(sums.grad_dot_update, step.grads[i], u);
    expect_dot(sums.momentum_dot_update, step.momenta[i], u);
    expect_dot(sums.update_squared, u, u);
    expect_dot(sums.grad_dot_param, step.grads[i], step.params[i]);
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
    const double decay = number(problem.correction.decay, 0) * number(problem.step.params[0], k);
    EXPECT_NEAR(number(u, k), size * (a * (1 + 0.75 * soft(h)) + decay), 1e-12);
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
  refuses([](Problem& p) { p.step.previous_updates = {at::ones({5, 4}, at::kBFloat16)}; });
  refuses([](Problem& p) { p.step.previous_updates = {at::ones({5, 4}), at::ones({7})}; });
  refuses([](Problem& p) { p.correction.readouts = at::ones({2, 4}); });
  Problem problem = make_problem({.second_moments = false});
  EXPECT_THROW(apply_directions_(problem.step, {}, &problem.correction), c10::Error);
}

}  // namespace
}  // namespace mnemosyne::ops
