#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_inv_ex.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/orthogonalize/poles.h"

namespace mnemosyne::ops {
namespace {

/// Numbers of each matrix, [..., 1, 1].
at::Tensor total(const at::Tensor& x) { return x.sum({-2, -1}, /*keepdim=*/true); }

/// b of the reference for G, and its derivative by G: that of the smaller bound.
struct Bound {
  at::Tensor value, slope;

  Bound(const at::Tensor& gram, const at::Tensor& has_numbers) {
    const at::Tensor squares = total(gram.square());
    const at::Tensor frobenius = at::where(has_numbers, squares, 1.0).sqrt();
    const at::Tensor sums = gram.abs().sum(-1, /*keepdim=*/true);
    const at::Tensor largest = sums.amax(-2, /*keepdim=*/true);
    const at::Tensor by_rows = largest < frobenius;
    value = at::where(has_numbers, at::where(by_rows, largest, frobenius), 1.0);
    const at::Tensor of_rows = gram.sign() * (sums == largest).to(gram.scalar_type());
    slope = at::where(has_numbers, at::where(by_rows, of_rows, gram / frobenius), 0.0);
  }
};

}  // namespace

// With W = X / sqrt(b) and R_j = (W W^T + c_j)^-1 the result is F W, F = sum_j a_j R_j; R_j changes
// by -R_j d(W W^T) R_j. W depends on X directly and through b.
at::Tensor orthogonalize_backward(const at::Tensor& grad, const at::Tensor& x) {
  TORCH_CHECK(grad.sizes() == x.sizes() && x.dim() >= 2,
              "[orthogonalize_backward] expected a gradient of the shape of x [..., M, N], ",
              x.sizes(), ", got ", grad.sizes());
  if (x.numel() == 0) return at::zeros_like(x);
  const bool tall = x.size(-2) > x.size(-1);
  const auto wide = [&](const at::Tensor& own) { return (tall ? own.mT() : own).to(at::kDouble); };
  const at::Tensor cotangent = wide(grad);
  const at::Tensor largest = x.abs().amax({-2, -1}, /*keepdim=*/true).to(at::kDouble);
  const at::Tensor scale = at::where(largest > 0, largest, 1.0);
  const at::Tensor scaled = wide(x) / scale;
  const Bound bound(at::matmul(scaled, scaled.mT()), largest > 0);
  const at::Tensor root = bound.value.sqrt(), w = scaled / root;

  at::Tensor by_w = cotangent;  // one row: nothing but its length is corrected
  if (w.size(-2) > 1) {
    const at::Tensor gram = at::matmul(w, w.mT()),
                     identity = at::eye(gram.size(-1), gram.options());
    const at::Tensor outer = at::matmul(cotangent, w.mT());
    const at::Tensor symmetric = outer + outer.mT();
    at::Tensor function = at::zeros_like(gram), change = function;
    for (size_t j = 0; j < kPoles.size(); ++j) {
      const at::Tensor inverse = std::get<0>(at::linalg_inv_ex(gram + kPoles[j] * identity));
      function = function + kWeights[j] * inverse;
      change = change - kWeights[j] * at::matmul(at::matmul(inverse, symmetric), inverse);
    }
    by_w = at::matmul(function, cotangent) + at::matmul(change, w);
  }
  const at::Tensor by_bound = -0.5 / bound.value * total(by_w * w);
  const at::Tensor by_gram = by_bound * bound.slope;
  const at::Tensor by_x = (by_w / root + at::matmul(by_gram + by_gram.mT(), scaled)) / scale;
  return (tall ? by_x.mT() : by_x).to(x.scalar_type());
}

}  // namespace mnemosyne::ops
