#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/ops/each_example.h"
#include "mnemosyne/ops/hidden_transforms.h"
#include "mnemosyne/ops/linear_attention/check.h"
#include "mnemosyne/ops/linear_attention/fused.h"
#include "mnemosyne/ops/reference_gradient.h"

namespace mnemosyne::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Optional = std::optional<at::Tensor>;
/// output, sums, normalizer, offset, inverse.
using Outputs = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Forward = Outputs(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Optional&,
                        const Optional&, const Optional&, const Optional&, const Optional&,
                        const Optional&, const Optional&, const Optional&, const Optional&,
                        const Optional&, c10::string_view, bool, std::optional<double>, double,
                        bool);

/// The tensors of a call in the order of the schema; those of LinearAttentionArgument come in its
/// order.
enum { kOmega = kNumDifferentiable, kMask, kStateOffset, kNumTensors };

constexpr size_t kNumOutputs = 5;
/// Arguments of the node that are no tensors.
constexpr size_t kNumSettings = 7;

constexpr const char* kIdentity = "identity";

std::optional<FeatureMapKind> kind_of(c10::string_view name) {
  if (name == kIdentity) return std::nullopt;
  std::string known = kIdentity;
  for (const FeatureMapTraits& map : kFeatureMaps) {
    if (name == map.name) return map.kind;
    known += ", " + std::string(map.name);
  }
  refuse("linear_attention", "a feature_map of " + known, in_quotes(name));
}

const char* name_of(std::optional<FeatureMapKind> kind) {
  return kind.has_value() ? traits_of(*kind).name : kIdentity;
}

/// What is not a tensor.
struct Settings {
  std::string feature_map;
  bool causal;
  std::optional<double> scale;
  double floor;
  bool with_state = true;
};

struct Arguments {
  LinearAttentionInputs inputs;
  LinearAttentionOptions options;

  Arguments(at::TensorList x, const Settings& settings) {
    inputs = {.query = x[kQuery],
              .key = x[kKey],
              .value = x[kValue],
              .query_factor = x[kQueryFactor],
              .key_factor = x[kKeyFactor],
              .log_decay = x[kLogDecay],
              .query_log = x[kQueryLog],
              .key_log = x[kKeyLog],
              .key_padding_mask = x[kMask],
              .state = {x[kStateSums], x[kStateNormalizer], x[kStateOffset]}};
    options = {.feature_map = kind_of(settings.feature_map),
               .omega = x[kOmega],
               .causal = settings.causal,
               .scale = settings.scale,
               .denominator_floor = settings.floor,
               .with_state = settings.with_state};
    resolve_constant_features(inputs, options);
  }
};

Outputs call_forward(at::TensorList x, const Settings& settings) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mnemosyne::linear_attention", "")
                             .typed<Forward>();
  const auto optional = [&](int index) {
    return x[index].defined() ? Optional(x[index]) : Optional();
  };
  return op.call(x[kQuery], x[kKey], x[kValue], optional(kQueryFactor), optional(kKeyFactor),
                 optional(kLogDecay), optional(kQueryLog), optional(kKeyLog), optional(kStateSums),
                 optional(kStateNormalizer), optional(kOmega), optional(kMask),
                 optional(kStateOffset), settings.feature_map, settings.causal, settings.scale,
                 settings.floor, settings.with_state);
}

/// Gradients of the tensors in the list; empty ones for tensors that are not there.
using Backward = std::vector<at::Tensor>(const c10::List<Optional>&, at::TensorList,
                                         const c10::List<Optional>&, c10::string_view, bool,
                                         std::optional<double>, double);

c10::List<Optional> optional_list(at::TensorList tensors) {
  c10::List<Optional> list;
  for (const at::Tensor& x : tensors) list.push_back(x.defined() ? Optional(x) : Optional());
  return list;
}

std::vector<at::Tensor> call_backward(at::TensorList tensors, at::TensorList outputs,
                                      at::TensorList grads, const Settings& settings) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mnemosyne::linear_attention_backward", "")
                             .typed<Backward>();
  return op.call(optional_list(tensors), outputs, optional_list(grads), settings.feature_map,
                 settings.causal, settings.scale, settings.floor);
}

