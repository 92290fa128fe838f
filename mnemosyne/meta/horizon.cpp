#include "mnemosyne/meta/horizon.h"

#include <ATen/ops/tensor.h>

#include "mnemosyne/core/error.h"

namespace mnemosyne::meta {

HorizonSchedule::HorizonSchedule(HorizonOptions options) : options_(std::move(options)) {
  if (options_.lengths.empty())
    throw InputError("[horizons] expected at least one length, got none");
  int64_t previous = 0;
  for (const int64_t length : options_.lengths) {
    if (length <= previous) {
      throw InputError("[horizons] expected growing positive lengths, got " +
                       std::to_string(length) + " after " + std::to_string(previous));
    }
    previous = length;
  }
}

void HorizonSchedule::advance() {
  if (level_ + 1 < options_.lengths.size()) ++level_;
  steps_here_ = 0;
  stale_ = 0;
}

void HorizonSchedule::outer_step_done() {
  if (++steps_here_ >= options_.steps_per_length) advance();
}

void HorizonSchedule::validated(bool improved) {
  stale_ = improved ? 0 : stale_ + 1;
  if (options_.patience > 0 && stale_ >= options_.patience) advance();
}

NamedTensors HorizonSchedule::checkpoint() const {
  const std::vector<int64_t> values{static_cast<int64_t>(level_), steps_here_, stale_};
  return {{"horizon", at::tensor(values, at::kLong)}};
}

void HorizonSchedule::restore(const NamedTensors& tensors) {
  const at::Tensor& values = find(tensors, "horizon");
  if (values.scalar_type() != at::kLong || values.sizes() != at::IntArrayRef{3}) {
    throw InputError("[checkpoint] expected horizon with three int64 values");
  }
  const auto level = static_cast<size_t>(values[0].item<int64_t>());
  if (level >= options_.lengths.size()) {
    throw InputError("[checkpoint] expected a horizon below " +
                     std::to_string(options_.lengths.size()) + ", got " + std::to_string(level));
  }
  level_ = level;
  steps_here_ = values[1].item<int64_t>();
  stale_ = values[2].item<int64_t>();
}

}  // namespace mnemosyne::meta
