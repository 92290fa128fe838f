#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace mnemosyne::ops {

/// x in the dtype that autocast has for its device, as the operators have it that autocast runs in
/// low precision; x itself outside of autocast, and where it is no float32, float16 or bfloat16.
at::Tensor to_autocast_dtype(const at::Tensor& x);

/// While it lives, operators run in the dtype of their tensors: for what loses its meaning when
/// autocast rounds it, such as angles and sums.
struct NoAutocast {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

}  // namespace mnemosyne::ops