std::vector<at::Tensor> tensor_list(const c10::List<Optional>& list) {
  std::vector<at::Tensor> tensors;
  for (const Optional& x : list) tensors.push_back(x.value_or(at::Tensor()));
  return tensors;
}

std::vector<at::Tensor> backward_cpu(const c10::List<Optional>& tensors, at::TensorList outputs,
                                     const c10::List<Optional>& grads, c10::string_view feature_map,
                                     bool causal, std::optional<double> scale, double floor) {
  const std::vector<at::Tensor> list = tensor_list(tensors), up = tensor_list(grads);
  const Arguments arguments(list, {std::string(feature_map), causal, scale, floor});
  TORCH_CHECK(linear_attention_is_fused(arguments.inputs),
              "[linear_attention_backward] expected float32 or bfloat16 tensors of the CPU, got ",
              arguments.inputs.query.options());
  const auto gradients = linear_attention_fused_backward(
      arguments.inputs, arguments.options,
      {.result = {outputs[0], {outputs[1], outputs[2], outputs[3]}}, .inverse = outputs[4]},
      {up[0], up[1], up[2]});
  std::vector<at::Tensor> result(gradients.begin(), gradients.end());
  // Features of ones do not depend on queries and keys.
  if (feature_map == "constant") {
    for (int i : {kQuery, kKey}) result[i] = at::zeros(list[i].sizes(), list[i].options());
  }
  for (at::Tensor& grad : result) {
    if (!grad.defined()) grad = at::empty({0}, outputs[0].options());
  }
  return result;
}

std::vector<at::Tensor> backward_meta(const c10::List<Optional>& tensors, at::TensorList outputs,
                                      const c10::List<Optional>&, c10::string_view, bool,
                                      std::optional<double>, double) {
  std::vector<at::Tensor> result;
  for (int i = 0; i < kNumDifferentiable; ++i) {
    const Optional x = tensors.get(i);
    result.push_back(x.has_value() ? at::empty_symint(x->sym_sizes(), x->options())
                                   : at::empty({0}, outputs[0].options()));
  }
  return result;
}

/// Under autograd: the kernel, unless its gradients are to be differentiated, which it cannot be.
std::vector<at::Tensor> backward_autograd(const c10::List<Optional>& tensors,
                                          at::TensorList outputs, const c10::List<Optional>& grads,
                                          c10::string_view feature_map, bool causal,
                                          std::optional<double> scale, double floor) {
  const std::vector<at::Tensor> list = tensor_list(tensors), up = tensor_list(grads);
  const auto differentiable = [](const at::Tensor& x) { return x.defined() && x.requires_grad(); };
  if (!at::GradMode::is_enabled() || (std::none_of(list.begin(), list.end(), differentiable) &&
                                      std::none_of(up.begin(), up.end(), differentiable))) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call_backward(list, outputs, up, {std::string(feature_map), causal, scale, floor});
  }
  const auto reference = [&](at::TensorList x) -> std::vector<at::Tensor> {
    const Arguments arguments(x, {std::string(feature_map), causal, scale, floor});
    const auto [output, state] = linear_attention_reference(arguments.inputs, arguments.options);
    return {output, state.sums, state.normalizer};
  };
  std::vector<at::Tensor> result = reference_gradients(reference, list, up, kNumDifferentiable);
  for (at::Tensor& grad : result) {
    if (!grad.defined()) grad = at::empty({0}, outputs[0].options());
  }
  return result;
}

/// A node of the graph takes only tensors that exist: a list of them, and a bit for each place.
std::vector<at::Tensor> without_gaps(at::TensorList tensors, int64_t& places) {
  std::vector<at::Tensor> present;
  places = 0;
  for (int i = 0; i < kNumTensors; ++i) {
    if (!tensors[i].defined()) continue;
    places |= int64_t{1} << i;
    present.push_back(tensors[i]);
  }
  return present;
}

std::vector<at::Tensor> with_gaps(at::TensorList present, int64_t places) {
  std::vector<at::Tensor> tensors(kNumTensors);
  size_t next = 0;
  for (int i = 0; i < kNumTensors; ++i) {
    if (places >> i & 1) tensors[i] = present[next++];
  }
  return tensors;
}

