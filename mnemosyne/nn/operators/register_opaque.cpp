#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "mnemosyne/nn/operators/opaque_call.h"
#include "mnemosyne/ops/each_example.h"
#include "mnemosyne/ops/hidden_transforms.h"
#include "mnemosyne/ops/untraced.h"

namespace mnemosyne::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Optional = std::optional<at::Tensor>;
using Options = c10::List<Optional>;
using Forward = std::vector<at::Tensor>(c10::string_view, c10::string_view, at::TensorList,
                                        const Options&, bool);
using Backward = std::vector<at::Tensor>(c10::string_view, c10::string_view, at::TensorList,
                                         const Options&, bool, const Options&);

/// Results are a list of tensors: one that is absent has more axes than any other.
constexpr int64_t kAxesOfNone = 7;

at::Tensor none(const at::TensorOptions& options) {
  return at::empty(std::vector<int64_t>(kAxesOfNone, 0), options);
}

bool is_none(const at::Tensor& x) { return x.dim() == kAxesOfNone && x.sym_size(0) == 0; }

Options optional_list(const std::vector<at::Tensor>& tensors) {
  Options list;
  for (const at::Tensor& x : tensors) list.push_back(x.defined() ? Optional(x) : Optional());
  return list;
}

std::vector<at::Tensor> tensor_list(const Options& list) {
  std::vector<at::Tensor> tensors;
  for (const Optional& x : list) tensors.push_back(x.value_or(at::Tensor()));
  return tensors;
}

OperatorCall call_of(c10::string_view name, c10::string_view module, at::TensorList tensors,
                     const Options& inputs, bool flag) {
  return {std::string(name), std::string(module), tensors.vec(), tensor_list(inputs), flag};
}

std::vector<at::Tensor> dispatch(const OperatorCall& call) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mnemosyne::call_module", "").typed<Forward>();
  return op.call(call.name, call.module, call.tensors, optional_list(call.inputs), call.flag);
}

std::vector<at::Tensor> dispatch_backward(const OperatorCall& call,
                                          const std::vector<at::Tensor>& grads) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mnemosyne::call_module_backward", "")
                             .typed<Backward>();
  return op.call(call.name, call.module, call.tensors, optional_list(call.inputs), call.flag,
                 optional_list(grads));
}

/// Everything that is a tensor, absent ones undefined.
std::vector<at::Tensor> all_tensors(const OperatorCall& call) {
  std::vector<at::Tensor> all = call.tensors;
  all.insert(all.end(), call.inputs.begin(), call.inputs.end());
  return all;
}

/// New memory, as the shapes below promise.
std::vector<at::Tensor> forward_kernel(c10::string_view name, c10::string_view module,
                                       at::TensorList tensors, const Options& inputs, bool flag) {
  const OperatorCall call = call_of(name, module, tensors, inputs, flag);
  const std::vector<at::Tensor> given = all_tensors(call);
  std::vector<at::Tensor> results;
  for (const at::Tensor& x : compute(call)) {
    if (!x.defined()) {
      results.push_back(none(given[0].options()));
      continue;
    }
    const bool shared = std::any_of(given.begin(), given.end(), [&](const at::Tensor& other) {
      return other.defined() && other.is_alias_of(x);
    });
    results.push_back(shared ? x.clone(at::MemoryFormat::Contiguous) : x.contiguous());
  }
  return results;
}

/// Tensors of shapes alone, for sizes that are symbols each with a number that nothing else has:
/// where the number comes out, the symbol does.
class StandIns {
 public:
  at::Tensor of(const at::Tensor& x) {
    if (!x.defined()) return x;
    std::vector<int64_t> sizes;
    for (const c10::SymInt& size : x.sym_sizes()) {
      const auto known = size.maybe_as_int();
      sizes.push_back(known.has_value() ? *known : number_of(size));
    }
    return at::empty(sizes, x.options().device(at::kMeta));
  }

