#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "mnemosyne/nn/feature_map.h"
#include "mnemosyne/nn/operators/opaque_call.h"
#include "mnemosyne/ops/untraced.h"

// Attention and positions as operators over those of ATen and of this library, which is how
// torch.compile, torch.export and the transforms of torch.func see what a module of Python calls.
// They are composite: what is traced is what they call.

namespace mnemosyne::nn {
namespace {

using Tensor = at::Tensor;
using Optional = std::optional<at::Tensor>;
using Text = c10::string_view;
using List = at::TensorList;

Optional or_none(const Tensor& x) { return x.defined() ? Optional(x) : Optional(); }

std::vector<Tensor> run(const char* name, Text module, List tensors,
                        const std::vector<Optional>& inputs, bool flag = false) {
  OperatorCall call{name, std::string(module), tensors.vec(), {}, flag};
  for (const Optional& x : inputs) call.inputs.push_back(x.value_or(Tensor()));
  return has_to_be_opaque(call) ? compute_opaquely(call) : compute(call);
}

Tensor attention(Text module, List tensors, const Tensor& query, const Tensor& key,
                 const Tensor& value, const Optional& positions, const Optional& has_position,
                 const Optional& key_padding_mask, const Optional& context,
                 const Optional& context_positions, const Optional& context_has_position) {
  Tensor mixed = run("attention", module, tensors,
                     {query, key, value, positions, has_position, key_padding_mask, context,
                      context_positions, context_has_position})[0];
  if (query.sym_size(0) != 0) return mixed;
  // Without examples, too, it depends on what it depends on otherwise.
  for (const Tensor& x : {key, value}) mixed = mixed + x.sum().to(mixed.scalar_type());
  for (const Tensor& x : tensors) mixed = mixed + x.sum().to(mixed.scalar_type());
  return mixed;
}

using Memory = std::tuple<Tensor, Tensor, Tensor, Tensor, Optional, Optional>;

Memory attention_segment(Text module, List tensors, const Tensor& query, const Tensor& key,
                         const Tensor& value, const Optional& positions, bool on_line,
                         const Optional& key_padding_mask, const Optional& sums,
                         const Optional& normalizer, const Optional& offset, const Optional& last,
                         const Optional& span) {
  const std::vector<Tensor> r =
      run("attention_segment", module, tensors,
          {query, key, value, positions, key_padding_mask, sums, normalizer, offset, last, span},
          on_line);
  return {r[0], r[1], r[2], r[3], or_none(r[4]), or_none(r[5])};
}

Tensor mask(Text module, List tensors, const Tensor& offsets) {
  return run("position_mask", module, tensors, {offsets})[0];
}

Tensor factor(Text module, List tensors, const Tensor& offsets) {
  return run("position_factor", module, tensors, {offsets})[0];
}

using Features = std::tuple<Tensor, Tensor, Optional>;

Features features(Text module, List tensors, const Tensor& positions, const Optional& has) {
  const std::vector<Tensor> r = run("position_features", module, tensors, {positions, has});
  return {r[0], r[1], or_none(r[2])};
}

Features pair(Text module, List tensors, const Tensor& positions, const Optional& key_positions,
              const Optional& key_padding_mask, const Optional& span) {
  const std::vector<Tensor> r =
      run("position_pair", module, tensors, {positions, key_positions, key_padding_mask, span});
  return {r[0], r[1], or_none(r[2])};
}

std::tuple<Tensor, Tensor> waves(Text module, List tensors) {
  const std::vector<Tensor> r = run("position_waves", module, tensors, {});
  return {r[0], r[1]};
}

Tensor bound(Text module, List tensors) { return run("position_bound", module, tensors, {})[0]; }

std::tuple<Tensor, Tensor> join(Text module, List tensors, const Tensor& query, const Tensor& key,
                                const Tensor& phi, const Tensor& psi) {
  const std::vector<Tensor> r = run("position_join", module, tensors, {query, key, phi, psi});
  return {r[0], r[1]};
}

std::tuple<Tensor, Optional> line(const Tensor& positions, const Optional& mask,
                                  const Optional& last) {
  const std::vector<Tensor> r = run("ordered_line", "", {}, {positions, mask, last});
  return {r[0], or_none(r[1])};
}

Tensor log_decay(const Tensor& decay, const Tensor& positions, const Optional& previous) {
  return run("log_decay", "", {}, {decay, positions, previous})[0];
}

/// Random vectors in the dtype and on the device of `like`, as a step of a program.
Tensor omega(const Tensor& like, Text feature_map, int64_t num_features, int64_t dim,
             int64_t seed) {
  const int64_t count = num_omegas(feature_map_kind(std::string(feature_map)), num_features);
  const ops::Untraced numbers_to_keep;
  return draw_omega(count, dim, static_cast<uint64_t>(seed)).to(like.options());
}

Tensor omega_shape(const Tensor& like, Text feature_map, int64_t num_features, int64_t dim,
                   int64_t) {
  return like.new_empty(
      {num_omegas(feature_map_kind(std::string(feature_map)), num_features), dim});
}

void register_composites(torch::Library& library) {
  library.impl("attention", attention);
  library.impl("attention_segment", attention_segment);
  library.impl("position_mask", mask);
  library.impl("position_factor", factor);
  library.impl("position_features", features);
  library.impl("position_pair", pair);
  library.impl("position_waves", waves);
  library.impl("position_bound", bound);
  library.impl("position_join", join);
  library.impl("ordered_line", line);
  library.impl("log_decay", log_decay);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mnemosyne, library) {
  library.def(
      "attention(str module, Tensor[] tensors, Tensor query, Tensor key, Tensor value, *, "
      "Tensor? positions=None, Tensor? has_position=None, Tensor? key_padding_mask=None, "
      "Tensor? context=None, Tensor? context_positions=None, "
      "Tensor? context_has_position=None) -> Tensor");
  library.def(
      "attention_segment(str module, Tensor[] tensors, Tensor query, Tensor key, Tensor value, *, "
      "Tensor? positions=None, bool on_line=False, Tensor? key_padding_mask=None, "
      "Tensor? sums=None, Tensor? normalizer=None, Tensor? offset=None, Tensor? last=None, "
      "Tensor? span=None) -> "
      "(Tensor output, Tensor sums, Tensor normalizer, Tensor offset, Tensor? last, Tensor? span)");
  library.def("position_mask(str module, Tensor[] tensors, Tensor offsets) -> Tensor");
  library.def("position_factor(str module, Tensor[] tensors, Tensor offsets) -> Tensor");
  library.def(
      "position_features(str module, Tensor[] tensors, Tensor positions, "
      "Tensor? has_position=None) -> (Tensor phi, Tensor psi, Tensor? decay)");
  library.def(
      "position_pair(str module, Tensor[] tensors, Tensor positions, Tensor? key_positions=None, "
      "Tensor? key_padding_mask=None, Tensor? span=None) -> "
      "(Tensor phi, Tensor psi, Tensor? span)");
  library.def(
      "position_waves(str module, Tensor[] tensors) -> (Tensor frequencies, Tensor amplitudes)");
  library.def("position_bound(str module, Tensor[] tensors) -> Tensor");
  library.def(
      "position_join(str module, Tensor[] tensors, Tensor query, Tensor key, Tensor phi, "
      "Tensor psi) -> (Tensor query, Tensor key)");
  library.def(
      "ordered_line(Tensor positions, Tensor? mask=None, Tensor? last=None) -> "
      "(Tensor line, Tensor? last)");
  library.def("log_decay(Tensor decay, Tensor positions, Tensor? previous=None) -> Tensor");
  library.def(
      "draw_omega(Tensor like, str feature_map, int num_features, int dim, int seed) -> Tensor");
}

TORCH_LIBRARY_IMPL(mnemosyne, CompositeImplicitAutograd, library) { register_composites(library); }

// That key does not stand for torch.func.vmap, too.
TORCH_LIBRARY_IMPL(mnemosyne, FuncTorchBatched, library) { register_composites(library); }

TORCH_LIBRARY_IMPL(mnemosyne, CPU, library) { library.impl("draw_omega", omega); }

TORCH_LIBRARY_IMPL(mnemosyne, CUDA, library) { library.impl("draw_omega", omega); }

TORCH_LIBRARY_IMPL(mnemosyne, Meta, library) { library.impl("draw_omega", omega_shape); }

}  // namespace mnemosyne::nn
