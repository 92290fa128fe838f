#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mnemosyne::nn {

// Tokens on a regular grid, rows of `columns` tokens, the last axis fastest; columns 0: on a line.

/// The offsets between them, query minus key, as `ops::fft_masked_attention` orders them:
/// [2 L - 1, 1] or [2 G1 - 1, 2 G2 - 1, 2], float64. c10::Error unless all rows are full.
at::Tensor grid_offsets(int64_t tokens, int64_t columns);

/// Where the offset of query i and key j stands among these, [L L].
at::Tensor grid_offset_index(int64_t tokens, int64_t columns);

}  // namespace mnemosyne::nn
