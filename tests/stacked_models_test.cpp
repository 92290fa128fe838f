#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/tasks/stacked/mlp.h"
#include "mnemosyne/tasks/stacked/resnet.h"
#include "mnemosyne/tasks/stacked/transformer_lm.h"
#include "mnemosyne/tasks/task.h"
#include "tests/testing.h"

namespace mnemosyne::tasks {
namespace {

using mnemosyne::testing::close;

/// One network's parameters by name, each with a first axis of one member.
class Network {
 public:
  explicit Network(std::shared_ptr<const Model> model)
      : model_(std::move(model)), params_(stack_members(model_->init(3), 1)) {}

  at::Tensor& operator[](const std::string& name) {
    const std::vector<std::string> names = model_->param_names();
    const auto place = std::find(names.begin(), names.end(), name);
    if (place == names.end()) throw InputError("no parameter " + name);
    return params_[place - names.begin()];
  }

  at::Tensor operator()(const at::Tensor& inputs) const {
    return model_->forward(params_, inputs).select(0, 0);
  }

  std::vector<at::Tensor>& params() { return params_; }
  const Model& model() const { return *model_; }

 private:
  std::shared_ptr<const Model> model_;
  std::vector<at::Tensor> params_;
};

int64_t parameter_count(const Network& network) { return network.model().num_params(); }

TEST(Mlp, ResidualLayersThatGiveNothingAreNotThere) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({5, 6});
  Network deep(make_mlp({.sizes = {6, 8, 8, 3}, .residual = true}));
  Network flat(make_mlp({.sizes = {6, 8, 3}, .residual = true}));
  flat["layers.0.weight"] = deep["layers.0.weight"];
  flat["layers.0.bias"] = deep["layers.0.bias"];
  flat["layers.1.weight"] = deep["layers.2.weight"];
  flat["layers.1.bias"] = deep["layers.2.bias"];
  EXPECT_FALSE(close(deep(x), flat(x), {.rtol = 1e-2}));
  deep["layers.1.weight"].zero_();
  deep["layers.1.bias"].zero_();
  EXPECT_TRUE(close(deep(x), flat(x)));
}

TEST(Mlp, NormsTakeTheScaleOfTheLayerBeforeThem) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({7, 4});
  for (const Norm norm : {Norm::kLayer, Norm::kBatch}) {
    Network network(make_mlp({.sizes = {4, 6, 2}, .norm = norm}));
    const at::Tensor before = network(x);
    network["layers.0.weight"].mul_(50);
    network["layers.0.bias"].mul_(50);
    EXPECT_TRUE(close(network(x), before, {.rtol = 1e-2, .atol = 1e-3}));
    network["norms.0.weight"].mul_(2);
    EXPECT_FALSE(close(network(x), before, {.rtol = 1e-1}));
  }
  EXPECT_EQ(parameter_count(Network(make_mlp({.sizes = {4, 6, 2}, .norm = Norm::kBatch}))),
            4 * 6 + 6 + 6 + 6 + 6 * 2 + 2);
}

TEST(ResNet, HasTorchvisionsNamesAndSizes) {
  const ResNetOptions options{.channels = 3, .widths = {4, 8}, .blocks = 2, .num_classes = 5};
  const Network network(make_resnet(options));
  const std::vector<std::string> names = network.model().param_names();
  for (const char* name :
       {"conv1.weight", "bn1.bias", "layer1.0.conv2.weight", "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.weight", "layer2.1.bn2.weight", "fc.bias"}) {
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
  }
  for (const char* name : {"conv1.bias", "layer1.0.downsample.0.weight", "layer2.1.downsample.0"}) {
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 0) << name;
  }
  const int64_t stage1 = 4 * (4 * 4 * 9 + 8), widening = 4 * 8 * 9 + 16 + 4 * 8 + 16;
  EXPECT_EQ(parameter_count(network),
            3 * 4 * 9 + 8 + stage1 + widening + 3 * (8 * 8 * 9 + 16) + 8 * 5 + 5);
  EXPECT_EQ(network(at::randn({2, 3, 9, 6})).sizes(), at::IntArrayRef({2, 5}));
  EXPECT_THROW(make_resnet({.widths = {}}), InputError);
  EXPECT_THROW(make_resnet({.blocks = 0}), InputError);
}

TEST(ResNet, BlocksThatGiveNothingAreNotThere) {
  at::manual_seed(4);
  const at::Tensor x = at::randn({4, 3, 6, 6});
  Network two(make_resnet({.widths = {4}, .blocks = 2})),
      one(make_resnet({.widths = {4}, .blocks = 1}));
  for (const std::string& name : one.model().param_names()) one[name] = two[name];
  EXPECT_FALSE(close(two(x), one(x), {.rtol = 1e-2}));
  two["layer1.1.bn2.weight"].zero_();
  EXPECT_TRUE(close(two(x), one(x)));
}

TEST(TransformerLm, TiedHeadIsTheEmbedding) {
  const TransformerLmOptions options{.vocabulary = 9, .context = 4};
  TransformerLmOptions tied = options;
  tied.tied = true;
  Network own(make_transformer_lm(options)), shared(make_transformer_lm(tied));
  EXPECT_EQ(parameter_count(own), parameter_count(shared) + 9 * 32 + 9);
  for (const std::string& name : shared.model().param_names()) own[name] = shared[name];
  own["head.weight"] = shared["token_embedding.weight"];
  own["head.bias"].zero_();
  const at::Tensor tokens = at::tensor({1, 2, 3, 4}, at::kLong).view({1, 4});
  EXPECT_TRUE(close(own(tokens), shared(tokens)));
  // Tokens that the text does not have learn that they are not the next one.
  at::Tensor& table = shared["token_embedding.weight"];
  table.requires_grad_(true);
  const at::Tensor loss =
      stacked_cross_entropy(shared(tokens).unsqueeze(0), at::tensor({2, 3, 4, 1}, at::kLong));
  const at::Tensor grad = torch::autograd::grad({loss.sum()}, {table})[0];
  EXPECT_GT(grad[0][8].abs().max().item<double>(), 0.0);
}

}  // namespace
}  // namespace mnemosyne::tasks
