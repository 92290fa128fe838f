#pragma once

#include <cstdint>

/// Scratch memory of a kernel.
namespace mnemosyne::kernels::CPU_CAPABILITY {

/// Hands out pieces of scratch memory, each on vectors of its own. Of no memory it hands out none
/// and counts: how much a kernel needs follows from what it takes.
class Arena {
 public:
  explicit Arena(float* scratch) : scratch_(scratch) {}

  float* take(int64_t count) {
    float* piece = scratch_ != nullptr ? scratch_ + taken_ : nullptr;
    taken_ += (count + kFloatsOfALine - 1) / kFloatsOfALine * kFloatsOfALine;
    return piece;
  }

  int64_t taken() const { return taken_; }

 private:
  static constexpr int64_t kFloatsOfALine = 16;

  float* scratch_;
  int64_t taken_ = 0;
};

}  // namespace mnemosyne::kernels::CPU_CAPABILITY
