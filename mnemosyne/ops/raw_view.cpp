#include "mnemosyne/ops/raw_view.h"

#include <ATen/ops/as_strided_native.h>

#include <vector>

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

}  // namespace mnemosyne::ops
