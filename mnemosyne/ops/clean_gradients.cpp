#include "mnemosyne/ops/clean_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/zeros.h>

#include <atomic>
#include <cmath>
#include <map>

#include "mnemosyne/ops/magnitudes.h"
#include "mnemosyne/ops/parallel.h"
#include "mnemosyne/ops/raw_view.h"

namespace mnemosyne::ops {
namespace {

/// Where a tensor may begin, in numbers: what the widest loads want.
constexpr int64_t kAlignment = 64;

/// Cleans gradients of one dtype, as one flat tensor.
at::Tensor clean(const std::vector<at::Tensor*>& grads) {
  std::vector<int64_t> begins;
  int64_t total = 0;
  for (const at::Tensor* grad : grads) {
    begins.push_back(total);
    total += (grad->numel() + kAlignment - 1) / kAlignment * kAlignment;
  }
  const at::Tensor flat = at::zeros({total}, grads[0]->options());
  const auto view = [&](const at::Tensor& of, size_t i) {
    return raw_view(of, grads[i]->sizes(), begins[i]);
  };
  std::vector<at::Tensor> views, originals;
  for (size_t i = 0; i < grads.size(); ++i) {
    views.push_back(view(flat, i));
    originals.push_back(*grads[i]);
  }
  at::_foreach_copy_(views, originals);
  const double largest = flat.scalar_type() == at::kHalf ? 65504.0 : kLargestGradient;
  const at::Tensor clean = at::nan_to_num(flat, 0.0, 0.0, 0.0);
  const at::Tensor not_finite = flat.ne(clean).sum();
  clean.clamp_(-largest, largest);
  for (size_t i = 0; i < grads.size(); ++i) *grads[i] = view(clean, i);
  return not_finite;
}

}  // namespace

bool is_clean(const at::Tensor& grad) {
  if (grad.scalar_type() != at::kFloat || !grad.is_contiguous()) {
    // Finite and small unless something has to be mended.
    const double total = grad.abs().sum(at::kDouble).item<double>();
    return std::isfinite(total) && total < kLargestGradient;
  }
  constexpr int64_t kGrain = 65536;
  std::atomic<bool> clean = true;
  const float* data = grad.const_data_ptr<float>();
  parallel_for(0, grad.numel(), kGrain, [&](int64_t begin, int64_t end) {
    if (!magnitudes_within(data + begin, end - begin, kLargestGradient)) clean = false;
  });
  return clean;
}

at::Tensor clean_gradients(std::vector<at::Tensor>& grads) {
  const at::NoGradGuard no_grad;
  std::map<at::ScalarType, std::vector<at::Tensor*>> by_dtype;
  for (at::Tensor& grad : grads) {
    if (grad.numel() > 0) by_dtype[grad.scalar_type()].push_back(&grad);
  }
  at::Tensor not_finite;
  for (const auto& [dtype, list] : by_dtype) {
    const at::Tensor count = clean(list);
    not_finite = not_finite.defined() ? not_finite + count : count;
  }
  if (not_finite.defined()) return not_finite;
  return at::zeros({}, at::device(grads.empty() ? at::kCPU : grads[0].device()).dtype(at::kLong));
}

}  // namespace mnemosyne::ops
