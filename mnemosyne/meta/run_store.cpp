#include "mnemosyne/meta/run_store.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>

#include "mnemosyne/core/error.h"
#include "mnemosyne/meta/checkpoint.h"

namespace mnemosyne::meta {
namespace {

// Labels hold what a user typed, a path for example.
std::string as_file_name(const std::string& label) {
  std::string name = label;
  for (char& c : name) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || c == '@' || c == '.' ||
                       c == '-' || c == '_' || c == '+' || c == ':';
    if (!plain) c = '_';
  }
  return name.front() == '.' ? "_" + name : name;
}

template <typename T>
at::Tensor to_tensor(const std::vector<T>& values) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())},
                                at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
  std::copy(values.begin(), values.end(), tensor.template data_ptr<T>());
  return tensor;
}

template <typename T>
std::vector<T> to_vector(const at::Tensor& tensor, const std::string& path) {
  if (tensor.scalar_type() != c10::CppTypeToScalarType<T>::value || tensor.dim() != 1) {
    throw InputError("[compare] " + path + ": expected a list of numbers of another type");
  }
  const T* data = tensor.const_data_ptr<T>();
  return {data, data + tensor.numel()};
}

// The file when it is there and was made by these settings.
std::optional<NamedTensors> load(const std::string& path, const std::string& settings) {
  if (!std::filesystem::exists(path)) return {};
  io::TensorFile file = load_checkpoint(path);
  if (file.metadata["settings"] != settings) return {};
  return std::move(file.tensors);
}

void save(const std::string& path, const std::string& settings, const NamedTensors& tensors) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (error) {
    throw InputError("[out] expected a folder that can be written to, got " + path + ": " +
                     error.message());
  }
  save_checkpoint(path, tensors, {{"settings", settings}});
}

}  // namespace

double RunRecord::area_under_curve() const {
  const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
  return std::isfinite(sum) ? sum / static_cast<double>(losses.size())
                            : std::numeric_limits<double>::infinity();
}

bool RunRecord::diverged() const {
  const double last = final_training_loss();
  return !std::isfinite(last) || last > losses.front();
}

std::string RunStore::path(const std::string& kind, const Key& key) const {
  return folder_ + "/" + kind + "/" + as_file_name(key.cell) + "/" + as_file_name(key.label) +
         "/seed" + std::to_string(key.seed) + ".safetensors";
}

std::optional<RunRecord> RunStore::load_run(const Key& key, const std::string& settings) const {
  const std::string file = path("curves", key);
  const auto tensors = folder_.empty() ? std::nullopt : load(file, settings);
  if (!tensors) return {};
  RunRecord run{.losses = to_vector<float>(find(*tensors, "loss"), file)};
  // Runs of earlier versions have no such curve, and are run again.
  const auto has_curve = [](const auto& named) { return named.first == "validation_losses"; };
  if (std::none_of(tensors->begin(), tensors->end(), has_curve)) return {};
  run.validation_losses = to_vector<float>(find(*tensors, "validation_losses"), file);
  const auto validation = to_vector<double>(find(*tensors, "validation"), file);
  if (validation.size() != 2 || run.losses.empty()) {
    throw InputError("[compare] " + file + ": expected losses and two validation values");
  }
  run.validation_loss = validation[0];
  run.validation_accuracy = validation[1];
  return run;
}

void RunStore::save_run(const Key& key, const std::string& settings, const RunRecord& run) const {
  if (folder_.empty()) return;
  const std::vector<double> validation{run.validation_loss, run.validation_accuracy};
  save(path("curves", key), settings,
       {{"loss", to_tensor(run.losses)},
        {"validation", to_tensor(validation)},
        {"validation_losses", to_tensor(run.validation_losses)}});
}

std::map<GridPoint, double> RunStore::load_tuning(const Key& key,
                                                  const std::string& settings) const {
  const std::string file = path("tuning", key);
  const auto tensors = folder_.empty() ? std::nullopt : load(file, settings);
  if (!tensors) return {};
  const auto half_decades = to_vector<int64_t>(find(*tensors, "half_decade"), file);
  const auto cosine = to_vector<int64_t>(find(*tensors, "cosine"), file);
  const auto losses = to_vector<double>(find(*tensors, "final_loss"), file);
  if (cosine.size() != losses.size() || half_decades.size() != losses.size()) {
    throw InputError("[compare] " + file + ": expected three lists of one length");
  }
  std::map<GridPoint, double> result;
  for (size_t i = 0; i < losses.size(); ++i) {
    const Schedule schedule = cosine[i] != 0 ? Schedule::kCosine : Schedule::kConstant;
    result[{static_cast<int>(half_decades[i]), schedule}] = losses[i];
  }
  return result;
}

void RunStore::save_tuning(const Key& key, const std::string& settings,
                           const std::map<GridPoint, double>& losses) const {
  if (folder_.empty()) return;
  std::vector<int64_t> half_decades;
  std::vector<int64_t> cosine;
  std::vector<double> values;
  for (const auto& [point, loss] : losses) {
    half_decades.push_back(point.half_decade);
    cosine.push_back(point.schedule == Schedule::kCosine ? 1 : 0);
    values.push_back(loss);
  }
  save(path("tuning", key), settings,
       {{"half_decade", to_tensor(half_decades)},
        {"cosine", to_tensor(cosine)},
        {"final_loss", to_tensor(values)}});
}

}  // namespace mnemosyne::meta
