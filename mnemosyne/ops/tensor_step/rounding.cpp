#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include "mnemosyne/ops/tensor_step/tensor_step.h"

namespace mnemosyne::ops {
namespace {

constexpr int64_t kWord = 0xFFFFFFFF;

/// The lower word of a product of words: int64 wraps around.
at::Tensor product(const at::Tensor& x, int64_t factor) { return (x * factor).__and__(kWord); }

at::Tensor mixed(const at::Tensor& x, int64_t shift) { return x.__xor__(x.__rshift__(shift)); }

}  // namespace

at::Tensor rounding_bits(const at::Tensor& index, const at::Tensor& seed) {
  at::Tensor x = mixed(product(index, 0x9E3779B9).__xor__(seed), 16);
  x = mixed(product(x, 0x7FEB352D), 15);
  return mixed(product(x, 0x846CA68B), 16).__and__(0xFFFF);
}

at::Tensor round_at_random(const at::Tensor& x, const at::Tensor& bits) {
  const at::Tensor raised = x.contiguous().view(at::kInt) + bits.to(at::kInt);
  return raised.__and__(-0x10000).view(at::kFloat);
}

}  // namespace mnemosyne::ops
