// What a group of a RuleOptimizer decides for itself, in a run and across checkpoints.

#include <torch/serialize/archive.h>

#include <limits>
#include <sstream>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/mnemosyne.h"
#include "mnemosyne/optim/orthogonal.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "rule_testing.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::identical;
using mnemosyne::testing::wave;
using torch::optim::OptimizerParamGroup;

at::Tensor leaf(at::IntArrayRef shape) { return wave(shape, 0.0).requires_grad_(); }

void train(RuleOptimizer& optimizer, const std::vector<at::Tensor>& params, int begin, int end) {
  for (int step = begin; step < end; ++step) {
    for (const at::Tensor& param : params) {
      param.mutable_grad() = wave(param.sizes(), 3.0 + step);
    }
    optimizer.step();
  }
}

std::string archive_of(const std::function<void(torch::serialize::OutputArchive&)>& write) {
  torch::serialize::OutputArchive archive(std::make_shared<torch::jit::CompilationUnit>());
  write(archive);
  std::ostringstream stream;
  archive.save_to(stream);
  return stream.str();
}

std::string saved(const RuleOptimizer& optimizer) {
  return archive_of([&](torch::serialize::OutputArchive& archive) { optimizer.save(archive); });
}

void load(RuleOptimizer& optimizer, const std::string& bytes) {
  std::istringstream stream(bytes);
  torch::serialize::InputArchive archive;
  archive.load_from(stream);
  optimizer.load(archive);
}

const RuleOptions& options_of(const RuleOptimizer& optimizer, size_t group = 0) {
  return static_cast<const RuleOptions&>(optimizer.param_groups()[group].options());
}

TEST(NumSteps, BeyondTheEndAreCountedAndAsSmallAsTheLastOne) {
  std::vector<at::Tensor> params{leaf({3, 3})};
  Mnemosyne optimizer(params, {.num_steps = 10, .learned = false});
  train(optimizer, params, 0, 9);
  const auto moved = [&](int step) {
    const at::Tensor before = params[0].detach().clone();
    train(optimizer, params, step, step + 1);
    return (params[0] - before).norm().item<double>();
  };
  const double last = moved(9);
  EXPECT_EQ(optimizer.overrun_count(), 0);
  for (int step = 10; step < 13; ++step) {
    const double size = moved(step);
    // The length of an orthogonalised step varies within its bounds.
    EXPECT_GT(size, 0.5 * last);
    EXPECT_LT(size, 2.0 * last);
  }
  EXPECT_EQ(optimizer.overrun_count(), 3);
  Mnemosyne other(params, {.learned = false});
  load(other, saved(optimizer));
  EXPECT_EQ(other.overrun_count(), 3);
}

TEST(NumSteps, OfOneGroupIsCountedOnceAStep) {
  std::vector<at::Tensor> params{leaf({3, 3}), leaf({2}), leaf({4})};
  std::vector<OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<at::Tensor>{params[0], params[1]},
                      std::make_unique<RuleOptions>(RuleOptions().num_steps(2)));
  groups.emplace_back(std::vector<at::Tensor>{params[2]});
  RuleOptimizer optimizer(groups, make_rule("orthogonal"));
  train(optimizer, params, 0, 3);
  EXPECT_EQ(optimizer.overrun_count(), 1);
}

TEST(NumSteps, OfTheOptimizerWinsOverThatOfACheckpoint) {
  std::vector<at::Tensor> params{leaf({3, 3})};
  Mnemosyne first(params, {.num_steps = 10, .learned = false});
  train(first, params, 0, 10);
  const std::string bytes = saved(first);

  Mnemosyne longer(params, {.num_steps = 1000, .learned = false});
  load(longer, bytes);
  EXPECT_EQ(options_of(longer).num_steps(), 1000);
  const at::Tensor before = params[0].detach().clone();
  train(longer, params, 10, 11);
  EXPECT_EQ(longer.overrun_count(), 0);
  // The root mean square of a base step is .2 s.
  const double step = base_step_size({}, {.num_steps = 1000}, 11);
  const double rms = (params[0] - before).square().mean().sqrt().item<double>();
  EXPECT_NEAR(rms / (0.2 * step), 1.0, 0.3);

  Mnemosyne unsaid(params, {.learned = false});
  load(unsaid, bytes);
  EXPECT_EQ(options_of(unsaid).num_steps(), 10);
}