  at::Tensor back(const at::Tensor& x) const {
    std::vector<c10::SymInt> sizes;
    for (const int64_t size : x.sizes()) {
      const auto found = symbols_.find(size);
      sizes.push_back(found == symbols_.end() ? c10::SymInt(size) : found->second);
    }
    return at::empty_symint(sizes, x.options());
  }

 private:
  int64_t number_of(const c10::SymInt& size) {
    const auto [found, is_new] = numbers_.try_emplace(size.toSymNode()->str(), 0);
    if (is_new) {
      found->second = kFirst + kStep * static_cast<int64_t>(numbers_.size());
      symbols_.emplace(found->second, size);
    }
    return found->second;
  }

  static constexpr int64_t kFirst = 100'003, kStep = 1'009;
  std::map<std::string, int64_t> numbers_;
  std::map<int64_t, c10::SymInt> symbols_;
};

std::vector<at::Tensor> forward_meta(c10::string_view name, c10::string_view module,
                                     at::TensorList tensors, const Options& inputs, bool flag) {
  OperatorCall call = call_of(name, module, tensors, inputs, flag);
  const at::TensorOptions options = all_tensors(call)[0].options();
  StandIns stand_ins;
  for (std::vector<at::Tensor>* list : {&call.tensors, &call.inputs}) {
    for (at::Tensor& x : *list) x = stand_ins.of(x);
  }
  std::vector<at::Tensor> shapes, results;
  {
    const ops::Untraced stand_ins_alone;
    shapes = compute(call);
  }
  for (const at::Tensor& x : shapes) {
    results.push_back(x.defined() ? stand_ins.back(x) : none(options));
  }
  return results;
}

std::vector<at::Tensor> backward_kernel(c10::string_view name, c10::string_view module,
                                        at::TensorList tensors, const Options& inputs, bool flag,
                                        const Options& given) {
  // A kernel is below autograd, and this one needs it.
  const c10::impl::LocalDispatchKeySet here = c10::impl::tls_local_dispatch_key_set();
  const c10::impl::ForceDispatchKeyGuard with_autograd(
      here.included_, here.excluded_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView);
  const at::AutoGradMode grad_mode(true);
  OperatorCall call = call_of(name, module, tensors, inputs, flag);
  std::vector<at::Tensor> sources;
  for (std::vector<at::Tensor>* list : {&call.tensors, &call.inputs}) {
    for (at::Tensor& x : *list) {
      if (!x.defined() || !x.is_floating_point()) continue;
      x = x.detach().requires_grad_(true);
      sources.push_back(x);
    }
  }
  const std::vector<at::Tensor> results = compute(call), grads = tensor_list(given);
  std::vector<at::Tensor> outputs, ups, found(sources.size());
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i].defined() || !results[i].requires_grad() || !grads[i].defined()) continue;
    outputs.push_back(results[i]);
    ups.push_back(grads[i]);
  }
  if (!outputs.empty()) {
    found = torch::autograd::grad(outputs, sources, ups, std::nullopt, false,
                                  /*allow_unused=*/true);
  }
  std::vector<at::Tensor> gradients;
  size_t next = 0;
  for (const at::Tensor& x : all_tensors(call)) {
    if (!x.defined() || !x.is_floating_point()) {
      gradients.push_back(at::empty({0}, call.inputs[0].options()));
      continue;
    }
    const at::Tensor gradient = found[next++];
    gradients.push_back(gradient.defined() ? gradient.detach().contiguous()
                                           : at::zeros_like(x.detach()).contiguous());
  }
  return gradients;
}

std::vector<at::Tensor> backward_meta(c10::string_view name, c10::string_view module,
                                      at::TensorList tensors, const Options& inputs, bool flag,
                                      const Options&) {
  const OperatorCall call = call_of(name, module, tensors, inputs, flag);
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& x : all_tensors(call)) {
    gradients.push_back(x.defined() && x.is_floating_point()
                            ? at::empty_symint(x.sym_sizes(), x.options())
                            : at::empty({0}, call.inputs[0].options()));
  }
  return gradients;
}

