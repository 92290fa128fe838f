#include "mnemosyne/optim/weights.h"

#include <fstream>
#include <functional>
#include <sstream>

#include "mnemosyne/core/embedded.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/io/safetensors.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/step_features.h"
#include "mnemosyne/optim/step_outputs.h"
#include "mnemosyne/optim/weight_axes.h"
#include "testing.h"

namespace mnemosyne::optim {
namespace {

using mnemosyne::testing::identical;

std::string temporary(const std::string& name) {
  return ::testing::TempDir() + "weights_test_" + name;
}

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// What is said about the file: one line that names it.
std::string refusal(const std::string& path) {
  try {
    load_rule(path);
  } catch (const InputError& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_NE(text.find(path), std::string::npos) << text;
    return text;
  }
  ADD_FAILURE() << "expected an InputError";
  return "";
}

TEST(Weights, OfEveryLearnedRuleAreInTheLibrary) {
  for (const std::string& name : rule_names()) {
    const auto untrained = make_rule(name);
    if (untrained->weights().empty()) continue;
    const std::string_view file = embedded_file(name + ".safetensors");
    ASSERT_FALSE(file.empty()) << name;
    EXPECT_LT(file.size(), 1'000'000u) << name;
    const auto rule = default_rule(name);
    EXPECT_EQ(rule->name(), name);
    const NamedTensors weights = rule->weights(), fresh = untrained->weights();
    ASSERT_EQ(weights.size(), fresh.size()) << name;
    bool trained = false;
    for (size_t i = 0; i < fresh.size(); ++i) {
      trained = trained || !identical(weights[i].second, fresh[i].second);
    }
    EXPECT_TRUE(trained) << name;
  }
}

TEST(Weights, SurviveAFileBitForBit) {
  for (const std::string& name : rule_names()) {
    const auto rule = make_rule(name);
    const std::string path = temporary("round_trip.safetensors");
    save_rule(path, *rule, {{"made_by", "a test"}});
    const auto loaded = load_rule(path);
    EXPECT_EQ(loaded->name(), name);
    EXPECT_EQ(loaded->options_json(), rule->options_json());
    EXPECT_EQ(weights_hash(*loaded), weights_hash(*rule));
    const NamedTensors expected = rule->weights(), actual = loaded->weights();
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(actual[i].first, expected[i].first);
      EXPECT_TRUE(identical(actual[i].second, expected[i].second));
    }
    EXPECT_EQ(io::read_safetensors(path).metadata.at("made_by"), "a test");
  }
}

TEST(Weights, KeepTheOptionsOfARule) {
  const auto rule = make_rule("lstm", R"({"num_hidden": 4, "output_scale": 0.123456789012345})");
  save_rule(temporary("options.safetensors"), *rule);
  EXPECT_EQ(load_rule(temporary("options.safetensors"))->options_json(), rule->options_json());
}

TEST(Weights, DoNotLetMetadataReplaceTheirOwn) {
  EXPECT_THROW(save_rule(temporary("m.safetensors"), *make_rule("lstm"), {{"rule", "sgd"}}),
               InputError);
}

TEST(WeightsHash, IsAStableFingerprintOfNameOptionsAndValues) {
  const auto rule = make_rule("lstm", R"({"num_hidden": 4})");
  EXPECT_EQ(weights_hash(*rule).size(), 16u);
  NamedTensors changed = rule->weights();
  changed.back().second = changed.back().second + 1e-6;
  EXPECT_NE(weights_hash(*rule->with_weights(changed)), weights_hash(*rule));
  EXPECT_NE(weights_hash(*make_rule("lstm", R"({"num_hidden": 4, "output_scale": 0.02})")),
            weights_hash(*rule));
  EXPECT_NE(weights_hash(*make_rule("adam")), weights_hash(*make_rule("adamw")));
  // FNV-1a as computed in Python; a change makes every older checkpoint unreadable.
  EXPECT_EQ(weights_hash(*make_rule("sgd")), "403feeff2cb9bdda");
}

// The weights in the library keep their identity when a version adds features and outputs: else
// every checkpoint of a training with them would be refused.
TEST(WeightsHash, DoesNotCountWhatAVersionAddsByName) {
  EXPECT_EQ(weights_hash(*default_rule("mnemosyne")), "67e0ce3778e0de8b");
  EXPECT_EQ(weights_hash(*default_rule("mnemosyne-first")), "ed5fd8c05538401e");
  const at::Tensor weight = at::tensor({1.0, 2.0, 3.0, 4.0}, at::kFloat).view({2, 2});
  const at::Tensor grown = at::zeros({3, 4}, at::kFloat);
  grown.index_put_({at::tensor({0, 2}).unsqueeze(1), at::tensor({1, 2})}, weight);
  const std::vector<std::string> rows{"a", "b", "c"}, columns{"d", "e", "f", "g"};
  EXPECT_TRUE(identical(without_zeros(grown, {rows, columns}), weight));
  EXPECT_TRUE(identical(without_zeros(grown, {{}, columns}), grown.narrow(1, 1, 2)));
  EXPECT_TRUE(identical(without_zeros(grown, {{}, {}}), grown));
}

struct Damage {
  std::string name;
  std::function<void(io::TensorFile&)> apply;
  std::string expected_text;
};

TEST(Weights, RefuseAForeignOrDamagedFile) {
  const std::vector<Damage> cases{
      {"no metadata", [](io::TensorFile& f) { f.metadata.clear(); }, "format"},
      {"format", [](io::TensorFile& f) { f.metadata["format"] = "pt"; }, "\"pt\""},
      {"version", [](io::TensorFile& f) { f.metadata["version"] = "2"; }, "version"},
      {"rule", [](io::TensorFile& f) { f.metadata["rule"] = "velo"; }, "velo"},
      {"options", [](io::TensorFile& f) { f.metadata["options"] = "{"; }, "options"},
      {"option", [](io::TensorFile& f) { f.metadata["options"] = R"({"hidden": 3})"; }, "hidden"},
      {"size", [](io::TensorFile& f) { f.metadata["options"] = R"({"num_hidden": 9})"; }, "shape"},
      {"missing", [](io::TensorFile& f) { f.tensors.pop_back(); }, "tensors"},
      {"surplus", [](io::TensorFile& f) { f.tensors.emplace_back("x", at::ones({1})); }, "tensors"},
      {"renamed", [](io::TensorFile& f) { f.tensors[0].first = "x"; }, "layers.0.input_weight"},
      {"NaN", [](io::TensorFile& f) { f.tensors[0].second.fill_(NAN); }, "finite"},
      {"integers", [](io::TensorFile& f) { f.tensors[0].second = at::ones({16, 2}, at::kLong); },
       "floating"},
  };
  const std::string path = temporary("damaged.safetensors");
  for (const Damage& damage : cases) {
    save_rule(path, *make_rule("lstm", R"({"num_hidden": 4})"));
    io::TensorFile file = io::read_safetensors(path);
    damage.apply(file);
    io::write_safetensors(path, file.tensors, file.metadata);
    EXPECT_NE(refusal(path).find(damage.expected_text), std::string::npos) << damage.name;
  }
}

TEST(Weights, RefuseATruncatedFileAtAnyLength) {
  const std::string path = temporary("truncated.safetensors");
  save_rule(path, *make_rule("lstm", R"({"num_hidden": 2})"));
  const std::string bytes = bytes_of(path);
  for (size_t length = 0; length < bytes.size(); length += 1 + bytes.size() / 97) {
    write_bytes(path, bytes.substr(0, length));
    refusal(path);
  }
}

TEST(Weights, NeverCrashOnAFlippedByte) {
  const std::string path = temporary("flipped.safetensors");
  save_rule(path, *make_rule("lstm", R"({"num_hidden": 2})"));
  const std::string bytes = bytes_of(path);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    std::string flipped = bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ (1 << i % 8));
    write_bytes(path, flipped);
    try {
      load_rule(path);  // a flipped bit of a value cannot be seen
    } catch (const InputError&) {
    }
  }
}

