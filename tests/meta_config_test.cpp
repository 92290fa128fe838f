#include <functional>

#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/config.h"
#include "mnemosyne/meta/make_trainer.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/weights.h"
#include "testing.h"

namespace mnemosyne::meta {
namespace {

TEST(MetaConfig, RefusesWhatCannotBeUsedAndNamesIt) {
  const auto error_of = [](const MetaConfig& config) -> std::string {
    try {
      config.validate();
    } catch (const InputError& error) {
      return error.what();
    }
    return "none";
  };
  const std::vector<std::string> some = {"a"};
  EXPECT_EQ(error_of({.validation_families = some}), "none");
  EXPECT_EQ(error_of({}),
            "[validation_families] expected at least one task family (or "
            "validate_every = 0), got none");
  EXPECT_EQ(error_of({.validation_families = some, .sigma = 0}),
            "[sigma] expected a positive number, got 0");
  EXPECT_EQ(error_of({.validation_families = some, .shaping = "cube"}),
            "[shaping] expected one of none, spread, rank, got \"cube\"");
  EXPECT_EQ(error_of({.validation_families = some, .horizons = {5, 5}}),
            "[horizons] expected growing positive lengths, got 5 after 5");
}

TEST(MetaConfig, RefusesUnknownEstimators) {
  EXPECT_EQ(parse_estimators({.estimators = {"pes", "truncated=0.25"}}).at(1).number, 0.25);
  EXPECT_THROW(parse_estimators({.estimators = {"hessian=1"}}), InputError);
  EXPECT_THROW(parse_estimators({.estimators = {"pes=-1"}}), InputError);
  EXPECT_THROW(parse_estimators({.estimators = {}}), InputError);
}

TEST(MakeTrainer, MetaTrainsARuleOfTheRegistryOnFamiliesOfTheRegistry) {
  const MetaConfig config{.rule = "mnemosyne",
                          .families = {"quadratic", "mlp"},
                          .validation_families = {"teacher"},
                          .min_steps = 4,
                          .reparametrized_fraction = 0.5,
                          .num_outer_steps = 2,
                          .num_workers = 2,
                          .horizons = {8},
                          .num_tasks = 2,
                          .num_pairs = 2,
                          .validate_every = 2};
  const auto trainer = make_trainer(config, "");
  int validations = 0;
  trainer->run({.on_validation = [&](const ValidationReport& report) {
    ++validations;
    EXPECT_TRUE(std::isfinite(report.candidate.score));
  }});
  EXPECT_TRUE(trainer->done());
  EXPECT_EQ(validations, 1);
  MetaConfig bad = config;
  bad.rule = "adam";
  EXPECT_THROW(make_trainer(bad, ""), InputError) << "nothing to learn in Adam";
  bad = config;
  bad.families = {"vit_digits"};
  EXPECT_THROW(make_trainer(bad, ""), InputError) << "a test task is no family";
}

TEST(MetaConfig, FinishedRuleHasItsOwnOptions) {
  MetaConfig config{.rule_options = R"({"step_bound": 0.5})",
                    .finished_options = R"({"mixture_bound": 0.25})",
                    .families = {"quadratic"},
                    .validation_families = {"quadratic"}};
  const auto trained = make_initial_rule(config);
  const NamedTensors weights = {{"controller", at::ones_like(trained->weights()[0].second)}};
  const auto finished = make_finished_rule(config, weights);
  EXPECT_EQ(finished->options_json(),
            optim::make_rule("mnemosyne", R"({"step_bound": 0.5, "mixture_bound": 0.25})")
                ->options_json());
  EXPECT_NE(finished->options_json(), trained->options_json());
  EXPECT_TRUE(at::equal(finished->weights()[0].second, weights[0].second));
  for (const char* options : {"{", "3", R"({"mixture_bound": 7})", R"({"mixture": 0.2})"}) {
    config.finished_options = options;
    EXPECT_THROW(make_trainer(config, ""), InputError) << options;
  }
}

TEST(MetaConfig, RuleOptionsStandBeforeThoseOfTheInitialWeights) {
  const std::string path = ::testing::TempDir() + "initial.safetensors";
  const auto shipped = optim::default_rule("mnemosyne");
  optim::save_rule(path, *shipped);
  MetaConfig config{.rule_options = R"({"step_bound": 0.5, "attention": true})",
                    .initial_weights = path,
                    .families = {"quadratic"},
                    .validation_families = {"quadratic"}};
  const auto rule = make_initial_rule(config);
  const NamedTensors weights = rule->weights();
  EXPECT_TRUE(at::equal(weights[0].second, shipped->weights()[0].second));
  EXPECT_GT(weights.size(), 1u);
  EXPECT_EQ(rule->options_json(),
            optim::with_options(*shipped, config.rule_options)->options_json());
  config.rule_options = R"({"steps_bound": 0.5})";
  EXPECT_THROW(make_trainer(config, ""), InputError);
}

TEST(MetaConfig, InitialWeightsMayBeAnotherRulesThatHasThemAll) {
  const std::string path = ::testing::TempDir() + "initial.safetensors";
  const auto shipped = optim::default_rule("mnemosyne");
  optim::save_rule(path, *shipped);
  MetaConfig config{
      .rule = "mnemosyne-compact", .rule_options = R"({"rank": 3})", .initial_weights = path};
  const auto rule = make_initial_rule(config);
  EXPECT_EQ(rule->name(), "mnemosyne-compact");
  EXPECT_TRUE(at::equal(rule->weights()[0].second, shipped->weights()[0].second));
  config.rule = "mnemosyne-coordinate";
  config.rule_options = "{}";
  EXPECT_THROW(make_initial_rule(config), InputError);
}

TEST(MetaConfig, ResumeDependsOnWhatChangesTheResult) {
  MetaConfig a, b;
  b.num_workers = 3;
  b.max_minutes = 7;
  b.num_outer_steps = 5;
  b.finished_options = R"({"mixture_bound": 0.25})";
  EXPECT_EQ(resume_metadata(a), resume_metadata(b));
  a.cosine_rate = b.cosine_rate = true;
  EXPECT_NE(resume_metadata(a), resume_metadata(b));
  a.rate_steps = b.rate_steps = 9;
  EXPECT_EQ(resume_metadata(a), resume_metadata(b));
  EXPECT_NE(to_text(a).find("families = [\"mlp\"]\n"), std::string::npos);
}

}  // namespace
}  // namespace mnemosyne::meta
