#include "mnemosyne/kernels/isa.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "mnemosyne/core/choices.h"

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
  Choices<Isa> choices;
  for (const Isa isa : available) choices.emplace_back(isa_name(isa), isa);
  return one_of("MNEMOSYNE_ISA", wanted, choices);
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
    refuse("set_active_isa", "an instruction set of this processor", in_quotes(isa_name(isa)));
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
