#pragma once

#include <torch/optim/optimizer.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "mnemosyne/optim/optimizer.h"

namespace mnemosyne::optim {

/// What a RuleOptimizer keeps of one parameter.
struct RuleParamState : public torch::optim::OptimizerCloneableParamState<RuleParamState> {
  explicit RuleParamState(ParamState state) : tensors(std::move(state)) {}
  ParamState tensors;
};

/// The content of an archive, checked against the optimizer that it is for.
struct LoadedOptimizer {
  std::vector<RuleOptions> options;  ///< per group
  ska::flat_hash_map<void*, std::unique_ptr<torch::optim::OptimizerParamState>> state;
  std::map<size_t, std::vector<at::Tensor>> shared_states;  ///< by group
  int64_t nonfinite_count = 0;
  int64_t overrun_count = 0;
  int64_t fallback_count = 0;
  int64_t damped_count = 0;
};

/// The file format of a RuleOptimizer: parameters are known by their place in their group, so that
/// a model built anew can load it.
void write_optimizer(torch::serialize::OutputArchive& archive, const RuleOptimizer& optimizer);

/// Throws InputError for an archive that does not fit; does not change the optimizer.
LoadedOptimizer read_optimizer(torch::serialize::InputArchive& archive,
                               const RuleOptimizer& optimizer);

}  // namespace mnemosyne::optim
