#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace mnemosyne::optim {

/// Names the fields of an options struct, one after the other. A rule lists its fields once, in a
/// `bind` function, and gets both directions of its JSON form from it:
///
///     void bind(OptionVisitor& visit, SgdOptions& options) {
///       visit("momentum", options.momentum);
///       visit("nesterov", options.nesterov);
///     }
///     const auto options = read_options<SgdOptions>("sgd", R"({"momentum": 0.8})");
///     const std::string json = write_options(options);
class OptionVisitor {
 public:
  virtual ~OptionVisitor() = default;
  virtual void operator()(const std::string& name, bool& value) = 0;
  virtual void operator()(const std::string& name, int64_t& value) = 0;
  virtual void operator()(const std::string& name, double& value) = 0;
  virtual void operator()(const std::string& name, std::string& value) = 0;
};

/// Sets the fields that a JSON object has and leaves the others alone. Everything that is wrong
/// with the text is an InputError of one line: no object, a value of another type, a key that no
/// field has.
class OptionReader : public OptionVisitor {
 public:
  OptionReader(std::string rule_name, const std::string& json);
  ~OptionReader() override;
  void operator()(const std::string& name, bool& value) override;
  void operator()(const std::string& name, int64_t& value) override;
  void operator()(const std::string& name, double& value) override;
  void operator()(const std::string& name, std::string& value) override;

  /// Call this after the last field: throws for a key that was not asked for.
  void finish() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Collects the fields as a JSON object; doubles keep every bit.
class OptionWriter : public OptionVisitor {
 public:
  void operator()(const std::string& name, bool& value) override;
  void operator()(const std::string& name, int64_t& value) override;
  void operator()(const std::string& name, double& value) override;
  void operator()(const std::string& name, std::string& value) override;
  std::string json() const;

 private:
  std::map<std::string, std::string> fields_;  // name to the value's JSON text
};

/// `defaults` with the fields of the JSON object in place; needs
/// `bind(OptionVisitor&, Options&)` in the namespace of Options (not an unnamed one).
template <typename Options>
Options read_options(const std::string& rule_name, const std::string& json, Options defaults = {}) {
  OptionReader reader(rule_name, json);
  bind(reader, defaults);
  reader.finish();
  return defaults;
}

/// The inverse of `read_options`.
template <typename Options>
std::string write_options(Options options) {
  OptionWriter writer;
  bind(writer, options);
  return writer.json();
}

/// InputError "[rule] expected `name` ..., got value" unless `holds`.
void check_option(bool holds, const std::string& rule_name, const std::string& expectation,
                  double value);

}  // namespace mnemosyne::optim
