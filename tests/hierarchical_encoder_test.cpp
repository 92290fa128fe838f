#include "mnemosyne/nn/hierarchical_encoder.h"

#include <algorithm>
#include <numeric>

#include "mnemosyne/core/error.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;

constexpr int64_t kTokenDim = 5, kTensorDim = 2;
const std::vector<int64_t> kCounts{7, 1, 0, 12, 3};

HierarchicalEncoderOptions options_with(const std::string& position) {
  HierarchicalEncoderOptions options{.token_dim = kTokenDim,
                                     .tensor_dim = kTensorDim,
                                     .width = 12,
                                     .hidden = 8,
                                     .chunk_lengths = {4, 2},
                                     .extent = 8.0,
                                     .seed = 3};
  options.attention.position = position;
  return options;
}

struct PlacedTensors {
  at::Tensor tokens, positions, tensors;
  std::vector<int64_t> counts{}, set_counts{};
};

EncoderPlan plan_of(const HierarchicalEncoder& encoder, const PlacedTensors& in) {
  return encoder->plan({in.positions, in.counts, in.set_counts}, at::kCPU);
}

EncodedTensors encode(const HierarchicalEncoder& encoder, const PlacedTensors& in) {
  return encoder->forward({in.tokens, in.tensors}, plan_of(encoder, in));
}

at::Tensor encode_and_spread(const HierarchicalEncoder& encoder, const PlacedTensors& in) {
  return encoder->spread(encode(encoder, in), plan_of(encoder, in));
}

PlacedTensors random_inputs(const std::vector<int64_t>& counts) {
  at::manual_seed(17);
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  return {.tokens = at::randn({total, kTokenDim}),
          .positions = 8.0 * at::rand({total, 3}, at::kDouble),
          .tensors = at::randn({static_cast<int64_t>(counts.size()), kTensorDim}),
          .counts = counts};
}

HierarchicalEncoder double_encoder(const HierarchicalEncoderOptions& options) {
  HierarchicalEncoder encoder(options);
  encoder->to(at::kDouble);
  return encoder;
}

PlacedTensors in_double(PlacedTensors in) {
  in.tokens = in.tokens.to(at::kDouble);
  in.tensors = in.tensors.to(at::kDouble);
  return in;
}

/// The rows of the tensors in another order.
at::Tensor reordered(const at::Tensor& rows, const std::vector<int64_t>& counts,
                     const std::vector<size_t>& order) {
  const std::vector<at::Tensor> parts = rows.split_with_sizes(counts);
  std::vector<at::Tensor> picked;
  for (const size_t i : order) picked.push_back(parts[i]);
  return at::cat(picked);
}

class EveryPlacedEncoder : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryPlacedEncoder, HasTheShapesOfItsDocs) {
  HierarchicalEncoder encoder(options_with(GetParam()));
  const EncodedTensors out = encode(encoder, random_inputs(kCounts));
  EXPECT_EQ(out.tokens.at(0).sizes(), at::IntArrayRef({23, 12}));
  // Chunks of 4: 2, 1, 0, 3, 1; of these chunks of 2: 1, 1, 0, 2, 1.
  EXPECT_EQ(out.tokens.at(1).sizes(), at::IntArrayRef({7, 12}));
  EXPECT_EQ(out.meta.sizes(), at::IntArrayRef({5, 12}));
  EXPECT_EQ(out.tensors.sizes(), at::IntArrayRef({5, 12}));
  EXPECT_EQ(out.sets.sizes(), at::IntArrayRef({1, 12}));
  EXPECT_EQ(encode_and_spread(encoder, random_inputs(kCounts)).sizes(), at::IntArrayRef({23, 12}));
}

TEST_P(EveryPlacedEncoder, PermutesWithItsTensors) {
  const HierarchicalEncoder encoder = double_encoder(options_with(GetParam()));
  const PlacedTensors in = in_double(random_inputs(kCounts));
  const std::vector<size_t> order{3, 0, 4, 2, 1};
  PlacedTensors other = in;
  other.counts.clear();
  for (const size_t i : order) other.counts.push_back(kCounts[i]);
  other.tokens = reordered(in.tokens, kCounts, order);
  other.positions = reordered(in.positions, kCounts, order);
  other.tensors = reordered(in.tensors, std::vector<int64_t>(5, 1), order);
  const EncodedTensors a = encode(encoder, in), b = encode(encoder, other);
  EXPECT_TRUE(close(b.sets, a.sets, {.rtol = 1e-10, .atol = 1e-12}));
  EXPECT_TRUE(close(encode_and_spread(encoder, other),
                    reordered(encode_and_spread(encoder, in), kCounts, order),
                    {.rtol = 1e-10, .atol = 1e-12}));
}

