#include "mnemosyne/optim/weights.h"

#include <ATen/ops/isfinite.h>

#include "mnemosyne/core/embedded.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/io/safetensors.h"
#include "mnemosyne/optim/rules.h"

namespace mnemosyne::optim {
namespace {

constexpr char kFormat[] = "mnemosyne-rule";
constexpr char kVersion[] = "1";
constexpr char kAxes[] = "axes";
constexpr char kFileSuffix[] = ".safetensors";

std::string metadata_value(const io::TensorFile& file, const std::string& key) {
  const auto found = file.metadata.find(key);
  return found == file.metadata.end() ? "" : found->second;
}

// One line and no more of a text that comes from a file.
std::string excerpt(const std::string& text) {
  std::string line = text.substr(0, 80);
  for (char& c : line) {
    if (c < ' ' || c > '~') c = '?';
  }
  return "\"" + line + "\"";
}

void check_metadata(const io::TensorFile& file, const std::string& key, const std::string& expected,
                    const std::string& source) {
  const std::string value = metadata_value(file, key);
  if (value == expected) return;
  throw InputError("[load_rule] expected " + source + " to have " + key + " \"" + expected +
                   "\", got " + excerpt(value));
}

// The file's tensors as weights for `rule`, in the dtypes that this has.
NamedTensors checked_weights(const io::TensorFile& file, const UpdateRule& rule,
                             const std::string& source) {
  NamedTensors weights = rule.weights();
  const WeightAxes stored_axes = read_axes(metadata_value(file, kAxes), source);
  const WeightAxes own_axes = rule.weight_axes();
  if (file.tensors.size() != weights.size()) {
    throw InputError("[load_rule] expected " + std::to_string(weights.size()) + " tensors, got " +
                     std::to_string(file.tensors.size()));
  }
  for (auto& [name, tensor] : weights) {
    const at::Tensor& stored = find(file.tensors, name);
    if (!stored.is_floating_point() || !at::isfinite(stored).all().item<bool>()) {
      throw InputError("[load_rule] expected finite floating-point values in \"" + name +
                       "\", got others");
    }
    const bool wide = stored.scalar_type() == at::kDouble;
    tensor = wide ? stored : stored.to(tensor.scalar_type());
    const auto from = stored_axes.find(name), to = own_axes.find(name);
    if (from != stored_axes.end() && to != own_axes.end()) {
      tensor = align_axes(tensor, from->second, to->second, name);
    }
  }
  return weights;
}

std::shared_ptr<UpdateRule> make_loaded(const io::TensorFile& file, const std::string& source) {
  check_metadata(file, "format", kFormat, source);
  check_metadata(file, "version", kVersion, source);
  try {
    auto rule = make_rule(metadata_value(file, "rule"), metadata_value(file, "options"));
    const NamedTensors weights = checked_weights(file, *rule, source);
    return weights.empty() ? rule : rule->with_weights(weights);
  } catch (const InputError& error) {
    throw InputError("[load_rule] expected " + source +
                     " to hold an optimizer: " + std::string(error.what()));
  }
}

// FNV-1a over byte strings, each preceded by its length so that no two lists look alike.
class Fingerprint {
 public:
  void add(const void* data, size_t size) {
    const auto length = static_cast<uint64_t>(size);
    for (int shift = 0; shift < 64; shift += 8)
      add_byte(static_cast<unsigned char>(length >> shift));
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < size; ++i) add_byte(bytes[i]);
  }

  void add(const std::string& text) { add(text.data(), text.size()); }

  std::string hex() const {
    std::string digits;
    for (int shift = 60; shift >= 0; shift -= 4) digits += "0123456789abcdef"[hash_ >> shift & 15];
    return digits;
  }

 private:
  void add_byte(unsigned char byte) { hash_ = (hash_ ^ byte) * 0x100000001b3u; }

  uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace

std::shared_ptr<UpdateRule> load_rule(const std::string& path) {
  return make_loaded(io::read_safetensors(path), path);
}

void save_rule(const std::string& path, const UpdateRule& rule,
               const std::map<std::string, std::string>& metadata) {
  std::map<std::string, std::string> all{{"format", kFormat},
                                         {"version", kVersion},
                                         {"rule", rule.name()},
                                         {"options", rule.options_json()}};
  const std::string axes = write_axes(rule.weight_axes());
  if (!axes.empty()) all.emplace(kAxes, axes);
  for (const auto& [key, value] : metadata) {
    if (!all.emplace(key, value).second) {
      throw InputError("[save_rule] expected metadata without the key \"" + key + "\", got it");
    }
  }
  io::write_safetensors(path, rule.weights(), all);
}

std::shared_ptr<UpdateRule> default_rule(const std::string& name) {
  const std::string file_name = name + kFileSuffix;
  const std::string_view bytes = embedded_file(file_name);
  if (!bytes.empty()) return make_loaded(io::parse_safetensors(bytes, file_name), file_name);
  std::string known;
  for (const std::string& own : default_rule_names()) known += (known.empty() ? "" : ", ") + own;
  throw InputError("[default_rule] expected an optimizer with weights in the library (" +
                   (known.empty() ? "none" : known) + "), got " + excerpt(name));
}

std::vector<std::string> default_rule_names() {
  std::vector<std::string> names;
  for (const std::string& file : embedded_files()) {
    if (!file.ends_with(kFileSuffix)) continue;
    names.push_back(file.substr(0, file.size() - sizeof(kFileSuffix) + 1));
  }
  return names;
}

std::string weights_hash(const UpdateRule& rule) {
  Fingerprint fingerprint;
  fingerprint.add(rule.name());
  fingerprint.add(rule.options_json());
  const WeightAxes axes = rule.weight_axes();
  for (const auto& [name, tensor] : rule.weights()) {
    at::Tensor values = tensor.detach().to(at::kCPU);
    if (const auto named = axes.find(name); named != axes.end()) {
      values = without_zeros(values, named->second);
    }
    values = values.contiguous();
    fingerprint.add(name);
    fingerprint.add(at::toString(values.scalar_type()));
    fingerprint.add(values.sizes().data(), values.sizes().size() * sizeof(int64_t));
    fingerprint.add(values.const_data_ptr(), values.nbytes());
  }
  return fingerprint.hex();
}

}  // namespace mnemosyne::optim
