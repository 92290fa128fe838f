#include "mnemosyne/optim/step_guard.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/optim/step_features.h"

namespace mnemosyne::optim {
namespace {

constexpr double kDampedFrom = 1.5, kBaseRuleFrom = 2.5;  // log of the growth of the norms

int64_t column(const char* feature, bool aligned) {
  const auto& names = step_feature_names(aligned);
  return std::find(names.begin(), names.end(), feature) - names.begin();
}

}  // namespace

at::Tensor step_trust(const at::Tensor& features, bool aligned) {
  static const int64_t trends[] = {column("mean_norm_trend", false),
                                   column("mean_norm_trend", true)};
  static const double from = std::tanh(kDampedFrom), to = std::tanh(kBaseRuleFrom);
  return ((to - features.select(1, trends[aligned ? 1 : 0])) / (to - from)).clamp(0.0, 1.0);
}

}  // namespace mnemosyne::optim
