#include "mnemosyne/nn/attention_options.h"

#include <gtest/gtest.h>

#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/core/fields.h"

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

}  // namespace
}  // namespace mnemosyne::nn
