#include <stdexcept>

#include "mnemosyne/kernels/memory_step.h"

// The functions of the CUDA kernels in a library that was built without CUDA.

namespace mnemosyne::kernels {

void memory_step_forward_cuda(const MemoryStepParams&, void*) {
  throw std::runtime_error("[memory_step] expected a build with CUDA, got one without");
}

}  // namespace mnemosyne::kernels
