#pragma once

#include <optional>
#include <string>
#include <vector>

#include "mnemosyne/optim/optimizer.h"

namespace mnemosyne::optim {

struct MnemosyneOptions {
  double lr = 1.0;            ///< A plain multiplier of the step, for schedulers; nothing to tune.
  double weight_decay = 0.0;  ///< As AdamW's, whose values carry over (docs/optimizer.md).
  std::optional<int64_t> num_steps = {};  ///< Length of the run where it is known: it helps.
  std::string weights = "default";        ///< Or the path of a weights file.
  /// "" for the default rule, "attention", "compact", "coordinate", "tensor", "super"; "first" for
  /// the default rule with its former weights.
  std::string variant = "";
  bool learned = true;     ///< false leaves the hand-made base rule.
  bool orthogonal = true;  ///< false: Adam's direction, for masked parameters; see RuleOptions.
};

/// The learned optimizer, with weights that are part of the library: no learning rate to find.
///
///     optim::Mnemosyne optimizer(model->parameters());
///     for (...) {
///       optimizer.zero_grad();
///       loss.backward();
///       optimizer.step();
///     }
///
/// After "Mnemosyne: learning to train Transformers with Transformers", arXiv 2302.01128; what the
/// rule computes is in mnemosyne_rule.h, with attention over space and time in the variant of that
/// name; the paper's own variants are those of coordinate.h (144 bytes of state a parameter, no
/// base rule), tensorwise.h (about 9) and super.h, both by the size of the tensor; compact.h keeps
/// less than a byte a parameter of a large matrix. Throws
/// InputError for an unknown variant, a weights file that cannot be used, and `learned = false`
/// where the variant has no base rule.
class Mnemosyne : public RuleOptimizer {
 public:
  explicit Mnemosyne(std::vector<at::Tensor> params, const MnemosyneOptions& options = {});
  explicit Mnemosyne(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                     const MnemosyneOptions& options = {});
};

/// The rule that these options stand for.
std::shared_ptr<UpdateRule> mnemosyne_rule(const MnemosyneOptions& options);

}  // namespace mnemosyne::optim