TEST(Orthogonal, OffForAGroupLeavesEntriesWithoutAGradientWhereTheyAre) {
  for (const std::string& name : rule_names()) {
    if (name.rfind("lstm", 0) == 0) continue;
    std::vector<at::Tensor> params{leaf({6, 5}), leaf({4, 4})};
    std::vector<OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<at::Tensor>{params[0]},
                        std::make_unique<RuleOptions>(RuleOptions().orthogonal(false)));
    groups.emplace_back(std::vector<at::Tensor>{params[1]});
    RuleOptimizer optimizer(groups, make_rule(name));
    const at::Tensor before = params[0].detach().clone();
    const at::Tensor mask = wave({6, 5}, 9.0).gt(0.0).to(at::kFloat);
    for (int step = 0; step < 5; ++step) {
      params[0].mutable_grad() = wave({6, 5}, step) * mask;
      params[1].mutable_grad() = wave({4, 4}, step);
      optimizer.step();
    }
    const at::Tensor moved = (params[0] - before).detach();
    const at::Tensor masked = moved * (1.0 - mask), others = moved.masked_select(mask.gt(0.0));
    // Weight decay of their own moves everything.
    const double allowed = name == "adamw" || name == "amuse" ? 1e-3 : 0.0;
    EXPECT_LE(masked.abs().max().item<double>(), allowed) << name;
    EXPECT_GT(others.abs().min().item<double>(), 1e-5) << name;
  }
}

TEST(Orthogonal, OffIsAdamsDirectionWithTheBaseRulesSteps) {
  for (const std::string name :
       {"mnemosyne", "orthogonal", "mnemosyne-coordinate", "mnemosyne-tensor", "mnemosyne-super"}) {
    std::vector<at::Tensor> params{leaf({6, 5})};
    const std::vector<at::Tensor> expected{params[0].detach().clone()};
    RuleOptimizer optimizer(params, make_rule(name), RuleOptions().orthogonal(false));
    const auto adam = make_rule("adam", R"({"beta2": 0.99})");
    State state = init_state(*adam, expected);
    for (int step = 0; step < 4; ++step) {
      train(optimizer, params, step, step + 1);
      adam->step_({wave({6, 5}, 3.0 + step)}, state, expected,
                  {.lr = base_step_size({}, {}, step + 1)});
    }
    EXPECT_TRUE(close(params[0], expected[0])) << name;
  }
}

TEST(Orthogonal, OffForAWholeMnemosyneIsOffForItsGroups) {
  std::vector<at::Tensor> params{leaf({6, 5})}, other{leaf({6, 5})};
  Mnemosyne optimizer(params, {.orthogonal = false});
  RuleOptimizer expected(other, make_rule("orthogonal"), RuleOptions().orthogonal(false));
  train(optimizer, params, 0, 3);
  train(expected, other, 0, 3);
  EXPECT_EQ(options_of(optimizer).orthogonal(), false);
  EXPECT_TRUE(identical(params[0], other[0]));
}

TEST(Orthogonal, OffOfMuonIsAdamForEverything) {
  std::vector<at::Tensor> params{leaf({6, 5})};
  const std::vector<at::Tensor> expected{params[0].detach().clone()};
  RuleOptimizer optimizer(params, make_rule("muon"), RuleOptions().orthogonal(false));
  const auto adam = make_rule("adam");
  State state = init_state(*adam, expected);
  for (int step = 0; step < 3; ++step) {
    train(optimizer, params, step, step + 1);
    adam->step_({wave({6, 5}, 3.0 + step)}, state, expected, {.lr = 1e-3});
  }
  EXPECT_TRUE(close(params[0], expected[0]));
}

TEST(Orthogonal, OffIsRefusedByTheLstms) {
  for (const std::string name : {"lstm", "lstm-rnnprop"}) {
    const std::vector<at::Tensor> params{leaf({3, 3})};
    EXPECT_THROW(RuleOptimizer(params, make_rule(name), RuleOptions().orthogonal(false)),
                 InputError);
  }
}

