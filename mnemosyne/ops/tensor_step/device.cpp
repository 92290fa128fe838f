// A step over pages (pages.h): every operation treats the whole list. Letters: L numbers a row, B
// rows, C chunks, T tensors.
#include "mnemosyne/ops/tensor_step/device.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/raw_view.h"
#include "mnemosyne/ops/tensor_step/chunk_map.h"
#include "mnemosyne/ops/tensor_step/chunks.h"
#include "mnemosyne/ops/tensor_step/pages.h"

namespace mnemosyne::ops {
namespace {

at::Tensor soft(const at::Tensor& x) { return x / (x.abs() + 1); }

/// Numbers of the host for every chunk, [K, C].
template <typename Function>
at::Tensor chunk_table(const TensorStep& step, const Pages& pages, const Function& column) {
  std::vector<std::vector<double>> columns;
  for (const StepChunk& chunk : step_chunks(step)) columns.push_back(column(chunk.tensor, chunk));
  const size_t height = columns[0].size();
  std::vector<double> values;
  for (size_t k = 0; k < height; ++k) {
    for (const std::vector<double>& own : columns) values.push_back(own[k]);
  }
  return on_device(values, {static_cast<int64_t>(height), static_cast<int64_t>(columns.size())},
                   sum_dtype(pages.device()), pages.device());
}

at::Tensor norms(const at::Tensor& x, double order, at::ScalarType dtype) {
  return at::linalg_vector_norm(x, order, {-1}, /*keepdim=*/false, dtype);
}

/// The sums of every row, [7, B], in the order of StepSums; the last is the number of g that are
/// not zero, for zeros fill the rows up.
at::Tensor row_sums(const at::Tensor& old, const at::Tensor& m, const at::Tensor& v) {
  const std::vector<at::Tensor> parts = raw_unbind(old);  // g, m, p
  const at::Tensor& g = parts[0];
  const at::ScalarType dtype = sum_dtype(g.device());
  const at::Tensor dot = (g * parts[1]).sum(-1, /*keepdim=*/false, dtype);
  const at::Tensor squares =
      at::cat({norms(old, 2, dtype), norms(raw_view(m, {1, m.size(0), m.size(1)}), 2, dtype)})
          .square();  // g, m, p, new m
  const at::Tensor others =
      at::stack({dot, v.sum(-1, /*keepdim=*/false, dtype), norms(g, 0, dtype)});
  return at::cat({others, squares});
}

StepSums advance(TensorStep& step, bool with_sums) {
  const Pages pages(step);
  const ChunkMap map(step, pages);
  const at::Tensor data = pages.zeros(with_sums ? 4 : 3);
  const std::vector<at::Tensor> parts = raw_unbind(data);  // g, m, p if it is asked for, v
  const at::Tensor &g = parts[0], &old_m = parts[1], &old_v = parts.back();
  Pages::Pairs sources{{g, &step.grads}, {old_m, &step.momenta}, {old_v, &step.second_moments}};
  if (with_sums) sources.emplace_back(parts[2], &step.params);
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
  pages.store({{m, &step.momenta}, {v, &step.second_moments}});
  if (!with_sums) return {};
  const at::Tensor old = raw_view(data, {3, data.size(1), data.size(2)});
  const std::vector<at::Tensor> sums = raw_unbind(map.chunk_sums(row_sums(old, m, v)));
  return {.grad_dot_momentum = sums[0],
          .grad_squared = sums[3],
          .old_squared = sums[4],
          .new_squared = sums[6],
          .param_squared = sums[5],
          .second_moment = sums[1],
          .zeros = raw_unbind(table)[2] - sums[2]};
}

/// at::isfinite in two operations.
at::Tensor is_finite(const at::Tensor& x) {
  return x.abs() < std::numeric_limits<double>::infinity();
}

/// What is decided of every chunk, [C] each, and whether any number of its tensor is not finite:
/// then all are those of no correction.
struct Decisions {
  at::Tensor not_finite, step, blend, mixture, decay;
  std::vector<at::Tensor> readouts;  // kNumReadouts, or none

  Decisions(const StepCorrection& given, const ChunkMap& map, const at::Tensor& like) {
    const auto or_else = [&](const at::Tensor& x, double neutral) {
      return x.defined() ? x : at::full_like(like, neutral);
    };
    at::Tensor all = at::stack({or_else(given.step, 1.0), or_else(given.blend, 1.0),
                                or_else(given.mixture, 0.0), or_else(given.decay, 0.0)});
    if (given.readouts.defined()) all = at::cat({all, given.readouts.t()});
    not_finite = map.any(is_finite(all).all(0).logical_not());
    const std::vector<at::Tensor> own = raw_unbind(all.masked_fill(not_finite, 0));
    step = own[0].masked_fill(not_finite, 1);
    blend = own[1].masked_fill(not_finite, 1);
    mixture = own[2];
    decay = own[3];
    readouts.assign(own.begin() + 4, own.end());
  }
};

/// What the coordinates of a row meet, [B, 1] each; what no correction asks for is undefined.
struct Coefficients {
  at::Tensor step, keep, blend, momentum_correction, second_correction, eps;
  at::Tensor is_matrix;  // as a number
  at::Tensor scale;      // of an orthogonalised matrix
  at::Tensor unit;       // the root mean square of a direction, of a matrix; 1 of a vector
  at::Tensor mixture, mean_second_moment;
  std::vector<at::Tensor> readouts;
};

/// The pages of a list after its moments have advanced, and what happens to them.
struct Problem {
  const TensorStep& step;
  Pages pages;
  ChunkMap map;
  at::Tensor g, m, v, p;
  Coefficients c;
  at::Tensor matrix;     // [C], as a number
  at::Tensor undecided;  // [C]: a correction or sum is not finite; or undefined

