#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mnemosyne::optim {

/// A count to which devices add without anybody waiting for them: what they counted is summed
/// there, and read when `total` is asked for.
class DeferredCount {
 public:
  explicit DeferredCount(int64_t total = 0) : host_(total) {}

  void add(int64_t count) { host_ += count; }

  /// `count`, a 0-d tensor of whole numbers or a 0-d bool, on any device.
  void add(const at::Tensor& count);

  int64_t total() const;

 private:
  int64_t host_ = 0;
  at::Tensor device_;  // 0-d int64, or undefined
};

}  // namespace mnemosyne::optim
