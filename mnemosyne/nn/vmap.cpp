#include "mnemosyne/nn/vmap.h"

#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/functorch/DynamicLayer.h>
#include <ATen/functorch/Interpreter.h>

namespace mnemosyne::nn {

using at::functorch::RandomnessType;
using at::functorch::TransformType;

Vmap::Vmap(int64_t size)
    : size_(size),
      level_(at::functorch::initAndPushDynamicLayer(TransformType::Vmap, c10::SymInt(size),
                                                    RandomnessType::Error)) {}

Vmap::~Vmap() { at::functorch::popDynamicLayerAndDeleteMetadata(); }

at::Tensor Vmap::one_of(const at::Tensor& all) const {
  if (!all.defined()) return all;
  TORCH_CHECK(all.dim() > 0 && all.size(0) == size_, "[vmap] expected ", size_,
              " examples along the first axis, got ", all.sizes());
  return at::functorch::makeBatched(all, /*dim=*/0, level_);
}

at::Tensor Vmap::all_of(const at::Tensor& one) const {
  if (!one.defined()) return one;
  const auto* batched = at::functorch::maybeGetBatchedImpl(one);
  if (batched != nullptr && batched->level() == level_) {
    return batched->value().movedim(batched->bdim(), 0);
  }
  std::vector<int64_t> shape = one.sizes().vec();
  shape.insert(shape.begin(), size_);
  return one.expand(shape);
}

}  // namespace mnemosyne::nn
