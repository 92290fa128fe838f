#include "mnemosyne/ops/orthogonalize/benchmark.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/without_kernels.h"

namespace mnemosyne::ops {
namespace {

/// The operations of torch.optim._muon._zeropower_via_newtonschulz (torch 2.13), one by one: the
/// measure.
at::Tensor muon_newton_schulz(const at::Tensor& matrix) {
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = matrix.to(at::kBFloat16);
  if (tall) x = x.t();
  x.div_(x.norm().clamp_min(1e-7));
  for (int step = 0; step < 5; ++step) {
    const at::Tensor gram = at::mm(x, x.t());
    const at::Tensor update = at::addmm(gram, gram, gram, /*beta=*/-4.7750, /*alpha=*/2.0315);
    x = at::addmm(x, update, x, /*beta=*/3.4445);
  }
  return tall ? x.t() : x;
}

template <typename Body>
double seconds(const Body& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

OrthogonalizeTimes benchmark_orthogonalize(const std::vector<std::pair<int64_t, int64_t>>& sizes,
                                           int repetitions) {
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> matrices;
  std::vector<MatrixRef> references;
  for (const auto& [rows, columns] : sizes) {
    inputs.push_back(at::randn({rows, columns}, at::TensorOptions(at::kFloat)));
    matrices.push_back(inputs.back().clone());
    references.push_back({matrices.back().data_ptr<float>(), rows, columns});
  }
  constexpr double kNever = std::numeric_limits<double>::infinity();
  OrthogonalizeTimes best{.fused = kNever, .products = kNever, .muon = kNever};
  // The first pass of each warms the workspaces and oneDNN's cache of primitives.
  for (int repetition = 0; repetition <= repetitions; ++repetition) {
    for (size_t i = 0; i < inputs.size(); ++i) matrices[i].copy_(inputs[i]);
    const double fused = seconds(
        [&] { orthogonalize_(references.data(), static_cast<int64_t>(references.size())); });
    const double products = seconds([&] {
      const WithoutKernels without_kernels;
      orthogonalize_(matrices);
    });
    const double muon = seconds([&] {
      for (const at::Tensor& input : inputs) muon_newton_schulz(input);
    });
    if (repetition == 0) continue;
    best.fused = std::min(best.fused, fused);
    best.products = std::min(best.products, products);
    best.muon = std::min(best.muon, muon);
  }
  return best;
}

std::vector<std::pair<int64_t, int64_t>> vit_tiny_matrices() {
  constexpr int64_t kWidth = 192;
  std::vector<std::pair<int64_t, int64_t>> sizes = {{kWidth, 3 * 16 * 16}, {197, kWidth}};
  for (int block = 0; block < 12; ++block) {
    sizes.insert(
        sizes.end(),
        {{3 * kWidth, kWidth}, {kWidth, kWidth}, {4 * kWidth, kWidth}, {kWidth, 4 * kWidth}});
  }
  sizes.emplace_back(1000, kWidth);
  return sizes;
}

}  // namespace mnemosyne::ops
