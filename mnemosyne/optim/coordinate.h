#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/ops/memory_step/memory_step.h"
#include "mnemosyne/optim/update_rule.h"

namespace mnemosyne::optim {

struct CoordinateOptions {
  int64_t num_layers = 1;            ///< Layers of memory; only one has fused kernels.
  int64_t num_heads = 3;             ///< Memories of one layer, each with its own discount.
  std::string feature_map = "hyp+";  ///< One of `nn::feature_map_names()`.
  int64_t num_features = 4;          ///< R; 1 for "constant".
  int64_t key_dim = 4;               ///< Size of keys and queries.
  int64_t hidden = 16;               ///< Hidden units of the decoder.
  int64_t momentum_head = 0;         ///< Its mean gradient is the base direction.
  int64_t variance_head = 1;         ///< Its mean squared gradient normalises it.
  double direction_bound = 1.0;      ///< Largest correction of the direction.
  double magnitude_bound = 2.0;      ///< Largest change of a coordinate's log step.
  double step_bound = 3.0;           ///< Largest change of a tensor's log step.
  bool scale_free = true;            ///< Steps in units of RMS(param), eps in units of RMS(grad).
  double rms_floor = 0.03;           ///< Least RMS(param) that a step is scaled by.
  double eps = 1e-8;                 ///< Added to the root of the mean squared gradient.
  int64_t seed = 0;                  ///< Of the initial weights and of omega.
  std::string omega = "";            ///< Random vectors as numbers, row by row; empty: drawn.
};

/// Coordinate-wise Mnemosyne: each coordinate of each parameter is a token of a compact associative
/// memory over time, whose read-outs a small network turns into direction and size of the step. The
/// step itself is `ops::memory_step`, with the specification; this class adds what belongs to a
/// tensor as a whole.
///
/// Features of a tensor at its t-th step [Y]: tanh(t/s - 1) for s = 1, 3, 10, ... 1e5; log10(size)
/// / 6; 1 for two dimensions and more; and, where the number of steps is given, 1 and the remaining
/// fraction (else 0, 0). They shift the decoder's hidden units and the tensor's step,
///
///     hidden_bias = decoder.hidden_bias + decoder.tensor_weight y
///     step        = lr scale exp(step.log_rate + step_bound tanh(step.tensor_weight y))
///
/// with scale = max(RMS(param), rms_floor), or 1 where `scale_free` is off. No feature sees the
/// loss.
///
/// Untrained, the decoder's last layer is zero and a step is about Adam's, .03 of the tensor's RMS.
/// State: step and memory, H R 3 floats a layer and coordinate, whatever the number of steps.
///
///     auto rule = std::make_shared<optim::CoordinateRule>(optim::CoordinateOptions{.num_heads =
///     2}); auto adam = optim::CoordinateRule::adam({.lr = 1e-3});     // the same numbers as Adam
///
/// The method is that of arXiv 2302.01128 (coordinate-wise variant); features, decoder, bounds and
/// scaling are ours. Throws InputError for options out of range.
class CoordinateRule : public UpdateRule {
 public:
  explicit CoordinateRule(CoordinateOptions options = {});

  struct AdamSettings {
    double lr = 1e-3;  ///< The step at StepOptions::lr = 1.
    double beta1 = 0.9;
    double beta2 = 0.999;
    double eps = 1e-8;
  };

  /// A rule with weights (float64) that make it Adam: constant features, two heads, last layer
  /// zero.
  static std::shared_ptr<CoordinateRule> adam(const AdamSettings& settings);

  std::string name() const override { return "mnemosyne-coordinate"; }
  std::string options_json() const override;
  StateLayout state_layout(const at::Tensor& param) const override;
  /// The base rule of the default Mnemosyne, with Adam's direction everywhere.
  std::shared_ptr<const UpdateRule> elementwise() const override;
  double default_lr() const override { return 1.0; }

  /// lr scale exp(step.log_rate).
  std::vector<double> step_sizes(const State& state, at::TensorList params,
                                 const StepOptions& options) const override;
  NamedTensors weights() const override { return weights_; }
  std::shared_ptr<UpdateRule> with_weights(const NamedTensors& weights) const override;

  const CoordinateOptions& options() const { return options_; }

  /// What the op takes, in a dtype and on a device; differentiable in `weights()`.
  ops::MemoryStepWeights step_weights(const at::TensorOptions& options) const;
  const ops::MemoryStepOptions& step_options() const { return step_options_; }

 protected:
  UpdateResult do_update(at::TensorList grads, const State& state, at::TensorList params,
                         const StepOptions& options) const override;
  void do_step_(at::TensorList grads, State& state, at::TensorList params,
                const StepOptions& options, const std::vector<double>& shrink) const override;
  // The size of a step, which weight decay goes with, is known on the device.
  bool decays_itself() const override { return true; }
  bool is_linear_in_lr() const override { return false; }
  bool steps_with_factors() const override { return true; }

 private:
  struct Group;

  at::Tensor step_scale(const std::vector<at::Tensor>& params, const StepOptions& options) const;
  at::Tensor decays(const Group& group, const StepOptions& options) const;

  std::vector<Group> groups(at::TensorList grads, const State& state, at::TensorList params,
                            const StepOptions& options) const;
  void add_tensor_terms(Group& group, const State& state, at::TensorList params,
                        const StepOptions& options) const;

  CoordinateOptions options_;
  ops::MemoryStepOptions step_options_;
  at::Tensor omega_;  // [M, D], float64; undefined for the constant feature map
  NamedTensors weights_;
};

/// Registry entry "mnemosyne-coordinate", with untrained weights.
std::shared_ptr<UpdateRule> make_coordinate_rule(const std::string& options_json);

}  // namespace mnemosyne::optim
