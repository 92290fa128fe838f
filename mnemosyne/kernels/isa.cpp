#include "mnemosyne/kernels/isa.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "mnemosyne/core/error.h"

namespace mnemosyne::kernels {
namespace {

bool runs_here(Isa isa) {
#if MN_KERNELS_FOR_AVX
  __builtin_cpu_init();
  switch (isa) {
    case Isa::kDefault:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
#endif
  return isa == Isa::kDefault;
}

Isa choose_isa() {
  const std::vector<Isa> available = available_isas();
  const char* wanted = std::getenv("MNEMOSYNE_ISA");
  if (wanted == nullptr || *wanted == '\0') return available.back();
  for (const Isa isa : available) {
    if (isa_name(isa) == wanted) return isa;
  }
  std::string known;
  for (const Isa isa : available) known += (known.empty() ? "" : ", ") + isa_name(isa);
  throw InputError("[MNEMOSYNE_ISA] expected one of " + known + ", got \"" + wanted + "\"");
}

std::atomic<Isa>& active() {
  static std::atomic<Isa> isa{choose_isa()};
  return isa;
}

}  // namespace

std::vector<Isa> available_isas() {
  std::vector<Isa> result;
  for (const Isa isa : {Isa::kDefault, Isa::kAvx2, Isa::kAvx512}) {
    if (runs_here(isa)) result.push_back(isa);
  }
  return result;
}

Isa active_isa() { return active().load(std::memory_order_relaxed); }

void set_active_isa(Isa isa) {
  if (!runs_here(isa)) {
    throw InputError("[set_active_isa] expected an instruction set of this processor, got \"" +
                     isa_name(isa) + "\"");
  }
  active().store(isa);
}

std::string isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kDefault:
      break;
  }
  return "default";
}

}  // namespace mnemosyne::kernels
