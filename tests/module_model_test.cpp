#include "mnemosyne/tasks/stacked/module_model.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>

#include <future>
#include <string>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/tasks/data/digits.h"
#include "mnemosyne/tasks/image_tasks.h"
#include "mnemosyne/tasks/task.h"
#include "tests/testing.h"

namespace mnemosyne::tasks {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::identical;

/// Two layers, a random buffer, a parameter without dimensions, one that nothing uses, and dropout.
struct SmallNetImpl : torch::nn::Module {
  SmallNetImpl() {
    first = register_module("first", torch::nn::Linear(5, 7));
    second = register_module("second", torch::nn::Linear(7, 3));
    dropout = register_module("dropout", torch::nn::Dropout(0.5));
    scale = register_parameter("scale", at::tensor(1.5f));
    unused = register_parameter("unused", at::ones({2, 2}));
    draw = register_buffer("draw", at::randn({7}));
  }
  at::Tensor forward(const at::Tensor& x) {
    return second(dropout(at::tanh(first(x)) * draw)) * scale;
  }
  torch::nn::Linear first{nullptr}, second{nullptr};
  torch::nn::Dropout dropout{nullptr};
  at::Tensor scale, unused, draw;
};
TORCH_MODULE(SmallNet);

Network make_small(uint64_t) {
  SmallNet net;
  return {net.ptr(), [net](const at::Tensor& x) mutable { return net(x); }};
}

/// The same by plain autograd, on parameters [P, ...] in the order of the module's.
at::Tensor by_hand(const std::vector<at::Tensor>& p, int64_t member, const at::Tensor& x,
                   const at::Tensor& draw) {
  const auto of = [&](size_t i) { return p[i].select(0, member); };
  const at::Tensor hidden = at::tanh(at::linear(x, of(2), of(3))) * draw;
  return at::linear(hidden, of(4), of(5)) * of(0);
}

at::Tensor squares(const at::Tensor& outputs) { return outputs.square().mean({1, 2}); }

at::Tensor draw_of_model() {
  // What the factory draws for seed 0, found from the outside: second = identity-like read-out.
  const auto model = make_module_model(make_small);
  std::vector<at::Tensor> params = stack_members(model->init(1), 1);
  at::Tensor draw = at::empty({7});
  params[0].fill_(1.0);
  params[2].zero_();
  params[3].fill_(std::atanh(0.5));
  params[5].zero_();
  for (int64_t i = 0; i < 7; ++i) {
    params[4].zero_();
    params[4].select(2, i).fill_(2.0);
    draw[i] = model->forward(params, at::zeros({1, 5}))[0][0][0];
  }
  return draw;
}

std::vector<at::Tensor> three_members(const Model& model) {
  std::vector<std::vector<at::Tensor>> each;
  for (uint64_t seed = 0; seed < 3; ++seed) each.push_back(model.init(seed));
  std::vector<at::Tensor> stacked;
  for (size_t i = 0; i < each[0].size(); ++i) {
    stacked.push_back(at::stack({each[0][i], each[1][i], each[2][i]}).requires_grad_());
  }
  return stacked;
}

TEST(ModuleModel, HasThePlainGradientsOfEveryMember) {
  const auto model = make_module_model(make_small);
  EXPECT_EQ(model->param_names(),
            (std::vector<std::string>{"scale", "unused", "first.weight", "first.bias",
                                      "second.weight", "second.bias"}));
  EXPECT_EQ(model->num_params(), 1 + 4 + 42 + 24);
  const at::Tensor draw = draw_of_model(), x = at::randn({4, 5});
  std::vector<at::Tensor> params = three_members(*model);
  EXPECT_EQ(params[0].sizes(), at::IntArrayRef({3, 1}));
  const at::Tensor weights = at::tensor({1.0f, 0.0f, -2.0f});
  const at::Tensor losses = model->loss(params, x, squares);
  const auto grads = torch::autograd::grad({(losses * weights).sum()}, params);

  std::vector<at::Tensor> outputs;
  for (int64_t p = 0; p < 3; ++p) outputs.push_back(by_hand(params, p, x, draw));
  const at::Tensor expected = squares(at::stack(outputs));
  EXPECT_TRUE(close(losses, expected));
  EXPECT_TRUE(close(model->forward(params, x), at::stack(outputs)));
  const auto expected_grads = torch::autograd::grad({(expected * weights).sum()}, params, {},
                                                    std::nullopt, false, /*allow_unused=*/true);
  for (size_t i = 0; i < params.size(); ++i) {
    const at::Tensor wanted =
        expected_grads[i].defined() ? expected_grads[i] : at::zeros_like(params[i]);
    EXPECT_TRUE(close(grads[i], wanted)) << model->param_names()[i];
    // The member of weight zero.
    EXPECT_EQ(grads[i][1].abs().max().item<float>(), 0.0f);
  }
}

TEST(ModuleModel, MembersDoNotInfluenceEachOther) {
  const auto model = make_module_model(make_small);
  const at::Tensor x = at::randn({4, 5});
  std::vector<at::Tensor> params = three_members(*model);
  const auto grads_of = [&] {
    return torch::autograd::grad({model->loss(params, x, squares).sum()}, params);
  };
  const auto before = grads_of();
  {
    const at::NoGradGuard no_grad;
    for (at::Tensor& param : params) param.select(0, 1).fill_(std::nanf(""));
  }
  const auto after = grads_of();
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_TRUE(identical(after[i][0], before[i][0]));
    EXPECT_TRUE(identical(after[i][2], before[i][2]));
  }
}

