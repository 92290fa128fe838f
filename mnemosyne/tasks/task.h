#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mnemosyne/core/named_tensors.h"

namespace mnemosyne::tasks {

/// What a network sees in one step: inputs and targets, in the order that the task's loss expects.
using Batch = std::vector<at::Tensor>;

/// The training batches of one run, a pure function of the seed it was made with and the step
/// number: a resumed run sees what an uninterrupted one would have seen.
class BatchStream {
 public:
  virtual ~BatchStream() = default;
  virtual Batch at(int64_t step) = 0;
};

/// A training problem: a network, its data and its loss.
///
/// Parameters are *stacked*: P networks of one architecture are trained side by side on the same
/// batch, each tensor with a leading dimension of P members. One network is P = 1. Members never
/// influence one another, so the gradient of the summed loss holds every member's own gradient;
/// this is what makes a grid of learning rates or a population of perturbed optimizers one batched
/// network.
///
/// P = members, B = batch; tensors are float32. Initial values and batches are drawn on the CPU,
/// the same for every device; `loss` and `accuracy` compute where the parameters are, to which the
/// batch has to be brought (`on_device`). Everything is const and safe to call from several
/// threads; a BatchStream belongs to one thread.
class Task {
 public:
  virtual ~Task() = default;

  virtual std::string name() const = 0;

  /// Initial parameters of one network (no leading dimension), each at least 1-d, the same for the
  /// same seed.
  virtual std::vector<at::Tensor> init(uint64_t seed) const = 0;

  /// Names of the parameters, in the order of `init`: "blocks.0.attention.query.weight".
  virtual std::vector<std::string> param_names() const = 0;

  virtual std::unique_ptr<BatchStream> train_stream(uint64_t seed) const = 0;

  /// Fixed held-out batches; empty when the task has no held-out data.
  virtual std::vector<Batch> validation_batches() const = 0;

  /// Mean loss of every member: params[i] is [P, ...], the result [P].
  virtual at::Tensor loss(at::TensorList params, const Batch& batch) const = 0;

  /// What the network computes with beside its parameters, the same in every member and run: frozen
  /// draws, by the names that they have in the module. A file of the parameters holds them too.
  virtual NamedTensors buffers() const { return {}; }

  /// What a file of the parameters should say beside them, so that the network can be understood
  /// without the task: nn::module_metadata where it is a module.
  virtual std::map<std::string, std::string> metadata() const { return {}; }

  /// Whether P members are one batched computation, so that they cost less together than apart.
  virtual bool is_batched() const { return true; }

  /// Fraction of right answers of every member, [P]; undefined where the task is no classification.
  virtual at::Tensor accuracy(at::TensorList params, const Batch& batch) const;

  /// Tells a user's own data from others under the same name, so that nothing which was kept of one
  /// run is taken for one on other data; empty for published data.
  virtual std::string data_fingerprint() const { return {}; }
};

/// A distribution over tasks, for meta-training: architecture, data and noise vary with the seed.
class TaskFamily {
 public:
  virtual ~TaskFamily() = default;
  virtual std::string name() const = 0;
  virtual std::shared_ptr<const Task> sample(uint64_t seed) const = 0;
};

/// The tensors on the device; those that are there already are not copied.
std::vector<at::Tensor> on_device(std::vector<at::Tensor> tensors, at::Device device);

/// P equal copies of one network's parameters: each tensor [...] becomes a contiguous [P, ...].
std::vector<at::Tensor> stack_members(at::TensorList params, int64_t members);

/// The parameters of one member, as views without the leading dimension.
std::vector<at::Tensor> member_views(at::TensorList stacked, int64_t member);

}  // namespace mnemosyne::tasks
