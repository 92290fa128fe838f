#include "mnemosyne/nn/position/grid_offsets.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/meshgrid.h>
#include <ATen/ops/stack.h>

#include <algorithm>

namespace mnemosyne::nn {

at::Tensor grid_offsets(int64_t tokens, int64_t columns) {
  const at::TensorOptions options = at::TensorOptions(at::kDouble);
  if (columns == 0) return at::arange(1 - tokens, tokens, options).unsqueeze(-1);
  TORCH_CHECK(tokens % columns == 0, "[linear_attention] expected full rows of ", columns,
              " tokens for fft, got ", tokens);
  const int64_t rows = tokens / columns;
  return at::stack(
      at::meshgrid({at::arange(1 - rows, rows, options), at::arange(1 - columns, columns, options)},
                   "ij"),
      -1);
}

at::Tensor grid_offset_index(int64_t tokens, int64_t columns) {
  const int64_t width = std::max<int64_t>(columns, 1), rows = tokens / width;
  const at::Tensor token = at::arange(tokens, at::TensorOptions(at::kLong));
  const at::Tensor row = token.floor_divide(width), column = token.remainder(width);
  const at::Tensor down = row.unsqueeze(1) - row.unsqueeze(0) + (rows - 1);
  const at::Tensor across = column.unsqueeze(1) - column.unsqueeze(0) + (width - 1);
  return (down * (2 * width - 1) + across).reshape({-1});
}

}  // namespace mnemosyne::nn
