#pragma once

#include "mnemosyne/nn/attention_options.h"
#include "mnemosyne/nn/causal_lm.h"
#include "mnemosyne/nn/linear_attention.h"
#include "mnemosyne/nn/point_encoder.h"
#include "mnemosyne/nn/softmax_attention.h"
#include "mnemosyne/nn/vit.h"

namespace mnemosyne::nn {

// As in position_fields.h, for what a module is made of.

template <typename Visit>
void for_each_field(RotaryPositionOptions& o, Visit&& visit) {
  visit("position_dim", o.position_dim);
  visit("base", o.base);
  visit("position_scale", o.position_scale);
}

template <typename Visit>
void for_each_field(AlibiOptions& o, Visit&& visit) {
  visit("position_scale", o.position_scale);
}

template <typename Visit>
void for_each_field(BucketBiasOptions& o, Visit&& visit) {
  visit("position_dim", o.position_dim);
  visit("num_buckets", o.num_buckets);
  visit("max_distance", o.max_distance);
  visit("position_scale", o.position_scale);
}

template <typename Visit>
void for_each_field(SoftmaxAttentionOptions& o, Visit&& visit) {
  visit("embed_dim", o.embed_dim);
  visit("num_heads", o.num_heads);
  visit("num_kv_heads", o.num_kv_heads);
  visit("causal", o.causal);
  visit("seed", o.seed);
}

template <typename Visit>
void for_each_field(LinearAttentionOptions& o, Visit&& visit) {
  visit("embed_dim", o.embed_dim);
  visit("num_heads", o.num_heads);
  visit("num_kv_heads", o.num_kv_heads);
  visit("feature_map", o.feature_map);
  visit("num_features", o.num_features);
  visit("causal", o.causal);
  visit("exact_length", o.exact_length);
  visit("seed", o.seed);
}

template <typename Visit>
void for_each_field(AttentionOptions& o, Visit&& visit) {
  visit("kind", o.kind);
  visit("position", o.position);
  visit("num_kv_heads", o.num_kv_heads);
  visit("feature_map", o.feature_map);
  visit("num_features", o.num_features);
  visit("spectrum", o.spectrum);
  visit("coupling", o.coupling);
  visit("factor", o.factor);
  visit("num_frequencies", o.num_frequencies);
  visit("num_components", o.num_components);
  visit("exact_length", o.exact_length);
  visit("initial_amplitude", o.initial_amplitude);
  visit("max_bound", o.max_bound);
  visit("phase", o.phase);
}

template <typename Visit>
void for_each_field(AttentionSite& o, Visit&& visit) {
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

/// What the three models have in common.
template <typename Options, typename Visit>
void for_each_model_field(Options& o, Visit&& visit) {
  visit("width", o.width);
  visit("heads", o.heads);
  visit("layers", o.layers);
  visit("hidden", o.hidden);
  visit("seed", o.seed);
}

template <typename Visit>
void for_each_field(CausalLMOptions& o, Visit&& visit) {
  visit("vocabulary", o.vocabulary);
  visit("context", o.context);
  for_each_model_field(o, visit);
}

template <typename Visit>
void for_each_field(ViTOptions& o, Visit&& visit) {
  visit("image_size", o.image_size);
  visit("channels", o.channels);
  visit("patch_size", o.patch_size);
  visit("num_classes", o.num_classes);
  for_each_model_field(o, visit);
}

template <typename Visit>
void for_each_field(PointEncoderOptions& o, Visit&& visit) {
  visit("num_types", o.num_types);
  visit("outputs", o.outputs);
  visit("rotation_invariant", o.rotation_invariant);
  visit("pooling", o.pooling);
  visit("min_width", o.min_width);
  visit("max_width", o.max_width);
  visit("extent", o.extent);
  for_each_model_field(o, visit);
}

}  // namespace mnemosyne::nn
