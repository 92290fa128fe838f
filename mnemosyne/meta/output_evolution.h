#pragma once

#include <string>
#include <vector>

#include "mnemosyne/meta/evolution.h"

namespace mnemosyne::meta {

struct OutputEvolutionOptions {
  /// Outputs that are perturbed, and features along which: names of the axes of the rule's first
  /// weight [K,F].
  std::vector<std::string> outputs = {"step", "blend", "mixture", "decay"};
  std::vector<std::string> features = {"one", "log_time", "is_matrix"};
  int64_t window = 8;   ///< Steps of a replay that are differentiated through together,
  int64_t stride = 40;  ///< of every so many, at least the window.
};

/// Evolution in the space of what a rule decides: for rules of thousands of weights, of which a run
/// of a few networks says little, but much of whether its steps were too large.
///
/// A run's population differs in the weights W of some features phi (which make a basis over
/// tensors and time) to some outputs z of the rule, so that dJ/dW = sum_{t,i} dJ/dz_{t,i}
/// phi_{t,i}^T is estimated by evolution over the whole run, in K B dimensions instead of N. The
/// field over tensors and steps of least norm that agrees with it,
///
///     dJ/dz_{t,i} = H (sum phi phi^T)^{-1} phi_{t,i}     H = dJ/dW, [K,B]
///
/// is then pulled back to all weights by autograd, through attention and memories too: the run is
/// replayed with one network, and windows of it are differentiated through. What differs between
/// runs is what networks can be told apart by. It carries nothing from one outer step to the next.
///
/// Errors: InputError for a rule without such outputs and features.
class OutputEvolutionEstimator : public EvolutionEstimator {
 public:
  OutputEvolutionEstimator(RunSampler sampler, EvolutionOptions evolution,
                           OutputEvolutionOptions options);

 protected:
  /// One for the weights of these features to these outputs.
  at::Tensor scale(const optim::UpdateRule& rule) const override;
  at::Tensor gradient(const optim::UpdateRule& rule, const Run& run, const at::Tensor& perturbed,
                      const OuterStep& step) const override;

 private:
  /// Places of names along the first weight's axes.
  struct Basis {
    std::vector<int64_t> outputs, features;
    int64_t num_outputs = 0, num_features = 0;
  };
  Basis basis_of(const optim::UpdateRule& rule) const;

  OutputEvolutionOptions options_;
};

}  // namespace mnemosyne::meta