class LinearAttention : public torch::autograd::Function<LinearAttention> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList present, int64_t places,
                               const std::string& feature_map, bool causal,
                               std::optional<double> scale, double floor, bool with_state,
                               HiddenTransforms* transforms) {
    transforms->show();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [output, sums, normalizer, offset, inverse] =
        call_forward(with_gaps(present, places), {feature_map, causal, scale, floor, with_state});
    variable_list saved = present.vec();
    saved.insert(saved.end(), {output, sums, normalizer, offset, inverse});
    context->save_for_backward(saved);
    context->saved_data["places"] = places;
    context->saved_data["feature_map"] = feature_map;
    context->saved_data["causal"] = causal;
    context->saved_data["scale"] = scale;
    context->saved_data["floor"] = floor;
    context->mark_non_differentiable({offset, inverse});
    context->set_materialize_grads(false);
    return {output, sums, normalizer, offset, inverse};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::TensorList all = saved;
    const size_t count = saved.size() - kNumOutputs;
    const std::vector<at::Tensor> tensors =
        with_gaps(all.slice(0, count), context->saved_data["places"].toInt());
    const std::vector<at::Tensor> gradients = call_backward(
        tensors, all.slice(count), {grads[0], grads[1], grads[2]},
        {context->saved_data["feature_map"].toStringRef(), context->saved_data["causal"].toBool(),
         context->saved_data["scale"].toOptional<double>(),
         context->saved_data["floor"].toDouble()});
    variable_list result;
    for (int i = 0; i < kNumTensors; ++i) {
      if (!tensors[i].defined()) continue;
      result.push_back(i < kNumDifferentiable ? gradients[i] : at::Tensor());
    }
    result.resize(count + kNumSettings);
    return result;
  }
};

/// The reference's result as the op's, which has nothing to save.
Outputs reference_outputs(const Arguments& arguments) {
  auto [output, state] = linear_attention_reference(arguments.inputs, arguments.options);
  if (!arguments.options.with_state) {
    const at::Tensor& all = state.sums;
    state.normalizer = at::empty({all.size(0), all.size(1), 0}, all.options());
    state.sums = at::empty({all.size(0), all.size(1), 0, all.size(3)}, all.options());
  }
  return {output, state.sums, state.normalizer, state.offset,
          at::empty({0}, state.offset.options())};
}

Outputs forward_autograd(at::TensorList x, const Settings& settings) {
  if (!linear_attention_is_fused({.query = x[kQuery]})) {
    return reference_outputs(Arguments(x, settings));
  }
  int64_t places = 0;
  const std::vector<at::Tensor> present = without_gaps(x, places);
  HiddenTransforms transforms;
  const variable_list result =
      LinearAttention::apply(at::TensorList(present), places, settings.feature_map, settings.causal,
                             settings.scale, settings.floor, settings.with_state, &transforms);
  return {result[0], result[1], result[2], result[3], result[4]};
}

Outputs forward_kernel(at::TensorList x, const Settings& settings) {
  const Arguments arguments(x, settings);
  if (!linear_attention_is_fused(arguments.inputs)) return reference_outputs(arguments);
  const LinearAttentionSaved saved = linear_attention_fused(arguments.inputs, arguments.options);
  const LinearAttentionState& state = saved.result.state;
  return {saved.result.output, state.sums, state.normalizer, state.offset, saved.inverse};
}

/// `call` in the form of the schema.
template <Outputs (*call)(at::TensorList, const Settings&)>
Outputs forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Optional& p,
                const Optional& s, const Optional& log_decay, const Optional& query_log,
                const Optional& key_log, const Optional& sums, const Optional& normalizer,
                const Optional& omega, const Optional& mask, const Optional& offset,
                c10::string_view feature_map, bool causal, std::optional<double> scale,
                double floor, bool with_state) {
  std::vector<at::Tensor> list = {q, k, v};
  for (const Optional* x :
       {&p, &s, &log_decay, &query_log, &key_log, &sums, &normalizer, &omega, &mask, &offset}) {
    list.push_back(x->value_or(at::Tensor()));
  }
  return call(list, {std::string(feature_map), causal, scale, floor, with_state});
}

