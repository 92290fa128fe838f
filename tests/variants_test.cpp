#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/mnemosyne.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "rule_testing.h"
#include "testing.h"

/// The paper's variants that start from the base rule, with the weights of the library.
namespace mnemosyne::optim {
namespace {

/// A network of 12 inputs, 24 hidden units and 6 classes that labels what another one does, and its
/// data.
struct Classification {
  std::vector<at::Tensor> params;
  at::Tensor inputs, labels;

  Classification() {
    at::manual_seed(5);
    inputs = at::randn({256, 12});
    labels =
        at::matmul(at::matmul(inputs, at::randn({12, 16})).tanh(), at::randn({16, 6})).argmax(1);
    params = {0.3 * at::randn({24, 12}), at::zeros({24}), 0.2 * at::randn({6, 24}), at::zeros({6})};
    for (at::Tensor& param : params) param.requires_grad_();
  }

  at::Tensor loss() const {
    const at::Tensor hidden = at::relu(at::addmm(params[1], inputs, params[0].t()));
    return at::cross_entropy_loss(at::addmm(params[3], hidden, params[2].t()), labels);
  }
};

/// The loss after so many steps of an optimizer that is given the number of steps.
double loss_after(const MnemosyneOptions& options, int64_t steps) {
  const Classification task;
  MnemosyneOptions known = options;
  known.num_steps = steps;
  Mnemosyne optimizer(task.params, known);
  for (int64_t step = 0; step < steps; ++step) {
    optimizer.zero_grad();
    task.loss().backward();
    optimizer.step();
  }
  return task.loss().item<double>();
}

class PapersVariant : public ::testing::TestWithParam<std::string> {
 protected:
  std::string rule() const { return "mnemosyne-" + GetParam(); }
};

TEST_P(PapersVariant, LearnsAheadOfItsBaseRuleWithTheWeightsOfTheLibrary) {
  const double start = Classification().loss().item<double>();
  const double learned = loss_after({.variant = GetParam()}, 300);
  const double base = loss_after({.variant = GetParam(), .learned = false}, 300);
  EXPECT_LT(learned, 0.25 * start);
  EXPECT_LT(learned, 0.5 * base);
}

TEST_P(PapersVariant, HasAHeadThatHasLearnedAndANameEverywhere) {
  const auto found = mnemosyne_rule({.variant = GetParam()});
  EXPECT_EQ(found->name(), rule());
  EXPECT_EQ(weights_hash(*found), weights_hash(*default_rule(rule())));
  const std::string head = GetParam() == "super" ? "tensor.head.weight" : "head.weight";
  EXPECT_GT(find(found->weights(), head).abs().max().item<double>(), 1e-3);
  const auto names = default_rule_names();
  EXPECT_NE(std::find(names.begin(), names.end(), rule()), names.end());
}

TEST_P(PapersVariant, ThatHasNotLearnedIsTheBaseRule) {
  EXPECT_EQ(loss_after({.variant = GetParam(), .learned = false}, 5),
            loss_after({.learned = false}, 5));
}

INSTANTIATE_TEST_SUITE_P(All, PapersVariant, ::testing::Values("tensor", "super"),
                         mnemosyne::testing::name_of_test);

TEST(PapersVariants, RefuseTheWeightsOfOneAnother) {
  const std::string path = testing::temporary_path("variant.safetensors");
  save_rule(path, *default_rule("mnemosyne-super"));
  try {
    mnemosyne_rule({.weights = path, .variant = "tensor"});
    FAIL() << "expected an InputError";
  } catch (const InputError& error) {
    EXPECT_EQ(
        std::string(error.what()),
        "[Mnemosyne] expected weights of \"mnemosyne-tensor\", got \"mnemosyne-super\" in " + path);
  }
}

}  // namespace
}  // namespace mnemosyne::optim