TEST_P(EveryPlacedEncoder, KeepsChunksAndTensorsApartBelow) {
  // What a chunk's tokens are does not depend on other chunks, whatever padding they bring.
  const HierarchicalEncoder encoder = double_encoder(options_with(GetParam()));
  const PlacedTensors in = in_double(random_inputs(kCounts));
  PlacedTensors alone = in;
  alone.tokens = in.tokens.narrow(0, 8, 3);  // of the tensor of 12, its first chunk but one
  alone.positions = in.positions.narrow(0, 8, 3);
  alone.tensors = in.tensors.narrow(0, 3, 1);
  alone.counts = {3};
  PlacedTensors short_tensor = in;
  short_tensor.counts = {7, 1, 0, 3, 12};  // the same tokens, cut elsewhere
  const EncodedTensors a = encode(encoder, alone), b = encode(encoder, short_tensor);
  EXPECT_TRUE(close(b.tokens[0].narrow(0, 8, 3), a.tokens[0], {.rtol = 1e-10, .atol = 1e-12}));
}

TEST_P(EveryPlacedEncoder, SetsAreIndependent) {
  const HierarchicalEncoder encoder = double_encoder(options_with(GetParam()));
  PlacedTensors both = in_double(random_inputs(kCounts));
  both.set_counts = {2, 3};
  const EncodedTensors joint = encode(encoder, both);
  const at::Tensor spread = encode_and_spread(encoder, both);
  const auto part = [&](int64_t first, int64_t count, int64_t token, int64_t tokens) {
    PlacedTensors own = both;
    own.set_counts = {};
    own.counts.assign(kCounts.begin() + first, kCounts.begin() + first + count);
    own.tokens = both.tokens.narrow(0, token, tokens);
    own.positions = both.positions.narrow(0, token, tokens);
    own.tensors = both.tensors.narrow(0, first, count);
    return own;
  };
  const EncodedTensors one = encode(encoder, part(0, 2, 0, 8));
  const EncodedTensors two = encode(encoder, part(2, 3, 8, 15));
  EXPECT_TRUE(close(joint.sets, at::cat({one.sets, two.sets}), {.rtol = 1e-10, .atol = 1e-12}));
  EXPECT_TRUE(close(spread,
                    at::cat({encode_and_spread(encoder, part(0, 2, 0, 8)),
                             encode_and_spread(encoder, part(2, 3, 8, 15))}),
                    {.rtol = 1e-10, .atol = 1e-12}));
}

TEST_P(EveryPlacedEncoder, EveryWeightGetsItsGradient) {
  const HierarchicalEncoder encoder = double_encoder(options_with(GetParam()));
  const PlacedTensors in = in_double(random_inputs(kCounts));
  const at::Tensor seed = at::randn({23, 12}, at::kDouble);
  const auto value = [&] { return (encode_and_spread(encoder, in) * seed).sum(); };
  value().backward();
  const at::NoGradGuard no_grad;
  for (const auto& named : encoder->named_parameters()) {
    const at::Tensor& p = named.value();
    ASSERT_TRUE(p.grad().defined()) << named.key();
    const at::Tensor direction = at::randn(p.sizes(), at::kDouble);
    const at::Tensor kept = p.clone();
    constexpr double kStep = 1e-5;
    p.copy_(kept + kStep * direction);
    const at::Tensor above = value();
    p.copy_(kept - kStep * direction);
    const at::Tensor below = value();
    p.copy_(kept);
    const double expected = ((above - below) / (2 * kStep)).item<double>();
    EXPECT_NEAR((p.grad() * direction).sum().item<double>(), expected,
                1e-5 * std::max(1.0, std::abs(expected)))
        << named.key();
  }
}

TEST_P(EveryPlacedEncoder, APlanMayHoldWhatPositionsGive) {
  const HierarchicalEncoder encoder = double_encoder(options_with(GetParam()));
  const PlacedTensors in = in_double(random_inputs(kCounts));
  EncoderPlan plan = plan_of(encoder, in);
  encoder->add_factors(plan);
  EXPECT_EQ(plan.factors().empty(), GetParam() != "flt");
  for (EncoderPlan::Level& level : plan.levels) {
    if (level.factor.query.defined()) level.positions.fill_(1e9);  // not looked at again
  }
  EXPECT_TRUE(at::equal(encoder->spread(encoder->forward({in.tokens, in.tensors}, plan), plan),
                        encode_and_spread(encoder, in)));
}

INSTANTIATE_TEST_SUITE_P(Positions, EveryPlacedEncoder,
                         ::testing::Values("flt", "absolute", "none"));

TEST(HierarchicalEncoder, PositionsTellTokensApart) {
  for (const std::string position : {"flt", "absolute", "none"}) {
    const HierarchicalEncoder encoder = double_encoder(options_with(position));
    PlacedTensors in = in_double(random_inputs({4}));
    const at::Tensor before = encode(encoder, in).meta;
    in.positions = in.positions.flip(0);
    const bool same = close(encode(encoder, in).meta, before, {.rtol = 1e-9, .atol = 1e-11});
    EXPECT_EQ(same, position == "none") << position;
    // Without positions a chunk is a set.
    in.tokens = in.tokens.flip(0);
    EXPECT_TRUE(close(encode(encoder, in).meta, before, {.rtol = 1e-9, .atol = 1e-11})) << position;
  }
}

