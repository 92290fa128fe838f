#include <cmath>
#include <string>

#include "mnemosyne/core/error.h"
#include "mnemosyne/ops/linear_attention/linear_attention.h"
#include "tests/linear_attention_cases.h"

namespace mnemosyne::ops {
namespace {

using testing::AttentionCall;
using testing::make_call;
using Kind = FeatureMapKind;

std::string message_of(const LinearAttentionInputs& inputs, const LinearAttentionOptions& options) {
  try {
    linear_attention(inputs, options);
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(LinearAttentionInput, IsCheckedWithALineThatNamesIt) {
  const AttentionCall good = make_call({.rank = 2}).leaves(at::kFloat);
  const auto expect = [&](const char* text, const auto& change) {
    AttentionCall bad = good;
    change(bad.inputs, bad.options);
    const std::string message = message_of(bad.inputs, bad.options);
    EXPECT_EQ(message.rfind("[linear_attention] expected ", 0), 0U) << message;
    EXPECT_NE(message.find(text), std::string::npos) << message;
  };
  using In = LinearAttentionInputs&;
  using Options = LinearAttentionOptions&;
  expect("query [B,H,L,D]", [](In in, Options) { in.query = in.query.select(0, 0); });
  expect("query [B,H,L,D]", [](In in, Options) { in.value = in.value.narrow(2, 0, 3); });
  expect("on the device of the query", [](In in, Options) { in.value = in.value.to(at::kMeta); });
  expect("a multiple of", [](In in, Options) {
    in.key = in.key.expand({2, 3, 65, 7});
    in.value = in.value.expand({2, 3, 65, 5});
  });
  expect("one floating-point dtype", [](In in, Options) { in.key = in.key.to(at::kDouble); });
  expect("as many queries as keys when causal",
         [](In in, Options) { in.query = in.query.narrow(2, 0, 3); });
  expect("omega of shape [W,7]", [](In, Options options) { options.omega = at::Tensor(); });
  expect("omega of shape [W,7]", [](In, Options options) { options.omega = at::ones({3, 2}); });
  expect("query_factor and key_factor together",
         [](In in, Options) { in.key_factor = at::Tensor(); });
  expect("key_factor of shape", [](In in, Options) { in.key_factor = at::ones({2, 65, 3}); });
  expect("query_factor of shape", [](In in, Options) { in.query_factor = at::ones({65, 2}); });
  expect("query_factor of shape",
         [](In in, Options) { in.query_factor = at::ones({3, 2, 65, 2}); });
  expect("key_factor of shape", [](In in, Options) { in.key_factor = at::ones({1, 2, 65, 2}); });
  expect("log_decay of shape", [](In in, Options) { in.log_decay = at::zeros({2, 65, 2, 2}); });
  expect("log_decay of shape", [](In in, Options) { in.log_decay = at::zeros({2, 65, 3}); });
  expect("log_decay only for causal", [](In in, Options options) {
    in.log_decay = at::zeros({2, 65, 2});
    options.causal = false;
  });
  expect("log_decay only for causal", [](In in, Options) {
    in.log_decay = at::zeros({2, 65, 2});
    in.query_factor = in.key_factor = at::Tensor();
  });
  expect("key_padding_mask of shape",
         [](In in, Options) { in.key_padding_mask = at::ones({2, 3}, at::kBool); });
  expect("dtype bool", [](In in, Options) { in.key_padding_mask = at::ones({2, 65}); });
  expect("query_log and key_log only", [](In in, Options options) {
    options.feature_map = Kind::kRelu;
    in.query_log = at::ones({2, 65, 5});
  });
  expect("key_log of shape", [](In in, Options) { in.key_log = at::ones({2, 65, 4}); });
  expect("a state of sums", [](In in, Options) { in.state.sums = at::ones({2, 2, 10, 5}); });
  expect("state.sums of shape", [](In in, Options) {
    in.state = {at::ones({2, 2, 5, 5}), at::ones({2, 2, 5}), at::ones({2, 2})};
  });
  expect("denominator_floor from", [](In, Options options) { options.denominator_floor = 0; });
  for (const double scale : {std::nan(""), -1.0}) {
    expect("a finite scale of 0 or more", [&](In, Options options) { options.scale = scale; });
  }
}

}  // namespace
}  // namespace mnemosyne::ops
