#pragma once

#include <memory>
#include <vector>

#include "mnemosyne/meta/estimator.h"

namespace mnemosyne::meta {

/// Several estimators as one: the sum of their gradients, each times its share.
///
/// Truncated gradients are precise and biased to short horizons, evolution is noisy and is not: the
/// mixture has the one for speed and the other for the long run, where the bias of the first makes
/// steps too small. With `normalize` each gradient is divided by its norm first, since estimators
/// differ in scale by orders of magnitude.
class MixtureEstimator : public GradientEstimator {
 public:
  struct Part {
    double weight = 1.0;  ///< Shares are weights over their sum.
    std::unique_ptr<GradientEstimator> estimator = {};
  };

  explicit MixtureEstimator(std::vector<Part> parts, bool normalize = true);

  MetaGradient estimate(const optim::UpdateRule& rule, const OuterStep& step) override;
  NamedTensors checkpoint(ProcessGroup& processes) const override;
  void restore(const NamedTensors& tensors) override;

 private:
  std::vector<Part> parts_;
  bool normalize_;
};

}  // namespace mnemosyne::meta
