#include "mnemosyne/optim/deferred_count.h"

#include <ATen/TensorOperators.h>

#include "mnemosyne/ops/without_kernels.h"

namespace mnemosyne::optim {

void DeferredCount::add(const at::Tensor& count) {
  if (count.is_cpu() && !ops::WithoutKernels::active()) {
    host_ += count.item<int64_t>();
    return;
  }
  const at::Tensor more = count.to(at::kLong);
  device_ = device_.defined() ? device_ + more.to(device_.device()) : more;
}

int64_t DeferredCount::total() const {
  return host_ + (device_.defined() ? device_.item<int64_t>() : 0);
}

}  // namespace mnemosyne::optim
