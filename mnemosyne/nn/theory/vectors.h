#pragma once

#include <cstdint>
#include <string>

#include "mnemosyne/nn/feature_map.h"

namespace mnemosyne::nn {

/// A map of `feature_map_names()` with `features` features of vectors of size `dim`: as the library
/// draws it, orthogonal in blocks, or with independent vectors, which the formulas of
/// nn/theory/kernel_moments.h are about.
FeatureMap draw_feature_map(const std::string& name, int64_t dim, int64_t features,
                            bool independent, uint64_t seed);

/// `feature_map_kind`, for maps that estimate exp(x.y); InputError for others.
ops::FeatureMapKind estimating_kind(const std::string& name);

}  // namespace mnemosyne::nn
