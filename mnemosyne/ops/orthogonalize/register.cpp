#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"

namespace mnemosyne::ops {
namespace {

/// x of float64 with every matrix brought into the range of float, where it is beyond.
at::Tensor in_range(const at::Tensor& x) {
  constexpr double kSmallest = 1e-30, kLargest = 1e30;
  if (x.scalar_type() != at::kDouble || x.numel() == 0) return x;
  const at::Tensor largest = x.abs().amax({-2, -1}, /*keepdim=*/true);
  const at::Tensor inside = (largest >= kSmallest).logical_and(largest <= kLargest);
  return x / at::where(inside.logical_or(largest == 0), 1.0, largest);
}

/// A new contiguous tensor of the same sizes and dtype, whatever the strides of x.
at::Tensor orthogonalize_cpu(const at::Tensor& x) {
  TORCH_CHECK(x.dim() >= 2, "[orthogonalize] expected x of shape [..., M, N], got ", x.sizes());
  TORCH_CHECK(at::isFloatingType(x.scalar_type()),
              "[orthogonalize] expected a floating-point dtype, got ", x.scalar_type());
  const int64_t rows = x.size(-2);
  const int64_t columns = x.size(-1);
  at::Tensor result = in_range(x).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true,
                                     at::MemoryFormat::Contiguous);
  std::vector<MatrixRef> matrices;
  if (result.numel() > 0) {
    const int64_t count = result.numel() / (rows * columns);
    float* data = result.data_ptr<float>();
    for (int64_t i = 0; i < count; ++i)
      matrices.push_back({data + i * rows * columns, rows, columns});
  }
  orthogonalize_(matrices.data(), static_cast<int64_t>(matrices.size()));
  return result.to(x.scalar_type());
}

at::Tensor orthogonalize_meta(const at::Tensor& x) {
  TORCH_CHECK(x.dim() >= 2, "[orthogonalize] expected x of shape [..., M, N], got ", x.sizes());
  return at::empty_symint(x.sym_sizes(), x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mnemosyne, library) { library.def("orthogonalize(Tensor x) -> Tensor"); }

TORCH_LIBRARY_IMPL(mnemosyne, CPU, library) { library.impl("orthogonalize", orthogonalize_cpu); }

TORCH_LIBRARY_IMPL(mnemosyne, CUDA, library) {
  library.impl("orthogonalize", [](const at::Tensor& x) { return orthogonalize_polynomial(x); });
}

TORCH_LIBRARY_IMPL(mnemosyne, Meta, library) { library.impl("orthogonalize", orthogonalize_meta); }

TORCH_LIBRARY_IMPL(mnemosyne, Autograd, library) {
  library.impl("orthogonalize", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace mnemosyne::ops
