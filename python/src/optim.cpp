#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "mnemosyne/ops/raw_view.h"
#include "mnemosyne/optim/deferred_count.h"
#include "mnemosyne/optim/mnemosyne.h"
#include "mnemosyne/optim/rules.h"
#include "mnemosyne/optim/update_rule.h"
#include "mnemosyne/optim/weights.h"

namespace mnemosyne::python {
namespace {

using optim::UpdateRule;
using Tensors = std::vector<at::Tensor>;

py::dict to_dict(const NamedTensors& tensors) {
  py::dict result;
  for (const auto& [name, tensor] : tensors) result[py::str(name)] = tensor;
  return result;
}

NamedTensors from_dict(const py::dict& dict) {
  NamedTensors result;
  for (const auto& [name, tensor] : dict) {
    result.emplace_back(name.cast<std::string>(), tensor.cast<at::Tensor>());
  }
  return result;
}

using States = std::vector<optim::ParamState>;

/// What a step has put in the place of a tensor of the state: parameter, place, tensor.
using Replaced = std::vector<std::tuple<size_t, size_t, at::Tensor>>;

std::tuple<Replaced, Tensors, int64_t> step(
    const UpdateRule& rule, const Tensors& grads, States states, const Tensors& params, double lr,
    std::optional<double> weight_decay, std::optional<int64_t> num_steps,
    std::optional<double> momentum, optim::DeferredCount* fallbacks, optim::DeferredCount* damped,
    const Tensors& shared, const std::optional<at::Tensor>& lr_factor,
    const std::optional<at::Tensor>& weight_decay_factor) {
  optim::State state(states);
  state.shared = shared;
  rule.step_(grads, state, params,
             {.lr = lr,
              .weight_decay = weight_decay,
              .num_steps = num_steps,
              .momentum = momentum,
              .lr_factor = lr_factor.value_or(at::Tensor()),
              .weight_decay_factor = weight_decay_factor.value_or(at::Tensor()),
              .fallbacks = fallbacks,
              .damped = damped});
  Replaced replaced;
  int64_t last = 0;
  for (size_t i = 0; i < states.size(); ++i) {
    last = std::max(last, optim::step_count(state[i]));
    for (size_t k = 0; k < states[i].size(); ++k) {
      if (!state[i][k].is_same(states[i][k])) replaced.emplace_back(i, k, state[i][k]);
    }
  }
  return {std::move(replaced), state.shared, last};
}

bool has_states(const UpdateRule& rule, const States& states, const Tensors& params) {
  if (states.size() != params.size()) return false;
  for (size_t i = 0; i < params.size(); ++i) {
    if (!optim::is_in_place(rule.state_layout(params[i]), states[i], params[i])) return false;
  }
  return true;
}

py::list state_layout(const UpdateRule& rule, const at::Tensor& param) {
  py::list result;
  for (const optim::StateEntry& entry : rule.state_layout(param)) {
    result.append(py::make_tuple(
        entry.name,
        py::tuple(py::cast(std::vector<int64_t>(entry.shape.begin(), entry.shape.end()))),
        entry.dtype, entry.on_host, entry.like_param));
  }
  return result;
}

// Python's optimizers own rules that nobody changes.
std::shared_ptr<UpdateRule> elementwise(const std::shared_ptr<UpdateRule>& rule) {
  const auto other = rule->elementwise();
  return other == nullptr ? rule : std::const_pointer_cast<UpdateRule>(other);
}

std::shared_ptr<UpdateRule> mnemosyne_rule(const std::string& weights, const std::string& variant,
                                           bool learned) {
  return optim::mnemosyne_rule({.weights = weights, .variant = variant, .learned = learned});
}

void save(const std::string& path, const UpdateRule& rule,
          const std::map<std::string, std::string>& metadata) {
  optim::save_rule(path, rule, metadata);
}

Tensors parts(const at::Tensor& flat, const std::vector<int64_t>& sizes) {
  const int64_t total = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  TORCH_CHECK(flat.dim() == 1 && flat.size(0) == total && flat.is_contiguous(),
              "[parts] expected a contiguous tensor of shape [", total, "], got ", flat.sizes());
  Tensors result;
  int64_t offset = 0;
  for (const int64_t size : sizes) {
    result.push_back(ops::raw_view(flat, {size}, offset));
    offset += size;
  }
  return result;
}

Tensors clean(Tensors grads, optim::DeferredCount& nonfinite) {
  optim::clean_gradients(grads, nonfinite);
  return grads;
}

}  // namespace

void bind_optim(py::module_& module) {
  using py::arg;
  const py::call_guard<py::gil_scoped_release> without_gil;

  py::class_<optim::DeferredCount>(module, "DeferredCount",
                                   "A count to which devices add without anybody waiting for them.")
      .def(py::init<int64_t>(), arg("total") = 0)
      .def("total", &optim::DeferredCount::total, without_gil, "Waits for the device, if any.");

  py::class_<UpdateRule, std::shared_ptr<UpdateRule>>(
      module, "Rule", "An optimizer as a pure function of gradients, state and parameters.")
      .def_property_readonly("name", &UpdateRule::name)
      .def_property_readonly("options", &UpdateRule::options_json,
                             "What `make_rule` needs beside the name: a JSON object.")
      .def_property_readonly("state_names", &UpdateRule::state_names,
                             "Names of the tensors of one parameter's state, \"step\" first.")
      .def("state_layout", &state_layout, arg("param"),
           "What the state of a parameter of this shape and dtype has to be: (name, shape, dtype,\n"
           "whether it belongs on the CPU, whether it is shaped like the parameter) by tensor.")
      .def_property_readonly(
          "shared_names",
          [](const UpdateRule& rule) {
            std::vector<std::string> names;
            for (const optim::StateEntry& entry : rule.shared_layout()) names.push_back(entry.name);
            return names;
          },
          "Names of the tensors of the state that belongs to a list of parameters.")
      .def_property_readonly("default_lr", &UpdateRule::default_lr)
      .def_property_readonly("default_weight_decay", &UpdateRule::default_weight_decay)
      .def_property_readonly("default_momentum", &UpdateRule::default_momentum,
                             "None for a rule without a momentum that can be changed.")
      .def("elementwise", &elementwise,
           "The rule for parameters whose entries must not move one another.")
      .def("has_states", &has_states, arg("states"), arg("params"),
           "Whether these are states of these parameters, contiguous and where they belong.")
      .def("init", &UpdateRule::init, arg("param"), without_gil,
           "The state of one parameter before its first step.")
      .def(
          "step_", &step, arg("grads"), arg("states"), arg("params"), arg("lr"),
          arg("weight_decay") = py::none(), arg("num_steps") = py::none(),
          arg("momentum") = py::none(), arg("fallbacks") = py::none(), arg("damped") = py::none(),
          arg("shared") = Tensors(), arg("lr_factor") = py::none(),
          arg("weight_decay_factor") = py::none(), without_gil,
          "One step: writes `params` and the tensors of `states`, but for those that others have\n"
          "taken the place of: it returns these, as (parameter, place in its state, tensor), with\n"
          "`shared`, the state of the list, empty before the first step, and the largest number\n"
          "of steps that a parameter has had.\n"
          "`fallbacks` and `damped`, each a DeferredCount, count updates that were not finite and\n"
          "tensors that the guard held. The factors are\n"
          "tensors with one number on the device of the parameters, which are not read.")
      .def(
          "weights", [](const UpdateRule& rule) { return to_dict(rule.weights()); },
          "The learned weights by name; empty for hand-designed rules.")
      .def(
          "with_weights",
          [](const UpdateRule& rule, const py::dict& weights) {
            return rule.with_weights(from_dict(weights));
          },
          arg("weights"), "The same rule with other weights.")
      .def_property_readonly(
          "hash", [](const UpdateRule& rule) { return optim::weights_hash(rule); },
          "Identifies the rule with its weights; part of every checkpoint.");

  module.def("rule_names", &optim::rule_names);
  module.def("make_rule", &optim::make_rule, arg("name"), arg("options_json") = "{}",
             "The rule called `name`; the weights of a learned one are untrained.");
  module.def("default_rule", &optim::default_rule, arg("name"),
             "A learned rule with the weights that come with the library.");
  module.def("load_rule", &optim::load_rule, arg("path"), "A rule from a weights file.");
  module.def("save_rule", &save, arg("path"), arg("rule"), arg("metadata") = py::dict(),
             "Writes a weights file, with free text beside it.");
  module.def("mnemosyne_rule", &mnemosyne_rule, arg("weights") = "default", arg("variant") = "",
             arg("learned") = true, "The rule of `mnemosyne.optim.Mnemosyne`.");
  module.def("clean_gradients", &clean, arg("grads"), arg("nonfinite"), without_gil,
             "Gradients without NaN and infinities, which are counted; the given tensors are not\n"
             "written to.");

  module.def("parts", &parts, arg("flat"), arg("sizes"),
             "Views of a flat tensor, one behind the other, without torch's dispatcher.");
}

}  // namespace mnemosyne::python
