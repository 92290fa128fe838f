#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <vector>

#include "mnemosyne/nn/feature_map.h"
#include "mnemosyne/ops/linear_attention/linear_attention.h"

namespace mnemosyne::testing {

// Letters as in ops/linear_attention/linear_attention.h.

/// A random call, in float64; tests round it to what they need.
struct AttentionCase {
  int64_t batch = 2;
  int64_t heads = 2;
  int64_t key_heads = 1;
  int64_t queries = 65;
  int64_t keys = 65;
  int64_t depth = 7;
  int64_t value_depth = 5;
  int64_t omegas = 5;
  int64_t rank = 0;  ///< 0: no position factors.
  double decay = 0;  ///< Of factors, from token to token, about; 0: none.
  /// Which of query_factor, key_factor and log_decay differ between the examples: "qkd" all.
  std::string own{};
  std::optional<ops::FeatureMapKind> map = ops::FeatureMapKind::kFavorPlus;
  bool causal = true;
  bool logs = false;
  bool mask = false;
  bool state = false;
  bool with_state = true;  ///< Whether the result has one.
  double spread = 0.7;     ///< Of queries and keys.
};

inline bool has_offset(const AttentionCase& c) {
  return c.map.has_value() && ops::traits_of(*c.map).estimates;
}

struct AttentionCall {
  ops::LinearAttentionInputs inputs;
  ops::LinearAttentionOptions options;

  std::vector<at::Tensor*> differentiable() {
    ops::LinearAttentionInputs& in = inputs;
    std::vector<at::Tensor*> list;
    for (at::Tensor* x :
         {&in.query, &in.key, &in.value, &in.query_factor, &in.key_factor, &in.log_decay,
          &in.query_log, &in.key_log, &in.state.sums, &in.state.normalizer}) {
      if (x->defined()) list.push_back(x);
    }
    return list;
  }

