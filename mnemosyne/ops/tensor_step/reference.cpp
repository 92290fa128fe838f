#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "mnemosyne/ops/orthogonalize/orthogonalize.h"
#include "mnemosyne/ops/tensor_step/chunks.h"

namespace mnemosyne::ops {
namespace {

at::Tensor soft(const at::Tensor& x) { return x / (1.0 + x.abs()); }

/// One tensor of the list, in the dtype of its state.
struct Part {
  at::Tensor g, p, m, v;
  at::Tensor u;  // of the step before, or undefined
  StepBase base;
  int64_t rows = 0;
  bool matrix = false;
  int64_t first = 0, count = 1;  // its chunks
  int64_t length = 0;            // of them, but for the last one

  /// Numbers of all chunks [C] as what this tensor's coordinates meet: 0-d, or in its shape.
  at::Tensor spread(const at::Tensor& values) const {
    const at::Tensor own = values.narrow(0, first, count).to(m.scalar_type());
    if (count == 1) return own.select(0, 0);
    const at::Tensor repeated = own.unsqueeze(1).expand({count, length}).reshape(-1);
    return repeated.narrow(0, 0, m.numel()).view(m.sizes());
  }

  /// Coordinates -> sums over the chunks, [count].
  at::Tensor sums(const at::Tensor& x) const {
    const at::Tensor padded =
        at::constant_pad_nd(x.reshape(-1), {0, count * length - x.numel()}, 0);
    return padded.view({count, length}).sum(1, /*keepdim=*/false, sum_dtype(m.device()));
  }

