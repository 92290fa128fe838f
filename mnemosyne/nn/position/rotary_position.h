#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/position/position.h"
#include "mnemosyne/nn/position/position_names.h"

namespace mnemosyne::nn {

/// Rotary position encoding (Su et al. 2021, arXiv 2104.09864). Dimensions of a head are divided
/// evenly between the axes of the position, in pairs; what is left over is not rotated.
struct RotaryPositionOptions {
  static constexpr PositionNames kNames{"rope", "RotaryPosition", PositionUse::kBoth};

  int64_t position_dim = 1;     ///< P; a head needs at least 2 P dimensions.
  double base = 10000.0;        ///< The i-th of n pairs turns by base^(-i/n) per unit of position.
  double position_scale = 1.0;  ///< Positions are multiplied by it first.
};

void bind(Fields& visit, RotaryPositionOptions& options);

/// x [B,H,L,D] turned by the positions [L,P] or [B,L,P] of its tokens: inner products of two turned
/// vectors depend on the offset of their positions alone.
at::Tensor rotate_by_position(const at::Tensor& x, const at::Tensor& positions,
                              const RotaryPositionOptions& options);

/// Queries and keys turned, for heads of the site's depth; InputError where that is too small.
std::shared_ptr<Position> make_position(const RotaryPositionOptions& options,
                                        const PositionSite& site);

void choose(const AttentionOptions& chosen, const AttentionSite& site,
            RotaryPositionOptions& options);

}  // namespace mnemosyne::nn
