#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "mnemosyne/nn/feature_map.h"
#include "mnemosyne/nn/performer_block.h"
#include "module_handle.h"
#include "options.h"

namespace mnemosyne::python {
namespace {

using Handle = std::shared_ptr<ModuleHandle>;
using Optional = std::optional<at::Tensor>;
/// sums, normalizer, offset, last position, number of tokens so far, span of their positions.
using Memory = std::tuple<Optional, Optional, Optional, Optional, int64_t, Optional>;
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

template <typename Impl, typename Options>
Handle make_handle(const Options& options) {
  return std::make_shared<ModuleHandle>(std::make_shared<Impl>(options));
}

/// `position` is None or a dictionary of options, whose "type" says of what.
Handle make_linear_attention(const py::dict& options, const std::optional<py::dict>& position) {
  auto read = read_options<nn::LinearAttentionOptions>(options);
  if (position.has_value()) {
    py::dict rest = position->attr("copy")();
    const std::string type = rest.attr("pop")("type").cast<std::string>();
    if (type == "FourierPosition") {
      read.position = read_options<nn::FourierPositionOptions>(rest);
    } else if (type == "DampedPosition") {
      read.position = read_options<nn::DampedPositionOptions>(rest);
    } else {
      read.position = read_options<nn::RotaryPositionOptions>(rest);
    }
  }
  return make_handle<nn::LinearAttentionImpl>(read);
}

template <typename Impl, typename Options>
Handle make_model(const py::dict& options, const py::dict& attention) {
  auto read = read_options<Options>(options);
  read.attention = read_options<nn::AttentionOptions>(attention, read.attention);
  return make_handle<Impl>(read);
}

Handle make_performer_block(const py::dict& site, const py::dict& attention, int64_t hidden) {
  return make_handle<nn::PerformerBlockImpl>(
      nn::PerformerBlockOptions{.site = read_options<nn::AttentionSite>(site),
                                .attention = read_options<nn::AttentionOptions>(attention),
                                .hidden = hidden});
}

/// Calls `use` with the FourierPosition or DampedPosition of a handle.
template <typename Use>
auto with_position(const Handle& handle, Use use) {
  torch::nn::Module& module = handle->module();
  if (const auto* damped = dynamic_cast<nn::DampedPositionImpl*>(&module)) return use(*damped);
  return use(handle->as<nn::FourierPositionImpl>());
}

py::dict position_options(const Handle& handle) {
  return with_position(handle, [](const auto& p) { return write_options(p.options()); });
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

nn::AttentionInputs inputs_of(const Optional& positions, const Optional& has_position,
                              const Optional& mask) {
  return {.positions = or_undefined(positions),
          .has_position = or_undefined(has_position),
          .key_padding_mask = or_undefined(mask),
          .context = {},
          .context_positions = {},
          .context_has_position = {}};
}

at::Tensor attention_forward(const Handle& handle, const at::Tensor& x, const Optional& positions,
                             const Optional& has_position, const Optional& mask,
                             const Optional& context, const Optional& context_positions,
                             const Optional& context_has_position) {
  nn::AttentionInputs inputs = inputs_of(positions, has_position, mask);
  inputs.context = or_undefined(context);
  inputs.context_positions = or_undefined(context_positions);
  inputs.context_has_position = or_undefined(context_has_position);
  if (auto* block = dynamic_cast<nn::PerformerBlockImpl*>(&handle->module())) {
    return block->forward(x, inputs);
  }
  return handle->as<nn::Attention>().forward(x, inputs);
}

std::pair<at::Tensor, Memory> attention_segment(const Handle& handle, const at::Tensor& x,
                                                const Memory& state, const Optional& positions,
                                                const Optional& has_position,
                                                const Optional& mask) {
  nn::LinearAttentionMemory memory = read_memory(state);
  at::Tensor y;
  if (auto* block = dynamic_cast<nn::PerformerBlockImpl*>(&handle->module())) {
    y = block->forward_segment(x, memory);
  } else {
    y = handle->as<nn::LinearAttentionImpl>().forward_segment(
        x, memory, inputs_of(positions, has_position, mask));
  }
  return {y, write_memory(memory)};
}

at::Tensor model_forward(const Handle& handle, const std::vector<at::Tensor>& inputs) {
  torch::nn::Module& module = handle->module();
  if (auto* points = dynamic_cast<nn::PointEncoderImpl*>(&module)) {
    return points->forward(inputs.at(0), inputs.at(1),
                           inputs.size() > 2 ? inputs[2] : at::Tensor());
  }
  if (auto* vit = dynamic_cast<nn::ViTImpl*>(&module)) return vit->forward(inputs.at(0));
  return handle->as<nn::CausalLMImpl>().forward(inputs.at(0));
}

std::pair<at::Tensor, std::vector<Memory>> model_segment(const Handle& handle,
                                                         const at::Tensor& tokens,
                                                         const std::vector<Memory>& blocks,
                                                         int64_t length) {
  nn::CausalLMImpl::Memory memory{.blocks = {}, .length = length};
  for (const Memory& block : blocks) memory.blocks.push_back(read_memory(block));
  at::Tensor logits = handle->as<nn::CausalLMImpl>().forward_segment(tokens, memory);
  std::vector<Memory> next;
  for (const nn::LinearAttentionMemory& block : memory.blocks) next.push_back(write_memory(block));
  return {logits, next};
}

/// None for maps without random vectors.
Optional draw_omega(const std::string& feature_map, int64_t num_features, int64_t dim,
                    uint64_t seed) {
  const int64_t count = nn::num_omegas(nn::feature_map_kind(feature_map), num_features);
  if (count == 0) return {};
  return nn::draw_omega(count, dim, seed);
}

at::Tensor log_decay(const at::Tensor& decay, const at::Tensor& positions,
                     const Optional& previous) {
  return ops::log_decay(decay, positions, or_undefined(previous));
}

void bind_positions(py::module_& module) {
  using py::arg;
  const py::call_guard<py::gil_scoped_release> without_gil;
  module.def("fourier_position", [](const py::dict& options) {
    return make_handle<nn::FourierPositionImpl>(read_options<nn::FourierPositionOptions>(options));
  });
  module.def("damped_position", [](const py::dict& options) {
    return make_handle<nn::DampedPositionImpl>(read_options<nn::DampedPositionOptions>(options));
  });
  module.def("position_options", &position_options, "All options of a position, by name.");
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
      .def_property_readonly("names", &ModuleHandle::names,
                             "Dotted names of all parameters, then of all buffers.")
      .def("parameters", &ModuleHandle::parameters, "Own parameters, without those of children.")
      .def("buffers", &ModuleHandle::buffers)
      .def("children", &ModuleHandle::children)
      .def("tied", &ModuleHandle::tied, arg("tensors"),
           "A handle whose module computes with `tensors`, for autograd too.");
  bind_positions(module);
  module.def("linear_attention", &make_linear_attention, arg("options"),
             arg("position") = py::none());
  module.def("performer_block", &make_performer_block);
  module.def("causal_lm", &make_model<nn::CausalLMImpl, nn::CausalLMOptions>);
  module.def("vit", &make_model<nn::ViTImpl, nn::ViTOptions>);
  module.def("point_encoder", &make_model<nn::PointEncoderImpl, nn::PointEncoderOptions>);
  module.def("attention_forward", &attention_forward, arg("attention"), arg("x"),
             arg("positions") = py::none(), arg("has_position") = py::none(),
             arg("key_padding_mask") = py::none(), arg("context") = py::none(),
             arg("context_positions") = py::none(), arg("context_has_position") = py::none(),
             without_gil);
  module.def("attention_segment", &attention_segment, without_gil);
  module.def("model_forward", &model_forward, without_gil);
  module.def("model_segment", &model_segment, without_gil);
  module.def("draw_omega", &draw_omega, "Random vectors [W, dim], float64, or None.");
  module.def("log_decay", &log_decay, arg("decay"), arg("positions"), arg("previous") = py::none(),
             without_gil);
}

}  // namespace mnemosyne::python
