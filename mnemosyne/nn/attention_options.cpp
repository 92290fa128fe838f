#include "mnemosyne/nn/attention_options.h"

#include <algorithm>
#include <numeric>

#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/heads.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/softmax_attention.h"

namespace mnemosyne::nn {
namespace {

using Names = std::vector<std::string>;

void expect_one_of(const char* option, const std::string& value, const Names& known) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return;
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
  throw InputError("[attention] expected " + std::string(option) + " to be one of " + list +
                   ", got \"" + value + "\"");
}

[[noreturn]] void refuse(const std::string& expected, const std::string& got) {
  throw InputError("[attention] expected " + expected + ", got " + got);
}

bool is_masked(const AttentionOptions& o) { return o.position == "flt" || o.position == "fft"; }

void check_mask(const AttentionOptions& o, const AttentionSite& site) {
  if (o.num_frequencies < 1 || o.num_components < 0) {
    refuse("a positive num_frequencies and num_components of 0 or more",
           std::to_string(o.num_frequencies) + " and " + std::to_string(o.num_components));
  }
  if (!(o.max_bound >= 0.0)) refuse("max_bound of 0 or more", std::to_string(o.max_bound));
  if (o.position == "fft" && o.coupling != "multiplicative") {
    refuse("the coupling multiplicative for fft", "\"" + o.coupling + "\"");
  }
  const size_t axes = site.position_dim == 2 ? 2 : 1;
  if (o.position == "fft" &&
      (site.position_dim > 2 || site.grid.size() != axes || (site.causal && axes == 2))) {
    refuse("tokens on a regular grid of one dimension, or of two and not causal, for fft",
           std::to_string(site.position_dim) + " dimensions and a grid of " +
               std::to_string(site.grid.size()));
  }
}

FourierPositionOptions fourier_options(const AttentionOptions& o, const AttentionSite& site) {
  const bool positive = o.feature_map == "favor+" || o.feature_map == "hyp+";
  const bool small = o.kind == "linear" && o.coupling == "concatenate" && positive;
  // Of softmax the mask is exact and the coupling has no meaning.
  const bool exact = o.kind == "softmax" || o.position == "fft";
  return {.num_heads = site.num_heads,
          .position_dim = site.position_dim,
          .kind = o.spectrum,
          .coupling = exact ? "concatenate" : o.coupling,
          .factor = o.factor,
          .num_frequencies = o.num_frequencies,
          .num_components =
              o.num_components > 0 ? o.num_components : std::gcd(int64_t{8}, o.num_frequencies),
          .min_width = site.min_width,
          .max_width = site.max_width,
          .extent = site.extent,
          .initial_amplitude = o.initial_amplitude,
          .max_bound = o.max_bound > 0.0 ? o.max_bound : (small ? 1.0 : 0.0),
          .phase = o.phase,
          .rotation_invariant = site.rotation_invariant};
}

DampedPositionOptions damped_options(const AttentionOptions& o, const AttentionSite& site) {
  return {.num_heads = site.num_heads,
          .num_components =
              o.num_components > 0 ? o.num_components : DampedPositionOptions{}.num_components,
          .min_width = site.min_width,
          .max_width = site.max_width};
}

std::shared_ptr<Attention> make_linear(const AttentionOptions& o, const AttentionSite& site) {
  LinearAttentionOptions options{.embed_dim = site.embed_dim,
                                 .num_heads = site.num_heads,
                                 .num_kv_heads = o.num_kv_heads,
                                 .feature_map = o.feature_map,
                                 .num_features = o.num_features,
                                 .causal = site.causal,
                                 .position = {},
                                 .exact_length = o.exact_length,
                                 .seed = site.seed};
  if (o.position == "rope")
    options.position = RotaryPositionOptions{.position_dim = site.position_dim};
  if (o.position == "flt") options.position = fourier_options(o, site);
  if (o.position == "damped") options.position = damped_options(o, site);
  if (o.position == "fft") {
    options.position = FftMaskOptions{.mask = fourier_options(o, site),
                                      .columns = site.position_dim == 2 ? site.grid[1] : 0};
  }
  return std::make_shared<LinearAttentionImpl>(options);
}

std::shared_ptr<Attention> make_softmax(const AttentionOptions& o, const AttentionSite& site) {
  SoftmaxAttentionOptions options{.embed_dim = site.embed_dim,
                                  .num_heads = site.num_heads,
                                  .num_kv_heads = o.num_kv_heads,
                                  .causal = site.causal,
                                  .position = {},
                                  .seed = site.seed};
  if (o.position == "rope")
    options.position = RotaryPositionOptions{.position_dim = site.position_dim};
  if (o.position == "alibi") options.position = AlibiOptions{};
  if (o.position == "t5") options.position = BucketBiasOptions{.position_dim = site.position_dim};
  if (o.position == "flt") options.position = fourier_options(o, site);
  if (o.position == "damped") options.position = damped_options(o, site);
  return std::make_shared<SoftmaxAttentionImpl>(options);
}

}  // namespace

void validate(const AttentionOptions& o, const AttentionSite& site) {
  expect_one_of("kind", o.kind, {"linear", "softmax"});
  const bool linear = o.kind == "linear";
  expect_one_of(linear ? "position of linear attention" : "position of softmax attention",
                o.position,
                linear ? Names{"none", "absolute", "rope", "flt", "fft", "damped"}
                       : Names{"none", "absolute", "rope", "alibi", "t5", "flt", "damped"});
  check_heads(site.embed_dim, site.num_heads, o.num_kv_heads);
  if (o.position == "damped" && (!site.causal || site.position_dim != 1)) {
    refuse("causal attention on a line for damped",
           std::string(site.causal ? "causal" : "both directions") + " in " +
               std::to_string(site.position_dim) + " dimensions");
  }
  if (linear) {
    expect_one_of("feature_map", o.feature_map, {"favor+", "hyp+", "trig", "relu", "elu+1"});
    const bool pairs = o.feature_map == "hyp+" || o.feature_map == "trig";
    if (o.num_features < 1 || (pairs && o.num_features % 2 != 0)) {
      refuse(
          pairs ? "an even positive num_features for " + o.feature_map : "a positive num_features",
          std::to_string(o.num_features));
    }
    expect_one_of("coupling", o.coupling, {"concatenate", "multiplicative"});
    expect_one_of("factor", o.factor, {"exp", "square", "linear"});
  }
  if (is_masked(o)) check_mask(o, site);
}

std::shared_ptr<Attention> make_attention(const AttentionOptions& options,
                                          const AttentionSite& site) {
  validate(options, site);
  return options.kind == "linear" ? make_linear(options, site) : make_softmax(options, site);
}

}  // namespace mnemosyne::nn
