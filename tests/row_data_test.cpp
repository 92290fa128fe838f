#include <ATen/ATen.h>

#include <set>

#include "data_files.h"
#include "mnemosyne/tasks/data/questions.h"
#include "mnemosyne/tasks/data/solubility.h"
#include "mnemosyne/tasks/registry.h"
#include "mnemosyne/tasks/row_task.h"
#include "mnemosyne/tasks/stacked/mlp.h"
#include "mnemosyne/tasks/suites.h"
#include "testing.h"

namespace mnemosyne::tasks {
namespace {

using testing::close;
using testing::refusal;
using testing::TestFolder;

TEST(Questions, AreWordsByTheirCountAndClassesByTheAlphabet) {
  const TestFolder folder("questions");
  folder.write("train", "NUM:dist How far is far ?\nDESC:def What  is far\xe9 ?\n");
  folder.write("test", "DESC:def How far away from is it ?\n");
  const RowData data = read_questions(folder.path() + "/train", folder.path() + "/test",
                                      {.max_vocabulary = 6, .length = 4});
  // Of two: "?", "far", "is" (2 times each, by the alphabet), then "How"; 1 is any other word.
  EXPECT_TRUE(
      at::equal(data.train.inputs, at::tensor({5, 3, 4, 3, 1, 4, 1, 2}, at::kLong).view({2, 4})));
  EXPECT_TRUE(at::equal(data.train.targets, at::tensor({1, 0}, at::kLong)));
  EXPECT_TRUE(at::equal(data.test.inputs, at::tensor({5, 3, 1, 1}, at::kLong).view({1, 4})));
  EXPECT_EQ(data.num_classes, 2);
  EXPECT_EQ(data.vocabulary, 6);
  // Short ones are padded.
  const RowData longer =
      read_questions(folder.path() + "/train", folder.path() + "/test", {.length = 6});
  EXPECT_EQ(longer.train.inputs[0][5].item<int64_t>(), 0);
}

TEST(Questions, ThatAreNoneAreNamed) {
  const TestFolder folder("bad_questions");
  folder.write("good", "NUM:dist How far ?\n");
  const auto message = [&](const std::string& content) {
    folder.write("bad", content);
    return refusal([&] { read_questions(folder.path() + "/good", folder.path() + "/bad"); });
  };
  EXPECT_MENTIONS(message("NUM:dist How far ?\nHow far ?\n"), "line 2 of");
  EXPECT_MENTIONS(message("NUM:dist\n"), "COARSE:fine question");
  EXPECT_MENTIONS(message(":dist How\n"), "COARSE:fine question");
  EXPECT_MENTIONS(message("How far: is it\n"), "COARSE:fine question");
  EXPECT_MENTIONS(message(""), "questions");
  EXPECT_MENTIONS(message("HUM:ind Who ?\n"), "\"HUM\"");
  EXPECT_MENTIONS(refusal([&] { read_questions(folder.path() + "/none", "x"); }), "none");
}

constexpr const char* kHeader =
    "Compound ID,ESOL predicted log solubility in mols per litre,Minimum Degree,Molecular Weight,"
    "Number of H-Bond Donors,Number of Rings,Number of Rotatable Bonds,Polar Surface Area,"
    "measured log solubility in mols per litre,smiles\n";

std::string molecules(int count) {
  std::string text = kHeader;
  for (int i = 0; i < count; ++i) {
    const std::string n = std::to_string(i);
    text += "\"a, \"\"b\"\"\",9," + n + "," + n + "5.5,0,1,2,3,-" + n + ".25,CC" +
            (i % 2 ? "Cl" : "(=O)") + "\n";
  }
  return text;
}

TEST(Solubility, HasEveryTenthMoleculeHeldOut) {
  const TestFolder folder("solubility");
  folder.write("table.csv", molecules(20));
  const RowData data = read_solubility(folder.path() + "/table.csv");
  EXPECT_EQ(data.train.inputs.sizes(),
            at::IntArrayRef({18, 6 + static_cast<int64_t>(kCountedInSmiles.size())}));
  EXPECT_EQ(data.test.size(), 2);
  EXPECT_EQ(data.num_classes, 0);
  // In units of the training part; what never changes is zero.
  EXPECT_TRUE(close(data.train.targets.mean(), at::zeros({}), {.rtol = 0, .atol = 1e-5}));
  EXPECT_TRUE(close(data.train.inputs.select(1, 0).square().mean(), at::ones({}), {.rtol = 1e-4}));
  EXPECT_EQ(data.train.inputs.select(1, 3).abs().max().item<float>(), 0.0f);
  // Rows 9 and 19: the degree is their number, of mean 9 and variance 30 among the other 18; the
  // solubility falls as it grows.
  const double expected = (19 - 9.0) / std::sqrt(data.train.inputs.size(0) > 0 ? 485.0 / 18 : 1);
  EXPECT_NEAR(data.test.inputs[1][0].item<double>(), expected, 0.2);
  EXPECT_LT(data.test.targets[1][0].item<double>(), data.test.targets[0][0].item<double>());
}

TEST(Solubility, ThatIsNoneIsNamed) {
  const TestFolder folder("bad_solubility");
  const auto message = [&](const std::string& content) {
    folder.write("bad.csv", content);
    return refusal([&] { read_solubility(folder.path() + "/bad.csv"); });
  };
  EXPECT_MENTIONS(message(""), "\"Minimum Degree\"");
  EXPECT_MENTIONS(message("name,smiles\n"), "\"Minimum Degree\"");
  EXPECT_MENTIONS(message(molecules(5)), "at least 10");
  EXPECT_MENTIONS(message(molecules(12) + "a,1,2\n"), "line 14 of");
  EXPECT_MENTIONS(message(molecules(12) + "a,1,2,x,0,1,2,3,4,CC\n"), "\"x\"");
  EXPECT_MENTIONS(message(molecules(12) + "a,1,2,inf,0,1,2,3,4,CC\n"), "\"inf\"");
  EXPECT_MENTIONS(message(molecules(12) + "a,1,2,,0,1,2,3,4,CC\n"), "\"\"");
}

TEST(RowTask, ShowsEveryRowOncePerEpoch) {
  const at::Tensor inputs = at::arange(6, at::kFloat).view({6, 1});
  const auto data = std::make_shared<const RowData>(RowData{
      .train = {inputs, 2 * inputs}, .test = {inputs.narrow(0, 0, 2), inputs.narrow(0, 0, 2)}});
  const auto task = make_row_task("double", make_mlp({.sizes = {1, 4, 1}}), data, 3);
  const auto stream = task->train_stream(1);
  std::set<float> seen;
  for (int64_t step = 0; step < 2; ++step) {
    const Batch batch = stream->at(step);
    EXPECT_TRUE(at::equal(batch[1], 2 * batch[0]));
    for (int64_t i = 0; i < 3; ++i) seen.insert(batch[0][i][0].item<float>());
  }
  EXPECT_EQ(seen.size(), 6u);
  EXPECT_FALSE(task->accuracy(stack_members(task->init(1), 1), stream->at(0)).defined());
}

TEST(Suites, HaveNothingInCommonAndAreTasks) {
  std::set<std::string> validation;
  for (const std::string& cell : validation_suite()) {
    validation.insert(cell.substr(0, cell.find('@')));
  }
  EXPECT_GE(test_suite().size(), 12u);
  for (const std::string& cell : test_suite()) {
    const std::string name = cell.substr(0, cell.find('@'));
    EXPECT_EQ(validation.count(name), 0u) << name;
    EXPECT_EQ(task_info(name).name, name);
  }
  EXPECT_EQ(expand_suite("test"), test_suite());
  EXPECT_EQ(expand_suite("validation"), validation_suite());
  EXPECT_EQ(expand_suite("vit_digits@5"), std::vector<std::string>{"vit_digits@5"});
}

}  // namespace
}  // namespace mnemosyne::tasks