TEST(Weights, RefuseAFileThatIsNotThere) { refusal(temporary("none.safetensors")); }

TEST(DefaultRule, NamesWhatIsMissing) {
  try {
    default_rule("sgd");
    FAIL() << "expected an InputError";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("\"sgd\""), std::string::npos) << error.what();
  }
}

// The file of "mnemosyne" with other names along its axes, and its controller changed.
void write_with_axes(const std::string& path, const std::string& axes,
                     const std::function<at::Tensor(const at::Tensor&)>& change) {
  const auto rule = default_rule("mnemosyne");
  save_rule(path, *rule);
  io::TensorFile file = io::read_safetensors(path);
  for (auto& [name, tensor] : file.tensors) tensor = change(tensor).contiguous();
  file.metadata["axes"] = axes;
  io::write_safetensors(path, file.tensors, file.metadata);
}

std::string axes_text(const std::vector<std::string>& rows,
                      const std::vector<std::string>& columns) {
  return write_axes({{"controller", {rows, columns}}});
}

TEST(WeightAxes, GiveWeightsOfAnEarlierVersionTheirPlaces) {
  const auto rule = default_rule("mnemosyne");
  const at::Tensor whole = rule->weights()[0].second;
  std::vector<std::string> rows = step_output_names(), columns = step_feature_names();
  // Without one output and two features, in another order.
  const std::string path = temporary("axes.safetensors");
  const std::vector<int64_t> kept_rows{2, 0, 1, 3, 4, 5, 7, 8};
  std::vector<int64_t> kept_columns;
  for (int64_t c = whole.size(1) - 1; c >= 0; --c) {
    if (c != 4 && c != 11) kept_columns.push_back(c);
  }
  std::vector<std::string> row_names, column_names;
  for (const int64_t r : kept_rows) row_names.push_back(rows[static_cast<size_t>(r)]);
  for (const int64_t c : kept_columns) column_names.push_back(columns[static_cast<size_t>(c)]);
  write_with_axes(path, axes_text(row_names, column_names), [&](const at::Tensor& controller) {
    return controller.index_select(0, at::tensor(kept_rows))
        .index_select(1, at::tensor(kept_columns));
  });
  at::Tensor expected = whole.clone();
  expected.select(0, 6).zero_();
  expected.select(1, 4).zero_();
  expected.select(1, 11).zero_();
  EXPECT_TRUE(identical(load_rule(path)->weights()[0].second, expected));
}

