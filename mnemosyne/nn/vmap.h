#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mnemosyne::nn {

/// torch.func.vmap by hand: while one lives, what is computed from the tensors that it hands out is
/// computed for P examples at once, by the batched form of every operator. Without a graph: for
/// autograd through it, use torch.func.
///
///     const nn::Vmap each(weights.size(0));                   // weights [P,out,in], x [P,N,in]
///     at::Tensor y = at::linear(each.one_of(x), each.one_of(weights));
///     return each.all_of(y);                                  // [P,N,out]
///
/// Nested ones end in the order in which stacks do.
class Vmap {
 public:
  explicit Vmap(int64_t size);
  ~Vmap();
  Vmap(const Vmap&) = delete;
  Vmap& operator=(const Vmap&) = delete;

  /// [P, ...] as a tensor of one example, [...]; an undefined one stays so.
  at::Tensor one_of(const at::Tensor& all) const;

  /// Back to [P, ...], which what no example had a part in is expanded to.
  at::Tensor all_of(const at::Tensor& one) const;

 private:
  int64_t size_, level_;
};

}  // namespace mnemosyne::nn
