#include "mnemosyne/optim/optimizer.h"

#include <torch/serialize/archive.h>

#include <limits>
#include <map>
#include <sstream>

#include "mnemosyne/core/embedded.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/mnemosyne.h"
#include "mnemosyne/optim/rules.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::identical;
using torch::optim::OptimizerParamGroup;

at::Tensor leaf(const at::Tensor& values) { return values.detach().clone().requires_grad_(); }

std::vector<at::Tensor> leaves(const std::vector<at::Tensor>& values) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& value : values) result.push_back(leaf(value));
  return result;
}

// Two parameters with a gradient that depends on step and values.
std::vector<at::Tensor> some_params(double phase = 0.0) {
  const auto wave = [&](int64_t n) { return (at::arange(n).square() * 0.37 + phase).sin(); };
  return leaves({wave(12).reshape({4, 3}), wave(5), wave(1).reshape({})});
}

void set_gradients(const std::vector<at::Tensor>& params, int step) {
  const at::NoGradGuard no_grad;
  for (const at::Tensor& param : params) {
    param.mutable_grad() = (param * 3.0 + step).sin();
  }
}

void train(RuleOptimizer& optimizer, const std::vector<at::Tensor>& params, int begin, int end) {
  for (int step = begin; step < end; ++step) {
    set_gradients(params, step);
    optimizer.step();
  }
}

std::string saved(const RuleOptimizer& optimizer) {
  torch::serialize::OutputArchive archive(std::make_shared<torch::jit::CompilationUnit>());
  optimizer.save(archive);
  std::ostringstream stream;
  archive.save_to(stream);
  return stream.str();
}

void load(RuleOptimizer& optimizer, const std::string& bytes) {
  std::istringstream stream(bytes);
  torch::serialize::InputArchive archive;
  archive.load_from(stream);
  optimizer.load(archive);
}

double group_lr(const RuleOptimizer& optimizer, size_t group) {
  return optimizer.param_groups()[group].options().get_lr();
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

class EveryRuleAsOptimizer : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryRuleAsOptimizer, LearnsXor) {
  if (GetParam().rfind("lstm", 0) == 0) GTEST_SKIP() << "fresh LSTM weights optimise nothing";
  static const std::map<std::string, double> rates{{"sgd", 0.1},    {"adam", 0.03},
                                                   {"adamw", 0.03}, {"adafactor", 0.1},
                                                   {"muon", 0.03},  {"schedule-free", 0.1}};
  at::manual_seed(3);
  const at::Tensor inputs =
      at::tensor({-1., -1., -1., 1., 1., -1., 1., 1.}, at::kFloat).view({4, 2});
  const at::Tensor targets = at::tensor({0., 1., 1., 0.}, at::kFloat);
  std::vector<at::Tensor> params =
      leaves({at::randn({2, 16}), at::zeros({16}), 0.5 * at::randn({16, 2}), at::zeros({2})});
  const auto rule = make_rule(GetParam());
  const auto found = rates.find(GetParam());
  RuleOptimizer optimizer(
      params, rule, RuleOptions().lr(found == rates.end() ? rule->default_lr() : found->second));
  at::Tensor loss;
  for (int step = 0; step < 400; ++step) {
    loss = optimizer.step([&] {
      optimizer.zero_grad();
      const at::Tensor hidden = at::tanh(at::addmm(params[1], inputs, params[0]));
      const at::Tensor logits = at::addmm(params[3], hidden, params[2]);
      const at::Tensor value = at::cross_entropy_loss(logits, targets.to(at::kLong));
      value.backward();
      return value;
    });
  }
  EXPECT_LT(loss.item<double>(), 0.1);
}

TEST_P(EveryRuleAsOptimizer, ResumesBitForBit) {
  const auto rule = make_rule(GetParam());
  const auto make = [&](const std::vector<at::Tensor>& params) {
    return RuleOptimizer(params, rule, RuleOptions().num_steps(20));
  };
  const std::vector<at::Tensor> straight = some_params();
  RuleOptimizer uninterrupted = make(straight);
  train(uninterrupted, straight, 0, 8);

  const std::vector<at::Tensor> first = some_params();
  RuleOptimizer before = make(first);
  train(before, first, 0, 3);
  const std::string bytes = saved(before);

  const std::vector<at::Tensor> second = leaves(first);
  RuleOptimizer after = make(second);
  load(after, bytes);
  train(after, second, 3, 8);
  for (size_t i = 0; i < straight.size(); ++i) EXPECT_TRUE(identical(second[i], straight[i])) << i;
  EXPECT_EQ(saved(after), saved(uninterrupted));
}

