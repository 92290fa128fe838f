#include "mnemosyne/ops/fading_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <vector>

namespace mnemosyne::ops {
namespace {

// Of e: factors and sums of products of features stay within float32, and what they multiply too.
constexpr double kLargestExponent = 60.0;

/// Where segments begin, and the end: the fastest wave of any head fades by at most
/// e^-kLargestExponent between the tokens of one.
std::vector<int64_t> segments(const at::Tensor& decay, const at::Tensor& positions) {
  const at::Tensor fastest = decay.detach().to(at::kDouble).amax(-1, /*keepdim=*/true);  // [H,1]
  const bool shared = positions.size(0) == 1;
  const at::Tensor fading =
      (positions * (shared ? fastest.amax() : fastest)).to(at::kCPU).contiguous();
  const auto rows = fading.accessor<double, 2>();
  const int64_t length = fading.size(1);
  std::vector<int64_t> begins = {0};
  for (int64_t token = 1; token < length; ++token) {
    bool far = false;
    for (int64_t row = 0; row < fading.size(0); ++row) {
      const double fades = rows[row][token] - rows[row][token - 1];
      TORCH_CHECK(fades >= 0.0, "[fading_attention] expected positions that do not go down and ",
                  "finite rates, got a step back at token ", token);
      far = far || rows[row][token] - rows[row][begins.back()] > kLargestExponent;
    }
    if (far) begins.push_back(token);
  }
  begins.push_back(length);
  return begins;
}

at::Tensor slice(const at::Tensor& x, int64_t dim, int64_t first, int64_t count) {
  return x.defined() ? x.narrow(dim, first, count) : x;
}

/// Its sums counted from `to`, not `from`, both [H] or [1].
LinearAttentionState moved(const LinearAttentionState& state, const at::Tensor& decay,
                           const at::Tensor& from, const at::Tensor& to) {
  const at::Tensor gap = (to - from).unsqueeze(-1).to(decay.scalar_type());
  const at::Tensor fading =
      (-decay * gap).exp().to(state.sums.scalar_type()).unsqueeze(-1);  // [H,R,1]
  const int64_t rank = decay.size(1);
  const std::vector<int64_t> split = {rank, state.normalizer.size(2) / rank};
  return {(state.sums.unflatten(2, split) * fading.unsqueeze(-1)).flatten(2, 3),
          (state.normalizer.unflatten(2, split) * fading).flatten(2, 3), state.offset};
}

}  // namespace

LinearAttentionResult fading_linear_attention(const LinearAttentionInputs& inputs,
                                              const LinearAttentionOptions& options,
                                              const at::Tensor& decay, const at::Tensor& positions,
                                              at::Tensor& origin) {
  const int64_t length = inputs.query.size(2);
  TORCH_CHECK(options.causal && inputs.query_factor.defined() && inputs.key_factor.defined(),
              "[fading_attention] expected causal attention with position factors");
  TORCH_CHECK(positions.dim() == 2 && positions.size(1) == length &&
                  positions.scalar_type() == at::kDouble && length > 0,
              "[fading_attention] expected float64 positions [H,L] or [1,L] for ", length,
              " tokens, got ", positions.sizes());
  const std::vector<int64_t> begins = segments(decay, positions);
  LinearAttentionState state = inputs.state;
  std::vector<at::Tensor> outputs;
  for (size_t part = 0; part + 1 < begins.size(); ++part) {
    const int64_t first = begins[part], count = begins[part + 1] - first;
    const at::Tensor here = positions.narrow(1, first, count), start = here.select(1, 0);
    if (state.sums.defined()) state = moved(state, decay, origin, start);
    origin = start;
    const at::Tensor exponent =
        (here - start.unsqueeze(1)).unsqueeze(-1).to(decay.scalar_type()) * decay.unsqueeze(1);
    LinearAttentionInputs segment = inputs;
    segment.query = inputs.query.narrow(2, first, count);
    segment.key = inputs.key.narrow(2, first, count);
    segment.value = inputs.value.narrow(2, first, count);
    segment.query_factor = inputs.query_factor.narrow(1, first, count) * (-exponent).exp();
    segment.key_factor = inputs.key_factor.narrow(1, first, count) * exponent.exp();
    segment.query_log = slice(inputs.query_log, 1, first, count);
    segment.key_log = slice(inputs.key_log, 1, first, count);
    segment.key_padding_mask = slice(inputs.key_padding_mask, 1, first, count);
    segment.state = state;
    LinearAttentionResult result = linear_attention(segment, options);
    outputs.push_back(result.output);
    state = result.state;
  }
  return {outputs.size() == 1 ? outputs.front() : at::cat(outputs, 2), state};
}

}  // namespace mnemosyne::ops
