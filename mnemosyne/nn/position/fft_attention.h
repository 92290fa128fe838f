#pragma once

#include <cstdint>
#include <memory>

#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/position/fourier_position.h"
#include "mnemosyne/nn/position/position.h"
#include "mnemosyne/nn/position/position_names.h"

namespace mnemosyne::nn {

/// The exact factor exp(f) of every pair of tokens on a regular grid, by fast Fourier transforms
/// (Luo et al. 2021, arXiv 2106.12566): the baseline of FourierPosition, with the same f. Up to
/// `kLargestMatrix` tokens the matrix of the mask is made instead, which is the same and faster.
struct FftMaskOptions {
  static constexpr PositionNames kNames{"fft", "FftMask", PositionUse::kLinear};

  FourierPositionOptions mask{};  ///< Of f; its position_dim is 1 or 2.
  int64_t columns = 0;            ///< In two dimensions: how many tokens a row of the grid has.
};

void bind(Fields& visit, FftMaskOptions& options);

/// An algorithm of its own of linear attention; InputError for grids that there is none for.
std::shared_ptr<Position> make_position(const FftMaskOptions& options, const PositionSite& site);

void choose(const AttentionOptions& chosen, const AttentionSite& site, FftMaskOptions& options);

/// Up to here the L x S matrix of a mask is small.
inline constexpr int64_t kLargestMatrix = 256;

}  // namespace mnemosyne::nn
