#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
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
#include "module_handle.h"
#include "untraced.h"

namespace mnemosyne::python {
namespace {

using Handle = std::shared_ptr<ModuleHandle>;
using Optional = std::optional<at::Tensor>;
/// sums, normalizer, offset, last position, number of tokens so far, span of their positions.
using Memory = std::tuple<Optional, Optional, Optional, Optional, int64_t, Optional>;
/// In the order of nn::AttentionInputs.
using Inputs = std::array<Optional, 6>;
using Features = std::tuple<at::Tensor, at::Tensor, Optional>;

at::Tensor or_undefined(const Optional& x) { return x.value_or(at::Tensor()); }
Optional or_none(const at::Tensor& x) { return x.defined() ? Optional(x) : Optional(); }

nn::LinearAttentionMemory read_memory(const Memory& m) {
  return {.sums = {or_undefined(std::get<0>(m)), or_undefined(std::get<1>(m)),
                   or_undefined(std::get<2>(m))},
          .last = or_undefined(std::get<3>(m)),
          .length = std::get<4>(m),
          .span = or_undefined(std::get<5>(m))};
}

Memory write_memory(const nn::LinearAttentionMemory& m) {
  return {or_none(m.sums.sums),
          or_none(m.sums.normalizer),
          or_none(m.sums.offset),
          or_none(m.last),
          m.length,
          or_none(m.span)};
}

/// Calls `use` with the FourierPosition or DampedPosition of a handle.
template <typename Use>
auto with_position(const Handle& handle, Use use) {
  torch::nn::Module& module = handle->module();
  if (const auto* damped = dynamic_cast<nn::DampedPositionImpl*>(&module)) return use(*damped);
  return use(handle->as<nn::FourierPositionImpl>());
}

at::Tensor position_mask(const Handle& handle, const at::Tensor& offsets) {
  return with_position(handle, [&](const auto& p) { return p.mask(offsets); });
}

at::Tensor position_factor(const Handle& handle, const at::Tensor& offsets) {
  return with_position(handle, [&](const auto& p) { return p.factor(offsets); });
}

Features position_features(const Handle& handle, const at::Tensor& positions,
                           const Optional& has_position) {
  return with_position(handle, [&](const auto& p) -> Features {
    const auto [query, key, decay] = p.features(positions, or_undefined(has_position));
    return {query, key, or_none(decay)};
  });
}

/// (phi, psi, span): features of queries and keys, and the box around all keys so far. Keys without
/// positions of their own are the queries.
std::tuple<at::Tensor, at::Tensor, Optional> position_pair(const Handle& handle,
                                                           const at::Tensor& positions,
                                                           const Optional& key_positions,
                                                           const Optional& mask,
                                                           const Optional& span) {
  const auto& position = handle->as<nn::FourierPositionImpl>();
  nn::PlacedTokens keys{.positions = key_positions.value_or(positions).to(at::kDouble),
                        .mask = or_undefined(mask)};
  at::Tensor seen = or_undefined(span);
  ops::PositionFeatures features;
  if (key_positions.has_value()) {
    features = position.features({.positions = positions.to(at::kDouble)}, keys, seen);
  } else {
    features = position.features(keys, keys, seen);
  }
  return {features.query, features.key, or_none(seen)};
}

/// (line, last): positions [L,1] or [B,L,1] without what the mask hides, and where they end.
std::pair<at::Tensor, Optional> ordered_line(const at::Tensor& positions, const Optional& mask,
                                             const Optional& last) {
  const nn::OrderedLine line = nn::ordered_line(
      {.positions = positions.to(at::kDouble), .mask = or_undefined(mask)}, or_undefined(last));
  return {line.positions, or_none(line.last)};
}

/// (frequencies [H or 1,R,D], amplitudes [H,R]) of the sum of waves that estimates f.
std::pair<at::Tensor, at::Tensor> position_waves(const Handle& handle) {
  const ops::SpectralSum sum = handle->as<nn::FourierPositionImpl>().spectrum().sum();
  if (!sum.sine.defined()) return {sum.frequencies, sum.cosine};
  return {sum.frequencies, (sum.cosine.square() + sum.sine.square()).sqrt()};
}

std::pair<at::Tensor, at::Tensor> position_join(const Handle& handle, const at::Tensor& query,
                                                const at::Tensor& key,
                                                const at::Tensor& query_features,
                                                const at::Tensor& key_features) {
  return handle->as<nn::FourierPositionImpl>().join(query, key, {query_features, key_features, {}});
}

nn::AttentionInputs read_inputs(const Inputs& x) {
  return {.positions = or_undefined(x[0]),
          .has_position = or_undefined(x[1]),
          .key_padding_mask = or_undefined(x[2]),
          .context = or_undefined(x[3]),
          .context_positions = or_undefined(x[4]),
          .context_has_position = or_undefined(x[5])};
}

/// Heads side by side, [B,L,H d]: see nn::Attention::mix_heads. None for the memory: attention to
/// all tokens; else the next segment, and the memory after it.
std::pair<at::Tensor, Memory> attention_mix(const Handle& handle, const at::Tensor& query,
                                            const at::Tensor& key, const at::Tensor& value,
                                            const Inputs& given,
                                            const std::optional<Memory>& memory) {
  for (const at::Tensor* x : {&query, &key, &value}) check_is_plain(*x);
  const nn::AttentionInputs inputs = read_inputs(given);
  const nn::Projected projected{query, key, value};
  if (!memory.has_value()) return {handle->as<nn::Attention>().mix_heads(projected, inputs), {}};
  nn::LinearAttentionMemory next = read_memory(*memory);
  at::Tensor y = handle->as<nn::LinearAttentionImpl>().mix_heads(projected, inputs, next);
  return {y, write_memory(next)};
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

/// None for maps without random vectors.
Optional draw_omega(const std::string& feature_map, int64_t num_features, int64_t dim,
                    uint64_t seed, at::Device device, at::ScalarType dtype) {
  const int64_t count = nn::num_omegas(nn::feature_map_kind(feature_map), num_features);
  if (count == 0) return {};
  const Untraced numbers;
  return nn::draw_omega(count, dim, seed).to(device, dtype);
}

at::Tensor log_decay(const at::Tensor& decay, const at::Tensor& positions,
                     const Optional& previous) {
  return ops::log_decay(decay, positions, or_undefined(previous));
}

void bind_positions(py::module_& module) {
  using py::arg;
  const py::call_guard<py::gil_scoped_release> without_gil;
  module.def("position_mask", &position_mask, without_gil);
  module.def("position_factor", &position_factor, without_gil);
  module.def("position_features", &position_features, arg("position"), arg("positions"),
             arg("has_position") = py::none(), without_gil, "(phi, psi, decay or None)");
  module.def("position_pair", &position_pair, without_gil, "(phi, psi, span)");
  module.def("ordered_line", &ordered_line, without_gil, "(line, last)");
  module.def("position_waves", &position_waves, without_gil,
             "(frequencies, amplitudes) of the sum of waves that estimates f.");
  module.def(
      "position_bound", [](const Handle& h) { return h->as<nn::FourierPositionImpl>().bound(); },
      without_gil);
  module.def("position_join", &position_join, without_gil);
}

}  // namespace

void bind_nn(py::module_& module) {
  using py::arg;
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
      .def("children", &ModuleHandle::children)
      .def("tied", &ModuleHandle::tied, arg("tensors"),
           "A handle whose module computes with `tensors`, for autograd too.");
  bind_positions(module);
  module.def("make_module", &make_module, "A module of the library by its kind, from options.");
  module.def("attention_mix", &attention_mix, without_gil);
  module.def("reference_forward", &reference_forward, without_gil);
  module.def("read_safetensors", &read_safetensors, "(tensors by name, metadata) of a file.");
  module.def("write_safetensors", &write_safetensors);
  module.def("draw_omega", &draw_omega, "Random vectors [W, dim], or None.");
  module.def("log_decay", &log_decay, arg("decay"), arg("positions"), arg("previous") = py::none(),
             without_gil);
}

}  // namespace mnemosyne::python
