#include "mnemosyne/ops/autocast.h"

#include <ATen/autocast_mode.h>

namespace mnemosyne::ops {

at::Tensor to_autocast_dtype(const at::Tensor& x) {
  const at::DeviceType device = x.device().type();
  const bool known = device == at::kCPU || device == at::kCUDA;
  if (!known || !at::autocast::is_autocast_enabled(device)) return x;
  if (!x.is_floating_point() || x.scalar_type() == at::kDouble) return x;
  return x.to(at::autocast::get_autocast_dtype(device));
}

}  // namespace mnemosyne::ops
