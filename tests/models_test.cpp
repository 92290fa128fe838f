#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/causal_lm.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/nn/vit.h"
#include "position_testing.h"
#include "testing.h"

namespace mnemosyne::nn {
namespace {

using testing::close;
using testing::randomise;

struct Form {
  const char* kind;
  const char* position;
};

AttentionOptions options_of(const Form& form, const char* factor = "exp") {
  AttentionOptions options{
      .kind = form.kind, .position = form.position, .linear = {.num_features = 8}};
  options.fourier.factor = factor;
  options.fourier.num_frequencies = 4;
  return options;
}

const std::vector<Form>& causal_forms() {
  static const std::vector<Form> forms = {
      {"linear", "none"},   {"linear", "absolute"}, {"linear", "rope"},      {"linear", "fft"},
      {"linear", "flt"},    {"linear", "damped"},   {"softmax", "none"},     {"softmax", "rope"},
      {"softmax", "alibi"}, {"softmax", "t5"},      {"softmax", "absolute"}, {"softmax", "flt"},
      {"softmax", "damped"}};
  return forms;
}

CausalLM make_lm(const Form& form) {
  CausalLM model({.vocabulary = 11,
                  .context = 16,
                  .width = 16,
                  .heads = 2,
                  .attention = options_of(form),
                  .seed = 2});
  model->to(at::kDouble);
  randomise(*model, 3, 0.05);
  return model;
}

at::Tensor text(int64_t length, uint64_t seed = 1) {
  at::manual_seed(seed);
  return at::randint(11, {2, length}, at::kLong);
}

int64_t size_of(const torch::nn::Module& model) {
  int64_t size = 0;
  for (const at::Tensor& parameter : model.parameters()) size += parameter.numel();
  return size;
}

/// Every parameter has a finite gradient that is not zero everywhere.
void expect_gradients(const torch::nn::Module& model, const at::Tensor& output) {
  (output.square().sum() + output.select(-1, 0).sum()).backward();
  for (const auto& item : model.named_parameters()) {
    const at::Tensor& grad = item.value().grad();
    ASSERT_TRUE(grad.defined()) << item.key();
    EXPECT_TRUE(grad.isfinite().all().item<bool>()) << item.key();
    EXPECT_GT(grad.abs().max().item<double>(), 0.0) << item.key();
  }
}

TEST(CausalLM, LaterTokensChangeNothingBefore) {
  for (const Form& form : causal_forms()) {
    SCOPED_TRACE(std::string(form.kind) + " " + form.position);
    const CausalLM model = make_lm(form);
    const at::Tensor tokens = text(12), other = tokens.clone();
    other.narrow(1, 7, 5).copy_((tokens.narrow(1, 7, 5) + 1) % 11);
    const at::Tensor a = model->forward(tokens), b = model->forward(other);
    EXPECT_EQ(a.sizes(), at::IntArrayRef({2, 12, 11}));
    EXPECT_TRUE(close(a.narrow(1, 0, 7), b.narrow(1, 0, 7), {1e-9, 1e-9}));
    EXPECT_FALSE(close(a.narrow(1, 7, 5), b.narrow(1, 7, 5), {1e-3, 1e-3}));
    expect_gradients(*model, a);
  }
}

TEST(CausalLM, TokenByTokenIsTheForwardPass) {
  for (const Form& form : causal_forms()) {
    const CausalLM model = make_lm(form);
    const at::Tensor tokens = text(12);
    CausalLMImpl::Memory memory;
    if (form.kind == std::string("softmax") || form.position == std::string("fft")) {
      EXPECT_THROW(model->forward_segment(tokens, memory), InputError);
      continue;
    }
    std::vector<at::Tensor> logits = {model->forward_segment(tokens.narrow(1, 0, 5), memory)};
    for (int64_t t = 5; t < 12; ++t) {
      logits.push_back(model->forward_segment(tokens.narrow(1, t, 1), memory));
    }
    EXPECT_TRUE(close(at::cat(logits, 1), model->forward(tokens), {1e-8, 1e-9})) << form.position;
  }
}

TEST(CausalLM, FormsHaveTheSameSizeUpToTheirPositions) {
  const int64_t plain = size_of(*make_lm({"linear", "none"}));
  EXPECT_EQ(size_of(*make_lm({"softmax", "none"})), plain);
  EXPECT_EQ(size_of(*make_lm({"linear", "rope"})), plain);
  EXPECT_EQ(size_of(*make_lm({"linear", "flt"})), size_of(*make_lm({"softmax", "flt"})));
  // Two layers, two heads, 4 terms: amplitude, width and centre.
  EXPECT_EQ(size_of(*make_lm({"linear", "flt"})), plain + 2 * 2 * 4 * 3);
  EXPECT_EQ(size_of(*make_lm({"linear", "absolute"})), plain + 16 * 16);
}

TEST(CausalLM, CopiesAreIndependentAndSeedsDecide) {
  const CausalLM model = make_lm({"linear", "flt"});
  const at::Tensor tokens = text(12), before = model->forward(tokens);
  const auto copy = std::dynamic_pointer_cast<CausalLMImpl>(model->clone());
  EXPECT_TRUE(close(copy->forward(tokens), before, {0, 0}));
  randomise(*copy, 8, 1.0);
  EXPECT_TRUE(close(model->forward(tokens), before, {0, 0}));
  const CausalLMOptions options{
      .vocabulary = 11, .context = 16, .width = 16, .heads = 2, .seed = 3};
  const CausalLM one(options);
  at::manual_seed(99);
  const CausalLM two(options);
  EXPECT_TRUE(testing::identical(one->forward(tokens), two->forward(tokens)));
}

TEST(CausalLM, RefusesBadOptionsAndTokens) {
  EXPECT_THROW(CausalLM({.vocabulary = 0}), InputError);
  EXPECT_THROW(CausalLM({.width = 10, .heads = 4}), InputError);
  EXPECT_THROW(CausalLM({.layers = 0}), InputError);
  EXPECT_THROW(CausalLM({.hidden = -1}), InputError);
  EXPECT_THROW(CausalLM({.attention = {.position = "alibi"}}), InputError);
  EXPECT_THROW(make_lm({"linear", "flt"})->forward(text(17)), c10::Error);
}

TEST(ViT, TakesEveryPosition) {
  at::manual_seed(3);
  const at::Tensor images = at::rand({3, 2, 8, 8}, at::kDouble);
  for (const Form& form :
       {Form{"linear", "none"}, Form{"linear", "absolute"}, Form{"linear", "rope"},
        Form{"linear", "fft"}, Form{"linear", "flt"}, Form{"softmax", "none"},
        Form{"softmax", "absolute"}, Form{"softmax", "rope"}, Form{"softmax", "alibi"},
        Form{"softmax", "t5"}, Form{"softmax", "flt"}}) {
    SCOPED_TRACE(std::string(form.kind) + " " + form.position);
    ViT model(
        {.channels = 2, .num_classes = 5, .width = 16, .heads = 2, .attention = options_of(form)});
    model->to(at::kDouble);
    // The table of t5 is zero at the start.
    randomise(*model, 7, 0.05);
    const at::Tensor y = model->forward(images);
    EXPECT_EQ(y.sizes(), at::IntArrayRef({3, 5}));
    // Patches in another order: only a model without positions cannot tell.
    const at::Tensor swapped =
        at::cat({images.narrow(3, 2, 2), images.narrow(3, 0, 2), images.narrow(3, 4, 4)}, 3);
    EXPECT_EQ(bool(close(model->forward(swapped), y, {1e-8, 1e-9})),
              form.position == std::string("none"));
    expect_gradients(*model, y);
    EXPECT_TRUE(
        close(std::dynamic_pointer_cast<ViTImpl>(model->clone())->forward(images), y, {0, 0}));
  }
  EXPECT_THROW(ViT({.image_size = 9}), InputError);
  EXPECT_THROW(ViT({.attention = {.position = "damped"}}), InputError);
}

struct Molecule {
  at::Tensor types, positions, padding;
};

Molecule molecule() {
  at::manual_seed(5);
  Molecule m{at::randint(4, {2, 7}, at::kLong), at::randn({2, 7, 3}, at::kDouble) * 1.5,
             at::ones({2, 7}, at::kBool)};
  m.padding[1].narrow(0, 5, 2).fill_(false);
  return m;
}

PointEncoder make_points(const Form& form, const char* factor, bool rotation_invariant,
                         int64_t frequencies = 4) {
  AttentionOptions attention = options_of(form, factor);
  attention.fourier.num_frequencies = frequencies;
  attention.num_components = 4;
  PointEncoder model({.num_types = 4,
                      .outputs = 2,
                      .width = 16,
                      .heads = 2,
                      .attention = attention,
                      .rotation_invariant = rotation_invariant,
                      .min_width = 1.5,
                      .seed = 4});
  model->to(at::kDouble);
  return model;
}

at::Tensor rotation() {
  at::manual_seed(11);
  return std::get<0>(at::linalg_qr(at::randn({3, 3}, at::kDouble)));
}

const std::vector<Form> kSpaceForms = {
    {"linear", "none"},  {"linear", "absolute"}, {"linear", "rope"},   {"linear", "flt"},
    {"softmax", "none"}, {"softmax", "rope"},    {"softmax", "alibi"}, {"softmax", "absolute"},
    {"softmax", "t5"},   {"softmax", "flt"}};

TEST(PointEncoder, OrderPaddingAndPlaceDoNotMatter) {
  const Molecule m = molecule();
  const at::Tensor order = at::tensor({3, 0, 6, 1, 5, 2, 4}, at::kLong);
  for (const Form& form : kSpaceForms) {
    for (const char* factor : {"exp", "square", "linear"}) {
      SCOPED_TRACE(std::string(form.kind) + " " + form.position + " " + factor);
      const PointEncoder model = make_points(form, factor, true);
      const at::Tensor y = model->forward(m.types, m.positions, m.padding);
      EXPECT_EQ(y.sizes(), at::IntArrayRef({2, 2}));
      EXPECT_TRUE(
          close(model->forward(m.types.index_select(1, order), m.positions.index_select(1, order),
                               m.padding.index_select(1, order)),
                y, {1e-7, 1e-8}));
      const at::Tensor absent = m.padding.logical_not();
      EXPECT_TRUE(
          close(model->forward(m.types.masked_fill(absent, 3),
                               m.positions.masked_fill(absent.unsqueeze(-1), NAN), m.padding),
                y, {1e-8, 1e-9}));
      EXPECT_TRUE(close(model->forward(m.types.narrow(1, 0, 5).narrow(0, 1, 1),
                                       m.positions.narrow(1, 0, 5).narrow(0, 1, 1)),
                        y.narrow(0, 1, 1), {1e-7, 1e-8}));
      // Rotation before a nonlinear feature map is relative only in expectation.
      const std::string position = form.position;
      const bool moves = position == "absolute" || (position == "rope" && form.kind[0] == 'l');
      EXPECT_EQ(bool(close(model->forward(m.types, m.positions + 3.0, m.padding), y, {1e-6, 1e-7})),
                !moves);
      if (factor != std::string("exp") && position != "flt") break;
    }
  }
}

TEST(PointEncoder, RotationsDoNotMatterWherePromised) {
  const Molecule m = molecule();
  const at::Tensor turned = at::matmul(m.positions, rotation().t());
  for (const Form& form : kSpaceForms) {
    for (const bool promised : {true, false}) {
      SCOPED_TRACE(std::string(form.kind) + " " + form.position);
      if (form.kind[0] == 'l' && form.position == std::string("flt")) continue;
      const PointEncoder model = make_points(form, "exp", promised);
      const std::string position = form.position;
      const bool invariant =
          position == "none" || position == "alibi" || (position == "flt" && promised);
      // The table of t5 is zero at the start.
      randomise(*model, 7, 0.1);
      const at::Tensor y = model->forward(m.types, m.positions, m.padding);
      EXPECT_EQ(bool(close(model->forward(m.types, turned, m.padding), y, {1e-6, 1e-7})),
                invariant);
    }
  }
}

TEST(PointEncoder, MoreFrequenciesMakeLinearAttentionMoreInvariant) {
  const Molecule m = molecule();
  const at::Tensor turned = at::matmul(m.positions, rotation().t());
  const auto change = [&](bool invariant, int64_t frequencies) {
    const PointEncoder model = make_points({"linear", "flt"}, "linear", invariant, frequencies);
    const at::Tensor y = model->forward(m.types, m.positions, m.padding);
    return ((model->forward(m.types, turned, m.padding) - y).norm() / y.norm()).item<double>();
  };
  const double few = change(true, 4), many = change(true, 512), directed = change(false, 512);
  EXPECT_GT(few, 1e-6);
  EXPECT_LT(many, few / 3);
  EXPECT_LT(many, directed / 3);
}

TEST(PointEncoder, GradientsCopiesAndBadOptions) {
  const Molecule m = molecule();
  for (const Form& form : kSpaceForms) {
    SCOPED_TRACE(std::string(form.kind) + " " + form.position);
    const PointEncoder model = make_points(form, "linear", true);
    const at::Tensor y = model->forward(m.types, m.positions, m.padding);
    expect_gradients(*model, y);
    const auto copy = std::dynamic_pointer_cast<PointEncoderImpl>(model->clone());
    EXPECT_TRUE(close(copy->forward(m.types, m.positions, m.padding), y, {0, 0}));
  }
  EXPECT_THROW(PointEncoder({.num_types = 0}), InputError);
  EXPECT_THROW(PointEncoder({.pooling = "max"}), InputError);
  EXPECT_THROW(PointEncoder({.attention = {.position = "fft"}}), InputError);
  EXPECT_THROW(PointEncoder({.attention = {.position = "damped"}}), InputError);
}

}  // namespace
}  // namespace mnemosyne::nn
