#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/DimVector.h>

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace mnemosyne::optim {

/// What a rule remembers of one parameter: one tensor per entry of its `state_layout`.
///
/// The first one is always "step", a 0-d int64 tensor on the CPU: how many updates this parameter
/// has had. Everything a rule needs for a bit-exact resume is in here and in `State::shared`,
/// nothing is kept in the rule itself.
using ParamState = std::vector<at::Tensor>;

/// What a rule remembers of a list of parameters: of each, in their order, and of them together.
class State {
 public:
  State() = default;
  State(std::initializer_list<ParamState> params) : params_(params) {}
  explicit State(size_t size) : params_(size) {}
  explicit State(std::vector<ParamState> params) : params_(std::move(params)) {}

  /// One tensor per entry of the rule's `shared_layout`. Empty counts as not begun.
  std::vector<at::Tensor> shared;

  ParamState& operator[](size_t i) { return params_[i]; }
  const ParamState& operator[](size_t i) const { return params_[i]; }
  const ParamState& at(size_t i) const { return params_.at(i); }
  ParamState& back() { return params_.back(); }
  auto begin() { return params_.begin(); }
  auto end() { return params_.end(); }
  auto begin() const { return params_.begin(); }
  auto end() const { return params_.end(); }
  size_t size() const { return params_.size(); }
  bool empty() const { return params_.empty(); }
  void reserve(size_t size) { params_.reserve(size); }
  const std::vector<ParamState>& params() const { return params_; }
  void push_back(ParamState state) { params_.push_back(std::move(state)); }

  template <typename... Arguments>
  ParamState& emplace_back(Arguments&&... arguments) {
    return params_.emplace_back(std::forward<Arguments>(arguments)...);
  }

 private:
  std::vector<ParamState> params_;
};

/// What one tensor of a state has to be.
struct StateEntry {
  std::string name;
  c10::DimVector shape;
  at::ScalarType dtype;
  bool on_host = false;     ///< On the CPU wherever the parameter is.
  bool like_param = false;  ///< One number for each of the parameter's, in its shape.
};

/// The entries of one parameter, "step" first; or those of a list, which have no such.
using StateLayout = std::vector<StateEntry>;

/// The entry "step".
StateEntry step_entry();

/// An entry of the parameter's shape, in its compute dtype.
StateEntry entry_like(std::string name, const at::Tensor& param);

/// An entry of another shape, in the parameter's compute dtype and on its device.
StateEntry entry_of(std::string name, at::IntArrayRef shape, const at::Tensor& param);

/// A float32 entry of another shape whatever the parameter's dtype, on its device.
StateEntry float_entry(std::string name, at::IntArrayRef shape);

/// An entry on the CPU.
StateEntry host_entry(std::string name, at::IntArrayRef shape, at::ScalarType dtype);

/// float64 for float64 tensors, float32 otherwise.
at::ScalarType compute_dtype(const at::Tensor& tensor);

/// Contiguous zeros in the compute dtype, on the parameter's device.
at::Tensor zeros_for(const at::Tensor& param);

/// The number of steps a state has seen.
int64_t step_count(const ParamState& state);

/// Zeros as the layout wants them.
ParamState zero_state(const StateLayout& layout, const at::Tensor& param);

/// A copy that shares no storage.
State clone_state(const State& state);

/// Throws InputError "[where] expected momentum of float32 [4, 3] for `param_name`, got ..." unless
/// `state` has the layout's tensors: their number, shapes and dtypes, and a "step" of at least 0.
void check_state(const StateLayout& layout, const ParamState& state, const std::string& where,
                 const std::string& param_name);

/// Whether `state` has the layout's tensors, on their devices and contiguous.
bool is_in_place(const StateLayout& layout, const ParamState& state, const at::Tensor& param);

/// Replaces tensors that are on another device than they belong to, or whose numbers do not lie one
/// after the other: a checkpoint that was moved as a whole has such.
void place_state(const StateLayout& layout, ParamState& state, const at::Tensor& param);

}  // namespace mnemosyne::optim
