// A step over pages (pages.h): every operation treats the whole list. Letters: L numbers a row, B
// rows, C chunks, T tensors.
#include "mnemosyne/ops/tensor_step/device.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "mnemosyne/ops/raw_view.h"
#include "mnemosyne/ops/tensor_step/paged_step.h"

namespace mnemosyne::ops {
namespace {

at::Tensor norms(const at::Tensor& x, double order, at::ScalarType dtype) {
  return at::linalg_vector_norm(x, order, {-1}, /*keepdim=*/false, dtype);
}

/// The sums of every row, [K, B], in the order of `unpacked`. `old` has g, m, p and, if the list
/// has it, u. Of g those are counted that are not zero, for zeros fill the rows up.
at::Tensor row_sums(const at::Tensor& old, const at::Tensor& m, const at::Tensor& v) {
  const std::vector<at::Tensor> parts = raw_unbind(old);
  const at::Tensor& g = parts[0];
  const bool aligned = parts.size() > 3;
  const at::ScalarType dtype = sum_dtype(g.device());
  const at::Tensor partners =  // of g: m, or m, p, u
      raw_view(old, {aligned ? 3 : 1, old.size(1), old.size(2)}, old.size(1) * old.size(2));
  std::vector<at::Tensor> others{v.sum(-1, /*keepdim=*/false, dtype), norms(g, 0, dtype)};
  if (aligned) others.push_back((parts[1] * parts[3]).sum(-1, /*keepdim=*/false, dtype));
  const at::Tensor squares =
      at::cat({norms(old, 2, dtype), norms(raw_view(m, {1, m.size(0), m.size(1)}), 2, dtype)})
          .square();
  return at::cat({at::stack(others), (partners * g).sum(-1, /*keepdim=*/false, dtype), squares});
}

/// Sums [K, C] by their names; `sizes` has the coordinates of each chunk.
StepSums unpacked(const at::Tensor& sums, const at::Tensor& sizes) {
  const std::vector<at::Tensor> all = raw_unbind(sums);
  const bool aligned = all.size() > size_t{kNumMomentSums};
  auto next = all.begin();
  StepSums result;
  result.second_moment = *next++;
  result.zeros = sizes - *next++;
  if (aligned) result.momentum_dot_update = *next++;
  result.grad_dot_momentum = *next++;
  if (aligned) {
    result.grad_dot_param = *next++;
    result.grad_dot_update = *next++;
  }
  result.grad_squared = *next++;
  result.old_squared = *next++;
  result.param_squared = *next++;
  if (aligned) result.update_squared = *next++;
  result.new_squared = *next++;
  return result;
}

/// Second moments in pages as numbers that bfloat16 has.
at::Tensor compact(const at::Tensor& v, const TensorStep& step, const Pages& pages,
                   const ChunkMap& map) {
  std::vector<int64_t> numbers;  // where its tensor begins and the seed, of every chunk
  for (const StepChunk& chunk : step_chunks(step)) {
    numbers.push_back(pages.begins_of_tensors()[chunk.tensor]);
  }
  for (const StepChunk& chunk : step_chunks(step)) {
    numbers.push_back(int64_t{step.base[chunk.tensor].rounding_seed});
  }
  const std::vector<at::Tensor> rows =
      map.rows(on_device(numbers, {2, map.chunks()}, pages.device()), at::kLong);
  const at::Tensor places = at::arange(v.numel(), v.options().dtype(at::kLong)).view(v.sizes());
  return round_at_random(v.to(at::kFloat), rounding_bits(places - rows[0], rows[1]));
}

StepSums advance(TensorStep& step, bool with_sums) {
  const Pages pages(step);
  const ChunkMap map(step, pages);
  const int64_t summed = with_sums ? (has_previous_updates(step) ? 4 : 3) : 2;
  const at::Tensor data = pages.zeros(summed + 1);
  const std::vector<at::Tensor> parts = raw_unbind(data);  // g, m, p and u if asked for, v
  const at::Tensor &g = parts[0], &old_m = parts[1], &old_v = parts.back();
  Pages::Pairs sources{{g, &step.grads}, {old_m, &step.momenta}, {old_v, &step.second_moments}};
  if (summed > 2) sources.emplace_back(parts[2], &step.params);
  if (summed > 3) sources.emplace_back(parts[3], &step.previous_updates);
  pages.load(sources);
  const at::Tensor table = chunk_table(step, pages, [&](size_t i, const StepChunk& chunk) {
    const StepBase& base = step.base[i];
    return std::vector<double>{1.0 - base.momentum_decay, 1.0 - base.second_decay,
                               static_cast<double>(chunk.size)};
  });
  const std::vector<at::Tensor> shares =
      map.rows(raw_view(table, {2, table.size(1)}), pages.dtype());
  const at::Tensor m = at::lerp(old_m, g, shares[0]);
  const at::Tensor v = at::lerp(old_v, g.square(), shares[1]);
  const at::Tensor stored = has_compact_second_moments(step) ? compact(v, step, pages, map) : v;
  pages.store({{m, &step.momenta}, {stored, &step.second_moments}});
  if (!with_sums) return {};
  const at::Tensor old = raw_view(data, {summed, data.size(1), data.size(2)});
  return unpacked(map.chunk_sums(row_sums(old, m, v)), raw_unbind(table)[2]);
}

/// What tensors move along whose own direction is not finite, from moments that are.
at::Tensor plain_direction(const PagedStep& x, const at::Tensor& m, const at::Tensor& a) {
  const at::Tensor plain = a * x.c.unit;
  const auto lacks = [&](size_t i) {
    return is_matrix(x.step, i) && !x.step.second_moment(i).defined() ? 1.0 : 0.0;
  };
  bool any = false;
  for (size_t i = 0; i < x.step.size(); ++i) any = any || lacks(i) > 0;
  if (!any) return plain;
  const at::Tensor squares = x.map.total(
      x.map.chunk_sums(norms(m, 2, sum_dtype(m.device())).square().unsqueeze(0)).select(0, 0));
  const at::Tensor table = chunk_table(x.step, x.pages, [&](size_t i, const StepChunk&) {
    const double size = static_cast<double>(x.step.params[i].numel());
    return std::vector<double>{kDirectionRms * std::sqrt(size), lacks(i)};
  });
  const at::Tensor scale = (table.select(0, 0) / squares.sqrt()).masked_fill(squares == 0, 0);
  const std::vector<at::Tensor> rows =
      x.map.rows(at::stack({scale, table.select(0, 1)}), x.pages.dtype());
  return at::where(rows[1] > 0, m * rows[0], plain);
}

/// What moves the parameters, and the moments to go on with.
at::Tensor apply(TensorStep& step, const StepSums& sums, const StepCorrection& correction) {
  const PagedStep x(step, sums, correction);
  const Coefficients& c = x.c;
  at::Tensor broken = x.undecided, orthogonal;
  if (x.any_matrix()) {
    orthogonal = orthogonal_directions(x);
    // A matrix that is not finite has become NaN throughout.
    const at::Tensor first = x.map.first_numbers(orthogonal);
    const at::Tensor bad = first.ne(first).logical_and(x.matrix);
    broken = broken.defined() ? broken.logical_or(bad) : bad;
  }
  const at::Tensor finite_m = at::nan_to_num(x.m, 0.0, 0.0, 0.0);
  const at::Tensor finite_v = at::nan_to_num(x.v, 0.0, 0.0, 0.0);
  at::Tensor m = x.m, v = x.v, broken_rows;
  if (broken.defined()) {
    broken = x.map.any(broken);
    broken_rows = x.map.row_flags(broken);
    m = at::where(broken_rows, finite_m, m);
    v = at::where(broken_rows, finite_v, v);
  }
  const PagedDirections own(x, m, v, orthogonal);
  at::Tensor direction = corrected_direction(x, own);
  if (broken_rows.defined()) {
    direction = at::where(broken_rows, plain_direction(x, m, own.a), direction);
  }
  const at::Tensor next = x.p - at::addcmul(c.decay * x.p, c.step, direction);
  const at::Tensor finite = is_finite(next);
  const at::Tensor stuck = (finite < is_finite(x.p)).any(1).to(sum_dtype(x.p.device()));
  at::Tensor replaced = x.map.chunk_sums(stuck) > 0;
  if (broken.defined()) replaced = replaced.logical_or(broken);
  const at::Tensor rows = x.map.row_flags(x.map.any(replaced));
  Pages::Pairs results{{at::where(finite, next, x.p), &step.params},
                       {at::where(rows, finite_m, m), &step.momenta},
                       {at::where(rows, finite_v, v), &step.second_moments}};
  if (has_previous_updates(step)) {
    results.emplace_back(at::where(finite, c.step * direction, 0.0), &step.previous_updates);
  }
  x.pages.store(results);
  return x.map.tensors_with(replaced).sum();
}

at::Tensor joined(const std::vector<StepSums>& parts, at::Tensor StepSums::* member) {
  std::vector<at::Tensor> own;
  for (const StepSums& part : parts) own.push_back(part.*member);
  return own[0].defined() && own.size() > 1 ? at::cat(own) : own[0];
}

}  // namespace

StepSums advance_moments_device_(TensorStep& step, bool with_sums, int64_t most_at_once) {
  std::vector<StepSums> parts;
  for (Stretch& stretch : stretches(step, most_at_once)) {
    parts.push_back(stretch.has_numbers() ? advance(stretch.step, with_sums)
                                          : advance_moments_reference(stretch.step, with_sums));
  }
  if (parts.empty()) return {};
  StepSums sums;
  for (const auto member : kStepSums) sums.*member = joined(parts, member);
  return sums;
}

at::Tensor apply_directions_device_(TensorStep& step, const StepSums& sums,
                                    const StepCorrection& correction, int64_t most_at_once) {
  at::Tensor replaced;
  for (Stretch& stretch : stretches(step, most_at_once)) {
    const StepSums own = stretch.of(sums);
    const StepCorrection decided = stretch.of(correction);
    const at::Tensor count = stretch.has_numbers()
                                 ? apply(stretch.step, own, decided)
                                 : apply_directions_reference_(stretch.step, own, &decided);
    replaced = replaced.defined() ? replaced + count : count;
  }
  return replaced.defined() ? replaced : at::zeros({}, at::kLong);
}

}  // namespace mnemosyne::ops
