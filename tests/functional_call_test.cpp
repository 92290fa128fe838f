#include "mnemosyne/nn/functional_call.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>

#include <string>
#include <thread>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/causal_lm.h"
#include "mnemosyne/nn/layer.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/nn/temporal_memory.h"
#include "mnemosyne/nn/vit.h"
#include "tests/testing.h"

namespace mnemosyne::nn {
namespace {

using mnemosyne::testing::close;
using mnemosyne::testing::identical;

/// A module, what it is called with, and how.
struct Case {
  std::string name;
  std::function<std::shared_ptr<torch::nn::Module>(uint64_t seed)> make;
  std::function<at::Tensor(torch::nn::Module&)> run;
};

template <typename Impl>
Impl& as(torch::nn::Module& module) {
  return dynamic_cast<Impl&>(module);
}

at::Tensor tokens() { return at::arange(2 * 6 * 8, at::kFloat).view({2, 6, 8}).sin(); }

LinearAttentionOptions attention_options(uint64_t seed, const char* position) {
  LinearAttentionOptions options{.embed_dim = 8, .num_heads = 2, .num_features = 4, .seed = seed};
  if (std::string(position) == "damped") {
    options.causal = true;
    options.position = DampedPositionOptions{.num_components = 2};
  } else if (std::string(position) == "flt") {
    options.position = FourierPositionOptions{.coupling = "multiplicative",
                                              .num_frequencies = 4,
                                              .num_components = 2,
                                              .extent = 8.0,
                                              .initial_amplitude = 1.0};
  }
  return options;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  all.push_back({"Dense", [](uint64_t seed) { return Dense(8, 3, true, seed).ptr(); },
                 [](torch::nn::Module& m) { return as<DenseImpl>(m).forward(tokens()); }});
  for (const char* position : {"none", "flt", "damped"}) {
    all.push_back(
        {std::string("LinearAttention ") + position,
         [=](uint64_t seed) -> std::shared_ptr<torch::nn::Module> {
           return LinearAttention(attention_options(seed, position)).ptr();
         },
         [](torch::nn::Module& m) { return as<LinearAttentionImpl>(m).forward(tokens()); }});
  }
  all.push_back({"CausalLM",
                 [](uint64_t seed) -> std::shared_ptr<torch::nn::Module> {
                   return CausalLM(
                              {.vocabulary = 5, .context = 8, .width = 8, .heads = 2, .seed = seed})
                       .ptr();
                 },
                 [](torch::nn::Module& m) {
                   return as<CausalLMImpl>(m).forward(at::arange(5).expand({2, 5}));
                 }});
  all.push_back({"ViT",
                 [](uint64_t seed) -> std::shared_ptr<torch::nn::Module> {
                   return ViT({.image_size = 4,
                               .patch_size = 2,
                               .width = 8,
                               .heads = 2,
                               .attention = {.position = "absolute"},
                               .seed = seed})
                       .ptr();
                 },
                 [](torch::nn::Module& m) {
                   return as<ViTImpl>(m).forward(at::linspace(0, 1, 32).view({2, 1, 4, 4}));
                 }});
  all.push_back(
      {"PointEncoder",
       [](uint64_t seed) -> std::shared_ptr<torch::nn::Module> {
         return PointEncoder({.num_types = 5, .width = 8, .heads = 2, .seed = seed}).ptr();
       },
       [](torch::nn::Module& m) {
         return as<PointEncoderImpl>(m).forward(at::arange(5).expand({2, 5}),
                                                at::linspace(-1, 1, 30).view({2, 5, 3}));
       }});
  all.push_back({"TemporalMemory",
                 [](uint64_t seed) -> std::shared_ptr<torch::nn::Module> {
                   return TemporalMemory({.width = 8, .seed = seed}).ptr();
                 },
                 [](torch::nn::Module& m) {
                   const auto& memory = as<TemporalMemoryImpl>(m);
                   const at::Tensor x = tokens().flatten(0, 1);
                   at::Tensor state = memory.init(x.size(0), x.options());
                   return memory.forward(memory.forward(x, state), state);
                 }});
  return all;
}

/// Parameters and buffers of another module of the same kind, as leaves of their own.
NamedTensors tensors_of(torch::nn::Module& module) {
  NamedTensors tensors;
  for (const auto& item : module.named_parameters()) {
    tensors.emplace_back(item.key(), item.value().detach().clone().requires_grad_());
  }
  for (const auto& item : module.named_buffers()) {
    tensors.emplace_back(item.key(), item.value().clone());
  }
  return tensors;
}

std::vector<at::Tensor> leaves(const NamedTensors& tensors) {
  std::vector<at::Tensor> result;
  for (const auto& [name, x] : tensors) {
    if (x.requires_grad()) result.push_back(x);
  }
  return result;
}

std::vector<at::Tensor> gradients(const at::Tensor& y, const std::vector<at::Tensor>& of,
                                  bool again = false) {
  return torch::autograd::grad({(y * y).sum()}, of, {}, again, again, /*allow_unused=*/true);
}

TEST(FunctionalCall, ComputesWithTheTensorsThatItIsGivenAndHasTheirGradients) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    EXPECT_TRUE(ModuleTensors(c.make(1)).are_fields());
    const auto other = c.make(2);
    const FunctionalModule module(c.make(1));
    const at::Tensor expected = c.run(*other);
    const NamedTensors tensors = tensors_of(*other);
    const at::Tensor y = module.call(tensors, c.run);
    EXPECT_TRUE(identical(y, expected));
    const auto wanted = gradients(expected, other->parameters());
    const auto found = gradients(y, leaves(tensors));
    ASSERT_EQ(found.size(), wanted.size());
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i].defined(), wanted[i].defined()) << tensors[i].first;
      if (!found[i].defined()) continue;
      EXPECT_TRUE(identical(found[i], wanted[i])) << tensors[i].first;
    }
    // What is not given is the module's own, and it is that again.
    EXPECT_TRUE(identical(module.call({}, c.run), c.run(*c.make(1))));
  }
}

