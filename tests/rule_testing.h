#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "mnemosyne/optim/update_rule.h"

/// Parameters and gradients for the tests of rules.
namespace mnemosyne::testing {

/// Numbers without a pattern in [-1, 1], the same on every machine.
inline at::Tensor wave(at::IntArrayRef shape, double phase, at::ScalarType dtype = at::kFloat) {
  int64_t numel = 1;
  for (const int64_t size : shape) numel *= size;
  const at::Tensor index = at::arange(numel, at::kDouble);
  // The square keeps matrices from having rank two.
  return (0.37 * index.square() + 1.7 * index + phase).sin().reshape(shape).to(dtype);
}

inline std::vector<at::Tensor> waves(const std::vector<std::vector<int64_t>>& shapes, double phase,
                                     at::ScalarType dtype = at::kFloat) {
  std::vector<at::Tensor> tensors;
  for (const auto& shape : shapes) tensors.push_back(wave(shape, phase += 0.9, dtype));
  return tensors;
}

inline const std::vector<std::vector<int64_t>> kAllShapes{
    {}, {7}, {1}, {5, 4}, {1, 6}, {6, 1}, {4, 3, 2}, {3, 2, 3, 3}, {2, 2, 3, 1, 2}, {0}, {3, 0}};

inline std::vector<at::Tensor> clones(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : tensors) copies.push_back(tensor.clone());
  return copies;
}

/// A rule's name as part of a test's.
inline std::string name_of_test(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

}  // namespace mnemosyne::testing
