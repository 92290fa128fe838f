// Which way a matrix goes.
#include "mnemosyne/ops/orthogonalize/orthogonalize.h"

#include <vector>

#include "mnemosyne/ops/orthogonalize/device.h"
#include "mnemosyne/ops/without_kernels.h"

namespace mnemosyne::ops {
namespace {

/// The kernel on float32 copies of the matrices of x [..., M, N].
at::Tensor orthogonalize_by_kernel(const at::Tensor& x) {
  const at::Tensor result =
      x.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous);
  std::vector<MatrixRef> matrices;
  const int64_t rows = x.size(-2), columns = x.size(-1);
  float* data = result.data_ptr<float>();
  for (int64_t at = 0; at < result.numel(); at += rows * columns) {
    matrices.push_back({data + at, rows, columns});
  }
  orthogonalize_(matrices.data(), static_cast<int64_t>(matrices.size()));
  return result.to(x.scalar_type());
}

/// How matrices of a dtype are treated on a device.
struct Way {
  bool kernel = false;
  std::optional<at::ScalarType> precision;  // of the polynomial; none: the reference

  Way(const at::Tensor& x, const OrthogonalizeOptions& options) {
    if (x.scalar_type() == at::kDouble) return;
    kernel = x.is_cpu() && !WithoutKernels::active();
    precision = options.precision.value_or(x.is_cuda() ? at::kBFloat16 : at::kFloat);
  }
};

}  // namespace

at::Tensor orthogonalize(const at::Tensor& x, const OrthogonalizeOptions& options) {
  TORCH_CHECK(x.dim() >= 2, "[orthogonalize] expected x of shape [..., M, N], got ", x.sizes());
  TORCH_CHECK(at::isFloatingType(x.scalar_type()),
              "[orthogonalize] expected a floating-point dtype, got ", x.scalar_type());
  if (x.numel() == 0) return x.clone(at::MemoryFormat::Contiguous);
  const Way way(x, options);
  if (way.kernel) return orthogonalize_by_kernel(x);
  return way.precision ? orthogonalize_polynomial(x, *way.precision) : orthogonalize_reference(x);
}

void orthogonalize_(at::TensorList matrices, const OrthogonalizeOptions& options) {
  for (const at::Tensor& matrix : matrices) {
    const at::ScalarType dtype = matrix.scalar_type();
    TORCH_CHECK(matrix.dim() == 2 && matrix.is_contiguous() &&
                    (dtype == at::kFloat || dtype == at::kDouble) &&
                    dtype == matrices[0].scalar_type() && matrix.device() == matrices[0].device(),
                "[orthogonalize_] expected contiguous matrices of one device and dtype, float32 or "
                "float64, got ",
                matrix.toString(), " ", matrix.sizes());
  }
  if (matrices.empty()) return;
  const Way way(matrices[0], options);
  if (!way.kernel) return orthogonalize_batches_(matrices, way.precision);
  std::vector<MatrixRef> references;
  references.reserve(matrices.size());
  for (const at::Tensor& matrix : matrices) {
    references.push_back({matrix.data_ptr<float>(), matrix.size(0), matrix.size(1)});
  }
  orthogonalize_(references.data(), static_cast<int64_t>(references.size()));
}

}  // namespace mnemosyne::ops
