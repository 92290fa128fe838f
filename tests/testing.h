#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace mnemosyne::testing {

struct Tolerance {
  double rtol = 1e-5;
  double atol = 1e-6;
};

/// Succeeds when shapes are equal and |a - b| <= atol + rtol |b| everywhere; names the worst place.
inline ::testing::AssertionResult close(const at::Tensor& actual, const at::Tensor& expected,
                                        Tolerance tolerance = {}) {
  if (actual.sizes() != expected.sizes()) {
    return ::testing::AssertionFailure()
           << "shape " << actual.sizes() << " instead of " << expected.sizes();
  }
  if (actual.numel() == 0) return ::testing::AssertionSuccess();
  const at::Tensor a = actual.detach().to(at::kCPU, at::kDouble).reshape({-1});
  const at::Tensor b = expected.detach().to(at::kCPU, at::kDouble).reshape({-1});
  const at::Tensor excess = (a - b).abs() - (tolerance.atol + tolerance.rtol * b.abs());
  // NaN on either side makes the comparison false, which is what a test wants.
  if ((excess <= 0).all().item<bool>()) return ::testing::AssertionSuccess();
  const int64_t worst = excess.nan_to_num(1e300).argmax().item<int64_t>();
  return ::testing::AssertionFailure()
         << "at flat index " << worst << ": " << a[worst].item<double>() << " instead of "
         << b[worst].item<double>();
}

/// Succeeds when autograd's gradient of the scalar `function()` in every float64 leaf of `inputs`
/// agrees with central differences; `function` reads the leaves, which are perturbed in place.
inline ::testing::AssertionResult gradients_agree(const std::function<at::Tensor()>& function,
                                                  const std::vector<at::Tensor>& inputs,
                                                  Tolerance tolerance = {1e-5, 1e-7}) {
  constexpr double kStep = 1e-5;
  for (const at::Tensor& input : inputs) input.mutable_grad() = at::Tensor();
  function().backward();
  const at::NoGradGuard no_grad;
  for (size_t k = 0; k < inputs.size(); ++k) {
    const at::Tensor flat = inputs[k].detach().view({-1});
    const at::Tensor expected = at::empty_like(flat);
    for (int64_t i = 0; i < flat.numel(); ++i) {
      const double start = flat[i].item<double>();
      flat[i] = start + kStep;
      const double above = function().item<double>();
      flat[i] = start - kStep;
      const double below = function().item<double>();
      flat[i] = start;
      expected[i] = (above - below) / (2.0 * kStep);
    }
    const at::Tensor& grad = inputs[k].grad();
    if (!grad.defined()) return ::testing::AssertionFailure() << "input " << k << ": no gradient";
    auto result = close(grad.view({-1}), expected, tolerance);
    if (!result) return result << " (input " << k << ")";
  }
  return ::testing::AssertionSuccess();
}

/// A path for a test's own files; no two processes share one, as ctest runs tests side by side.
inline std::string temporary_path(const std::string& name) {
  const std::string unique = "mnemosyne_test_" + name + "_" + std::to_string(getpid());
  return (std::filesystem::temp_directory_path() / unique).string();
}

/// Bit for bit the same values, dtype and shape.
inline bool identical(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() && at::equal(a, b);
}

}  // namespace mnemosyne::testing