  /// Rounded to `type`, as new leaves of a graph.
  AttentionCall leaves(at::ScalarType type) const {
    AttentionCall copy = *this;
    for (at::Tensor* x : copy.differentiable()) {
      *x = x->detach().to(type, /*non_blocking=*/false, /*copy=*/true);
      x->requires_grad_(true);
    }
    return copy;
  }
};

inline AttentionCall make_call(const AttentionCase& c, int64_t seed = 1) {
  at::manual_seed(static_cast<uint64_t>(seed));
  const auto normal = [](at::IntArrayRef sizes) { return at::randn(sizes, at::kDouble); };
  AttentionCall call;
  ops::LinearAttentionInputs& in = call.inputs;
  in.query = normal({c.batch, c.heads, c.queries, c.depth}) * c.spread;
  in.key = normal({c.batch, c.key_heads, c.keys, c.depth}) * c.spread;
  in.value = normal({c.batch, c.key_heads, c.keys, c.value_depth});
  call.options = {.feature_map = c.map, .causal = c.causal, .with_state = c.with_state};
  int64_t features = c.depth;
  if (!c.map.has_value()) {
    in.query = in.query.abs() + 0.1;
    in.key = in.key.abs() + 0.1;
  } else if (c.map != ops::FeatureMapKind::kElu) {
    call.options.omega = nn::draw_omega(c.omegas, c.depth, 3);
    features = ops::num_features(*c.map, c.omegas);
  }
  const auto table = [&](char name, int64_t length) {
    const bool own = c.own.find(name) != std::string::npos;
    return own ? normal({c.batch, c.heads, length, c.rank}).abs()
               : normal({c.heads, length, c.rank}).abs();
  };
  if (c.rank > 0) {
    in.query_factor = table('q', c.queries) + 0.2;
    in.key_factor = table('k', c.keys) + 0.2;
  }
  // Parts of the factor fade from not at all to fast.
  if (c.decay > 0) {
    const at::Tensor rates = at::linspace(0, 2 * c.decay, c.rank, at::kDouble);
    in.log_decay = -table('d', c.keys) * rates;
  }
  if (c.logs) {
    in.query_log = normal({c.heads, c.queries, features}) * 0.5;
    in.key_log = normal({c.heads, c.keys, features}) * 0.5;
  }
  if (c.mask) {
    in.key_padding_mask = at::rand({c.batch, c.keys}, at::kDouble) > 0.3;
    in.key_padding_mask.select(1, 0).fill_(true);
  }
  if (c.state) {
    const int64_t size = std::max<int64_t>(c.rank, 1) * features;
    in.state.sums = normal({c.batch, c.heads, size, c.value_depth});
    in.state.normalizer = normal({c.batch, c.heads, size}).abs() + 0.5;
    in.state.offset = has_offset(c) ? normal({c.batch, c.heads}) * 0.3
                                    : at::zeros({c.batch, c.heads}, at::kDouble);
  }
  return call;
}

/// Every combination that takes another path, each in an odd size of its own.
inline std::vector<AttentionCase> attention_cases() {
  using Kind = ops::FeatureMapKind;
  return {
      {},
      {.batch = 1, .heads = 1, .queries = 1, .keys = 1},
      {.queries = 3, .keys = 3, .map = Kind::kHypPlus, .logs = true},
      {.key_heads = 2, .queries = 130, .keys = 130, .map = std::nullopt},
      {.heads = 4, .key_heads = 2, .depth = 64, .value_depth = 64, .omegas = 64, .mask = true},
      {.queries = 67, .keys = 67, .map = Kind::kRelu, .mask = true, .state = true},
      {.depth = 20, .value_depth = 33, .map = Kind::kElu, .state = true},
      {.depth = 3, .omegas = 40, .map = Kind::kTrig, .state = true, .spread = 0.3},
      {.rank = 1, .logs = true, .state = true},
      {.queries = 140, .keys = 140, .rank = 3, .map = Kind::kHypPlus, .mask = true, .state = true},
      {.heads = 4, .key_heads = 2, .queries = 70, .keys = 70, .rank = 2, .map = std::nullopt},
      {.queries = 300, .keys = 300, .rank = 5, .decay = 0.1, .map = Kind::kRelu},
      {.queries = 140, .keys = 140, .rank = 17, .decay = 0.5, .mask = true, .state = true},
      {.heads = 4,
       .key_heads = 2,
       .queries = 131,
       .keys = 131,
       .rank = 2,
       .decay = 60,
       .map = Kind::kElu,
       .state = true},
      {.queries = 1, .keys = 1, .rank = 3, .decay = 1, .map = Kind::kHypPlus, .state = true},
      // Positions that differ between the examples, of each kind.
      {.batch = 3,
       .heads = 4,
       .key_heads = 2,
       .queries = 150,
       .keys = 150,
       .rank = 5,
       .decay = 0.5,
       .own = "qkd",
       .mask = true,
       .state = true},
      {.queries = 70, .keys = 70, .rank = 3, .decay = 0.3, .own = "d", .state = true},
      {.queries = 70, .keys = 70, .rank = 3, .decay = 0.3, .own = "qk", .map = Kind::kRelu},
      {.rank = 2, .own = "q", .map = Kind::kHypPlus, .logs = true, .state = true},
      {.queries = 9, .keys = 70, .rank = 3, .own = "k", .causal = false, .mask = true},
      {.queries = 140,
       .keys = 140,
       .rank = 40,
       .decay = 0.2,
       .own = "kd",
       .mask = true,
       .with_state = false},
      {.queries = 70,
       .keys = 150,
       .rank = 64,
       .own = "qk",
       .map = Kind::kRelu,
       .causal = false,
       .with_state = false},
      {.queries = 70, .keys = 9, .causal = false},
      {.queries = 1,
       .keys = 133,
       .map = Kind::kHypPlus,
       .causal = false,
       .logs = true,
       .mask = true},
      {.queries = 9, .keys = 70, .map = Kind::kTrig, .causal = false, .state = true, .spread = 0.3},
      {.queries = 5,
       .keys = 140,
       .rank = 3,
       .map = Kind::kRelu,
       .causal = false,
       .mask = true,
       .state = true},
      {.heads = 4,
       .key_heads = 2,
       .queries = 70,
       .keys = 65,
       .rank = 1,
       .causal = false,
       .logs = true,
       .state = true},
      {.queries = 20, .keys = 30, .map = Kind::kElu, .causal = false},
      {.queries = 20, .keys = 30, .map = Kind::kConstant, .causal = false},
      {.queries = 20, .keys = 20, .rank = 4, .map = Kind::kConstant},
      // Without a state: few tokens and a high rank, block by block, and others as before.
      {.queries = 9, .keys = 9, .with_state = false},
      {.queries = 5, .keys = 7, .causal = false, .with_state = false},
      {.queries = 300, .keys = 300, .rank = 40, .with_state = false},
      {.heads = 4,
       .key_heads = 2,
       .queries = 299,
       .keys = 299,
       .rank = 40,
       .decay = 0.02,
       .map = Kind::kHypPlus,
       .logs = true,
       .mask = true,
       .with_state = false},
      {.queries = 270, .keys = 270, .rank = 30, .decay = 3, .map = Kind::kElu, .with_state = false},
      {.queries = 70,
       .keys = 200,
       .rank = 64,
       .causal = false,
       .logs = true,
       .mask = true,
       .with_state = false},
      {.queries = 200,
       .keys = 70,
       .rank = 64,
       .map = Kind::kTrig,
       .causal = false,
       .with_state = false,
       .spread = 0.3},
      {.queries = 70, .keys = 140, .rank = 3, .causal = false, .mask = true, .with_state = false},
      {.queries = 70, .keys = 140, .rank = 3, .causal = false, .state = true, .with_state = false},
  };
}

inline std::string describe(const AttentionCase& c) {
  std::string text =
      "own " + c.own + " map " + (c.map ? std::to_string(static_cast<int>(*c.map)) : "identity");
  for (const auto& [name, value] :
       std::initializer_list<std::pair<const char*, int64_t>>{{" L", c.queries},
                                                              {" S", c.keys},
                                                              {" R", c.rank},
                                                              {" decay", c.decay > 0},
                                                              {" causal", c.causal},
                                                              {" logs", c.logs},
                                                              {" mask", c.mask},
                                                              {" state", c.state},
                                                              {" next", c.with_state}}) {
    text += name + std::string("=") + std::to_string(value);
  }
  return text;
}

}  // namespace mnemosyne::testing
