#include "mnemosyne/ops/raw_view.h"

#include <ATen/ops/as_strided_native.h>

namespace mnemosyne::ops {

at::Tensor raw_view(const at::Tensor& base, at::IntArrayRef sizes, at::IntArrayRef strides,
                    int64_t offset) {
  return at::native::as_strided_tensorimpl(base, sizes, strides, base.storage_offset() + offset);
}

at::Tensor raw_view(const at::Tensor& base, at::IntArrayRef sizes, int64_t offset) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= sizes[d];
  }
  return raw_view(base, sizes, strides, offset);
}

std::vector<at::Tensor> raw_unbind(const at::Tensor& x) {
  TORCH_CHECK(x.is_contiguous(), "[raw_unbind] expected a contiguous tensor, got strides ",
              x.strides());
  const at::IntArrayRef sizes = x.sizes().slice(1);
  std::vector<at::Tensor> parts;
  for (int64_t i = 0; i < x.size(0); ++i) parts.push_back(raw_view(x, sizes, i * x.stride(0)));
  return parts;
}

}  // namespace mnemosyne::ops
