#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/DimVector.h>

#include <string>
#include <vector>

namespace mnemosyne::optim {

/// What a rule remembers of one parameter: one tensor per entry of its `state_layout`.
///
/// The first one is always "step", a 0-d int64 tensor on the CPU: how many updates this parameter
/// has had. Everything a rule needs for a bit-exact resume is in here, nothing is kept in the rule
/// itself.
using ParamState = std::vector<at::Tensor>;

/// The states of a list of parameters, in their order.
using State = std::vector<ParamState>;

/// What one tensor of a ParamState has to be.
struct StateEntry {
  std::string name;
  c10::DimVector shape;
  at::ScalarType dtype;
  bool on_host = false;     ///< On the CPU wherever the parameter is.
  bool like_param = false;  ///< One number for each of the parameter's, in its shape.
};

/// The entries of one parameter, "step" first.
using StateLayout = std::vector<StateEntry>;

/// The entry "step".
StateEntry step_entry();

/// An entry of the parameter's shape, in its compute dtype.
StateEntry entry_like(std::string name, const at::Tensor& param);

/// An entry of another shape, in the parameter's compute dtype and on its device.
StateEntry entry_of(std::string name, at::IntArrayRef shape, const at::Tensor& param);

/// An entry on the CPU.
StateEntry host_entry(std::string name, at::IntArrayRef shape, at::ScalarType dtype);

/// float64 for float64 tensors, float32 otherwise.
at::ScalarType compute_dtype(const at::Tensor& tensor);

/// Contiguous zeros in the compute dtype, on the parameter's device.
at::Tensor zeros_for(const at::Tensor& param);

/// The "step" entry of a fresh ParamState.
at::Tensor new_step_counter();

/// The number of steps a state has seen.
int64_t step_count(const ParamState& state);

/// Zeros as the layout wants them.
ParamState zero_state(const StateLayout& layout, const at::Tensor& param);

/// A copy that shares no storage.
State clone_state(const State& state);

/// Throws InputError "[where] expected momentum of float32 [4, 3] for `param_name`, got ..." unless
/// `state` has the layout's tensors: their number, shapes and dtypes, and a step of at least 0.
void check_state(const StateLayout& layout, const ParamState& state, const std::string& where,
                 const std::string& param_name);

/// Replaces tensors that are on another device than they belong to, or whose numbers do not lie one
/// after the other: a checkpoint that was moved as a whole has such.
void place_state(const StateLayout& layout, ParamState& state, const at::Tensor& param);

}  // namespace mnemosyne::optim