Outputs forward_meta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const Optional& p, const Optional&, const Optional&, const Optional&,
                     const Optional&, const Optional&, const Optional&, const Optional& omega,
                     const Optional&, const Optional&, c10::string_view feature_map, bool,
                     std::optional<double>, double, bool with_state) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4,
              "[linear_attention] expected query [B,H,L,D], key [B,Hk,S,D] and value [B,Hk,S,Dv]");
  TORCH_CHECK(q.sym_size(3) != 0 && v.sym_size(3) != 0,
              "[linear_attention] expected a depth of at least 1, got 0");
  const std::optional<FeatureMapKind> kind = kind_of(feature_map);
  c10::SymInt features = kind == FeatureMapKind::kConstant ? c10::SymInt(1) : q.sym_size(3);
  if (feature_map_projects({.feature_map = kind}) && omega.has_value()) {
    features = omega->sym_size(0) * num_features(*kind, 1);
  }
  if (p.has_value()) features = features * p->sym_size(-1);
  if (!with_state) features = 0;
  const c10::SymInt batch = q.sym_size(0), heads = q.sym_size(1), values = v.sym_size(3);
  const at::TensorOptions type =
      q.options().dtype(q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  return {at::empty_symint({batch, heads, q.sym_size(2), values}, q.options()),
          at::empty_symint({batch, heads, features, values}, type),
          at::empty_symint({batch, heads, features}, type), at::empty_symint({batch, heads}, type),
          at::empty_symint({batch, heads, q.sym_size(2)}, type)};
}

}  // namespace

LinearAttentionResult linear_attention(const LinearAttentionInputs& inputs,
                                       const LinearAttentionOptions& options) {
  const LinearAttentionState& state = inputs.state;
  check_linear_attention(inputs, options);
  const at::Tensor tensors[] = {inputs.query,        inputs.key,        inputs.value,
                                inputs.query_factor, inputs.key_factor, inputs.log_decay,
                                inputs.query_log,    inputs.key_log,    state.sums,
                                state.normalizer,    options.omega,     inputs.key_padding_mask,
                                state.offset};
  const auto [output, sums, normalizer, offset, inverse] =
      call_forward(tensors, {name_of(options.feature_map), options.causal, options.scale,
                             options.denominator_floor, options.with_state});
  return {output, {sums, normalizer, offset}};
}

TORCH_LIBRARY_FRAGMENT(mnemosyne, library) {
  library.def(
      "linear_attention(Tensor query, Tensor key, Tensor value, Tensor? query_factor=None, "
      "Tensor? key_factor=None, Tensor? log_decay=None, Tensor? query_log=None, "
      "Tensor? key_log=None, Tensor? state_sums=None, Tensor? state_normalizer=None, Tensor? "
      "omega=None, "
      "Tensor? key_padding_mask=None, Tensor? state_offset=None, *, str feature_map='identity', "
      "bool causal=False, float? scale=None, float denominator_floor=1e-20, "
      "bool with_state=True) -> "
      "(Tensor output, Tensor sums, Tensor normalizer, Tensor offset, Tensor inverse)");
  library.def(
      "linear_attention_backward(Tensor?[] inputs, Tensor[] outputs, Tensor?[] grads, "
      "str feature_map, bool causal, float? scale, float denominator_floor) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(mnemosyne, CPU, library) {
  library.impl("linear_attention", forward<forward_kernel>);
  library.impl("linear_attention_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(mnemosyne, CUDA, library) {
  library.impl("linear_attention", forward<forward_kernel>);
}

TORCH_LIBRARY_IMPL(mnemosyne, Meta, library) {
  library.impl("linear_attention", forward_meta);
  library.impl("linear_attention_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(mnemosyne, Autograd, library) {
  library.impl("linear_attention", forward<forward_autograd>);
  library.impl("linear_attention_backward", backward_autograd);
}

TORCH_LIBRARY_IMPL(mnemosyne, FuncTorchBatched, library) {
  for (const char* name : {"linear_attention", "linear_attention_backward"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&each_example>());
  }
}

}  // namespace mnemosyne::ops
