#pragma once

namespace mnemosyne::ops {

/// While one lives, its thread treats CPU tensors of the optimizers' steps as those of a device for
/// which there are no kernels: by tensor operations over whole lists. For tests and benchmarks of
/// that way where there is no such device.
class WithoutKernels {
 public:
  WithoutKernels();
  ~WithoutKernels();
  WithoutKernels(const WithoutKernels&) = delete;
  WithoutKernels& operator=(const WithoutKernels&) = delete;

  /// Whether this thread has one.
  static bool active();

 private:
  bool before_;
};

}  // namespace mnemosyne::ops
