#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace mnemosyne {

/// One option of a struct: its name, where its value stands, and a line about it for --help.
struct Field {
  using Value = std::variant<bool*, int64_t*, uint64_t*, double*, std::string*,
                             std::vector<int64_t>*, std::vector<double>*, std::vector<std::string>*,
                             std::optional<uint64_t>*, std::optional<double>*>;

  std::string name;
  Value value;
  std::string description;
  bool later = false;  ///< Written only where it is not the default.
};

/// The options of a struct, as its visitor names them, one line each:
///
///     void bind(Fields& visit, SgdOptions& options) {
///       visit("momentum", options.momentum);
///       visit("nesterov", options.nesterov);
///     }
///     const auto options = read_options<SgdOptions>("sgd", R"({"momentum": 0.8})");
///     const std::string json = write_options(options);
///
/// Everything that reads options from somewhere or writes them is derived from that: JSON here, the
/// dictionaries of Python, the metadata of files, the command line. A struct within another one is
/// visited by its own visitor: `bind(visit, options.base)`. Names that stand for two members are an
/// error of the visitor, std::logic_error.
class Fields {
 public:
  template <typename T>
  void operator()(std::string name, T& value, std::string description = {}) {
    add({std::move(name), &value, std::move(description)});
  }

  /// An option that came to a struct whose written form identifies things (weights_hash): left out
  /// of it at its default, so that what was made before it keeps its identity.
  template <typename T>
  void later(std::string name, T& value) {
    add({.name = std::move(name), .value = &value, .description = {}, .later = true});
  }

  auto begin() const { return list_.begin(); }
  auto end() const { return list_.end(); }

  std::vector<std::string> names() const;

 private:
  void add(Field field);

  std::vector<Field> list_;
};

/// The fields of `options`, which has to live as long as they do; needs `bind(Fields&, Options&)`
/// in the namespace of Options (not an unnamed one).
template <typename Options>
Fields fields_of(Options& options) {
  Fields fields;
  bind(fields, options);
  return fields;
}

/// Sets the fields that a JSON object has and leaves the others alone. Everything that is wrong
/// with the text is an InputError of one line: no object, a value of another type, a key that no
/// field has.
void read_json(const std::string& where, const std::string& json, const Fields& fields);

/// A JSON object, sorted by name; doubles keep every bit, what is not set is null. Fields that are
/// `later` ones are left out where they are as in `defaults`, the fields of the same struct.
std::string write_json(const Fields& fields, const Fields& defaults = {});

/// `defaults` with the fields of the JSON object in place.
template <typename Options>
Options read_options(const std::string& where, const std::string& json, Options defaults = {}) {
  read_json(where, json, fields_of(defaults));
  return defaults;
}

/// The inverse of `read_options`.
template <typename Options>
std::string write_options(Options options) {
  Options defaults;
  return write_json(fields_of(options), fields_of(defaults));
}

}  // namespace mnemosyne