TEST_P(EveryRuleAsOptimizer, TakesEveryDtypeAndLayout) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    std::vector<at::Tensor> params;
    for (const at::Tensor& param : some_params()) params.push_back(leaf(param.to(dtype)));
    params.push_back(leaf(at::ones({3, 4}, dtype)).detach().t().requires_grad_());
    params.push_back(leaf(at::ones({2, 2, 2, 2, 2}, dtype)));
    params.push_back(leaf(at::ones({0, 3}, dtype)));
    RuleOptimizer optimizer(params, make_rule(GetParam()));
    train(optimizer, params, 0, 3);
    for (const at::Tensor& param : params) {
      EXPECT_EQ(param.scalar_type(), dtype);
      EXPECT_TRUE(at::isfinite(param).all().item<bool>()) << dtype << " " << param.sizes();
    }
  }
}

TEST_P(EveryRuleAsOptimizer, IsNotPoisonedByABadGradient) {
  std::vector<at::Tensor> params = some_params();
  RuleOptimizer optimizer(params, make_rule(GetParam()));
  train(optimizer, params, 0, 2);
  set_gradients(params, 2);
  params[0].mutable_grad()[1][1] = std::numeric_limits<float>::quiet_NaN();
  params[1].mutable_grad()[2] = std::numeric_limits<float>::infinity();
  optimizer.step();
  EXPECT_EQ(optimizer.nonfinite_count(), 2);
  EXPECT_TRUE(std::isnan(params[0].grad()[1][1].item<float>()))
      << "the caller's tensor was written";
  train(optimizer, params, 3, 5);
  for (const at::Tensor& param : params) EXPECT_TRUE(at::isfinite(param).all().item<bool>());
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryRuleAsOptimizer, ::testing::ValuesIn(rule_names()),
                         test_name);

TEST(RuleOptimizer, LeavesParametersWithoutGradientAlone) {
  std::vector<at::Tensor> params = some_params();
  const at::Tensor before = params[1].detach().clone();
  RuleOptimizer optimizer(params, make_rule("adamw"));
  set_gradients({params[0], params[2]}, 0);
  optimizer.step();
  EXPECT_TRUE(identical(params[1].detach(), before));
  EXPECT_EQ(optimizer.state().size(), 2u);
  const std::vector<at::Tensor> copies = leaves(params);
  RuleOptimizer copy(copies, make_rule("adamw"));
  load(copy, saved(optimizer));
  EXPECT_EQ(copy.state().size(), 2u) << "what had no step has no state after a load, either";
}

TEST(RuleOptimizer, UsesTheRulesOwnLearningRateByDefault) {
  const RuleOptimizer optimizer(some_params(), make_rule("adam"));
  EXPECT_DOUBLE_EQ(group_lr(optimizer, 0), make_rule("adam")->default_lr());
}

TEST(RuleOptimizer, GroupsInheritWhatTheyDoNotSet) {
  std::vector<at::Tensor> params = some_params();
  std::vector<OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<at::Tensor>{params[0]});
  groups.emplace_back(std::vector<at::Tensor>{params[1]},
                      std::make_unique<RuleOptions>(RuleOptions().weight_decay(0.5)));
  RuleOptimizer optimizer(groups, make_rule("sgd", R"({"momentum": 0})"),
                          RuleOptions().lr(0.25).num_steps(7));
  optimizer.add_param_group(
      OptimizerParamGroup({params[2]}, std::make_unique<RuleOptions>(RuleOptions().lr(0.125))));
  EXPECT_DOUBLE_EQ(group_lr(optimizer, 0), 0.25);
  EXPECT_DOUBLE_EQ(group_lr(optimizer, 1), 0.25);
  EXPECT_DOUBLE_EQ(group_lr(optimizer, 2), 0.125);
  const auto& second = static_cast<const RuleOptions&>(optimizer.param_groups()[1].options());
  EXPECT_EQ(second.num_steps(), 7);

  const std::vector<at::Tensor> before = leaves(params);
  set_gradients(params, 0);
  optimizer.step();
  EXPECT_TRUE(close(params[0], before[0] - 0.25 * params[0].grad()));
  EXPECT_TRUE(close(params[1], before[1] - 0.25 * params[1].grad() - 0.125 * before[1]));
  EXPECT_TRUE(close(params[2], before[2] - 0.125 * params[2].grad()));
}

