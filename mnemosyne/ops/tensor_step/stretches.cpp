#include "mnemosyne/ops/tensor_step/stretches.h"

#include <algorithm>

namespace mnemosyne::ops {

at::Tensor Stretch::of(const at::Tensor& values) const {
  const bool whole = !values.defined() || values.size(0) == num_chunks;
  return whole ? values : values.narrow(0, first_chunk, num_chunks);
}

StepSums Stretch::of(const StepSums& sums) const {
  StepSums own;
  for (const auto member : kStepSums) own.*member = of(sums.*member);
  return own;
}

StepCorrection Stretch::of(const StepCorrection& correction) const {
  return changed(correction, [&](const at::Tensor& values) { return of(values); });
}

bool Stretch::has_numbers() const {
  return std::any_of(step.params.begin(), step.params.end(),
                     [](const at::Tensor& param) { return param.numel() > 0; });
}

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
    if (!step.previous_updates.empty()) {
      own.step.previous_updates.push_back(step.previous_updates[i]);
    }
    own.step.rows.push_back(step.rows[i]);
    own.step.base.push_back(step.base[i]);
    own.num_chunks += counts[i];
    chunks += counts[i];
    coordinates += size;
  }
  return stretches;
}

}  // namespace mnemosyne::ops