  Problem(const TensorStep& step_, const StepSums& sums, const StepCorrection& correction)
      : step(step_), pages(step), map(step, pages) {
    const std::vector<at::Tensor> parts = raw_unbind(pages.zeros(4));
    g = parts[0], m = parts[1], p = parts[2];
    v = parts[3].fill_(1);  // where there is none, a stays finite
    pages.load(
        {{g, &step.grads}, {m, &step.momenta}, {p, &step.params}, {v, &step.second_moments}});
    decide(sums, correction);
  }

  bool any_matrix() const {
    for (size_t i = 0; i < step.size(); ++i) {
      if (ops::is_matrix(step, i)) return true;
    }
    return false;
  }

  void decide(const StepSums& sums, const StepCorrection& correction);
};

/// [K] columns of the host.
std::vector<double> base_columns(const TensorStep& step, size_t i) {
  const StepBase& base = step.base[i];
  const bool matrix = is_matrix(step, i);
  const double size = static_cast<double>(std::max<int64_t>(step.params[i].numel(), 1));
  return {base.step,
          base.decay,
          base.blend,
          base.momentum_correction,
          base.second_correction,
          base.eps,
          matrix ? 1.0 : 0.0,
          matrix ? direction_scale(step, i) : 0.0,
          matrix ? kDirectionRms : 1.0,
          base.second_correction / size};
}

void Problem::decide(const StepSums& sums, const StepCorrection& correction) {
  std::vector<at::Tensor> columns = raw_unbind(
      chunk_table(step, pages, [&](size_t i, const StepChunk&) { return base_columns(step, i); }));
  at::Tensor &size = columns[0], &decay = columns[1], &blend = columns[2];
  const at::Tensor share_of_sum = columns[9];
  matrix = columns[6];
  columns.pop_back();
  if (step.decay_scale.defined()) decay = decay * step.decay_scale;
  if (step.scale.defined()) {
    size = size * step.scale;
    decay = decay * step.scale;
  }
  if (sums.new_squared.defined()) {
    undecided = is_finite(sums.new_squared + sums.second_moment).logical_not();
  }
  const bool corrected =
      std::any_of(std::begin(kStepCorrections), std::end(kStepCorrections),
                  [&](const auto member) { return (correction.*member).defined(); });
  if (corrected) {
    const Decisions decisions(correction, map, matrix);
    undecided =
        undecided.defined() ? undecided.logical_or(decisions.not_finite) : decisions.not_finite;
    size = size * decisions.step;
    decay = decay + size * decisions.decay;
    blend = blend * decisions.blend;
    columns.push_back(decisions.mixture * matrix);
    if (!decisions.readouts.empty()) {
      columns.push_back(map.total(sums.second_moment) * share_of_sum + 1e-30);
      columns.insert(columns.end(), decisions.readouts.begin(), decisions.readouts.end());
    }
  }
  decay = at::rsub(decay, 1);
  const std::vector<at::Tensor> rows = map.rows(at::stack(columns), pages.dtype());
  c.step = rows[0], c.keep = rows[1], c.blend = rows[2];
  c.momentum_correction = rows[3], c.second_correction = rows[4], c.eps = rows[5];
  c.is_matrix = rows[6], c.scale = rows[7], c.unit = rows[8];
  if (corrected) c.mixture = rows[9];
  if (rows.size() > 11) {
    c.mean_second_moment = rows[10];
    c.readouts.assign(rows.begin() + 11, rows.end());
  }
}

/// The orthogonalised matrices, not yet scaled; anything for vectors.
at::Tensor orthogonal_directions(const Problem& x) {
  const at::Tensor d = at::lerp(x.m, x.g, x.c.blend);
  std::vector<at::Tensor> matrices;
  for (size_t i = 0; i < x.step.size(); ++i) {
    if (is_matrix(x.step, i)) matrices.push_back(x.pages.matrix(d, i, x.step.rows[i]));
  }
  orthogonalize_(matrices);
  return d;
}

/// u / s of `directions_reference`.
at::Tensor corrected_direction(const Problem& x, const at::Tensor& own, const at::Tensor& a,
                               const at::Tensor& v, const at::Tensor& root) {
  const Coefficients& c = x.c;
  const at::Tensor mixed = c.mixture.defined() ? at::lerp(own, a * kDirectionRms, c.mixture) : own;
  if (c.readouts.empty()) return mixed;
  const at::Tensor u = own / c.unit, size = a.abs(), own_size = u.abs();
  at::Tensor h = c.readouts[4] * -0.5;
  h = at::addcmul(h, soft(u * a), c.readouts[0]);
  h = at::addcmul(h, soft(u * (x.g / root)), c.readouts[1]);
  h = at::addcmul(h, size / (size + 1), c.readouts[2]);
  h = at::addcmul(h, own_size / (own_size + 1), c.readouts[3]);
  h = at::addcmul(h, v / (v + c.mean_second_moment), c.readouts[4]);
  return at::addcmul(mixed, mixed, soft(h), kReadoutBound);
}

/// What tensors move along whose own direction is not finite, from moments that are.
at::Tensor plain_direction(const Problem& x, const at::Tensor& m, const at::Tensor& a) {
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
  const Problem x(step, sums, correction);
  const Coefficients& c = x.c;
  at::Tensor broken = x.undecided, own;
  if (x.any_matrix()) {
    own = orthogonal_directions(x);
    // A matrix that is not finite has become NaN throughout.
    const at::Tensor first = x.map.first_numbers(own);
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
  const at::Tensor corrected_v = v * c.second_correction;
  const at::Tensor root = corrected_v.sqrt() + c.eps;
  const at::Tensor a = m * c.momentum_correction / root;
  own = own.defined() ? at::where(c.is_matrix > 0, own * c.scale, a) : a;
  at::Tensor direction = corrected_direction(x, own, a, corrected_v, root);
  if (broken_rows.defined()) {
    direction = at::where(broken_rows, plain_direction(x, m, a), direction);
  }
  const at::Tensor next = x.p * c.keep - c.step * direction;
  const at::Tensor finite = is_finite(next);
  const at::Tensor stuck = (finite < is_finite(x.p)).any(1).to(sum_dtype(x.p.device()));
  at::Tensor replaced = x.map.chunk_sums(stuck) > 0;
  if (broken.defined()) replaced = replaced.logical_or(broken);
  const at::Tensor rows = x.map.row_flags(x.map.any(replaced));
  x.pages.store({{at::where(finite, next, x.p), &step.params},
                 {at::where(rows, finite_m, m), &step.momenta},
                 {at::where(rows, finite_v, v), &step.second_moments}});
  return x.map.tensors_with(replaced).sum();
}

/// A stretch of a list, from tensor `begin` and chunk `first_chunk` on.
struct Stretch {
  TensorStep step;
  int64_t first_chunk = 0;
  int64_t num_chunks = 0;

  at::Tensor of(const at::Tensor& values) const {
    const bool whole = !values.defined() || values.size(0) == num_chunks;
    return whole ? values : values.narrow(0, first_chunk, num_chunks);
  }
};

/// Each of at most `most` coordinates, or of one tensor.
std::vector<Stretch> stretches(const TensorStep& step, int64_t most) {
  std::vector<Stretch> stretches;
  const std::vector<int64_t> counts = chunk_counts(step);
  int64_t coordinates = 0, chunks = 0;
  for (size_t i = 0; i < step.size(); ++i) {
    const int64_t size = step.params[i].numel();
    if (stretches.empty() || coordinates + size > most) {
      Stretch& next = stretches.emplace_back();
      next.first_chunk = chunks;
      next.step.chunk_size = step.chunk_size;
      next.step.scale = step.scale;
      next.step.decay_scale = step.decay_scale;
      coordinates = 0;
    }
    Stretch& own = stretches.back();
    own.step.params.push_back(step.params[i]);
    own.step.grads.push_back(step.grads[i]);
    own.step.momenta.push_back(step.momenta[i]);
    own.step.second_moments.push_back(step.second_moment(i));
    own.step.rows.push_back(step.rows[i]);
    own.step.base.push_back(step.base[i]);
    own.num_chunks += counts[i];
    chunks += counts[i];
    coordinates += size;
  }
  return stretches;
}

bool has_numbers(const TensorStep& step) {
  return std::any_of(step.params.begin(), step.params.end(),
                     [](const at::Tensor& param) { return param.numel() > 0; });
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
    const bool empty = !has_numbers(stretch.step);
    parts.push_back(empty ? advance_moments_reference(stretch.step, with_sums)
                          : advance(stretch.step, with_sums));
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
    StepSums own;
    own.new_squared = stretch.of(sums.new_squared);
    own.second_moment = stretch.of(sums.second_moment);
    const StepCorrection decided =
        changed(correction, [&](const at::Tensor& values) { return stretch.of(values); });
    const bool empty = !has_numbers(stretch.step);
    const at::Tensor count = empty ? apply_directions_reference_(stretch.step, own, &decided)
                                   : apply(stretch.step, own, decided);
    replaced = replaced.defined() ? replaced + count : count;
  }
  return replaced.defined() ? replaced : at::zeros({}, at::kLong);
}

}  // namespace mnemosyne::ops
