#include "mnemosyne/tasks/stacked/layers.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <vector>

#include "mnemosyne/tasks/stacked/gru.h"
#include "tests/testing.h"

namespace mnemosyne::tasks {
namespace {

using mnemosyne::testing::close;

// P = members, N = rows, B = batch, T = tokens, F = features, C = channels.

at::Tensor normal(std::vector<int64_t> sizes, at::ScalarType dtype = at::kDouble) {
  return at::randn(sizes, dtype);
}

/// Autograd's gradients of a weighted sum of f's outputs against central differences, in all
/// inputs.
void check_gradients(std::vector<at::Tensor> inputs,
                     const std::function<at::Tensor(const std::vector<at::Tensor>&)>& f) {
  for (at::Tensor& input : inputs) input.requires_grad_(true);
  const at::Tensor output = f(inputs);
  const at::Tensor weights = at::randn_like(output.detach());
  const std::vector<at::Tensor> grads = torch::autograd::grad({(output * weights).sum()}, inputs);
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor values = inputs[i].view(-1);
    at::Tensor numeric = at::empty_like(values);
    for (int64_t j = 0; j < values.numel(); ++j) {
      values[j].add_(kStep);
      const at::Tensor above = (f(inputs) * weights).sum();
      values[j].sub_(2 * kStep);
      numeric[j].copy_((above - (f(inputs) * weights).sum()) / (2 * kStep));
      values[j].add_(kStep);
    }
    EXPECT_TRUE(close(grads[i].reshape(-1), numeric, {.rtol = 1e-6, .atol = 1e-7}))
        << "input " << i;
  }
}

class Layers : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { at::manual_seed(1); }

  const int64_t members_ = GetParam();
};

INSTANTIATE_TEST_SUITE_P(Members, Layers, ::testing::Values(1, 3));

TEST_P(Layers, LinearHasTheRightGradients) {
  const at::Tensor weight = normal({members_, 4, 3}), bias = normal({members_, 4});
  const auto layer = [](const std::vector<at::Tensor>& x) {
    return stacked_linear(x[0], {x[1], x[2]});
  };
  check_gradients({normal({members_, 5, 3}), weight, bias}, layer);
  check_gradients({normal({5, 3}), weight, bias}, layer);
}

TEST_P(Layers, LinearIsTorchsForEveryMember) {
  const at::Tensor weight = normal({members_, 4, 3}), bias = normal({members_, 4});
  const at::Tensor shared = normal({5, 3}), own = normal({members_, 5, 3});
  for (int64_t p = 0; p < members_; ++p) {
    EXPECT_TRUE(
        close(stacked_linear(shared, {weight, bias})[p], at::linear(shared, weight[p], bias[p])));
    EXPECT_TRUE(
        close(stacked_linear(own, {weight, bias})[p], at::linear(own[p], weight[p], bias[p])));
  }
}

TEST_P(Layers, LayerNormHasTheRightGradients) {
  const at::Tensor x = normal({members_, 4, 5});
  const at::Tensor weight = normal({members_, 5}), bias = normal({members_, 5});
  check_gradients({x, weight, bias}, [](const std::vector<at::Tensor>& in) {
    return stacked_layer_norm(in[0], {in[1], in[2]});
  });
  for (int64_t p = 0; p < members_; ++p) {
    EXPECT_TRUE(close(stacked_layer_norm(x, {weight, bias})[p],
                      at::layer_norm(x[p], {5}, weight[p], bias[p])));
  }
}

TEST_P(Layers, BatchNormIsTorchsForEveryMember) {
  const at::Tensor weight = normal({members_, 3}), bias = normal({members_, 3});
  const at::Tensor rows = normal({members_, 6, 3}), images = normal({5, members_ * 3, 2, 4});
  check_gradients({rows, weight, bias}, [](const std::vector<at::Tensor>& in) {
    return stacked_batch_norm(in[0], {in[1], in[2]});
  });
  check_gradients({images, weight, bias}, [](const std::vector<at::Tensor>& in) {
    return stacked_batch_norm2d(in[0], {in[1], in[2]});
  });
  const at::Tensor of_rows = stacked_batch_norm(rows, {weight, bias});
  const at::Tensor of_images = stacked_batch_norm2d(images, {weight, bias});
  for (int64_t p = 0; p < members_; ++p) {
    const auto alone = [&](const at::Tensor& x) {
      return at::batch_norm(x, weight[p], bias[p], {}, {}, true, 0.0, 1e-5, false);
    };
    EXPECT_TRUE(close(of_rows[p], alone(rows[p])));
    EXPECT_TRUE(close(of_images.narrow(1, 3 * p, 3), alone(images.narrow(1, 3 * p, 3))));
  }
}

