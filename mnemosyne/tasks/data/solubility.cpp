#include "mnemosyne/tasks/data/solubility.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <vector>

#include "mnemosyne/io/line_reader.h"
#include "mnemosyne/tasks/data/bytes.h"

namespace mnemosyne::tasks {
namespace {

constexpr int64_t kEvery = 10;
constexpr const char* kTarget = "measured log solubility in mols per litre";
constexpr const char* kSmiles = "smiles";
constexpr std::array kNumbers = {
    "Minimum Degree",  "Molecular Weight",          "Number of H-Bond Donors",
    "Number of Rings", "Number of Rotatable Bonds", "Polar Surface Area"};

/// The fields of a line; one in quotes may have commas, and quotes twice.
std::vector<std::string> split(std::string_view line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += line[++i];
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  return fields;
}

/// Reads rows by the names of the header.
class Reader {
 public:
  explicit Reader(const std::string& path) : lines_(io::open_unpacked(path)) {
    std::string_view line;
    if (lines_.next(line)) header_ = split(line);
    for (const char* name : kNumbers) number_columns_.push_back(column(name));
    target_column_ = column(kTarget);
    smiles_column_ = column(kSmiles);
  }

  /// Appends the numbers of the next molecule and its solubility; false at the end.
  bool next(std::vector<float>& inputs, std::vector<float>& targets) {
    std::string_view line;
    if (!lines_.next(line)) return false;
    const std::vector<std::string> fields = split(line);
    if (fields.size() != header_.size()) {
      refuse_data(lines_.place(), std::to_string(header_.size()) + " fields",
                  std::to_string(fields.size()));
    }
    for (const size_t i : number_columns_) inputs.push_back(number(fields[i]));
    const std::string& smiles = fields[smiles_column_];
    for (const char c : kCountedInSmiles) {
      inputs.push_back(static_cast<float>(std::count(smiles.begin(), smiles.end(), c)));
    }
    targets.push_back(number(fields[target_column_]));
    return true;
  }

 private:
  size_t column(const std::string& name) const {
    const auto found = std::find(header_.begin(), header_.end(), name);
    if (found == header_.end()) refuse_data(lines_.name(), "a column \"" + name + "\"", "none");
    return static_cast<size_t>(found - header_.begin());
  }

  float number(const std::string& text) const {
    float value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
      refuse_data(lines_.place(), "a number", "\"" + text + "\"");
    }
    return value;
  }

  io::LineReader lines_;
  std::vector<std::string> header_;
  std::vector<size_t> number_columns_;
  size_t target_column_ = 0, smiles_column_ = 0;
};

}  // namespace

RowData read_solubility(const std::string& path) {
  Reader reader(path);
  std::vector<float> inputs, targets;
  int64_t count = 0;
  while (reader.next(inputs, targets)) ++count;
  if (count < kEvery) {
    refuse_data(path, "at least " + std::to_string(kEvery) + " molecules", std::to_string(count));
  }
  const at::Tensor held_out = at::arange(count, at::kLong).remainder(kEvery).eq(kEvery - 1);
  const at::Tensor kept = held_out.logical_not();
  RowData data;
  const auto part = [&](const std::vector<float>& values, at::Tensor& train, at::Tensor& test) {
    const at::Tensor table = at::tensor(values, at::kFloat).view({count, -1});
    const at::Tensor rows = table.index({kept});
    const at::Tensor mean = rows.mean(0), deviation = rows.std(0, /*unbiased=*/false);
    train = rows.sub(mean).div(deviation.clamp_min(1e-3));
    test = table.index({held_out}).sub(mean).div(deviation.clamp_min(1e-3));
  };
  part(inputs, data.train.inputs, data.test.inputs);
  part(targets, data.train.targets, data.test.targets);
  return data;
}

}  // namespace mnemosyne::tasks