TEST(RuleOptimizer, TakesGroupsThroughTheBaseClass) {
  std::vector<at::Tensor> params = some_params();
  RuleOptimizer optimizer(std::vector<at::Tensor>{params[0]}, make_rule("sgd"),
                          RuleOptions().lr(0.25));
  const at::Tensor before = params[1].detach().clone();
  static_cast<torch::optim::Optimizer&>(optimizer).add_param_group(
      OptimizerParamGroup({params[1]}));
  train(optimizer, params, 0, 1);
  EXPECT_DOUBLE_EQ(group_lr(optimizer, 1), 0.25);
  EXPECT_TRUE(close(params[1], before - 0.25 * params[1].grad()));
}

TEST(RuleOptimizer, RefusesGroupsWithOptionsOfAnotherKind) {
  struct OtherOptions : torch::optim::OptimizerCloneableOptions<OtherOptions> {};
  std::vector<OptimizerParamGroup> groups;
  groups.emplace_back(some_params(), std::make_unique<OtherOptions>());
  EXPECT_THROW(RuleOptimizer(groups, make_rule("sgd")), InputError);
}

TEST(RuleOptimizer, RunsTheClosureWithGradientsAndReturnsItsLoss) {
  std::vector<at::Tensor> params{leaf(at::ones({3}))};
  RuleOptimizer optimizer(params, make_rule("sgd"));
  const at::NoGradGuard no_grad;
  const at::Tensor loss = optimizer.step([&] {
    optimizer.zero_grad();
    const at::Tensor value = params[0].square().sum();
    value.backward();
    return value;
  });
  EXPECT_DOUBLE_EQ(loss.item<double>(), 3.0);
  EXPECT_TRUE(close(params[0], at::full({3}, 0.8)));
  EXPECT_FALSE(optimizer.step().defined());
}

TEST(RuleOptimizer, LetsASchedulerSetTheLearningRate) {
  std::vector<at::Tensor> params{leaf(at::zeros({1}))};
  RuleOptimizer optimizer(params, make_rule("sgd", R"({"momentum": 0})"), RuleOptions().lr(1.0));
  params[0].mutable_grad() = at::ones({1});
  optimizer.param_groups()[0].options().set_lr(0.5);
  optimizer.step();
  EXPECT_TRUE(close(params[0], at::full({1}, -0.5)));
}

TEST(RuleOptimizer, RefusesOptionsOutOfRange) {
  const auto make = [](const RuleOptions& options) {
    RuleOptimizer(some_params(), make_rule("sgd"), options);
  };
  EXPECT_THROW(make(RuleOptions().lr(-1.0)), InputError);
  EXPECT_THROW(make(RuleOptions().lr(std::nan(""))), InputError);
  EXPECT_THROW(make(RuleOptions().weight_decay(-0.1)), InputError);
  EXPECT_THROW(make(RuleOptions().num_steps(0)), InputError);
}

// The archive of a trained "lstm" optimizer does not go into `other`, which stays as it was.
void expect_refused(RuleOptimizer& other, const std::vector<at::Tensor>& params,
                    const std::string& expected_text) {
  const std::vector<at::Tensor> source = some_params();
  RuleOptimizer optimizer(source, make_rule("lstm"), RuleOptions().lr(0.5));
  train(optimizer, source, 0, 2);
  train(other, params, 0, 1);
  const std::string before = saved(other);
  try {
    load(other, saved(optimizer));
    ADD_FAILURE() << "expected an InputError about " << expected_text;
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find(expected_text), std::string::npos) << error.what();
  }
  EXPECT_EQ(saved(other), before);
}

