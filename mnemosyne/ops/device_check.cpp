#include "mnemosyne/ops/device_check.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_assert_async.h>

namespace mnemosyne::ops {

void check_at_most(const at::Tensor& number, double limit, const std::string& expected,
                   const std::string& what) {
  if (number.is_meta()) return;
  const at::Tensor value = number.detach();
  if (value.is_cuda()) {
    at::_assert_async((value > limit).logical_not(), expected);
    return;
  }
  const double read = value.item<double>();
  TORCH_CHECK(!(read > limit), expected, ", got ", what, read);
}

}  // namespace mnemosyne::ops