TEST_P(Layers, EmbeddingHasTheRightGradients) {
  const at::Tensor indices = at::tensor({3, 0, 3, 1}, at::kLong);
  const at::Tensor table = normal({members_, 4, 2});
  check_gradients({table}, [&](const std::vector<at::Tensor>& in) {
    return stacked_embedding(indices, in[0]);
  });
  EXPECT_TRUE(close(stacked_embedding(indices, table), table.index_select(1, indices)));
}

TEST_P(Layers, Conv2dHasTheRightGradients) {
  const at::Tensor weight = normal({members_, 3, 2, 3, 3}), bias = normal({members_, 3});
  for (const bool shared : {true, false}) {
    const at::Tensor x = normal({2, shared ? 2 : 2 * members_, 5, 4});
    const auto layer = [shared](const std::vector<at::Tensor>& in) {
      return stacked_conv2d(in[0], shared, {in[1], in[2]}, 2, 1);
    };
    check_gradients({x, weight, bias}, layer);
    const at::Tensor y = stacked_flatten(layer({x, weight, bias}), members_);
    for (int64_t p = 0; p < members_; ++p) {
      const at::Tensor own = shared ? x : x.narrow(1, 2 * p, 2);
      EXPECT_TRUE(close(y[p], at::conv2d(own, weight[p], bias[p], 2, 1).flatten(1)));
    }
  }
}

TEST_P(Layers, AttentionHasTheRightGradients) {
  for (const bool causal : {false, true}) {
    check_gradients({normal({members_, 2 * 3, 3 * 4})}, [&](const std::vector<at::Tensor>& in) {
      return stacked_attention(in[0], /*tokens=*/3, /*heads=*/2, causal);
    });
  }
}

TEST_P(Layers, AttentionIsTorchs) {
  constexpr int64_t kBatch = 3, kTokens = 5, kHeads = 2, kDepth = 4;
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const at::Tensor qkv = normal({members_, kBatch * kTokens, 3 * kHeads * kDepth}, dtype);
    const auto parts = qkv.view({members_ * kBatch, kTokens, 3, kHeads, kDepth})
                           .permute({2, 0, 3, 1, 4})
                           .unbind(0);
    for (const bool causal : {false, true}) {
      const at::Tensor expected =
          at::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, 0.0, causal)
              .transpose(1, 2)
              .reshape({members_, kBatch * kTokens, kHeads * kDepth});
      EXPECT_TRUE(close(stacked_attention(qkv, kTokens, kHeads, causal), expected));
    }
  }
}

TEST_P(Layers, CausalAttentionDoesNotSeeTheFuture) {
  constexpr int64_t kTokens = 6;
  at::Tensor qkv = normal({members_, kTokens, 12});
  const at::Tensor before = stacked_attention(qkv, kTokens, 2, true);
  qkv = qkv.clone();
  qkv.select(1, 4).add_(1.0);
  const at::Tensor after = stacked_attention(qkv, kTokens, 2, true);
  EXPECT_TRUE(at::equal(after.narrow(1, 0, 4), before.narrow(1, 0, 4)));
  EXPECT_FALSE(at::equal(after.narrow(1, 4, 2), before.narrow(1, 4, 2)));
}

TEST_P(Layers, GruHasTheRightGradients) {
  constexpr int64_t kSteps = 4, kBatch = 2, kHidden = 3;
  check_gradients(
      {normal({members_, kSteps, kBatch, 3 * kHidden}), normal({members_, 3 * kHidden, kHidden}),
       normal({members_, 3 * kHidden})},
      [](const std::vector<at::Tensor>& in) { return stacked_gru(in[0], {in[1], in[2]}); });
}

