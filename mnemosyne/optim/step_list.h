#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "mnemosyne/ops/tensor_step/tensor_step.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

/// A list of T parameters on any devices and of any dtypes, as `ops::TensorStep`s of one device and
/// compute dtype each, for rules that keep step, momentum and second moment at 0, 1 and 2 of their
/// state. What is measured and decided of all their chunks (tensors where there are no smaller
/// ones), [C, ...] in the order of the list, lives at `home`: the device of the first parameter
/// that is not on the CPU, else the CPU, so that lists of one device move nothing.
class StepList {
 public:
  /// What a list is made of: `rows` and `base` of each tensor as in ops::TensorStep, the factors as
  /// in StepOptions.
  struct Inputs {
    std::vector<at::Tensor> grads, params;
    State state;  ///< The tensors of the state that is stepped; their own, not copies.
    std::vector<int64_t> rows;
    std::vector<ops::StepBase> base;
    at::Tensor lr_factor, weight_decay_factor;
    int64_t chunk_size = 0;  ///< As in ops::TensorStep.
    /// Where the state has the previous updates of ops::TensorStep, if it has: updates of the pure
    /// form then have `lr_factor` in them, for it is part of what a step takes off.
    std::optional<size_t> previous_update = {};
  };

  /// Whether the lists of these members can be stepped as one, one after the other: there is only
  /// one, or they have the same length and nobody asks for what only a list of its own can give.
  static bool can_join(const std::vector<MemberStep>& members);

  /// Where moments, sums and directions come from.
  enum class Form {
    kPure,     ///< Writes nothing, differentiable in the correction.
    kInPlace,  ///< Kernels: moments and parameters are written.
  };

  /// Counts a step of every tensor.
  StepList(Form form, Inputs inputs);

  bool in_place() const { return form_ == Form::kInPlace; }

  /// After the step, as far as it has come. In place these are the tensors that were given.
  State& state() { return inputs_.state; }
  const std::vector<at::Tensor>& params() const { return inputs_.params; }

  /// Advances the moments; the sums [C] at home, undefined without.
  ops::StepSums advance(bool with_sums);

  /// The updates of the tensors, without weight decay. Only of the pure form.
  std::vector<at::Tensor> directions(const ops::StepCorrection* correction);

  /// Moves the parameters and counts what was replaced. Only of the form in place.
  void apply(const ops::StepCorrection* correction, DeferredCount* fallbacks);

 private:
  struct Group {
    std::vector<int64_t> indices;  // into the list
    std::vector<int64_t> chunks;   // into the chunks of the list
    ops::TensorStep step;
    ops::StepSums sums;
  };

  Group& group_of(const at::Tensor& param);
  at::Tensor rows_of(const at::Tensor& all, const Group& group) const;
  ops::StepCorrection correction_of(const ops::StepCorrection& all, const Group& group) const;

  Form form_;
  Inputs inputs_;
  at::Device home_ = at::kCPU;
  std::vector<Group> groups_;
};

}  // namespace mnemosyne::optim
