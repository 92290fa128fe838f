#pragma once

#include <ATen/record_function.h>

#include <cstdint>

namespace mnemosyne::ops {

/// While it lives, counts what its thread asks of the dispatcher: what a dispatch mode of Python
/// sees, views included. Operations that are made of others are counted as those; what a kernel
/// calls in turn is not. For tests and benchmarks: at most one at a time.
class OperationCount {
 public:
  OperationCount();
  ~OperationCount();
  OperationCount(const OperationCount&) = delete;
  OperationCount& operator=(const OperationCount&) = delete;

  int64_t operations() const { return operations_; }

  /// Reads of one number by the host, for which it would wait for a device.
  int64_t host_reads() const { return host_reads_; }

 private:
  static OperationCount* active();
  bool begin(const at::RecordFunction& function);

  int64_t operations_ = 0;
  int64_t host_reads_ = 0;
  int64_t depth_ = 0;  // of operations that have been counted
  at::CallbackHandle handle_;

  friend struct OperationCallback;
};

}  // namespace mnemosyne::ops
