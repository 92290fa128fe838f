#pragma once

#include <cstdint>

#include "mnemosyne/kernels/isa.h"

namespace mnemosyne::kernels {

/// What one call on the CPU does of a problem: its items from begin to end (coordinates, examples,
/// heads: the kernel's header says which), in scratch memory that no other call uses meanwhile.
template <typename Params>
struct Slice {
  const Params& problem;
  int64_t begin;
  int64_t end;
  float* scratch;  ///< As many floats as the kernel's `_scratch` function says; else null.
};

}  // namespace mnemosyne::kernels

/// Declares `void function(const Params&)` in the namespaces of the instruction sets and defines
/// mnemosyne::kernels::function, which calls the one for this processor. Use it at global scope, in
/// the header of a kernel; define the function once, in cpu/X.cpp, in namespace
/// mnemosyne::kernels::CPU_CAPABILITY, and list that file in CMakeLists.txt.
#define MN_DECLARE_KERNEL(function, Params) MN_DECLARE_FOR_ISAS(void, function, Params)

/// The same for `int64_t function(const Params&)`: floats of scratch memory that a slice takes.
#define MN_DECLARE_SCRATCH(function, Params) MN_DECLARE_FOR_ISAS(int64_t, function, Params)

#define MN_DECLARE_FOR_ISAS(Result, function, Params) \
  namespace mnemosyne::kernels {                      \
  namespace DEFAULT {                                 \
  Result function(const Params& params);              \
  }                                                   \
  MN_DECLARE_AVX_KERNEL(Result, function, Params)     \
  inline Result function(const Params& params) {      \
    switch (active_isa()) {                           \
      MN_AVX_CASES(function, params)                  \
      default:                                        \
        return DEFAULT::function(params);             \
    }                                                 \
  }                                                   \
  }  // namespace mnemosyne::kernels

#if MN_KERNELS_FOR_AVX
#define MN_DECLARE_AVX_KERNEL(Result, function, Params) \
  namespace AVX2 {                                      \
  Result function(const Params& params);                \
  }                                                     \
  namespace AVX512 {                                    \
  Result function(const Params& params);                \
  }
#define MN_AVX_CASES(function, params) \
  case Isa::kAvx512:                   \
    return AVX512::function(params);   \
  case Isa::kAvx2:                     \
    return AVX2::function(params);
#else
#define MN_DECLARE_AVX_KERNEL(Result, function, Params)
#define MN_AVX_CASES(function, params)
#endif