TEST(RuleOptimizer, RefusesACheckpointOfSomethingElse) {
  std::vector<at::Tensor> params = some_params();
  RuleOptimizer other_rule(params, make_rule("lstm-rnnprop"));
  expect_refused(other_rule, params, "lstm-rnnprop");

  RuleOptimizer other_weights(params, make_rule("lstm", R"({"seed": 1})"));
  expect_refused(other_weights, params, "weights_hash");

  const std::vector<at::Tensor> fewer{params[0], params[1]};
  RuleOptimizer fewer_params(fewer, make_rule("lstm"));
  expect_refused(fewer_params, fewer, "num_params");

  const std::vector<at::Tensor> reshaped = leaves({at::ones({4, 4}), params[1], params[2]});
  RuleOptimizer other_shapes(reshaped, make_rule("lstm"));
  expect_refused(other_shapes, reshaped, "hidden1");
}

TEST(RuleOptimizer, RefusesAnArchiveThatIsNoCheckpoint) {
  torch::serialize::OutputArchive archive(std::make_shared<torch::jit::CompilationUnit>());
  archive.write("weight", at::ones({3}));
  std::ostringstream stream;
  archive.save_to(stream);
  RuleOptimizer optimizer(some_params(), make_rule("sgd"));
  EXPECT_THROW(load(optimizer, stream.str()), InputError);
}

TEST(Mnemosyne, RefusesAVariantThatIsNotThere) {
  EXPECT_THROW(Mnemosyne(some_params(), {.variant = "nonsense"}), InputError);
  EXPECT_THROW(Mnemosyne(some_params(), {.weights = "no/such/file.safetensors"}), InputError);
}

TEST(Mnemosyne, TrainsWithTheWeightsOfTheLibrary) {
  if (embedded_file("mnemosyne.safetensors").empty()) {
    GTEST_SKIP() << "no default weights in this build";
  }
  std::vector<at::Tensor> learned = some_params(), base = some_params(), reference = some_params();
  Mnemosyne optimizer(learned);
  Mnemosyne without(base, {.learned = false});
  RuleOptimizer orthogonal(reference, make_rule("orthogonal"));
  train(optimizer, learned, 0, 5);
  train(without, base, 0, 5);
  train(orthogonal, reference, 0, 5);
  EXPECT_GT(largest_difference(learned[0], base[0]), 1e-7);
  EXPECT_TRUE(close(base[0], reference[0]));
  EXPECT_EQ(optimizer.rule().name(), "mnemosyne");
}

// Regression on data of a fixed formula: the loss after so many steps.
double loss_after(RuleOptimizer& optimizer, const std::vector<at::Tensor>& params, int num_steps) {
  const at::Tensor x = (at::arange(128).square() * 0.37).sin().reshape({32, 4});
  const at::Tensor target = (2.0 * x.select(1, 0) - x.select(1, 2)).tanh();
  const auto loss = [&] {
    const at::Tensor hidden = (at::matmul(x, params[0].t()) + params[1]).tanh();
    return (at::matmul(hidden, params[2]) - target).square().mean();
  };
  for (int step = 0; step < num_steps; ++step) {
    optimizer.zero_grad();
    loss().backward();
    optimizer.step();
  }
  return loss().item<double>();
}

TEST(Mnemosyne, CoordinateVariantTrainsWithTheWeightsOfTheLibrary) {
  const auto network = [] {
    const auto wave = [](int64_t n) { return (at::arange(n).square() * 0.21 + 1.0).sin(); };
    return leaves({wave(32).reshape({8, 4}), at::zeros({8}), 0.3 * wave(8)});
  };
  std::vector<at::Tensor> params = network(), twin = network();
  Mnemosyne optimizer(params, {.variant = "coordinate"});
  RuleOptimizer untrained(twin, make_rule("mnemosyne-coordinate"));
  EXPECT_EQ(optimizer.rule().name(), "mnemosyne-coordinate");
  const double start = loss_after(optimizer, params, 0);
  const double trained = loss_after(optimizer, params, 100);
  EXPECT_LT(trained, 0.1 * start);
  EXPECT_LT(trained, loss_after(untrained, twin, 100));
}

TEST(Mnemosyne, CoordinateVariantHasNoBaseRule) {
  EXPECT_THROW(Mnemosyne(some_params(), {.variant = "coordinate", .learned = false}), InputError);
}

}  // namespace
}  // namespace mnemosyne::optim
