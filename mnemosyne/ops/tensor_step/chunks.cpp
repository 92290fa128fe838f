#include "mnemosyne/ops/tensor_step/chunks.h"

#include <algorithm>
#include <cmath>

namespace mnemosyne::ops {
namespace {

void check_tensor(const TensorStep& step, size_t i, bool with_sums, bool compact) {
  const at::Tensor &param = step.params[i], &momentum = step.momenta[i];
  const at::Tensor second_moment = step.second_moment(i);
  TORCH_CHECK(param.device() == step.params[0].device() && step.grads[i].sizes() == param.sizes() &&
                  step.grads[i].device() == param.device(),
              "[tensor_step] expected parameters and gradients of the same shapes on ",
              step.params[0].device(), ", got ", param.sizes(), " on ", param.device(), " and ",
              step.grads[i].sizes(), " on ", step.grads[i].device());
  const auto is_state = [&](const at::Tensor& x, at::ScalarType dtype) {
    return x.sizes() == param.sizes() && x.device() == param.device() && x.is_contiguous() &&
           x.scalar_type() == dtype;
  };
  const at::ScalarType of_second = compact ? at::kBFloat16 : step_dtype(param);
  TORCH_CHECK(is_state(momentum, step_dtype(param)),
              "[tensor_step] expected contiguous moments of ", step_dtype(param), " ",
              param.sizes(), " on ", param.device(), ", got ", momentum.scalar_type(), " ",
              momentum.sizes(), " on ", momentum.device());
  TORCH_CHECK(!second_moment.defined() || is_state(second_moment, of_second),
              "[tensor_step] expected a contiguous second moment of ", of_second, " ",
              param.sizes(), " on ", param.device(), ", got ", second_moment.scalar_type(), " ",
              second_moment.sizes(), " on ", second_moment.device());
  TORCH_CHECK(second_moment.defined() || (!with_sums && is_matrix(step, i)) || param.numel() == 0,
              "[tensor_step] expected a second moment for ", with_sums ? "every tensor" : "vectors",
              ", got none for number ", i);
  if (has_previous_updates(step)) {
    const at::Tensor& update = step.previous_updates[i];
    TORCH_CHECK(update.sizes() == param.sizes() && update.device() == param.device() &&
                    update.is_contiguous() && update.scalar_type() == at::kBFloat16,
                "[tensor_step] expected a contiguous previous update of ", at::kBFloat16, " ",
                param.sizes(), " on ", param.device(), ", got ", update.scalar_type(), " ",
                update.sizes(), " on ", update.device());
  }
  TORCH_CHECK(step.rows[i] == 0 || param.numel() % step.rows[i] == 0,
              "[tensor_step] expected rows of a matrix of ", param.numel(), " numbers, got ",
              step.rows[i]);
}

void check_member(const at::Tensor& tensor, at::IntArrayRef sizes) {
  TORCH_CHECK(!tensor.defined() || (tensor.sizes() == sizes && tensor.is_floating_point()),
              "[tensor_step] expected a floating-point correction of shape ", sizes, ", got ",
              tensor.scalar_type(), " ", tensor.sizes());
}

}  // namespace

at::Tensor TensorStep::second_moment(size_t i) const {
  if (second_moments.empty()) return {};
  const at::Tensor& v = second_moments[i];
  return v.defined() && v.numel() == params[i].numel() ? v : at::Tensor();
}

int64_t chunk_count(int64_t numel, int64_t chunk_size) {
  const bool whole = chunk_size == 0 || numel == 0;
  return whole ? 1 : (numel + chunk_size - 1) / chunk_size;
}

std::vector<int64_t> chunk_counts(const TensorStep& step) {
  std::vector<int64_t> counts;
  for (const at::Tensor& param : step.params) {
    counts.push_back(chunk_count(param.numel(), step.chunk_size));
  }
  return counts;
}

std::vector<StepChunk> step_chunks(const TensorStep& step) {
  std::vector<StepChunk> chunks;
  for (size_t i = 0; i < step.size(); ++i) {
    const int64_t size = step.params[i].numel();
    const int64_t length = step.chunk_size == 0 || size == 0 ? size : step.chunk_size;
    chunks.push_back({i, 0, std::min(length, size)});
    for (int64_t begin = length; begin < size; begin += length) {
      chunks.push_back({i, begin, std::min(length, size - begin)});
    }
  }
  return chunks;
}

at::ScalarType step_dtype(const at::Tensor& param) {
  return param.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

bool has_previous_updates(const TensorStep& step) { return !step.previous_updates.empty(); }

bool has_compact_second_moments(const TensorStep& step) {
  return std::any_of(step.second_moments.begin(), step.second_moments.end(),
                     [](const auto& v) { return v.defined() && v.scalar_type() == at::kBFloat16; });
}

bool is_matrix(const TensorStep& step, size_t i) {
  return step.rows[i] > 0 && step.params[i].numel() > 0;
}

double direction_scale(const TensorStep& step, size_t i) {
  const int64_t longer = std::max(step.rows[i], step.params[i].numel() / step.rows[i]);
  return kDirectionRms * std::sqrt(static_cast<double>(longer));
}

void check_step(const TensorStep& step, bool with_sums) {
  const size_t size = step.size();
  TORCH_CHECK(step.grads.size() == size && step.momenta.size() == size &&
                  step.rows.size() == size && step.base.size() == size &&
                  (step.second_moments.size() == size || step.second_moments.empty()) &&
                  (step.previous_updates.size() == size || step.previous_updates.empty()),
              "[tensor_step] expected lists of ", size, " tensors, got ", step.grads.size(),
              " gradients, ", step.momenta.size(), " and ", step.second_moments.size(),
              " moments, ", step.previous_updates.size(), " previous updates, ", step.rows.size(),
              " rows and ", step.base.size(), " bases");
  TORCH_CHECK(step.chunk_size >= 0, "[tensor_step] expected a chunk_size of at least 0, got ",
              step.chunk_size);
  for (const at::Tensor& scale : {step.scale, step.decay_scale}) {
    TORCH_CHECK(!scale.defined() || (scale.dim() == 0 && scale.is_floating_point()),
                "[tensor_step] expected a floating-point number as scale, got ",
                scale.scalar_type(), " ", scale.sizes());
  }
  const bool compact = has_compact_second_moments(step);
  for (size_t i = 0; i < size; ++i) check_tensor(step, i, with_sums, compact);
}

StepCorrection checked_correction(const TensorStep& step, const StepCorrection* correction) {
  if (correction == nullptr) return {};
  int64_t num_chunks = 0;
  for (const int64_t count : chunk_counts(step)) num_chunks += count;
  for (const auto member : kStepCorrections) {
    std::vector<int64_t> sizes{num_chunks};
    if (member == &StepCorrection::readouts) sizes.push_back(kNumReadouts);
    check_member(correction->*member, sizes);
  }
  return *correction;
}

bool is_given(const StepCorrection& correction) {
  return std::any_of(std::begin(kStepCorrections), std::end(kStepCorrections),
                     [&](const auto member) { return (correction.*member).defined(); });
}

at::ScalarType sum_dtype(at::Device device) { return device.is_mps() ? at::kFloat : at::kDouble; }

}  // namespace mnemosyne::ops
