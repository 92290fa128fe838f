#pragma once

#include <string>
#include <vector>

/// Whether there are kernels for AVX2 and AVX-512 beside those for the baseline of the processors
/// that we are compiled for: what CMakeLists.txt asks the compiler, too.
#if defined(__x86_64__)
#define MN_KERNELS_FOR_AVX 1
#else
#define MN_KERNELS_FOR_AVX 0
#endif

namespace mnemosyne::kernels {

/// The instruction sets that the CPU kernels may be compiled for, weakest first; kDefault always
/// is.
enum class Isa { kDefault, kAvx2, kAvx512 };

/// Those that they are compiled for and that this processor (and operating system) can run.
std::vector<Isa> available_isas();

/// The one that kernels use: the strongest available, unless the variable MNEMOSYNE_ISA (default,
/// avx2, avx512), read at first use, or `set_active_isa` says otherwise. An unknown or unavailable
/// name in the variable is an InputError.
Isa active_isa();

/// For tests and benchmarks: use `isa` from now on. InputError when the processor
/// or the build lacks it.
void set_active_isa(Isa isa);

std::string isa_name(Isa isa);

}  // namespace mnemosyne::kernels
