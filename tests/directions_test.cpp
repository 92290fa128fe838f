// Directions whose gradients are in closed form, beside the reference under autograd.
#include <torch/csrc/autograd/autograd.h>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "tensor_step_cases.h"

namespace mnemosyne::ops {
namespace {

using namespace step_testing;
using testing::close;

/// A cotangent for every update.
std::vector<at::Tensor> cotangents(const TensorStep& step) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& p : step.params) {
    const double k = 1.0 + 0.3 * static_cast<double>(result.size());
    result.push_back(at::linspace(-k, 1.3 * k, p.numel(), at::kDouble).sin().view(p.sizes()));
  }
  return result;
}

/// Updates, and the gradients of their product with the cotangents by the given members.
using Members = std::vector<at::Tensor StepCorrection::*>;
struct Derived {
  std::vector<at::Tensor> updates, gradients, kept;
};
Derived updates_and_gradients(const Problem& problem, bool closed, const Members& members) {
  Problem own = copy_of(problem);
  const StepSums sums = advance_moments_reference(own.step, true);
  std::vector<at::Tensor> leaves;
  for (const auto member : members) {
    own.correction.*member = (own.correction.*member).detach().clone().requires_grad_(true);
    leaves.push_back(own.correction.*member);
  }
  const std::vector<at::Tensor> updates =
      closed ? directions(own.step, sums, own.correction)
             : directions_reference(own.step, sums, &own.correction);
  std::vector<at::Tensor> outputs, weights;
  const std::vector<at::Tensor> all = cotangents(own.step);
  for (size_t i = 0; i < updates.size(); ++i) {
    EXPECT_EQ(updates[i].sizes(), own.step.params[i].sizes());
    if (!updates[i].requires_grad()) continue;
    outputs.push_back(updates[i]);
    weights.push_back(all[i].to(updates[i].scalar_type()));
  }
  for (const at::Tensor& kept : own.step.previous_updates) EXPECT_FALSE(kept.requires_grad());
  return {updates, torch::autograd::grad(outputs, leaves, weights), own.step.previous_updates};
}

const Members kAll(std::begin(kStepCorrections), std::end(kStepCorrections));

void expect_alike(const Problem& problem, const Members& members, testing::Tolerance tolerance) {
  const auto [updates, grads, kept] = updates_and_gradients(problem, true, members);
  const auto [expected, expected_grads, expected_kept] =
      updates_and_gradients(problem, false, members);
  for (size_t i = 0; i < updates.size(); ++i) {
    EXPECT_EQ(updates[i].scalar_type(), expected[i].scalar_type());
    EXPECT_TRUE(close(updates[i].detach(), expected[i].detach(), tolerance)) << "update " << i;
  }
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_EQ(kept[i].scalar_type(), at::kBFloat16);
    EXPECT_TRUE(close(kept[i], expected_kept[i], {.rtol = 0.0079, .atol = 1e-9})) << "kept " << i;
  }
  for (size_t k = 0; k < grads.size(); ++k) {
    EXPECT_GT(expected_grads[k].abs().max().item<double>(), 0.0) << "member " << k;
    EXPECT_TRUE(close(grads[k], expected_grads[k], tolerance)) << "member " << k;
  }
}

TEST(Directions, HaveTheValuesAndGradientsOfTheReference) {
  for (const int64_t chunk_size : {0, 7, 1000}) {
    for (const bool scales : {false, true}) {
      SCOPED_TRACE(::testing::Message() << chunk_size << " " << scales);
      expect_alike(make_problem({.dtype = at::kDouble, .chunk_size = chunk_size, .scales = scales}),
                   kAll, {.rtol = 1e-9, .atol = 1e-11});
    }
  }
}

TEST(Directions, KeepWhatIsTakenOff) {
  for (const int64_t chunk_size : {0, 50}) {
    const Problem problem =
        make_problem({.dtype = at::kDouble, .chunk_size = chunk_size, .previous_updates = true});
    expect_alike(problem, kAll, {.rtol = 1e-9, .atol = 1e-11});
    // What was kept before has no influence but on the sums, and nothing is written to it.
    const Problem before = copy_of(problem);
    Problem pure = problem;
    const StepSums sums = advance_moments_reference(pure.step, true);
    directions(pure.step, sums, pure.correction);
    for (size_t i = 0; i < problem.step.size(); ++i) {
      EXPECT_TRUE(
          testing::identical(problem.step.previous_updates[i], before.step.previous_updates[i]));
      const at::Tensor& kept = pure.step.previous_updates[i];
      EXPECT_FALSE(kept.is_same(problem.step.previous_updates[i]));
      EXPECT_TRUE(kept.is_contiguous());
    }
    // Without decay they are the updates.
    pure.correction.decay = at::Tensor();
    const std::vector<at::Tensor> updates = directions(pure.step, sums, pure.correction);
    for (size_t i = 0; i < updates.size(); ++i) {
      EXPECT_TRUE(testing::identical(pure.step.previous_updates[i], updates[i].to(at::kBFloat16)));
    }
  }
}

