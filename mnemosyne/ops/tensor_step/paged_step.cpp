#include "mnemosyne/ops/tensor_step/paged_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/raw_view.h"

namespace mnemosyne::ops {
namespace {

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

}  // namespace

at::Tensor soft(const at::Tensor& x) { return x / (x.abs() + 1); }

at::Tensor is_finite(const at::Tensor& x) {
  return x.abs() < std::numeric_limits<double>::infinity();
}

PagedStep::PagedStep(TensorStep of, const StepSums& sums, const StepCorrection& correction)
    : step(std::move(of)), pages(step), map(step, pages) {
  const std::vector<at::Tensor> parts = raw_unbind(pages.zeros(4));
  g = parts[0], m = parts[1], p = parts[2];
  v = parts[3].fill_(1);  // where there is none, a stays finite
  pages.load({{g, &step.grads}, {m, &step.momenta}, {p, &step.params}, {v, &step.second_moments}});
  decide(sums, correction);
}

bool PagedStep::any_matrix() const {
  for (size_t i = 0; i < step.size(); ++i) {
    if (is_matrix(step, i)) return true;
  }
  return false;
}

at::Tensor PagedStep::blended() const { return at::lerp(m, g, c.blend); }

std::vector<at::Tensor> PagedStep::matrices(const at::Tensor& of) const {
  std::vector<at::Tensor> result;
  for (size_t i = 0; i < step.size(); ++i) {
    if (is_matrix(step, i)) result.push_back(pages.matrix(of, i, step.rows[i]));
  }
  return result;
}

void PagedStep::decide(const StepSums& sums, const StepCorrection& correction) {
  std::vector<at::Tensor> columns = raw_unbind(
      chunk_table(step, pages, [&](size_t i, const StepChunk&) { return base_columns(step, i); }));
  at::Tensor &size = columns[0], &decay = columns[1], &blend = columns[2];
  const at::Tensor share_of_sum = columns[9];
  matrix = columns[6];
  columns.pop_back();
  base_blend = blend;
  if (step.decay_scale.defined()) decay = decay * step.decay_scale;
  if (step.scale.defined()) {
    size = size * step.scale;
    decay = decay * step.scale;
  }
  base_step = size;
  if (sums.new_squared.defined()) {
    undecided = is_finite(sums.new_squared + sums.second_moment).logical_not();
  }
  const bool corrected = is_given(correction);
  if (corrected) {
    const Decisions decisions(correction, map, matrix);
    undecided =
        undecided.defined() ? undecided.logical_or(decisions.not_finite) : decisions.not_finite;
    size = size * decisions.step;
    decay = decay + size * decisions.decay;
    blend = blend * decisions.blend;
    columns.push_back(decisions.mixture * matrix);
    columns.push_back(decisions.decay);
    if (!decisions.readouts.empty()) {
      columns.push_back(map.total(sums.second_moment) * share_of_sum + 1e-30);
      columns.insert(columns.end(), decisions.readouts.begin(), decisions.readouts.end());
    }
  }
  const std::vector<at::Tensor> rows = map.rows(at::stack(columns), pages.dtype());
  c.step = rows[0], c.decay = rows[1], c.blend = rows[2];
  c.momentum_correction = rows[3], c.second_correction = rows[4], c.eps = rows[5];
  c.is_matrix = rows[6], c.scale = rows[7], c.unit = rows[8];
  if (corrected) c.mixture = rows[9], c.learned_decay = rows[10];
  if (rows.size() > 12) {
    c.mean_second_moment = rows[11];
    c.readouts.assign(rows.begin() + 12, rows.end());
  }
}

PagedDirections::PagedDirections(const PagedStep& x, const at::Tensor& m, const at::Tensor& v,
                                 const at::Tensor& orthogonal)
    : v(v * x.c.second_correction),
      root(this->v.sqrt() + x.c.eps),
      a(m * x.c.momentum_correction / root),
      own(orthogonal.defined() ? at::where(x.c.is_matrix > 0, orthogonal * x.c.scale, a) : a) {}

at::Tensor orthogonal_directions(const PagedStep& x) {
  const at::Tensor d = x.blended();
  orthogonalize_(x.matrices(d));
  return d;
}

std::vector<at::Tensor> readout_inputs(const PagedStep& x, const PagedDirections& directions) {
  const auto& [v, root, a, own] = directions;
  const at::Tensor u = own / x.c.unit, size = a.abs(), own_size = u.abs();
  return {soft(u * a), soft(u * (x.g / root)), size / (size + 1), own_size / (own_size + 1),
          v / (v + x.c.mean_second_moment) - 0.5};
}

at::Tensor readout_sum(const PagedStep& x, const std::vector<at::Tensor>& inputs) {
  at::Tensor h = inputs[0] * x.c.readouts[0];
  for (size_t k = 1; k < inputs.size(); ++k) h = at::addcmul(h, inputs[k], x.c.readouts[k]);
  return h;
}

at::Tensor corrected_direction(const PagedStep& x, const PagedDirections& directions) {
  const Coefficients& c = x.c;
  const auto& [v, root, a, own] = directions;
  const at::Tensor mixed = c.mixture.defined() ? at::lerp(own, a * kDirectionRms, c.mixture) : own;
  if (c.readouts.empty()) return mixed;
  const at::Tensor h = readout_sum(x, readout_inputs(x, directions));
  return at::addcmul(mixed, mixed, soft(h), kReadoutBound);
}

}  // namespace mnemosyne::ops