TEST(ModuleModel, StartsFromItsSeedAndLeavesTorchsGeneratorAlone) {
  const auto model = make_module_model(make_small);
  at::manual_seed(11);
  const at::Tensor expected = at::randn({4});
  at::manual_seed(11);
  const auto first = model->init(3), again = model->init(3), other = model->init(4);
  EXPECT_TRUE(identical(at::randn({4}), expected));
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(identical(first[i], again[i]));
  EXPECT_FALSE(at::equal(first[2], other[2]));
  // Another model of the same factory: the same buffers, so the same outputs.
  const std::vector<at::Tensor> params = stack_members(first, 1);
  const at::Tensor x = at::randn({2, 5});
  EXPECT_TRUE(
      identical(model->forward(params, x), make_module_model(make_small)->forward(params, x)));
}

TEST(ModuleModel, IsSafeToShareBetweenThreads) {
  const auto model = make_module_model(make_small);
  const at::Tensor x = at::randn({4, 5});
  const auto run = [&] {
    std::vector<at::Tensor> params = three_members(*model);
    for (int step = 0; step < 50; ++step) {
      const auto grads = torch::autograd::grad({model->loss(params, x, squares).sum()}, params);
      const at::NoGradGuard no_grad;
      for (size_t i = 0; i < params.size(); ++i) params[i].sub_(grads[i], 0.1);
    }
    return params;
  };
  const auto expected = run();
  std::vector<std::future<std::vector<at::Tensor>>> others;
  for (int i = 0; i < 3; ++i) others.push_back(std::async(std::launch::async, run));
  for (auto& other : others) {
    const auto params = other.get();
    for (size_t i = 0; i < params.size(); ++i) EXPECT_TRUE(identical(params[i], expected[i]));
  }
}

TEST(ModuleModel, WithoutGradientsKeepsNoGraph) {
  const auto model = make_module_model(make_small);
  std::vector<at::Tensor> params = three_members(*model);
  const at::Tensor x = at::randn({4, 5});
  EXPECT_FALSE(model->forward(params, x).requires_grad());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(model->loss(params, x, squares).requires_grad());
}

TEST(ModuleModel, GivesTheBuffersThatItsNetworksHave) {
  const NamedTensors buffers = make_module_model(make_small)->buffers();
  ASSERT_EQ(buffers.size(), 1u);
  EXPECT_TRUE(close(find(buffers, "draw"), draw_of_model(), {1e-5, 1e-6}));
}

TEST(ModuleModel, RefusesWhatItCannotTrain) {
  const auto refused = [](NetworkFactory factory) {
    EXPECT_THROW(make_module_model(std::move(factory)), InputError);
  };
  refused([](uint64_t) { return Network{}; });
  refused([](uint64_t) {
    return Network{torch::nn::Dropout().ptr(), [](const at::Tensor& x) { return x; }};
  });
  refused([](uint64_t seed) {
    Network network = make_small(seed);
    network.module->to(at::kDouble);
    return network;
  });
}

}  // namespace
}  // namespace mnemosyne::tasks