TEST(FunctionalCall, TwoSetsAlternateWhileTheGraphsOfBothAreAlive) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const FunctionalModule module(c.make(1));
    const std::vector<NamedTensors> sets = {tensors_of(*c.make(2)), tensors_of(*c.make(3))};
    std::vector<at::Tensor> outputs;
    for (int round = 0; round < 2; ++round) {
      for (const NamedTensors& set : sets) outputs.push_back(module.call(set, c.run));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      const auto other = c.make(2 + i % 2);
      const auto wanted = gradients(c.run(*other), other->parameters());
      const auto found = gradients(outputs[i], leaves(sets[i % 2]));
      for (size_t j = 0; j < found.size(); ++j) {
        if (!found[j].defined()) continue;
        EXPECT_TRUE(identical(found[j], wanted[j]));
      }
    }
  }
}

TEST(FunctionalCall, IsDifferentiableTwiceAndThroughResults) {
  const FunctionalModule dense(Dense(3, 2, true, 1).ptr());
  const at::Tensor scale = at::scalar_tensor(2.0, at::kDouble).requires_grad_();
  const at::Tensor weight = at::linspace(-1, 1, 6, at::kDouble).view({2, 3});
  const at::Tensor x = at::ones({1, 3}, at::kDouble);
  const at::Tensor y =
      dense.call({{"weight", weight * scale}, {"bias", at::zeros({2}, at::kDouble)}},
                 [&](torch::nn::Module& m) { return as<DenseImpl>(m).forward(x).pow(3).sum(); });
  const at::Tensor first = torch::autograd::grad({y}, {scale}, {}, true, true)[0];
  const at::Tensor second = torch::autograd::grad({first}, {scale})[0];
  const at::Tensor sums = at::matmul(x, weight.t()).pow(3).sum();
  EXPECT_TRUE(close(first, 12.0 * sums));
  EXPECT_TRUE(close(second, 12.0 * sums));
}

TEST(FunctionalCall, CallsStandWithinCallsOfTheSameModule) {
  const FunctionalModule dense(Dense(2, 2, false, 1).ptr());
  const at::Tensor x = at::ones({1, 2});
  const auto run = [&](const at::Tensor& weight, const auto& then) {
    return dense.call({{"weight", weight}}, [&](torch::nn::Module& m) {
      const at::Tensor inner = then();
      return as<DenseImpl>(m).forward(x) + inner;
    });
  };
  const at::Tensor a = at::full({2, 2}, 1.0f), b = at::full({2, 2}, 10.0f);
  const at::Tensor y = run(a, [&] { return run(b, [] { return at::zeros({1, 2}); }); });
  EXPECT_TRUE(identical(y, at::full({1, 2}, 22.0f)));
}