TEST(Orthogonal, OffAndMomentumComeBackFromACheckpoint) {
  for (const std::string name : {"mnemosyne", "orthogonal", "muon"}) {
    const auto make = [&](const std::vector<at::Tensor>& params, const RuleOptions& options) {
      std::vector<OptimizerParamGroup> groups;
      groups.emplace_back(std::vector<at::Tensor>{params[0]},
                          std::make_unique<RuleOptions>(options));
      groups.emplace_back(std::vector<at::Tensor>{params[1]});
      return RuleOptimizer(groups, make_rule(name));
    };
    const RuleOptions masked = RuleOptions().orthogonal(false).momentum(0.8);
    const std::vector<at::Tensor> straight{leaf({6, 5}), leaf({4, 4})};
    RuleOptimizer optimizer = make(straight, masked);
    train(optimizer, straight, 0, 3);
    std::vector<at::Tensor> resumed;
    for (const at::Tensor& param : straight) {
      resumed.push_back(param.detach().clone().requires_grad_());
    }
    RuleOptimizer other = make(resumed, RuleOptions());
    load(other, saved(optimizer));
    EXPECT_EQ(options_of(other, 0).orthogonal(), false);
    EXPECT_EQ(options_of(other, 0).momentum(), 0.8);
    train(optimizer, straight, 3, 6);
    train(other, resumed, 3, 6);
    for (size_t i = 0; i < straight.size(); ++i) {
      EXPECT_TRUE(identical(resumed[i], straight[i])) << name;
    }
  }
}

// The archive of an optimizer with one parameter as versions before `orthogonal` wrote it.
std::string old_archive(const RuleOptimizer& optimizer, const ParamState& state,
                        const std::string& hash) {
  return archive_of([&](torch::serialize::OutputArchive& archive) {
    using c10::IValue;
    archive.write("format", IValue("mnemosyne-optimizer-1"));
    archive.write("rule", IValue(optimizer.rule().name()));
    archive.write("weights_hash", IValue(hash));
    archive.write("nonfinite_count", IValue(int64_t{4}));
    archive.write("num_groups", IValue(int64_t{1}));
    torch::serialize::OutputArchive group(archive.compilation_unit()),
        param(archive.compilation_unit());
    group.write("lr", IValue(std::optional<double>(0.5)));
    group.write("weight_decay", IValue(std::optional<double>(0.0)));
    group.write("num_steps", IValue(std::optional<int64_t>()));
    group.write("num_params", IValue(int64_t{1}));
    param.write("num_tensors", IValue(static_cast<int64_t>(state.size())));
    for (size_t k = 0; k < state.size(); ++k) {
      param.write("tensor" + std::to_string(k), state[k], /*is_buffer=*/true);
    }
    group.write("param0", param);
    archive.write("group0", group);
  });
}

TEST(OldArchives, LoadAndMeanWhatTheyMeant) {
  for (const std::string name : {"adamw", "orthogonal"}) {
    const auto rule = make_rule(name);
    std::vector<at::Tensor> params{leaf({3, 3})};
    RuleOptimizer optimizer(params, rule, RuleOptions().orthogonal(name != "orthogonal"));
    State state{rule->init(params[0])};
    if (name == "orthogonal") state[0] = rule->elementwise()->init(params[0]);
    load(optimizer, old_archive(optimizer, state[0], weights_hash(*rule)));
    EXPECT_EQ(optimizer.nonfinite_count(), 4);
    EXPECT_EQ(options_of(optimizer).lr(), 0.5);
    EXPECT_EQ(options_of(optimizer).weight_decay(), name == "adamw" ? 0.01 : 0.0);
    EXPECT_EQ(options_of(optimizer).orthogonal(), name != "orthogonal");
    train(optimizer, params, 0, 1);
  }
}

TEST(Options, OutOfRangeAreRefusedWhenAGroupIsMade) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (const RuleOptions& options :
       {RuleOptions().lr(-1.0), RuleOptions().lr(kInf), RuleOptions().weight_decay(-0.1),
        RuleOptions().weight_decay(kInf), RuleOptions().num_steps(0), RuleOptions().momentum(1.0),
        RuleOptions().momentum(-0.1)}) {
    const std::vector<at::Tensor> params{leaf({2})}, more{leaf({3})};
    EXPECT_THROW(RuleOptimizer(params, make_rule("orthogonal"), options), InputError);
    RuleOptimizer optimizer(params, make_rule("orthogonal"));
    EXPECT_THROW(optimizer.add_param_group(
                     OptimizerParamGroup(more, std::make_unique<RuleOptions>(options))),
                 InputError);
    EXPECT_EQ(optimizer.param_groups().size(), 1u);
  }
  const std::vector<at::Tensor> params{leaf({2})};
  EXPECT_THROW(RuleOptimizer(params, make_rule("lstm"), RuleOptions().momentum(0.9)), InputError);
}

}  // namespace
}  // namespace mnemosyne::optim
