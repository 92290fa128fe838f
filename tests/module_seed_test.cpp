#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/utils.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/causal_lm.h"
#include "mnemosyne/nn/feature_map.h"
#include "mnemosyne/nn/performer_block.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/nn/softmax_attention.h"
#include "mnemosyne/nn/vit.h"
#include "tests/testing.h"

namespace mnemosyne::nn {
namespace {

using ModulePtr = std::shared_ptr<torch::nn::Module>;
using Seed = std::optional<uint64_t>;

const std::map<std::string, std::function<ModulePtr(Seed)>>& makers() {
  static const std::map<std::string, std::function<ModulePtr(Seed)>> all = {
      {"mixture", [](Seed s) { return FourierPosition({.phase = true, .seed = s}).ptr(); }},
      {"window",
       [](Seed s) {
         return FourierPosition({.kind = "local", .window = "tent", .seed = s}).ptr();
       }},
      {"neural", [](Seed s) { return FourierPosition({.kind = "neural", .seed = s}).ptr(); }},
      {"released",
       [](Seed s) {
         return FourierPosition({.initial_amplitude = 1.0, .released_code = true, .seed = s}).ptr();
       }},
      {"damped", [](Seed s) { return DampedPosition({.seed = s}).ptr(); }},
      {"linear",
       [](Seed s) {
         return LinearAttention({.position = FourierPositionOptions{}, .seed = s}).ptr();
       }},
      {"softmax", [](Seed s) { return SoftmaxAttention({.seed = s}).ptr(); }},
      {"block", [](Seed s) { return PerformerBlock({.site = {.seed = s}}).ptr(); }},
      {"language", [](Seed s) { return CausalLM({.seed = s}).ptr(); }},
      {"image", [](Seed s) { return ViT({.seed = s}).ptr(); }},
      {"points", [](Seed s) { return PointEncoder({.seed = s}).ptr(); }}};
  return all;
}

bool same(const torch::nn::Module& a, const torch::nn::Module& b) {
  bool equal = true;
  for (const auto& item : a.named_parameters()) {
    equal = equal && testing::identical(item.value(), b.named_parameters()[item.key()]);
  }
  for (const auto& item : a.named_buffers()) {
    equal = equal && testing::identical(item.value(), b.named_buffers()[item.key()]);
  }
  return equal;
}

TEST(ModuleSeed, WithoutOneTheGeneratorOfTorchDecides) {
  for (const auto& [name, make] : makers()) {
    torch::manual_seed(5);
    const ModulePtr first = make({}), second = make({});
    torch::manual_seed(5);
    const ModulePtr again = make({});
    EXPECT_TRUE(same(*first, *again)) << name;
    EXPECT_FALSE(same(*first, *second)) << name;
  }
}

// A copy is made from the same options, the drawn seed among them.
TEST(ModuleSeed, CopiesAndGivenSeedsDrawNothingFromTheGeneratorOfTorch) {
  for (const auto& [name, make] : makers()) {
    const ModulePtr drawn = make({});
    torch::manual_seed(5);
    const at::Tensor expected = at::rand({3});
    torch::manual_seed(5);
    const ModulePtr one = make(7), two = make(7), copy = drawn->clone();
    EXPECT_TRUE(at::equal(at::rand({3}), expected)) << name;
    EXPECT_TRUE(same(*one, *two) && same(*copy, *drawn)) << name;
    EXPECT_FALSE(same(*one, *make(8))) << name;
  }
}

TEST(ModuleSeed, OptionsTellTheSeedThatWasDrawn) {
  torch::manual_seed(6);
  const ViT drawn({.width = 16, .heads = 2});
  ASSERT_TRUE(drawn->options().seed.has_value());
  EXPECT_TRUE(same(*drawn, *ViT({.width = 16, .heads = 2, .seed = drawn->options().seed})));
  EXPECT_FALSE(same(*drawn->blocks[0], *drawn->blocks[1]));
}

// What is made in C++ is float32 whatever the default is.
TEST(ModuleSeed, TheDefaultDtypeChangesNothing) {
  const auto before = at::typeMetaToScalarType(at::get_default_dtype());
  for (const auto& [name, make] : makers()) {
    const ModulePtr expected = make(7);
    for (const at::ScalarType type : {at::kDouble, at::kBFloat16}) {
      at::set_default_dtype(at::scalarTypeToTypeMeta(type));
      const ModulePtr module = make(7);
      at::set_default_dtype(at::scalarTypeToTypeMeta(before));
      EXPECT_TRUE(same(*module, *expected)) << name;
      for (const at::Tensor& parameter : module->parameters()) {
        EXPECT_EQ(parameter.scalar_type(), at::kFloat) << name;
      }
    }
  }
}

TEST(ModuleSeed, VectorsOfNoDimensionsAreRefused) {
  EXPECT_THROW(draw_omega(8, 0, 1), InputError);
  EXPECT_THROW(draw_omega(0, 8, 1), InputError);
}

}  // namespace
}  // namespace mnemosyne::nn
