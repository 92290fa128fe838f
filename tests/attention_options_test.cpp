#include "mnemosyne/nn/attention_options.h"

#include <gtest/gtest.h>

#include <string>

#include "mnemosyne/core/error.h"

namespace mnemosyne::nn {
namespace {

TEST(AttentionOptions, RefuseWhatDoesNotExist) {
  const auto refused = [](const AttentionOptions& options, const AttentionSite& where) {
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
  EXPECT_TRUE(refused({.kind = "dense"}, line));
  EXPECT_TRUE(refused({.position = "alibi"}, line));
  EXPECT_TRUE(refused({.kind = "softmax", .position = "fft"}, line));
  EXPECT_TRUE(refused({.position = "damped"}, both));
  EXPECT_TRUE(refused({.kind = "softmax", .position = "damped"}, both));
  EXPECT_TRUE(refused({.position = "fft"}, space));
  EXPECT_TRUE(refused({.num_kv_heads = 3}, line));
  EXPECT_TRUE(refused({.feature_map = "constant"}, line));
  EXPECT_TRUE(refused({.feature_map = "hyp+", .num_features = 7}, line));
  EXPECT_TRUE(refused({.num_features = 0}, line));
  EXPECT_TRUE(refused({.coupling = "add"}, line));
  EXPECT_TRUE(refused({.factor = "cube"}, line));
  EXPECT_TRUE(refused({.spectrum = "wavelet"}, line));
  EXPECT_TRUE(refused({.num_frequencies = 0}, line));
  EXPECT_TRUE(refused({.max_bound = -1.0}, line));
  EXPECT_TRUE(refused({.position = "fft", .coupling = "concatenate"}, line));
  AttentionSite odd = line;
  odd.embed_dim = 18;
  EXPECT_TRUE(refused({}, odd));
  odd = space;
  odd.num_heads = 8;
  EXPECT_TRUE(refused({.position = "rope"}, odd));
}

}  // namespace
}  // namespace mnemosyne::nn