TEST(HierarchicalEncoder, MovingAllPositionsChangesNothing) {
  const HierarchicalEncoder encoder = double_encoder(options_with("flt"));
  PlacedTensors in = in_double(random_inputs(kCounts));
  const at::Tensor before = encode_and_spread(encoder, in);
  in.positions = in.positions + at::tensor({2.5, -1.0, 0.25}, at::kDouble);
  EXPECT_TRUE(close(encode_and_spread(encoder, in), before, {.rtol = 1e-7, .atol = 1e-9}));
}

TEST(HierarchicalEncoder, PositionsMayBeAnyNumbers) {
  const HierarchicalEncoder encoder(options_with("flt"));
  PlacedTensors in = random_inputs(kCounts);
  in.positions = 1e6 * in.positions;
  EXPECT_TRUE(at::isfinite(encode_and_spread(encoder, in)).all().item<bool>());
}

TEST(HierarchicalEncoder, ACopyComputesTheSame) {
  const HierarchicalEncoder encoder(options_with("flt"));
  const auto copy = std::dynamic_pointer_cast<HierarchicalEncoderImpl>(encoder->clone());
  const PlacedTensors in = random_inputs(kCounts);
  EXPECT_TRUE(at::equal(encode(copy, in).sets, encode(encoder, in).sets));
}

TEST(HierarchicalEncoder, BadOptionsAndInputsAreNamed) {
  HierarchicalEncoderOptions options = options_with("rope");
  EXPECT_THROW(HierarchicalEncoder{options}, InputError);
  options = options_with("none");
  options.chunk_lengths = {};
  EXPECT_THROW(HierarchicalEncoder{options}, InputError);
  options.chunk_lengths = {4, 0};
  EXPECT_THROW(HierarchicalEncoder{options}, InputError);
  options = options_with("none");
  options.extent = 0.0;
  EXPECT_THROW(HierarchicalEncoder{options}, InputError);

  const HierarchicalEncoder encoder(options_with("flt"));
  PlacedTensors in = random_inputs(kCounts);
  in.counts[0] += 1;
  EXPECT_THROW(encode(encoder, in), c10::Error);
  in = random_inputs(kCounts);
  in.positions = at::Tensor();
  EXPECT_THROW(encode(encoder, in), c10::Error);
  in = random_inputs(kCounts);
  in.tensors = at::Tensor();
  EXPECT_THROW(encode(encoder, in), c10::Error);
  in = random_inputs(kCounts);
  in.set_counts = {4};
  EXPECT_THROW(encode(encoder, in), c10::Error);
}

TEST(ChunkPlan, GathersWhatItScatters) {
  const ChunkPlan plan({5, 0, 3}, 4, at::kCPU);
  EXPECT_EQ(plan.chunk_counts(), (std::vector<int64_t>{2, 0, 1}));
  const at::Tensor tokens = at::arange(1, 9, at::kDouble).unsqueeze(1);
  const at::Tensor chunks = plan.gather(tokens);
  const at::Tensor expected =
      at::tensor({1., 2., 3., 4., 5., 0., 0., 0., 6., 7., 8., 0.}, at::kDouble);
  EXPECT_TRUE(at::equal(chunks.view({-1}), expected));
  EXPECT_TRUE(at::equal(plan.mask().view({-1}), expected > 0));
  EXPECT_TRUE(at::equal(plan.scatter(chunks), tokens));
  EXPECT_TRUE(at::equal(plan.pool(tokens).view({-1}), at::tensor({2.5, 5., 7.}, at::kDouble)));
  const at::Tensor values = at::tensor({1., 2., 4.}, at::kDouble).unsqueeze(1);
  EXPECT_TRUE(at::equal(plan.spread(values).view({-1}),
                        at::tensor({1., 1., 1., 1., 2., 4., 4., 4.}, at::kDouble)));
}

TEST(ChunkPlan, WholeRowsMayBeEmpty) {
  const ChunkPlan rows({5, 0, 3}, 0, at::kCPU);
  EXPECT_EQ(rows.chunk_counts(), (std::vector<int64_t>{1, 1, 1}));
  EXPECT_EQ(rows.mask().sizes(), at::IntArrayRef({3, 5}));
  const at::Tensor tokens = at::arange(1, 9, at::kDouble).unsqueeze(1);
  EXPECT_TRUE(at::equal(rows.pool(tokens).view({-1}), at::tensor({3., 0., 7.}, at::kDouble)));
}

TEST(ChunkPlan, BadInputIsNamed) {
  EXPECT_THROW(ChunkPlan({-1}, 4, at::kCPU), c10::Error);
  EXPECT_THROW(ChunkPlan({1}, -4, at::kCPU), c10::Error);
  const ChunkPlan plan({5}, 4, at::kCPU);
  EXPECT_THROW(plan.gather(at::ones({4, 2})), c10::Error);
}

}  // namespace
}  // namespace mnemosyne::nn
