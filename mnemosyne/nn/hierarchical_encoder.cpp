#include "mnemosyne/nn/hierarchical_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <string>

#include "mnemosyne/core/choices.h"
#include "mnemosyne/core/error.h"
#include "mnemosyne/nn/copy_module.h"

namespace mnemosyne::nn {
namespace {

constexpr char kWhere[] = "hierarchical_encoder";
constexpr uint64_t kEmbedSeed = 1000, kTensorSeed = 1001, kBiasSeed = 1002;

void validate(const HierarchicalEncoderOptions& o) {
  if (o.token_dim < 1 || o.tensor_dim < 0 || o.position_dim < 1 || !(o.extent > 0.0)) {
    throw InputError(
        "[hierarchical_encoder] expected positive token_dim, position_dim and extent and "
        "tensor_dim "
        "of 0 or more, got " +
        std::to_string(o.token_dim) + ", " + std::to_string(o.position_dim) + ", " +
        std::to_string(o.extent) + " and " + std::to_string(o.tensor_dim));
  }
  const auto is_positive = [](int64_t length) { return length > 0; };
  if (o.chunk_lengths.empty() ||
      !std::all_of(o.chunk_lengths.begin(), o.chunk_lengths.end(), is_positive)) {
    throw InputError("[hierarchical_encoder] expected chunk_lengths of 1 or more, at least one");
  }
  one_of(kWhere, o.attention.position, {"flt", "absolute", "none"}, "position");
}

size_t num_levels(const HierarchicalEncoderOptions& o) { return o.chunk_lengths.size(); }

AttentionOptions attention_of(const HierarchicalEncoderOptions& o, uint64_t level) {
  AttentionOptions attention = o.attention;
  if (level == num_levels(o)) attention.position = "none";  // the tensors of a set have no order
  return attention;
}

AttentionSite site_of(const HierarchicalEncoderOptions& o, uint64_t level) {
  return {.embed_dim = o.width,
          .num_heads = o.heads,
          .position_dim = o.position_dim,
          .max_width = std::max(o.extent / 2.0, 1.0),
          .extent = o.extent,
          .seed = part_seed(*o.seed, level)};
}

/// Where tokens are in their chunk, from its middle, [N,P] to [C,L,P]. No offset exceeds `extent`.
at::Tensor places_in_chunks(const ChunkPlan& plan, const at::Tensor& positions, double extent) {
  const at::Tensor middle = plan.spread(plan.pool(positions));
  return plan.gather((positions - middle).clamp(-0.5 * extent, 0.5 * extent));
}

at::Tensor encode(const PerformerBlock& block, const EncoderPlan::Level& level,
                  const at::Tensor& tokens) {
  if (tokens.size(0) == 0) return tokens;
  AttentionInputs inputs{.positions = level.positions,
                         .key_padding_mask = level.chunks.mask(),
                         .factor = level.factor};
  return level.chunks.scatter(block->forward(level.chunks.gather(tokens), inputs));
}

}  // namespace

void bind(Fields& visit, HierarchicalEncoderOptions& o) {
  visit("token_dim", o.token_dim);
  visit("tensor_dim", o.tensor_dim);
  visit("width", o.width);
  visit("heads", o.heads);
  visit("hidden", o.hidden);
  visit("chunk_lengths", o.chunk_lengths);
  visit("position_dim", o.position_dim);
  visit("extent", o.extent);
  visit("seed", o.seed);
}

at::Tensor sinusoids(const at::Tensor& positions, int64_t width, double extent) {
  const int64_t axes = positions.size(-1), waves = width / (2 * axes);
  const at::Tensor index = at::arange(waves, positions.options());
  // From half a wave over the extent to one wave per unit.
  const double shortest = std::max(2.0 * extent, 2.0);
  const at::Tensor lengths =
      (2.0 * extent) * (index * (-std::log(shortest) / std::max<double>(waves - 1.0, 1.0))).exp();
  const at::Tensor angles =
      (positions.unsqueeze(-1) * (2.0 * std::numbers::pi) / lengths).flatten(-2);
  const at::Tensor result = at::cat({angles.sin(), angles.cos()}, -1);
  return at::constant_pad_nd(result, {0, width - result.size(-1)}, 0);
}

HierarchicalEncoderImpl::HierarchicalEncoderImpl(const HierarchicalEncoderOptions& options)
    : torch::nn::Module("HierarchicalEncoder"), options_(with_seed(options)) {
  validate(options);
  embed = register_module("embed", Dense(options.token_dim, options.width, true,
                                         part_seed(*options_.seed, kEmbedSeed)));
  // A token of which nothing is known is not zero, which a norm would blow up.
  embed->bias.set_data(
      seeded_normal({options.width}, kEmbeddingDeviation, part_seed(*options_.seed, kBiasSeed)));
  if (options.tensor_dim > 0) {
    embed_tensor = register_module("embed_tensor", Dense(options.tensor_dim, options.width, true,
                                                         part_seed(*options_.seed, kTensorSeed)));
  }
  for (uint64_t level = 0; level <= num_levels(options_); ++level) {
    const PerformerBlockOptions block{.site = site_of(options_, level),
                                      .attention = attention_of(options_, level),
                                      .hidden = options.hidden};
    blocks.push_back(register_module("block" + std::to_string(level), PerformerBlock(block)));
  }
}

void HierarchicalEncoderImpl::check(const TokenPlaces& in) const {
  const auto total = [](const std::vector<int64_t>& counts) {
    return std::accumulate(counts.begin(), counts.end(), int64_t{0});
  };
  const auto tensors = static_cast<int64_t>(in.counts.size());
  TORCH_CHECK(
      options_.attention.position == "none" || (in.positions.defined() && in.positions.dim() == 2 &&
                                                in.positions.size(0) == total(in.counts) &&
                                                in.positions.size(1) == options_.position_dim),
      "[hierarchical_encoder] expected positions [", total(in.counts), ",", options_.position_dim,
      "], got ", in.positions.defined() ? in.positions.sizes() : at::IntArrayRef{});
  TORCH_CHECK(in.set_counts.empty() || total(in.set_counts) == tensors,
              "[hierarchical_encoder] expected sets of ", tensors, " tensors in all, got ",
              total(in.set_counts));
}

void HierarchicalEncoderImpl::check(const TensorTokens& in, const EncoderPlan& plan) const {
  TORCH_CHECK(plan.levels.size() == num_levels(options_),
              "[hierarchical_encoder] expected a plan "
              "of ",
              num_levels(options_), " levels, got ", plan.levels.size());
  const int64_t tokens = plan.levels.front().chunks.num_tokens();
  const int64_t tensors = plan.tensors_of_sets.num_tokens();
  TORCH_CHECK(in.tokens.dim() == 2 && in.tokens.size(0) == tokens &&
                  in.tokens.size(1) == options_.token_dim,
              "[hierarchical_encoder] expected tokens [", tokens, ",", options_.token_dim,
              "], got ", in.tokens.sizes());
  TORCH_CHECK(options_.tensor_dim == 0 ||
                  (in.tensors.defined() && in.tensors.dim() == 2 && in.tensors.size(0) == tensors &&
                   in.tensors.size(1) == options_.tensor_dim),
              "[hierarchical_encoder] expected tensors [", tensors, ",", options_.tensor_dim,
              "], got ", in.tensors.defined() ? in.tensors.sizes() : at::IntArrayRef{});
}

EncoderPlan HierarchicalEncoderImpl::plan(const TokenPlaces& in, at::Device device) const {
  check(in);
  EncoderPlan plan;
  const std::string& position = options_.attention.position;
  at::Tensor positions = position == "flt" ? in.positions.to(device) : at::Tensor();
  if (position == "absolute") {
    plan.sinusoids = sinusoids(in.positions.to(device), options_.width, options_.extent);
  }
  std::vector<int64_t> counts = in.counts;
  for (size_t k = 0; k < num_levels(options_); ++k) {
    const int64_t length = options_.chunk_lengths[k];
    EncoderPlan::Level& level = plan.levels.emplace_back();
    level.chunks = ChunkPlan(counts, length, device);
    if (positions.defined() && positions.size(0) > 0) {
      level.positions = places_in_chunks(level.chunks, positions, options_.extent);
      positions = level.chunks.pool(positions) / static_cast<double>(length);
    }
    counts = level.chunks.chunk_counts();
  }
  plan.meta_of_tensors = ChunkPlan(counts, 0, device);
  const std::vector<int64_t> one_set{static_cast<int64_t>(in.counts.size())};
  plan.tensors_of_sets = ChunkPlan(in.set_counts.empty() ? one_set : in.set_counts, 0, device);
  return plan;
}

void HierarchicalEncoderImpl::add_factors(EncoderPlan& plan) const {
  for (size_t k = 0; k < plan.levels.size(); ++k) {
    EncoderPlan::Level& level = plan.levels[k];
    if (!level.positions.defined()) continue;
    level.factor = blocks[k]->attention->position_factor(
        {.positions = level.positions, .key_padding_mask = level.chunks.mask()});
  }
}

std::vector<at::Tensor*> EncoderPlan::factors() {
  std::vector<at::Tensor*> result;
  for (Level& level : levels) {
    for (at::Tensor* x : {&level.factor.query, &level.factor.key, &level.factor.log_decay}) {
      if (x->defined()) result.push_back(x);
    }
  }
  return result;
}

EncodedTensors HierarchicalEncoderImpl::forward(const TensorTokens& in,
                                                const EncoderPlan& plan) const {
  check(in, plan);
  EncodedTensors out;
  at::Tensor x = embed->forward(in.tokens);
  if (plan.sinusoids.defined()) x = x + plan.sinusoids.to(x.scalar_type());
  for (size_t k = 0; k < num_levels(options_); ++k) {
    out.tokens.push_back(encode(blocks[k], plan.levels[k], x));
    x = plan.levels[k].chunks.pool(out.tokens.back());
  }
  out.meta = x;
  x = plan.meta_of_tensors.pool(x);
  if (embed_tensor) x = x + embed_tensor->forward(in.tensors);
  out.tensors = encode(blocks.back(), {.chunks = plan.tensors_of_sets}, x);
  out.sets = plan.tensors_of_sets.pool(out.tensors);
  return out;
}

at::Tensor HierarchicalEncoderImpl::spread(const EncodedTensors& encoded,
                                           const EncoderPlan& plan) const {
  at::Tensor x = encoded.tensors + plan.tensors_of_sets.spread(encoded.sets);
  x = encoded.meta + plan.meta_of_tensors.spread(x);
  for (size_t level = encoded.tokens.size(); level-- > 0;) {
    x = encoded.tokens[level] + plan.levels[level].chunks.spread(x);
  }
  return x;
}

std::shared_ptr<torch::nn::Module> HierarchicalEncoderImpl::clone(
    const std::optional<at::Device>& device) const {
  const auto copy = std::make_shared<HierarchicalEncoderImpl>(options_);
  copy_module(*this, *copy, device);
  return copy;
}

}  // namespace mnemosyne::nn
