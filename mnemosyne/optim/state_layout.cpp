#include "mnemosyne/optim/state_layout.h"

#include <ATen/ops/zeros.h>
#include <c10/util/StringUtil.h>

#include <cctype>

#include "mnemosyne/core/error.h"

namespace mnemosyne::optim {
namespace {

std::string describe(at::ScalarType dtype, at::IntArrayRef shape) {
  std::string name = c10::str(dtype);
  for (char& c : name) c = static_cast<char>(std::tolower(c));
  if (dtype == at::kFloat) name = "float32";
  if (dtype == at::kDouble) name = "float64";
  if (dtype == at::kLong) name = "int64";
  return name + " " + c10::str(shape);
}

std::string describe(const at::Tensor& tensor) {
  return tensor.defined() ? describe(tensor.scalar_type(), tensor.sizes()) : "none";
}

at::Device device_of(const StateEntry& entry, const at::Tensor& param) {
  return entry.on_host ? at::Device(at::kCPU) : param.device();
}

}  // namespace

StateEntry step_entry() { return host_entry("step", {}, at::kLong); }

StateEntry entry_like(std::string name, const at::Tensor& param) {
  return {std::move(name), c10::DimVector(param.sizes()), compute_dtype(param), /*on_host=*/false,
          /*like_param=*/true};
}

StateEntry entry_of(std::string name, at::IntArrayRef shape, const at::Tensor& param) {
  return {std::move(name), c10::DimVector(shape), compute_dtype(param)};
}

StateEntry float_entry(std::string name, at::IntArrayRef shape) {
  return {std::move(name), c10::DimVector(shape), at::kFloat};
}

StateEntry host_entry(std::string name, at::IntArrayRef shape, at::ScalarType dtype) {
  return {std::move(name), c10::DimVector(shape), dtype, /*on_host=*/true};
}

at::ScalarType compute_dtype(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor zeros_for(const at::Tensor& param) {
  return at::zeros(param.sizes(), at::TensorOptions(compute_dtype(param)).device(param.device()));
}

int64_t step_count(const ParamState& state) { return *state.at(0).const_data_ptr<int64_t>(); }

ParamState zero_state(const StateLayout& layout, const at::Tensor& param) {
  ParamState state;
  state.reserve(layout.size());
  for (const StateEntry& entry : layout) {
    state.push_back(
        at::zeros(entry.shape, at::TensorOptions(entry.dtype).device(device_of(entry, param))));
  }
  return state;
}

State clone_state(const State& state) {
  State copy;
  copy.reserve(state.size());
  for (const ParamState& tensors : state) {
    ParamState& target = copy.emplace_back();
    for (const at::Tensor& tensor : tensors) target.push_back(tensor.clone());
  }
  for (const at::Tensor& tensor : state.shared) copy.shared.push_back(tensor.clone());
  return copy;
}

void check_state(const StateLayout& layout, const ParamState& state, const std::string& where,
                 const std::string& param_name) {
  const auto refuse = [&](const std::string& expected, const std::string& got) {
    throw InputError("[" + where + "] expected " + expected + " for " + param_name + ", got " +
                     got);
  };
  if (state.size() != layout.size()) {
    refuse("a state of " + std::to_string(layout.size()) + " tensors",
           std::to_string(state.size()));
  }
  for (size_t k = 0; k < layout.size(); ++k) {
    const at::Tensor& tensor = state[k];
    if (tensor.defined() && tensor.scalar_type() == layout[k].dtype &&
        tensor.sizes() == at::IntArrayRef(layout[k].shape)) {
      continue;
    }
    refuse(layout[k].name + " of " + describe(layout[k].dtype, layout[k].shape), describe(tensor));
  }
  const bool counts = !layout.empty() && layout[0].name == "step" && state[0].is_cpu();
  if (counts && step_count(state) < 0) {
    refuse("step of at least 0", std::to_string(step_count(state)));
  }
}

bool is_in_place(const StateLayout& layout, const ParamState& state, const at::Tensor& param) {
  if (state.size() != layout.size()) return false;
  for (size_t k = 0; k < layout.size(); ++k) {
    const at::Tensor& tensor = state[k];
    if (!tensor.defined() || tensor.scalar_type() != layout[k].dtype ||
        tensor.sizes() != at::IntArrayRef(layout[k].shape) ||
        tensor.device() != device_of(layout[k], param) || !tensor.is_contiguous()) {
      return false;
    }
  }
  return true;
}

void place_state(const StateLayout& layout, ParamState& state, const at::Tensor& param) {
  for (size_t k = 0; k < layout.size(); ++k) {
    const at::Device device = device_of(layout[k], param);
    if (state[k].device() != device) state[k] = state[k].to(device);
    if (!state[k].is_contiguous()) state[k] = state[k].contiguous();
  }
}

}  // namespace mnemosyne::optim