TEST(FunctionalCall, CopiesNothing) {
  const FunctionalModule dense(Dense(2, 2, false, 1).ptr());
  const at::Tensor weight = at::eye(2);
  for (int depth = 0; depth < 2; ++depth) {  // the module itself, and its clone
    dense.call({{"weight", weight}}, [&](torch::nn::Module& m) {
      EXPECT_TRUE(as<DenseImpl>(m).weight.is_same(weight));
      dense.call({}, [&](torch::nn::Module& inner) {
        EXPECT_FALSE(as<DenseImpl>(inner).weight.is_same(weight));
        return 0;
      });
      return 0;
    });
  }
}

TEST(FunctionalCall, ManyThreadsShareAModule) {
  const Case c = cases()[2];
  const FunctionalModule module(c.make(1));
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      const auto other = c.make(10 + static_cast<uint64_t>(thread));
      const NamedTensors tensors = tensors_of(*other);
      const at::Tensor expected = c.run(*other);
      for (int i = 0; i < 20; ++i) {
        if (!at::equal(module.call(tensors, c.run), expected)) ++wrong[thread];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

/// A part of torch and one of the library.
struct MixedImpl : torch::nn::Module {
  MixedImpl() : torch::nn::Module("Mixed") {
    of_torch = register_module("of_torch", torch::nn::Linear(3, 4));
    own = register_module("own", Dense(4, 2, true, 1));
  }
  at::Tensor forward(const at::Tensor& x) { return own->forward(of_torch(x).tanh()); }
  std::shared_ptr<torch::nn::Module> clone(const std::optional<at::Device>&) const override {
    return std::make_shared<MixedImpl>();
  }
  torch::nn::Linear of_torch{nullptr};
  Dense own{nullptr};
};

TEST(FunctionalCall, TakesModulesOfTorchToo) {
  const FunctionalModule module(std::make_shared<MixedImpl>());
  const at::Tensor x = at::linspace(-1, 1, 6).view({2, 3});
  const auto run = [&](torch::nn::Module& m) { return as<MixedImpl>(m).forward(x); };
  std::vector<std::shared_ptr<MixedImpl>> others;
  std::vector<NamedTensors> sets;
  std::vector<at::Tensor> outputs;
  for (int i = 0; i < 3; ++i) {
    others.push_back(std::make_shared<MixedImpl>());
    sets.push_back(tensors_of(*others.back()));
    outputs.push_back(module.call(sets.back(), run));
  }
  for (size_t i = 0; i < others.size(); ++i) {
    const at::Tensor expected = others[i]->forward(x);
    EXPECT_TRUE(identical(outputs[i], expected));
    const auto wanted = gradients(expected, others[i]->parameters());
    const auto found = gradients(outputs[i], leaves(sets[i]));
    for (size_t j = 0; j < found.size(); ++j) EXPECT_TRUE(identical(found[j], wanted[j]));
  }
  const at::NoGradGuard no_grad;
  for (const NamedTensors& set : sets) {
    EXPECT_TRUE(identical(module.call(set, run), outputs[&set - sets.data()]));
  }
}

template <typename Error, typename Call>
std::string line_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    const std::string text = error.what();
    return text.substr(0, text.find('\n'));
  }
  return "nothing";
}

TEST(FunctionalCall, ErrorsAreOneLine) {
  const FunctionalModule dense(Dense(2, 3, true, 1).ptr());
  const auto run = [](torch::nn::Module& m) { return as<DenseImpl>(m).forward(at::ones({1, 2})); };
  EXPECT_EQ(line_of<InputError>([&] { dense.call({{"wight", at::eye(2)}}, run); }),
            "[functional_call] expected one of weight, bias of Dense, got \"wight\"");
  EXPECT_EQ(line_of<c10::Error>([&] { dense.call({{"weight", at::eye(2)}}, run); }),
            "[functional_call] expected weight of shape [3, 2], got [2, 2]");
  EXPECT_EQ(line_of<c10::Error>([&] { dense.call({{"weight", at::Tensor()}}, run); }),
            "[functional_call] expected weight of shape [3, 2], got none");
  EXPECT_EQ(line_of<c10::Error>([&] { dense.call({0, 1}, {at::ones({3, 2})}, run); }),
            "[functional_call] expected 2 tensors for Dense, got 1");
  // After an error, and after one in the call, the module has its own tensors again.
  const at::Tensor own = run(*Dense(2, 3, true, 1).ptr());
  EXPECT_THROW(dense.call({{"bias", at::ones({3})}},
                          [](torch::nn::Module&) -> int { throw std::runtime_error("no"); }),
               std::runtime_error);
  EXPECT_TRUE(identical(dense.call({}, run), own));
}

}  // namespace
}  // namespace mnemosyne::nn
