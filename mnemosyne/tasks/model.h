#pragma once

#include <ATen/core/Tensor.h>

#include "mnemosyne/tasks/param_list.h"

namespace mnemosyne::tasks {

/// A network as a pure function of its stacked parameters: P networks of one architecture that see
/// the same inputs. Immutable, so that many threads may share one.
class Model {
 public:
  virtual ~Model() = default;

  const ParamList& params() const { return params_; }

  /// Inputs without a member dimension, [B, ...], to outputs [P,N,out]: one row per example (N =
  /// B), or per position of every example (N = B * length) for a model of sequences.
  virtual at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const = 0;

 protected:
  explicit Model(ParamList params) : params_(std::move(params)) {}

 private:
  ParamList params_;
};

}  // namespace mnemosyne::tasks
