#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "make_module.h"
#include "mnemosyne/io/safetensors.h"
#include "mnemosyne/nn/causal_lm.h"
#include "mnemosyne/nn/feature_map.h"
#include "mnemosyne/nn/performer_block.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/nn/vit.h"
#include "mnemosyne/ops/untraced.h"
#include "module_handle.h"

namespace mnemosyne::python {
namespace {

using Handle = std::shared_ptr<ModuleHandle>;
using Optional = std::optional<at::Tensor>;
/// positions, has_position, key_padding_mask, context, context_positions, context_has_position.
using Inputs = std::array<Optional, 6>;

at::Tensor or_undefined(const Optional& x) { return x.value_or(at::Tensor()); }

nn::AttentionInputs read_inputs(const Inputs& x) {
  return {.positions = or_undefined(x[0]),
          .has_position = or_undefined(x[1]),
          .key_padding_mask = or_undefined(x[2]),
          .context = or_undefined(x[3]),
          .context_positions = or_undefined(x[4]),
          .context_has_position = or_undefined(x[5])};
}

/// The module of C++ on its own, with its own layers: what those of Python are tested against.
at::Tensor reference_forward(const Handle& handle, const std::vector<at::Tensor>& x,
                             const Inputs& given) {
  torch::nn::Module& module = handle->module();
  if (auto* points = dynamic_cast<nn::PointEncoderImpl*>(&module)) {
    return points->forward(x.at(0), x.at(1), x.size() > 2 ? x[2] : at::Tensor());
  }
  if (auto* vit = dynamic_cast<nn::ViTImpl*>(&module)) return vit->forward(x.at(0));
  if (auto* language = dynamic_cast<nn::CausalLMImpl*>(&module)) return language->forward(x.at(0));
  if (auto* block = dynamic_cast<nn::PerformerBlockImpl*>(&module)) {
    return block->forward(x.at(0), read_inputs(given));
  }
  return handle->as<nn::Attention>().forward(x.at(0), read_inputs(given));
}

using Metadata = std::map<std::string, std::string>;

std::pair<std::map<std::string, at::Tensor>, Metadata> read_safetensors(const std::string& path) {
  io::TensorFile file = io::read_safetensors(path);
  return {{file.tensors.begin(), file.tensors.end()}, std::move(file.metadata)};
}

void write_safetensors(const std::string& path, const std::map<std::string, at::Tensor>& tensors,
                       const Metadata& metadata) {
  io::write_safetensors(path, {tensors.begin(), tensors.end()}, metadata);
}

std::vector<std::string> drawn_feature_maps() {
  std::vector<std::string> names;
  for (const ops::FeatureMapTraits& map : ops::kFeatureMaps) {
    if (map.per_vector > 0) names.emplace_back(map.name);
  }
  return names;
}

/// None for maps without random vectors.
Optional draw_omega(const std::string& feature_map, int64_t num_features, int64_t dim,
                    uint64_t seed, at::Device device, at::ScalarType dtype) {
  const int64_t count = nn::num_omegas(nn::feature_map_kind(feature_map), num_features);
  if (count == 0) return {};
  at::Tensor omega;
  {
    const ops::Untraced numbers;
    omega = nn::draw_omega(count, dim, seed);
    if (!device.is_meta()) return omega.to(device, dtype);
  }
  return omega.to(device, dtype);
}

}  // namespace

void bind_nn(py::module_& module) {
  const py::call_guard<py::gil_scoped_release> without_gil;
  py::class_<ModuleHandle, Handle>(module, "Module",
                                   "A module of the library; its tensors are Python's.")
      .def_property_readonly("kind", &ModuleHandle::kind)
      .def_property_readonly("arguments", &arguments_of,
                             "Those of `make_module`, besides the kind, that give the same again.")
      .def_property_readonly("names", &ModuleHandle::names,
                             "Dotted names of parameters, then of buffers; not those of layers.")
      .def("take_parameters", &ModuleHandle::take_parameters)
      .def("parameters", &ModuleHandle::parameters, "Own parameters, without those of children.")
      .def("buffers", &ModuleHandle::buffers)
      .def("children", &ModuleHandle::children);
  module.def("make_module", &make_module, "A module of the library by its kind, from options.");
  module.def("reference_forward", &reference_forward, without_gil);
  module.def("read_safetensors", &read_safetensors, "(tensors by name, metadata) of a file.");
  module.def("write_safetensors", &write_safetensors);
  module.def("drawn_feature_maps", &drawn_feature_maps, "Those that have random vectors.");
  module.def("draw_omega", &draw_omega, "Random vectors [W, dim], or None.");
}

}  // namespace mnemosyne::python
