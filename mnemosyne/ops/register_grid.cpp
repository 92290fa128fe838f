#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <tuple>

#include "mnemosyne/ops/device_check.h"
#include "mnemosyne/ops/periodic_factor.h"
#include "mnemosyne/ops/untraced.h"

namespace mnemosyne::ops {
namespace {

using Tensors = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Function = Tensors(const at::Tensor&, double, double, int64_t, int64_t);

/// The grids of the programs that run, which differ in few options. Made once each, as it takes
/// longer than the step that reads it.
PeriodicGrid known_grid(double extent, double spacing, int64_t dim, int64_t symmetry) {
  static std::mutex mutex;
  static std::map<std::tuple<double, double, int64_t, int64_t>, PeriodicGrid> known;
  constexpr size_t kMost = 64;
  const std::lock_guard lock(mutex);
  const auto key = std::tuple(extent, spacing, dim, symmetry);
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  if (known.size() == kMost) known.clear();
  const Untraced numbers_to_keep;
  return known[key] = periodic_grid(extent, spacing, dim, static_cast<GridSymmetry>(symmetry));
}

/// Copies: what an operator returns is the program's to write to.
Tensors grid_of(const at::Tensor& like, double extent, double spacing, int64_t dim,
                int64_t symmetry) {
  const PeriodicGrid grid = known_grid(extent, spacing, dim, symmetry);
  const auto copy = [&](const at::Tensor& x) {
    return x.to(like.device(), x.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  };
  return {copy(grid.offsets), copy(grid.points), copy(grid.waves), copy(grid.frequencies)};
}

Tensors grid_shapes(const at::Tensor& like, double extent, double spacing, int64_t dim,
                    int64_t symmetry) {
  const PeriodicGrid grid = known_grid(extent, spacing, dim, symmetry);
  const auto shape = [&](const at::Tensor& x) {
    return at::empty(x.sizes(), like.options().dtype(x.scalar_type()));
  };
  return {shape(grid.offsets), shape(grid.points), shape(grid.waves), shape(grid.frequencies)};
}

}  // namespace

PeriodicGrid periodic_grid_like(const at::Tensor& like, double extent, double spacing, int64_t dim,
                                GridSymmetry symmetry) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mnemosyne::periodic_grid", "")
                             .typed<Function>();
  auto [offsets, points, waves, frequencies] =
      op.call(unwrapped(like).detach(), extent, spacing, dim, static_cast<int64_t>(symmetry));
  return {offsets, points, waves, frequencies};
}

TORCH_LIBRARY_FRAGMENT(mnemosyne, library) {
  library.def(
      "periodic_grid(Tensor like, float extent, float spacing, int dim, int symmetry) -> "
      "(Tensor offsets, Tensor points, Tensor waves, Tensor frequencies)");
}

TORCH_LIBRARY_IMPL(mnemosyne, CPU, library) { library.impl("periodic_grid", grid_of); }

TORCH_LIBRARY_IMPL(mnemosyne, CUDA, library) { library.impl("periodic_grid", grid_of); }

TORCH_LIBRARY_IMPL(mnemosyne, Meta, library) { library.impl("periodic_grid", grid_shapes); }

}  // namespace mnemosyne::ops
