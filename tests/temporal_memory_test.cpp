#include "mnemosyne/nn/temporal_memory.h"

#include "mnemosyne/core/error.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;

constexpr int64_t kWidth = 6, kStreams = 3, kSteps = 9;

TemporalMemory double_memory(const std::string& map) {
  TemporalMemory memory({.width = kWidth,
                         .key_dim = 3,
                         .value_dim = 2,
                         .feature_map = map,
                         .num_features = map == "constant" ? 1 : 8,
                         .discounts = {0.3, 0.95},
                         .seed = 11});
  memory->to(at::kDouble);
  return memory;
}

at::Tensor random_tokens() {
  at::manual_seed(2);
  return at::randn({kSteps, kStreams, kWidth}, at::kDouble);
}

/// y [T,B,E], token after token.
at::Tensor run(const TemporalMemory& memory, const at::Tensor& tokens) {
  at::Tensor state = memory->init(tokens.size(1), tokens.options().requires_grad(false));
  std::vector<at::Tensor> outputs;
  for (int64_t t = 0; t < tokens.size(0); ++t) outputs.push_back(memory->forward(tokens[t], state));
  return at::stack(outputs);
}

/// The definition: every token looks at all that came before, weighted by phi(q).phi(k) gamma^age.
at::Tensor exact_memory(const TemporalMemory& memory, const at::Tensor& tokens) {
  const int64_t steps = tokens.size(0);
  const at::Tensor x = memory->norm->forward(tokens);
  const auto heads_of = [&](const Dense& projection, int64_t depth) {
    return projection->forward(x).view({steps, tokens.size(1), -1, depth}).permute({1, 2, 0, 3});
  };
  const at::Tensor length = (0.5 * memory->log_temperature).exp().view({1, -1, 1, 1});
  const auto address = [&](int64_t which) {  // queries, then keys
    const at::Tensor y = heads_of(memory->address, 3).narrow(1, 2 * which, 2);
    return length * y / y.norm(2, {-1}, /*keepdim=*/true);
  };
  const FeatureMap phi(feature_map_kind(memory->options().feature_map), memory->omega);
  const at::Tensor weight = at::matmul(phi(address(0)), phi(address(1)).transpose(-1, -2));
  const at::Tensor time = at::arange(steps, at::kDouble);
  const at::Tensor age = time.unsqueeze(1) - time.unsqueeze(0);  // [T,T]
  const at::Tensor gamma = at::sigmoid(memory->discount_logit).view({1, -1, 1, 1});
  const at::Tensor forgotten = at::where(age >= 0, at::pow(gamma, age.clamp_min(0)), 0.0);
  const at::Tensor weights = weight * forgotten;
  const at::Tensor read =
      at::matmul(weights, heads_of(memory->value, 2)) / weights.sum(-1, /*keepdim=*/true);
  return tokens + memory->output->forward(read.permute({2, 0, 1, 3}).flatten(2));
}

class EveryMappedMemory : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryMappedMemory, IsAttentionToAllTokensSoFar) {
  const TemporalMemory memory = double_memory(GetParam());
  const at::Tensor tokens = random_tokens();
  EXPECT_TRUE(
      close(run(memory, tokens), exact_memory(memory, tokens), {.rtol = 1e-9, .atol = 1e-10}));
}

TEST_P(EveryMappedMemory, HasTheGradientsOfAttention) {
  const TemporalMemory memory = double_memory(GetParam());
  const at::Tensor tokens = random_tokens().requires_grad_(true);
  std::vector<at::Tensor> inputs = memory->parameters();
  inputs.push_back(tokens);
  const at::Tensor seed = at::randn(tokens.sizes(), at::kDouble);
  const auto gradients = [&](const at::Tensor& output) {
    return torch::autograd::grad({output}, inputs, {seed}, /*retain_graph=*/std::nullopt,
                                 /*create_graph=*/false, /*allow_unused=*/true);
  };
  const auto actual = gradients(run(memory, tokens));
  const auto expected = gradients(exact_memory(memory, tokens));
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_EQ(actual[i].defined(), expected[i].defined()) << i;
    if (!actual[i].defined()) continue;
    EXPECT_TRUE(close(actual[i], expected[i], {.rtol = 1e-7, .atol = 1e-9})) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Maps, EveryMappedMemory,
                         ::testing::Values("hyp+", "favor+", "relu", "constant"));

TEST(TemporalMemory, StreamsAreIndependentAndTheStateDoesNotGrow) {
  const TemporalMemory memory = double_memory("hyp+");
  const at::Tensor tokens = random_tokens();
  const at::Tensor all = run(memory, tokens);
  for (int64_t b = 0; b < kStreams; ++b) {
    EXPECT_TRUE(close(run(memory, tokens.narrow(1, b, 1)), all.narrow(1, b, 1),
                      {.rtol = 1e-10, .atol = 1e-12}));
  }
  at::Tensor state = memory->init(kStreams, tokens.options());
  const std::vector<int64_t> shape{kStreams, 2 * (8 * 3 + 1)};
  EXPECT_EQ(state.sizes(), at::IntArrayRef(shape));
  memory->forward(tokens[0], state);
  EXPECT_EQ(state.sizes(), at::IntArrayRef(shape));
}

TEST(TemporalMemory, BadOptionsAndInputsAreNamed) {
  EXPECT_THROW(TemporalMemory({.width = 0}), InputError);
  EXPECT_THROW(TemporalMemory({.feature_map = "wave"}), InputError);
  EXPECT_THROW(TemporalMemory({.num_features = 7}), InputError);  // hyp+ has pairs
  EXPECT_THROW(TemporalMemory({.discounts = {}}), InputError);
  EXPECT_THROW(TemporalMemory({.discounts = {0.5, 1.0}}), InputError);
  const TemporalMemory memory = double_memory("hyp+");
  const at::Tensor tokens = random_tokens();
  at::Tensor state = memory->init(kStreams - 1, tokens.options());
  EXPECT_THROW(memory->forward(tokens[0], state), c10::Error);
}

}  // namespace
}  // namespace mnemosyne::nn