TEST(Directions, HaveTheGradientsOfEveryMemberAlone) {
  const Problem whole = make_problem({.dtype = at::kDouble, .chunk_size = 50});
  for (const auto member : kAll) {
    expect_alike(whole, {member}, {.rtol = 1e-9, .atol = 1e-11});
    Problem alone = copy_of(whole);
    alone.correction = {};
    alone.correction.*member = whole.correction.*member;
    expect_alike(alone, {member}, {.rtol = 1e-9, .atol = 1e-11});
  }
}

TEST(Directions, OfFloatsAreThoseOfTheStep) {
  for (const int64_t chunk_size : {0, 100}) {
    const Problem problem = make_problem({.chunk_size = chunk_size});
    expect_alike(problem,
                 {&StepCorrection::step, &StepCorrection::decay, &StepCorrection::readouts},
                 {.rtol = 2e-3, .atol = 1e-4});
    Problem own = copy_of(problem);
    for (StepBase& base : own.step.base) base.decay = 0.0;
    Problem pure = copy_of(own);
    const StepSums sums = advance_moments_reference(pure.step, true);
    const std::vector<at::Tensor> updates = directions(pure.step, sums, pure.correction);
    const Outcome moved = in_place(copy_of(own), true);
    for (size_t i = 0; i < updates.size(); ++i) {
      EXPECT_TRUE(close(own.step.params[i] - updates[i], moved.problem.step.params[i],
                        {.rtol = 1e-5, .atol = 1e-6}));
    }
  }
}

TEST(Directions, RefuseHigherDerivatives) {
  Problem problem = make_problem({.dtype = at::kDouble, .shapes = {{5, 4}, {7}}});
  const StepSums sums = advance_moments_reference(problem.step, true);
  const at::Tensor leaf = problem.correction.step.requires_grad_(true);
  const at::Tensor total = directions(problem.step, sums, problem.correction)[0].square().sum();
  EXPECT_THROW(torch::autograd::grad({total}, {leaf}, {}, true, /*create_graph=*/true), c10::Error);
}

TEST(OrthogonalizeBackward, IsTheDerivativeOfTheReference) {
  at::manual_seed(5);
  std::vector<at::Tensor> matrices{
      at::randn({5, 9}, at::kDouble),
      at::randn({9, 5}, at::kDouble),
      at::randn({7, 7}, at::kDouble) * 1e-20,
      at::randn({1, 6}, at::kDouble),
      at::randn({6, 1}, at::kDouble),
      at::randn({3, 4, 8}, at::kDouble),
      at::randn({2, 1}, at::kDouble).matmul(at::randn({1, 9}, at::kDouble)),
      at::zeros({3, 5}, at::kDouble),
      at::ones({40, 3}, at::kDouble) + at::randn({40, 3}, at::kDouble),
      at::zeros({0, 3}, at::kDouble)};
  // Where the row sums bound less than the Frobenius norm.
  matrices.push_back(at::eye(8, at::kDouble) + 0.01 * at::randn({8, 8}, at::kDouble));
  for (const at::Tensor& matrix : matrices) {
    SCOPED_TRACE(::testing::Message() << matrix.sizes());
    const at::Tensor x = matrix.clone().requires_grad_(true);
    const at::Tensor cotangent = at::randn(x.sizes(), at::kDouble);
    const at::Tensor expected =
        torch::autograd::grad({orthogonalize_reference(x)}, {x}, {cotangent})[0];
    const at::Tensor scale =
        expected.numel() > 0 ? expected.abs().max() : at::ones({}, at::kDouble);
    const at::Tensor unit = at::where(scale > 0, scale, 1.0);
    EXPECT_TRUE(close(orthogonalize_backward(cotangent, matrix) / unit, expected / unit,
                      {.rtol = 1e-7, .atol = 1e-9}));
  }
  EXPECT_THROW(orthogonalize_backward(at::ones({2, 3}), at::ones({3, 2})), c10::Error);
}

}  // namespace
}  // namespace mnemosyne::ops
