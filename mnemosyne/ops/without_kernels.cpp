#include "mnemosyne/ops/without_kernels.h"

namespace mnemosyne::ops {
namespace {

thread_local bool is_active = false;

}  // namespace

WithoutKernels::WithoutKernels() : before_(is_active) { is_active = true; }

WithoutKernels::~WithoutKernels() { is_active = before_; }

bool WithoutKernels::active() { return is_active; }

}  // namespace mnemosyne::ops
