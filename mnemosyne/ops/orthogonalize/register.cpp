#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"

namespace mnemosyne::ops {
namespace {

at::Tensor orthogonalize_device(const at::Tensor& x) { return orthogonalize(x); }

at::Tensor orthogonalize_meta(const at::Tensor& x) {
  TORCH_CHECK(x.dim() >= 2, "[orthogonalize] expected x of shape [..., M, N], got ", x.sizes());
  return at::empty_symint(x.sym_sizes(), x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mnemosyne, library) { library.def("orthogonalize(Tensor x) -> Tensor"); }

TORCH_LIBRARY_IMPL(mnemosyne, CPU, library) { library.impl("orthogonalize", orthogonalize_device); }

TORCH_LIBRARY_IMPL(mnemosyne, CUDA, library) {
  library.impl("orthogonalize", orthogonalize_device);
}

TORCH_LIBRARY_IMPL(mnemosyne, Meta, library) { library.impl("orthogonalize", orthogonalize_meta); }

TORCH_LIBRARY_IMPL(mnemosyne, Autograd, library) {
  library.impl("orthogonalize", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace mnemosyne::ops
