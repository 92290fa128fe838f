#include "mnemosyne/optim/chunk_tokens.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <numeric>

namespace mnemosyne::optim {
namespace {

using Member = at::Tensor ops::StepSums::*;

/// Of which a chunk has a share, per coordinate, of what its tensor has.
constexpr Member kShared[] = {&ops::StepSums::grad_squared, &ops::StepSums::new_squared,
                              &ops::StepSums::param_squared, &ops::StepSums::second_moment};

/// Those that there are.
template <size_t K>
at::Tensor stacked(const ops::StepSums& sums, const Member (&members)[K]) {
  std::vector<at::Tensor> columns;
  for (const Member member : members) {
    if ((sums.*member).defined()) columns.push_back(sums.*member);
  }
  return at::stack(columns, 1);
}

/// x / sqrt(a b), zero beside a zero.
at::Tensor cosine(const at::Tensor& x, const at::Tensor& a, const at::Tensor& b) {
  return (x / (a * b).sqrt()).nan_to_num(0.0, 0.0, 0.0);
}

}  // namespace

ChunkGeometry::ChunkGeometry(at::TensorList params, int64_t chunk_size) {
  std::vector<double> places, lengths;
  std::vector<int64_t> tensors;
  for (const at::Tensor& p : params) {
    const int64_t numel = p.numel();
    const int64_t first_axis = p.dim() > 0 ? p.size(0) : 1, second = p.dim() > 1 ? p.size(1) : 1;
    const int64_t rest = std::max<int64_t>(numel / std::max<int64_t>(first_axis * second, 1), 1);
    // Coordinates that one step along an axis passes over, and so how far a chunk reaches along it.
    const std::array<int64_t, 3> strides{std::max<int64_t>(second * rest, 1), rest, 1};
    const std::array<int64_t, 3> extents{std::max<int64_t>(first_axis, 1),
                                         std::max<int64_t>(second, 1), rest};
    counts.push_back(ops::chunk_count(numel, chunk_size));
    for (int64_t k = 0; k < counts.back(); ++k) {
      const int64_t begin = k * chunk_size, length = std::min(chunk_size, numel - begin);
      for (size_t axis = 0; axis < 3; ++axis) {
        const int64_t index = (begin + length / 2) / strides[axis] % extents[axis];
        const double reach = static_cast<double>(chunk_size) / static_cast<double>(strides[axis]);
        places.push_back(static_cast<double>(index) / std::max(reach, 1.0));
      }
      lengths.push_back(static_cast<double>(length));
      tensors.push_back(static_cast<int64_t>(counts.size()) - 1);
    }
  }
  owners = at::tensor(tensors, at::kLong);
  sizes = at::tensor(lengths, at::kDouble);
  positions = at::tensor(places, at::kDouble).view({-1, 3});
}

ChunkGeometry ChunkGeometry::on(at::Device device) const {
  if (device.is_cpu()) return *this;
  ChunkGeometry result = *this;
  for (at::Tensor* member : {&result.owners, &result.positions, &result.sizes}) {
    *member = member->to(device, /*non_blocking=*/true);
  }
  return result;
}

ChunkGeometry ChunkGeometry::part(size_t begin, size_t count) const {
  if (begin == 0 && count == counts.size()) return *this;
  const auto tensor = counts.begin() + static_cast<int64_t>(begin);
  ChunkGeometry result;
  result.counts.assign(tensor, tensor + static_cast<int64_t>(count));
  result.first = std::accumulate(counts.begin(), tensor, int64_t{0});
  const int64_t length = std::accumulate(result.counts.begin(), result.counts.end(), int64_t{0});
  result.owners = owners.narrow(0, result.first, length) - static_cast<int64_t>(begin);
  result.positions = positions.narrow(0, result.first, length);
  result.sizes = sizes.narrow(0, result.first, length);
  return result;
}

at::Tensor ChunkGeometry::spread(const at::Tensor& values) const {
  const bool alike = owners.size(0) == static_cast<int64_t>(counts.size());
  return alike || !values.defined() ? values : values.index_select(0, owners);
}

at::Tensor ChunkGeometry::sum(const at::Tensor& values) const {
  const auto tensors = static_cast<int64_t>(counts.size());
  if (owners.size(0) == tensors) return values;
  std::vector<int64_t> shape = values.sizes().vec();
  shape[0] = tensors;
  return at::zeros(shape, values.options()).index_add(0, owners, values);
}

ops::StepSums sums_of_tensors(const ops::StepSums& chunks, const ChunkGeometry& geometry) {
  const std::vector<at::Tensor> columns =
      geometry.sum(stacked(chunks, ops::kStepSums)).t().contiguous().unbind();
  ops::StepSums result;
  auto column = columns.begin();
  for (const Member member : ops::kStepSums) {
    if ((chunks.*member).defined()) result.*member = *column++;
  }
  return result;
}

const std::vector<std::string>& chunk_feature_names(bool aligned) {
  static const std::vector<std::string> names{"grad_share",  "momentum_share",
                                              "param_share", "second_moment_share",
                                              "cosine",      "zero_fraction"};
  static const std::vector<std::string> all = [] {
    std::vector<std::string> result = names;
    result.push_back("alignment");
    return result;
  }();
  return aligned ? all : names;
}

at::Tensor chunk_features(const ops::StepSums& chunks, const ops::StepSums& tensors,
                          const ChunkGeometry& geometry) {
  constexpr double kTiny = 1e-30;  // a zero beside a zero is nothing special
  const at::Tensor size =
      geometry.sizes.to(chunks.grad_squared.options()).clamp_min(1.0).unsqueeze(1);
  const at::Tensor own = stacked(chunks, kShared) / size + kTiny;
  const at::Tensor whole = geometry.spread(stacked(tensors, kShared) / geometry.sum(size) + kTiny);
  const at::Tensor shares = at::tanh(0.5 * (own / whole).log());
  const at::Tensor of_momentum =
      cosine(chunks.grad_dot_momentum, chunks.grad_squared, chunks.old_squared);
  std::vector<at::Tensor> columns{shares, of_momentum.unsqueeze(1),
                                  chunks.zeros.unsqueeze(1) / size};
  if (chunks.grad_dot_update.defined()) {
    columns.push_back(
        cosine(chunks.grad_dot_update, chunks.grad_squared, chunks.update_squared).unsqueeze(1));
  }
  return at::cat(columns, 1).to(at::kFloat);
}

at::Tensor chunk_factor(const at::Tensor& y, const ChunkGeometry& geometry, double bound) {
  const at::Tensor factor = at::exp(bound * at::tanh(y));
  const at::Tensor size = geometry.sizes.to(y.options());
  const at::Tensor squares = geometry.sum(size * factor.square());
  const at::Tensor sizes = geometry.sum(size);
  // An empty tensor has no norm to keep.
  const at::Tensor scale = at::where(sizes > 0, squares / sizes.clamp_min(1.0), 1.0).rsqrt();
  return factor * geometry.spread(scale);
}

ops::StepCorrection of_chunks(const ops::StepCorrection& tensors, const ChunkGeometry& geometry) {
  return ops::changed(tensors, [&](const at::Tensor& values) { return geometry.spread(values); });
}

}  // namespace mnemosyne::optim
