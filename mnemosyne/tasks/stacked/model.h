#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "mnemosyne/core/named_tensors.h"
#include "mnemosyne/tasks/stacked/param_list.h"

namespace mnemosyne::tasks {

/// A network as a pure function of its stacked parameters: P networks of one architecture that see
/// the same inputs. Immutable, so that many threads may share one.
class Model {
 public:
  /// From outputs [P,N,out] to the loss of every member, [P]. P is that of its argument.
  using LossFunction = std::function<at::Tensor(const at::Tensor& outputs)>;

  virtual ~Model() = default;

  virtual std::vector<std::string> param_names() const = 0;

  /// Parameters of one network, without the leading dimension: a function of the seed.
  virtual std::vector<at::Tensor> init(uint64_t seed) const = 0;

  /// Number of values of one network's parameters.
  virtual int64_t num_params() const = 0;

  /// See Task::buffers.
  virtual NamedTensors buffers() const { return {}; }

  /// See Task::metadata.
  virtual std::map<std::string, std::string> metadata() const { return {}; }

  /// See Task::is_batched.
  virtual bool is_batched() const { return true; }

  /// Inputs without a member dimension, [B, ...], to outputs [P,N,out]: one row per example (N =
  /// B), or per position of every example (N = B * length) for a model of sequences.
  virtual at::Tensor forward(at::TensorList params, const at::Tensor& inputs) const = 0;

  /// `loss` of the outputs, [P], differentiable in the parameters. What trains a model calls this
  /// and not `forward`, which may give values only (module_model.h).
  virtual at::Tensor loss(at::TensorList params, const at::Tensor& inputs,
                          const LossFunction& loss) const {
    return loss(forward(params, inputs));
  }
};

/// A model that declares its parameters in a list and computes with the functions of layers.h, all
/// members at once.
class StackedModel : public Model {
 public:
  std::vector<std::string> param_names() const override { return params_.names(); }
  std::vector<at::Tensor> init(uint64_t seed) const override { return params_.init(seed); }
  int64_t num_params() const override { return params_.numel(); }

 protected:
  explicit StackedModel(ParamList params) : params_(std::move(params)) {}

 private:
  ParamList params_;
};

}  // namespace mnemosyne::tasks
