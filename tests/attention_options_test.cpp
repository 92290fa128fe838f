#include "mnemosyne/nn/attention_options.h"

#include <gtest/gtest.h>

#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/fields.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/position/positions.h"
#include "mnemosyne/nn/softmax_attention.h"

namespace mnemosyne::nn {
namespace {

TEST(AttentionOptions, RefuseWhatDoesNotExist) {
  const auto refused = [](const std::string& json, const AttentionSite& where) {
    const auto options = read_options<AttentionOptions>("attention", json);
    try {
      make_attention(options, where);
    } catch (const InputError& error) {
      return std::string(error.what()).find("expected") != std::string::npos;
    }
    return false;
  };
  const AttentionSite line{.embed_dim = 16, .causal = true, .extent = 24, .grid = {9}};
  const AttentionSite both{.embed_dim = 16, .extent = 24, .grid = {9}};
  const AttentionSite space{
      .embed_dim = 16, .position_dim = 3, .max_width = 4, .extent = 24, .grid = {9}};
  EXPECT_TRUE(refused(R"({"kind": "dense"})", line));
  EXPECT_TRUE(refused(R"({"position": "alibi"})", line));
  EXPECT_TRUE(refused(R"({"kind": "softmax", "position": "fft"})", line));
  EXPECT_TRUE(refused(R"({"position": "damped"})", both));
  EXPECT_TRUE(refused(R"({"kind": "softmax", "position": "damped"})", both));
  EXPECT_TRUE(refused(R"({"position": "fft"})", space));
  EXPECT_TRUE(refused(R"({"num_kv_heads": 3})", line));
  EXPECT_TRUE(refused(R"({"feature_map": "constant"})", line));
  EXPECT_TRUE(refused(R"({"feature_map": "hyp+", "num_features": 7})", line));
  EXPECT_TRUE(refused(R"({"num_features": 0})", line));
  EXPECT_TRUE(refused(R"({"coupling": "add"})", line));
  EXPECT_TRUE(refused(R"({"factor": "cube"})", line));
  EXPECT_TRUE(refused(R"({"spectrum": "wavelet"})", line));
  EXPECT_TRUE(refused(R"({"num_frequencies": 0})", line));
  EXPECT_TRUE(refused(R"({"max_bound": -1.0})", line));
  EXPECT_TRUE(refused(R"({"position": "fft", "coupling": "concatenate"})", line));
  AttentionSite odd = line;
  odd.embed_dim = 18;
  EXPECT_TRUE(refused(R"({})", odd));
  odd = space;
  odd.num_heads = 8;
  EXPECT_TRUE(refused(R"({"position": "rope"})", odd));
}

TEST(AttentionOptions, NameEveryPositionInTheOrderOfTheList) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(position_names(/*linear=*/true),
            (Names{"none", "absolute", "rope", "fft", "flt", "damped"}));
  EXPECT_EQ(position_names(/*linear=*/false),
            (Names{"none", "absolute", "rope", "alibi", "t5", "flt", "damped"}));
  // What a name chooses, at its site.
  const AttentionSite plane{.num_heads = 8, .position_dim = 2, .max_width = 5, .grid = {3, 7}};
  const auto chosen = [&](const char* name) { return chosen_position({.position = name}, plane); };
  EXPECT_TRUE(std::holds_alternative<std::monostate>(chosen("none")));
  EXPECT_TRUE(std::holds_alternative<std::monostate>(chosen("absolute")));
  EXPECT_EQ(std::get<RotaryPositionOptions>(chosen("rope")).position_dim, 2);
  EXPECT_EQ(std::get<BucketBiasOptions>(chosen("t5")).position_dim, 2);
  EXPECT_EQ(std::get<FourierPositionOptions>(chosen("flt")).max_width, 5);
  EXPECT_EQ(std::get<FftMaskOptions>(chosen("fft")).columns, 7);
  EXPECT_EQ(std::get<DampedPositionOptions>(chosen("damped")).num_heads, 8);
}

TEST(AttentionOptions, RefuseAPositionOfTheOtherKindOfAttention) {
  const auto message = [](const auto& make) {
    try {
      make();
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message([] { LinearAttentionImpl({.position = AlibiOptions{}}); }),
            "[attention] expected softmax attention for alibi, got linear");
  EXPECT_EQ(message([] { LinearAttentionImpl({.position = BucketBiasOptions{}}); }),
            "[attention] expected softmax attention for t5, got linear");
  EXPECT_EQ(message([] { SoftmaxAttentionImpl({.position = FftMaskOptions{}}); }),
            "[attention] expected linear attention for fft, got softmax");
}

}  // namespace
}  // namespace mnemosyne::nn