TEST(WeightAxes, OfFilesWithoutThemAreThoseOfThisVersion) {
  const std::string path = temporary("no_axes.safetensors");
  write_with_axes(path, "", [](const at::Tensor& controller) { return controller; });
  EXPECT_TRUE(identical(load_rule(path)->weights()[0].second,
                        default_rule("mnemosyne")->weights()[0].second));
  write_with_axes(path, "", [](const at::Tensor& c) { return c.narrow(1, 0, 5); });
  refusal(path);
}

TEST(WeightAxes, ThatDoNotFitAreRefused) {
  const std::string path = temporary("bad_axes.safetensors");
  std::vector<std::string> rows = step_output_names(), columns = step_feature_names();
  const auto same = [](const at::Tensor& controller) { return controller; };
  columns[3] = "phase_of_the_moon";
  write_with_axes(path, axes_text(rows, columns), same);
  EXPECT_NE(refusal(path).find("phase_of_the_moon"), std::string::npos);
  columns.pop_back();
  for (const std::string& axes :
       {axes_text(rows, columns), axes_text(rows, {"one"}), std::string("[1, 2"),
        std::string(R"({"controller": 3})"), std::string(R"({"controller": [[1]]})"),
        std::string(R"({"controller": [["step"]]})"), std::string("[]")}) {
    write_with_axes(path, axes, same);
    refusal(path);
  }
}

TEST(WeightAxes, AreInTheFilesOfTheLibrary) {
  const std::string_view bytes = embedded_file("mnemosyne.safetensors");
  const io::TensorFile file = io::parse_safetensors(bytes, "mnemosyne.safetensors");
  const WeightAxes axes = read_axes(file.metadata.at("axes"), "mnemosyne.safetensors");
  const auto& [name, stored] = file.tensors.at(0);
  const std::vector<std::vector<std::string>>& names = axes.at(name);
  ASSERT_EQ(names.size(), 2u);
  EXPECT_EQ(static_cast<int64_t>(names[0].size()), stored.size(0));
  EXPECT_EQ(static_cast<int64_t>(names[1].size()), stored.size(1));
  const auto rule = default_rule("mnemosyne");
  EXPECT_TRUE(identical(rule->weights()[0].second,
                        align_axes(stored, names, rule->weight_axes().at(name), name)));
}

}  // namespace
}  // namespace mnemosyne::optim
