#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "mnemosyne/core/named_tensors.h"

namespace mnemosyne::meta {

struct OuterOptimizerOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double clip_norm = 1.0;  ///< Largest norm of a meta-gradient; 0: no clipping.
  double weight_decay =
      0.0;  ///< Decoupled pull to the weights at the start, per step times the rate.
  double ema_decay = 0.98;  ///< Of the average of the weights, without bias at the start.
};

/// Adam (Kingma and Ba 2015) on the rule's weights as one vector [N], with clipping by norm and an
/// exponential moving average of the weights.
class OuterOptimizer {
 public:
  OuterOptimizer(const at::Tensor& initial, OuterOptimizerOptions options);

  /// One step against `gradient` [N] at `rate_factor` times the learning rate. Returns the
  /// gradient's norm before clipping.
  double step(const at::Tensor& gradient, double rate_factor);

  const at::Tensor& weights() const { return weights_; }
  const at::Tensor& initial() const { return initial_; }

  /// The moving average; the initial weights before the first step.
  at::Tensor average() const;

  NamedTensors checkpoint() const;
  void restore(const NamedTensors& tensors);

 private:
  OuterOptimizerOptions options_;
  int64_t steps_ = 0;
  at::Tensor initial_, weights_, mean_, square_, average_;  // [N]
};

}  // namespace mnemosyne::meta