  at::Tensor adam() const {
    return m * base.momentum_correction / ((v * base.second_correction).sqrt() + base.eps);
  }
};

std::vector<Part> parts_of(const TensorStep& step) {
  std::vector<Part> parts;
  const std::vector<int64_t> counts = chunk_counts(step);
  int64_t first = 0;
  for (size_t i = 0; i < step.size(); ++i) {
    const at::Tensor& param = step.params[i];
    const bool whole = step.chunk_size == 0 || param.numel() == 0;
    parts.push_back(
        {.g = step.grads[i].detach().to(step_dtype(param)),
         .p = param.detach().to(step_dtype(param)),
         .m = step.momenta[i],
         .v = step.second_moment(i).defined() ? step.second_moment(i).to(step_dtype(param))
                                              : at::Tensor(),
         .u = has_previous_updates(step) ? step.previous_updates[i].to(step_dtype(param))
                                         : at::Tensor(),
         .base = step.base[i],
         .rows = step.rows[i],
         .matrix = is_matrix(step, i),
         .first = first,
         .count = counts[i],
         .length = whole ? param.numel() : step.chunk_size});
    first += counts[i];
  }
  return parts;
}

/// d -> kDirectionRms sqrt(max(rows, columns)) orthogonalize(d).
at::Tensor orthogonal_direction(const at::Tensor& d, int64_t rows, double scale) {
  const at::Tensor matrix = d.reshape({rows, -1});
  return (scale * orthogonalize_reference(matrix)).view(d.sizes());
}

at::Tensor own_direction(const TensorStep& step, size_t i, const Part& part,
                         const StepCorrection& correction) {
  if (!part.matrix) return part.adam();
  at::Tensor d = part.g - part.m;
  d = correction.blend.defined() ? part.base.blend * part.spread(correction.blend) * d
                                 : part.base.blend * d;
  return orthogonal_direction(part.m + d, part.rows, direction_scale(step, i));
}

/// The mean of a tensor's v^; from the sums of its chunks where there are some.
at::Tensor mean_second_moment(const Part& part, const StepSums& sums) {
  if (!sums.second_moment.defined()) return (part.v * part.base.second_correction).mean();
  const double size = static_cast<double>(std::max<int64_t>(part.m.numel(), 1));
  const at::Tensor sum = sums.second_moment.narrow(0, part.first, part.count).sum();
  return (sum / size * part.base.second_correction).to(part.m.scalar_type());
}

/// 1 + kReadoutBound soft h.
at::Tensor readout_factor(const Part& part, const at::Tensor& direction, const at::Tensor& a,
                          const StepSums& sums, const at::Tensor& readouts) {
  const at::Tensor v = part.v * part.base.second_correction;
  const at::Tensor root = v.sqrt() + part.base.eps;
  const at::Tensor u = part.matrix ? direction / kDirectionRms : direction;
  const at::Tensor share = v / (v + mean_second_moment(part, sums) + 1e-30) - 0.5;
  const auto c = [&](int64_t k) { return part.spread(readouts.select(1, k)); };
  const at::Tensor h = c(0) * soft(u * a) + c(1) * soft(u * (part.g / root)) +
                       c(2) * soft(a.abs()) + c(3) * soft(u.abs()) + c(4) * share;
  return 1.0 + kReadoutBound * soft(h);
}

/// What the correction makes of a tensor's own direction, without the step size.
at::Tensor corrected_direction(const Part& part, const at::Tensor& own, const StepSums& sums,
                               const StepCorrection& correction) {
  if (!part.v.defined() || part.m.numel() == 0) return own;
  const at::Tensor a = part.adam();
  at::Tensor mixed = own;
  if (part.matrix && correction.mixture.defined()) {
    mixed = own + part.spread(correction.mixture) * (kDirectionRms * a - own);
  }
  if (!correction.readouts.defined()) return mixed;
  return mixed * readout_factor(part, own, a, sums, correction.readouts);
}

/// A direction with what the correction lets p decay by.
at::Tensor with_decay(const Part& part, const at::Tensor& direction, const at::Tensor& decay) {
  return decay.defined() ? direction + part.spread(decay) * part.p : direction;
}

at::Tensor times_step(const TensorStep& step, const Part& part, const at::Tensor& direction,
                      const at::Tensor& factor) {
  at::Tensor size = part.base.step * direction.new_ones({});
  if (factor.defined()) size = size * part.spread(factor);
  if (step.scale.defined()) size = size * step.scale.to(size.options());
  return size * direction;
}

/// Whether the numbers of a tensor's chunks are finite, 0-d.
at::Tensor finite(const Part& part, const at::Tensor& values) {
  return at::isfinite(values.narrow(0, part.first, part.count)).all();
}

at::Tensor correction_is_finite(const Part& part, const StepCorrection& correction) {
  at::Tensor result = at::ones({}, part.m.options().dtype(at::kBool));
  for (const auto member : kStepCorrections) {
    const at::Tensor& values = correction.*member;
    if (values.defined()) result = result.logical_and(finite(part, values));
  }
  return result;
}

void repair_(const at::Tensor& moment, const at::Tensor& broken) {
  if (!moment.defined()) return;
  moment.copy_(at::where(broken.logical_and(at::isfinite(moment).logical_not()), 0.0, moment));
}

/// The same of a tensor's moments in the list and in its part.
void repair_moments_(const TensorStep& step, size_t i, const Part& part, const at::Tensor& broken) {
  repair_(part.m, broken);
  repair_(part.v, broken);
  if (part.v.defined()) step.second_moment(i).copy_(part.v);  // where it is bfloat16
}

/// What a tensor moves along where its own direction is not finite.
at::Tensor plain_direction(const Part& part) {
  if (!part.matrix) return part.adam();
  if (part.v.defined()) return kDirectionRms * part.adam();
  const at::Tensor squares = part.m.square().sum(sum_dtype(part.m.device()));
  const at::Tensor rms = (squares / part.m.numel()).sqrt();
  const at::Tensor scale = at::where(squares > 0, kDirectionRms / rms, 0.0);
  return part.m * scale.to(part.m.scalar_type());
}

at::Tensor shrinkage(const TensorStep& step, const Part& part) {
  at::Tensor decay = part.base.decay * part.m.new_ones({});
  if (step.scale.defined()) decay = decay * step.scale.to(decay.options());
  if (step.decay_scale.defined()) decay = decay * step.decay_scale.to(decay.options());
  return decay;
}

/// Moves one tensor; whether it could not be moved along its own direction, 0-d.
at::Tensor move_(const TensorStep& step, size_t i, const Part& part, const StepSums& sums,
                 const StepCorrection& correction) {
  const at::Tensor decided = correction_is_finite(part, correction);
  at::Tensor sound = decided;
  if (sums.new_squared.defined()) {
    sound = sound.logical_and(finite(part, sums.new_squared))
                .logical_and(finite(part, sums.second_moment));
  }
  const at::Tensor own = own_direction(step, i, part, correction);
  if (part.matrix) sound = sound.logical_and(at::isfinite(own).all());
  const at::Tensor direction = corrected_direction(part, own, sums, correction);
  repair_moments_(step, i, part, sound.logical_not());
  at::Tensor factor = correction.step, decay = correction.decay;
  if (factor.defined()) factor = at::where(decided, factor, 1.0);
  if (decay.defined()) decay = at::where(decided, decay, 0.0);
  const at::Tensor moved = at::where(sound, direction, plain_direction(part));
  const at::Tensor u = times_step(step, part, with_decay(part, moved, decay), factor);
  const at::Tensor next = part.p - (u + shrinkage(step, part) * part.p);
  const at::Tensor stays = at::isfinite(next).logical_not();
  if (part.u.defined()) {
    const at::Tensor taken = times_step(step, part, moved, factor);
    step.previous_updates[i].copy_(at::where(stays, 0.0, taken));
  }
  const at::Tensor stayed = stays.logical_and(at::isfinite(part.p)).any();
  step.params[i].copy_(at::where(stays, part.p, next));
  repair_moments_(step, i, part, stayed);
  return sound.logical_not().logical_or(stayed);
}

/// A second moment as bfloat16.
at::Tensor compact(const at::Tensor& v, const StepBase& base) {
  const at::Tensor index = at::arange(v.numel(), v.options().dtype(at::kLong)).view(v.sizes());
  const at::Tensor seed = at::full({}, int64_t{base.rounding_seed}, index.options());
  return round_at_random(v.to(at::kFloat), rounding_bits(index, seed)).to(at::kBFloat16);
}

}  // namespace

StepSums advance_moments_reference(TensorStep& step, bool with_sums) {
  check_step(step, with_sums);
  std::array<std::vector<at::Tensor>, std::size(kStepSums)> sums;
  const std::vector<Part> parts = parts_of(step);
  for (size_t i = 0; i < step.size(); ++i) {
    const Part& part = parts[i];
    const double b1 = part.base.momentum_decay, b2 = part.base.second_decay;
    const at::Tensor m = b1 * part.m + (1.0 - b1) * part.g;
    step.momenta[i] = m;
    if (!part.v.defined()) continue;
    const at::Tensor v = b2 * part.v + (1.0 - b2) * part.g * part.g;
    step.second_moments[i] = has_compact_second_moments(step) ? compact(v, part.base) : v;
    if (!with_sums) continue;
    std::vector<at::Tensor> all{part.g * part.m, part.g.square(), part.m.square(),
                                m.square(),      part.p.square(), v,
                                part.g == 0};
    if (part.u.defined()) {
      all.insert(all.end(), {part.g * part.u, part.m * part.u, part.u.square(), part.g * part.p});
    }
    for (size_t k = 0; k < all.size(); ++k) sums[k].push_back(part.sums(all[k]));
  }
  StepSums result;
  for (size_t k = 0; k < sums.size(); ++k) {
    if (!sums[k].empty()) result.*kStepSums[k] = at::cat(sums[k]);
  }
  return result;
}

std::vector<at::Tensor> directions_reference(TensorStep& step, const StepSums& sums,
                                             const StepCorrection* correction) {
  const StepCorrection given = checked_correction(step, correction);
  std::vector<at::Tensor> updates;
  const std::vector<Part> parts = parts_of(step);
  for (size_t i = 0; i < parts.size(); ++i) {
    const at::Tensor own = own_direction(step, i, parts[i], given);
    const at::Tensor direction = corrected_direction(parts[i], own, sums, given);
    updates.push_back(
        times_step(step, parts[i], with_decay(parts[i], direction, given.decay), given.step));
    if (!parts[i].u.defined()) continue;
    const at::Tensor taken = times_step(step, parts[i], direction.detach(), given.step);
    step.previous_updates[i] = taken.detach().to(at::kBFloat16);
  }
  return updates;
}

at::Tensor apply_directions_reference_(TensorStep& step, const StepSums& sums,
                                       const StepCorrection* correction) {
  const at::NoGradGuard no_grad;
  const StepCorrection given = checked_correction(step, correction);
  at::Tensor replaced;
  const std::vector<Part> parts = parts_of(step);
  for (size_t i = 0; i < parts.size(); ++i) {
    const at::Tensor count = move_(step, i, parts[i], sums, given).to(at::kLong);
    replaced = replaced.defined() ? replaced + count : count;
  }
  return replaced.defined() ? replaced : at::zeros({}, at::kLong);
}

}  // namespace mnemosyne::ops
