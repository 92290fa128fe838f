#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/optim/coordinate.h"
#include "mnemosyne/optim/tensorwise.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

struct SuperOptions {
  TensorwiseOptions tensor = {};  ///< Base rule and tensor-wise part.
  int64_t small_size = 1024;      ///< Tensors of at most so many coordinates have both parts.
  int64_t coordinate_heads = 3;   ///< Of the coordinate-wise part: CoordinateOptions.
  int64_t coordinate_features = 4;
  int64_t coordinate_key_dim = 2;
  int64_t coordinate_hidden = 8;
  double coordinate_direction_bound = 0.5;
  double coordinate_magnitude_bound = 0.7;
  double coordinate_step_bound = 0.7;
};

/// Super-Mnemosyne: tensor-wise (tensorwise.h) for large tensors, and for small ones the gated sum
/// of that and of the coordinate-wise rule (coordinate.h), whose memory of every coordinate only
/// small tensors can afford. For a tensor of at most `small_size` coordinates
///
///     p <- p - (g s r C + (1 - g) u)      g = sigmoid(w y)
///
/// with u the tensor-wise update, s the base rule's step size, r = kDirectionRms for matrices and 1
/// for the rest, C what the coordinate-wise rule does in Adam's units, learned step included, and y
/// what is known of the tensor: 1, whether it is a matrix, log10 of its size / 6, log10 of the step
/// / 5 and the remaining fraction of the run, 0 where its length is unknown.
///
/// Before meta-training C is Adam's direction with means that count more what the memory finds
/// alike, and g is .88 for vectors and .12 for matrices. State: that of the tensor-wise rule, and
/// 144 bytes a parameter of small tensors.
///
///     auto rule = optim::make_rule("mnemosyne-super", R"({"small_size": 4096})");
///
/// The idea is that of arXiv 2302.01128; base, bounds and the gate's inputs are ours. InputError
/// for options out of range.
class SuperRule : public UpdateRule {
 public:
  explicit SuperRule(SuperOptions options = {});

  std::string name() const override { return "mnemosyne-super"; }
  StateLayout state_layout(const at::Tensor& param) const override;
  std::shared_ptr<const UpdateRule> elementwise() const override {
    return tensorwise_->elementwise();
  }
  double default_lr() const override { return 1.0; }
  std::optional<double> default_momentum() const override {
    return tensorwise_->default_momentum();
  }
  std::vector<double> step_sizes(const State& state, at::TensorList params,
                                 const StepOptions& options) const override;
  std::string options_json() const override;
  /// "gate" [5], and those of the parts after "tensor." and "coordinate.".
  NamedTensors weights() const override;
  WeightAxes weight_axes() const override;
  std::shared_ptr<UpdateRule> with_weights(const NamedTensors& weights) const override;

  const SuperOptions& options() const { return options_; }

 protected:
  UpdateResult do_update(at::TensorList grads, const State& state, at::TensorList params,
                         const StepOptions& options) const override;
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;
  at::Tensor fallback_update(const at::Tensor& grad, const ParamState& state,
                             const at::Tensor& param, const StepOptions& options) const override;
  bool steps_with_factors() const override { return true; }

 private:
  struct Small;

  bool is_small(const at::Tensor& param) const { return param.numel() <= options_.small_size; }
  Small step_small(at::TensorList grads, const State& state, at::TensorList params,
                   const StepOptions& options) const;
  std::vector<at::Tensor> advance(StepList& list, Small small, at::TensorList grads,
                                  const StepOptions& options) const;

  SuperOptions options_;
  std::shared_ptr<const TensorwiseRule> tensorwise_;
  std::shared_ptr<const UpdateRule> coordinate_;
  at::Tensor gate_;  // [5]
};

/// Names the options.
void bind(Fields& visit, SuperOptions& options);

/// Registry entry "mnemosyne-super", with untrained weights.
std::shared_ptr<UpdateRule> make_super_rule(const std::string& options_json);

}  // namespace mnemosyne::optim
