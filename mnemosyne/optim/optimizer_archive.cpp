#include "mnemosyne/optim/optimizer_archive.h"

#include <torch/serialize/archive.h>

#include "mnemosyne/core/error.h"
#include "mnemosyne/optim/weights.h"

namespace mnemosyne::optim {
namespace {

using c10::IValue;
using torch::serialize::InputArchive;
using torch::serialize::OutputArchive;

constexpr char kFormat[] = "mnemosyne-optimizer-1";
constexpr char kLoad[] = "RuleOptimizer::load";

[[noreturn]] void refuse(const std::string& expected, const std::string& got) {
  throw InputError("[" + std::string(kLoad) + "] expected " + expected + ", got " + got);
}

IValue read_value(InputArchive& archive, const std::string& key) {
  IValue value;
  if (!archive.try_read(key, value)) refuse("a checkpoint with \"" + key + "\"", "none");
  return value;
}

// What archives of earlier versions do not have.
IValue read_if_there(InputArchive& archive, const std::string& key) {
  IValue value;
  archive.try_read(key, value);
  return value;
}

int64_t read_int(InputArchive& archive, const std::string& key) {
  const IValue value = read_value(archive, key);
  if (!value.isInt()) refuse("a whole number as \"" + key + "\"", value.tagKind());
  return value.toInt();
}

InputArchive read_archive(InputArchive& archive, const std::string& key) {
  InputArchive child;
  if (!archive.try_read(key, child)) refuse("a checkpoint with \"" + key + "\"", "none");
  return child;
}

void check_text(InputArchive& archive, const std::string& key, const std::string& expected) {
  const IValue value = read_value(archive, key);
  const std::string text = value.isString() ? value.toStringRef() : value.tagKind();
  if (text != expected) refuse(key + " " + expected, text.substr(0, 80));
}

/// A count that archives have had since there is such a one; 0 before.
int64_t read_count_if_there(InputArchive& archive, const std::string& key) {
  return read_if_there(archive, key).isNone() ? 0 : read_int(archive, key);
}

void check_count(InputArchive& archive, const std::string& key, size_t expected) {
  const int64_t count = read_int(archive, key);
  if (count != static_cast<int64_t>(expected)) {
    refuse(key + " = " + std::to_string(expected), std::to_string(count));
  }
}

std::string tensor_key(size_t index) { return "tensor" + std::to_string(index); }

void write_param(OutputArchive& archive, const ParamState& tensors) {
  archive.write("num_tensors", IValue(static_cast<int64_t>(tensors.size())));
  for (size_t k = 0; k < tensors.size(); ++k) {
    archive.write(tensor_key(k), tensors[k], /*is_buffer=*/true);
  }
}

// Empty when the parameter never had a step. Values go into tensors of the rule's own making, so
// that device and layout are those it works with.
ParamState read_param(InputArchive& archive, const at::Tensor& param, const UpdateRule& rule,
                      const std::string& param_name) {
  const int64_t count = read_int(archive, "num_tensors");
  if (count == 0) return {};
  const StateLayout layout = rule.state_layout(param);
  ParamState stored(layout.size());
  check_count(archive, "num_tensors", layout.size());
  for (size_t k = 0; k < layout.size(); ++k) {
    if (!archive.try_read(tensor_key(k), stored[k], /*is_buffer=*/true)) {
      refuse("a checkpoint with state \"" + layout[k].name + "\"", "none");
    }
  }
  check_state(layout, stored, kLoad, param_name);
  ParamState state = rule.init(param);
  for (size_t k = 0; k < layout.size(); ++k) state[k].copy_(stored[k]);
  return state;
}

// Empty where the group had no step, the rule has no such state, or the archive is of a version
// that had none.
std::vector<at::Tensor> read_shared(InputArchive& group, const UpdateRule& rule,
                                    const std::vector<at::Tensor>& params,
                                    const std::string& group_name) {
  InputArchive archive;
  if (!group.try_read("shared", archive)) return {};
  const int64_t count = read_int(archive, "num_tensors");
  const StateLayout layout = rule.shared_layout();
  if (count == 0 || params.empty()) return {};
  check_count(archive, "num_tensors", layout.size());
  std::vector<at::Tensor> stored(layout.size());
  for (size_t k = 0; k < layout.size(); ++k) {
    if (!archive.try_read(tensor_key(k), stored[k], /*is_buffer=*/true)) {
      refuse("a checkpoint with state \"" + layout[k].name + "\"", "none");
    }
  }
  check_state(layout, stored, kLoad, group_name);
  std::vector<at::Tensor> shared = zero_state(layout, params[0]);
  for (size_t k = 0; k < layout.size(); ++k) shared[k].copy_(stored[k]);
  return shared;
}

// Options from an archive of an earlier version, which took a weight decay of 0 for the rule's own
// and had two options less.
void complete_old(RuleOptions& options, const RuleOptions& own, const UpdateRule& rule) {
  if (options.weight_decay() == 0.0) options.weight_decay(rule.default_weight_decay());
  options.momentum(own.momentum());
  options.orthogonal(own.orthogonal());
}

}  // namespace

void RuleOptions::serialize(OutputArchive& archive) const {
  archive.write("lr", IValue(lr()));
  archive.write("weight_decay", IValue(weight_decay()));
  archive.write("num_steps", IValue(num_steps()));
  archive.write("momentum", IValue(momentum()));
  archive.write("orthogonal", IValue(orthogonal()));
}

void RuleOptions::serialize(InputArchive& archive) {
  const auto number = [](const IValue& value, const std::string& key) -> std::optional<double> {
    if (value.isNone()) return std::nullopt;
    if (!value.isDouble()) refuse("a number as \"" + key + "\"", value.tagKind());
    return value.toDouble();
  };
  lr(number(read_value(archive, "lr"), "lr"));
  weight_decay(number(read_value(archive, "weight_decay"), "weight_decay"));
  const IValue steps = read_value(archive, "num_steps");
  if (!steps.isNone() && !steps.isInt()) refuse("a whole number as \"num_steps\"", steps.tagKind());
  num_steps(steps.toOptional<int64_t>());
  momentum(number(read_if_there(archive, "momentum"), "momentum"));
  const IValue flag = read_if_there(archive, "orthogonal");
  if (!flag.isNone() && !flag.isBool()) refuse("true or false as \"orthogonal\"", flag.tagKind());
  orthogonal(flag.toOptional<bool>());
}

void write_optimizer(OutputArchive& archive, const RuleOptimizer& optimizer) {
  archive.write("format", IValue(std::string(kFormat)));
  archive.write("rule", IValue(optimizer.rule().name()));
  archive.write("weights_hash", IValue(weights_hash(optimizer.rule())));
  archive.write("nonfinite_count", IValue(optimizer.nonfinite_count()));
  archive.write("overrun_count", IValue(optimizer.overrun_count()));
  archive.write("fallback_count", IValue(optimizer.fallback_count()));
  archive.write("damped_count", IValue(optimizer.damped_count()));
  const auto& groups = optimizer.param_groups();
  archive.write("num_groups", IValue(static_cast<int64_t>(groups.size())));
  for (size_t g = 0; g < groups.size(); ++g) {
    OutputArchive group(archive.compilation_unit());
    groups[g].options().serialize(group);
    const std::vector<at::Tensor>& params = groups[g].params();
    group.write("num_params", IValue(static_cast<int64_t>(params.size())));
    for (size_t i = 0; i < params.size(); ++i) {
      OutputArchive param(archive.compilation_unit());
      const auto found = optimizer.state().find(params[i].unsafeGetTensorImpl());
      const bool known = found != optimizer.state().end();
      write_param(
          param, known ? static_cast<const RuleParamState&>(*found->second).tensors : ParamState{});
      group.write("param" + std::to_string(i), param);
    }
    OutputArchive shared(archive.compilation_unit());
    write_param(shared, optimizer.shared_state(g));
    group.write("shared", shared);
    archive.write("group" + std::to_string(g), group);
  }
}

LoadedOptimizer read_optimizer(InputArchive& archive, const RuleOptimizer& optimizer) {
  check_text(archive, "format", kFormat);
  check_text(archive, "rule", optimizer.rule().name());
  check_text(archive, "weights_hash", weights_hash(optimizer.rule()));
  LoadedOptimizer loaded;
  loaded.nonfinite_count = read_int(archive, "nonfinite_count");
  const bool old = read_if_there(archive, "overrun_count").isNone();
  loaded.overrun_count = read_count_if_there(archive, "overrun_count");
  loaded.fallback_count = read_count_if_there(archive, "fallback_count");
  loaded.damped_count = read_count_if_there(archive, "damped_count");
  const auto& groups = optimizer.param_groups();
  check_count(archive, "num_groups", groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    InputArchive group = read_archive(archive, "group" + std::to_string(g));
    RuleOptions& options = loaded.options.emplace_back();
    options.serialize(group);
    const auto& own = static_cast<const RuleOptions&>(groups[g].options());
    if (own.num_steps()) options.num_steps(own.num_steps());
    if (old) complete_old(options, own, optimizer.rule());
    const std::shared_ptr<const UpdateRule> rule = optimizer.rule_of(options);
    const std::vector<at::Tensor>& params = groups[g].params();
    check_count(group, "num_params", params.size());
    loaded.shared_states[g] = read_shared(group, *rule, params, "group " + std::to_string(g));
    for (size_t i = 0; i < params.size(); ++i) {
      InputArchive param = read_archive(group, "param" + std::to_string(i));
      ParamState state =
          read_param(param, params[i], *rule,
                     "parameter " + std::to_string(i) + " of group " + std::to_string(g));
      if (state.empty()) continue;
      loaded.state[params[i].unsafeGetTensorImpl()] =
          std::make_unique<RuleParamState>(std::move(state));
    }
  }
  return loaded;
}

}  // namespace mnemosyne::optim
