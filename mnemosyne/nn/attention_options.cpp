#include "mnemosyne/nn/attention_options.h"

#include "mnemosyne/core/choices.h"
#include "mnemosyne/nn/heads.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/softmax_attention.h"

namespace mnemosyne::nn {
namespace {

constexpr const char* kWhere = "attention";

// The constant map does not see the tokens.
const ops::FeatureMapTraits& map_of(const AttentionOptions& o) {
  using ops::FeatureMapKind;
  return ops::traits_of(
      ops::feature_map_kind("feature_map", o.linear.feature_map, FeatureMapKind::kConstant));
}

bool is_masked(const AttentionOptions& o) { return o.position == "flt" || o.position == "fft"; }

void check_mask(const AttentionOptions& o, const AttentionSite& site) {
  const FourierPositionOptions& mask = o.fourier;
  if (mask.num_frequencies < 1 || mask.num_components < 1 || o.num_components < 0) {
    refuse(kWhere, "a positive num_frequencies and num_components of 0 or more",
           std::to_string(mask.num_frequencies) + " and " + std::to_string(o.num_components));
  }
  if (!(mask.max_bound >= 0.0)) {
    refuse(kWhere, "max_bound of 0 or more", std::to_string(mask.max_bound));
  }
  if (o.position == "fft" && mask.coupling != "multiplicative") {
    refuse(kWhere, "the coupling multiplicative for fft", in_quotes(mask.coupling));
  }
  const size_t axes = site.position_dim == 2 ? 2 : 1;
  if (o.position == "fft" &&
      (site.position_dim > 2 || site.grid.size() != axes || (site.causal && axes == 2))) {
    refuse(kWhere, "tokens on a regular grid of one dimension, or of two and not causal, for fft",
           std::to_string(site.position_dim) + " dimensions and a grid of " +
               std::to_string(site.grid.size()));
  }
}

std::shared_ptr<Attention> make_linear(const AttentionOptions& o, const AttentionSite& site) {
  LinearAttentionOptions options = o.linear;
  options.embed_dim = site.embed_dim;
  options.num_heads = site.num_heads;
  options.num_kv_heads = o.num_kv_heads;
  options.causal = site.causal;
  options.seed = site.seed;
  options.position = chosen_position(o, site);
  return std::make_shared<LinearAttentionImpl>(options);
}

std::shared_ptr<Attention> make_softmax(const AttentionOptions& o, const AttentionSite& site) {
  return std::make_shared<SoftmaxAttentionImpl>(
      SoftmaxAttentionOptions{.embed_dim = site.embed_dim,
                              .num_heads = site.num_heads,
                              .num_kv_heads = o.num_kv_heads,
                              .causal = site.causal,
                              .position = chosen_position(o, site),
                              .seed = site.seed});
}

}  // namespace

void bind(Fields& visit, AttentionOptions& o) {
  visit("kind", o.kind);
  visit("position", o.position);
  visit("num_kv_heads", o.num_kv_heads);
  visit("num_components", o.num_components);
  visit("spectrum", o.fourier.kind);
  bind_choice(visit, o.linear);
  bind_choice(visit, o.fourier);
  bind_choice(visit, o.damped);
}

void bind(Fields& visit, AttentionSite& o) {
  visit("embed_dim", o.embed_dim);
  visit("num_heads", o.num_heads);
  visit("causal", o.causal);
  visit("position_dim", o.position_dim);
  visit("min_width", o.min_width);
  visit("max_width", o.max_width);
  visit("extent", o.extent);
  visit("rotation_invariant", o.rotation_invariant);
  visit("grid", o.grid);
  visit("seed", o.seed);
}

void validate(const AttentionOptions& o, const AttentionSite& site) {
  one_of(kWhere, o.kind, {"linear", "softmax"}, "kind");
  const bool linear = o.kind == "linear";
  one_of(kWhere, o.position, position_names(linear),
         linear ? "position of linear attention" : "position of softmax attention");
  check_heads(site.embed_dim, site.num_heads, o.num_kv_heads);
  if (o.position == "damped" && (!site.causal || site.position_dim != 1)) {
    refuse(kWhere, "causal attention on a line for damped",
           std::string(site.causal ? "causal" : "both directions") + " in " +
               std::to_string(site.position_dim) + " dimensions");
  }
  if (linear) {
    const bool pairs = map_of(o).per_vector == 2;
    const int64_t features = o.linear.num_features;
    if (features < 1 || (pairs && features % 2 != 0)) {
      refuse(kWhere,
             pairs ? "an even positive num_features for " + o.linear.feature_map
                   : "a positive num_features",
             std::to_string(features));
    }
    one_of(kWhere, o.fourier.coupling, {"concatenate", "multiplicative"}, "coupling");
    one_of(kWhere, o.fourier.factor, {"exp", "square", "linear"}, "factor");
  }
  if (is_masked(o)) check_mask(o, site);
}

std::shared_ptr<Attention> make_attention(const AttentionOptions& options,
                                          const AttentionSite& site) {
  validate(options, site);
  return options.kind == "linear" ? make_linear(options, site) : make_softmax(options, site);
}

}  // namespace mnemosyne::nn