/// A step of the graph, over the tensors that there are.
class CallModule : public torch::autograd::Function<CallModule> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList present,
                               const OperatorCall* call, ops::HiddenTransforms* transforms) {
    transforms->show();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    variable_list results = dispatch(*call);
    context->save_for_backward(present.vec());
    std::vector<int64_t> places;
    const std::vector<at::Tensor> all = all_tensors(*call);
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i].defined()) places.push_back(static_cast<int64_t>(i));
    }
    context->saved_data["places"] = places;
    context->saved_data["name"] = call->name;
    context->saved_data["module"] = call->module;
    context->saved_data["tensors"] = static_cast<int64_t>(call->tensors.size());
    context->saved_data["inputs"] = static_cast<int64_t>(call->inputs.size());
    context->saved_data["flag"] = call->flag;
    variable_list constant;
    for (const at::Tensor& x : results) {
      if (!x.is_floating_point() || is_none(x)) constant.push_back(x);
    }
    context->mark_non_differentiable(constant);
    context->set_materialize_grads(false);
    return results;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto number = [&](const char* key) {
      return static_cast<size_t>(context->saved_data[key].toInt());
    };
    OperatorCall call{
        context->saved_data["name"].toStringRef(), context->saved_data["module"].toStringRef(),
        std::vector<at::Tensor>(number("tensors")), std::vector<at::Tensor>(number("inputs")),
        context->saved_data["flag"].toBool()};
    const std::vector<int64_t> places = context->saved_data["places"].toIntVector();
    const variable_list saved = context->get_saved_variables();
    for (size_t i = 0; i < places.size(); ++i) {
      const auto place = static_cast<size_t>(places[i]);
      const size_t count = call.tensors.size();
      (place < count ? call.tensors[place] : call.inputs[place - count]) = saved[i];
    }
    const std::vector<at::Tensor> gradients = dispatch_backward(call, grads);
    variable_list result;
    for (size_t i = 0; i < places.size(); ++i) {
      const bool has = saved[i].is_floating_point();
      result.push_back(has ? gradients[static_cast<size_t>(places[i])] : at::Tensor());
    }
    result.resize(places.size() + 2);  // the call and the transforms have none
    return result;
  }
};

std::vector<at::Tensor> forward_autograd(c10::string_view name, c10::string_view module,
                                         at::TensorList tensors, const Options& inputs, bool flag) {
  const OperatorCall call = call_of(name, module, tensors, inputs, flag);
  variable_list present;
  for (const at::Tensor& x : all_tensors(call)) {
    if (x.defined()) present.push_back(x);
  }
  ops::HiddenTransforms transforms;
  return CallModule::apply(at::TensorList(present), &call, &transforms);
}

}  // namespace

std::vector<at::Tensor> compute_opaquely(const OperatorCall& call) {
  std::vector<at::Tensor> results = dispatch(call);
  for (at::Tensor& x : results) {
    if (is_none(x)) x = at::Tensor();
  }
  return results;
}

TORCH_LIBRARY_FRAGMENT(mnemosyne, library) {
  library.def(
      "call_module(str operator, str module, Tensor[] tensors, Tensor?[] inputs, bool flag) -> "
      "Tensor[]");
  library.def(
      "call_module_backward(str operator, str module, Tensor[] tensors, Tensor?[] inputs, "
      "bool flag, Tensor?[] grads) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(mnemosyne, CPU, library) {
  library.impl("call_module", forward_kernel);
  library.impl("call_module_backward", backward_kernel);
}

TORCH_LIBRARY_IMPL(mnemosyne, CUDA, library) {
  library.impl("call_module", forward_kernel);
  library.impl("call_module_backward", backward_kernel);
}

TORCH_LIBRARY_IMPL(mnemosyne, Meta, library) {
  library.impl("call_module", forward_meta);
  library.impl("call_module_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(mnemosyne, Autograd, library) { library.impl("call_module", forward_autograd); }

TORCH_LIBRARY_IMPL(mnemosyne, FuncTorchBatched, library) {
  for (const char* name : {"call_module", "call_module_backward"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&ops::each_example>());
  }
}

}  // namespace mnemosyne::nn
