#pragma once

#include "mnemosyne/kernels/isa.h"

/// Declares `void function(const Params&)` in the namespaces of the instruction sets and defines
/// mnemosyne::kernels::function, which calls the one for this processor. Use it at global scope, in
/// the header of a kernel; define the function once, in cpu/X.cpp, in namespace
/// mnemosyne::kernels::CPU_CAPABILITY, and list that file in CMakeLists.txt.
#define MN_DECLARE_KERNEL(function, Params)    \
  namespace mnemosyne::kernels {               \
  namespace DEFAULT {                          \
  void function(const Params& params);         \
  }                                            \
  MN_DECLARE_AVX_KERNEL(function, Params)      \
  inline void function(const Params& params) { \
    switch (active_isa()) {                    \
      MN_AVX_CASES(function, params)           \
      default:                                 \
        return DEFAULT::function(params);      \
    }                                          \
  }                                            \
  }  // namespace mnemosyne::kernels

#if MN_KERNELS_FOR_AVX
#define MN_DECLARE_AVX_KERNEL(function, Params) \
  namespace AVX2 {                              \
  void function(const Params& params);          \
  }                                             \
  namespace AVX512 {                            \
  void function(const Params& params);          \
  }
#define MN_AVX_CASES(function, params) \
  case Isa::kAvx512:                   \
    return AVX512::function(params);   \
  case Isa::kAvx2:                     \
    return AVX2::function(params);
#else
#define MN_DECLARE_AVX_KERNEL(function, Params)
#define MN_AVX_CASES(function, params)
#endif