TEST_P(Layers, GruIsItsReference) {
  constexpr int64_t kSteps = 5, kBatch = 3, kHidden = 4;
  std::vector<at::Tensor> in{normal({members_, kSteps, kBatch, 3 * kHidden}),
                             normal({members_, 3 * kHidden, kHidden}),
                             normal({members_, 3 * kHidden})};
  for (at::Tensor& tensor : in) tensor.requires_grad_(true);
  const at::Tensor fused = stacked_gru(in[0], {in[1], in[2]});
  const at::Tensor plain = stacked_gru_reference(in[0], {in[1], in[2]});
  EXPECT_TRUE(close(fused, plain));
  const at::Tensor cotangent = normal(plain.sizes().vec());
  const auto expected = torch::autograd::grad({plain}, in, {cotangent});
  const auto got = torch::autograd::grad({fused}, in, {cotangent});
  for (size_t i = 0; i < in.size(); ++i) EXPECT_TRUE(close(got[i], expected[i])) << i;
}

TEST_P(Layers, GruIsTorchs) {
  constexpr int64_t kSteps = 5, kBatch = 2, kIn = 4, kHidden = 3;
  const at::Tensor x = normal({kSteps, kBatch, kIn});
  const Affine input{normal({members_, 3 * kHidden, kIn}), normal({members_, 3 * kHidden})};
  const Affine recurrent{normal({members_, 3 * kHidden, kHidden}), normal({members_, 3 * kHidden})};
  const at::Tensor gates = stacked_linear(x.view({kSteps * kBatch, kIn}), input);
  const at::Tensor y = stacked_gru(gates.unflatten(1, {kSteps, kBatch}), recurrent);
  for (int64_t p = 0; p < members_; ++p) {
    const auto expected =
        at::gru(x, at::zeros({1, kBatch, kHidden}, at::kDouble),
                {input.weight[p], recurrent.weight[p], input.bias[p], recurrent.bias[p]},
                /*has_biases=*/true, /*num_layers=*/1, 0.0, /*train=*/false,
                /*bidirectional=*/false, /*batch_first=*/false);
    EXPECT_TRUE(close(y[p], std::get<0>(expected)));
  }
}

TEST_P(Layers, LossesHaveTheRightGradients) {
  const at::Tensor labels = at::tensor({2, 0, 1, 1}, at::kLong);
  const at::Tensor logits = normal({members_, 4, 3}), targets = normal({4, 3});
  check_gradients({logits}, [&](const std::vector<at::Tensor>& in) {
    return stacked_cross_entropy(in[0], labels);
  });
  check_gradients({logits}, [&](const std::vector<at::Tensor>& in) {
    return stacked_squared_error(in[0], targets);
  });
  for (int64_t p = 0; p < members_; ++p) {
    EXPECT_TRUE(
        close(stacked_cross_entropy(logits, labels)[p], at::cross_entropy_loss(logits[p], labels)));
    EXPECT_TRUE(close(stacked_squared_error(logits, targets)[p], at::mse_loss(logits[p], targets)));
  }
}

TEST_P(Layers, AccuracyCountsRightRows) {
  const at::Tensor logits =
      at::tensor({1.0, 2.0, 3.0, 1.0}).view({1, 2, 2}).repeat({members_, 1, 1});
  const at::Tensor accuracy = stacked_accuracy(logits, at::tensor({1, 1}, at::kLong));
  EXPECT_TRUE(close(accuracy, at::full({members_}, 0.5)));
}

TEST(ImagePatches, AreSquaresInRowOrder) {
  const at::Tensor image = at::arange(2 * 4 * 6).view({1, 2, 4, 6});
  const at::Tensor patches = image_patches(image, 2);
  EXPECT_EQ(patches.sizes(), at::IntArrayRef({6, 8}));
  // The second square of the first row: columns 2 and 3 of rows 0 and 1, in both channels.
  EXPECT_TRUE(at::equal(patches[1], at::tensor({2, 3, 8, 9, 26, 27, 32, 33}, at::kLong)));
}

TEST_P(Layers, ActivationsAreDifferentiable) {
  for (const auto kind : {Activation::kTanh, Activation::kGelu, Activation::kSigmoid}) {
    check_gradients({normal({members_, 4})},
                    [&](const std::vector<at::Tensor>& in) { return activate(in[0], kind); });
  }
  EXPECT_TRUE(close(activate(at::tensor({-1.0, 2.0}), Activation::kRelu), at::tensor({0.0, 2.0})));
}

}  // namespace
}  // namespace mnemosyne::tasks
