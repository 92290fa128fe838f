#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "mnemosyne/kernels/lstm_step.h"
#include "mnemosyne/ops/lstm_step/lstm_step.h"
#include "mnemosyne/ops/parallel.h"

namespace mnemosyne::ops {
namespace {

constexpr int64_t kChunk = 2048;

/// The coordinates that are worth waking up a thread.
constexpr int64_t kWorth = 256;

std::vector<kernels::LstmStepSlice> split(const std::vector<kernels::LstmStepParams>& tensors) {
  std::vector<kernels::LstmStepSlice> slices;
  for (const kernels::LstmStepParams& tensor : tensors) {
    for (int64_t begin = 0; begin < tensor.size; begin += kChunk) {
      slices.push_back({tensor, begin, std::min(begin + kChunk, tensor.size), nullptr});
    }
  }
  return slices;
}

void check_states(const std::vector<LstmState>& states, int64_t num_hidden, int64_t num_columns) {
  int64_t columns = 0;
  for (const LstmState& state : states) {
    for (const at::Tensor& tensor : state) {
      TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == num_hidden &&
                      tensor.size(1) == state[0].size(1) && tensor.is_contiguous() &&
                      tensor.scalar_type() == at::kFloat,
                  "[lstm_step_] expected contiguous float32 states [", num_hidden, ", N], got ",
                  tensor.scalar_type(), " ", tensor.sizes());
    }
    columns += state[0].size(1);
  }
  TORCH_CHECK(columns == num_columns, "[lstm_step_] expected features of ", columns,
              " coordinates, got ", num_columns);
}

}  // namespace

bool lstm_step_is_fused(const LstmWeights& weights, int64_t num_features) {
  return weights.output_weight.is_cpu() && weights.output_weight.scalar_type() == at::kFloat &&
         weights.output_weight.size(1) <= kernels::kMaxLstmHidden &&
         num_features <= kernels::kMaxLstmFeatures;
}

at::Tensor lstm_step_(const at::Tensor& features, const std::vector<LstmState>& states,
                      const LstmWeights& weights) {
  const at::NoGradGuard no_grad;
  const int64_t num_hidden = weights.output_weight.size(1);
  TORCH_CHECK(lstm_step_is_fused(weights, features.size(0)),
              "[lstm_step_] expected float32 weights on the CPU with at most ",
              kernels::kMaxLstmHidden, " hidden units and ", kernels::kMaxLstmFeatures,
              " features, got ", weights.output_weight.scalar_type(), " ",
              weights.output_weight.sizes(), " and ", features.size(0), " features");
  check_states(states, num_hidden, features.size(1));

  const at::Tensor columns = features.to(at::kFloat).contiguous();
  const std::array<at::Tensor, 2> matrices{weights.matrices[0].contiguous(),
                                           weights.matrices[1].contiguous()};
  const at::Tensor output_weight = weights.output_weight.contiguous();
  const at::Tensor output = at::empty({features.size(1)}, columns.options());
  kernels::LstmStepParams shared{};
  for (size_t layer = 0; layer < 2; ++layer) {
    shared.layers[layer].matrix = matrices[layer].const_data_ptr<float>();
    shared.layers[layer].bias = weights.biases[layer].const_data_ptr<float>();
  }
  shared.num_hidden = num_hidden;
  shared.num_features = features.size(0);
  shared.feature_stride = features.size(1);
  shared.output_weight = output_weight.const_data_ptr<float>();
  shared.output_bias = *weights.output_bias.const_data_ptr<float>();

  std::vector<kernels::LstmStepParams> tensors;
  int64_t column = 0;
  for (const LstmState& state : states) {
    kernels::LstmStepParams& tensor = tensors.emplace_back(shared);
    for (size_t layer = 0; layer < 2; ++layer) {
      tensor.layers[layer].hidden = state[2 * layer].data_ptr<float>();
      tensor.layers[layer].cell = state[2 * layer + 1].data_ptr<float>();
    }
    tensor.state_stride = tensor.size = state[0].size(1);
    tensor.features = columns.const_data_ptr<float>() + column;
    tensor.output = output.data_ptr<float>() + column;
    column += tensor.size;
  }
  const std::vector<kernels::LstmStepSlice> slices = split(tensors);
  const int64_t count = static_cast<int64_t>(slices.size());
  const int64_t grain = parallel_grain(count, features.size(1), kWorth);
  parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernels::lstm_step(slices[i]);
  });
  return output;
}

}  // namespace mnemosyne::ops
