#include "mnemosyne/nn/theory/vectors.h"

#include <ATen/ops/randn.h>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/random.h"

namespace mnemosyne::nn {

FeatureMap draw_feature_map(const std::string& name, int64_t dim, int64_t features,
                            bool independent, uint64_t seed) {
  if (!independent) {
    return FeatureMap({.name = name, .dim = dim, .num_features = features, .seed = seed});
  }
  const ops::FeatureMapKind kind = feature_map_kind(name);
  const int64_t vectors = num_omegas(kind, features);
  return {kind, at::randn({vectors, dim}, tensor_generator(seed), at::kDouble)};
}

ops::FeatureMapKind estimating_kind(const std::string& name) {
  std::vector<std::string> names;
  for (const ops::FeatureMapTraits& map : ops::kFeatureMaps) {
    if (map.estimates) names.emplace_back(map.name);
  }
  one_of("feature_map", name, names);
  return feature_map_kind(name);
}

}  // namespace mnemosyne::nn
