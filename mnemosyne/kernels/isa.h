#pragma once

#include <string>
#include <vector>

namespace mnemosyne::kernels {

/// The instruction sets that the CPU kernels are compiled for, weakest first.
enum class Isa { kDefault, kAvx2, kAvx512 };

/// Those that this processor (and operating system) can run; kDefault is always among them.
std::vector<Isa> available_isas();

/// The one that kernels use: the strongest available, unless the variable MNEMOSYNE_ISA (default,
/// avx2, avx512), read at first use, or `set_active_isa` says otherwise. An unknown or unavailable
/// name in the variable is an InputError.
Isa active_isa();

/// For tests and benchmarks: use `isa` from now on. InputError when the processor lacks it.
void set_active_isa(Isa isa);

std::string isa_name(Isa isa);

}  // namespace mnemosyne::kernels
